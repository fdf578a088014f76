/* Ids and decoded text against the reference library, 10,000 strings for each tokenizer; the golden files and
 * the script that makes them are in tests/parity/tokenizer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/mapped_file.h"
#include "base/utf8.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

enum { N_STRINGS = 10000, RECORD_BYTES = 12, TEXT_LIMIT_BYTES = 1 << 20 };

static struct mapped_file strings;

static void open_golden(const char *name, struct mapped_file *out)
{
    char path[512];
    snprintf(path, sizeof path, TEST_DATA_DIR "/parity/tokenizer/goldens/%s", name);
    err_t e = mapped_file_open(path, out);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
}

static uint64_t fnv1a(uint64_t hash, const void *data, size_t size_bytes)
{
    const uint8_t *bytes = data;
    for (size_t i = 0; i < size_bytes; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}
#define FNV_START 0xcbf29ce484222325u

struct counts {
    size_t ids_differ, text_differs, stream_differs;
    size_t first; /* index of the first string with a difference */
};

/* The pieces of a streaming detokenizer add up to the whole text, and each is UTF-8 by itself. */
static bool stream_adds_up(const struct tokenizer *tokenizer, const struct token_list *list,
                           const struct buffer *whole)
{
    struct buffer sum = {.limit_bytes = TEXT_LIMIT_BYTES};
    struct detokenizer detokenizer;
    detokenizer_init(&detokenizer, tokenizer, true);
    bool ok = true;
    for (size_t i = 0; i < list->count; i++) {
        struct buffer piece = {.limit_bytes = TEXT_LIMIT_BYTES};
        ok = ok && detokenizer_push(&detokenizer, list->ids[i], &piece).code == ERR_OK;
        ok = ok && utf8_valid(piece.data ? piece.data : "", piece.size);
        ok = ok && (piece.size == 0 || buffer_append(&sum, piece.data, piece.size));
        buffer_free(&piece);
    }
    ok = ok && detokenizer_flush(&detokenizer, &sum).code == ERR_OK;
    ok = ok && sum.size == whole->size && (sum.size == 0 || memcmp(sum.data, whole->data, sum.size) == 0);
    buffer_free(&sum);
    return ok;
}

static void check_string(const struct tokenizer *tokenizer, const char *text, size_t text_bytes,
                         const uint8_t *record, size_t index, struct counts *counts)
{
    struct token_list list = {.limit = TEXT_LIMIT_BYTES};
    struct buffer decoded = {.limit_bytes = TEXT_LIMIT_BYTES};
    err_t e = tokenizer_encode(tokenizer, text, text_bytes, NULL,
                               TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL, &list);
    assert_int_equal(e.code, ERR_OK);
    e = tokenizer_decode(tokenizer, list.ids, list.count, true, &decoded);
    assert_int_equal(e.code, ERR_OK);
    uint64_t ids_expected;
    uint32_t text_expected;
    memcpy(&ids_expected, record, sizeof ids_expected);
    memcpy(&text_expected, record + sizeof ids_expected, sizeof text_expected);
    uint64_t ids_hash = FNV_START;
    for (size_t i = 0; i < list.count; i++)
        ids_hash = fnv1a(ids_hash, &list.ids[i], sizeof list.ids[i]);
    bool ids_differ = ids_hash != ids_expected;
    bool text_differs = (uint32_t)fnv1a(FNV_START, decoded.data, decoded.size) != text_expected;
    bool stream_differs = !stream_adds_up(tokenizer, &list, &decoded);
    if (ids_differ + text_differs + stream_differs > 0 &&
        counts->ids_differ + counts->text_differs + counts->stream_differs == 0)
        counts->first = index;
    counts->ids_differ += ids_differ;
    counts->text_differs += text_differs;
    counts->stream_differs += stream_differs;
    token_list_free(&list);
    buffer_free(&decoded);
}

static void check_tokenizer(void **state)
{
    const char *name = *state;
    char file_name[64];
    struct mapped_file json, golden;
    struct tokenizer *tokenizer;
    snprintf(file_name, sizeof file_name, "%s.json", name);
    open_golden(file_name, &json);
    snprintf(file_name, sizeof file_name, "%s.bin", name);
    open_golden(file_name, &golden);
    assert_int_equal(golden.size_bytes, N_STRINGS * RECORD_BYTES);
    err_t e = tokenizer_parse((const char *)json.data, json.size_bytes, name, &tokenizer);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    struct counts counts = {0, 0, 0, 0};
    size_t position = 0;
    for (size_t i = 0; i < N_STRINGS; i++) {
        uint32_t text_bytes;
        assert_true(position + sizeof text_bytes <= strings.size_bytes);
        memcpy(&text_bytes, strings.data + position, sizeof text_bytes);
        position += sizeof text_bytes;
        assert_true(position + text_bytes <= strings.size_bytes);
        check_string(tokenizer, (const char *)strings.data + position, text_bytes,
                     golden.data + i * RECORD_BYTES, i, &counts);
        position += text_bytes;
    }
    assert_int_equal(position, strings.size_bytes);
    if (counts.ids_differ + counts.text_differs + counts.stream_differs > 0)
        fail_msg("%s: ids differ in %zu strings, decoded text in %zu, streamed text in %zu; see "
                 "make_tokenizer_goldens.py --show %s %zu",
                 name, counts.ids_differ, counts.text_differs, counts.stream_differs, name, counts.first);
    tokenizer_destroy(tokenizer);
    mapped_file_close(&json);
    mapped_file_close(&golden);
}

static int open_strings(void **state)
{
    (void)state;
    open_golden("strings.bin", &strings);
    return 0;
}

#define PARITY(tokenizer)                                                                                    \
    {                                                                                                        \
#tokenizer, check_tokenizer, NULL, NULL, #tokenizer                                                  \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        PARITY(llama3), PARITY(gpt2),      PARITY(gpt2_prefix), PARITY(qwen2),
        PARITY(o200k),  PARITY(tekken),    PARITY(llama2),      PARITY(mistral),
        PARITY(gemma),  PARITY(metaspace), PARITY(folded),
    };
    return cmocka_run_group_tests(tests, open_strings, NULL);
}
