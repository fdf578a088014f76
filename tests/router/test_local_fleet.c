/* A fleet over fake engines: answers, refusals, replicas that die, come and go, and callers that leave. */
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "tests/router/fleet_world.h"

static void an_answer_and_what_is_known(void **state)
{
    (void)state;
    struct fleet_world world;
    fleet_world_open(&world, 1, NULL);
    struct said *said = said_make();
    struct request request = say("hello", 500);
    request.request_id = "mine";
    assert_int_equal(said_start(&world, &request, said).code, ERR_OK);
    said_wait_end(said);
    assert_said(said, "hello", 500);
    assert_int_equal(said->result.attempts, 1);
    assert_int_equal(said->result.n_handovers, 0);
    assert_true(said->result.has_events && !said->result.may_retry && !said->result.is_its_fault);
    assert_memory_equal(said->replica, "127.0.0.1:", 10);
    assert_string_equal(said->fingerprint, "0123456789abcdef");
    assert_true(said->result.started_ns <= said->result.first_token_ns &&
                said->result.first_token_ns <= said->result.ended_ns);
    said_free(said);
    struct local_view view;
    assert_true(local_fleet_view(world.fleet, 0, &view));
    assert_true(view.has_info && !view.fingerprints_differ);
    assert_string_equal(view.info.model, "fake");
    assert_int_equal(view.info.max_model_len, FAKE_MAX_MODEL_LEN);
    assert_int_equal(view.info.eos_token_ids[1], 5);
    assert_int_equal(view.loads.max_num_seqs, 256);
    assert_true(view.predicted_ttft_ns >= 0);
    assert_true(local_fleet_predict_ttft_ns(world.fleet, 0, &request) >= 0);
    assert_int_equal(local_fleet_predict_ttft_ns(world.fleet, 1, &request), -1);
    assert_false(local_fleet_view(world.fleet, 1, &view));
    size_t index = 9;
    assert_true(local_fleet_find(world.fleet, "demo", &index) && index == 0);
    assert_false(local_fleet_find(world.fleet, "other", &index));
    fleet_world_close(&world);
}

static void refusals_go_to_another(void **state)
{
    (void)state;
    static const enum err_code CODES[] = {ERR_UNAVAILABLE, ERR_RESOURCE_EXHAUSTED};
    struct fleet_world world;
    fleet_world_open(&world, 2, NULL);
    uint32_t n_retried = 0;
    for (int round = 0; round < 16; round++) {
        struct said *said = said_make();
        struct request request = say("x", 5);
        fake_service_fail_submit(world.engines[0].fake, CODES[round % 2]);
        assert_int_equal(said_start(&world, &request, said).code, ERR_OK);
        said_wait_end(said);
        assert_said(said, "x", 5);
        n_retried += said->result.attempts == 2;
        assert_true(said->result.attempts <= 2);
        said_free(said);
    }
    assert_true(n_retried > 0);
    fleet_world_close(&world);
}

static void what_everybody_refuses_may_go_elsewhere(void **state)
{
    (void)state;
    struct fleet_world world;
    fleet_world_open(&world, 2, NULL);
    struct said *said = said_make();
    struct request request = say("x", 5);
    for (size_t i = 0; i < 2; i++)
        fake_service_fail_submit(world.engines[i].fake, ERR_RESOURCE_EXHAUSTED);
    assert_int_equal(said_start(&world, &request, said).code, ERR_OK);
    said_wait_end(said);
    assert_int_equal(said->result.error.code, ERR_RESOURCE_EXHAUSTED);
    assert_int_equal(said->result.attempts, 2);
    assert_true(said->result.may_retry && !said->result.has_events && !said->result.is_its_fault);
    said_free(said);
    said = said_make(); /* what is wrong with the request itself is nobody's fault, and is not asked twice */
    request.text_bytes = 0;
    assert_int_equal(said_start(&world, &request, said).code, ERR_OK);
    said_wait_end(said);
    assert_int_equal(said->result.error.code, ERR_INVALID_ARGUMENT);
    assert_int_equal(said->result.attempts, 1);
    assert_true(!said->result.may_retry && !said->result.is_its_fault);
    said_free(said);
    engine_kill(&world, 0);
    engine_kill(&world, 1);
    wait_for_replicas(&world, 2, 0);
    said = said_make();
    request = say("x", 5);
    err_t e = said_start(&world, &request, said);
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    assert_string_equal(e.message, "no engine of \"demo\" is up");
    said_free(said);
    fleet_world_close(&world);
}

/* Which engine has the only stream. */
static size_t engine_of(struct fleet_world *world)
{
    for (size_t i = 0; i < world->n_engines; i++)
        if (engine_live(world, i) > 0)
            return i;
    fail_msg("no engine has the stream");
    return 0;
}

static void another_goes_on_where_one_died(void **state)
{
    (void)state;
    static const uint32_t WHERE[] = {1, 64, 65, 399, 400};
    struct fleet_world world;
    fleet_world_open(&world, 2, NULL);
    for (size_t i = 0; i < sizeof WHERE / sizeof *WHERE; i++) {
        struct said *said = said_make();
        struct request request = say("go on", 400);
        engines_stall_at(&world, WHERE[i]); /* at 400 all but the end has come */
        assert_int_equal(said_start(&world, &request, said).code, ERR_OK);
        said_wait_tokens(said, WHERE[i]);
        size_t dead = engine_of(&world);
        engine_kill(&world, dead);
        engines_stall_at(&world, UINT32_MAX);
        said_wait_end(said);
        engine_return(&world, dead);
        assert_said(said, "go on", 400);
        assert_true(said->result.n_handovers == 1 && said->result.attempts == 2);
        said_free(said);
        wait_for_replicas(&world, 2, 2);
    }
    fleet_world_close(&world);
}

/* Its reader is slow: nothing comes before it is ready, and nothing is lost. */
static void a_paused_answer_is_handed_over(void **state)
{
    (void)state;
    struct fleet_world world;
    fleet_world_open(&world, 2, NULL);
    struct said *said = said_make();
    struct request request = say("hold", 400);
    engines_stall_at(&world, 60);
    said->pause_after = 1;
    assert_int_equal(said_start(&world, &request, said).code, ERR_OK);
    said_wait_paused(said);
    uint32_t n_events = said->n_events;
    engine_kill(&world, engine_of(&world));
    engines_stall_at(&world, UINT32_MAX);
    wait_for_replicas(&world, 2, 1);
    assert_int_equal(said->n_events, n_events);
    said_resume(said);
    said_wait_end(said);
    assert_said(said, "hold", 400);
    assert_int_equal(said->result.n_handovers, 1);
    said_free(said);
    fleet_world_close(&world);
}

static void slowly(size_t engine, struct fake_options *options)
{
    (void)engine;
    options->tick_ns = 200000;
}

/* Nobody paused: it dies while it speaks, which it does until then: there is more than it may say so far.
 * Three times in one answer. */
static void a_running_answer_is_handed_over(void **state)
{
    (void)state;
    enum { PART = 300, AHEAD = 200 };
    struct fleet_world world;
    fleet_world_open(&world, 4, slowly);
    struct said *said = said_make();
    struct request request = say("on and on", 1500);
    request.sampling.set |= SAMPLING_LOGPROBS;
    request.sampling.logprobs = 1;
    engines_stall_at(&world, PART + AHEAD);
    assert_int_equal(said_start(&world, &request, said).code, ERR_OK);
    for (uint32_t k = 1; k <= 3; k++) {
        said_wait_tokens(said, k * PART);
        engine_kill(&world, engine_of(&world));
        engines_stall_at(&world, k < 3 ? (k + 1) * PART + AHEAD : UINT32_MAX);
    }
    said_wait_end(said);
    assert_said(said, "on and on", 1500);
    assert_int_equal(said->result.n_handovers, 3);
    said_free(said);
    fleet_world_close(&world);
}

static void the_only_engine_comes_back(void **state)
{
    (void)state;
    struct fleet_world world;
    fleet_world_open(&world, 1, NULL);
    struct said *said = said_make();
    struct request request = say("alone", 400);
    engines_stall_at(&world, 100);
    assert_int_equal(said_start(&world, &request, said).code, ERR_OK);
    said_wait_tokens(said, 100);
    engine_kill(&world, 0);
    engines_stall_at(&world, UINT32_MAX);
    engine_return(&world, 0);
    said_wait_end(said);
    assert_said(said, "alone", 400);
    assert_int_equal(said->result.n_handovers, 1);
    said_free(said);
    fleet_world_close(&world);
}

static void what_cannot_go_on_says_so(void **state)
{
    (void)state;
    struct fleet_world world;
    fleet_world_open(&world, 2, NULL);
    for (int several = 0; several < 2; several++) {
        struct said *said = said_make();
        struct request request = say("two", 400);
        request.sampling.set |= several ? SAMPLING_N : SAMPLING_PROMPT_LOGPROBS;
        request.sampling.n = 2;
        engines_stall_at(&world, 10);
        assert_int_equal(said_start(&world, &request, said).code, ERR_OK);
        said_wait_tokens(said, 10);
        size_t dead = engine_of(&world);
        engine_kill(&world, dead);
        engines_stall_at(&world, UINT32_MAX);
        said_wait_end(said);
        assert_int_equal(said->result.error.code, ERR_UNAVAILABLE);
        assert_non_null(strstr(said->message, "is gone in the middle of its answer"));
        assert_non_null(strstr(said->message, several ? "several choices" : "this answer"));
        assert_true(said->result.has_events && !said->result.may_retry && said->result.is_its_fault);
        said_free(said);
        engine_return(&world, dead);
        wait_for_replicas(&world, 2, 2);
    }
    fleet_world_close(&world);
}

static void otherwise(size_t engine, struct fake_options *options)
{
    options->salt = engine;
}

static void one_that_would_go_on_differently_does_not(void **state)
{
    (void)state;
    struct fleet_world world;
    fleet_world_open(&world, 2, otherwise);
    struct said *said = said_make();
    struct request request = say("which", 400);
    engines_stall_at(&world, 10);
    assert_int_equal(said_start(&world, &request, said).code, ERR_OK);
    said_wait_tokens(said, 10);
    engine_kill(&world, engine_of(&world));
    engines_stall_at(&world, UINT32_MAX);
    said_wait_end(said);
    assert_int_equal(said->result.error.code, ERR_UNAVAILABLE);
    assert_non_null(strstr(said->message, "would go on differently"));
    assert_int_equal(said->n_tokens, 10);
    said_free(said);
    wait_for_silence(&world);
    fleet_world_close(&world);
}

static void replicas_come_and_go_by_name(void **state)
{
    (void)state;
    struct fleet_world world;
    fleet_world_open(&world, 2, NULL);
    struct said *said = said_make();
    struct request request = say("stay", 400);
    engines_stall_at(&world, 10);
    assert_int_equal(said_start(&world, &request, said).code, ERR_OK);
    said_wait_tokens(said, 10);
    size_t leaving = engine_of(&world), other = 1 - leaving;
    engine_name(&world, leaving, false);
    wait_for_replicas(&world, 2, 1); /* it has a call yet */
    for (int i = 0; i < 8; i++) {
        struct said *next = said_make();
        struct request small = say("next", 3);
        assert_int_equal(said_start(&world, &small, next).code, ERR_OK);
        said_wait_end(next);
        assert_said(next, "next", 3);
        said_free(next);
    }
    assert_int_equal(fake_service_counts(world.engines[leaving].fake).submitted, 1);
    assert_int_equal(fake_service_counts(world.engines[other].fake).submitted, 8);
    engines_stall_at(&world, UINT32_MAX);
    said_wait_end(said);
    assert_said(said, "stay", 400);
    assert_int_equal(said->result.n_handovers, 0);
    said_free(said);
    wait_for_replicas(&world, 1, 1);
    engine_name(&world, leaving, true);
    wait_for_replicas(&world, 2, 2);
    fleet_world_close(&world);
}

static uint32_t n_submitted(struct fleet_world *world, size_t engine)
{
    return fake_service_counts(world->engines[engine].fake).submitted;
}

/* All of them under way at once, shared by those that are equal, and then answered. */
static void a_thousand_calls(void **state)
{
    (void)state;
    enum { CALLS = 1000, ENGINES = 3 };
    struct fleet_world world;
    fleet_world_open(&world, ENGINES, NULL);
    struct said **all = mem_alloc_array(CALLS, sizeof(struct said *));
    static char texts[CALLS][16];
    engines_stall_at(&world, 1);
    for (int i = 0; i < CALLS; i++) {
        (void)snprintf(texts[i], sizeof texts[i], "p%d", i);
        struct request request = say(texts[i], 10);
        all[i] = said_make();
        assert_int_equal(said_start(&world, &request, all[i]).code, ERR_OK);
    }
    for (int i = 0; i < CALLS; i++)
        said_wait_tokens(all[i], 1);
    for (size_t i = 0; i < ENGINES; i++)
        assert_in_range(n_submitted(&world, i), CALLS / ENGINES * 2 / 3, CALLS / ENGINES * 4 / 3);
    engines_stall_at(&world, UINT32_MAX);
    for (int i = 0; i < CALLS; i++) {
        said_wait_end(all[i]);
        assert_said(all[i], texts[i], 10);
        said_free(all[i]);
    }
    mem_free(all);
    fleet_world_close(&world);
}

enum { STORM_CALLS = 150, STORM_THREADS = 3 };

static void *storm(void *context)
{
    struct fleet_world *world = context;
    for (uint32_t i = 0; i < STORM_CALLS; i++) {
        struct said *said = said_make();
        struct request request = say("storm", 2000);
        said->pause_after = i % 3 == 0 ? 1 + i : 0;
        if (said_start(world, &request, said).code == ERR_OK) {
            if (i % 2 == 0)
                said_wait_tokens(said, i % 50);
            local_call_cancel(said->call);
            local_call_resume(said->call);
            local_call_cancel(said->call);
            said_wait_end(said);
            bool is_fine = said->n_ends == 1 &&
                           (said->result.error.code == ERR_CANCELLED || said->result.error.code == ERR_OK);
            if (!is_fine)
                return said->message;
        }
        local_call_cancel(said->call);
        said_free(said);
    }
    return NULL;
}

static void a_storm_of_cancels(void **state)
{
    (void)state;
    struct fleet_world world;
    pthread_t threads[STORM_THREADS];
    fleet_world_open(&world, 2, slowly);
    for (int i = 0; i < STORM_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, storm, &world), 0);
    for (int i = 0; i < STORM_THREADS; i++) {
        void *failure;
        pthread_join(threads[i], &failure);
        if (failure)
            fail_msg("%s", (const char *)failure);
    }
    wait_for_silence(&world);
    fleet_world_close(&world);
}

static void deadlines_are_kept(void **state)
{
    (void)state;
    struct fleet_world world;
    fleet_world_open(&world, 1, NULL);
    fake_service_hold(world.engines[0].fake, true);
    struct said *said = said_make();
    struct request request = say("late", 10);
    request.deadline_ns = clock_now_ns(clock_monotonic()) + 50000000;
    assert_int_equal(said_start(&world, &request, said).code, ERR_OK);
    said_wait_end(said);
    assert_int_equal(said->result.error.code, ERR_DEADLINE_EXCEEDED);
    assert_false(said->result.may_retry);
    said_free(said);
    said = said_make(); /* one that has passed is not sent at all */
    request.deadline_ns = 1;
    assert_int_equal(said_start(&world, &request, said).code, ERR_OK);
    said_wait_end(said);
    assert_int_equal(said->result.error.code, ERR_DEADLINE_EXCEEDED);
    assert_int_equal(said->result.attempts, 0);
    said_free(said);
    fake_service_hold(world.engines[0].fake, false);
    wait_for_silence(&world);
    fleet_world_close(&world);
}

static void closing_ends_what_is_under_way(void **state)
{
    (void)state;
    enum { CALLS = 50 };
    struct fleet_world world;
    struct said *all[CALLS];
    fleet_world_open(&world, 2, NULL);
    for (int i = 0; i < CALLS; i++) {
        struct request request = say("open", 2000);
        all[i] = said_make();
        all[i]->pause_after = 5;
        assert_int_equal(said_start(&world, &request, all[i]).code, ERR_OK);
    }
    said_wait_paused(all[0]);
    fleet_world_close(&world);
    for (int i = 0; i < CALLS; i++) {
        assert_int_equal(all[i]->n_ends, 1);
        assert_int_equal(all[i]->result.error.code, ERR_CANCELLED);
        local_call_cancel(all[i]->call); /* too late, and harmless */
        said_free(all[i]);
    }
}

static void words_and_ids(void **state)
{
    (void)state;
    struct fleet_world world;
    fleet_world_open(&world, 2, NULL);
    struct request request = say("abc", 1);
    uint32_t *ids = NULL;
    size_t n_ids = 0;
    for (int round = 0; round < 2; round++) {
        assert_int_equal(
            local_fleet_tokenize(world.fleet, 0, &request, INT64_C(30000000000), &ids, &n_ids).code, ERR_OK);
        assert_int_equal(n_ids, 3);
        assert_int_equal(ids[2], 'c');
        mem_free(ids);
        struct buffer text = {.limit_bytes = 64};
        assert_int_equal(local_fleet_detokenize(world.fleet, 0, (const uint32_t[]){7, 2, 8}, 3, round == 0,
                                                INT64_C(30000000000), &text)
                             .code,
                         ERR_OK);
        assert_string_equal(text.data, round == 0 ? "7 8 " : "7 2 8 ");
        buffer_free(&text);
    }
    struct buffer small = {.limit_bytes = 2};
    assert_int_equal(local_fleet_detokenize(world.fleet, 0, (const uint32_t[]){7, 8}, 2, true,
                                            INT64_C(30000000000), &small)
                         .code,
                     ERR_RESOURCE_EXHAUSTED);
    buffer_free(&small);
    request.prompt_kind = PROMPT_MESSAGES; /* the fake one cannot */
    struct chat_message message = {"user", "x", 1};
    request.messages = &message;
    request.n_messages = 1;
    assert_int_equal(local_fleet_tokenize(world.fleet, 0, &request, INT64_C(30000000000), &ids, &n_ids).code,
                     ERR_INVALID_ARGUMENT);
    assert_int_equal(local_fleet_tokenize(world.fleet, 3, &request, 1, &ids, &n_ids).code, ERR_NOT_FOUND);
    request = say("abc", 1);
    assert_int_equal(local_fleet_tokenize(world.fleet, 0, &request, 0, &ids, &n_ids).code,
                     ERR_DEADLINE_EXCEEDED);
    engine_kill(&world, 0);
    engine_kill(&world, 1);
    wait_for_replicas(&world, 2, 0);
    assert_int_equal(local_fleet_tokenize(world.fleet, 0, &request, INT64_C(30000000000), &ids, &n_ids).code,
                     ERR_UNAVAILABLE);
    fleet_world_close(&world);
}

static void engines_that_are_not_well_get_nothing(void **state)
{
    (void)state;
    struct fleet_world world;
    fleet_world_open(&world, 3, NULL);
    fake_service_set_heartbeat(world.engines[0].fake, INT64_C(5000000000), false);
    wait_for_replicas(&world, 3, 2);
    fake_service_set_heartbeat(world.engines[0].fake, INT64_C(5000000000), true); /* a long prefill */
    wait_for_replicas(&world, 3, 3);
    fake_service_set_failed(world.engines[1].fake);
    wait_for_replicas(&world, 3, 2);
    fleet_world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_and_what_is_known),
        cmocka_unit_test(refusals_go_to_another),
        cmocka_unit_test(what_everybody_refuses_may_go_elsewhere),
        cmocka_unit_test(another_goes_on_where_one_died),
        cmocka_unit_test(a_paused_answer_is_handed_over),
        cmocka_unit_test(a_running_answer_is_handed_over),
        cmocka_unit_test(the_only_engine_comes_back),
        cmocka_unit_test(what_cannot_go_on_says_so),
        cmocka_unit_test(one_that_would_go_on_differently_does_not),
        cmocka_unit_test(replicas_come_and_go_by_name),
        cmocka_unit_test(a_thousand_calls),
        cmocka_unit_test(a_storm_of_cancels),
        cmocka_unit_test(deadlines_are_kept),
        cmocka_unit_test(closing_ends_what_is_under_way),
        cmocka_unit_test(words_and_ids),
        cmocka_unit_test(engines_that_are_not_well_get_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
