#include <stdio.h>
#include <string.h>
#include "base/flags.h"
#include "tests/base/cmocka_base.h"

struct options {
    bool eager, prefix_caching;
    int64_t max_model_len, seed;
    double utilization;
    const char *host, *quantization;
    struct flag_list tags;
    bool host_set, len_set, tags_set;
};

static struct options options;

static const struct flag rows[] = {
    {.name = NULL, .help = "Model"},
    {"max-model-len", FLAG_INT, &options.max_model_len, "4k", 1, 1 << 20, NULL, NULL,
     "longest sequence in tokens, prompt and answer together, which also bounds the memory that one request "
     "can ever "
     "hold",
     &options.len_set},
    {"quantization", FLAG_CHOICE, &options.quantization, "none", 0, 0, "none|int8|int4", NULL,
     "weights on load", NULL},
    {"enforce-eager", FLAG_BOOL, &options.eager, "false", 0, 0, NULL, NULL, "no graphs", NULL},
    {"prefix-caching", FLAG_BOOL, &options.prefix_caching, "true", 0, 0, NULL, NULL, "share prefixes", NULL},
    {.name = NULL, .help = "Server"},
    {"host", FLAG_STRING, &options.host, "127.0.0.1", 0, 0, NULL, "ADDRESS", "address to listen on",
     &options.host_set},
    {"seed", FLAG_INT, &options.seed, "0", 0, 0, NULL, NULL, "seed", NULL},
    {"memory-utilization", FLAG_DOUBLE, &options.utilization, "0.9", 0.1, 1, NULL, NULL, "share of memory",
     NULL},
    {"tag", FLAG_LIST, &options.tags, NULL, 0, 0, NULL, "NAME=VALUE", "label", &options.tags_set},
};

static const struct flag_command command = {
    .name = "bantam test",
    .summary = "Checks that flags come out as they went in.",
    .positionals = "MODEL",
    .min_positionals = 1,
    .max_positionals = 2,
    .flags = rows,
    .n_flags = sizeof rows / sizeof rows[0],
    .examples = "  bantam test demo --seed 1\n",
};

enum { MAX_ARGUMENTS = 80 };

static struct flag_result result;

static err_t parse(const char *first, ...)
{
    char *arguments[MAX_ARGUMENTS];
    int count = 0;
    va_list list;
    va_start(list, first);
    for (const char *a = first; a != NULL && count < MAX_ARGUMENTS; a = va_arg(list, const char *))
        arguments[count++] = (char *)(uintptr_t)a;
    va_end(list);
    return flags_parse(&command, count, arguments, &result);
}

#define assert_refused(text, ...)                                                                            \
    do {                                                                                                     \
        err_t refused_ = parse(__VA_ARGS__, NULL);                                                           \
        assert_int_equal(refused_.code, ERR_INVALID_ARGUMENT);                                               \
        if (strstr(refused_.message, (text)) == NULL)                                                        \
            fail_msg("\"%s\" does not say \"%s\"", refused_.message, (text));                                \
    } while (0)

static void test_defaults(void **state)
{
    (void)state;
    options = (struct options){.eager = true, .host_set = true, .tags.count = 3};
    assert_error(ERR_OK, parse("demo", NULL));
    assert_int_equal(options.max_model_len, 4096);
    assert_string_equal(options.quantization, "none");
    assert_false(options.eager);
    assert_true(options.prefix_caching);
    assert_string_equal(options.host, "127.0.0.1");
    assert_true(options.utilization == 0.9);
    assert_int_equal(options.tags.count, 0);
    assert_false(options.host_set);
    assert_int_equal(result.n_positionals, 1);
    assert_string_equal(result.positional[0], "demo");
    assert_false(result.help);
}

static void test_every_form(void **state)
{
    (void)state;
    assert_error(ERR_OK, parse("--max-model-len", "8192", "demo", "--enforce-eager", "--no-prefix-caching",
                               "--host=::1", "--quantization", "int4", "--memory-utilization=0.5", "--seed",
                               "-7", "--tag", "a=1", "--tag=b=2", "--", "--second", NULL));
    assert_int_equal(options.max_model_len, 8192);
    assert_true(options.eager);
    assert_false(options.prefix_caching);
    assert_string_equal(options.host, "::1");
    assert_true(options.host_set && options.len_set && options.tags_set);
    assert_string_equal(options.quantization, "int4");
    assert_true(options.utilization == 0.5);
    assert_int_equal(options.seed, -7);
    assert_int_equal(options.tags.count, 2);
    assert_string_equal(options.tags.item[0], "a=1");
    assert_string_equal(options.tags.item[1], "b=2");
    assert_int_equal(result.n_positionals, 2);
    assert_string_equal(result.positional[1], "--second");
    assert_error(ERR_OK,
                 parse("-", "--max_model_len=2K", "--no_prefix-caching", "--enforce_eager=off", NULL));
    assert_int_equal(options.max_model_len, 2048);
    assert_false(options.prefix_caching);
    assert_false(options.eager);
    assert_error(ERR_OK, parse("m", "--host=", "--enforce-eager=YES", NULL));
    assert_string_equal(options.host, "");
    assert_true(options.eager);
}

static void test_integers(void **state)
{
    (void)state;
    assert_error(ERR_OK, parse("m", "--seed", "9223372036854775807", NULL));
    assert_true(options.seed == INT64_MAX);
    assert_error(ERR_OK, parse("m", "--seed", "-3g", NULL));
    assert_true(options.seed == -3 * ((int64_t)1 << 30));
    assert_error(ERR_OK, parse("m", "--max-model-len=1m", NULL));
    assert_int_equal(options.max_model_len, 1 << 20);
    assert_refused("does not fit in 64 bits", "m", "--seed", "9223372036854775808");
    assert_refused("does not fit in 64 bits", "m", "--seed", "9223372036854775807k");
    assert_refused("--max-model-len 0 is below the least value, 1", "m", "--max-model-len", "0");
    assert_refused("--max-model-len 1048577 is above the largest value, 1048576", "m",
                   "--max-model-len=1048577");
    static const char *const bad[] = {"", "k", "1kk", "1.5", "0x10", " 1", "1 ", "ten", "1t"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_refused("is not a whole number", "m", "--seed", bad[i]);
}

static void test_doubles_bools_choices(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "nan", "inf", "1e999", "0.5x", " 0.5"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_refused("is not a finite number", "m", "--memory-utilization", bad[i]);
    assert_refused("below the least value, 0.1", "m", "--memory-utilization", "0.01");
    assert_refused("neither true nor false", "m", "--enforce-eager=maybe");
    assert_refused("\"int\" is not one of none|int8|int4", "m", "--quantization", "int");
    assert_refused("is not one of", "m", "--quantization", "");
    assert_refused("is not one of", "m", "--quantization", "none|int8");
}

static void test_unknown_flags_name_the_nearest(void **state)
{
    (void)state;
    assert_refused("unknown flag --max-modle-len: did you mean --max-model-len?", "m", "--max-modle-len=5");
    assert_refused("did you mean --quantization?", "m", "--quantisation", "int8");
    assert_refused("did you mean --memory-utilization?", "m", "--memory", "1");
    assert_refused("did you mean --host?", "m", "-host");
    assert_refused("\"bantam test --help\" lists them", "m", "--zzzzzzzzzzzzzz");
    assert_refused("unknown flag --no-host", "m", "--no-host");
    assert_refused("unknown flag -x", "m", "-x");
    assert_refused("unknown flag", "m", "--=5");
    char huge[3000];
    memset(huge, '-', 2);
    memset(huge + 2, 'x', sizeof huge - 3);
    huge[sizeof huge - 1] = '\0';
    assert_refused("unknown flag", "m", huge);
}

static void test_missing_and_extra(void **state)
{
    (void)state;
    assert_refused("--host needs a value", "m", "--host");
    assert_refused("--host needs a value", "m", "--host", "--seed", "1");
    assert_refused("MODEL is missing", "--seed", "1");
    assert_refused("unexpected argument \"c\"", "a", "b", "c");
    assert_error(ERR_OK, parse("m", "--host", "--anything-else", NULL));
    assert_string_equal(options.host, "--anything-else");
}

static void test_lists_have_a_limit(void **state)
{
    (void)state;
    char *arguments[FLAG_LIST_MAX + 2];
    for (int i = 0; i < FLAG_LIST_MAX + 2; i++)
        arguments[i] = "--tag=x";
    arguments[0] = "model";
    assert_error(ERR_OK, flags_parse(&command, FLAG_LIST_MAX + 1, arguments, &result));
    assert_int_equal(options.tags.count, FLAG_LIST_MAX);
    assert_error(ERR_INVALID_ARGUMENT, flags_parse(&command, FLAG_LIST_MAX + 2, arguments, &result));
}

static void test_environment(void **state)
{
    (void)state;
    setenv("BANTAM_MAX_MODEL_LEN", "512", 1);
    setenv("BANTAM_PREFIX_CACHING", "0", 1);
    setenv("BANTAM_TAG", "env", 1);
    setenv("BANTAM_HOST", "", 1);
    assert_error(ERR_OK, parse("m", NULL));
    assert_int_equal(options.max_model_len, 512);
    assert_true(options.len_set);
    assert_false(options.prefix_caching);
    assert_int_equal(options.tags.count, 1);
    assert_string_equal(options.host, "127.0.0.1");
    assert_false(options.host_set);
    assert_error(ERR_OK, parse("m", "--max-model-len", "64", "--tag", "given", NULL));
    assert_int_equal(options.max_model_len, 64);
    assert_int_equal(options.tags.count, 1);
    assert_string_equal(options.tags.item[0], "given");
    setenv("BANTAM_MAX_MODEL_LEN", "lots", 1);
    assert_refused("BANTAM_MAX_MODEL_LEN: \"lots\" is not a whole number", "m");
    unsetenv("BANTAM_MAX_MODEL_LEN");
    unsetenv("BANTAM_PREFIX_CACHING");
    unsetenv("BANTAM_TAG");
    unsetenv("BANTAM_HOST");
}

/* stdout of `--help`. */
static char *capture_help(void)
{
    FILE *file = tmpfile();
    assert_non_null(file);
    fflush(stdout);
    int saved = dup(STDOUT_FILENO);
    dup2(fileno(file), STDOUT_FILENO);
    err_t e = parse("--seed", "bad", "--help", NULL);
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    assert_error(ERR_OK, e);
    assert_true(result.help);
    long size = ftell(file);
    fseek(file, 0, SEEK_END);
    size = ftell(file);
    char *text = calloc(1, (size_t)size + 1);
    rewind(file);
    assert_int_equal(fread(text, 1, (size_t)size, file), size);
    fclose(file);
    return text;
}

static void test_help(void **state)
{
    (void)state;
    char *text = capture_help();
    static const char *const expected[] = {
        "Usage: bantam test [flags] MODEL\n",
        "Checks that flags",
        "\nModel:\n",
        "\nServer:\n",
        "--max-model-len N",
        "default: 4k;",
        "BANTAM_MAX_MODEL_LEN]",
        "--[no-]prefix-caching",
        "--quantization none|int8|int4",
        "--host ADDRESS",
        "--tag NAME=VALUE",
        "[may be repeated; BANTAM_TAG]",
        "Examples:\n  bantam test demo",
        "--help",
    };
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        if (strstr(text, expected[i]) == NULL)
            fail_msg("--help lacks \"%s\":\n%s", expected[i], text);
    }
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n") + 1) {
        size_t columns = strcspn(line, "\n");
        if (columns > 100 || (columns > 0 && line[columns - 1] == ' '))
            fail_msg("too long or ends in a blank: \"%.*s\"", (int)columns, line);
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_every_form),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_doubles_bools_choices),
        cmocka_unit_test(test_unknown_flags_name_the_nearest),
        cmocka_unit_test(test_missing_and_extra),
        cmocka_unit_test(test_lists_have_a_limit),
        cmocka_unit_test(test_environment),
        cmocka_unit_test(test_help),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
