/* The gate: whom it lets through, and how it goes back by itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "router/gate/eval_artefact.h"
#include "router/gate/rollout.h"
#include "router/gate/rollout_state.h"

static const struct eval_artefact PASSING = {
    .policy_id = "0123456789abcdef",
    .fingerprint = "demo-1",
    .cases_id = "c",
    .n_cases = 500,
    .n_cheap = 400,
    .quality = 0.95,
    .baseline_quality = 0.96,
    .strong_share = 0.2,
    .difference = {-0.01, -0.02, 0.005},
    .false_cheap = {0.01, 0.005, 0.03},
    .made_unix_s = 1790000000,
};

struct rig {
    char path[64];
    struct rollout *rollout;
};

/* Another start. */
static void start(struct rig *rig, enum rollout_stage stage, enum rollout_stage from, const char *state)
{
    struct rollout_options options = {.is_set = true,
                                      .stage = stage,
                                      .from = from,
                                      .artefact = rig->path,
                                      .state = state,
                                      .share = 0.25,
                                      .shadow_share = 0.1,
                                      .margin = 0.03,
                                      .false_cheap = 0.05,
                                      .window = 100};
    rollout_close(rig->rollout);
    assert_int_equal(rollout_open(&options, "0123456789abcdef", "demo-1", &rig->rollout).code, ERR_OK);
}

static void write_artefact(const struct rig *rig, const struct eval_artefact *artefact)
{
    struct buffer text = {.limit_bytes = 1 << 16};
    assert_int_equal(eval_artefact_write(artefact, &text).code, ERR_OK);
    FILE *file = fopen(rig->path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text.data, 1, text.size, file), text.size);
    assert_int_equal(fclose(file), 0);
    buffer_free(&text);
}

static void set_up_from(struct rig *rig, const struct eval_artefact *artefact, enum rollout_stage stage,
                        enum rollout_stage from)
{
    *rig = (struct rig){.path = "/tmp/test_rollout.XXXXXX"};
    int file = mkstemp(rig->path);
    assert_true(file >= 0);
    close(file);
    write_artefact(rig, artefact);
    start(rig, stage, from, NULL);
}

/* Where it is put at once. */
static void set_up_with(struct rig *rig, const struct eval_artefact *artefact, enum rollout_stage stage)
{
    set_up_from(rig, artefact, stage, stage);
}

static void tear_down(struct rig *rig)
{
    char state[80];
    (void)snprintf(state, sizeof state, "%s.stage", rig->path);
    rollout_close(rig->rollout);
    unlink(rig->path);
    unlink(state);
}

static void assert_why(struct rollout *rollout, const char *words)
{
    struct buffer why = {.limit_bytes = 1 << 12};
    rollout_why(rollout, &why);
    if (strstr(why.data, words) == NULL)
        fail_msg("%s", why.data);
    buffer_free(&why);
}

static err_t read_options(const char *text, struct rollout_options *out)
{
    struct yaml_file *file;
    TRY(yaml_file_parse("route.yaml", text, strlen(text), &file));
    struct yaml_value root = yaml_root(file), gate = yaml_at(&root, "gate");
    err_t e = rollout_options_read(&gate, out);
    out->artefact = out->artefact ? "told" : NULL; /* the file goes */
    out->state = out->state ? "told" : NULL;
    yaml_file_close(file);
    return e;
}

static void options_are_read(void **state)
{
    (void)state;
    struct rollout_options options;
    assert_int_equal(read_options("other: 1\n", &options).code, ERR_OK);
    assert_true(options.is_set && options.is_default && options.stage == ROLLOUT_OBSERVE);
    assert_int_equal(read_options("gate: off\n", &options).code, ERR_OK);
    assert_false(options.is_set || options.is_default);
    assert_int_equal(read_options("gate: on\n", &options).code, ERR_INVALID_ARGUMENT);
    assert_int_equal(read_options("gate: {stage: canary, artefact: eval.json}\n", &options).code, ERR_OK);
    assert_true(options.is_set && options.stage == ROLLOUT_CANARY && options.artefact != NULL);
    assert_true(options.share == 0.1 && options.shadow_share == 0.02 && options.margin == 0.03 &&
                options.false_cheap == 0.05 && options.window == 200);
    assert_int_equal(
        read_options("gate: {stage: promoted, window: 50, share: 1, margin: 0}\n", &options).code, ERR_OK);
    assert_true(options.window == 50 && options.share == 1 && options.margin == 0);
    assert_true(options.from == ROLLOUT_SHADOW && options.state == NULL);
    assert_int_equal(read_options("gate: {stage: promoted, from: canary, state: s}\n", &options).code,
                     ERR_OK);
    assert_true(options.from == ROLLOUT_CANARY && options.state != NULL);
}

static void options_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } CASES[] = {
        {"gate: {stage: beta}\n", "gate.stage"},
        {"gate: {share: 1.5}\n", "gate.share"},
        {"gate: {window: 9}\n", "gate.window"},
        {"gate: {window: 100001}\n", "gate.window"},
        {"gate: {margin: -0.1}\n", "gate.margin"},
        {"gate: {artifact: a}\n", "artifact"},
        {"gate: {false_cheap: 2}\n", "gate.false_cheap"},
        {"gate: 5\n", "gate"},
        {"gate: {stage: canary, from: promoted}\n", "gate.from"},
        {"gate: {stage: canary, from: observe}\n", "gate.from"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct rollout_options options;
        err_t e = read_options(CASES[i].text, &options);
        assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
        if (strstr(e.message, CASES[i].words) == NULL)
            fail_msg("%s", e.message);
    }
}

static void passing_artefact_lets_it(void **state)
{
    (void)state;
    struct rig rig;
    set_up_with(&rig, &PASSING, ROLLOUT_PROMOTED);
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_PROMOTED);
    assert_why(rig.rollout, "its artefact passes");
    rollout_local_changed(rig.rollout, "demo-2");
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_OBSERVE);
    assert_why(rig.rollout, "demo-2");
    rollout_local_changed(rig.rollout, "demo-1");
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_PROMOTED);
    tear_down(&rig);
}

static void other_artefacts_only_observe(void **state)
{
    (void)state;
    struct eval_artefact bad[5];
    static const char *const WORDS[5] = {"policy", "local engine", "it takes 30",
                                         "worse than the baseline by 3.1 %", "up to 5.1 %"};
    for (size_t i = 0; i < 5; i++)
        bad[i] = PASSING;
    snprintf(bad[0].policy_id, sizeof bad[0].policy_id, "x");
    bad[1].fingerprint[0] = '\0';
    bad[2].n_cases = EVAL_ARTEFACT_CASES_MIN - 1;
    bad[3].difference.low = -0.031;
    bad[4].false_cheap.high = 0.051;
    for (size_t i = 0; i < 5; i++) {
        struct rig rig;
        set_up_with(&rig, &bad[i], ROLLOUT_PROMOTED);
        assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_OBSERVE);
        assert_why(rig.rollout, WORDS[i]);
        struct rollout_choice choice = rollout_choose(rig.rollout, 7);
        assert_false(choice.follows_policy || choice.is_shadowed);
        rollout_score(rig.rollout, 0); /* nothing is scored there */
        assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_OBSERVE);
        tear_down(&rig);
    }
    struct rollout_options missing = {.is_set = true, .stage = ROLLOUT_CANARY, .window = 10};
    struct rollout *rollout;
    assert_int_equal(rollout_open(&missing, "p", "f", &rollout).code, ERR_OK);
    assert_why(rollout, "there is no artefact");
    rollout_close(rollout);
    missing.artefact = "/nonexistent/eval.json";
    assert_int_equal(rollout_open(&missing, "p", "f", &rollout).code, ERR_OK);
    assert_why(rollout, "/nonexistent/eval.json");
    rollout_close(rollout);
}

static void with_the_gate_off_all_follow(void **state)
{
    (void)state;
    struct rollout_options none = {0};
    struct rollout *rollout;
    assert_int_equal(rollout_open(&none, "p", "", &rollout).code, ERR_OK);
    struct rollout_choice choice = rollout_choose(rollout, 7);
    assert_true(choice.follows_policy && !choice.is_shadowed);
    for (int i = 0; i < 1000; i++)
        rollout_score(rollout, 0);
    assert_int_equal(rollout_stage_now(rollout), ROLLOUT_PROMOTED);
    assert_why(rollout, "gate: off");
    rollout_close(rollout);
}

static void assert_shares(enum rollout_stage stage, double follow, double shadowed_of_followers,
                          double shadowed_of_others)
{
    enum { KEYS = 40000 };
    struct rig rig;
    set_up_with(&rig, &PASSING, stage);
    uint32_t n_follow = 0, n_both = 0, n_other = 0;
    for (uint64_t key = 0; key < KEYS; key++) {
        struct rollout_choice choice = rollout_choose(rig.rollout, key),
                              again = rollout_choose(rig.rollout, key);
        assert_int_equal(choice.follows_policy, again.follows_policy);
        assert_int_equal(choice.is_shadowed, again.is_shadowed);
        n_follow += choice.follows_policy;
        n_both += choice.follows_policy && choice.is_shadowed;
        n_other += !choice.follows_policy && choice.is_shadowed;
    }
    assert_float_equal((double)n_follow / KEYS, follow, 0.01);
    assert_float_equal(n_follow ? (double)n_both / n_follow : 0, shadowed_of_followers, 0.01);
    assert_float_equal(n_follow < KEYS ? (double)n_other / (KEYS - n_follow) : 0, shadowed_of_others, 0.01);
    tear_down(&rig);
}

static void choices_keep_their_shares(void **state)
{
    (void)state;
    assert_shares(ROLLOUT_OBSERVE, 0, 0, 0);
    assert_shares(ROLLOUT_SHADOW, 0, 0, 0.25);
    assert_shares(ROLLOUT_CANARY, 0.25, 0.1, 0.25);
    assert_shares(ROLLOUT_PROMOTED, 1, 0.1, 0);
}

static void score_n(struct rig *rig, int n, double score)
{
    for (int i = 0; i < n; i++)
        rollout_score(rig->rollout, score);
}

static void low_scores_take_it_back(void **state)
{
    (void)state;
    struct rig rig;
    set_up_with(&rig, &PASSING, ROLLOUT_PROMOTED);
    score_n(&rig, 3, 0); /* 97 of 100 are within reach */
    score_n(&rig, 96, 1);
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_PROMOTED);
    score_n(&rig, 1, 1);
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_PROMOTED);
    score_n(&rig, 3, 0); /* the three old ones leave the window as these come in */
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_PROMOTED);
    score_n(&rig, 1, 0);
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_CANARY);
    assert_why(rig.rollout, "took it back, 1 times so far; it may go as far as promoted");
    score_n(&rig, 3, 0); /* a new window has begun */
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_CANARY);
    score_n(&rig, 1, 0);
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_SHADOW);
    score_n(&rig, 4, 0);
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_OBSERVE);
    score_n(&rig, 500, 1); /* from here nothing but people brings it forward */
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_OBSERVE);
    tear_down(&rig);
}

static void good_scores_bring_it_forward(void **state)
{
    (void)state;
    struct rig rig;
    set_up_with(&rig, &PASSING, ROLLOUT_CANARY);
    score_n(&rig, 4, 0);
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_SHADOW);
    score_n(&rig, 1000, 0.98); /* above what it takes to stay, below what it takes to come forward: 0.985 */
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_SHADOW);
    score_n(&rig, 24, 1); /* (24 + 76 * 0.98) / 100 = 0.9848 */
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_SHADOW);
    score_n(&rig, 1, 1);
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_CANARY);
    score_n(&rig, 1000, 1); /* never beyond what is configured */
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_CANARY);
    for (int fall = 2; fall <= ROLLOUT_FALLS_MAX; fall++) {
        score_n(&rig, 100, 1);
        score_n(&rig, 4, 0);
        assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_SHADOW);
        score_n(&rig, 100, 1);
        assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_CANARY);
    }
    score_n(&rig, 4, 0);
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_SHADOW);
    score_n(&rig, 1000, 1); /* it has fallen too often */
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_SHADOW);
    tear_down(&rig);
}

/* An artefact alone lets it be compared; each further step takes a whole window of live scores. */
static void each_step_is_earned(void **state)
{
    (void)state;
    struct rig rig;
    set_up_from(&rig, &PASSING, ROLLOUT_PROMOTED, ROLLOUT_SHADOW);
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_SHADOW);
    assert_why(rig.rollout, "live scores take it on, as far as promoted");
    score_n(&rig, 99, 0.97);
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_SHADOW);
    score_n(&rig, 1, 0.97);
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_CANARY);
    score_n(&rig, 99, 1);
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_CANARY);
    score_n(&rig, 1, 1);
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_PROMOTED);
    tear_down(&rig);
}

static void a_restart_goes_on_where_it_stood(void **state)
{
    (void)state;
    struct rig rig;
    set_up_from(&rig, &PASSING, ROLLOUT_PROMOTED, ROLLOUT_SHADOW);
    score_n(&rig, 200, 1);
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_PROMOTED);
    start(&rig, ROLLOUT_PROMOTED, ROLLOUT_SHADOW, NULL);
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_PROMOTED);
    score_n(&rig, 4, 0);
    start(&rig, ROLLOUT_PROMOTED, ROLLOUT_SHADOW, NULL); /* brings nothing forward that has fallen */
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_CANARY);
    assert_why(rig.rollout, "1 times");
    score_n(&rig, 100, 0.98); /* which takes more than at first */
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_CANARY);
    score_n(&rig, 8, 0);
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_OBSERVE);
    start(&rig, ROLLOUT_PROMOTED, ROLLOUT_SHADOW, NULL);
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_OBSERVE);
    start(&rig, ROLLOUT_CANARY, ROLLOUT_CANARY, NULL); /* people have another word to say */
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_CANARY);
    start(&rig, ROLLOUT_PROMOTED, ROLLOUT_SHADOW, "/nonexistent/stage"); /* another file, kept nowhere */
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_SHADOW);
    score_n(&rig, 100, 1);
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_CANARY);
    struct eval_artefact newer = PASSING;
    newer.made_unix_s++;
    write_artefact(&rig, &newer);
    start(&rig, ROLLOUT_PROMOTED, ROLLOUT_SHADOW, NULL);
    assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_SHADOW);
    tear_down(&rig);
}

static void states_that_are_none_do_not_count(void **state)
{
    (void)state;
    static const char *const BAD[] = {
        "",
        "{}",
        "not json",
        "{\"bantam_stage\":2,\"policy_id\":\"0123456789abcdef\",\"artefact\":\"0123456789abcdef\","
        "\"from\":\"shadow\",\"stage\":\"promoted\",\"falls\":0}",
        "{\"bantam_stage\":1,\"policy_id\":\"0123456789abcdef\",\"artefact\":\"0123456789abcdeg\","
        "\"from\":\"shadow\",\"stage\":\"promoted\",\"falls\":0}",
        "{\"bantam_stage\":1,\"policy_id\":\"0123456789abcdef\",\"artefact\":\"0123456789abcdef\","
        "\"from\":\"shadow\",\"stage\":\"best\",\"falls\":0}",
    };
    struct rig rig;
    struct rollout_state read;
    char path[80];
    set_up_from(&rig, &PASSING, ROLLOUT_PROMOTED, ROLLOUT_SHADOW);
    (void)snprintf(path, sizeof path, "%s.stage", rig.path);
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        assert_true(fputs(BAD[i], file) >= 0);
        assert_int_equal(fclose(file), 0);
        assert_int_equal(rollout_state_read(path, &read).code, ERR_INVALID_ARGUMENT);
        start(&rig, ROLLOUT_PROMOTED, ROLLOUT_SHADOW, NULL);
        assert_int_equal(rollout_stage_now(rig.rollout), ROLLOUT_SHADOW);
    }
    tear_down(&rig);
}

static void artefacts_come_back_as_written(void **state)
{
    (void)state;
    struct buffer text = {.limit_bytes = 1 << 16};
    assert_int_equal(eval_artefact_write(&PASSING, &text).code, ERR_OK);
    struct eval_artefact read;
    assert_int_equal(eval_artefact_parse(text.data, text.size, &read).code, ERR_OK);
    assert_memory_equal(&read, &PASSING, sizeof read);
    struct buffer tight = {.limit_bytes = 40};
    assert_int_equal(eval_artefact_write(&PASSING, &tight).code, ERR_RESOURCE_EXHAUSTED);
    buffer_free(&tight);
    for (size_t cut = 0; cut < text.size - 2; cut++) /* the last two are "}\n" */
        assert_int_equal(eval_artefact_parse(text.data, cut, &read).code, ERR_INVALID_ARGUMENT);
    char *one = strstr(text.data, "\"bantam_eval\":1");
    assert_non_null(one);
    one[14] = '2';
    assert_int_equal(eval_artefact_parse(text.data, text.size, &read).code, ERR_INVALID_ARGUMENT);
    buffer_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_are_read),
        cmocka_unit_test(options_are_refused),
        cmocka_unit_test(passing_artefact_lets_it),
        cmocka_unit_test(other_artefacts_only_observe),
        cmocka_unit_test(with_the_gate_off_all_follow),
        cmocka_unit_test(choices_keep_their_shares),
        cmocka_unit_test(low_scores_take_it_back),
        cmocka_unit_test(good_scores_bring_it_forward),
        cmocka_unit_test(each_step_is_earned),
        cmocka_unit_test(a_restart_goes_on_where_it_stood),
        cmocka_unit_test(states_that_are_none_do_not_count),
        cmocka_unit_test(artefacts_come_back_as_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
