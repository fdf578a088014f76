/* The engine's own state, shared by the files of this folder. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include "api/metrics.h"
#include "api/validate.h"
#include "base/event_count.h"
#include "engine/engine.h"
#include "engine/kv_hub.h"
#include "engine/request_registry.h"
#include "engine/stream.h"
#include "scheduler/scheduler.h"
#include "text/text_assets.h"

enum {
    COMMANDS_PER_CHOICE = 4,   /* a submit and a cancel each, and room for those of choices just released */
    COMMANDS_SPARE = 1024,     /* cancels of threads that were held up while their choice was released */
    LOOP_IDLE_WAIT_MS = 50,    /* heartbeat of an idle loop */
    LOOP_SCAN_INTERVAL_MS = 5, /* how often deadlines and stalled readers are looked at */
};

enum engine_command_kind { COMMAND_SUBMIT, COMMAND_CANCEL };

struct engine_command {
    enum engine_command_kind kind;
    struct stream *stream; /* COMMAND_SUBMIT */
    struct choice *choice; /* COMMAND_CANCEL */
};

/* One planned sequence of a step in flight: the plan's memory is gone when the results come. */
struct flight_seq {
    struct choice *choice;
    uint32_t handle, generation;
    uint32_t output;       /* index of its sampling output in the step */
    uint32_t first_output; /* its outputs of kind LOGPROBS are [first_output, output) */
    uint32_t first_position;
    bool samples;
};

struct flight {
    struct step *step;
    struct flight_seq *seqs; /* [max_num_seqs] */
    uint32_t n_seqs;
};

/* Written by the loop, read by anyone. */
struct engine_counters {
    _Atomic uint32_t waiting, running, paused, blocks_used, blocks_cached;
    _Atomic uint64_t prefix_queries, prefix_hits, prompt_tokens, generation_tokens, requests, finished,
        preemptions, steps;
    _Atomic uint64_t tokens_per_s_bits; /* a double */
    _Atomic int64_t step_ns;            /* smoothed time of a step */
    _Atomic int64_t heartbeat_ns;
    _Atomic bool step_running;
    _Atomic int64_t overhead_ns, execute_ns;
    _Atomic uint64_t prefill_rows, decode_rows;
};

struct engine {
    struct service service; /* first: the vtable */
    struct executor executor;
    const struct executor_info *info;
    struct model *model; /* owned, NULL over a borrowed executor */
    struct text_assets owned_text;
    const struct text_assets *text; /* NULL = token ids only */
    const struct clock *clock;
    struct engine_options options;
    struct sched_config sched_config;
    uint32_t max_choices; /* waiting and running */

    char served_name[256];
    char fingerprints[5][17];
    struct model_info model_info;
    struct sampling_params model_defaults;
    char *model_path; /* owned; NULL without a model */
    uint32_t eos_ids[GENERATION_EOS_MAX];
    size_t n_eos_ids;
    uint64_t salt_key[2];

    struct event_count progress; /* bumped by the loop once per step that said something */
    struct event_count wake;     /* bumped for the loop */
    struct mpsc_ring *commands;
    struct request_registry *registry;
    struct kv_hub *kv_hub;               /* NULL without a prefix cache */
    _Atomic uint32_t n_choices_reserved; /* accepted, not yet released by the loop */
    _Atomic uint32_t n_streams;          /* accepted, not yet let go by both reader and loop */
    _Atomic uint64_t next_request_number;
    _Atomic bool draining, stopping, parked;
    _Atomic bool failed; /* the executor is lost: `failure`, written before by the loop, says why */
    err_t failure;       /* ERR_UNAVAILABLE */
    _Atomic(struct stream *) garbage; /* streams that the loop dropped last */
    struct engine_counters counters;
    struct metrics metrics;

    /* The loop's. */
    pthread_t thread;
    bool thread_started;
    struct sched *sched;
    struct flight flights[SCHED_STEPS_IN_FLIGHT_MAX];
    uint32_t first_flight, n_flights;
    struct sched_result *results; /* [max_num_seqs] */
    struct choice *active;        /* submitted and not released */
    bool published;               /* something for readers happened since the last bump */
    int64_t scanned_ns;           /* deadlines and stalls were looked at */
    bool is_tending;              /* the executor has work that waited for a time without any */
    int64_t window_start_ns;
    uint64_t window_tokens;
};

/* Drops one of the loop's references; the loop never frees, so the last one goes to the garbage list. */
void engine_drop_stream(struct engine *engine, struct stream *stream);

/* admission.c: what a request may ask for, and the vtable's submit. */
struct validate_limits engine_validate_limits(const struct engine *engine);
err_t engine_submit(struct service *service, const struct request *request, struct stream **out);
err_t engine_tokenize_request(struct engine *engine, const struct request *request, struct token_list *ids);
void engine_collect_garbage(struct engine *engine);
/* Of requests with this cache_salt, or without one this tenant; 0 = of nobody. */
uint64_t engine_salt(const struct engine *engine, const char *cache_salt, const char *tenant);

/* Any thread: asks the loop to end a choice. Idempotent. */
void engine_cancel_choice(struct engine *engine, struct choice *choice);

/* loop.c: the loop thread's body. */
void *engine_loop_main(void *engine);
/* Ends everything that was submitted; the loop's last act, and once more after it for what came too late. */
void engine_abort_all(struct engine *engine);

/* step_builder.c: plan -> step, and the slots that must be set first. */
void engine_build_step(struct engine *engine, const struct sched_plan *plan, struct flight *flight);

/* loop_publish.c: results of a collected step -> rings, finishes, commit. */
void engine_publish_step(struct engine *engine, struct flight *flight, int64_t now_ns);

/* engine_loads.c */
void engine_loads(struct service *service, struct loads *out);
void engine_count_step(struct engine *engine, int64_t now_ns, uint32_t n_rows, uint32_t n_drawn);
void engine_count_state(struct engine *engine);
/* What a newcomer's first token will take at the very least: half of what is predicted, and 0 when nobody
 * waits (then a step may be free) or when priorities may let it pass. Any thread. */
int64_t engine_least_wait_ns(const struct engine *engine, uint32_t *waiting);
/* The loop, before the choice's times are moved on: a token was drawn. */
void engine_count_token(struct engine *engine, const struct choice *choice, int64_t now_ns);
/* The loop: a turn that launched a step. */
void engine_count_turn(struct engine *engine, int64_t turn_ns, int64_t executed_ns);
/* Any thread: a request was accepted. */
void engine_count_request(struct engine *engine, const struct sampling_params *params);
/* The reader: what it gave out as a choice's end. */
void engine_count_finish(struct engine *engine, const struct choice *choice, const struct event *finish);
/* The reader goes: choices whose end it has not taken are counted as aborted. */
void engine_count_left(struct engine *engine, const struct stream *stream);

/* engine_memory.c: the sizes of what the loop works with. hash_key is left to the caller. */
struct sched_config engine_sched_config(const struct engine_options *options,
                                        const struct executor_info *info);
size_t engine_command_capacity(uint32_t max_choices);
/* model_options.engine_bytes over the engine_options in context. */
uint64_t engine_planned_bytes(const void *engine_options, const struct memory_plan *plan);

/* executor_model.c: the executor over a model. */
struct executor_info executor_sizes_of_plan(const struct memory_plan *plan); /* its lengths and counts */
err_t executor_over_model(struct model *model, struct executor *out) ERR_MUST_CHECK;
void executor_over_model_free(struct executor *executor);
