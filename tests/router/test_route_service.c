/* The router as a service, over fake engines and a provider that follows scripts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <jansson.h>
#include <cmocka.h>
#include "base/event_count.h"
#include "tests/router/fake_fleet.h"
#include "tests/router/route_rig.h"
#include "tests/router/route_checks.h"

static const struct script_step ANSWERS[] = {
    {STEP_READ, NULL}, {STEP_SEND, RIG_STREAM RIG_TEXT("big ") RIG_TEXT("one") RIG_END}, {STEP_END, NULL}};
static const struct script_step REFUSES[] = {
    {STEP_READ, NULL},
    {STEP_SEND, "HTTP/1.1 503 Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
    {STEP_END, NULL}};
static const struct script_step FINDS_WRONG[] = {
    {STEP_READ, NULL},
    {STEP_SEND, "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length: 68\r\n"
                "Connection: close\r\n\r\n"
                "{\"error\": {\"message\": \"bad\", \"type\": \"invalid_request_error\"}}      "},
    {STEP_END, NULL}};
static const struct script_step HANGS[] = {
    {STEP_READ, NULL}, {STEP_SEND, RIG_STREAM RIG_TEXT("a")}, {STEP_UNTIL_GONE, NULL}, {STEP_END, NULL}};
static const struct script_step BREAKS[] = {
    {STEP_READ, NULL}, {STEP_SEND, RIG_STREAM RIG_TEXT("half")}, {STEP_END, NULL}};

static const struct script_step NAMES_LATE[] = {
    {STEP_READ, NULL},
    {STEP_SEND, RIG_STREAM RIG_TEXT("a")},
    {STEP_WAIT, NULL},
    {STEP_SEND, "data: {\"system_fingerprint\": \"fp_that_is_told_late\", \"choices\": []}\n\n" RIG_END},
    {STEP_END, NULL}};

#define HEAD_WITH(headers)                                                                                   \
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n" headers "\r\n"
static const struct script_step LAST_ONE[] = {
    {STEP_READ, NULL},
    {STEP_SEND,
     HEAD_WITH("x-ratelimit-remaining-requests: 0\r\nx-ratelimit-reset-requests: 1h\r\n") RIG_TEXT("last")},
    {STEP_WAIT, NULL},
    {STEP_SEND, RIG_END},
    {STEP_END, NULL}};
static const struct script_step SOON_AGAIN[] = {
    {STEP_READ, NULL},
    {STEP_SEND, HEAD_WITH("x-ratelimit-remaining-tokens: 0\r\nx-ratelimit-reset-tokens: 20ms\r\n")
                    RIG_TEXT("soon") RIG_END},
    {STEP_END, NULL}};
static const struct script_step LEAVE_ME[] = {
    {STEP_READ, NULL},
    {STEP_SEND, "HTTP/1.1 429 Slow\r\nRetry-After: 3600\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"},
    {STEP_END, NULL}};

#define QUICK "retries: {max: 3, backoff: 1ms}\n"

static void an_engine_answers(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS};
    struct route_rig *rig = rig_open(scripts, 1, QUICK, false);
    fake_fleet_script("hello");
    struct rig_answer answer = rig_ask(rig, &(struct rig_question){0});
    rig_assert_answer(&answer, "hello", "local");
    assert_string_equal(answer.model, "demo");
    assert_string_equal(answer.reason, "default");
    assert_string_equal(answer.cache, "off");
    assert_int_equal(answer.n_ids, 5);
    assert_int_equal(answer.usage.completion_tokens, 5);
    assert_true(answer.cost > 0); /* 3600 $ an hour */
    assert_int_equal(answer.attempts, 1);
    rig_forget(&answer);
    assert_int_equal(script_server_connections(rig->server), 0);
    rig_close(rig);
}

static void a_provider_answers(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS};
    struct route_rig *rig = rig_open(scripts, 1, QUICK, false);
    struct rig_answer answer = rig_ask(rig, &(struct rig_question){.route = "frontier"});
    rig_assert_answer(&answer, "big one", "p");
    assert_string_equal(answer.model, "big");
    assert_string_equal(answer.reason, "wish");
    assert_int_equal(answer.n_ids, 0);
    assert_int_equal(answer.cost, 1000 * 1000 + 100 * 10000); /* 1 $ and 10 $ a million */
    assert_int_equal(answer.usage.prompt_tokens, 1000);
    rig_forget(&answer);
    rig_close(rig);
}

static bool metrics_say(struct route_rig *rig, const char *line)
{
    struct buffer text = {.limit_bytes = 1 << 20};
    assert_true(rig->service->vtable->metrics_text(rig->service, &text));
    assert_true(buffer_append(&text, "", 1));
    bool found = strstr(text.data, line) != NULL;
    buffer_free(&text);
    return found;
}

static void wait_metric(struct route_rig *rig, const char *line)
{
    struct event_count *progress = rig->service->vtable->progress(rig->service);
    for (;;) {
        uint32_t seen = event_count_read(progress);
        if (metrics_say(rig, line))
            return;
        event_count_wait(progress, seen, 20000000); /* not everything that is counted is told */
    }
}

static void wait_event(struct route_rig *rig, struct stream *stream, struct event *event)
{
    struct event_count *progress = rig->service->vtable->progress(rig->service);
    for (;;) {
        uint32_t seen = event_count_read(progress);
        if (rig->service->vtable->stream_next(stream, event))
            return;
        event_count_wait(progress, seen, -1);
    }
}

/* A door reads who answers on its own thread, while the call's end may name more of him. */
static void what_was_told_does_not_change_under_its_reader(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {NAMES_LATE};
    struct route_rig *rig = rig_open(scripts, 1, QUICK, false);
    const struct service_vtable *vtable = rig->service->vtable;
    struct stream *stream;
    struct event event;
    assert_int_equal(rig_submit(rig, &(struct rig_question){.route = "frontier"}, &stream).code, ERR_OK);
    wait_event(rig, stream, &event);
    assert_string_equal(event.source->fingerprint, "");
    script_server_go(rig->server);
    wait_metric(rig, "bantam:router_answers_total{provider=\"p\",model=\"big\"} 1\n");
    assert_string_equal(event.source->fingerprint, "");
    while (event.kind != EVENT_FINISHED)
        wait_event(rig, stream, &event);
    assert_string_equal(event.source->fingerprint, "fp_that_is_told_late");
    vtable->stream_release(stream);
    rig_close(rig);
}

/* Of p/big, as route_explain has it. */
static json_int_t explained(struct route_rig *rig, const char *name, const char *of)
{
    struct chat_message message = {.role = "user", .content = "Hi", .content_bytes = 2};
    struct request request = {.prompt_kind = PROMPT_MESSAGES,
                              .messages = &message,
                              .n_messages = 1,
                              .deadline_ns = REQUEST_NO_DEADLINE};
    struct buffer out = {.limit_bytes = 1 << 20};
    assert_int_equal(route_service_explain(rig->router, &request, &out).code, ERR_OK);
    json_t *root = json_loadb(out.data, out.size, 0, NULL);
    const json_t *tier = json_array_get(json_object_get(root, "tiers"), 1),
                 *model = json_array_get(json_object_get(tier, "models"), 0),
                 *value = json_object_get(model, name);
    value = of ? json_object_get(value, of) : value;
    json_int_t number = json_is_integer(value) ? json_integer_value(value) : -1;
    json_decref(root);
    buffer_free(&out);
    return number;
}

/* The last request of an hour has been used: that is known with the head of its answer, before its end. */
static void who_has_nothing_left_is_not_asked(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {LAST_ONE, ANSWERS};
    struct route_rig *rig = rig_open(scripts, 2, QUICK, false);
    struct stream *stream;
    struct rig_answer last = {.text = {.limit_bytes = 1 << 16}, .error = err_ok()};
    fake_fleet_script("here");
    assert_int_equal(explained(rig, "remaining", "requests"), -1);
    assert_int_equal(rig_submit(rig, &(struct rig_question){.route = "frontier"}, &stream).code, ERR_OK);
    rig_read(rig, stream, &last, 1);
    struct rig_answer next = rig_ask(rig, &(struct rig_question){.route = "frontier"});
    rig_assert_answer(&next, "here", "local");
    assert_string_equal(next.reason, "down");
    rig_forget(&next);
    script_server_go(rig->server);
    rig_read(rig, stream, &last, 0);
    rig_assert_answer(&last, "last", "p");
    rig->service->vtable->stream_release(stream);
    rig_forget(&last);
    assert_int_equal(script_server_connections(rig->server), 1);
    assert_int_equal(explained(rig, "remaining", "requests"), 0);
    assert_int_equal(explained(rig, "remaining", "tokens"), -1);
    assert_true(explained(rig, "rests_ms", NULL) > 3000000);
#define BIG "{provider=\"p\",model=\"big\""
    assert_true(metrics_say(rig, "bantam:router_rate_remaining" BIG ",of=\"requests\"} 0\n"));
    assert_false(metrics_say(rig, "bantam:router_rate_remaining" BIG ",of=\"tokens\"}"));
    assert_false(metrics_say(rig, "bantam:router_rate_reset_timestamp_seconds" BIG "} 0\n"));
    rig_close(rig);
}

static void what_is_new_again_is_asked_again(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {SOON_AGAIN, ANSWERS};
    struct route_rig *rig = rig_open(scripts, 2, QUICK, false);
    struct rig_answer answer = rig_ask(rig, &(struct rig_question){.route = "frontier"});
    rig_assert_answer(&answer, "soon", "p");
    rig_forget(&answer);
    while (explained(rig, "rests_ms", NULL) > 0)
        continue;
    fake_fleet_script("here");
    do {
        answer = rig_ask(rig, &(struct rig_question){.route = "frontier"});
        rig_forget(&answer);
    } while (strcmp(answer.provider, "p") != 0); /* the rest of a millisecond */
    rig_close(rig);
}

static void who_asks_to_be_left_alone_is(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {LEAVE_ME, ANSWERS, ANSWERS};
    struct route_rig *rig = rig_open(scripts, 3, QUICK "when_broke: refuse\n", false);
    fake_fleet_script("here");
    for (int i = 0; i < 2; i++) {
        struct rig_answer answer = rig_ask(rig, &(struct rig_question){.route = "frontier"});
        assert_int_not_equal(answer.error.code, ERR_OK);
        rig_forget(&answer);
    }
    assert_int_equal(script_server_connections(rig->server), 1);
    assert_true(explained(rig, "rests_ms", NULL) > 3000000);
    rig_close(rig);
}

static void what_fails_before_the_first_byte_is_followed(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS, REFUSES, ANSWERS, REFUSES, REFUSES, REFUSES};
    struct route_rig *rig = rig_open(scripts, 6, QUICK "when_down: {to: frontier}\n", false);
    fake_fleet_script("!");
    struct rig_answer up = rig_ask(rig, &(struct rig_question){0});
    rig_assert_answer(&up, "big one", "p"); /* the engine fails: the frontier */
    assert_string_equal(up.reason, "down");
    assert_int_equal(up.attempts, 2);
    rig_forget(&up);
    fake_fleet_script("here");
    struct rig_answer again = rig_ask(rig, &(struct rig_question){.route = "frontier"});
    rig_assert_answer(&again, "big one", "p"); /* 503, then an answer */
    assert_int_equal(again.attempts, 2);
    rig_forget(&again);
    struct rig_answer down = rig_ask(rig, &(struct rig_question){.route = "frontier"});
    rig_assert_answer(&down, "here", "local"); /* three times 503: the engine */
    assert_int_equal(down.attempts, 4);
    assert_string_equal(down.reason, "down");
    rig_forget(&down);
    rig_close(rig);
}

static void nothing_follows_the_first_byte(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {BREAKS};
    struct route_rig *rig = rig_open(scripts, 1, QUICK, false);
    struct rig_answer answer = rig_ask(rig, &(struct rig_question){.route = "frontier"});
    assert_int_equal(answer.error.code, ERR_UNAVAILABLE);
    assert_int_equal(answer.finish, FINISH_ERROR);
    assert_string_equal(answer.text.data, "half");
    assert_int_equal(answer.attempts, 1);
    rig_forget(&answer);
    fake_fleet_script("ab!");
    answer = rig_ask(rig, &(struct rig_question){0});
    assert_int_equal(answer.error.code, ERR_UNAVAILABLE);
    assert_string_equal(answer.text.data, "ab");
    rig_forget(&answer);
    assert_int_equal(script_server_connections(rig->server), 1);
    rig_close(rig);
}

static void a_wrong_request_is_wrong_everywhere(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS};
    struct route_rig *rig = rig_open(scripts, 1, QUICK "when_down: {to: frontier}\n", false);
    fake_fleet_script("x");
    struct rig_answer answer = rig_ask(rig, &(struct rig_question){0});
    assert_int_equal(answer.error.code, ERR_INVALID_ARGUMENT);
    assert_int_equal(script_server_connections(rig->server), 0);
    rig_forget(&answer);
    struct stream *stream;
    err_t e = rig_submit(rig, &(struct rig_question){.route = "nowhere"}, &stream);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    rig_close(rig);
}

static void what_must_stay_stays(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS};
    struct route_rig *rig =
        rig_open(scripts, 1,
                 QUICK "when_down: {to: frontier}\n"
                       "rules:\n  - {name: hr, when: {tenants: [hr]}, local_only: yes}\n"
                       "hedge: {tier: small, after: 1ms, to: frontier, max_share: 1}\n"
                       "cascade: {tier: small, tokens: 1, within: 1ms, escalate_over: 0.01,"
                       " to: frontier}\n",
                 false);
    fake_fleet_script("??");
    struct rig_answer answer = rig_ask(rig, &(struct rig_question){.privacy = "local_only"});
    rig_assert_answer(&answer, "??", "local");
    assert_string_equal(answer.reason, "privacy");
    rig_forget(&answer);
    answer = rig_ask(rig, &(struct rig_question){.tenant = "hr", .route = "frontier"});
    rig_assert_answer(&answer, "??", "local");
    assert_string_equal(answer.rule, "hr");
    rig_forget(&answer);
    fake_fleet_script("!");
    answer = rig_ask(rig, &(struct rig_question){.tenant = "hr"});
    assert_int_equal(answer.error.code, ERR_UNAVAILABLE);
    rig_forget(&answer);
    fake_fleet_up(0);
    struct stream *stream;
    err_t e = rig_submit(rig, &(struct rig_question){.tenant = "hr"}, &stream);
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    fake_fleet_up(1);
    rig_wait_idle(rig);
    assert_int_equal(script_server_connections(rig->server), 0);
    rig_close(rig);
}

static void offline_nothing_leaves(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS};
    struct route_rig *rig = rig_open(scripts, 1, QUICK "when_down: {to: frontier}\n", true);
    fake_fleet_script("in");
    struct rig_answer answer = rig_ask(rig, &(struct rig_question){.route = "frontier"});
    rig_assert_answer(&answer, "in", "local");
    assert_string_equal(answer.reason, "cannot_cross");
    rig_forget(&answer);
    fake_fleet_up(0);
    struct stream *stream;
    assert_int_equal(rig_submit(rig, &(struct rig_question){0}, &stream).code, ERR_UNAVAILABLE);
    struct loads loads;
    rig->service->vtable->loads(rig->service, &loads);
    assert_true(loads.failed);
    fake_fleet_up(1);
    rig->service->vtable->loads(rig->service, &loads);
    assert_false(loads.failed);
    assert_int_equal(script_server_connections(rig->server), 0);
    rig_close(rig);
}

static void a_cancelled_request_is_cancelled_upstream(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {HANGS};
    struct route_rig *rig = rig_open(scripts, 1, QUICK, false);
    struct stream *stream;
    struct rig_answer answer = {.text = {.limit_bytes = 1 << 16}, .error = err_ok()};
    assert_int_equal(rig_submit(rig, &(struct rig_question){.route = "frontier"}, &stream).code, ERR_OK);
    rig_read(rig, stream, &answer, 1);
    rig->service->vtable->stream_cancel(stream);
    rig->service->vtable->stream_cancel(stream);
    rig_read(rig, stream, &answer, 0);
    assert_int_equal(answer.finish, FINISH_ABORT);
    script_server_wait_ended(rig->server, 1); /* its connection was closed */
    rig->service->vtable->stream_release(stream);
    rig_forget(&answer);
    rig_wait_idle(rig);
    fake_fleet_script("a#");
    uint32_t before = fake_fleet_counts().cancelled;
    answer = (struct rig_answer){.text = {.limit_bytes = 1 << 16}, .error = err_ok()};
    assert_int_equal(rig_submit(rig, &(struct rig_question){0}, &stream).code, ERR_OK);
    rig_read(rig, stream, &answer, 1);
    rig->service->vtable->stream_release(stream); /* the client has left */
    fake_fleet_wait_cancelled(before + 1);
    rig_forget(&answer);
    rig_close(rig);
}

static void a_slow_reader_holds_the_engine_back(void **state)
{
    (void)state;
    enum { TOKENS = 1000 };
    static char script[TOKENS + 1];
    memset(script, 'a', TOKENS);
    struct route_rig *rig = rig_open(NULL, 0, QUICK, false);
    uint32_t pauses = fake_fleet_counts().pauses;
    fake_fleet_script(script);
    struct rig_answer answer = rig_ask(rig, &(struct rig_question){0});
    rig_assert_answer(&answer, script, "local");
    rig_forget(&answer);
    struct stream *stream;
    assert_int_equal(rig_submit(rig, &(struct rig_question){0}, &stream).code, ERR_OK);
    while (fake_fleet_counts().pauses == pauses) {
    }
    answer = (struct rig_answer){.text = {.limit_bytes = 1 << 16}, .error = err_ok()};
    rig_read(rig, stream, &answer, 0);
    rig_assert_answer(&answer, script, "local");
    rig->service->vtable->stream_release(stream);
    rig_forget(&answer);
    rig_close(rig);
}

/* A provider sends many pieces at once: the reader makes room while those behind the one too many come. */
static void a_slow_reader_holds_a_provider_back_and_gets_it_all(void **state)
{
    (void)state;
    enum { PIECES = 20000, ROUNDS = 20 };
    struct buffer bytes = {.limit_bytes = 16 << 20}, expected = {.limit_bytes = 1 << 20};
    assert_true(buffer_append_text(&bytes, RIG_STREAM));
    for (int i = 0; i < PIECES; i++)
        assert_true(buffer_append_text(&bytes, RIG_TEXT("a")) && buffer_append_text(&expected, "a"));
    assert_true(buffer_append_text(&bytes, RIG_END));
    const struct script_step script[] = {{STEP_READ, NULL}, {STEP_SEND, bytes.data}, {STEP_END, NULL}};
    const struct script_step *scripts[ROUNDS];
    for (int i = 0; i < ROUNDS; i++)
        scripts[i] = script;
    struct route_rig *rig = rig_open(scripts, ROUNDS, QUICK, false);
    for (int i = 0; i < ROUNDS; i++) {
        struct rig_answer answer = rig_ask(rig, &(struct rig_question){.route = "frontier"});
        rig_assert_answer(&answer, expected.data, "p");
        rig_forget(&answer);
    }
    rig_close(rig);
    buffer_free(&bytes);
    buffer_free(&expected);
}

static void money_that_is_spent_keeps_it_here(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS};
    struct route_rig *rig = rig_open(scripts, 1, QUICK "budgets: [{tenant: poor, per_day: 0.05}]\n", false);
    fake_fleet_script("cheap");
    const char *body = ", \"max_tokens\": 3000"; /* at most 0.03 $ */
    struct rig_question question = {.tenant = "poor", .route = "frontier", .body = body};
    struct rig_answer answer = rig_ask(rig, &question);
    rig_assert_answer(&answer, "big one", "p"); /* 0.002 $ */
    rig_forget(&answer);
    rig_wait_idle(rig);
    question.body = ", \"max_tokens\": 5000";
    answer = rig_ask(rig, &question);
    rig_assert_answer(&answer, "cheap", "local");
    assert_string_equal(answer.reason, "budget");
    rig_forget(&answer);
    question = (struct rig_question){.route = "frontier", .max_cost = "0.0001"};
    answer = rig_ask(rig, &question);
    rig_assert_answer(&answer, "cheap", "local");
    assert_string_equal(answer.reason, "cannot_cross");
    rig_forget(&answer);
    rig_close(rig);
}

static void the_same_question_is_answered_once(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS};
    struct route_rig *rig =
        rig_open(scripts, 1, QUICK "cache: {kind: memory, max_bytes: 1000000, ttl: 1h}\n", false);
    struct rig_question question = {.tenant = "a", .route = "frontier", .body = ", \"temperature\": 0"};
    struct rig_answer answer = rig_ask(rig, &question);
    rig_assert_answer(&answer, "big one", "p");
    assert_string_equal(answer.cache, "miss");
    rig_forget(&answer);
    rig_wait_idle(rig);
    answer = rig_ask(rig, &question);
    rig_assert_answer(&answer, "big one", "p");
    assert_string_equal(answer.cache, "hit");
    assert_string_equal(answer.model, "big");
    assert_int_equal(answer.cost, 0);
    assert_int_equal(answer.usage.prompt_tokens, 1000);
    rig_forget(&answer);
    assert_int_equal(script_server_connections(rig->server), 1);
    question.tenant =
        "b"; /* nobody gets another's; his connection is closed at once, and the engine answers */
    fake_fleet_script("mine");
    answer = rig_ask(rig, &question);
    rig_assert_answer(&answer, "mine", "local");
    rig_forget(&answer);
    rig_close(rig);
}

enum { ASKERS = 5 };
static const struct rig_question cached_question = {.tenant = "a", .body = ", \"temperature\": 0"};

/* A router with a cache, asked the same by all; the answer waits at its @. before: calls up to then. */
static struct route_rig *open_asked(const char *script, struct stream *streams[ASKERS], uint32_t *before)
{
    struct route_rig *rig =
        rig_open(NULL, 0, QUICK "cache: {kind: memory, max_bytes: 1000000, ttl: 1h}\n", false);
    *before = fake_fleet_counts().started;
    fake_fleet_script(script);
    for (int i = 0; i < ASKERS; i++)
        assert_int_equal(rig_submit(rig, &cached_question, &streams[i]).code, ERR_OK);
    return rig;
}

static void equal_questions_share_a_call(void **state)
{
    (void)state;
    struct stream *streams[ASKERS];
    uint32_t before;
    struct route_rig *rig = open_asked("sh@ared", streams, &before);
    rig->service->vtable->stream_release(streams[ASKERS - 1]); /* one that waits leaves */
    fake_fleet_go();
    for (int i = 0; i < ASKERS - 1; i++) {
        struct rig_answer answer = {.text = {.limit_bytes = 1 << 16}, .error = err_ok()};
        rig_read(rig, streams[i], &answer, 0);
        rig_assert_answer(&answer, "shared", "local");
        assert_string_equal(answer.cache, i == 0 ? "miss" : "shared");
        rig->service->vtable->stream_release(streams[i]);
        rig_forget(&answer);
    }
    assert_int_equal(fake_fleet_counts().started, before + 1);
    rig_close(rig);
}

/* The one whose call it was leaves: one of those who waited asks anew, and the others wait for that. */
static void one_leads_after_another(void **state)
{
    (void)state;
    struct stream *streams[ASKERS];
    uint32_t before;
    struct route_rig *rig = open_asked("@shared", streams, &before);
    assert_int_equal(fake_fleet_counts().started, before + 1);
    rig->service->vtable->stream_release(streams[0]);
    fake_fleet_wait_started(before + 2);
    fake_fleet_go();
    for (int i = 1; i < ASKERS; i++) {
        struct rig_answer answer = {.text = {.limit_bytes = 1 << 16}, .error = err_ok()};
        rig_read(rig, streams[i], &answer, 0);
        rig_assert_answer(&answer, "shared", "local");
        assert_string_equal(answer.cache, i == 1 ? "miss" : "shared");
        rig->service->vtable->stream_release(streams[i]);
        rig_forget(&answer);
    }
    assert_int_equal(fake_fleet_counts().started, before + 2);
    struct rig_answer answer = rig_ask(rig, &cached_question);
    assert_string_equal(answer.cache, "hit");
    rig_forget(&answer);
    rig_close(rig);
}

/* Whom the cascade asks may find the request wrong: the engine did not. Nobody waits for the end of the call
 * that was given up for a better answer. */
static void an_escalation_that_is_refused_is_answered_here(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {FINDS_WRONG, FINDS_WRONG};
    struct route_rig *rig = rig_open(
        scripts, 2,
        QUICK "cascade: {tier: small, tokens: 3, within: 60s, escalate_over: 0.3, to: frontier}\n", false);
    fake_fleet_script("???more");
    uint32_t ended = fake_fleet_counts().ended;
    fake_fleet_hold_cancelled(true);
    struct rig_answer answer = rig_ask(rig, &(struct rig_question){0});
    rig_assert_answer(&answer, "???more", "local");
    assert_int_equal(answer.attempts, 3);
    assert_int_equal(fake_fleet_counts().ended, ended + 1); /* the second one's */
    rig_forget(&answer);
    fake_fleet_hold_cancelled(false);
    answer = rig_ask(rig, &(struct rig_question){.route = "frontier"}); /* nobody has taken it yet */
    assert_int_equal(answer.error.code, ERR_INVALID_ARGUMENT);
    rig_forget(&answer);
    rig_close(rig);
}

static void doubt_goes_up_before_a_byte_is_out(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS, ANSWERS, REFUSES, REFUSES, REFUSES};
    struct route_rig *rig = rig_open(
        scripts, 5,
        QUICK "cascade: {tier: small, tokens: 3, within: 60s, escalate_over: 0.3, to: frontier}\n", false);
    fake_fleet_script("???more");
    struct rig_answer answer = rig_ask(rig, &(struct rig_question){0});
    rig_assert_answer(&answer, "big one", "p");
    assert_string_equal(answer.reason, "cascade");
    assert_int_equal(answer.attempts, 2);
    rig_forget(&answer);
    fake_fleet_script("sure?");
    answer = rig_ask(rig, &(struct rig_question){0});
    rig_assert_answer(&answer, "sure?", "local");
    assert_true(fake_fleet_counts().asked_logprobs);
    assert_int_equal(answer.n_logprobs, 0); /* the client asked for none */
    rig_forget(&answer);
    fake_fleet_script("ab~"); /* over before three tokens, and the end's own is the doubtful one */
    answer = rig_ask(rig, &(struct rig_question){.text = "the end"});
    rig_assert_answer(&answer, "big one", "p");
    assert_string_equal(answer.reason, "cascade");
    rig_forget(&answer);
    fake_fleet_script("??"); /* likewise; and nobody is there to do better */
    answer = rig_ask(rig, &(struct rig_question){0});
    rig_assert_answer(&answer, "??", "local");
    assert_int_equal(answer.attempts, 5);
    rig_forget(&answer);
    rig_close(rig);
}

static void what_was_held_is_not_kept(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS};
    struct route_rig *rig =
        rig_open(scripts, 1,
                 QUICK "cascade: {tier: small, tokens: 2, within: 60s, escalate_over: 0.4, to: frontier}\n"
                       "cache: {kind: memory}\n",
                 false);
    struct rig_question question = {.body = ", \"temperature\": 0"};
    fake_fleet_script("??more");
    for (int i = 0; i < 2; i++) {
        struct rig_answer answer = rig_ask(rig, &question);
        rig_assert_answer(&answer, "big one", "p");
        assert_string_equal(answer.cache, i == 0 ? "miss" : "hit");
        rig_forget(&answer);
        rig_wait_idle(rig);
    }
    rig_close(rig);
}

static void a_slow_engine_is_hedged(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS};
    struct route_rig *rig =
        rig_open(scripts, 1, QUICK "hedge: {tier: small, after: 1ms, to: frontier, max_share: 1}\n", false);
    uint32_t before = fake_fleet_counts().cancelled;
    fake_fleet_script("#");
    struct rig_answer answer = rig_ask(rig, &(struct rig_question){0});
    rig_assert_answer(&answer, "big one", "p");
    assert_string_equal(answer.reason, "hedge");
    fake_fleet_wait_cancelled(before + 1);
    rig_forget(&answer);
    rig_close(rig);
}

/* A call may cost 0.041 $ at most and came to 0.002: the day's money is enough for one at a time. */
static void hedges_are_bounded_in_dollars(void **state)
{
    (void)state;
#define HEDGE(more) QUICK "hedge: {tier: small, after: 1ms, to: frontier, max_share: 1, " more "}\n"
    const struct script_step *scripts[] = {ANSWERS, ANSWERS};
    struct route_rig *rig = rig_open(scripts, 2, HEDGE("per_day: 0.042"), false);
    uint32_t before = fake_fleet_counts().cancelled;
    fake_fleet_script("#");
    struct rig_answer answer = rig_ask(rig, &(struct rig_question){0});
    rig_assert_answer(&answer, "big one", "p");
    rig_forget(&answer);
    fake_fleet_wait_cancelled(before + 1);
    rig_wait_idle(rig);
    struct stream *stream;
    assert_int_equal(rig_submit(rig, &(struct rig_question){0}, &stream).code, ERR_OK);
    wait_metric(rig, "bantam:router_hedges_total{outcome=\"too_dear\"} 1\n");
    rig->service->vtable->stream_release(stream);
    assert_int_equal(script_server_connections(rig->server), 1);
    answer = rig_ask(rig, &(struct rig_question){.body = ", \"max_tokens\": 10"}); /* a short one is cheap */
    rig_assert_answer(&answer, "big one", "p");
    rig_forget(&answer);
    rig_close(rig);
    rig = rig_open(scripts, 2, HEDGE("max_cost: 0.04"), false);
    assert_int_equal(rig_submit(rig, &(struct rig_question){0}, &stream).code, ERR_OK);
    wait_metric(rig, "bantam:router_hedges_total{outcome=\"too_dear\"} 1\n");
    rig->service->vtable->stream_release(stream);
    assert_int_equal(script_server_connections(rig->server), 0);
    rig_close(rig);
}

static void another_configuration_takes_over(void **state)
{
    (void)state;
    struct route_rig *rig = rig_open(NULL, 0, QUICK, false);
    struct stream *stream;
    fake_fleet_script("a@b");
    assert_int_equal(rig_submit(rig, &(struct rig_question){0}, &stream).code, ERR_OK);
    err_t e = route_service_reload(rig->router, rig_config(rig, QUICK "ledger: {path: /tmp/other.db}\n"));
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    e = route_service_reload(
        rig->router, rig_config(rig, QUICK "rules:\n  - {name: mine, when: {tenants: [t]}, to: small}\n"));
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    struct stream *later;
    assert_int_equal(rig_submit(rig, &(struct rig_question){.tenant = "t"}, &later).code, ERR_OK);
    fake_fleet_go();
    struct stream *both[] = {stream, later};
    for (int i = 0; i < 2; i++) {
        struct rig_answer answer = {.text = {.limit_bytes = 1 << 16}, .error = err_ok()};
        rig_read(rig, both[i], &answer, 0);
        rig_assert_answer(&answer, "ab", "local");
        assert_string_equal(answer.rule, i == 0 ? "" : "mine");
        rig->service->vtable->stream_release(both[i]);
        rig_forget(&answer);
    }
    rig_close(rig);
}

static void choices_end_one_by_one(void **state)
{
    (void)state;
    struct route_rig *rig = rig_open(NULL, 0, QUICK, false);
    fake_fleet_script("ab");
    struct rig_answer answer = rig_ask(rig, &(struct rig_question){.body = ", \"n\": 3"});
    rig_assert_answer(&answer, "aaabbb", "local");
    assert_int_equal(answer.n_ends, 3);
    rig_forget(&answer);
    struct model_card card;
    assert_true(rig->service->vtable->model_card(rig->service, 2, &card));
    assert_string_equal(card.name, "p/big");
    assert_string_equal(card.owner, "p");
    assert_int_equal(card.context_tokens, 100000);
    static const char *const TIERS[] = {"small", "frontier"}; /* which may be asked for, too */
    for (size_t t = 0; t < 2; t++) {
        assert_true(rig->service->vtable->model_card(rig->service, 3 + t, &card));
        assert_string_equal(card.name, TIERS[t]);
        assert_string_equal(card.owner, "bantam");
    }
    assert_false(rig->service->vtable->model_card(rig->service, 5, &card));
    rig->service->vtable->drain(rig->service);
    struct stream *stream;
    assert_int_equal(rig_submit(rig, &(struct rig_question){0}, &stream).code, ERR_UNAVAILABLE);
    rig_close(rig);
}

static void an_untrusted_policy_only_observes(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS};
    struct route_rig *rig = rig_open(
        scripts, 1, QUICK "gate: {stage: canary, artefact: /nowhere.json, baseline: frontier}\n", false);
    fake_fleet_script("small");
    struct rig_answer answer = rig_ask(rig, &(struct rig_question){0});
    rig_assert_answer(&answer, "big one", "p");
    assert_string_equal(answer.reason, "baseline");
    rig_forget(&answer);
    answer = rig_ask(rig, &(struct rig_question){.privacy = "local_only"}); /* whatever the baseline is */
    rig_assert_answer(&answer, "small", "local");
    rig_forget(&answer);
    rig_close(rig);
}

static void a_deadline_ends_it_everywhere(void **state)
{
    (void)state;
    struct route_rig *rig = rig_open(NULL, 0, QUICK, false);
    fake_fleet_script("#");
    uint32_t before = fake_fleet_counts().cancelled;
    struct rig_answer answer = rig_ask_until(rig, 20000000);
    assert_int_equal(answer.n_last, 1);
    assert_int_equal(answer.error.code, ERR_DEADLINE_EXCEEDED);
    fake_fleet_wait_cancelled(before + 1);
    rig_forget(&answer);
    struct chat_message message = {.role = "user", .content = "Hi", .content_bytes = 2};
    struct request request = {.prompt_kind = PROMPT_MESSAGES,
                              .messages = &message,
                              .n_messages = 1,
                              .deadline_ns = rig->service->vtable->now_ns(rig->service)}; /* it has passed */
    struct stream *stream;
    assert_int_equal(rig->service->vtable->submit(rig->service, &request, &stream).code,
                     ERR_DEADLINE_EXCEEDED);
    rig_close(rig);
}

/* One of the router's JSON answers. */
static json_t *parsed(struct buffer *text)
{
    json_error_t why;
    json_t *root = json_loadb(text->data, text->size, 0, &why);
    assert_non_null(root);
    buffer_free(text);
    return root;
}

static const char *text_at(const json_t *root, const char *object, const char *name)
{
    return json_string_value(json_object_get(json_object_get(root, object), name));
}

static void it_says_why_and_what(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS};
    struct route_rig *rig =
        rig_open(scripts, 1, QUICK "budgets: [{tenant: t, per_day: 5}]\ncache: {kind: memory}\n", false);
    struct chat_message message = {.role = "user", .content = "Hi", .content_bytes = 2};
    struct request_hint hint = {"route", "frontier"};
    struct request request = {.prompt_kind = PROMPT_MESSAGES,
                              .messages = &message,
                              .n_messages = 1,
                              .hints = &hint,
                              .n_hints = 1,
                              .deadline_ns = REQUEST_NO_DEADLINE};
    struct buffer out = {.limit_bytes = 1 << 20};
    assert_int_equal(route_service_explain(rig->router, &request, &out).code, ERR_OK);
    json_t *root = parsed(&out);
    assert_string_equal(text_at(root, "decision", "tier"), "frontier");
    assert_string_equal(text_at(root, "decision", "reason"), "wish");
    assert_int_equal(json_array_size(json_object_get(root, "tiers")), 2);
    assert_non_null(strstr(json_string_value(json_object_get(root, "trace")), "frontier"));
    json_decref(root);
    assert_int_equal(script_server_connections(rig->server), 0); /* nobody was called */
    struct rig_answer answer = rig_ask(rig, &(struct rig_question){.tenant = "t", .route = "frontier"});
    rig_assert_answer(&answer, "big one", "p");
    rig_forget(&answer);
    rig_wait_idle(rig);
    assert_int_equal(route_service_budget(rig->router, "t", &out).code, ERR_OK);
    assert_non_null(strstr(out.data, "\"left\":4.998}")); /* and not 4.9980000000000002 */
    root = parsed(&out);
    const json_t *day = json_object_get(root, "day");
    assert_true(json_real_value(json_object_get(day, "spent")) == 0.002);
    assert_true(json_real_value(json_object_get(day, "left")) == 4.998);
    assert_true(json_real_value(json_object_get(day, "reserved")) == 0);
    json_decref(root);
    assert_int_equal(route_service_state(rig->router, &out).code, ERR_OK);
    root = parsed(&out);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(root, "answers"), "frontier")), 1);
    const json_t *provider = json_array_get(json_object_get(root, "providers"), 0);
    assert_string_equal(json_string_value(json_object_get(provider, "model")), "p/big");
    assert_string_equal(json_string_value(json_object_get(provider, "breaker")), "closed");
    assert_string_equal(text_at(root, "rollout", "stage"), "promoted");
    json_decref(root);
    assert_true(rig->service->vtable->metrics_text(rig->service, &out));
    assert_non_null(strstr(out.data, "bantam:router_decisions_total"));
    buffer_free(&out);
    rig_close(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_engine_answers),
        cmocka_unit_test(a_provider_answers),
        cmocka_unit_test(what_was_told_does_not_change_under_its_reader),
        cmocka_unit_test(who_has_nothing_left_is_not_asked),
        cmocka_unit_test(what_is_new_again_is_asked_again),
        cmocka_unit_test(who_asks_to_be_left_alone_is),
        cmocka_unit_test(what_fails_before_the_first_byte_is_followed),
        cmocka_unit_test(nothing_follows_the_first_byte),
        cmocka_unit_test(a_wrong_request_is_wrong_everywhere),
        cmocka_unit_test(what_must_stay_stays),
        cmocka_unit_test(offline_nothing_leaves),
        cmocka_unit_test(a_cancelled_request_is_cancelled_upstream),
        cmocka_unit_test(a_slow_reader_holds_the_engine_back),
        cmocka_unit_test(a_slow_reader_holds_a_provider_back_and_gets_it_all),
        cmocka_unit_test(money_that_is_spent_keeps_it_here),
        cmocka_unit_test(the_same_question_is_answered_once),
        cmocka_unit_test(equal_questions_share_a_call),
        cmocka_unit_test(one_leads_after_another),
        cmocka_unit_test(doubt_goes_up_before_a_byte_is_out),
        cmocka_unit_test(an_escalation_that_is_refused_is_answered_here),
        cmocka_unit_test(what_was_held_is_not_kept),
        cmocka_unit_test(a_slow_engine_is_hedged),
        cmocka_unit_test(hedges_are_bounded_in_dollars),
        cmocka_unit_test(another_configuration_takes_over),
        cmocka_unit_test(choices_end_one_by_one),
        cmocka_unit_test(an_untrusted_policy_only_observes),
        cmocka_unit_test(a_deadline_ends_it_everywhere),
        cmocka_unit_test(it_says_why_and_what),
    };
    int n_failed = cmocka_run_group_tests(tests, NULL, NULL);
    return n_failed + route_check_tests();
}
