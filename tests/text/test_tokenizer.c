/* Tokenizer: trust, limits, malformed files, long inputs, each allocation failing. */
#include "tests/text/text_fixture.h"
#include "base/mapped_file.h"
#include "text/split_scanner.h"
#include "text/unicode_class.h"

static void merges_lowest_rank_first(void **state)
{
    (void)state;
    struct tokenizer *t = make_tokenizer(BYTE_TOKENIZER("[]"));
    assert_string_equal(encode_to_text(t, "abcab", NULL, 0), "32 31");
    assert_string_equal(encode_to_text(t, "a abc aab", NULL, 0), "0 26 32 33 31");
    assert_string_equal(encode_to_text(t, "", NULL, 0), "");
    assert_int_equal(tokenizer_vocab_size(t), 34);
    assert_int_equal(tokenizer_find(t, "abc", 3), 32);
    assert_int_equal(tokenizer_find(t, "nope", 4), -1);
    size_t size;
    assert_string_equal(tokenizer_token(t, 31, &size), "ab");
    assert_int_equal(size, 2);
    assert_null(tokenizer_token(t, 34, &size));
    tokenizer_destroy(t);
}

/* A special token counts where the flag says so and none of its bytes came from a user. */
static void special_tokens_need_trust(void **state)
{
    (void)state;
    struct tokenizer *t = make_tokenizer(BYTE_TOKENIZER(SPECIAL_EOT));
    const char *plain = "27 28 4 14 19 28 29";
    assert_string_equal(encode_to_text(t, "<|eot|>", NULL, TOKENIZE_PARSE_SPECIAL), "34");
    assert_string_equal(encode_to_text(t, "<|eot|>", NULL, 0), plain);
    assert_string_equal(encode_to_text(t, "<|eot|>", "uuuuuuu", TOKENIZE_PARSE_SPECIAL), plain);
    for (int i = 0; i < 7; i++) { /* one untrusted byte is enough */
        char marks[8] = ".......";
        marks[i] = 'u';
        assert_string_equal(encode_to_text(t, "<|eot|>", marks, TOKENIZE_PARSE_SPECIAL), plain);
    }
    assert_string_equal(encode_to_text(t, "<|eot|><|eot|>", "uuuuuuu.......", TOKENIZE_PARSE_SPECIAL),
                        "27 28 4 14 19 28 29 34");
    assert_string_equal(encode_to_text(t, "<|eo<|eot|>", "uuuu.......", TOKENIZE_PARSE_SPECIAL),
                        "27 28 4 14 34");
    assert_true(tokenizer_is_special(t, 34));
    assert_false(tokenizer_is_special(t, 31));
    assert_false(tokenizer_is_special(t, UINT32_MAX));
    tokenizer_destroy(t);
}

/* Not by merges, not as a single character, not by ignore_merges either. */
static void model_never_makes_special_tokens(void **state)
{
    (void)state;
    struct tokenizer *t = make_tokenizer(
        BYTE_TOKENIZER("[{\"id\":31,\"content\":\"ab\",\"special\":true,\"normalized\":false},"
                       "{\"id\":25,\"content\":\"z\",\"special\":true,\"normalized\":false}]"));
    assert_string_equal(encode_to_text(t, "ab z", NULL, TOKENIZE_PARSE_SPECIAL), "31 26 25");
    assert_string_equal(encode_to_text(t, "ab z", "uuuu", TOKENIZE_PARSE_SPECIAL), "0 1 26");
    assert_string_equal(encode_to_text(t, "abc", "uuu", TOKENIZE_PARSE_SPECIAL), "32");
    tokenizer_destroy(t);
    t = make_tokenizer(
        "{\"added_tokens\":[{\"id\":2,\"content\":\"ab\",\"special\":true,\"normalized\":false}],"
        "\"model\":{\"ignore_merges\":true,\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]}}");
    assert_string_equal(encode_to_text(t, "ab", NULL, TOKENIZE_PARSE_SPECIAL), "2");
    assert_string_equal(encode_to_text(t, "ab", "uu", TOKENIZE_PARSE_SPECIAL), "0 1");
    tokenizer_destroy(t);
}

/* A special token that is sought behind the normaliser keeps the marks of what it was made from. */
static void marks_survive_the_normalizer(void **state)
{
    (void)state;
    struct tokenizer *t = make_tokenizer(
        "{\"added_tokens\":[{\"id\":3,\"content\":\"b c\",\"special\":true,\"normalized\":true}],"
        "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"},{\"type\":\"Lowercase\"},"
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"--\"}]},"
        "\"model\":{\"vocab\":{\"a\":0,\"b\":1,\"c\":2,\"-\":9},\"merges\":[]}}");
    /* the id is what the library gives: the next one behind the vocabulary's size */
    assert_int_equal(tokenizer_find(t, "b c", 3), 4);
    assert_string_equal(encode_to_text(t, "aB C", NULL, TOKENIZE_PARSE_SPECIAL), "0 4");
    assert_string_equal(encode_to_text(t, "aB C", "u...", TOKENIZE_PARSE_SPECIAL), "0 4");
    assert_string_equal(encode_to_text(t, "aB C", ".u..", TOKENIZE_PARSE_SPECIAL), "0 1 9 9 2");
    assert_string_equal(encode_to_text(t, "aB C", "..u.", TOKENIZE_PARSE_SPECIAL), "0 1 9 9 2");
    assert_string_equal(encode_to_text(t, "aB C", "...u", TOKENIZE_PARSE_SPECIAL), "0 1 9 9 2");
    tokenizer_destroy(t);
}

static void invalid_utf8_becomes_u_fffd(void **state)
{
    (void)state;
    struct tokenizer *t = make_tokenizer(
        "{\"added_tokens\":[],\"model\":{\"vocab\":{\"a\":0,\"\xef\xbf\xbd\":1},\"merges\":[]}}");
    assert_string_equal(encode_to_text(t, "a\xff\x61", NULL, 0), "0 1 0");
    assert_string_equal(encode_to_text(t, "\xe2\x82", NULL, 0), "1");       /* a beginning: one */
    assert_string_equal(encode_to_text(t, "\xe2\x82\x61", NULL, 0), "1 0"); /* what broke it stays */
    assert_string_equal(encode_to_text(t, "\xed\xa0\x80", NULL, 0), "1 1 1");
    assert_string_equal(encode_to_text(t, "\x80\x80", NULL, 0), "1 1");
    tokenizer_destroy(t);
}

static void limits_hold(void **state)
{
    (void)state;
    struct tokenizer *t = make_tokenizer(BYTE_TOKENIZER("[]"));
    struct token_list list = {.limit = 3};
    OK(tokenizer_encode(t, "ddd", 3, NULL, 0, &list));
    assert_fails(ERR_RESOURCE_EXHAUSTED, "longer than 3 tokens", tokenizer_encode(t, "d", 1, NULL, 0, &list));
    assert_int_equal(list.count, 3); /* what was there stays */
    token_list_free(&list);
    assert_fails(ERR_RESOURCE_EXHAUSTED, "the most is",
                 tokenizer_encode(t, "", (size_t)TOKENIZER_TEXT_BYTES_MAX + 1, NULL, 0, &list));
    struct buffer small = {.limit_bytes = 2};
    uint32_t ids[] = {0, 1, 2};
    assert_fails(ERR_RESOURCE_EXHAUSTED, "2 bytes", tokenizer_decode(t, ids, 3, false, &small));
    buffer_free(&small);
    struct buffer out = {.limit_bytes = 100};
    ids[1] = 99;
    assert_fails(ERR_INVALID_ARGUMENT, "99", tokenizer_decode(t, ids, 3, false, &out));
    buffer_free(&out);
    tokenizer_destroy(t);
}

/* ASan looks at every access, which are the same in an eighth. */
#if defined(__SANITIZE_ADDRESS__)
enum { RUN_BYTES = 1 << 17 };
#else
enum { RUN_BYTES = 1 << 20 };
#endif

/* A million of one letter, of spaces, of digits and of a special token's beginning: work in proportion to the
 * length. A quadratic step anywhere would take hours here. */
static void long_runs_are_not_quadratic(void **state)
{
    (void)state;
    enum { N = RUN_BYTES };
    static const char *const NAMES[] = {"llama3", "gpt2", "o200k", "llama2", "gemma", "metaspace"};
    static const char FILLS[] = {'a', ' ', '\n', '1', '<', '!', 'A'};
    char *text = mem_alloc(N);
    for (size_t k = 0; k < sizeof NAMES / sizeof NAMES[0]; k++) {
        char path[512];
        char *json;
        size_t json_bytes;
        struct tokenizer *t;
        snprintf(path, sizeof path, TEST_DATA_DIR "/parity/tokenizer/goldens/%s.json", NAMES[k]);
        OK(file_read(path, TOKENIZER_FILE_BYTES_MAX, &json, &json_bytes));
        OK(tokenizer_parse(json, json_bytes, path, &t));
        for (size_t f = 0; f < sizeof FILLS; f++) {
            struct token_list list = {0};
            struct buffer back = {.limit_bytes = 4 * N};
            memset(text, FILLS[f], N);
            OK(tokenizer_encode(t, text, N, NULL, TOKENIZE_PARSE_SPECIAL, &list));
            OK(tokenizer_decode(t, list.ids, list.count, false, &back));
            bool lossy = strcmp(NAMES[k], "metaspace") == 0; /* no byte fallback, and it eats spaces */
            assert_true(lossy || (back.size == N && memcmp(back.data, text, N) == 0));
            token_list_free(&list);
            buffer_free(&back);
        }
        tokenizer_destroy(t);
        mem_free(json);
    }
    mem_free(text);
}

static void patterns_backtrack_as_the_regex_does(void **state)
{
    (void)state;
    static const struct {
        enum split_pattern pattern;
        const char *text;
        size_t length;
    } CASES[] = {
        {SPLIT_LLAMA3, "  x", 1},
        {SPLIT_LLAMA3, " \n \n  x", 4},
        {SPLIT_LLAMA3, "   ", 3},
        {SPLIT_LLAMA3, "\tx", 2},
        {SPLIT_LLAMA3, "1234", 3},
        {SPLIT_LLAMA3, "'LLx", 3},
        {SPLIT_LLAMA3, "'\xc5\xbfx", 3}, /* long s folds to s */
        {SPLIT_LLAMA3, " !?\n\nx", 5},
        {SPLIT_QWEN2, "1234", 1},
        {SPLIT_GPT2, "'LL", 1},
        {SPLIT_GPT2, " \n\nx", 2},
        {SPLIT_GPT2, "'re", 3},
        {SPLIT_O200K, "HELLOworld", 10},
        {SPLIT_O200K, "HELLO", 5},
        {SPLIT_O200K, "HelloWorld", 5},
        {SPLIT_O200K, "don't", 5},
        {SPLIT_O200K,
         "A\xe5\xad\x97"
         "B",
         4}, /* gives back to the last character of both sets */
        {SPLIT_TEKKEN, "don't", 3},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++)
        assert_int_equal(split_pattern_match(CASES[i].pattern, CASES[i].text, strlen(CASES[i].text)),
                         CASES[i].length);
}

static void classes_reach_unicode_16(void **state)
{
    (void)state;
    assert_true(unicode_classes(0x1c89) & CHAR_LETTER); /* 16.0 */
    assert_true(unicode_classes(0x10d40) & CHAR_NUMBER);
    assert_true(unicode_classes(0x2ffc) & CHAR_SYMBOL); /* 15.1 */
    assert_int_equal(unicode_classes(0x378), 0);        /* never assigned */
    assert_true(unicode_classes(0x85) & CHAR_SPACE);
    assert_false(unicode_classes(0x200b) & CHAR_SPACE);
    assert_true(unicode_classes(0x200d) & CHAR_WORD);
    assert_true(unicode_classes(0x24b6) & CHAR_WORD);
}

static void bad_files_say_what_and_where(void **state)
{
    (void)state;
#define MODEL "\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}"
    static const struct {
        enum err_code code;
        const char *part, *json;
    } CASES[] = {
        {ERR_DATA_LOSS, "line 1", "{"},
        {ERR_DATA_LOSS, "one JSON object", "[]"},
        {ERR_DATA_LOSS, "\"model\" is missing", "{}"},
        {ERR_DATA_LOSS, "vocab", "{\"model\":{}}"},
        {ERR_DATA_LOSS, "0 tokens", "{\"model\":{\"vocab\":{},\"merges\":[]}}"},
        {ERR_DATA_LOSS, "merges", "{\"model\":{\"vocab\":{\"a\":0}}}"},
        {ERR_DATA_LOSS, "the id of \"a\"", "{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}"},
        {ERR_DATA_LOSS, "the id of \"a\"", "{\"model\":{\"vocab\":{\"a\":99999999999},\"merges\":[]}}"},
        {ERR_DATA_LOSS, "the id of \"a\"", "{\"model\":{\"vocab\":{\"a\":\"0\"},\"merges\":[]}}"},
        {ERR_DATA_LOSS, "id 0", "{\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}"},
        {ERR_DATA_LOSS, "[0]", "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}"},
        {ERR_DATA_LOSS, "[0]", "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a b c\"]}}"},
        {ERR_DATA_LOSS, "[0]", "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}"},
        {ERR_DATA_LOSS, "[0]", "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a \"]}}"},
        {ERR_DATA_LOSS, "not in the vocabulary", "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a a\"]}}"},
        {ERR_UNIMPLEMENTED, "Unigram",
         "{\"model\":{\"type\":\"Unigram\",\"vocab\":{\"a\":0},\"merges\":[]}}"},
        {ERR_UNIMPLEMENTED, "dropout", "{\"model\":{\"dropout\":0.1,\"vocab\":{\"a\":0},\"merges\":[]}}"},
        {ERR_UNIMPLEMENTED, "end_of_word_suffix",
         "{\"model\":{\"end_of_word_suffix\":\"</w>\",\"vocab\":{\"a\":0},\"merges\":[]}}"},
        {ERR_UNIMPLEMENTED, "version", "{\"version\":\"2.0\"," MODEL "}"},
        {ERR_UNIMPLEMENTED, "\\d+foo",
         "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\d+foo\"},\"behavior\":"
         "\"Isolated\","
         "\"invert\":false}," MODEL "}"},
        {ERR_UNIMPLEMENTED, "BertPreTokenizer",
         "{\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"}," MODEL "}"},
        {ERR_UNIMPLEMENTED, "after ByteLevel",
         "{\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":"
         "\"WhitespaceSplit\"}]}," MODEL "}"},
        {ERR_DATA_LOSS, "pre_tokenizer", "{\"pre_tokenizer\":7," MODEL "}"},
        {ERR_DATA_LOSS, "behavior",
         "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},\"behavior\":\"Odd\"}," MODEL
         "}"},
        {ERR_DATA_LOSS, "empty pattern",
         "{\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"\"},\"behavior\":\"Isolated\"}"
         "," MODEL "}"},
        {ERR_DATA_LOSS, "one character",
         "{\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"__\"}," MODEL "}"},
        {ERR_UNIMPLEMENTED, "Precompiled", "{\"normalizer\":{\"type\":\"Precompiled\"}," MODEL "}"},
        {ERR_UNIMPLEMENTED, "regular expression",
         "{\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"x+\"},\"content\":\"\"}," MODEL "}"},
        {ERR_DATA_LOSS, "\"prepend\" is missing", "{\"normalizer\":{\"type\":\"Prepend\"}," MODEL "}"},
        {ERR_UNIMPLEMENTED, "WordPiece", "{\"decoder\":{\"type\":\"WordPiece\"}," MODEL "}"},
        {ERR_UNIMPLEMENTED, "\"stop\" 1",
         "{\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"Strip\","
         "\"content\":"
         "\" \",\"start\":0,\"stop\":1}]}," MODEL "}"},
        {ERR_DATA_LOSS, "not in \"special_tokens\"",
         "{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}"
         "}],"
         "\"special_tokens\":{}}," MODEL "}"},
        {ERR_UNIMPLEMENTED, "sequence A",
         "{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[],\"special_tokens\":{}}," MODEL
         "}"},
        {ERR_DATA_LOSS, "no token's",
         "{\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"s\"}},"
         "{"
         "\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"s\":{\"ids\":[5]}}}," MODEL "}"},
        {ERR_DATA_LOSS, "no token's", /* an id in a gap */
         "{\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"x\",3],\"sep\":[\"x\",0]},\"model\":{"
         "\"vocab\":{\"a\":0,\"b\":5},\"merges\":[]}}"},
        {ERR_DATA_LOSS, "\"added_tokens\"[0]", "{\"added_tokens\":[{\"id\":1}]," MODEL "}"},
        {ERR_DATA_LOSS, "\"id\"", "{\"added_tokens\":[{\"id\":-5,\"content\":\"x\"}]," MODEL "}"},
        {ERR_DATA_LOSS, "\"special\"",
         "{\"added_tokens\":[{\"id\":1,\"content\":\"x\",\"special\":3}]," MODEL "}"},
        {ERR_DATA_LOSS, "duplicate", "{\"model\":{\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct tokenizer *t;
        assert_fails(CASES[i].code, CASES[i].part,
                     tokenizer_parse(CASES[i].json, strlen(CASES[i].json), "test", &t));
        assert_null(t);
    }
}

/* Sequences within sequences, deeper than any file needs and deeper than a stack is. */
static void nested_sequences_are_refused(void **state)
{
    (void)state;
    static const char *const FIELDS[][2] = {{"normalizer", "normalizers"},
                                            {"pre_tokenizer", "pretokenizers"},
                                            {"post_processor", "processors"},
                                            {"decoder", "decoders"}};
    for (size_t k = 0; k < sizeof FIELDS / sizeof FIELDS[0]; k++)
        for (int depth = 8; depth <= 1000; depth += 992) {
            struct buffer json = {.limit_bytes = 1 << 20};
            struct tokenizer *t;
            assert_true(buffer_append_format(&json, "{" MODEL ",\"%s\":", FIELDS[k][0]));
            for (int i = 0; i < depth; i++)
                assert_true(buffer_append_format(&json, "{\"type\":\"Sequence\",\"%s\":[", FIELDS[k][1]));
            for (int i = 0; i < depth; i++)
                assert_true(buffer_append_text(&json, "]}"));
            assert_true(buffer_append_text(&json, "}"));
            err_t e = tokenizer_parse(json.data, json.size, "test", &t);
            assert_int_equal(e.code, depth == 8 ? ERR_OK : ERR_DATA_LOSS);
            tokenizer_destroy(t);
            buffer_free(&json);
        }
}

static void a_long_token_is_refused(void **state)
{
    (void)state;
    char json[2 * TOKENIZER_TOKEN_BYTES_MAX], token[TOKENIZER_TOKEN_BYTES_MAX + 2];
    struct tokenizer *t;
    memset(token, 'x', sizeof token);
    token[TOKENIZER_TOKEN_BYTES_MAX] = '\0';
    snprintf(json, sizeof json, "{\"model\":{\"vocab\":{\"%s\":0},\"merges\":[]}}", token);
    OK(tokenizer_parse(json, strlen(json), "test", &t));
    tokenizer_destroy(t);
    memset(token, 'x', sizeof token);
    token[TOKENIZER_TOKEN_BYTES_MAX + 1] = '\0';
    snprintf(json, sizeof json, "{\"model\":{\"vocab\":{\"%s\":0},\"merges\":[]}}", token);
    assert_fails(ERR_DATA_LOSS, "1025 bytes", tokenizer_parse(json, strlen(json), "test", &t));
}

/* Every allocation of load, encode and decode fails once; nothing leaks and nothing is half done. */
static void failing_memory_is_an_error(void **state)
{
    (void)state;
    const char *json = BYTE_TOKENIZER(SPECIAL_EOT);
    bool done = false;
    for (int64_t nth = 0; !done; nth++) {
        struct tokenizer *t;
        struct token_list list = {0};
        struct buffer text = {.limit_bytes = 1000};
        assert_true(nth < 1000);
        mem_fail_nth(nth);
        err_t e = tokenizer_parse(json, strlen(json), "test", &t);
        if (e.code == ERR_OK)
            e = tokenizer_encode(t, "abc <|eot|> \xff d", 15, NULL, TOKENIZE_PARSE_SPECIAL, &list);
        if (e.code == ERR_OK)
            e = tokenizer_decode(t, list.ids, list.count, false, &text);
        done = e.code == ERR_OK;
        assert_true(done || e.code == ERR_RESOURCE_EXHAUSTED || e.code == ERR_DATA_LOSS);
        mem_fail_nth(-1);
        token_list_free(&list);
        buffer_free(&text);
        tokenizer_destroy(t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_lowest_rank_first),
        cmocka_unit_test(special_tokens_need_trust),
        cmocka_unit_test(model_never_makes_special_tokens),
        cmocka_unit_test(marks_survive_the_normalizer),
        cmocka_unit_test(invalid_utf8_becomes_u_fffd),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(long_runs_are_not_quadratic),
        cmocka_unit_test(patterns_backtrack_as_the_regex_does),
        cmocka_unit_test(classes_reach_unicode_16),
        cmocka_unit_test(bad_files_say_what_and_where),
        cmocka_unit_test(nested_sequences_are_refused),
        cmocka_unit_test(a_long_token_is_refused),
        cmocka_unit_test(failing_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
