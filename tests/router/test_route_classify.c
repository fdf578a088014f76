/* A classifier before the policy, over fake engines and a provider that follows scripts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <jansson.h>
#include <cmocka.h>
#include "base/event_count.h"
#include "tests/router/fake_fleet.h"
#include "tests/router/route_rig.h"

static const struct script_step ANSWERS[] = {
    {STEP_READ, NULL}, {STEP_SEND, RIG_STREAM RIG_TEXT("big ") RIG_TEXT("one") RIG_END}, {STEP_END, NULL}};

#define DIFFICULTY "difficulty: {at_least: 0.6, to: frontier}\n"
#define CLASSIFIER(timeout)                                                                                  \
    "classifier:\n"                                                                                          \
    "  model: local/demo\n"                                                                                  \
    "  prompt: Easy or hard?\n"                                                                              \
    "  labels: [{text: easy, difficulty: 0.1}, {text: hard, difficulty: 0.9, intent: code}]\n"               \
    "  timeout: " timeout "\n"
#define SLOW CLASSIFIER("60s") /* it is for the test to end it */

static struct buffer explain(struct route_rig *rig, const char *route)
{
    struct chat_message message = {.role = "user", .content = "Hi", .content_bytes = 2};
    struct request_hint hint = {"route", route};
    struct request request = {.prompt_kind = PROMPT_MESSAGES,
                              .messages = &message,
                              .n_messages = 1,
                              .hints = &hint,
                              .n_hints = 1,
                              .deadline_ns = REQUEST_NO_DEADLINE};
    struct buffer out = {.limit_bytes = 1 << 20};
    assert_int_equal(route_service_explain(rig->router, &request, &out).code, ERR_OK);
    return out;
}

static bool explained(struct route_rig *rig, const char *route, const char *name)
{
    struct buffer out = explain(rig, route);
    json_t *root = json_loadb(out.data, out.size, 0, NULL);
    const json_t *value = json_object_get(json_object_get(root, "classifier"), name);
    assert_true(json_is_boolean(value));
    bool is_so = json_is_true(value);
    json_decref(root);
    buffer_free(&out);
    return is_so;
}

/* Until the classifier knows its labels. */
static void wait_ready(struct route_rig *rig)
{
    struct event_count *progress = rig->service->vtable->progress(rig->service);
    for (;;) {
        uint32_t seen = event_count_read(progress);
        if (explained(rig, "auto", "ready"))
            return;
        event_count_wait(progress, seen, -1);
    }
}

static struct route_rig *open_ready(const struct script_step *const *scripts, size_t n, const char *more)
{
    struct route_rig *rig = rig_open(scripts, n, more, false);
    wait_ready(rig);
    return rig;
}

static void assert_answer(struct rig_answer answer, const char *text, const char *reason)
{
    if (answer.error.code != ERR_OK)
        fail_msg("%s: %s", err_code_name(answer.error.code), answer.error.message);
    assert_string_equal(answer.text.data, text);
    assert_string_equal(answer.reason, reason);
    assert_int_equal(answer.n_last, 1);
    rig_forget(&answer);
}

static void assert_metric(struct route_rig *rig, const char *line)
{
    struct buffer text = {.limit_bytes = 1 << 20};
    assert_true(rig->service->vtable->metrics_text(rig->service, &text));
    assert_true(buffer_append(&text, "", 1));
    if (strstr(text.data, line) == NULL)
        fail_msg("the metrics do not say %s", line);
    buffer_free(&text);
}

static void what_is_hard_goes_out_and_what_is_easy_stays(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS};
    char path[] = "/tmp/classified-XXXXXX", more[1024], lines[8192];
    int file = mkstemp(path);
    assert_true(file >= 0);
    (void)snprintf(more, sizeof more, DIFFICULTY SLOW "log: {path: %s}\n", path);
    struct route_rig *rig = open_ready(scripts, 1, more);
    uint32_t before = fake_fleet_counts().classified;
    fake_fleet_script("here");
    fake_fleet_classify_script("h");
    assert_answer(rig_ask(rig, &(struct rig_question){0}), "big one", "difficulty");
    rig_wait_idle(rig); /* its line is the first */
    fake_fleet_classify_script("e");
    assert_answer(rig_ask(rig, &(struct rig_question){0}), "here", "default");
    assert_int_equal(fake_fleet_counts().classified, before + 2);
    assert_int_equal(script_server_connections(rig->server), 1);
    assert_metric(rig, "bantam:router_classified_total{outcome=\"known\"} 2\n");
    rig_close(rig);
    ssize_t size = read(file, lines, sizeof lines - 1);
    assert_true(size > 0);
    lines[size] = '\0';
    char *second = strchr(lines, '\n');
    assert_non_null(second);
    *second++ = '\0';
    json_t *hard = json_loads(lines, 0, NULL), *easy = json_loads(second, 0, NULL);
    assert_true(json_number_value(json_object_get(hard, "difficulty")) > 0.85);
    assert_string_equal(json_string_value(json_object_get(json_object_get(hard, "input"), "intent")), "code");
    double difficulty = json_number_value(json_object_get(easy, "difficulty"));
    assert_true(difficulty >= 0.1 && difficulty < 0.15);
    json_decref(hard);
    json_decref(easy);
    (void)close(file);
    (void)unlink(path);
}

static void without_a_verdict_it_is_decided_as_without_a_classifier(void **state)
{
    (void)state;
    struct route_rig *rig = open_ready(NULL, 0, DIFFICULTY CLASSIFIER("20ms"));
    uint32_t before = fake_fleet_counts().classified;
    fake_fleet_script("here");
    fake_fleet_classify_script("#"); /* its time is over */
    assert_answer(rig_ask(rig, &(struct rig_question){0}), "here", "default");
    fake_fleet_classify_script("!");
    assert_answer(rig_ask(rig, &(struct rig_question){0}), "here", "default");
    fake_fleet_classify_script("z"); /* none of the labels */
    assert_answer(rig_ask(rig, &(struct rig_question){0}), "here", "default");
    assert_int_equal(fake_fleet_counts().classified, before + 3);
    assert_metric(rig, "bantam:router_classified_total{outcome=\"unknown\"} 3\n");
    rig_close(rig);
}

static void where_the_policy_says_it_goes_up_without_a_verdict(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS};
    struct route_rig *rig =
        open_ready(scripts, 1, DIFFICULTY CLASSIFIER("20ms") "unclassified: {to: frontier}\n");
    fake_fleet_classify_script("#");
    assert_answer(rig_ask(rig, &(struct rig_question){0}), "big one", "unclassified");
    rig_close(rig);
}

/* A rule that keeps an intent here keeps what may have it. */
static void without_a_verdict_what_may_be_private_stays(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS, ANSWERS};
#define OURS "rules: [{name: ours, when: {intents: [code]}, local_only: yes}]\n"
    struct route_rig *rig = open_ready(scripts, 2, DIFFICULTY CLASSIFIER("20ms") OURS);
    fake_fleet_script("here");
    static const char *const FAILS[] = {"#", "!", "z"};
    for (size_t i = 0; i < 3; i++) {
        fake_fleet_classify_script(FAILS[i]);
        struct rig_answer answer = rig_ask(rig, &(struct rig_question){.route = "frontier"});
        assert_string_equal(answer.rule, "ours");
        assert_answer(answer, "here", "privacy");
    }
    assert_int_equal(script_server_connections(rig->server), 0);
    rig_close(rig);
    rig = open_ready(scripts, 2, DIFFICULTY CLASSIFIER("60s") OURS);
    fake_fleet_classify_script("e"); /* it has another one, as is known now */
    assert_answer(rig_ask(rig, &(struct rig_question){.route = "frontier"}), "big one", "wish");
    rig_close(rig);
    rig = open_ready(scripts, 2, DIFFICULTY CLASSIFIER("20ms") OURS "unclassified: {privacy: open}\n");
    fake_fleet_classify_script("#");
    assert_answer(rig_ask(rig, &(struct rig_question){.route = "frontier"}), "big one", "wish");
    rig_close(rig);
    /* Nor before the labels are learnt. */
    rig = rig_open(scripts, 2, OURS SLOW, false);
    fake_fleet_classify_script("#");
    fake_fleet_up(0);
    struct rig_answer refused = rig_ask(rig, &(struct rig_question){.route = "frontier"});
    assert_int_equal(refused.error.code, ERR_UNAVAILABLE);
    rig_forget(&refused);
    assert_int_equal(script_server_connections(rig->server), 0);
    fake_fleet_up(1);
    rig_close(rig);
}

static void who_leaves_is_not_classified_further(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS};
    struct route_rig *rig = open_ready(scripts, 1, DIFFICULTY SLOW);
    const struct service_vtable *vtable = rig->service->vtable;
    struct fake_fleet_counts before = fake_fleet_counts();
    struct stream *stream;
    fake_fleet_classify_script("#");
    assert_int_equal(rig_submit(rig, &(struct rig_question){0}, &stream).code, ERR_OK); /* at once */
    struct rig_answer answer = {.text = {.limit_bytes = 1 << 16}, .error = err_ok()};
    vtable->stream_cancel(stream);
    rig_read(rig, stream, &answer, 0);
    assert_int_equal(answer.finish, FINISH_ABORT);
    assert_int_equal(answer.attempts, 0);
    fake_fleet_wait_cancelled(before.cancelled + 1);
    vtable->stream_release(stream);
    rig_forget(&answer);
    assert_int_equal(rig_submit(rig, &(struct rig_question){0}, &stream).code, ERR_OK);
    vtable->stream_release(stream); /* the client has left */
    fake_fleet_wait_cancelled(before.cancelled + 2);
    rig_wait_idle(rig);
    assert_int_equal(fake_fleet_counts().started, before.started + 2); /* nobody answered */
    assert_int_equal(script_server_connections(rig->server), 0);
    rig_close(rig);
}

static void a_deadline_covers_it(void **state)
{
    (void)state;
    struct route_rig *rig = open_ready(NULL, 0, DIFFICULTY SLOW);
    fake_fleet_script("#");
    fake_fleet_classify_script("#");
    struct rig_answer answer = rig_ask_until(rig, 20000000);
    assert_int_equal(answer.n_last, 1);
    assert_int_equal(answer.error.code, ERR_DEADLINE_EXCEEDED);
    rig_forget(&answer);
    rig_close(rig);
}

static void what_must_stay_is_asked_of_an_engine_alone(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS};
    struct route_rig *rig = open_ready(
        scripts, 1, DIFFICULTY SLOW "rules:\n  - {name: ours, when: {intents: [code]}, local_only: yes}\n");
    uint32_t before = fake_fleet_counts().classified;
    fake_fleet_script("here");
    fake_fleet_classify_script("h");
    struct rig_answer answer = rig_ask(rig, &(struct rig_question){.route = "frontier"});
    assert_string_equal(answer.rule, "ours"); /* before the wish */
    assert_answer(answer, "here", "privacy");
    assert_int_equal(fake_fleet_counts().classified, before + 1);
    assert_answer(rig_ask(rig, &(struct rig_question){.privacy = "local_only"}), "here", "privacy");
    assert_int_equal(fake_fleet_counts().classified, before + 1); /* it stays, whatever it is */
    assert_int_equal(script_server_connections(rig->server), 0);
    rig_close(rig);
}

static void nobody_is_asked_for_nothing(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS, ANSWERS};
    struct route_rig *rig = open_ready(scripts, 2, DIFFICULTY SLOW);
    uint32_t before = fake_fleet_counts().classified;
    fake_fleet_script("here");
    assert_answer(rig_ask(rig, &(struct rig_question){.route = "local"}), "here", "wish");
    assert_answer(rig_ask(rig, &(struct rig_question){.route = "frontier"}), "big one", "wish");
    assert_answer(rig_ask(rig, &(struct rig_question){.body = ", \"bantam\": {\"complexity\": 9}"}),
                  "big one", "difficulty");
    assert_answer(rig_ask(rig, &(struct rig_question){.body = ", \"bantam\": {\"complexity\": 2}"}), "here",
                  "default");
    assert_int_equal(fake_fleet_counts().classified, before);
    assert_true(explained(rig, "auto", "asked"));
    assert_false(explained(rig, "local", "asked"));
    rig_close(rig);
}

/* The caller knows how hard it is, the classifier what it is about. */
static void a_complexity_is_not_overruled(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS};
    struct route_rig *rig =
        open_ready(scripts, 1,
                   DIFFICULTY "rules: [{name: code, when: {intents: [code]}, to: small}]\n"
                              "classifier:\n  model: local/demo\n  prompt: What?\n"
                              "  labels: [{text: code, intent: code},"
                              " {text: hard, difficulty: 0.9}]\n  timeout: 60s\n");
    uint32_t before = fake_fleet_counts().classified;
    fake_fleet_script("here");
    fake_fleet_classify_script("c");
    struct rig_answer answer =
        rig_ask(rig, &(struct rig_question){.body = ", \"bantam\": {\"complexity\": 9}"});
    assert_string_equal(answer.rule, "code");
    assert_answer(answer, "here", "rule");
    assert_int_equal(fake_fleet_counts().classified, before + 1);
    fake_fleet_classify_script("h");
    assert_answer(rig_ask(rig, &(struct rig_question){.body = ", \"bantam\": {\"complexity\": 9}"}),
                  "big one", "difficulty");
    assert_int_equal(fake_fleet_counts().classified, before + 2);
    assert_answer(rig_ask(rig, &(struct rig_question){.body = ", \"bantam\": {\"complexity\": 2}"}), "here",
                  "default"); /* both ways it is this tier */
    assert_int_equal(fake_fleet_counts().classified, before + 2);
    rig_close(rig);
}

/* Where the verdict has the policy refuse it, the stream tells. */
static void a_refusal_may_come_late(void **state)
{
    (void)state;
    struct route_rig *rig =
        open_ready(NULL, 0, DIFFICULTY SLOW "when_broke: refuse\nbudgets: [{per_day: 0.000000001}]\n");
    fake_fleet_script("here");
    fake_fleet_classify_script("h");
    struct stream *stream;
    struct rig_answer answer = {.text = {.limit_bytes = 1 << 16}, .error = err_ok()};
    assert_int_equal(rig_submit(rig, &(struct rig_question){0}, &stream).code, ERR_OK);
    rig_read(rig, stream, &answer, 0);
    assert_int_equal(answer.error.code, ERR_QUOTA_EXCEEDED);
    assert_int_equal(answer.finish, FINISH_ERROR);
    rig->service->vtable->stream_release(stream);
    rig_forget(&answer);
    fake_fleet_classify_script("e");
    assert_answer(rig_ask(rig, &(struct rig_question){0}), "here", "default");
    rig_close(rig);
}

/* A router that began without one gets it with its next configuration. */
static void another_configuration_brings_one(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {ANSWERS};
    struct route_rig *rig = rig_open(scripts, 1, DIFFICULTY, false);
    fake_fleet_script("here");
    fake_fleet_classify_script("h");
    assert_answer(rig_ask(rig, &(struct rig_question){0}), "here", "default");
    assert_int_equal(route_service_reload(rig->router, rig_config(rig, DIFFICULTY SLOW)).code, ERR_OK);
    wait_ready(rig);
    assert_answer(rig_ask(rig, &(struct rig_question){0}), "big one", "difficulty");
    rig_close(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_hard_goes_out_and_what_is_easy_stays),
        cmocka_unit_test(without_a_verdict_it_is_decided_as_without_a_classifier),
        cmocka_unit_test(where_the_policy_says_it_goes_up_without_a_verdict),
        cmocka_unit_test(without_a_verdict_what_may_be_private_stays),
        cmocka_unit_test(who_leaves_is_not_classified_further),
        cmocka_unit_test(a_deadline_covers_it),
        cmocka_unit_test(what_must_stay_is_asked_of_an_engine_alone),
        cmocka_unit_test(nobody_is_asked_for_nothing),
        cmocka_unit_test(a_complexity_is_not_overruled),
        cmocka_unit_test(a_refusal_may_come_late),
        cmocka_unit_test(another_configuration_brings_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
