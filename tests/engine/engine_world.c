#include "tests/engine/engine_world.h"

#include <string.h>
#include "base/alloc.h"
#include "base/philox.h"
#include "text/text_assets.h"

static const int64_t NS_PER_MS = 1000000;

/* ---- A clock ---- */

static int64_t read_clock(void *context)
{
    struct test_clock *clock = context;
    return atomic_load(&clock->now_ns);
}

void test_clock_init(struct test_clock *clock)
{
    clock->clock = (struct clock){.now_ns = read_clock, .context = clock};
    atomic_init(&clock->now_ns, 1000 * NS_PER_MS);
}

void test_clock_advance_ms(struct test_clock *clock, int64_t ms)
{
    atomic_fetch_add(&clock->now_ns, ms * NS_PER_MS);
}

/* ---- An engine over the stub ---- */

struct world_options world_options_default(uint32_t steps_in_flight)
{
    struct world_options options = {
        .stub = {.vocab_size = STUB_VOCAB,
                 .max_model_len = 512,
                 .num_kv_blocks = 256,
                 .block_tokens = 16,
                 .max_num_seqs = 8,
                 .max_num_batched_tokens = 64},
        .engine = engine_options_default(),
    };
    options.engine.steps_in_flight = steps_in_flight;
    options.engine.max_waiting = 64;
    return options;
}

void world_open(struct world *world, const struct world_options *options)
{
    *world = (struct world){.options = *options};
    test_clock_init(&world->clock);
    world->options.engine.clock = &world->clock.clock;
    world->stub = stub_create(&options->stub);
    struct executor executor = stub_executor(world->stub);
    assert_error(ERR_OK,
                 engine_open_executor(&world->options.engine, &executor, options->text, &world->engine));
    world->service = engine_service(world->engine);
    world->vtable = world->service->vtable;
}

void world_assert_empty(struct world *world)
{
    struct event_count *progress = world->vtable->progress(world->service);
    for (;;) {
        uint32_t seen = event_count_read(progress);
        if (world->vtable->in_flight(world->service) == 0)
            break;
        (void)event_count_wait(progress, seen, -1);
    }
    struct loads loads;
    for (;;) { /* the loop writes its counters at the end of its turn, and then says so */
        uint32_t seen = event_count_read(progress);
        world->vtable->loads(world->service, &loads);
        if (loads.kv_blocks_used == 0 && loads.requests_running == 0 && loads.requests_waiting == 0)
            break;
        (void)event_count_wait(progress, seen, -1);
    }
    assert_int_equal(loads.requests_paused, 0);
    assert_int_equal(loads.requests_total, loads.requests_finished);
}

void world_close(struct world *world)
{
    world_assert_empty(world);
    engine_close(world->engine);
    stub_destroy(world->stub);
}

void world_wait_loads(struct world *world, bool (*predicate)(const struct loads *loads, uint64_t value),
                      uint64_t value)
{
    enum { LOOK_AGAIN_NS = 2000000 }; /* not every counter is announced */
    struct event_count *progress = world->vtable->progress(world->service);
    for (;;) {
        uint32_t seen = event_count_read(progress);
        struct loads loads;
        world->vtable->loads(world->service, &loads);
        if (predicate(&loads, value))
            return;
        (void)event_count_wait(progress, seen, LOOK_AGAIN_NS);
    }
}

/* ---- Requests ---- */

void fill_prompt(uint32_t *ids, size_t n, uint64_t seed, uint32_t vocab_size)
{
    struct rng rng = rng_make(seed);
    for (size_t i = 0; i < n; i++)
        ids[i] = rng_below(&rng, vocab_size);
}

struct request request_of(const uint32_t *ids, size_t n, uint32_t max_tokens)
{
    return (struct request){
        .deadline_ns = REQUEST_NO_DEADLINE,
        .prompt_kind = PROMPT_TOKEN_IDS,
        .token_ids = ids,
        .n_token_ids = n,
        .sampling = {.set = SAMPLING_TEMPERATURE | SAMPLING_MAX_TOKENS,
                     .temperature = 0,
                     .max_tokens = max_tokens},
    };
}

struct stream *submit(struct world *world, const struct request *request)
{
    struct stream *stream = NULL;
    assert_error(ERR_OK, world->vtable->submit(world->service, request, &stream));
    assert_non_null(stream);
    return stream;
}

/* ---- Replies ---- */

struct replies replies_new(uint32_t n_choices)
{
    struct replies replies = {.n_choices = n_choices};
    replies.choice = mem_alloc_array(n_choices, sizeof *replies.choice);
    assert_non_null(replies.choice);
    return replies;
}

void replies_free(struct replies *replies)
{
    mem_free(replies->choice);
}

static void take_prompt(struct reply *reply, const struct event *event)
{
    if (event->choice_index == 0 && reply->n_events == 1) {
        assert_non_null(event->prompt_token_ids);
        assert_true(event->n_prompt_token_ids <= REPLY_TOKENS_MAX);
        reply->n_prompt = event->n_prompt_token_ids;
        memcpy(reply->prompt, event->prompt_token_ids, reply->n_prompt * sizeof *reply->prompt);
        reply->n_prompt_logprobs = event->n_prompt_logprobs;
        assert_true(event->n_prompt_logprobs == 0 || event->n_prompt_logprobs == event->n_prompt_token_ids);
        for (size_t i = 0; i < event->n_prompt_logprobs; i++)
            reply->prompt_logprobs[i] = event->prompt_logprobs[i];
        return;
    }
    assert_null(event->prompt_token_ids); /* once, with the first event of choice 0 */
    assert_int_equal(event->n_prompt_token_ids, 0);
    assert_int_equal(event->n_prompt_logprobs, 0);
}

static void take_finish(struct reply *reply, const struct event *event)
{
    reply->finished = true;
    reply->reason = event->finish_reason;
    assert_int_not_equal(reply->reason, FINISH_NONE);
    if (event->stop_string)
        memcpy(reply->stop_string, event->stop_string, strlen(event->stop_string) + 1);
    reply->stop_token_id = event->stop_token_id;
    reply->usage = event->usage;
    reply->timings = event->timings;
    reply->error = event->error;
}

static void take_event(struct replies *replies, const struct event *event)
{
    assert_true(event->choice_index < replies->n_choices);
    struct reply *reply = &replies->choice[event->choice_index];
    assert_false(reply->finished); /* nothing follows the end */
    reply->n_events++;
    take_prompt(reply, event);
    assert_true(reply->n + event->n_token_ids <= REPLY_TOKENS_MAX);
    assert_true(event->kind == EVENT_FINISHED || event->n_token_ids > 0);
    assert_true(event->n_logprobs == 0 || event->n_logprobs == event->n_token_ids);
    for (size_t i = 0; i < event->n_token_ids; i++)
        reply->ids[reply->n + i] = event->token_ids[i];
    for (size_t i = 0; i < event->n_logprobs; i++)
        reply->logprobs[reply->n + i] = event->logprobs[i];
    reply->n += event->n_token_ids;
    reply->n_logprobs += event->n_logprobs;
    assert_non_null(event->text);
    assert_true(reply->text_bytes + event->text_bytes < REPLY_TEXT_MAX);
    memcpy(reply->text + reply->text_bytes, event->text, event->text_bytes);
    reply->text_bytes += event->text_bytes;
    if (event->kind == EVENT_FINISHED)
        take_finish(reply, event);
    bool all_finished = true;
    for (uint32_t i = 0; i < replies->n_choices; i++)
        all_finished = all_finished && replies->choice[i].finished;
    assert_int_equal(event->last, all_finished);
}

bool read_some(struct world *world, struct stream *stream, struct replies *replies)
{
    struct event event;
    while (world->vtable->stream_next(stream, &event))
        take_event(replies, &event);
    for (uint32_t i = 0; i < replies->n_choices; i++)
        if (!replies->choice[i].finished)
            return false;
    assert_false(world->vtable->stream_next(stream, &event));
    return true;
}

void read_tokens(struct world *world, struct stream *stream, struct replies *replies, size_t n)
{
    struct event_count *progress = world->vtable->progress(world->service);
    for (;;) {
        uint32_t seen = event_count_read(progress);
        if (read_some(world, stream, replies) || replies->choice[0].n >= n)
            return;
        (void)event_count_wait(progress, seen, -1);
    }
}

void read_to_end(struct world *world, struct stream *stream, struct replies *replies)
{
    read_tokens(world, stream, replies, SIZE_MAX);
}

void ask(struct world *world, const struct request *request, struct replies *replies)
{
    struct stream *stream = submit(world, request);
    read_to_end(world, stream, replies);
    world->vtable->stream_release(stream);
}

/* ---- What is right ---- */

static bool is_stop(const struct world *world, const struct request *request, uint32_t token)
{
    const struct sampling_params *params = &request->sampling;
    const struct text_assets *text = world->options.text;
    bool ignores_eos = (params->set & SAMPLING_IGNORE_EOS) && params->ignore_eos;
    if (text && text->eos_token_id == token && !ignores_eos)
        return true;
    for (size_t i = 0; i < params->n_stop_token_ids; i++)
        if (params->stop_token_ids[i] == token)
            return true;
    return false;
}

void expect(const struct world *world, const struct request *request, uint32_t choice,
            struct expectation *out)
{
    const struct sampling_params *params = &request->sampling;
    const struct stub_options *stub = &world->options.stub;
    size_t n_known = request->n_token_ids + request->n_output_prefix_ids;
    uint32_t max_tokens = params->set & SAMPLING_MAX_TOKENS ? params->max_tokens : 16;
    if (max_tokens == 0 || request->n_token_ids + max_tokens > stub->max_model_len)
        max_tokens = stub->max_model_len - (uint32_t)request->n_token_ids;
    uint32_t min_tokens = params->set & SAMPLING_MIN_TOKENS ? params->min_tokens : 0;
    float temperature = params->set & SAMPLING_TEMPERATURE ? params->temperature : 1;
    uint32_t tokens[2 * REPLY_TOKENS_MAX];
    memcpy(tokens, request->token_ids, request->n_token_ids * sizeof *tokens);
    if (request->n_output_prefix_ids)
        memcpy(tokens + request->n_token_ids, request->output_prefix_ids,
               request->n_output_prefix_ids * sizeof *tokens);
    *out = (struct expectation){.reason = FINISH_LENGTH, .stop_token_id = -1};
    for (size_t n_output = request->n_output_prefix_ids + 1; n_output <= max_tokens; n_output++) {
        uint32_t token = stub_draw(stub, tokens, n_known, temperature, params->seed, choice);
        tokens[n_known++] = token;
        out->ids[out->n++] = token;
        if (n_output >= min_tokens && is_stop(world, request, token)) {
            out->reason = FINISH_STOP;
            out->stop_token_id = token;
            break;
        }
    }
}

void assert_reply(const struct reply *reply, const struct expectation *expectation)
{
    assert_true(reply->finished);
    assert_int_equal(reply->reason, expectation->reason);
    assert_int_equal(reply->n, expectation->n);
    assert_memory_equal(reply->ids, expectation->ids, expectation->n * sizeof *expectation->ids);
    assert_int_equal(reply->stop_token_id, expectation->stop_token_id);
    assert_int_equal(reply->usage.completion_tokens, expectation->n);
}

void assert_answered(const struct world *world, const struct request *request, const struct replies *replies)
{
    for (uint32_t i = 0; i < replies->n_choices; i++) {
        struct expectation expectation;
        expect(world, request, i, &expectation);
        assert_reply(&replies->choice[i], &expectation);
        assert_int_equal(replies->choice[i].usage.prompt_tokens, request->n_token_ids);
    }
    assert_int_equal(replies->choice[0].n_prompt, request->n_token_ids);
    assert_memory_equal(replies->choice[0].prompt, request->token_ids,
                        request->n_token_ids * sizeof *request->token_ids);
}
