/* The small parts of the router's service: times, doubts, copies, timers, releases. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <math.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/event_count.h"
#include "router/policy/cascade.h"
#include "router/policy/privacy.h"
#include "router/service/answer_keep.h"
#include "router/service/event_copy.h"
#include "router/service/route_snapshot.h"
#include "router/service/route_worker.h"
#include "router/service/time_sketch.h"

#define MS INT64_C(1000000)

static void times_have_quantiles(void **state)
{
    (void)state;
    struct time_sketch sketch = {0};
    assert_int_equal(time_sketch_quantile_ns(&sketch, 0.5), -1);
    for (int i = 1; i <= 100; i++)
        time_sketch_add(&sketch, i * MS);
    assert_in_range(time_sketch_quantile_ns(&sketch, 0.5), 50 * MS, 61 * MS);
    assert_in_range(time_sketch_quantile_ns(&sketch, 0.95), 95 * MS, 115 * MS);
    for (int i = 0; i < 10 * TIME_SKETCH_MEMORY; i++) /* what was once fades */
        time_sketch_add(&sketch, 1000 * MS);
    assert_in_range(time_sketch_quantile_ns(&sketch, 0.05), 1000 * MS, 1201 * MS);
    assert_true(sketch.total < TIME_SKETCH_MEMORY);
    time_sketch_add(&sketch, 0);
    time_sketch_add(&sketch, INT64_MAX);
    assert_true(time_sketch_quantile_ns(&sketch, 1) > 0);
}

static void doubt_is_what_two_candidates_leave(void **state)
{
    (void)state;
    struct cascade_margins margins = {0};
    struct confidence_map map = {0};
    double estimate;
    assert_false(cascade_decide(&margins, &map, 0, &estimate)); /* nothing is known */
    assert_true(estimate < 0);
    struct position_logprobs place = {.n_top = 2, .top = {{1, logf(0.75f)}, {2, logf(0.25f)}}};
    cascade_add(&margins, &place);
    place.n_top = 0;
    cascade_add(&margins, &place); /* tells nothing */
    assert_int_equal(margins.n, 1);
    assert_true(fabs(cascade_uncertainty(&margins) - 0.5) < 1e-6);
    assert_true(cascade_decide(&margins, &map, 0.4, &estimate));
    assert_false(cascade_decide(&margins, &map, 0.6, &estimate));
    map = (struct confidence_map){.n_points = 2, .points = {{0, 0}, {1, 0.1}}};
    assert_false(cascade_decide(&margins, &map, 0.4, &estimate));
    assert_true(fabs(estimate - 0.05) < 1e-6);
}

static void only_a_decision_releases(void **state)
{
    (void)state;
    json_t *request = json_object();
    const struct {
        struct policy_decision decision;
        bool is_offline, goes;
    } CASES[] = {
        {{.tier = 1}, false, true},
        {{.tier = 1}, true, false},
        {{.local_only = true}, false, false},
        {{.is_refused = true}, false, false},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct shareable shareable;
        assert_int_equal(privacy_release(&CASES[i].decision, CASES[i].is_offline, request, &shareable),
                         CASES[i].goes);
        assert_ptr_equal(shareable_request(&shareable), CASES[i].goes ? request : NULL);
        shareable_free(&shareable);
        assert_null(shareable_request(&shareable));
    }
    json_decref(request);
}

static void events_are_copied_whole(void **state)
{
    (void)state;
    uint32_t ids[] = {1, 2};
    struct position_logprobs place = {.n_top = 1};
    char text[] = "hey", arguments[] = "{}", id[] = "call_1";
    struct tool_call call = {.id = id, .arguments = arguments, .arguments_bytes = 2};
    struct event event = {.kind = EVENT_TOKENS,
                          .token_ids = ids,
                          .n_token_ids = 2,
                          .text = text,
                          .text_bytes = 3,
                          .logprobs = &place,
                          .n_logprobs = 1,
                          .tool_calls = &call,
                          .n_tool_calls = 1};
    struct event_node *node = event_copy(&event);
    memset(ids, 0, sizeof ids);
    memset(text, 'x', 3);
    memset(id, 'x', 6);
    assert_int_equal(node->event.token_ids[1], 2);
    assert_memory_equal(node->event.text, "hey", 3);
    assert_string_equal(node->event.tool_calls[0].id, "call_1");
    assert_null(node->event.tool_calls[0].name);
    assert_int_equal(node->event.logprobs[0].n_top, 1);
    assert_null(node->event.refusal);
    mem_free(node);
    mem_fail_nth(0);
    assert_null(event_copy(&event));
}

struct noted {
    struct worker_timer timer;
    struct worker_job job;
    struct event_count done;
};

static void note_timer(struct worker_timer *timer)
{
    event_count_bump(&((struct noted *)timer)->done);
}

static void note_job(struct worker_job *job)
{
    event_count_bump(&((struct noted *)((char *)job - offsetof(struct noted, job)))->done);
}

static void a_worker_does_what_is_due(void **state)
{
    (void)state;
    struct route_worker *worker;
    assert_int_equal(route_worker_open(clock_monotonic(), &(struct worker_after){NULL, NULL}, &worker).code,
                     ERR_OK);
    int64_t now_ns = clock_now_ns(clock_monotonic());
    struct noted late = {.timer.fire = note_timer, .job.run = note_job}, soon = late;
    route_worker_set(worker, &late.timer, now_ns + 3600000 * MS);
    route_worker_set(worker, &soon.timer, now_ns + MS);
    while (event_count_read(&soon.done) == 0)
        event_count_wait(&soon.done, 0, -1);
    assert_false(route_worker_unset(worker, &soon.timer));
    assert_true(route_worker_unset(worker, &late.timer));
    assert_false(route_worker_unset(worker, &late.timer));
    route_worker_post(worker, &late.job);
    route_worker_post(worker, &soon.job);
    route_worker_close(worker); /* runs what was posted */
    assert_int_equal(event_count_read(&late.done), 1);
    assert_int_equal(event_count_read(&soon.done), 2);
}

static void say(struct answer_keep *keep, uint32_t choice, const char *text, size_t text_bytes)
{
    answer_keep_take(keep, &(struct event){.choice_index = choice, .text = text, .text_bytes = text_bytes});
}

static void call_tool(struct answer_keep *keep, uint32_t index, const char *name, const char *arguments)
{
    const struct tool_call call = {
        .index = index, .name = name, .arguments = arguments, .arguments_bytes = strlen(arguments)};
    answer_keep_take(keep, &(struct event){.text = "", .tool_calls = &call, .n_tool_calls = 1});
}

static bool is_kept(const struct answer_keep *keep, const char *expected)
{
    struct buffer text = {.limit_bytes = 2 * ANSWER_KEEP_BYTES_MAX};
    bool is_written = answer_keep_write(keep, &text);
    bool is_so = is_written && text.size == strlen(expected) && memcmp(text.data, expected, text.size) == 0;
    buffer_free(&text);
    return is_so;
}

static void answers_are_kept_up_to_a_limit(void **state)
{
    (void)state;
    struct answer_keep off = {0}, keep = {.is_on = true};
    struct buffer text = {.limit_bytes = 2 * ANSWER_KEEP_BYTES_MAX};
    say(&off, 0, "Yes", 3);
    assert_false(answer_keep_write(&off, &text));
    assert_true(is_kept(&keep, ""));
    say(&keep, 0, "Ye", 2);
    say(&keep, 1, "No", 2); /* the first choice alone */
    say(&keep, 0, "s", 1);
    assert_true(is_kept(&keep, "Yes"));
    call_tool(&keep, 1, "g", "{}");
    call_tool(&keep, 0, "f", "{\"b\": 1, ");
    call_tool(&keep, 0, NULL, "\"a\": 2}");
    assert_true(is_kept(&keep, "Yes\n{\"tool_calls\":[{\"arguments\":{\"a\":2,\"b\":1},\"name\":\"f\"},"
                               "{\"arguments\":{},\"name\":\"g\"}]}"));
    call_tool(&keep, CALL_LIST_MAX, "h", "{}");
    assert_false(answer_keep_write(&keep, &text));
    answer_keep_forget(&keep);
    assert_true(is_kept(&keep, "") && keep.is_on);

    static char long_text[ANSWER_KEEP_BYTES_MAX];
    memset(long_text, 'x', sizeof long_text);
    say(&keep, 0, long_text, sizeof long_text);
    assert_true(answer_keep_write(&keep, &text));
    assert_int_equal(text.size, ANSWER_KEEP_BYTES_MAX);
    call_tool(&keep, 0, "f", "1"); /* all of it together counts */
    assert_false(answer_keep_write(&keep, &text));
    assert_null(keep.text.data);
    say(&keep, 0, "more", 4);
    assert_false(answer_keep_write(&keep, &text));
    answer_keep_forget(&keep);
    mem_fail_nth(0);
    say(&keep, 0, "Yes", 3);
    mem_fail_nth(-1);
    assert_true(keep.is_too_much);
    answer_keep_forget(&keep);
    buffer_free(&text);
}

/* One tenant's texts say nothing of another's. */
static void lengths_are_learnt_by_tenant(void **state)
{
    (void)state;
    struct upstream_state upstream = {0};
    assert_int_equal(upstream_tokens_per_kib(&upstream, "plain"), 0);
    for (int i = 0; i < 100; i++)
        upstream_counted(&upstream, "plain", 4096, 1024);
    assert_int_equal(upstream_tokens_per_kib(&upstream, "plain"), 256);
    assert_int_equal(upstream_tokens_per_kib(&upstream, "dense"), 256); /* of whom nothing is known */
    for (int i = 0; i < 100; i++)
        upstream_counted(&upstream, "dense", 4096, 4096);
    assert_int_equal(upstream_tokens_per_kib(&upstream, "plain"), 256);
    assert_in_range(upstream_tokens_per_kib(&upstream, "dense"), 1000, 1024);
    upstream_counted(&upstream, "plain", 100, 100); /* too short to say anything */
    assert_int_equal(upstream_tokens_per_kib(&upstream, "plain"), 256);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_have_quantiles),         cmocka_unit_test(doubt_is_what_two_candidates_leave),
        cmocka_unit_test(only_a_decision_releases),     cmocka_unit_test(events_are_copied_whole),
        cmocka_unit_test(a_worker_does_what_is_due),    cmocka_unit_test(answers_are_kept_up_to_a_limit),
        cmocka_unit_test(lengths_are_learnt_by_tenant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
