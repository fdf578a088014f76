/* An executor that is lost while requests run: all of them end as UNAVAILABLE and say why, nothing more is
 * accepted, and the engine lives on until it is closed. */
#include <pthread.h>
#include <string.h>
#include "tests/engine/engine_world.h"

enum { PROMPT = 40, OUTPUT = 60, N_REQUESTS = 7, N_CHOICES = 2, LOST_AFTER = 5 };

static uint32_t prompts[N_REQUESTS][PROMPT];

static void fill_prompts(void)
{
    for (uint32_t i = 0; i < N_REQUESTS; i++)
        fill_prompt(prompts[i], PROMPT, i + 1, STUB_VOCAB);
}

/* Few run, the others wait. */
static struct world_options narrow_world(uint32_t depth)
{
    struct world_options options = world_options_default(depth);
    options.stub.max_num_seqs = 3;
    return options;
}

static struct request request_at(uint32_t i)
{
    struct request request = request_of(prompts[i], PROMPT, OUTPUT);
    request.sampling.set |= SAMPLING_N;
    request.sampling.n = i % 3 == 0 ? N_CHOICES : 1;
    return request;
}

static void assert_lost(const err_t *e)
{
    assert_int_equal(e->code, ERR_UNAVAILABLE);
    assert_non_null(strstr(e->message, "the stub was lost"));
    assert_non_null(strstr(e->message, "restarted"));
}

/* What came before the end is right; false: the choice had ended well before. */
static bool check_reply(const struct world *world, const struct request *request, uint32_t choice,
                        const struct reply *reply)
{
    struct expectation expectation;
    expect(world, request, choice, &expectation);
    assert_true(reply->n <= expectation.n);
    assert_memory_equal(reply->ids, expectation.ids, reply->n * sizeof *reply->ids);
    if (reply->reason == expectation.reason) {
        assert_reply(reply, &expectation);
        return false;
    }
    assert_int_equal(reply->reason, FINISH_ERROR);
    assert_lost(&reply->error);
    return true;
}

static bool heartbeat_age_is(const struct loads *loads, uint64_t age_ns)
{
    return (uint64_t)loads->heartbeat_age_ns == age_ns;
}

static bool paused_are(const struct loads *loads, uint64_t n)
{
    return loads->requests_paused == n;
}

static bool has_failed(const struct loads *loads, uint64_t unused)
{
    (void)unused;
    return loads->failed;
}

static void assert_refuses(struct world *world)
{
    struct request request = request_at(1);
    struct stream *stream = NULL;
    err_t e = world->vtable->submit(world->service, &request, &stream);
    assert_lost(&e);
    assert_null(stream);
}

static void lose_at(uint32_t depth, enum stub_call call, uint64_t nth)
{
    struct world world;
    struct world_options options = narrow_world(depth);
    world_open(&world, &options);
    stub_hold(world.stub);
    struct stream *streams[N_REQUESTS];
    struct request requests[N_REQUESTS];
    struct replies replies[N_REQUESTS];
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        requests[i] = request_at(i);
        replies[i] = replies_new(requests[i].sampling.n);
        streams[i] = submit(&world, &requests[i]);
    }
    struct loads loads;
    world.vtable->loads(world.service, &loads);
    assert_false(loads.failed);
    stub_lose(world.stub, call, nth);
    stub_let_go(world.stub);
    uint32_t n_lost = 0;
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        read_to_end(&world, streams[i], &replies[i]);
        for (uint32_t c = 0; c < replies[i].n_choices; c++)
            n_lost += check_reply(&world, &requests[i], c, &replies[i].choice[c]);
        world.vtable->stream_cancel(streams[i]); /* too late to change anything */
        assert_true(read_some(&world, streams[i], &replies[i]));
        world.vtable->stream_release(streams[i]);
        replies_free(&replies[i]);
    }
    assert_true(n_lost > 0);
    world_wait_loads(&world, has_failed, 0);
    assert_refuses(&world);
    world_assert_empty(&world);
    test_clock_advance_ms(&world.clock, 1000); /* the loop is not what was lost */
    world_wait_loads(&world, heartbeat_age_is, 0);
    assert_refuses(&world);
    world_close(&world);
}

static void test_every_call(uint32_t depth)
{
    fill_prompts();
    for (int call = 0; call < STUB_CALLS; call++) {
        lose_at(depth, (enum stub_call)call, 0);
        lose_at(depth, (enum stub_call)call, LOST_AFTER);
    }
}
BOTH_DEPTHS(test_every_call)

/* A reader that takes nothing: its choice pauses, is lost like the others, and what it was given stays. */
static void test_paused_reader(uint32_t depth)
{
    fill_prompts();
    struct world world;
    struct world_options options = narrow_world(depth);
    options.stub.max_model_len = 1024;
    world_open(&world, &options);
    struct request slow = request_of(prompts[0], PROMPT, 400), other = request_of(prompts[1], PROMPT, 400);
    struct stream *stopped = submit(&world, &slow);
    world_wait_loads(&world, paused_are, 1);
    stub_lose(world.stub, STUB_COLLECT, LOST_AFTER);
    struct replies replies = replies_new(1);
    ask(&world, &other, &replies);
    assert_true(check_reply(&world, &other, 0, &replies.choice[0]));
    replies_free(&replies);
    replies = replies_new(1);
    read_to_end(&world, stopped, &replies);
    assert_true(check_reply(&world, &slow, 0, &replies.choice[0]));
    assert_true(replies.choice[0].n > 32);
    world.vtable->stream_release(stopped);
    replies_free(&replies);
    world_close(&world);
}
BOTH_DEPTHS(test_paused_reader)

/* Closing at once after the loss, with streams that nobody has read to the end. */
static void test_close_right_after(uint32_t depth)
{
    fill_prompts();
    struct world world;
    struct world_options options = narrow_world(depth);
    world_open(&world, &options);
    stub_hold(world.stub);
    struct stream *streams[N_REQUESTS];
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        struct request request = request_at(i);
        streams[i] = submit(&world, &request);
    }
    stub_lose(world.stub, STUB_FORWARD, depth - 1);
    stub_let_go(world.stub);
    for (uint32_t i = 0; i < N_REQUESTS; i++)
        world.vtable->stream_release(streams[i]);
    world_close(&world);
}
BOTH_DEPTHS(test_close_right_after)

/* ---- Many threads ---- */

enum { N_THREADS = 3, REQUESTS_EACH = 400 };

struct client {
    struct world *world;
    uint32_t index, n_answered, n_lost, n_refused;
};

static void *ask_until_refused(void *argument)
{
    struct client *client = argument;
    struct world *world = client->world;
    for (uint32_t i = 0; i < REQUESTS_EACH && client->n_refused == 0; i++) {
        struct request request = request_of(prompts[(client->index + i) % N_REQUESTS], PROMPT, 1 + i % 9);
        struct stream *stream = NULL;
        err_t e = world->vtable->submit(world->service, &request, &stream);
        if (e.code != ERR_OK) {
            assert_lost(&e);
            client->n_refused++;
            continue;
        }
        struct replies replies = replies_new(1);
        read_to_end(world, stream, &replies);
        if (check_reply(world, &request, 0, &replies.choice[0]))
            client->n_lost++;
        else
            client->n_answered++;
        world->vtable->stream_release(stream);
        replies_free(&replies);
    }
    return NULL;
}

static void test_under_load(uint32_t depth)
{
    fill_prompts();
    struct world world;
    struct world_options options = narrow_world(depth);
    world_open(&world, &options);
    stub_lose(world.stub, STUB_COLLECT, 150);
    struct client clients[N_THREADS];
    pthread_t threads[N_THREADS];
    for (uint32_t i = 0; i < N_THREADS; i++) {
        clients[i] = (struct client){.world = &world, .index = i};
        assert_int_equal(pthread_create(&threads[i], NULL, ask_until_refused, &clients[i]), 0);
    }
    uint32_t n_lost = 0, n_answered = 0;
    for (uint32_t i = 0; i < N_THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(clients[i].n_refused, 1);
        n_lost += clients[i].n_lost;
        n_answered += clients[i].n_answered;
    }
    assert_true(n_lost > 0 && n_answered > 0);
    world_close(&world);
}
BOTH_DEPTHS(test_under_load)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_call_at_both_depths),
        cmocka_unit_test(test_paused_reader_at_both_depths),
        cmocka_unit_test(test_close_right_after_at_both_depths),
        cmocka_unit_test(test_under_load_at_both_depths),
    };
    return cmocka_run_group_tests_name("an executor that is lost", tests, NULL, NULL);
}
