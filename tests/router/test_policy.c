/* Policies: how files are read, and where requests go. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/philox.h"
#include "router/policy/policy.h"

static const char POLICY[] =
    "tiers:\n"
    "  - {name: small, models: [local/demo]}\n"
    "  - {name: middle, models: [local/larger]}\n"
    "  - {name: frontier, models: [openai/gpt-5, claude/opus]}\n"
    "rules:\n"
    "  - {name: pictures, when: {images: {min: 1}}, to: frontier}\n"
    "  - {name: hr, when: {tenants: [hr]}, local_only: yes}\n"
    "  - {name: code, when: {code: yes, turns: {min: 3, max: 9}}, to: middle}\n"
    "  - {name: russian, when: {scripts: [cyrillic], tasks: [letters, notes]}, to: frontier}\n"
    "  - {name: dutch, when: {languages: [nl, sv]}, to: middle}\n"
    "  - {name: refunds, when: {intents: [refund]}, to: middle}\n"
    "difficulty: {at_least: 0.6, to: frontier}\n"
    "overflow: {ttft_over: 500ms, to: frontier}\n"
    "when_down: {to: frontier}\n";
enum { SMALL, MIDDLE, FRONTIER, N_TIERS };

struct rig {
    struct yaml_file *file;
    struct policy *policy;
    struct request_signals signals;
    struct route_hints hints;
    struct policy_input input;
};

static err_t read_policy(const char *text, struct rig *rig)
{
    *rig = (struct rig){.hints = ROUTE_HINTS_NONE};
    rig->input = (struct policy_input){.signals = &rig->signals,
                                       .hints = &rig->hints,
                                       .tenant = "",
                                       .model = "",
                                       .intent = "",
                                       .difficulty = -1,
                                       .ttft_ms = {-1, -1, -1, -1, -1, -1, -1, -1}};
    TRY(yaml_file_parse("route.yaml", text, strlen(text), &rig->file));
    struct yaml_value root = yaml_root(rig->file);
    return policy_read(&root, &rig->policy);
}

static void forget(struct rig *rig)
{
    policy_free(rig->policy);
    yaml_file_close(rig->file);
}

static void set_up(struct rig *rig)
{
    err_t e = read_policy(POLICY, rig);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
}

static void assert_goes(struct rig *rig, size_t tier, enum policy_reason reason, const char *rule)
{
    struct buffer trace = {.limit_bytes = 1 << 16};
    struct policy_decision decision = policy_decide(rig->policy, &rig->input, &trace);
    if (decision.tier != tier || decision.reason != reason || decision.is_refused ||
        strcmp(decision.rule, rule) != 0)
        fail_msg("%s", trace.data);
    struct policy_decision silent = policy_decide(rig->policy, &rig->input, NULL);
    assert_int_equal(silent.tier, tier);
    buffer_free(&trace);
}

static void assert_refused(struct rig *rig, enum policy_reason reason)
{
    struct policy_decision decision = policy_decide(rig->policy, &rig->input, NULL);
    assert_true(decision.is_refused);
    assert_int_equal(decision.reason, reason);
}

static void rules_decide_from_the_top(void **state)
{
    (void)state;
    struct rig rig;
    set_up(&rig);
    assert_goes(&rig, SMALL, REASON_DEFAULT, "");
    rig.signals.has_code = true;
    rig.signals.n_turns = 2;
    assert_goes(&rig, SMALL, REASON_DEFAULT, "");
    rig.signals.n_turns = 9;
    assert_goes(&rig, MIDDLE, REASON_RULE, "code");
    rig.signals.n_images = 1;
    assert_goes(&rig, FRONTIER, REASON_RULE, "pictures");
    rig.signals = (struct request_signals){.script = SCRIPT_CYRILLIC};
    assert_goes(&rig, SMALL, REASON_DEFAULT, "");
    snprintf(rig.hints.task, sizeof rig.hints.task, "notes");
    assert_goes(&rig, FRONTIER, REASON_RULE, "russian");
    rig.signals.script = SCRIPT_LATIN;
    rig.signals.language = LANGUAGE_SV;
    assert_goes(&rig, MIDDLE, REASON_RULE, "dutch");
    rig.signals.language = LANGUAGE_UNKNOWN;
    assert_goes(&rig, SMALL, REASON_DEFAULT, "");
    rig.input.intent = "refund";
    assert_goes(&rig, MIDDLE, REASON_RULE, "refunds");
    forget(&rig);
}

/* Without a verdict a request may have any intent. */
static void an_intent_that_nobody_told_keeps_a_request_here(void **state)
{
    (void)state;
    static const char *const RULES =
        "tiers: [{name: small, models: [local/demo]}, {name: middle, models: [local/larger]},\n"
        "  {name: frontier, models: [openai/gpt-5]}]\n"
        "rules: [{name: ours, when: {tenants: [hr], intents: [salary]}, local_only: yes, to: middle}]\n"
        "default: frontier\n";
    struct rig rig;
    char open[1024];
    assert_int_equal(read_policy(RULES, &rig).code, ERR_OK);
    assert_goes(&rig, FRONTIER, REASON_DEFAULT, ""); /* another's is nothing to that rule */
    rig.input.tenant = "hr";
    rig.hints.route = WISH_FRONTIER;
    for (int verdict = 0; verdict < POLICY_VERDICTS; verdict++) {
        rig.input.verdict = (enum policy_verdict)verdict;
        rig.input.intent = "salary";
        assert_goes(&rig, MIDDLE, REASON_PRIVACY, "ours");
        rig.input.intent = "";
        if (verdict == VERDICT_GIVEN)
            assert_goes(&rig, FRONTIER, REASON_WISH, "");
        else
            assert_goes(&rig, MIDDLE, REASON_PRIVACY, "ours");
        assert_int_equal(policy_decide(rig.policy, &rig.input, NULL).local_only, verdict != VERDICT_GIVEN);
    }
    forget(&rig);
    snprintf(open, sizeof open, "%sunclassified: {privacy: open}\n", RULES);
    assert_int_equal(read_policy(open, &rig).code, ERR_OK);
    rig.input.tenant = "hr";
    rig.input.verdict = VERDICT_MISSING;
    assert_goes(&rig, FRONTIER, REASON_DEFAULT, "");
    forget(&rig);
}

static void what_nobody_could_classify_has_a_place(void **state)
{
    (void)state;
    struct rig rig;
    char text[2048];
    snprintf(text, sizeof text, "%sunclassified: {to: frontier}\n", POLICY);
    assert_int_equal(read_policy(text, &rig).code, ERR_OK);
    assert_goes(&rig, SMALL, REASON_DEFAULT, ""); /* nobody was to be asked */
    rig.input.verdict = VERDICT_MISSING;
    assert_goes(&rig, FRONTIER, REASON_UNCLASSIFIED, "");
    rig.hints.complexity = 2; /* the caller knows */
    assert_goes(&rig, SMALL, REASON_DEFAULT, "");
    rig.hints.complexity = 0;
    rig.input.verdict = VERDICT_GIVEN;
    assert_goes(&rig, SMALL, REASON_DEFAULT, "");
    forget(&rig);
    set_up(&rig); /* without a word on it */
    rig.input.verdict = VERDICT_MISSING;
    assert_goes(&rig, SMALL, REASON_DEFAULT, "");
    forget(&rig);
}

static void a_model_that_is_named_is_a_wish(void **state)
{
    (void)state;
    struct rig rig;
    size_t tier, model;
    set_up(&rig);
    rig.signals.n_images = 1;
    rig.hints.route = WISH_MODEL;
    rig.input.model = "local/larger";
    assert_goes(&rig, MIDDLE, REASON_WISH, "");
    rig.input.model = "middle";
    assert_goes(&rig, MIDDLE, REASON_WISH, "");
    rig.input.model = "nobody's"; /* of a log, or of another configuration */
    assert_goes(&rig, SMALL, REASON_WISH, "");
    rig.input.tenant = "hr";
    assert_goes(&rig, SMALL, REASON_PRIVACY, "hr");
    assert_true(policy_find_model(rig.policy, "claude/opus", &tier, &model));
    assert_true(tier == FRONTIER && model == 1);
    assert_true(policy_find_model(rig.policy, "frontier", &tier, &model));
    assert_true(tier == FRONTIER && model == 0);
    assert_false(policy_find_model(rig.policy, "opus", &tier, &model));
    struct route_hints hints = ROUTE_HINTS_NONE;
    assert_int_equal(route_hint_set(&hints, "route", "model").code, ERR_INVALID_ARGUMENT);
    forget(&rig);
}

static void a_wish_counts_before_rules_and_privacy_before_a_wish(void **state)
{
    (void)state;
    struct rig rig;
    set_up(&rig);
    rig.signals.n_images = 1;
    rig.hints.route = WISH_LOCAL;
    assert_goes(&rig, SMALL, REASON_WISH, "");
    rig.hints.route = WISH_FRONTIER;
    assert_goes(&rig, FRONTIER, REASON_WISH, "");
    rig.input.tenant = "hr";
    assert_goes(&rig, SMALL, REASON_PRIVACY, "hr"); /* though "pictures" stands above it */
    rig.input.tenant = "sales";
    rig.hints.local_only = true;
    assert_goes(&rig, SMALL, REASON_PRIVACY, "");
    forget(&rig);
}

static void length_difficulty_and_overflow_move_it_up(void **state)
{
    (void)state;
    struct rig rig;
    set_up(&rig);
    rig.input.context_tokens[SMALL] = 2048;
    rig.input.context_tokens[MIDDLE] = 8192;
    rig.input.prompt_tokens = 2000;
    rig.signals.max_tokens = 48;
    assert_goes(&rig, SMALL, REASON_DEFAULT, "");
    rig.signals.max_tokens = 49;
    assert_goes(&rig, MIDDLE, REASON_CONTEXT, "");
    rig.input.prompt_tokens = UINT64_MAX;
    assert_goes(&rig, FRONTIER, REASON_CONTEXT, ""); /* of which nobody knows */
    rig.input.context_tokens[FRONTIER] = 400000;
    assert_goes(&rig, SMALL, REASON_DEFAULT, ""); /* nobody can: the engine says so */

    rig.input.prompt_tokens = 10;
    rig.input.difficulty = 0.59;
    rig.hints.complexity = 9; /* a measurement counts more than what is said */
    assert_goes(&rig, SMALL, REASON_DEFAULT, "");
    rig.input.difficulty = 0.6;
    assert_goes(&rig, FRONTIER, REASON_DIFFICULTY, "");
    rig.input.difficulty = -1;
    assert_goes(&rig, FRONTIER, REASON_DIFFICULTY, "");
    rig.hints.complexity = 5;
    assert_goes(&rig, SMALL, REASON_DEFAULT, "");

    rig.input.ttft_ms[SMALL] = 501;
    assert_goes(&rig, SMALL, REASON_DEFAULT, ""); /* how long the other takes is not known */
    rig.input.ttft_ms[FRONTIER] = 600;
    assert_goes(&rig, SMALL, REASON_DEFAULT, "");
    rig.input.ttft_ms[FRONTIER] = 500;
    assert_goes(&rig, FRONTIER, REASON_OVERFLOW, "");
    rig.input.ttft_ms[SMALL] = 500;
    assert_goes(&rig, SMALL, REASON_DEFAULT, "");
    forget(&rig);
}

static void what_stands_against_it_sends_it_elsewhere(void **state)
{
    (void)state;
    struct rig rig;
    set_up(&rig);
    rig.input.is_down[SMALL] = true;
    assert_goes(&rig, FRONTIER, REASON_DOWN, "");
    rig.input.is_broke = true;
    assert_refused(&rig, REASON_DOWN);
    rig.input.is_broke = false;
    rig.input.cannot_cross[FRONTIER] = "logit_bias keeps it";
    assert_refused(&rig, REASON_DOWN);
    rig.input.is_down[SMALL] = false;
    rig.hints.route = WISH_FRONTIER;
    assert_goes(&rig, SMALL, REASON_CANNOT_CROSS, "");
    rig.input.cannot_cross[FRONTIER] = NULL;
    rig.input.is_broke = true;
    assert_goes(&rig, SMALL, REASON_BUDGET, "");
    rig.input.is_broke = false;
    rig.input.is_down[FRONTIER] = true;
    assert_goes(&rig, SMALL, REASON_DOWN, "");
    forget(&rig);
}

static void a_policy_may_refuse_instead(void **state)
{
    (void)state;
    struct rig rig;
    const char *text = "tiers: [{name: small, models: [local/a]}, {name: big, models: [p/b]}]\ndefault: big\n"
                       "when_broke: refuse\n";
    assert_int_equal(read_policy(text, &rig).code, ERR_OK);
    assert_goes(&rig, 1, REASON_DEFAULT, "");
    rig.input.is_broke = true;
    assert_refused(&rig, REASON_BUDGET);
    rig.input.is_broke = false;
    rig.input.is_down[1] = true;
    assert_refused(&rig, REASON_DOWN);
    rig.input.is_down[1] = false;
    rig.input.cannot_cross[1] = "n"; /* money is not the matter */
    assert_goes(&rig, 0, REASON_CANNOT_CROSS, "");
    rig.input.is_down[0] = true;
    assert_refused(&rig, REASON_CANNOT_CROSS);
    forget(&rig);
}

static void the_trace_tells_what_was_looked_at(void **state)
{
    (void)state;
    struct rig rig;
    set_up(&rig);
    struct buffer trace = {.limit_bytes = 4096}, small = {.limit_bytes = 30};
    rig.input.ttft_ms[SMALL] = 900;
    rig.input.ttft_ms[FRONTIER] = 400;
    policy_decide(rig.policy, &rig.input, &trace);
    assert_string_equal(trace.data, "rule \"pictures\": no, images\n"
                                    "rule \"hr\": no, privacy\n"
                                    "rule \"code\": no, turns\n"
                                    "rule \"russian\": no, tasks\n"
                                    "rule \"dutch\": no, languages\n"
                                    "rule \"refunds\": no, intents\n"
                                    "difficulty: not known\n"
                                    "overflow: a first token in 900 ms here, in 400 ms there: yes\n"
                                    "to frontier: overflow\n");
    policy_decide(rig.policy, &rig.input, &small); /* what does not fit is left out */
    buffer_free(&trace);
    buffer_free(&small);
    forget(&rig);
}

static uint64_t draw(struct rng *rng, uint64_t n)
{
    return rng_u64(rng) % n;
}

/* Whatever comes: what must stay stays, and nobody is sent where nobody is. */
static void no_input_breaks_a_promise(void **state)
{
    (void)state;
    struct rig rig;
    set_up(&rig);
    struct rng rng = rng_make(7);
    const char *TENANTS[] = {"", "hr", "sales"}, *INTENTS[] = {"", "refund"};
    for (int i = 0; i < 200000; i++) {
        struct policy_input *input = &rig.input;
        rig.signals = (struct request_signals){.n_images = draw(&rng, 4) == 0,
                                               .n_turns = (uint32_t)draw(&rng, 12),
                                               .has_code = draw(&rng, 2) == 0,
                                               .script = (enum script)draw(&rng, SCRIPTS),
                                               .max_tokens = draw(&rng, 5000)};
        rig.hints = ROUTE_HINTS_NONE;
        rig.hints.local_only = draw(&rng, 8) == 0;
        rig.hints.route = (enum route_wish)draw(&rng, 4);
        rig.hints.complexity = (uint32_t)draw(&rng, 11);
        input->tenant = TENANTS[draw(&rng, 3)];
        input->intent = INTENTS[draw(&rng, 2)];
        input->difficulty = (double)draw(&rng, 13) / 10 - 0.2;
        input->prompt_tokens = draw(&rng, 5000);
        input->is_broke = draw(&rng, 4) == 0;
        for (size_t tier = 0; tier < N_TIERS; tier++) {
            input->context_tokens[tier] = draw(&rng, 3) * 4096;
            input->ttft_ms[tier] = (int64_t)draw(&rng, 1500) - 1;
            input->is_down[tier] = draw(&rng, 4) == 0;
            input->cannot_cross[tier] = draw(&rng, 6) == 0 ? "it" : NULL;
        }
        struct policy_decision decision = policy_decide(rig.policy, input, NULL);
        bool must_stay = rig.hints.local_only || strcmp(input->tenant, "hr") == 0;
        assert_int_equal(decision.local_only, must_stay);
        assert_true(!must_stay || decision.tier != FRONTIER);
        if (!decision.is_refused) {
            assert_false(input->is_down[decision.tier] || input->cannot_cross[decision.tier]);
            assert_false(decision.tier == FRONTIER && input->is_broke);
        }
    }
    forget(&rig);
}

static void assert_wrong(const char *text, const char *message)
{
    struct rig rig;
    err_t e = read_policy(text, &rig);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    if (strstr(e.message, message) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", e.message, message);
    forget(&rig);
}

#define TIERS "tiers: [{name: small, models: [local/a]}, {name: big, models: [p/b]}]\n"

static void files_that_are_wrong_say_where(void **state)
{
    (void)state;
    assert_wrong("{}", "tiers must be given");
    assert_wrong("tiers: []\n", "1 to 8 tiers");
    assert_wrong("tiers: [{name: a}]\n", "tiers[0].models must be given");
    assert_wrong("tiers: [{name: a, models: []}]\n", "1 to 8 models");
    assert_wrong("tiers: [{name: a, models: [gpt]}]\n",
                 "tiers[0].models[0]: \"gpt\" must be local/NAME or PROVIDER/NAME");
    assert_wrong("tiers: [{name: a, models: [local/x, p/y]}]\n", "cannot share a tier");
    assert_wrong("tiers: [{name: a, models: [p/y]}]\n", "the first tier must be of local models");
    assert_wrong("tiers: [{name: a, models: [local/x]}, {name: a, models: [p/x]}]\n",
                 "the tier \"a\" is there twice");
    assert_wrong(TIERS "default: huge\n", "route.yaml:2: default: there is no tier \"huge\"");
    assert_wrong(TIERS "rules: [{name: r, when: {}}]\n", "rules[0].to must be given");
    assert_wrong(TIERS "rules: [{when: {}, to: big}]\n", "rules[0].name must be given");
    assert_wrong(TIERS "rules: [{name: r, to: big, local_only: yes}]\n", "which?");
    assert_wrong(TIERS "rules: [{name: r, when: {imagez: {min: 1}}, to: big}]\n", "unknown key \"imagez\"");
    assert_wrong(TIERS "rules: [{name: r, when: {images: {min: 5, max: 4}}, to: big}]\n", "this never holds");
    assert_wrong(TIERS "rules: [{name: r, when: {images: {}}, to: big}]\n", "min, max or both");
    assert_wrong(TIERS "rules: [{name: r, when: {images: 5}, to: big}]\n", "it must be a map");
    assert_wrong(TIERS "rules: [{name: r, when: {languages: [tlh]}, to: big}]\n",
                 "languages[0]: \"tlh\" must be unknown, ar");
    assert_wrong(TIERS "rules: [{name: r, when: {scripts: [klingon]}, to: big}]\n",
                 "scripts[0]: \"klingon\" must be none, latin");
    assert_wrong(TIERS "rules: [{name: r, when: {tenants: []}, to: big}]\n", "1 to 64 names");
    assert_wrong(TIERS "rules: [{name: r, to: big}, {name: r, to: big}]\n", "the rule \"r\" is there twice");
    assert_wrong(TIERS "difficulty: {to: big}\n", "difficulty.at_least must be given");
    assert_wrong(TIERS "difficulty: {at_least: 1.5, to: big}\n", "\"1.5\" must be a number from 0 to 1");
    assert_wrong(TIERS "overflow: {ttft_over: soon, to: big}\n", "must be a time");
    assert_wrong(TIERS "when_broke: cry\n", "\"cry\" must be local or refuse");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_decide_from_the_top),
        cmocka_unit_test(an_intent_that_nobody_told_keeps_a_request_here),
        cmocka_unit_test(what_nobody_could_classify_has_a_place),
        cmocka_unit_test(a_model_that_is_named_is_a_wish),
        cmocka_unit_test(a_wish_counts_before_rules_and_privacy_before_a_wish),
        cmocka_unit_test(length_difficulty_and_overflow_move_it_up),
        cmocka_unit_test(what_stands_against_it_sends_it_elsewhere),
        cmocka_unit_test(a_policy_may_refuse_instead),
        cmocka_unit_test(the_trace_tells_what_was_looked_at),
        cmocka_unit_test(no_input_breaks_a_promise),
        cmocka_unit_test(files_that_are_wrong_say_where),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
