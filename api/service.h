/* What stands behind a door: an engine, or a router in front of several. A door knows nothing else.
 *
 * Threads: submit, cancel, loads and the like from any thread; one reader at a time per stream. A door waits
 * on service_progress() and then asks its streams for events; the service bumps it once per step at most. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "api/event.h"
#include "api/kv_events.h"
#include "api/request.h"
#include "base/buffer.h"
#include "base/error.h"

struct event_count; /* base/event_count.h, whose atomics C++ cannot read */
struct metrics;     /* api/metrics.h, likewise */
struct service;
struct stream; /* one submitted request, seen by its reader */

/* The architecture of a service that has others answer: api/event.h's source says who did. */
#define MODEL_ARCHITECTURE_ROUTER "router"

/* What answers. Strings live as long as the service. Fingerprints: 16 hexadecimal digits. */
struct model_info {
    const char *model;        /* served name */
    const char *architecture; /* "LlamaForCausalLM" */
    const char *dtype;        /* of activations: "bfloat16" | "float16" | "float32" */
    const char *kv_dtype;     /* of the KV cache: "bfloat16" | "float32" | "fp8" | "int8"; NULL = not known */
    const char *quantization; /* "none", "int8", ...; a checkpoint's own method, or "gguf" */
    uint32_t vocab_size;
    uint32_t max_model_len; /* tokens, prompt and output together */
    uint64_t n_parameters;
    bool has_tokenizer, has_chat_template;
    const uint32_t *eos_token_ids;
    size_t n_eos_token_ids;
    int64_t bos_token_id;    /* -1 = none */
    const char *fingerprint; /* of everything below: what a regression test compares */
    const char *weights_fingerprint, *tokenizer_fingerprint, *template_fingerprint, *arithmetic_fingerprint;
    const char *model_path;                          /* directory or GGUF file; NULL = none */
    const struct sampling_params *sampling_defaults; /* the model's own, its set fields; NULL = none */
};

/* A model that may be asked for. */
struct model_card {
    const char *name;        /* lives as long as the service */
    const char *owner;       /* "bantam", or a provider's name */
    uint32_t context_tokens; /* 0 = not known */
};

/* A moment's view. */
struct loads {
    uint32_t requests_waiting, requests_running, requests_paused;
    uint32_t max_num_seqs;
    uint32_t kv_blocks_total, kv_blocks_used; /* used: owned by a request; cached free blocks do not count */
    uint32_t kv_blocks_cached;                /* free, but holding a reusable prefix */
    uint32_t kv_block_tokens;
    uint64_t prefix_queries_tokens, prefix_hit_tokens; /* since start */
    uint64_t prompt_tokens_total, generation_tokens_total, requests_total, requests_finished,
        preemptions_total, steps_total;
    double tokens_per_s;       /* generated, over the last seconds */
    int64_t predicted_ttft_ns; /* for a request that comes now; -1 = unknown */
    int64_t
        heartbeat_age_ns; /* since the loop last showed life; it does so at least every 100 ms when idle */
    bool step_running;    /* a step is being executed: a long prefill is not a dead loop */
    bool failed;          /* what computes is lost: nothing is answered until the process is restarted */
};

struct service_vtable {
    /* Authenticated request -> stream. Copies what it keeps. On error nothing is left behind:
     * INVALID_ARGUMENT, NOT_FOUND (model), RESOURCE_EXHAUSTED (queue full), UNAVAILABLE (draining,
     * failed), DEADLINE_EXCEEDED (already past). */
    err_t (*submit)(struct service *service, const struct request *request, struct stream **out);
    /* Takes the next event; false when there is none yet or none to come. Never blocks. */
    bool (*stream_next)(struct stream *stream, struct event *out);
    /* Cancellation, deadline and disconnect are this one event; idempotent in every state. The stream then
     * ends with EVENT_FINISHED / FINISH_ABORT unless it had finished. */
    void (*stream_cancel)(struct stream *stream);
    /* The reader's last call: cancels what is unfinished and gives the stream back. */
    void (*stream_release)(struct stream *stream);
    /* wake(context) is called whenever the stream has something and may have had nothing: from any thread,
     * under locks of the service's, so that it is quick and calls nothing of it; not after stream_release has
     * returned. What came before is not told again. NULL: progress tells of every stream, else of those that
     * nobody watches. */
    void (*stream_watch)(struct stream *stream, void (*wake)(void *context), void *context);
    const char *(*stream_request_id)(const struct stream *stream);
    /* Aborts by request id within a tenant; false when there is no such request. */
    bool (*abort)(struct service *service, const char *tenant, const char *request_id);

    struct event_count *(*progress)(struct service *service);
    const struct model_info *(*model_info)(struct service *service);
    void (*loads)(struct service *service, struct loads *out);
    int64_t (*now_ns)(struct service *service); /* the clock of deadlines */

    /* Text or messages of `request` -> ids appended to *ids (mem_alloc'd array, caller frees with mem_free).
     */
    err_t (*tokenize)(struct service *service, const struct request *request, uint32_t **ids, size_t *n_ids);
    err_t (*detokenize)(struct service *service, const uint32_t *ids, size_t n_ids, bool skip_special_tokens,
                        struct buffer *text);

    /* Counts a call for tokenize or detokenize among its tenant's requests: QUOTA_EXCEEDED. A door asks
     * before it makes the call for a client, and not for calls of its own. NULL: nobody counts. */
    err_t (*admit_call)(struct service *service, const char *tenant);

    /* From now on submit answers UNAVAILABLE; what was accepted goes on. */
    void (*drain)(struct service *service);
    /* Number of streams that their reader has not released, or that still hold memory or blocks. */
    uint32_t (*in_flight)(struct service *service);
    /* What the prefix cache holds, event by event (api/kv_events.h). All three NULL: this service does not
     * tell. UNIMPLEMENTED: there is no prefix cache. OUT_OF_RANGE: start_sequence_number is not to be had,
     * begin with 0. RESOURCE_EXHAUSTED: too many subscribers. After a new batch service_progress() is bumped.
     */
    err_t (*kv_subscribe)(struct service *service, const struct kv_subscribe *request,
                          struct kv_subscription **out);
    /* The next batch, valid until the next call; *out NULL when there is none yet. Never blocks. DATA_LOSS:
     * read too slowly, subscribe anew from 0. Subscriptions are closed before the service is. */
    err_t (*kv_next)(struct service *service, struct kv_subscription *subscription,
                     const struct kv_event_batch **out);
    void (*kv_unsubscribe)(struct service *service, struct kv_subscription *subscription);
    /* Where the service and the doors in front of it count. Lives as long as the service. */
    struct metrics *(*metrics)(struct service *service);
    /* Appends what the service counts beyond api/metrics.h, in Prometheus's text format (proto/metrics_text.h
     * has the means). False when it does not fit. NULL: nothing. */
    bool (*metrics_text)(struct service *service, struct buffer *out);

    /* The i-th of the models that may be asked for, by name; false when there are no more. NULL: the one of
     * model_info. */
    bool (*model_card)(struct service *service, size_t i, struct model_card *out);
    /* It may pass requests on to others, so that it wants request.original and the hints, and answers with
     * tool calls, refusals and sources; a door then refuses nothing as `beyond` itself. */
    bool passes_on;
};

/* The first member of every implementation. */
struct service {
    const struct service_vtable *vtable;
};
