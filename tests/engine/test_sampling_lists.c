/* The engine's own copies of a request's lists. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "engine/sampling_lists.h"

static struct tokenizer *tokenizer;

static int load_tokenizer(void **state)
{
    (void)state;
    err_t e = tokenizer_load(SOURCE_DIR "/demo/model", &tokenizer);
    if (e.code != ERR_OK)
        print_error("%s\n", e.message);
    return e.code == ERR_OK ? 0 : -1;
}

static int free_tokenizer(void **state)
{
    (void)state;
    tokenizer_destroy(tokenizer);
    return 0;
}

static void test_nothing(void **state)
{
    (void)state;
    struct sampling_params params = {0};
    struct sampler_params sampler = {0};
    void *lists = NULL;
    assert_int_equal(sampling_lists_own(&params, NULL, NULL, 0, &sampler, &lists).code, ERR_OK);
    assert_int_equal(sampler.n_stop_ids, 0);
    assert_int_equal(sampler.n_bias, 0);
    assert_int_equal(sampler.n_allowed_ids, 0);
    assert_int_equal(sampler.n_bad_words, 0);
    mem_free(lists);
}

/* The caller's memory may go as soon as submit returned. */
static void test_copies(void **state)
{
    (void)state;
    char stop_a[] = "first", stop_b[] = "second one";
    const char *stops[] = {stop_a, stop_b};
    uint32_t stop_ids[] = {9, 8}, allowed[] = {70, 3, 70, 5, 3, 3, 0}, eos[] = {1, 2};
    struct logit_bias bias[] = {{11, 1.5f}, {12, -100}};
    struct sampling_params params = {
        .stop = stops,
        .n_stop = 2,
        .stop_token_ids = stop_ids,
        .n_stop_token_ids = 2,
        .allowed_token_ids = allowed,
        .n_allowed_token_ids = 7,
        .logit_bias = bias,
        .n_logit_bias = 2,
    };
    struct sampler_params sampler = {0};
    void *lists = NULL;
    assert_int_equal(sampling_lists_own(&params, NULL, eos, 2, &sampler, &lists).code, ERR_OK);
    memset(stop_a, 'x', sizeof stop_a - 1);
    memset(stop_b, 'x', sizeof stop_b - 1);
    memset(stops, 0, sizeof stops);
    memset(stop_ids, 0xff, sizeof stop_ids);
    memset(allowed, 0xff, sizeof allowed);
    memset(bias, 0xff, sizeof bias);
    memset(eos, 0xff, sizeof eos);
    assert_int_equal(params.n_stop, 2);
    assert_string_equal(params.stop[0], "first");
    assert_string_equal(params.stop[1], "second one");
    const uint32_t right_stops[] = {1, 2, 9, 8}, right_allowed[] = {0, 3, 5, 70};
    assert_int_equal(sampler.n_stop_ids, 4);
    assert_memory_equal(sampler.stop_ids, right_stops, sizeof right_stops);
    assert_int_equal(sampler.n_allowed_ids, 4); /* ascending and unique */
    assert_memory_equal(sampler.allowed_ids, right_allowed, sizeof right_allowed);
    assert_int_equal(sampler.n_bias, 2);
    assert_int_equal(sampler.bias[0].token_id, 11);
    assert_true(sampler.bias[0].bias == 1.5f && sampler.bias[1].bias == -100);
    mem_free(lists);
}

static void test_ignore_eos(void **state)
{
    (void)state;
    uint32_t stop_ids[] = {9}, eos[] = {1, 2};
    struct sampling_params params = {.stop_token_ids = stop_ids, .n_stop_token_ids = 1, .ignore_eos = true};
    struct sampler_params sampler = {0};
    void *lists = NULL;
    assert_int_equal(sampling_lists_own(&params, NULL, eos, 2, &sampler, &lists).code, ERR_OK);
    assert_int_equal(sampler.n_stop_ids, 1);
    assert_int_equal(sampler.stop_ids[0], 9);
    mem_free(lists);
}

/* Each word as written and after a space. */
static void test_bad_words(void **state)
{
    (void)state;
    const char *words[] = {"train", "the quick brown fox", " spaced"};
    struct sampling_params params = {.bad_words = words, .n_bad_words = 3};
    struct sampler_params sampler = {0};
    void *lists = NULL;
    assert_int_equal(sampling_lists_own(&params, tokenizer, NULL, 0, &sampler, &lists).code, ERR_OK);
    assert_int_equal(params.n_bad_words, 0);
    assert_int_equal(sampler.n_bad_words, 6);
    for (size_t i = 0; i < 6; i++) {
        char wanted[64];
        (void)snprintf(wanted, sizeof wanted, "%s%s", i % 2 ? " " : "", words[i / 2]);
        struct buffer text = {.limit_bytes = 1000};
        const struct sampler_word *word = &sampler.bad_words[i];
        assert_true(word->n_token_ids > 0);
        err_t e = tokenizer_decode(tokenizer, word->token_ids, word->n_token_ids, false, &text);
        assert_int_equal(e.code, ERR_OK);
        assert_string_equal(text.data, wanted);
        buffer_free(&text);
    }
    mem_free(lists);
}

/* As many words as may be, as long as fits in their tokens; and one that has too many tokens. */
static void test_bad_words_limits(void **state)
{
    (void)state;
    char word[SAMPLING_STOP_BYTES_MAX + 1];
    const char *words[SAMPLING_BAD_WORDS_MAX];
    for (size_t i = 0; i < SAMPLING_BAD_WORDS_MAX; i++)
        words[i] = word;
    for (size_t i = 0; i < SAMPLING_STOP_BYTES_MAX; i++)
        word[i] = "the "[i % 4];
    word[SAMPLING_STOP_BYTES_MAX] = '\0';
    word[3 * SAMPLING_STOP_BYTES_MAX / 4] = '\0';
    struct sampling_params params = {.bad_words = words, .n_bad_words = SAMPLING_BAD_WORDS_MAX};
    struct sampler_params sampler = {0};
    void *lists = NULL;
    err_t e = sampling_lists_own(&params, tokenizer, NULL, 0, &sampler, &lists);
    assert_int_equal(e.code, ERR_OK);
    assert_int_equal(sampler.n_bad_words, 2 * SAMPLING_BAD_WORDS_MAX);
    mem_free(lists);
    lists = NULL;
    for (size_t i = 0; i < SAMPLING_STOP_BYTES_MAX; i++)
        word[i] = (char)(1 + i % 8); /* no merges: a token a byte */
    params = (struct sampling_params){.bad_words = words, .n_bad_words = 2};
    e = sampling_lists_own(&params, tokenizer, NULL, 0, &sampler, &lists);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.message, "bad_words[0]"));
    assert_null(lists);
}

/* What leaves nothing to generate, and what leaves something. */
static void test_check(void **state)
{
    (void)state;
    const uint32_t allowed[] = {3, 5, 9}, ends[] = {5, 9}, pair[] = {3, 3};
    const struct sampler_word words[] = {{allowed, 1}, {pair, 2}};
    struct sampler_params sampler = {.allowed_ids = allowed, .n_allowed_ids = 3, .bad_words = words};
    assert_int_equal(sampling_lists_check(&sampler, 100, 0).code, ERR_OK);
    sampler.n_bad_words = 2;
    assert_int_equal(sampling_lists_check(&sampler, 100, 0).code, ERR_OK);
    sampler.stop_ids = ends;
    sampler.n_stop_ids = 2;
    assert_int_equal(sampling_lists_check(&sampler, 100, 0).code, ERR_OK);
    sampler.min_tokens = 4;
    err_t e = sampling_lists_check(&sampler, 100, 3);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.message, "3 allowed_token_ids"));
    assert_non_null(strstr(e.message, "min_tokens"));
    assert_int_equal(sampling_lists_check(&sampler, 100, 4).code, ERR_OK); /* a handed-over answer */
    sampler.n_allowed_ids = 1;
    e = sampling_lists_check(&sampler, 100, 4);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_null(strstr(e.message, "min_tokens"));
    sampler.n_allowed_ids = 0;
    assert_int_equal(sampling_lists_check(&sampler, 100, 0).code, ERR_OK);
    const uint32_t all[] = {0, 1};
    const struct sampler_word both[] = {{all, 1}, {all + 1, 1}};
    sampler = (struct sampler_params){.bad_words = both, .n_bad_words = 2};
    assert_int_equal(sampling_lists_check(&sampler, 2, 0).code, ERR_INVALID_ARGUMENT);
    assert_int_equal(sampling_lists_check(&sampler, 3, 0).code, ERR_OK);
}

static void test_without_memory(void **state)
{
    (void)state;
    const char *words[] = {"train", "ticket"}, *stops[] = {"\n\n"};
    uint32_t allowed[] = {70, 3, 70};
    int64_t n_failures = 0;
    for (;; n_failures++) {
        struct sampling_params params = {.bad_words = words,
                                         .n_bad_words = 2,
                                         .stop = stops,
                                         .n_stop = 1,
                                         .allowed_token_ids = allowed,
                                         .n_allowed_token_ids = 3};
        struct sampler_params sampler = {0};
        void *lists = NULL;
        mem_fail_nth(n_failures);
        err_t e = sampling_lists_own(&params, tokenizer, NULL, 0, &sampler, &lists);
        mem_fail_nth(-1);
        mem_free(lists);
        if (e.code == ERR_OK)
            break;
        assert_int_equal(e.code, ERR_RESOURCE_EXHAUSTED);
    }
    assert_true(n_failures > 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing),          cmocka_unit_test(test_copies),
        cmocka_unit_test(test_ignore_eos),       cmocka_unit_test(test_bad_words),
        cmocka_unit_test(test_bad_words_limits), cmocka_unit_test(test_check),
        cmocka_unit_test(test_without_memory),
    };
    return cmocka_run_group_tests(tests, load_tokenizer, free_tokenizer);
}
