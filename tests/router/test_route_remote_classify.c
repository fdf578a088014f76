/* A provider as the classifier, that follows scripts; the engines are fake ones. */
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
#include <math.h>
#include "router/policy/remote_classifier.h"
#include "tests/router/fake_fleet.h"
#include "tests/router/route_rig.h"

#define DIFFICULTY "difficulty: {at_least: 0.6, to: frontier}\n"
#define LABELS     "[{text: easy, difficulty: 0.1}, {text: hard, difficulty: 0.9, intent: code}]"
#define CLASSIFIER(timeout)                                                                                  \
    "classifier: {model: p/big, prompt: Easy or hard?, labels: " LABELS ", timeout: " timeout "}\n"

/* A whole answer of one token, with its probabilities. */
#define VERDICT(token, logprobs)                                                                             \
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"                         \
    "{\"choices\": [{\"index\": 0, \"finish_reason\": \"length\", \"message\": {\"content\": \"" token       \
    "\"}, "                                                                                                  \
    "\"logprobs\": " logprobs "}], \"usage\": {\"prompt_tokens\": 20, \"completion_tokens\": 1}}"
#define TOKEN(token, logprob, top)                                                                           \
    "{\"content\": [{\"token\": \"" token "\", \"logprob\": " logprob ", \"top_logprobs\": [" top "]}]}"
#define ENTRY(token, logprob) "{\"token\": \"" token "\", \"logprob\": " logprob "}"
#define HARD                  VERDICT("hard", TOKEN("hard", "-0.1", ENTRY("hard", "-0.1") "," ENTRY("easy", "-2.3")))
#define EASY                  VERDICT("easy", TOKEN("easy", "-0.1", ENTRY("easy", "-0.1") "," ENTRY("hard", "-2.3")))

static const struct script_step SAYS_HARD[] = {{STEP_READ, NULL}, {STEP_SEND, HARD}, {STEP_END, NULL}},
                                SAYS_EASY[] = {{STEP_READ, NULL}, {STEP_SEND, EASY}, {STEP_END, NULL}},
                                SAYS_WORD[] = {{STEP_READ, NULL},
                                               {STEP_SEND, VERDICT("Hard.", "null")},
                                               {STEP_END, NULL}},
                                SAYS_ODD[] = {{STEP_READ, NULL},
                                              {STEP_SEND, VERDICT("what", "null")},
                                              {STEP_END, NULL}},
                                HANGS[] = {{STEP_READ, NULL}, {STEP_UNTIL_GONE, NULL}, {STEP_END, NULL}},
                                FAILS[] = {{STEP_READ, NULL},
                                           {STEP_SEND, "HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"},
                                           {STEP_END, NULL}},
                                ANSWERS[] = {{STEP_READ, NULL},
                                             {STEP_SEND, RIG_STREAM RIG_TEXT("big ") RIG_TEXT("one") RIG_END},
                                             {STEP_END, NULL}};

static void assert_answer(struct rig_answer answer, const char *text, const char *reason)
{
    if (answer.error.code != ERR_OK)
        fail_msg("%s: %s", err_code_name(answer.error.code), answer.error.message);
    assert_string_equal(answer.text.data, text);
    assert_string_equal(answer.reason, reason);
    rig_forget(&answer);
}

static const struct classifier_config CONFIG = {
    .prompt = "p",
    .labels = {{"easy", "chat", 0.1, -1}, {"hard", NULL, 0.9, -1}, {"harder", NULL, 1, -1}},
    .n_labels = 3};

static bool score(const char *logprobs, double *scores)
{
    json_t *root = json_loads(logprobs, 0, NULL);
    assert_non_null(root);
    bool is_known = remote_classifier_score(&CONFIG, root, scores);
    json_decref(root);
    return is_known;
}

static void tokens_are_those_of_labels(void **state)
{
    (void)state;
    static const struct {
        const char *token;
        size_t label;
    } CASES[] = {{"easy", 0}, {" Ea", 0}, {"EASY.\n", 0}, {"hard", 3},  {"ha", 3},     {"harde", 2},
                 {"", 3},     {"  ", 3},  {"easily", 3},  {"hello", 3}, {"harder!", 3}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        assert_int_equal(remote_classifier_label(&CONFIG, CASES[i].token, strlen(CASES[i].token)),
                         CASES[i].label);
    double scores[3];
    /* Two ways to write one label add up; one that is not told has a share of the rest. */
    assert_true(score(TOKEN("easy", "-0.693147", ENTRY("easy", "-0.693147") "," ENTRY(" Easy", "-1.386294")),
                      scores));
    assert_true(scores[0] > 0.75 && scores[1] < 0.1 && fabs(scores[1] - scores[2]) < 1e-12);
    assert_true(fabs(scores[0] + scores[1] + scores[2] - 1) < 1e-12);
    assert_true(score(TOKEN("harder", "-0.1", ""), scores)); /* the token alone */
    assert_true(scores[2] > 0.8);
    assert_true(score(TOKEN("easy", "9", ENTRY("easy", "9")), scores)); /* no probability: it is 1 */
    assert_true(scores[0] > 0.99);
    assert_false(score(TOKEN("what", "-0.1", ENTRY("what", "-0.1")), scores));
    assert_false(score("{\"content\": []}", scores));
    assert_false(score("{\"content\": null, \"tokens\": [1]}", scores));
    assert_false(score("{\"content\": [{\"token\": 5, \"logprob\": \"x\", \"top_logprobs\": {}}]}", scores));
}

/* The hard one is answered by the provider after it was asked how hard it is. */
static void a_provider_tells_what_is_hard(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {SAYS_HARD, ANSWERS, SAYS_EASY, SAYS_WORD, ANSWERS};
    char path[] = "/tmp/classified-XXXXXX", more[1024], lines[16384];
    int file = mkstemp(path);
    assert_true(file >= 0);
    (void)snprintf(more, sizeof more, DIFFICULTY CLASSIFIER("60s") "log: {path: %s}\n", path);
    struct route_rig *rig = rig_open(scripts, 5, more, false);
    fake_fleet_script("here");
    struct rig_answer hard = rig_ask(rig, &(struct rig_question){.text = "What is it?"});
    assert_int_equal(hard.attempts, 1);
    assert_int_equal(hard.cost, 20 * 1000 + 10000 + 1000 * 1000 + 100 * 10000); /* both calls */
    assert_answer(hard, "big one", "difficulty");
    struct rig_answer easy = rig_ask(rig, &(struct rig_question){0});
    assert_int_equal(easy.cost >= 20 * 1000 + 10000, 1);
    assert_answer(easy, "here", "default");
    assert_answer(rig_ask(rig, &(struct rig_question){0}), "big one", "difficulty"); /* at its word */
    script_server_wait_ended(rig->server, 5);
    const char *heard = script_server_heard(rig->server);
    assert_non_null(strstr(heard, "Easy or hard?\\n\\nWhat is it?"));
    assert_non_null(strstr(heard, "\"max_tokens\":1"));
    assert_non_null(strstr(heard, "\"logprobs\":true"));
    assert_non_null(strstr(heard, "\"top_logprobs\":20"));
    rig_close(rig);
    ssize_t size = read(file, lines, sizeof lines - 1);
    assert_true(size > 0);
    lines[size] = '\0';
    assert_non_null(strstr(lines, "\"verdict\":\"given\",\"intent\":\"code\""));
    (void)close(file);
    (void)unlink(path);
}

static void what_must_stay_is_not_asked_about(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {SAYS_HARD};
    struct route_rig *rig =
        rig_open(scripts, 1,
                 DIFFICULTY CLASSIFIER("60s") "rules: [{name: hr, when: {tenants: [hr]}, local_only: yes}]\n"
                                              "unclassified: {to: frontier}\n",
                 false);
    fake_fleet_script("here");
    assert_answer(rig_ask(rig, &(struct rig_question){.privacy = "local_only"}), "here", "privacy");
    assert_answer(rig_ask(rig, &(struct rig_question){.tenant = "hr"}), "here", "privacy");
    assert_answer(rig_ask(rig, &(struct rig_question){.tenant = "hr", .route = "frontier"}), "here",
                  "privacy");
    assert_int_equal(script_server_connections(rig->server), 0);
    rig_close(rig);
    /* The type refuses it, whoever asks. */
    struct shareable none;
    struct policy_decision stays = {.local_only = true}, goes = {0};
    json_t *request = json_loads("{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}", 0, NULL);
    struct provider provider = {.name = "p"};
    struct provider_model model = {.kind = PROVIDER_COMPATIBLE};
    struct classifier_config config = CONFIG;
    config.provider = &provider;
    config.provider_model = &model;
    uint64_t number;
    assert_false(privacy_release(&stays, false, request, &none));
    assert_int_equal(remote_classifier_ask(&config, NULL, &none, 1, NULL, NULL, &number).code,
                     ERR_PERMISSION_DENIED);
    assert_false(privacy_release(&goes, true, request, &none)); /* offline */
    struct shareable derived;
    shareable_derive(&none, request, &derived);
    assert_null(shareable_request(&derived));
    json_decref(request);
}

static void offline_nobody_is_asked(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {SAYS_HARD};
    struct route_rig *rig = rig_open(scripts, 1, DIFFICULTY CLASSIFIER("60s"), true);
    fake_fleet_script("here");
    assert_answer(rig_ask(rig, &(struct rig_question){0}), "here", "default");
    assert_int_equal(script_server_connections(rig->server), 0);
    rig_close(rig);
}

static void what_happens_without_a_verdict_is_the_policys(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {HANGS, FAILS, SAYS_ODD, HANGS, ANSWERS};
    struct route_rig *rig = rig_open(scripts, 3, DIFFICULTY CLASSIFIER("20ms"), false);
    fake_fleet_script("here");
    for (int i = 0; i < 3; i++)
        assert_answer(rig_ask(rig, &(struct rig_question){0}), "here", "default");
    script_server_wait_ended(rig->server, 3);
    assert_int_equal(script_server_connections(rig->server), 3);
    rig_close(rig);
    rig = rig_open(scripts + 3, 2, DIFFICULTY CLASSIFIER("20ms") "unclassified: {to: frontier}\n", false);
    assert_answer(rig_ask(rig, &(struct rig_question){0}), "big one", "unclassified");
    rig_close(rig);
}

static void who_leaves_ends_the_question(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {HANGS};
    struct route_rig *rig = rig_open(scripts, 1, DIFFICULTY CLASSIFIER("60s"), false);
    uint32_t before = fake_fleet_counts().started;
    struct stream *stream;
    assert_int_equal(rig_submit(rig, &(struct rig_question){0}, &stream).code, ERR_OK);
    rig->service->vtable->stream_release(stream);
    script_server_wait_ended(rig->server, script_server_connections(rig->server));
    rig_wait_idle(rig);
    assert_int_equal(fake_fleet_counts().started, before);
    rig_close(rig);
}

/* Its own ids hold the answer to the labels. */
static void a_label_may_be_a_token_there(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {SAYS_EASY};
    struct route_rig *rig =
        rig_open(scripts, 1,
                 DIFFICULTY "classifier: {model: p/big, prompt: Which?, timeout: 60s, labels: "
                            "[{text: easy, difficulty: 0, token_id: 7}, {text: hard, difficulty: 1, "
                            "token_id: 99}]}\n",
                 false);
    fake_fleet_script("here");
    assert_answer(rig_ask(rig, &(struct rig_question){0}), "here", "default");
    script_server_wait_ended(rig->server, 1);
    assert_non_null(strstr(script_server_heard(rig->server), "\"allowed_token_ids\":[7,99]"));
    rig_close(rig);
}

/* Money is set aside for the question, and where there is none nobody is asked. */
static void a_question_is_paid_for(void **state)
{
    (void)state;
    const struct script_step *scripts[] = {SAYS_EASY};
    struct route_rig *rig = rig_open(
        scripts, 1, DIFFICULTY CLASSIFIER("60s") "budgets: [{tenant: poor, per_day: 0.000001}]\n", false);
    struct buffer budget = {.limit_bytes = 1 << 16};
    fake_fleet_script("here");
    assert_answer(rig_ask(rig, &(struct rig_question){.tenant = "poor"}), "here", "default");
    assert_int_equal(script_server_connections(rig->server), 0);
    assert_answer(rig_ask(rig, &(struct rig_question){.tenant = "rich"}), "here", "default");
    rig_wait_idle(rig);
    assert_int_equal(route_service_budget(rig->router, "rich", &budget).code, ERR_OK);
    json_t *root = json_loadb(budget.data, budget.size, 0, NULL);
    double spent = json_number_value(json_object_get(json_object_get(root, "day"), "spent"));
    assert_true(spent >= 0.00003);
    json_decref(root);
    buffer_free(&budget);
    rig_close(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_are_those_of_labels),
        cmocka_unit_test(a_provider_tells_what_is_hard),
        cmocka_unit_test(what_must_stay_is_not_asked_about),
        cmocka_unit_test(offline_nobody_is_asked),
        cmocka_unit_test(what_happens_without_a_verdict_is_the_policys),
        cmocka_unit_test(who_leaves_ends_the_question),
        cmocka_unit_test(a_label_may_be_a_token_there),
        cmocka_unit_test(a_question_is_paid_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
