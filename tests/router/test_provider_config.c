/* YAML files with providers, right and wrong: each message says where. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "router/config/provider_config.h"

static char *no_variable_but_key(const char *name)
{
    static char key[] = "sk-secret";
    return strcmp(name, "KEY") == 0 ? key : NULL;
}

struct config {
    struct yaml_file *file;
    struct provider_list list;
};

static err_t read_config(const char *text, struct config *out)
{
    *out = (struct config){NULL, {NULL, 0}};
    TRY(yaml_file_parse("route.yaml", text, strlen(text), &out->file));
    struct yaml_value root = yaml_root(out->file), providers = yaml_at(&root, "providers");
    return provider_config_read(&providers, no_variable_but_key, &out->list);
}

static void forget(struct config *config)
{
    provider_config_free(&config->list);
    yaml_file_close(config->file);
}

static void assert_wrong(const char *text, const char *message)
{
    struct config config;
    err_t e = read_config(text, &config);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    if (strstr(e.message, message) == NULL)
        fail_msg("\"%s\" does not say \"%s\"", e.message, message);
    assert_null(strstr(e.message, "sk-secret"));
    forget(&config);
}

#define PROVIDER "providers:\n  - name: a\n    kind: openai\n    url: https://a.example/v1\n"
#define PRICE    "price: {input: 1.25, output: 10}"
#define MODEL    "    models:\n      - name: m\n        " PRICE "\n"

static void everything_is_read(void **state)
{
    (void)state;
    struct config config;
    err_t e = read_config(
        "providers:\n"
        "  - name: openai\n"
        "    kind: openai\n"
        "    url: https://api.openai.com/v1\n"
        "    key_env: KEY\n"
        "    headers: [\"X-Title: my service\"]\n"
        "    timeouts: {connect: 500ms, first_byte: 20s, total: 5m}\n"
        "    models:\n"
        "      - name: gpt/5\n"
        "        price: {input: 1.25, cached_input: 0.125, output: 10, as_of: 2026-11-01}\n"
        "        context: 400000\n"
        "        max_output: 128000\n"
        "        refuses: [temperature, top_p]\n"
        "        max_completion_tokens: yes\n"
        "  - name: claude\n"
        "    kind: anthropic\n"
        "    url: https://api.anthropic.com/v1\n"
        "    models:\n"
        "      - {name: opus, max_output: 32000, takes: [tools], price: {input: 5, cache_write: 6.25,"
        " output: 25}}\n"
        "  - {name: own, kind: compatible, url: \"http://127.0.0.1:8000/v1\", models: [{name: x}]}\n",
        &config);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    assert_int_equal(config.list.n, 3);
    const struct provider *provider = NULL;
    const struct provider_model *model = provider_config_find(&config.list, "openai/gpt/5", &provider);
    assert_non_null(model);
    assert_string_equal(provider->url, "https://api.openai.com/v1");
    assert_string_equal(provider->key, "sk-secret");
    assert_int_equal(provider->n_headers, 1);
    assert_string_equal(provider->headers[0], "X-Title: my service");
    assert_int_equal(provider->connect_timeout_ms, 500);
    assert_int_equal(provider->first_byte_timeout_ms, 20000);
    assert_int_equal(provider->chunk_timeout_ms, 30000);
    assert_int_equal(provider->total_timeout_ms, 300000);
    assert_int_equal(model->price.input, 1250000000);
    assert_int_equal(model->price.cached_input, 125000000);
    assert_int_equal(model->price.cache_write, -1);
    assert_int_equal(model->context_tokens, 400000);
    assert_int_equal(model->refuses, parameter_bit(PARAMETER_temperature) | parameter_bit(PARAMETER_top_p));
    assert_true(model->max_completion_tokens && model->takes_images && model->takes_tools &&
                model->takes_schemas);
    assert_false(model->takes_audio);
    const int64_t first_of_november = 1793491200;
    assert_int_equal(model->priced_s, first_of_november);
    assert_false(provider_price_is_stale(model, first_of_november + 90 * 86400));
    assert_true(provider_price_is_stale(model, first_of_november + 90 * 86400 + 1));

    model = provider_config_find(&config.list, "claude/opus", &provider);
    assert_true(model && model->takes_tools && !model->takes_images && model->kind == PROVIDER_ANTHROPIC);
    assert_int_equal(model->max_output_tokens, 32000);
    assert_true(provider_price_is_stale(model, first_of_november));
    assert_null(provider->key);
    model = provider_config_find(&config.list, "own/x", &provider);
    assert_true(model && model->price.input == 0 && !provider_price_is_stale(model, first_of_november));
    assert_null(provider_config_find(&config.list, "own/y", &provider));
    assert_null(provider_config_find(&config.list, "ow/x", &provider));
    assert_null(provider_config_find(&config.list, "own", &provider));
    forget(&config);
}

static void no_providers_are_none(void **state)
{
    (void)state;
    const char *TEXTS[] = {"", "other: 1\n", "providers:\n", "providers: []\n", "providers: null\n"};
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) {
        struct config config;
        assert_int_equal(read_config(TEXTS[i], &config).code, ERR_OK);
        assert_int_equal(config.list.n, 0);
        forget(&config);
    }
}

static void what_is_no_yaml_is_refused(void **state)
{
    (void)state;
    assert_wrong("a: [1, 2\nb: 3\n", "route.yaml:2:2: this is not YAML");
    assert_wrong("a: &x [1]\nb: *x\n", "route.yaml:2: aliases");
    assert_wrong("a: 1\n---\nb: 2\n", "route.yaml:2: a second document");
    assert_wrong("[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]\n", "more than 16 levels");
    assert_wrong("a: \x01\n", "not YAML");
    static char large[YAML_FILE_BYTES_MAX + 2];
    memset(large, ' ', sizeof large - 1);
    assert_wrong(large, "more than 1048576 bytes");
}

static void each_field_says_what_is_wrong(void **state)
{
    (void)state;
    assert_wrong("providers: 5\n", "route.yaml:1: providers: this is a single value; it must be a list");
    assert_wrong("providers: {a: 1}\n", "this is a map; it must be a list");
    assert_wrong("providers: [5]\n", "providers[0]: this is a single value; it must be a map");
    assert_wrong("providers:\n  -\n", "providers[0]: it must be given");
    assert_wrong("providers:\n  - kind: openai\n", "providers[0].name must be given");
    assert_wrong("providers:\n  - name: a b\n",
                 "route.yaml:2: providers[0].name: a provider's name has letters");
    assert_wrong("providers:\n  - name: local\n", "is not \"local\"");
    assert_wrong("providers:\n  - name: \"\"\n", "this text is empty");
    assert_wrong("providers:\n  - name: a\n    kynd: openai\n",
                 "route.yaml:3: providers[0]: unknown key \"kynd\"; it must be name");
    assert_wrong("providers:\n  - name: a\n    name: b\n",
                 "route.yaml:3: providers[0]: \"name\" is there twice");
    assert_wrong("providers:\n  - name: a\n    [1]: b\n", "a key is a list");
    assert_wrong("providers:\n  - name: a\n    kind: gpt\n",
                 "\"gpt\" must be openai, compatible or anthropic");
    assert_wrong(PROVIDER, "providers[0].models must be given");
    assert_wrong(PROVIDER "    models: []\n", "there must be a model");
    assert_wrong(PROVIDER "    timeouts: {chunk: 5}\n" MODEL,
                 "timeouts.chunk: \"5\" must be a time like 300ms");
    assert_wrong(PROVIDER "    timeouts: {chunk: 99999999999999h}\n" MODEL, "must be a time");
    assert_wrong(PROVIDER "    headers: [nonsense]\n" MODEL, "headers[0]: it must be one line");
    assert_wrong(PROVIDER "    headers: [\"a: b\\r\\nc: d\"]\n" MODEL, "it must be one line");
    assert_wrong(PROVIDER MODEL "  - name: a\n    kind: openai\n    url: https://b\n" MODEL,
                 "the provider \"a\" is there twice");
}

static void addresses_and_keys_are_checked(void **state)
{
    (void)state;
#define AT(url) "providers:\n  - name: a\n    kind: openai\n    url: \"" url "\"\n" MODEL
    assert_wrong(AT("api.openai.com"), "it must be http://HOST");
    assert_wrong(AT("https://"), "it must be http://HOST");
    assert_wrong(AT("https://a/v1/"), "it must be http://HOST");
    assert_wrong(AT("https://user@a"), "it must be http://HOST");
    assert_wrong(AT("http://a.example/v1"), "clear text");
    assert_wrong(AT("http://127.0.0.1/v1\"\n    ca_file: \"/dev/null"), "a ca_file is for https");
    assert_wrong(AT("https://a.example/v1\"\n    ca_file: \"/nowhere.pem"), "/nowhere.pem cannot be read");
    assert_wrong(AT("http://localhost.example"), "clear text");
    struct config config;
    assert_int_equal(read_config(AT("http://localhost:8000/v1"), &config).code, ERR_OK);
    forget(&config);
    assert_int_equal(read_config(AT("http://a.example/v1") "    allow_clear_text: yes\n", &config).code,
                     ERR_OK);
    forget(&config);
    assert_wrong(PROVIDER "    key: sk-secret\n" MODEL, "unknown key \"key\"");
    assert_wrong(PROVIDER "    key_env: OTHER\n" MODEL, "the environment has no variable OTHER");
    assert_wrong(PROVIDER "    key_env: KEY\n    key_file: x\n" MODEL, "which?");
}

static void a_key_comes_out_of_a_file(void **state)
{
    (void)state;
    char path[] = "/tmp/key-XXXXXX", text[512];
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "sk-other\n", 9), 9);
    snprintf(text, sizeof text, PROVIDER "    key_file: %s\n" MODEL, path);
    struct config config;
    assert_int_equal(read_config(text, &config).code, ERR_OK);
    assert_string_equal(config.list.providers[0].key, "sk-other");
    forget(&config);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_wrong(text, "the key must have 1 to 2048 bytes");
    assert_int_equal(pwrite(fd, "a\tb", 3, 0), 3);
    assert_wrong(text, "control characters");
    close(fd);
    unlink(path);
    assert_int_equal(read_config(text, &config).code, ERR_NOT_FOUND);
    forget(&config);
}

static void models_and_prices_are_checked(void **state)
{
    (void)state;
#define WITH(fields) PROVIDER "    models: [{name: m, " fields "}]\n"
    assert_wrong(WITH("context: 5"), "models[0].price must be given");
    assert_wrong(WITH("price: {input: 1}"), "price.output must be given");
    assert_wrong(WITH("price: {input: 1e3, output: 1}"), "\"1e3\" is not an amount in dollars");
    assert_wrong(WITH("price: {input: -1, output: 1}"), "is not an amount");
    assert_wrong(WITH("price: {input: 1, output: 1, as_of: 2026-02-31}"), "\"2026-02-31\" is not a day");
    assert_wrong(WITH("price: {input: 1, output: 1, as_of: today}"), "is not a day");
    assert_wrong(WITH(PRICE ", context: 0"), "\"0\" must be a whole number from 1 to 100000000");
    assert_wrong(WITH(PRICE ", context: 1.5"), "must be a whole number");
    assert_wrong(WITH(PRICE ", takes: [video]"),
                 "takes[0]: \"video\" must be images, audio, files, tools, schemas or unchecked_schemas");
    assert_wrong(WITH(PRICE ", refuses: [heat]"), "refuses[0]: \"heat\" is not a parameter");
    assert_wrong(WITH(PRICE ", refuses: [top_k]"), "refuses[0]: top_k does not cross");
    assert_wrong(WITH(PRICE ", max_completion_tokens: perhaps"), "\"perhaps\" must be true or false");
    assert_wrong(PROVIDER "    models: [{name: m, " PRICE "}, {name: m, " PRICE "}]\n",
                 "the model \"m\" is there twice");
    assert_wrong("providers: [{name: a, kind: anthropic, url: \"https://a\", models: [{name: m, " PRICE
                 "}]}]\n",
                 "max_output must be given");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_read),
        cmocka_unit_test(no_providers_are_none),
        cmocka_unit_test(what_is_no_yaml_is_refused),
        cmocka_unit_test(each_field_says_what_is_wrong),
        cmocka_unit_test(addresses_and_keys_are_checked),
        cmocka_unit_test(a_key_comes_out_of_a_file),
        cmocka_unit_test(models_and_prices_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
