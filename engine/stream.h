/* A request inside the engine: a stream of n choices, shared by three kinds of threads.
 *   set-up: admission fills everything, then hands the stream to the loop through the command ring.
 *   loop: schedules the choices, pushes token records into each choice's ring, publishes each choice's
 * finish. reader: pops records, makes text and events. A stream lives until both the reader and the loop have
 * let go; the loop never frees: what it drops last goes to a list that other threads empty. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include "api/service.h"
#include "base/ring.h"
#include "engine/stop_matcher.h"
#include "kernels/sampler.h"
#include "text/detokenizer.h"

struct engine;

enum {
    CHOICE_RING_TOKENS = 64, /* records that wait for a slow reader before the sequence pauses */
    STREAM_TEXT_BYTES_MAX = 16 << 20,
};

/* One drawn token on its way to the reader. The logprobs follow only in rings made for them. */
struct token_record {
    uint32_t token_id;
    uint32_t stops; /* 1: the token is EOS or a stop id: its text is not part of the answer */
};

struct token_record_with_logprobs {
    struct token_record record;
    struct position_logprobs logprobs;
};

enum choice_state { CHOICE_QUEUED, CHOICE_ACTIVE, CHOICE_FINISHED };

struct choice {
    struct stream *stream;
    uint32_t index;

    /* Written at admission, then the scheduler's until released. */
    uint32_t *tokens; /* [n_prompt + max_tokens] */
    uint32_t n_prompt, n_output_prefix;
    struct sampler_params sampler;

    /* The loop's. */
    enum choice_state state;
    uint32_t handle; /* scheduler's; valid while submitted and not released */
    bool submitted;
    uint32_t n_output; /* tokens drawn and accepted, output_prefix_ids included */
    /* n_cached and the first times are written once, before the first record is pushed: the reader may then
     * read them. */
    uint32_t n_cached;
    int64_t first_scheduled_ns, first_token_ns; /* -1 = not yet */
    int64_t last_token_ns;
    _Atomic uint32_t n_preemptions;
    int64_t stalled_since_ns;                 /* ring full since; -1 = not */
    struct choice *active_prev, *active_next; /* the loop's list of submitted choices */

    /* Loop to reader. */
    struct spsc_ring *ring; /* of token_record or token_record_with_logprobs */
    _Atomic bool paused;    /* the reader wakes the loop after it made room */
    _Atomic bool finished;  /* the fields below are final; set after the last record was pushed */
    enum finish_reason finish_reason;
    int64_t stop_token_id;
    struct usage usage;
    struct timings timings;
    err_t error;

    /* Reader (or its own finish by stop string) to loop. */
    _Atomic bool cancel_requested; /* a CANCEL command is in the ring or was handled */

    /* The reader's. */
    struct detokenizer detokenizer;
    struct stop_matcher stop_matcher;
    bool reader_done;     /* EVENT_FINISHED was given out */
    uint32_t n_delivered; /* tokens given out */
};

struct stream {
    struct engine *engine;
    _Atomic int references; /* reader and loop */
    struct stream *garbage_next;
    char *request_id, *tenant;    /* owned */
    const char *door;             /* static; NULL = none */
    struct stream *registry_next; /* request_registry's chain */

    struct sampling_params sampling; /* resolved; lists point to owned copies */
    void *lists; /* one owned block that holds every list of sampling and of the samplers */
    int32_t priority;
    int64_t deadline_ns, submitted_ns;
    uint64_t salt;

    uint32_t n_prompt;
    struct position_logprobs *prompt_logprobs; /* [n_prompt] owned, or NULL */
    uint32_t n_choices, n_unreleased;          /* n_unreleased: the loop's */
    struct choice *choices;                    /* [n_choices] owned */

    /* The reader's scratch for the event given out last. */
    uint32_t *event_ids;                      /* [CHOICE_RING_TOKENS] */
    struct position_logprobs *event_logprobs; /* [CHOICE_RING_TOKENS] or NULL */
    struct buffer text, piece;                /* piece: of one token */
    uint32_t next_choice;                     /* round robin */
    uint32_t n_done;                          /* choices whose EVENT_FINISHED was given out */
    bool prompt_delivered;
};

/* A stream with rings, text state and token arrays for n choices of a prompt. resolved->max_tokens is final.
 * Takes lists over. RESOURCE_EXHAUSTED. */
err_t stream_create(struct engine *engine, const struct sampling_params *resolved, void *lists,
                    const uint32_t *prompt_ids, size_t n_prompt, const uint32_t *output_prefix_ids,
                    size_t n_output_prefix, struct stream **out) ERR_MUST_CHECK;
void stream_destroy(struct stream *stream);
/* What stream_create takes at most for one choice of n_tokens, prompt and output, without logprobs. */
size_t stream_bytes(size_t n_tokens);

/* Loop: the choice ends; pushes nothing, publishes the finish. Idempotent. */
void choice_finish(struct choice *choice, enum finish_reason reason, int64_t stop_token_id,
                   const err_t *error);

/* Reader side, the vtable's slots. */
bool stream_read(struct stream *stream, struct event *out);
