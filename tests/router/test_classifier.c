/* The classifier's scores, and its way to an engine and back. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "router/policy/classifier.h"
#include "tests/router/fleet_world.h"

static void scores_are_shares_of_the_labels(void **state)
{
    (void)state;
    struct position_logprobs position = {.chosen = {7, logf(0.2f)}, .n_top = 3};
    position.top[0] = (struct token_logprob){1, logf(0.5f)};
    position.top[1] = (struct token_logprob){7, logf(0.2f)};
    position.top[2] = (struct token_logprob){9, logf(0.1f)};
    double scores[3];
    assert_true(classifier_score(&position, (const uint32_t[]){7, 9}, 2, scores));
    assert_true(fabs(scores[0] - 2.0 / 3) < 1e-6 && fabs(scores[1] - 1.0 / 3) < 1e-6);
    /* One that is not told has 0.1 of the rest at most, as much as the least that is. */
    assert_true(classifier_score(&position, (const uint32_t[]){7, 5}, 2, scores));
    assert_true(fabs(scores[1] - 0.1 / 0.3) < 1e-6);
    assert_true(classifier_score(&position, (const uint32_t[]){1, 5, 6}, 3, scores));
    assert_true(fabs(scores[1] - 0.0666666 / 0.6333333) < 1e-5 && fabs(scores[1] - scores[2]) < 1e-12);
    assert_false(classifier_score(&position, (const uint32_t[]){4, 5}, 2, scores));
    position.n_top = 0; /* the chosen one alone */
    position.chosen.token_id = 5;
    assert_true(classifier_score(&position, (const uint32_t[]){4, 5}, 2, scores));
    assert_true(scores[1] > scores[0] || fabs(scores[1] - scores[0]) < 1); /* both are numbers */
    assert_true(fabs(scores[0] + scores[1] - 1) < 1e-12);
}

struct heard {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    uint32_t n;
    struct classifier_verdict verdict;
};

static void on_verdict(void *context, const struct classifier_verdict *verdict)
{
    struct heard *heard = context;
    pthread_mutex_lock(&heard->mutex);
    heard->n++;
    heard->verdict = *verdict;
    pthread_cond_signal(&heard->changed);
    pthread_mutex_unlock(&heard->mutex);
}

static struct classifier_verdict wait_for(struct heard *heard)
{
    pthread_mutex_lock(&heard->mutex);
    while (heard->n == 0)
        pthread_cond_wait(&heard->changed, &heard->mutex);
    struct classifier_verdict verdict = heard->verdict;
    heard->n = 0;
    pthread_mutex_unlock(&heard->mutex);
    return verdict;
}

static const struct classifier_config CONFIG = {
    .model = "local/demo",
    .prompt = "Easy or hard?",
    .labels = {{"easy", "chat", 0.1}, {"hard", NULL, 0.9}, {"odd", "odd", -1}},
    .n_labels = 3,
    .timeout_ms = 30000};

/* A text so long that the fake engine, whose tokens depend on nothing else, answers with `wanted`. */
static size_t length_for(uint32_t wanted)
{
    for (uint32_t length = 1; length < CLASSIFIER_TEXT_BYTES_MAX; length++) {
        uint32_t content = (uint32_t)(strlen(CONFIG.prompt) + 2 + length) % FAKE_VOCAB_SIZE;
        if (fake_token(fake_prompt_hash(&content, 1), 0, 0) == wanted)
            return length;
    }
    fail_msg("no length gives %u", wanted);
    return 0;
}

static void a_request_gets_a_verdict(void **state)
{
    (void)state;
    struct fleet_world world;
    struct classifier *classifier;
    struct heard heard = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    static char text[3 * CLASSIFIER_TEXT_BYTES_MAX];
    memset(text, 'x', sizeof text);
    fleet_world_open(&world, 1, NULL);
    assert_int_equal(classifier_open(&CONFIG, world.fleet, clock_monotonic(), &classifier).code, ERR_OK);
    struct request request = say("x", 1);
    assert_false(classifier_is_ready(classifier));
    assert_int_equal(classifier_ask(classifier, &request, on_verdict, &heard, NULL).code, ERR_UNAVAILABLE);
    assert_int_equal(classifier_prepare(classifier, INT64_C(30000000000)).code, ERR_OK);
    assert_true(classifier_is_ready(classifier));
    uint32_t wanted = 'h';
    bool any = false;
    for (uint32_t length = 1; length < CLASSIFIER_TEXT_BYTES_MAX && !any; length++) {
        uint32_t content = (uint32_t)(strlen(CONFIG.prompt) + 2 + length) % FAKE_VOCAB_SIZE;
        uint32_t token = fake_token(fake_prompt_hash(&content, 1), 0, 0);
        any = token == 'h' || token == 'e' || token == 'o';
        wanted = any ? token : wanted;
    }
    assert_true(any);
    struct chat_message messages[] = {
        {"user", "an earlier one", 14}, {"assistant", "yes", 3}, {"user", text, length_for(wanted)}};
    request.prompt_kind = PROMPT_MESSAGES;
    request.messages = messages;
    request.n_messages = 3;
    struct local_call *call;
    assert_int_equal(classifier_ask(classifier, &request, on_verdict, &heard, &call).code, ERR_OK);
    struct classifier_verdict verdict = wait_for(&heard);
    local_call_release(call);
    if (verdict.error.code != ERR_OK)
        fail_msg("%s", verdict.error.message);
    size_t label = wanted == 'e' ? 0 : wanted == 'h' ? 1 : 2;
    assert_int_equal(verdict.label, label);
    assert_true(verdict.scores[label] > 0.9);
    assert_string_equal(verdict.intent, label == 0 ? "chat" : label == 1 ? "" : "odd");
    struct fake_asked asked = fake_service_asked(world.engines[0].fake);
    assert_int_equal(asked.prompt_kind, PROMPT_MESSAGES);
    assert_memory_equal(asked.text, "user: Easy or hard?\n\nxxx", 24); /* the last turn alone */
    messages[2].content_bytes = sizeof text; /* too long: its two ends; and no label comes back */
    assert_int_equal(classifier_ask(classifier, &request, on_verdict, &heard, NULL).code, ERR_OK);
    verdict = wait_for(&heard);
    uint32_t content =
                 (uint32_t)(strlen(CONFIG.prompt) + 2 + CLASSIFIER_TEXT_BYTES_MAX + 5) % FAKE_VOCAB_SIZE,
             said = fake_token(fake_prompt_hash(&content, 1), 0, 0);
    assert_true(said != 'e' && said != 'h' && said != 'o');
    assert_int_equal(verdict.error.code, ERR_INTERNAL);
    assert_non_null(strstr(verdict.error.message, "none of its labels"));
    request.prompt_kind = PROMPT_TOKEN_IDS;
    assert_int_equal(classifier_ask(classifier, &request, on_verdict, &heard, NULL).code, ERR_UNIMPLEMENTED);
    classifier_close(classifier);
    fleet_world_close(&world);
}

static void it_takes_no_longer_than_it_may(void **state)
{
    (void)state;
    struct fleet_world world;
    struct classifier *classifier;
    struct heard heard = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    struct classifier_config config = CONFIG;
    config.timeout_ms = 20;
    fleet_world_open(&world, 1, NULL);
    assert_int_equal(classifier_open(&config, world.fleet, clock_monotonic(), &classifier).code, ERR_OK);
    assert_int_equal(classifier_prepare(classifier, INT64_C(30000000000)).code, ERR_OK);
    fake_service_hold(world.engines[0].fake, true);
    struct request request = say("x", 1);
    assert_int_equal(classifier_ask(classifier, &request, on_verdict, &heard, NULL).code, ERR_OK);
    assert_int_equal(wait_for(&heard).error.code, ERR_DEADLINE_EXCEEDED);
    config.timeout_ms = 60000;
    struct local_call *call;
    assert_int_equal(classifier_ask(classifier, &request, on_verdict, &heard, &call).code, ERR_OK);
    local_call_cancel(call); /* the client left */
    assert_int_equal(wait_for(&heard).error.code, ERR_CANCELLED);
    local_call_release(call);
    fake_service_hold(world.engines[0].fake, false);
    wait_for_silence(&world);
    classifier_close(classifier);
    fleet_world_close(&world);
}

static void labels_must_differ_at_once(void **state)
{
    (void)state;
    struct fleet_world world;
    struct classifier *classifier;
    struct classifier_config config = CONFIG;
    config.labels[2].text = "hopeless"; /* 'h' again, as the fake engine reads it */
    fleet_world_open(&world, 1, NULL);
    assert_int_equal(classifier_open(&config, world.fleet, clock_monotonic(), &classifier).code, ERR_OK);
    err_t e = classifier_prepare(classifier, INT64_C(30000000000));
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.message, "the labels \"hard\" and \"hopeless\""));
    assert_false(classifier_is_ready(classifier));
    engine_kill(&world, 0);
    wait_for_replicas(&world, 1, 0);
    assert_int_equal(classifier_prepare(classifier, INT64_C(30000000000)).code, ERR_UNAVAILABLE);
    classifier_close(classifier);
    fleet_world_close(&world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_shares_of_the_labels),
        cmocka_unit_test(a_request_gets_a_verdict),
        cmocka_unit_test(it_takes_no_longer_than_it_may),
        cmocka_unit_test(labels_must_differ_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
