/* Streaming: pieces are whole characters and add up to the decoded text, also for ids that no text gives. */
#include "tests/text/text_fixture.h"

#include "base/mapped_file.h"
#include "base/utf8.h"
#include "text/detokenizer.h"

/* A sentencepiece-like tokenizer: bytes E2 82 AC F0 and "a", and a space in front that Strip takes away. */
static const char FALLBACK[] =
    "{\"added_tokens\":[{\"id\":0,\"content\":\"<s>\",\"special\":true,\"normalized\":false}],\"decoder\":{"
    "\"type\":"
    "\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"_\"},\"content\":\" "
    "\"},{\"type\":"
    "\"ByteFallback\"},{\"type\":\"Fuse\"},{\"type\":\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0}]},"
    "\"model\":{\"vocab\":{\"<s>\":0,\"<0xE2>\":1,\"<0x82>\":2,\"<0xAC>\":3,\"<0xF0>\":4,\"a\":5,\"_\":6,\"_"
    "a\":7},"
    "\"merges\":[]}}";
/* ByteLevel: the same bytes in the byte alphabet. */
static const char BYTES[] = "{\"added_tokens\":[],\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"vocab\":{"
                            "\"\xc3\xa2\":1,\"\xc4\xa4\":2,"
                            "\"\xc2\xac\":3,\"\xc3\xb0\":4,\"a\":5,\"\xe5\xad\x97\":6},\"merges\":[]}}";

/* The pieces with | between them, in a static buffer. */
static const char *stream(const char *json, const uint32_t *ids, size_t n, bool skip_special)
{
    static char out[1024];
    struct tokenizer *t = make_tokenizer(json);
    struct detokenizer d;
    size_t used = 0;
    detokenizer_init(&d, t, skip_special);
    for (size_t i = 0; i <= n; i++) {
        struct buffer piece = {.limit_bytes = 100};
        OK(i < n ? detokenizer_push(&d, ids[i], &piece) : detokenizer_flush(&d, &piece));
        used += (size_t)snprintf(out + used, sizeof out - used, "%s%s", i ? "|" : "",
                                 piece.data ? piece.data : "");
        buffer_free(&piece);
    }
    tokenizer_destroy(t);
    return out;
}

#define STREAM(json, skip, ...)                                                                              \
    stream(json, (const uint32_t[]){__VA_ARGS__}, sizeof((uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t), skip)
#define FFFD "\xef\xbf\xbd"

static void characters_come_whole(void **state)
{
    (void)state;
    assert_string_equal(STREAM(BYTES, false, 1, 2, 3, 5), "||\xe2\x82\xac|a|");
    assert_string_equal(STREAM(FALLBACK, false, 1, 2, 3, 5), "||\xe2\x82\xac|a|");
}

static void broken_bytes_become_u_fffd(void **state)
{
    (void)state;
    /* ByteLevel: a beginning is one; ByteFallback: each byte is one */
    assert_string_equal(STREAM(BYTES, false, 1, 2, 5), "||" FFFD "a|");
    assert_string_equal(STREAM(FALLBACK, false, 1, 2, 5), "||" FFFD FFFD "a|");
    assert_string_equal(STREAM(BYTES, false, 1, 2), "||" FFFD);
    assert_string_equal(STREAM(FALLBACK, false, 1, 2), "||" FFFD FFFD);
    assert_string_equal(STREAM(BYTES, false, 3, 1, 1, 2, 3), FFFD "||" FFFD "||\xe2\x82\xac|");
    assert_string_equal(STREAM(BYTES, false, 4, 2, 4), "|" FFFD FFFD "||" FFFD);
    assert_string_equal(STREAM(BYTES, false, 1, 6), "|" FFFD "\xe5\xad\x97|"); /* not of the alphabet */
}

static void strip_takes_the_first_space_of_the_text(void **state)
{
    (void)state;
    assert_string_equal(STREAM(FALLBACK, false, 7, 7), "a| a|");
    assert_string_equal(STREAM(FALLBACK, false, 6, 6, 7), "| | a|");
    assert_string_equal(STREAM(FALLBACK, true, 0, 7), "|a|");
    assert_string_equal(STREAM(FALLBACK, false, 0, 7), "<s>| a|");
    assert_string_equal(STREAM(FALLBACK, false, 99, 7), "|a|"); /* no token: nothing */
}

/* Without a decoder the library puts spaces between tokens. */
static void tokens_without_a_decoder(void **state)
{
    (void)state;
    assert_string_equal(STREAM("{\"model\":{\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}}", false, 0, 1),
                        "a| b|");
}

/* Between two special tokens that follow each other there is a space, or none, as is asked for. */
static void special_tokens_stand_together(void **state)
{
    (void)state;
    static const char SPACED[] =
        "{\"added_tokens\":[{\"id\":2,\"content\":\"<s>\",\"special\":true,\"normalized\":false},{\"id\":3,"
        "\"content\":\"</s>\",\"special\":true,\"normalized\":false}],\"model\":{\"vocab\":{\"a\":0,\"b\":1},"
        "\"merges\":[]}}";
    static const uint32_t ids[] = {2, 2, 0, 3, 2, 1};
    static const char *const expected[] = {"<s> <s> a </s> <s> b", "<s><s> a </s><s> b"};
    struct tokenizer *t = make_tokenizer(SPACED);
    for (int joins = 0; joins < 2; joins++) {
        struct buffer text = {.limit_bytes = 100};
        struct detokenizer d;
        detokenizer_init(&d, t, false);
        d.joins_special_tokens = joins;
        for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++)
            OK(detokenizer_push(&d, ids[i], &text));
        assert_string_equal(text.data, expected[joins]);
        buffer_free(&text);
    }
    tokenizer_destroy(t);
}

/* Random ids of every golden tokenizer: the pieces are UTF-8 and add up. */
static void pieces_add_up(void **state)
{
    (void)state;
    static const char *const NAMES[] = {"llama3",    "llama2", "mistral", "gemma",
                                        "metaspace", "folded", "qwen2"};
    for (size_t k = 0; k < sizeof NAMES / sizeof NAMES[0]; k++) {
        char path[512];
        char *json;
        size_t json_bytes;
        struct tokenizer *t;
        snprintf(path, sizeof path, TEST_DATA_DIR "/parity/tokenizer/goldens/%s.json", NAMES[k]);
        OK(file_read(path, TOKENIZER_FILE_BYTES_MAX, &json, &json_bytes));
        OK(tokenizer_parse(json, json_bytes, path, &t));
        uint64_t random = 1;
        for (int round = 0; round < 200; round++) {
            uint32_t ids[50];
            struct buffer whole = {.limit_bytes = 1 << 20}, sum = whole;
            struct detokenizer d;
            for (int i = 0; i < 50; i++) {
                random = random * 6364136223846793005u + 1442695040888963407u;
                /* half of them among the first ids, where the bytes are */
                uint32_t among = random >> 63 ? 300 : tokenizer_vocab_size(t);
                ids[i] = (uint32_t)(random >> 33) % among;
            }
            OK(tokenizer_decode(t, ids, 50, round % 2, &whole));
            detokenizer_init(&d, t, round % 2);
            for (int i = 0; i < 50; i++) {
                size_t before = sum.size;
                OK(detokenizer_push(&d, ids[i], &sum));
                assert_true(utf8_valid(sum.data + before, sum.size - before));
            }
            OK(detokenizer_flush(&d, &sum));
            assert_int_equal(sum.size, whole.size);
            assert_memory_equal(sum.data, whole.data, sum.size);
            buffer_free(&whole);
            buffer_free(&sum);
        }
        tokenizer_destroy(t);
        mem_free(json);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(characters_come_whole),
        cmocka_unit_test(broken_bytes_become_u_fffd),
        cmocka_unit_test(strip_takes_the_first_space_of_the_text),
        cmocka_unit_test(tokens_without_a_decoder),
        cmocka_unit_test(special_tokens_stand_together),
        cmocka_unit_test(pieces_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
