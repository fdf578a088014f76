/* Languages of short requests: languages.tsv was written for this test, and no word was listed because of it,
 * but for Danish and Norwegian. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "router/policy/language_guess.h"
#include "router/policy/policy.h"

enum { LINE_BYTES = 1024 };

static enum language of(const char *text)
{
    return language_guess(text, strlen(text));
}

struct counts {
    uint32_t n, n_right, n_silent, n_wrong; /* silent: unknown, where it has one that is known */
};

static void count(struct counts *counts, const char *expected, enum language language)
{
    bool is_right = strcmp(LANGUAGE_NAMES[language], expected) == 0;
    counts->n++;
    counts->n_right += is_right;
    counts->n_silent += !is_right && language == LANGUAGE_UNKNOWN;
    counts->n_wrong += !is_right && language != LANGUAGE_UNKNOWN;
}

/* The figures of docs/routing.md: who changes the words and makes it worse hears of it here. */
static void short_requests_are_told(void **state)
{
    (void)state;
    char line[LINE_BYTES];
    struct counts known = {0}, others = {0};
    FILE *file = fopen(TEST_DATA_DIR "/router/languages.tsv", "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file)) {
        char *text = strchr(line, '\t');
        assert_non_null(text);
        *text++ = '\0';
        text[strcspn(text, "\n")] = '\0';
        bool is_known = strcmp(line, "unknown") != 0;
        enum language language = of(text);
        count(is_known ? &known : &others, line, language);
        if (strcmp(LANGUAGE_NAMES[language], line) != 0)
            print_message("%s, told as %s: %s\n", line, LANGUAGE_NAMES[language], text);
    }
    assert_int_equal(fclose(file), 0);
    print_message("%u requests: %u right, %u silent, %u wrong; %u others: %u silent\n", known.n,
                  known.n_right, known.n_silent, known.n_wrong, others.n, others.n_right);
    assert_true(known.n == 141 && known.n_right >= 121 && known.n_wrong == 0);
    assert_true(others.n == 21 && others.n_wrong == 0);
}

static void words_are_in_order(void **state)
{
    (void)state;
    static const char *const WORDS[] = {
#define X(word, languages) word,
#include "router/policy/language_words.inc"
#undef X
    };
    for (size_t i = 1; i < sizeof WORDS / sizeof *WORDS; i++) {
        if (strcmp(WORDS[i - 1], WORDS[i]) >= 0)
            fail_msg("\"%s\" stands before \"%s\"", WORDS[i - 1], WORDS[i]);
    }
}

static void case_marks_and_code_do_not_matter(void **state)
{
    (void)state;
    assert_int_equal(of("WARUM IST DER HIMMEL BLAU? ERKLÄRE ES BITTE."), LANGUAGE_DE);
    assert_int_equal(of("Was macht das hier?\n```\nfor this in the list of that: not with it\n```\n"),
                     LANGUAGE_DE);
    assert_int_equal(of("**Warum** ist, der/Himmel-nicht (blau)?"), LANGUAGE_DE);
    assert_int_equal(of("İÇİN BİR ŞİİR YAZ, LÜTFEN"), LANGUAGE_TR);
}

static void what_is_no_text_has_no_language(void **state)
{
    (void)state;
    static const char CUT[] = "the \xc3";
    assert_int_equal(language_guess(NULL, 0), LANGUAGE_UNKNOWN);
    assert_int_equal(language_guess(CUT, sizeof CUT - 1), LANGUAGE_UNKNOWN);
    assert_int_equal(of("\xff\xfe\x80"), LANGUAGE_UNKNOWN);
    assert_int_equal(of("the"), LANGUAGE_UNKNOWN); /* one word may stand anywhere */
}

/* Its first kilobytes speak for a long text, and no byte behind them is looked at. */
static void a_long_text_is_not_read_to_its_end(void **state)
{
    (void)state;
    size_t size = LANGUAGE_TEXT_BYTES_MAX;
    char *text = malloc(size); /* exactly: a byte too far is a fault under ASan */
    assert_non_null(text);
    for (size_t i = 0; i < size; i++)
        text[i] = "das ist nicht "[i % 14];
    assert_int_equal(language_guess(text, size), LANGUAGE_DE);
    memset(text, 'a', size);
    assert_int_equal(language_guess(text, size), LANGUAGE_UNKNOWN);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_requests_are_told),
        cmocka_unit_test(words_are_in_order),
        cmocka_unit_test(case_marks_and_code_do_not_matter),
        cmocka_unit_test(what_is_no_text_has_no_language),
        cmocka_unit_test(a_long_text_is_not_read_to_its_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
