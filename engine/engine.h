/* The engine: one loop over scheduler and model, behind api's service.
 *
 *   submit (any thread): validate, template, tokenise -> submit ring -> loop thread: admit -> plan -> execute
 * -> commit
 *   -> token ring of each choice + one bump of the progress event per step -> the stream's reader:
 * detokenise, stop strings
 *
 * The loop thread owns scheduler and executor, takes no lock, allocates nothing once running and never waits
 * for a reader: a choice whose ring is full is paused, is the first to be preempted, and is cancelled after
 * stream_stall_timeout_ns. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "api/service.h"
#include "base/clock.h"
#include "base/error.h"
#include "engine/executor.h"
#include "model/model.h"

struct engine;
struct text_assets;

enum engine_policy { ENGINE_FCFS, ENGINE_PRIORITY };

struct engine_options {
    struct model_options model;
    const char *served_model_name;  /* NULL = the path's last component, without .gguf */
    bool skip_tokenizer_init;       /* token ids only */
    const char *chat_template_path; /* NULL = the model's own */
    bool ignore_generation_config;  /* built-in sampling defaults instead of generation_config.json's */
    enum engine_policy policy;
    bool disable_prefix_caching;
    double tenant_cache_share; /* of the KV blocks: what one tenant's free blocks may keep cached; 0 = all */
    uint32_t prefill_chunk;    /* most prompt tokens of one request in a step; 0 = the step's budget */
    uint32_t max_waiting;      /* choices queued beyond the running ones; then RESOURCE_EXHAUSTED */
    uint32_t steps_in_flight;  /* 1 or 2; 0 = the executor's best */
    uint64_t caller_bytes;     /* what the caller will hold beside the engine: counted in the memory plan */
    int64_t stream_stall_timeout_ns; /* a reader that takes nothing for so long loses its request; 0 = 60 s */
    const struct clock *clock;       /* NULL = monotonic */
};

/* What the serving commands start from: everything 0 but max_num_seqs 64, max_num_batched_tokens 512,
 * max_waiting 1024. */
struct engine_options engine_options_default(void);

/* Loads model and text, makes the service, starts the loop thread. on_plan: see model_load. Errors name file
 * and field. */
err_t engine_open(const struct engine_options *options, void (*on_plan)(const struct memory_plan *plan),
                  struct engine **out) ERR_MUST_CHECK;

/* The same over any executor and text (NULL = none), both borrowed: tests and the loop's own benchmark. */
err_t engine_open_executor(const struct engine_options *options, const struct executor *executor,
                           const struct text_assets *text, struct engine **out) ERR_MUST_CHECK;

/* Ends the loop (what still runs is aborted) and frees everything. Every stream must have been released. */
void engine_close(struct engine *engine);

struct service *engine_service(struct engine *engine);
const struct memory_plan *engine_memory_plan(const struct engine *engine); /* NULL without a model */
const char *engine_backend_description(const struct engine *engine);

/* Time of the loop thread outside the executor, and steps, since start: what the scheduling itself costs. */
struct engine_loop_stats {
    uint64_t steps;
    int64_t overhead_ns, execute_ns;
    uint64_t prefill_rows, decode_rows;
};
void engine_loop_stats_read(struct engine *engine, struct engine_loop_stats *out);

/* Tests: parks the loop between two steps until resumed (a dead loop that health must notice). */
void engine_loop_park(struct engine *engine, bool parked);
