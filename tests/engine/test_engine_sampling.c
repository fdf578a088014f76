/* What sampling parameters mean in the loop: ends, choices, hand-over, logprobs, cached prefixes. */
#include <math.h>
#include <string.h>
#include "tests/engine/engine_world.h"

enum { PROMPT = 40, OUTPUT = 24 };

static uint32_t prompt[200];

static struct request seeded(uint32_t max_tokens, uint64_t seed)
{
    struct request request = request_of(prompt, PROMPT, max_tokens);
    request.sampling.set |= SAMPLING_SEED;
    request.sampling.temperature = 0.7f;
    request.sampling.seed = seed;
    return request;
}

static void check(struct world *world, const struct request *request, uint32_t n_choices)
{
    struct replies replies = replies_new(n_choices);
    ask(world, request, &replies);
    assert_answered(world, request, &replies);
    replies_free(&replies);
}

static void test_stop_ids(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    struct request request = request_of(prompt, PROMPT, OUTPUT);
    struct expectation whole, cut;
    expect(&world, &request, 0, &whole);
    for (uint32_t end = 0; end < OUTPUT; end++) {
        uint32_t stops[] = {STUB_VOCAB - 1, whole.ids[end]};
        request.sampling.stop_token_ids = stops;
        request.sampling.n_stop_token_ids = 2;
        request.sampling.set &= ~(uint32_t)SAMPLING_MIN_TOKENS;
        expect(&world, &request, 0, &cut);
        assert_int_equal(cut.reason, FINISH_STOP);
        check(&world, &request, 1);
        request.sampling.set |= SAMPLING_MIN_TOKENS;
        request.sampling.min_tokens = end + 1; /* the stop token itself is the last that is asked for */
        expect(&world, &request, 0, &cut);
        assert_int_equal(cut.n, end + 1);
        check(&world, &request, 1);
        request.sampling.min_tokens = end + 2 < OUTPUT ? end + 2 : OUTPUT;
        check(&world, &request, 1);
    }
    world_close(&world);
}

static void test_lengths(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    struct request request = request_of(prompt, 200, 1);
    check(&world, &request, 1);
    request.sampling.max_tokens = 0; /* up to the model's length */
    check(&world, &request, 1);
    request.sampling.max_tokens = 100000; /* lowered to it */
    check(&world, &request, 1);
    request.sampling.set = SAMPLING_TEMPERATURE; /* the default: 16 */
    check(&world, &request, 1);
    world_close(&world);
}

static void test_choices(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    struct request request = seeded(OUTPUT, 42);
    request.sampling.set |= SAMPLING_N;
    request.sampling.n = 5;
    check(&world, &request, 5);
    request.sampling.temperature = 0; /* all alike */
    check(&world, &request, 5);
    struct replies a = replies_new(2), b = replies_new(2);
    request.sampling = (struct sampling_params){.set = SAMPLING_N, .n = 2};
    ask(&world, &request, &a);
    ask(&world, &request, &b);
    /* No seed: every answer is another one. */
    for (int i = 0; i < 2; i++)
        assert_memory_not_equal(a.choice[i].ids, b.choice[i].ids, 16 * sizeof(uint32_t));
    assert_memory_not_equal(a.choice[0].ids, a.choice[1].ids, 16 * sizeof(uint32_t));
    replies_free(&a);
    replies_free(&b);
    world_close(&world);
}

/* One of the choices is cancelled by its own end, the others go on: ends differ by stop id. */
static void test_choices_end_apart(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    struct request request = seeded(OUTPUT, 7);
    request.sampling.set |= SAMPLING_N;
    request.sampling.n = 3;
    struct expectation second;
    expect(&world, &request, 1, &second);
    request.sampling.stop_token_ids = &second.ids[3];
    request.sampling.n_stop_token_ids = 1;
    check(&world, &request, 3);
    world_close(&world);
}

/* An answer that moves here after any number of tokens goes on as if it had never moved. */
static void test_hand_over(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    struct request whole = seeded(OUTPUT, 99), rest = whole;
    struct expectation expectation;
    expect(&world, &whole, 0, &expectation);
    uint32_t stop = expectation.ids[OUTPUT - 3];
    whole.sampling.stop_token_ids = rest.sampling.stop_token_ids = &stop;
    whole.sampling.n_stop_token_ids = rest.sampling.n_stop_token_ids = 1;
    whole.sampling.set |= SAMPLING_MIN_TOKENS;
    whole.sampling.min_tokens = rest.sampling.min_tokens = OUTPUT - 3;
    rest.sampling.set = whole.sampling.set;
    expect(&world, &whole, 0, &expectation);
    assert_int_equal(expectation.n, OUTPUT - 2);
    check(&world, &whole, 1);
    for (uint32_t cut = 1; cut < expectation.n; cut++) {
        rest.output_prefix_ids = expectation.ids;
        rest.n_output_prefix_ids = cut;
        struct replies replies = replies_new(1);
        ask(&world, &rest, &replies);
        const struct reply *reply = &replies.choice[0];
        assert_answered(&world, &rest, &replies);
        assert_int_equal(reply->n, expectation.n - cut);
        assert_memory_equal(reply->ids, expectation.ids + cut, reply->n * sizeof(uint32_t));
        assert_int_equal(reply->reason, FINISH_STOP);
        assert_true(reply->usage.cached_tokens > 0 && reply->usage.cached_tokens <= PROMPT);
        replies_free(&replies);
    }
    struct stream *refused;
    rest.sampling.max_tokens = 5;
    rest.sampling.min_tokens = 0;
    rest.n_output_prefix_ids = 5; /* nothing left to say */
    assert_error(ERR_INVALID_ARGUMENT, world.vtable->submit(world.service, &rest, &refused));
    rest.n_output_prefix_ids = 4;
    rest.sampling.set |= SAMPLING_N;
    rest.sampling.n = 2;
    assert_error(ERR_INVALID_ARGUMENT, world.vtable->submit(world.service, &rest, &refused));
    world_close(&world);
}

static void assert_logprobs_equal(const struct position_logprobs *got, const struct position_logprobs *right)
{
    assert_int_equal(got->chosen.token_id, right->chosen.token_id);
    assert_memory_equal(&got->chosen.logprob, &right->chosen.logprob, sizeof(float));
    assert_int_equal(got->rank, right->rank);
    assert_int_equal(got->n_top, right->n_top);
    for (uint32_t i = 0; i < right->n_top; i++) {
        assert_int_equal(got->top[i].token_id, right->top[i].token_id);
        assert_memory_equal(&got->top[i].logprob, &right->top[i].logprob, sizeof(float));
    }
}

static void test_logprobs(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    struct request request = seeded(OUTPUT, 5);
    request.sampling.set |= SAMPLING_LOGPROBS;
    for (int32_t n_top = 0; n_top <= SAMPLING_LOGPROBS_MAX; n_top += 10) {
        request.sampling.logprobs = n_top;
        struct replies replies = replies_new(1);
        ask(&world, &request, &replies);
        assert_answered(&world, &request, &replies);
        const struct reply *reply = &replies.choice[0];
        assert_int_equal(reply->n_logprobs, OUTPUT);
        uint32_t tokens[PROMPT + OUTPUT];
        memcpy(tokens, prompt, sizeof *prompt * PROMPT);
        memcpy(tokens + PROMPT, reply->ids, sizeof *tokens * OUTPUT);
        for (uint32_t i = 0; i < OUTPUT; i++) {
            struct position_logprobs right =
                stub_logprobs(tokens, PROMPT + i, tokens[PROMPT + i], (uint32_t)n_top);
            assert_logprobs_equal(&reply->logprobs[i], &right);
        }
        assert_int_equal(reply->n_prompt_logprobs, 0);
        replies_free(&replies);
    }
    world_close(&world);
}

/* Whole, once, right, whatever is cached and however the prompt is cut; the other choices carry none. */
static void test_prompt_logprobs(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    options.engine.prefill_chunk = 24;
    world_open(&world, &options);
    for (uint32_t length = 1; length <= 200; length += 33) {
        struct request request = seeded(OUTPUT, length);
        request.n_token_ids = length;
        request.sampling.set |= SAMPLING_PROMPT_LOGPROBS | SAMPLING_N;
        request.sampling.prompt_logprobs = 2;
        request.sampling.n = 2;
        for (int again = 0; again < 2; again++) {
            struct replies replies = replies_new(2);
            ask(&world, &request, &replies);
            assert_answered(&world, &request, &replies);
            const struct reply *reply = &replies.choice[0];
            assert_int_equal(reply->usage.cached_tokens, 0); /* it writes the cache and does not read it */
            assert_int_equal(reply->n_prompt_logprobs, length);
            assert_int_equal(reply->prompt_logprobs[0].chosen.token_id, prompt[0]);
            assert_true(isnan(reply->prompt_logprobs[0].chosen.logprob));
            assert_int_equal(reply->prompt_logprobs[0].n_top, 0);
            for (uint32_t i = 1; i < length; i++) {
                struct position_logprobs right = stub_logprobs(prompt, i, prompt[i], 2);
                assert_logprobs_equal(&reply->prompt_logprobs[i], &right);
            }
            assert_int_equal(reply->n_logprobs, 0);
            replies_free(&replies);
        }
    }
    world_close(&world);
}

static uint32_t cached_tokens(struct world *world, const char *tenant)
{
    struct request request = request_of(prompt, PROMPT, 4);
    request.tenant = tenant;
    struct replies replies = replies_new(1);
    ask(world, &request, &replies);
    assert_answered(world, &request, &replies);
    uint32_t n = replies.choice[0].usage.cached_tokens;
    replies_free(&replies);
    return n;
}

static void test_prefix_cache(uint32_t depth)
{
    struct world world;
    struct world_options options = world_options_default(depth);
    world_open(&world, &options);
    assert_int_equal(cached_tokens(&world, NULL), 0);
    assert_int_equal(cached_tokens(&world, ""), 32); /* whole blocks of 40 tokens */
    assert_int_equal(cached_tokens(&world, "alice"), 0);
    assert_int_equal(cached_tokens(&world, "bob"), 0);
    assert_int_equal(cached_tokens(&world, "alice"), 32);
    struct loads loads;
    world.vtable->loads(world.service, &loads);
    assert_int_equal(loads.prefix_hit_tokens, 64);
    assert_true(loads.prefix_queries_tokens >= 5 * 32);
    world_close(&world);
    options.engine.disable_prefix_caching = true;
    world_open(&world, &options);
    assert_int_equal(cached_tokens(&world, NULL), 0);
    assert_int_equal(cached_tokens(&world, NULL), 0);
    world_close(&world);
}

/* Many long ones in a store for two: they push each other out, and answer the same. */
static void test_preemption(uint32_t depth)
{
    enum { N = 8 };
    struct world world;
    struct world_options options = world_options_default(depth);
    options.stub.num_kv_blocks = 24;
    world_open(&world, &options);
    struct request requests[N];
    struct stream *streams[N];
    struct replies replies[N];
    stub_hold(world.stub);
    for (uint32_t i = 0; i < N; i++) {
        requests[i] = seeded(60 + 10 * i, i);
        requests[i].token_ids = prompt + i;
        requests[i].sampling.set |= SAMPLING_LOGPROBS | SAMPLING_PROMPT_LOGPROBS;
        requests[i].sampling.logprobs = requests[i].sampling.prompt_logprobs = 1;
        streams[i] = submit(&world, &requests[i]);
        replies[i] = replies_new(1);
    }
    stub_let_go(world.stub);
    struct event_count *progress = world.vtable->progress(world.service);
    for (bool all = false; !all;) {
        uint32_t seen = event_count_read(progress);
        all = true;
        for (uint32_t i = 0; i < N; i++)
            if (!replies[i].choice[0].finished)
                all = read_some(&world, streams[i], &replies[i]) && all;
        if (!all)
            (void)event_count_wait(progress, seen, -1);
    }
    uint32_t n_preemptions = 0;
    for (uint32_t i = 0; i < N; i++) {
        assert_answered(&world, &requests[i], &replies[i]);
        for (uint32_t p = 1; p < PROMPT; p++) {
            struct position_logprobs right = stub_logprobs(prompt + i, p, prompt[i + p], 1);
            assert_logprobs_equal(&replies[i].choice[0].prompt_logprobs[p], &right);
        }
        n_preemptions += replies[i].choice[0].usage.preemptions;
        world.vtable->stream_release(streams[i]);
        replies_free(&replies[i]);
    }
    struct loads loads;
    world.vtable->loads(world.service, &loads);
    assert_true(n_preemptions > 0);
    assert_int_equal(loads.preemptions_total, n_preemptions);
    world_close(&world);
}

BOTH_DEPTHS(test_stop_ids)
BOTH_DEPTHS(test_lengths)
BOTH_DEPTHS(test_choices)
BOTH_DEPTHS(test_choices_end_apart)
BOTH_DEPTHS(test_hand_over)
BOTH_DEPTHS(test_logprobs)
BOTH_DEPTHS(test_prompt_logprobs)
BOTH_DEPTHS(test_prefix_cache)
BOTH_DEPTHS(test_preemption)

int main(void)
{
    fill_prompt(prompt, 200, 21, STUB_VOCAB);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stop_ids_at_both_depths),
        cmocka_unit_test(test_lengths_at_both_depths),
        cmocka_unit_test(test_choices_at_both_depths),
        cmocka_unit_test(test_choices_end_apart_at_both_depths),
        cmocka_unit_test(test_hand_over_at_both_depths),
        cmocka_unit_test(test_logprobs_at_both_depths),
        cmocka_unit_test(test_prompt_logprobs_at_both_depths),
        cmocka_unit_test(test_prefix_cache_at_both_depths),
        cmocka_unit_test(test_preemption_at_both_depths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
