/* A router's configuration, whole: what is read, what does not fit together, and its fingerprint. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/log.h"
#include "router/config/route_config.h"
#include "router/config/route_file.h"

static char *environment(const char *name)
{
    static char key[] = "sk-secret";
    return strcmp(name, "KEY") == 0 ? key : NULL;
}

static err_t parse(const char *text, struct route_config **out)
{
    *out = NULL;
    return route_config_parse("route.yaml", text, strlen(text), environment, out);
}

#define LOCAL                                                                                                \
    "local:\n"                                                                                               \
    "  - {name: demo, targets: [\"127.0.0.1:50051\", \"127.0.0.1:50061\"], model: tickets}\n"                \
    "  - {name: larger, targets: [\"127.0.0.1:50071\"]}\n"
#define PROVIDERS                                                                                            \
    "providers:\n"                                                                                           \
    "  - {name: openai, kind: openai, url: \"https://api.openai.com/v1\", key_env: KEY,\n"                   \
    "     models: [{name: gpt-5, price: {input: 1.25, output: 10, as_of: 2026-11-01}}]}\n"                   \
    "  - {name: claude, kind: anthropic, url: \"https://api.anthropic.com/v1\",\n"                           \
    "     models: [{name: opus, max_output: 32000, price: {input: 5, output: 25}}]}\n"
#define TIERS                                                                                                \
    "tiers:\n"                                                                                               \
    "  - {name: small, models: [local/demo]}\n"                                                              \
    "  - {name: middle, models: [local/larger]}\n"                                                           \
    "  - {name: frontier, models: [openai/gpt-5, claude/opus]}\n"
#define BASE LOCAL PROVIDERS TIERS
#define CLASSIFIER                                                                                           \
    "classifier: {model: local/larger, prompt: \"Easy or hard?\", timeout: 250ms,\n"                         \
    "  labels: [{text: easy, difficulty: 0.1}, {text: hard, difficulty: 0.9, intent: code}, "                \
    "{text: chat, intent: chat}]}\n"
#define REMOTE(model, more)                                                                                  \
    "classifier: {model: " model ", prompt: p, labels: [{text: a, intent: i" more                            \
    "}, {text: b, difficulty: 1" more "}]}\n"

static const char WHOLE[] = BASE CLASSIFIER
    "rules: [{name: code, when: {intents: [code]}, to: frontier}]\n"
    "cascade: {tier: small, tokens: 6, within: 150ms, escalate_over: 0.35, to: frontier}\n"
    "hedge: {tier: middle, after: 800ms, to: frontier, max_share: 0.1, max_cost: 0.25, per_day: 2}\n"
    "cache: {kind: sqlite, path: answers.db, max_bytes: 1000, max_entry_bytes: 500, ttl: "
    "30m, draws_too: yes}\n"
    "ledger: {path: ledger.db, durable: yes}\n"
    "budgets: [{tenant: hr, per_day: 5, per_month: 100}, {per_day: 0.5}]\n"
    "retries: {max: 2, backoff: 50ms}\n"
    "log: {path: decisions.jsonl, content: yes}\n"
    "gate: {stage: canary, artefact: eval.json, baseline: frontier}\n";

static void assert_books(const struct route_config *config)
{
    assert_int_equal(config->cache.kind, CACHE_SQLITE);
    assert_string_equal(config->cache.path, "answers.db");
    assert_int_equal(config->cache.max_bytes, 1000);
    assert_int_equal(config->cache.max_entry_bytes, 500);
    assert_int_equal(config->cache.ttl_ms, 1800000);
    assert_true(config->cache.draws_too && config->ledger_durable);
    assert_string_equal(config->ledger_path, "ledger.db");
    assert_int_equal(config->n_budgets, 2);
    assert_int_equal(route_config_budget(config, "hr")->per_day, 5 * NANODOLLARS_PER_DOLLAR);
    assert_int_equal(route_config_budget(config, "hr")->per_month, 100 * NANODOLLARS_PER_DOLLAR);
    assert_int_equal(route_config_budget(config, "")->per_day, NANODOLLARS_PER_DOLLAR / 2);
    assert_int_equal(route_config_budget(config, "")->per_month, 0);
    assert_int_equal(config->retries.max, 2);
    assert_int_equal(config->retries.backoff_ms, 50);
    assert_string_equal(config->log.path, "decisions.jsonl");
    assert_true(config->log.content && config->gate.is_set);
    assert_int_equal(config->gate.stage, ROLLOUT_CANARY);
}

static void everything_is_read(void **state)
{
    (void)state;
    struct route_config *config;
    err_t e = parse(WHOLE, &config);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    size_t n, local;
    assert_int_equal(config->n_local, 2);
    assert_int_equal(config->providers.n, 2);
    (void)policy_tiers(config->policy, &n);
    assert_int_equal(n, 3);
    assert_true(route_config_find_local(config, "local/larger", &local) && local == 1);
    assert_false(route_config_find_local(config, "local/large", &local));
    assert_false(route_config_find_local(config, "openai/gpt-5", &local));
    assert_true(config->cascade.is_set && config->hedge.is_set);
    assert_int_equal(config->cascade.tier, 0);
    assert_int_equal(config->cascade.to, 2);
    assert_int_equal(config->cascade.hold_tokens, 6);
    assert_int_equal(config->cascade.hold_ms, 150);
    assert_true(config->cascade.escalate_over == 0.35);
    assert_int_equal(config->hedge.tier, 1);
    assert_int_equal(config->hedge.after_ms, 800);
    assert_true(config->hedge.max_share == 0.1);
    assert_true(config->hedge.max_cost == 250000000 && config->hedge.per_day == 2000000000);
    assert_int_equal(config->classifier.local, 1);
    assert_int_equal(config->classifier.n_labels, 3);
    assert_int_equal(config->classifier.timeout_ms, 250);
    assert_true(config->classifier.labels[2].difficulty < 0 && config->classifier.labels[0].intent == NULL);
    assert_string_equal(config->classifier.labels[1].intent, "code");
    assert_books(config);
    route_config_free(config);
}

static void what_is_not_there_has_defaults(void **state)
{
    (void)state;
    struct route_config *config;
    err_t e =
        parse("local: [{name: a, targets: [\"b:1\"]}]\ntiers: [{name: s, models: [local/a]}]\n", &config);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    assert_int_equal(config->cache.kind, CACHE_OFF);
    assert_null(config->ledger_path);
    assert_null(config->classifier.model);
    assert_null(route_config_budget(config, "a"));
    assert_null(config->log.path);
    assert_false(config->cascade.is_set || config->hedge.is_set);
    assert_true(config->gate.is_set && config->gate.is_default); /* nobody has tested it */
    assert_int_equal(config->retries.max, 3);
    assert_int_equal(config->retries.backoff_ms, 100);
    route_config_free(config);
}

static void a_provider_may_classify(void **state)
{
    (void)state;
    struct route_config *config;
    err_t e = parse(BASE REMOTE("openai/gpt-5", ", token_id: 77") "unclassified: {to: frontier}\n", &config);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    assert_string_equal(config->classifier.provider->name, "openai");
    assert_string_equal(config->classifier.provider_model->name, "gpt-5");
    assert_int_equal(config->classifier.labels[1].token_id, 77);
    route_config_free(config);
}

static void what_is_wrong_is_told_with_its_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } CASES[] = {
        {"", "route.yaml: something must be given"},
        {BASE "colour: red\n", "route.yaml:13: unknown key \"colour\"; it must be local, providers"},
        {"a: &x [1]\nb: &x [2]\n", "route.yaml:2: an anchor (&name) is there twice"},
        {PROVIDERS TIERS, "route.yaml:7: tiers[0].models[0]: there is no model \"demo\" under local"},
        {LOCAL TIERS, "route.yaml:7: tiers[2].models[0]: no provider has a model \"openai/gpt-5\""},
        {LOCAL PROVIDERS "tiers: [{name: a, models: [local/demo]}, {name: b, models: [openai/gpt-5]}, "
                         "{name: c, models: [local/larger]}]\n",
         "the local tier \"c\" stands after one of providers"},
        {LOCAL "tiers: [{name: a, models: [local/demo, local/demo]}]\n",
         "tiers[0].models[1]: the model \"local/demo\" is there twice"},
        {BASE "cascade: {tier: tiny, to: frontier, escalate_over: 0.5}\n",
         "cascade.tier: there is no tier \"tiny\""},
        {BASE "cascade: {tier: frontier, to: frontier, escalate_over: 0.5}\n",
         "cascade.tier: the tier \"frontier\" is of providers; it must be of local models"},
        {BASE "cascade: {tier: middle, to: small, escalate_over: 0.5}\n",
         "cascade.to: it must be a tier that stands after \"middle\""},
        {BASE "cascade: {tier: small, to: frontier}\n", "cascade.escalate_over must be given"},
        {BASE "cascade: {tier: small, to: frontier, escalate_over: 1.5}\n", "must be a number from 0 to 1"},
        {BASE "cascade: {tier: small, to: frontier, escalate_over: 1, tokens: 65}\n",
         "whole number from 1 to 64"},
        {BASE "cascade: {tier: small, to: frontier, escalate_over: 1, within: 61s}\n",
         "cascade.within: it must be a time from 1ms to 60s"},
        {BASE "hedge: {tier: frontier, to: frontier}\n", "hedge.tier: the tier \"frontier\" is of providers"},
        {BASE "hedge: {tier: small, to: frontier, max_cost: 0}\n", "hedge.max_cost: it must be more than 0"},
        {BASE "hedge: {tier: small, to: frontier, per_day: 0}\n", "hedge.per_day: it must be more than 0"},
        {BASE "hedge: {tier: small}\n", "hedge.to must be given"},
        {BASE "hedge: {tier: small, to: frontier, max_share: 2}\n", "hedge.max_share"},
        {BASE REMOTE("claude/opus", ""), "classifier.model: \"claude/opus\" is Anthropic's"},
        {BASE REMOTE("openai/gpt-7", ""), "classifier.model: no provider has a model \"openai/gpt-7\""},
        {BASE REMOTE("local/demo", ", token_id: 5"), "classifier: token_id is of a provider's labels"},
        {BASE "classifier: {model: openai/gpt-5, prompt: p, labels: [{text: a, intent: b, token_id: 1}, "
              "{text: b, intent: c}]}\n",
         "classifier.labels[1]: every label has a token_id, or none has"},
        {BASE REMOTE("openai/gpt-5", "") "rules: [{name: r, when: {intents: [i]}, local_only: yes}]\n",
         "rules[0].when.intents: openai/gpt-5, a provider's, would have to read a request to tell"},
        {BASE "unclassified: {to: nowhere}\n", "unclassified.to: there is no tier \"nowhere\""},
        {BASE "unclassified: {privacy: yes}\n", "unclassified.privacy"},
        {BASE
         "classifier: {model: local/x, prompt: p, labels: [{text: a, difficulty: 0}, {text: b, difficulty: "
         "1}]}\n",
         "classifier.model: there is no model \"x\" under local"},
        {BASE "classifier: {model: local/demo, prompt: p, labels: [{text: a, difficulty: 0}]}\n",
         "classifier.labels: there must be 2 to 32 labels"},
        {BASE "classifier: {model: local/demo, prompt: p, labels: [{text: a}, {text: b}]}\n",
         "classifier.labels[0]: a label says something of difficulty, intent or both"},
        {BASE
         "classifier: {model: local/demo, prompt: p, labels: [{text: a, intent: b}, {text: a, intent: c}]}\n",
         "classifier.labels[1]: the label \"a\" is there twice"},
        {BASE "rules: [{name: code, when: {intents: [code]}, to: frontier}]\n",
         "rules[0].when.intents[0]: no label of the classifier has the intent \"code\""},
        {BASE "cache: {ttl: 5s}\n", "cache.kind must be given"},
        {BASE "cache: {kind: memory, path: a}\n", "cache.path: only a cache of kind sqlite has path"},
        {BASE "cache: {kind: sqlite}\n", "cache.path must be given"},
        {BASE "cache: {kind: redis, address: a, max_bytes: 5}\n",
         "cache.max_bytes: Redis has a limit of its own"},
        {BASE "cache: {kind: redis, address: a, password_env: B}\n", "the environment has no variable B"},
        {BASE "cache: {kind: memory, max_bytes: 5, max_entry_bytes: 6}\n",
         "cache.max_entry_bytes: one entry cannot have more than max_bytes, 5"},
        {BASE "cache: {kind: memory, ttl: 0}\n", "cache.ttl: it must be a time of up to a year"},
        {BASE "ledger: {durable: yes}\n", "ledger.path must be given"},
        {BASE "budgets: [{tenant: a}]\n", "budgets[0]: per_day, per_month or both must be more than 0"},
        {BASE "budgets: [{tenant: a, per_day: 1}, {tenant: a, per_month: 1}]\n",
         "budgets[1]: the tenant a has two budgets"},
        {BASE "budgets: [{per_day: 1}, {per_day: 1}]\n", "budgets[1]: everybody else has two budgets"},
        {BASE "budgets: [{per_day: much}]\n", "\"much\" is not an amount in dollars"},
        {BASE "retries: {max: 6}\n", "retries.max: \"6\" must be a whole number from 1 to 5"},
        {BASE "retries: {backoff: 2m}\n", "retries.backoff: it must be a time from 0ms to 60s"},
        {BASE "gate: {stage: observe, artefact: a, baseline: top}\n",
         "gate.baseline: there is no tier \"top\""},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        struct route_config *config;
        err_t e = parse(CASES[i].text, &config);
        if (e.code != ERR_INVALID_ARGUMENT || strstr(e.message, CASES[i].message) == NULL)
            fail_msg("case %zu: \"%s\" does not say \"%s\"", i, e.code == ERR_OK ? "OK" : e.message,
                     CASES[i].message);
        assert_null(config);
    }
}

static void id_of(const char *text, char out[17])
{
    struct route_config *config;
    err_t e = parse(text, &config);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    memcpy(out, config->policy_id, 17);
    route_config_free(config);
}

static void the_fingerprint_is_of_what_decides(void **state)
{
    (void)state;
    char id[17], other[17];
    id_of(WHOLE, id);
    assert_int_equal(strlen(id), 16);
    static const char *const SAME[] = {
        BASE CLASSIFIER
        "# a remark\nrules:\n  - to: frontier\n    when: {intents: ['code']}\n    name: code\n"
        "    local_only:\n"
        "cascade: {to: frontier, tier: small, tokens: 6, within: 150ms, escalate_over: 0.35}\n"
        "hedge: {tier: middle, after: 800ms, to: frontier, max_share: 0.1, max_cost: 0.25, per_day: 2}\n"};
    for (size_t i = 0; i < sizeof SAME / sizeof *SAME; i++) {
        id_of(SAME[i], other);
        assert_string_equal(id, other);
    }
    static const char *const OTHERS[] = {BASE,
                                         BASE CLASSIFIER,
                                         BASE "default: middle\n",
                                         BASE "when_broke: refuse\n",
                                         BASE "cascade: {tier: small, to: frontier, escalate_over: 0.5}\n",
                                         BASE "cascade: {tier: small, to: frontier, escalate_over: 0.6}\n",
                                         BASE "hedge: {tier: small, to: frontier}\n"};
    enum { N = sizeof OTHERS / sizeof *OTHERS };
    char ids[N][17];
    for (size_t i = 0; i < N; i++) {
        id_of(OTHERS[i], ids[i]);
        assert_string_not_equal(ids[i], id);
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(ids[i], ids[j]);
    }
}

/* What a cascade's estimate rests on decides as well as its threshold. */
static void a_calibration_is_read_and_part_of_the_fingerprint(void **state)
{
    (void)state;
    char path[] = "calibrationXXXXXX", text[2048], first[17], second[17];
    static const char MAP[] = "{\"bantam_calibration\": 1, \"tokens\": 8, \"points\": [[0.5, 0.5]]}";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, MAP, sizeof MAP - 1) == sizeof MAP - 1);
    (void)snprintf(text, sizeof text,
                   BASE "cascade: {tier: small, to: frontier, escalate_over: 0.5, calibration: %s}\n", path);
    struct route_config *config;
    assert_int_equal(parse(text, &config).code, ERR_OK);
    assert_int_equal(config->cascade.calibration_bytes, sizeof MAP - 1);
    assert_string_equal(config->cascade.calibration_text, MAP);
    memcpy(first, config->policy_id, sizeof first);
    route_config_free(config);
    assert_true(write(fd, "\n", 1) == 1);
    id_of(text, second);
    assert_string_not_equal(first, second);
    char others[2048];
    (void)snprintf(
        others, sizeof others,
        BASE "cascade: {tier: small, to: frontier, tokens: 4, escalate_over: 0.5, calibration: %s}\n", path);
    err_t e = parse(others, &config);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.message, "cascade.calibration"));
    assert_non_null(strstr(e.message, "is of the first 8 tokens, and the cascade's tokens are 4"));
    assert_true(write(fd, "x", 1) == 1);
    e = parse(text, &config);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.message, "cascade.calibration"));
    close(fd);
    unlink(path);
    e = parse(text, &config);
    assert_int_equal(e.code, ERR_NOT_FOUND);
    assert_non_null(strstr(e.message, "the calibration of the cascade"));
}

static void what_was_understood_has_no_secret_in_it(void **state)
{
    (void)state;
    struct route_config *config;
    assert_int_equal(parse(WHOLE, &config).code, ERR_OK);
    struct buffer text = {.limit_bytes = 1 << 16};
    assert_true(route_config_describe(config, &text));
    static const char *const LINES[] = {
        "tier      frontier: openai/gpt-5, then claude/opus\n",
        "local     local/demo: 127.0.0.1:50051 127.0.0.1:50061\n",
        "provider  openai at https://api.openai.com/v1, with a key\n",
        "          opus: $5.00 in, $25.00 out a million tokens\n",
        "cascade   from small to frontier over 0.35, on 6 tokens within 150 ms, not calibrated\n",
        "hedge     from middle to frontier after 800 ms, at most 0.1 of requests\n"
        "          each of at most $0.25\n          all of a day of at most $2.00\n",
        "cache     sqlite at answers.db\n",
        "ledger    ledger.db, 2 budgets\n",
        "log       decisions.jsonl, with content\n",
    };
    for (size_t i = 0; i < sizeof LINES / sizeof *LINES; i++) {
        if (strstr(text.data, LINES[i]) == NULL)
            fail_msg("\"%s\" is not in:\n%s", LINES[i], text.data);
    }
    assert_null(strstr(text.data, "sk-secret"));
    buffer_free(&text);
    route_config_free(config);
}

static void prices_are_told_exactly(void **state)
{
    (void)state;
    struct route_config *config;
    assert_int_equal(parse(WHOLE, &config).code, ERR_OK);
    struct buffer text = {.limit_bytes = 1 << 16}, small = {.limit_bytes = 100};
    assert_true(route_config_prices(config, &text));
    assert_string_equal(text.data,
                        "{\"models\":[{\"model\":\"openai/gpt-5\",\"input_usd\":1.250000000,"
                        "\"output_usd\":10.000000000,\"request_usd\":0.000000000,\"as_of\":\"2026-11-01\"},"
                        "{\"model\":\"claude/opus\",\"input_usd\":5.000000000,\"output_usd\":25.000000000,"
                        "\"request_usd\":0.000000000}]}");
    assert_false(route_config_prices(config, &small));
    buffer_free(&text);
    buffer_free(&small);
    route_config_free(config);
}

/* Each allocation fails once: an error, and nothing is lost. */
static void memory_may_be_short(void **state)
{
    (void)state;
    bool is_over = false;
    for (int nth = 0; !is_over; nth++) {
        struct route_config *config;
        mem_fail_nth(nth);
        err_t e = parse(WHOLE, &config);
        mem_fail_nth(-1);
        is_over = e.code == ERR_OK;
        if (!is_over)
            assert_int_equal(e.code, ERR_RESOURCE_EXHAUSTED);
        route_config_free(config);
        assert_true(nth < 1000);
    }
}

static void a_file_is_read(void **state)
{
    (void)state;
    char path[] = "routeXXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, WHOLE, strlen(WHOLE)) == (ssize_t)strlen(WHOLE));
    struct route_config *config;
    assert_int_equal(route_config_read(path, environment, &config).code, ERR_OK);
    route_config_free(config);
    close(fd);
    unlink(path);
    assert_int_equal(route_config_read(path, environment, &config).code, ERR_NOT_FOUND);
}

static void put(const char *path, const char *text)
{
    char aside[64];
    (void)snprintf(aside, sizeof aside, "%s.new", path);
    FILE *file = fopen(aside, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0 && fclose(file) == 0 && rename(aside, path) == 0);
}

/* A wrong file is looked at once, and not again until it changes. */
static void a_file_that_changes_is_read_again(void **state)
{
    (void)state;
    char path[] = "routeXXXXXX";
    close(mkstemp(path));
    put(path, WHOLE);
    struct route_file file;
    struct route_config *config;
    assert_int_equal(route_file_open(path, environment, &file, &config).code, ERR_OK);
    route_config_free(config);
    assert_null(route_file_refresh(&file, false));
    put(path, BASE);
    config = route_file_refresh(&file, false);
    assert_true(config && config->n_budgets == 0);
    route_config_free(config);
    assert_null(route_file_refresh(&file, false));
    put(path, "tiers: wrong\n");
    assert_null(route_file_refresh(&file, false));
    assert_null(route_file_refresh(&file, true));
    unlink(path);
    assert_null(route_file_refresh(&file, false));
    put(path, BASE);
    config = route_file_refresh(&file, false);
    assert_non_null(config);
    route_config_free(config);
    config = route_file_refresh(&file, true);
    assert_non_null(config);
    route_config_free(config);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_read),
        cmocka_unit_test(what_is_not_there_has_defaults),
        cmocka_unit_test(a_provider_may_classify),
        cmocka_unit_test(what_is_wrong_is_told_with_its_place),
        cmocka_unit_test(the_fingerprint_is_of_what_decides),
        cmocka_unit_test(a_calibration_is_read_and_part_of_the_fingerprint),
        cmocka_unit_test(what_was_understood_has_no_secret_in_it),
        cmocka_unit_test(prices_are_told_exactly),
        cmocka_unit_test(memory_may_be_short),
        cmocka_unit_test(a_file_is_read),
        cmocka_unit_test(a_file_that_changes_is_read_again),
    };
    log_init(LOG_ERROR, LOG_FORMAT_TEXT); /* old prices are no news here */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
