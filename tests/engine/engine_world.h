/* What the tests of the engine share: an engine over the stub with a clock that the test moves, and readers
 * that gather a stream's events while checking the service's promises about them. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "base/event_count.h"
#include "engine/engine.h"
#include "tests/engine/stub_executor.h"

enum { REPLY_TOKENS_MAX = 1024, REPLY_TEXT_MAX = 16 << 10, REPLY_CHOICES_MAX = 8 };

#define assert_error(expected_code, call)                                                                    \
    do {                                                                                                     \
        err_t got_ = (call);                                                                                 \
        if (got_.code != (expected_code))                                                                    \
            print_error("%s\n", got_.code != ERR_OK ? got_.message : "no error");                            \
        assert_int_equal(got_.code, (expected_code));                                                        \
    } while (0)

/* A test of one step in flight and of two, as cmocka wants it. */
#define BOTH_DEPTHS(name)                                                                                    \
    static void name##_at_both_depths(void **state)                                                          \
    {                                                                                                        \
        (void)state;                                                                                         \
        name(1);                                                                                             \
        name(2);                                                                                             \
    }

/* ---- A clock ---- */

struct test_clock {
    struct clock clock;
    _Atomic int64_t now_ns;
};
void test_clock_init(struct test_clock *clock);
void test_clock_advance_ms(struct test_clock *clock, int64_t ms);

/* ---- An engine over the stub ---- */

struct world_options {
    struct stub_options stub;
    struct engine_options engine;
    const struct text_assets *text; /* NULL = token ids only */
};
/* Roomy: 8 sequences, 256 blocks of 16, 64 tokens a step, 512 tokens a request. */
struct world_options world_options_default(uint32_t steps_in_flight);

struct world {
    struct world_options options;
    struct stub *stub;
    struct engine *engine;
    struct service *service;
    const struct service_vtable *vtable;
    struct test_clock clock;
};
void world_open(struct world *world, const struct world_options *options);
/* Every stream must have been released. Asserts that nothing is left before it closes. */
void world_close(struct world *world);
/* Waits until no stream is left and asserts that no block is used and nobody waits or runs. */
void world_assert_empty(struct world *world);
/* Waits until the loads satisfy the predicate. */
void world_wait_loads(struct world *world, bool (*predicate)(const struct loads *loads, uint64_t value),
                      uint64_t value);

/* ---- Requests ---- */

/* A prompt of n seeded ids. */
void fill_prompt(uint32_t *ids, size_t n, uint64_t seed, uint32_t vocab_size);
/* Greedy token-id request; penalties off. */
struct request request_of(const uint32_t *ids, size_t n, uint32_t max_tokens);
struct stream *submit(struct world *world, const struct request *request);

/* ---- Replies ---- */

struct reply {
    uint32_t ids[REPLY_TOKENS_MAX];
    struct position_logprobs logprobs[REPLY_TOKENS_MAX];
    size_t n, n_logprobs;
    char text[REPLY_TEXT_MAX];
    size_t text_bytes;
    uint32_t prompt[REPLY_TOKENS_MAX];
    struct position_logprobs prompt_logprobs[REPLY_TOKENS_MAX];
    size_t n_prompt, n_prompt_logprobs;
    uint32_t n_events;
    bool finished;
    enum finish_reason reason;
    char stop_string[SAMPLING_STOP_BYTES_MAX + 1];
    int64_t stop_token_id;
    struct usage usage;
    struct timings timings;
    err_t error;
};

/* The replies of one stream, by choice. */
struct replies {
    uint32_t n_choices;
    struct reply *choice; /* [n_choices] */
};
struct replies replies_new(uint32_t n_choices);
void replies_free(struct replies *replies);
/* Takes what is there now; true when the stream has ended. */
bool read_some(struct world *world, struct stream *stream, struct replies *replies);
/* Waits until at least n tokens of choice 0 came, or its end. */
void read_tokens(struct world *world, struct stream *stream, struct replies *replies, size_t n);
void read_to_end(struct world *world, struct stream *stream, struct replies *replies);
/* Submits, reads to the end, releases. */
void ask(struct world *world, const struct request *request, struct replies *replies);

/* ---- What is right ---- */

/* What the stub answers to choice `choice` of a request; ids has room for max_tokens. Sets the finish. */
struct expectation {
    uint32_t ids[REPLY_TOKENS_MAX]; /* output_prefix_ids not included */
    size_t n;
    enum finish_reason reason;
    int64_t stop_token_id;
};
void expect(const struct world *world, const struct request *request, uint32_t choice,
            struct expectation *out);
void assert_reply(const struct reply *reply, const struct expectation *expectation);
/* expect and assert_reply for every choice. */
void assert_answered(const struct world *world, const struct request *request, const struct replies *replies);
