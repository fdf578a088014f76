/* Many threads at random: submit, read, stop reading, cancel, abort by id, release. In the end every stream
 * has ended exactly once, every answer that ended by itself is right, and nothing is left. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include "base/philox.h"
#include "tests/engine/engine_world.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { REQUESTS_PER_THREAD = 300 };
#else
enum { REQUESTS_PER_THREAD = 1500 };
#endif
enum { N_THREADS = 4, PROMPT_MAX = 100, OPEN_MAX = 6, CHOICES_MAX = 3, VOCAB = 997, POISON = 31337 };

/* What a thread has open. */
struct open_request {
    struct stream *stream; /* NULL = free */
    struct request request;
    struct replies replies;
    uint32_t ids[PROMPT_MAX];
    char request_id[32];
    bool cancelled, poisoned, ended;
};

struct worker {
    struct world *world;
    uint32_t index;
    struct rng rng;
    struct open_request open[OPEN_MAX];
    uint32_t n_submitted, n_refused, n_whole, n_cancelled, n_failed;
};

static void make_request(struct worker *worker, struct open_request *open)
{
    struct rng *rng = &worker->rng;
    uint32_t length = 1 + rng_below(rng, PROMPT_MAX);
    fill_prompt(open->ids, length, rng_below(rng, 8), VOCAB); /* few different ones: prefixes are shared */
    open->request = request_of(open->ids, length, 1 + rng_below(rng, rng_below(rng, 4) ? 30 : 120));
    struct sampling_params *p = &open->request.sampling;
    p->set |= SAMPLING_SEED | SAMPLING_N | SAMPLING_LOGPROBS | SAMPLING_PROMPT_LOGPROBS;
    open->poisoned = rng_below(rng, 40) == 0;
    p->seed = open->poisoned ? POISON : rng_below(rng, 100);
    p->temperature = rng_below(rng, 2) ? 1 : 0;
    p->n = rng_below(rng, 8) ? 1 : CHOICES_MAX;
    p->logprobs = rng_below(rng, 4) ? -1 : 2;
    p->prompt_logprobs = rng_below(rng, 8) ? -1 : 1;
    open->request.priority = (int32_t)rng_below(rng, 3);
    open->request.tenant = rng_below(rng, 3) ? NULL : "tenant";
    (void)snprintf(open->request_id, sizeof open->request_id, "%u-%u", worker->index, rng_below(rng, 64));
    open->request.request_id = rng_below(rng, 2) ? open->request_id : NULL;
    open->replies.n_choices = p->n;
    open->cancelled = open->ended = false;
}

static void submit_one(struct worker *worker, struct open_request *open)
{
    make_request(worker, open);
    memset(open->replies.choice, 0, CHOICES_MAX * sizeof *open->replies.choice);
    struct world *world = worker->world;
    err_t e = world->vtable->submit(world->service, &open->request, &open->stream);
    if (e.code == ERR_OK) {
        worker->n_submitted++;
        return;
    }
    open->stream = NULL;
    worker->n_refused++;
    /* A full queue, or an id that another of this thread's requests has. */
    assert_true(e.code == ERR_RESOURCE_EXHAUSTED ||
                (e.code == ERR_INVALID_ARGUMENT && open->request.request_id && strstr(e.message, "in use")));
}

static void check_ended(struct worker *worker, struct open_request *open)
{
    open->ended = true;
    for (uint32_t i = 0; i < open->replies.n_choices; i++) {
        const struct reply *reply = &open->replies.choice[i];
        struct expectation expectation;
        expect(worker->world, &open->request, i, &expectation);
        assert_true(reply->n <= expectation.n);
        assert_memory_equal(reply->ids, expectation.ids, reply->n * sizeof *reply->ids);
        if (reply->reason == FINISH_LENGTH || reply->reason == FINISH_STOP) {
            assert_reply(reply, &expectation);
            worker->n_whole++;
        } else if (reply->reason == FINISH_ABORT) {
            assert_true(open->cancelled || open->request.request_id); /* anyone may abort by id */
            worker->n_cancelled++;
        } else {
            assert_true(open->poisoned);
            assert_int_equal(reply->error.code, ERR_INTERNAL);
            worker->n_failed++;
        }
    }
}

static void release(struct worker *worker, struct open_request *open)
{
    worker->world->vtable->stream_release(open->stream);
    open->stream = NULL;
}

/* One random thing to one of the thread's requests, or to somebody's by id. */
static void act(struct worker *worker)
{
    struct world *world = worker->world;
    struct open_request *open = &worker->open[rng_below(&worker->rng, OPEN_MAX)];
    if (!open->stream) {
        submit_one(worker, open);
        return;
    }
    uint32_t what = rng_below(&worker->rng, 100);
    if (what < 70) {
        if (!open->ended && read_some(world, open->stream, &open->replies))
            check_ended(worker, open);
        if (open->ended && rng_below(&worker->rng, 2))
            release(worker, open);
    } else if (what < 75) {
        open->cancelled = true;
        world->vtable->stream_cancel(open->stream);
    } else if (what < 78) {
        release(worker, open);
    } else if (what < 85) {
        char id[32];
        (void)snprintf(id, sizeof id, "%u-%u", rng_below(&worker->rng, N_THREADS),
                       rng_below(&worker->rng, 64));
        (void)world->vtable->abort(world->service, rng_below(&worker->rng, 2) ? NULL : "tenant", id);
    } else if (what < 90) {
        struct loads loads;
        world->vtable->loads(world->service, &loads);
        assert_true(loads.kv_blocks_used <= loads.kv_blocks_total);
        assert_true(loads.requests_running <= loads.max_num_seqs);
        assert_true(loads.requests_finished <= loads.requests_total);
    } else {
        struct event_count *progress = world->vtable->progress(world->service);
        (void)event_count_wait(progress, event_count_read(progress), 1000000);
    }
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    while (worker->n_submitted < REQUESTS_PER_THREAD)
        act(worker);
    for (uint32_t i = 0; i < OPEN_MAX; i++) {
        struct open_request *open = &worker->open[i];
        if (!open->stream)
            continue;
        if (!open->ended) {
            read_to_end(worker->world, open->stream, &open->replies);
            check_ended(worker, open);
        }
        release(worker, open);
    }
    return NULL;
}

static void run_stress(uint32_t depth, uint64_t seed, uint32_t num_kv_blocks)
{
    struct world_options options = world_options_default(depth);
    options.stub.vocab_size = VOCAB;
    options.stub.num_kv_blocks = num_kv_blocks;
    options.stub.max_model_len = 256;
    options.stub.max_num_seqs = 6;
    options.engine.max_waiting = 10;
    options.engine.prefill_chunk = 40;
    options.engine.policy = seed % 2 ? ENGINE_PRIORITY : ENGINE_FCFS;
    struct world world;
    world_open(&world, &options);
    stub_poison(world.stub, POISON, 7, STEP_RESULT_NOT_FINITE);
    static struct worker workers[N_THREADS];
    pthread_t threads[N_THREADS];
    for (uint32_t i = 0; i < N_THREADS; i++) {
        workers[i] = (struct worker){.world = &world, .index = i, .rng = rng_make(seed * N_THREADS + i)};
        for (uint32_t k = 0; k < OPEN_MAX; k++)
            workers[i].open[k].replies = replies_new(CHOICES_MAX);
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    struct worker all = {0};
    for (uint32_t i = 0; i < N_THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        all.n_submitted += workers[i].n_submitted;
        all.n_whole += workers[i].n_whole;
        all.n_cancelled += workers[i].n_cancelled;
        all.n_failed += workers[i].n_failed;
        for (uint32_t k = 0; k < OPEN_MAX; k++)
            replies_free(&workers[i].open[k].replies);
    }
    world_assert_empty(&world);
    struct loads loads;
    world.vtable->loads(world.service, &loads);
    assert_int_equal(loads.requests_total, all.n_submitted);
    assert_int_equal(loads.requests_finished, all.n_submitted);
    assert_true(all.n_whole > 0 && all.n_cancelled > 0 && all.n_failed > 0);
    world_close(&world);
}

static void test_roomy(void **state)
{
    (void)state;
    run_stress(1, 1, 200);
    run_stress(2, 2, 200);
}

static void test_tight(void **state)
{
    (void)state;
    run_stress(1, 3, 16);
    run_stress(2, 4, 16);
    run_stress(2, 5, 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_roomy), cmocka_unit_test(test_tight)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
