/* protobuf bytes -> requests, and what no client sends. Answers are read by real clients, in tests/e2e. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "base/philox.h"
#include "proto/codec_protobuf.h"
#include "tests/proto/wire_bytes.h"

/* Fields of GenerateRequest and SamplingParams. */
enum {
    REQUEST_ID = 1,
    TOKENIZED = 2,
    TEXT = 3,
    SAMPLING = 4,
    STREAM = 5,
    INPUT_IDS = 2,
    STOP = 10,
    STOP_IDS = 11,
    BIAS = 26
};

struct decoded {
    struct codec_scratch scratch;
    struct request request;
    struct generate_options options;
    err_t e;
};

/* From a block of exactly the message's size, which a sanitizer watches; bytes live until decoded_free. */
static uint8_t *watched;

static struct decoded decode(const struct buffer *message)
{
    struct decoded decoded = {0};
    watched = mem_alloc(message->size > 0 ? message->size : 1);
    memcpy(watched, message->size > 0 ? message->data : "", message->size);
    decoded.e = protobuf_decode_generate(watched, message->size, &decoded.scratch, &decoded.request,
                                         &decoded.options);
    return decoded;
}

static void decoded_free(struct decoded *decoded)
{
    codec_scratch_free(&decoded->scratch);
    mem_free(watched);
}

/* Decodes, expects code and part of the message, and frees both. */
static void expect_error(struct buffer *message, enum err_code code, const char *part)
{
    struct decoded decoded = decode(message);
    assert_int_equal(decoded.e.code, code);
    if (code != ERR_OK && !strstr(decoded.e.message, part))
        fail_msg("\"%s\" is not in \"%s\"", part, decoded.e.message);
    decoded_free(&decoded);
    buffer_free(message);
}

static void put_ids(struct buffer *request, const uint32_t *ids, size_t n, bool packed)
{
    struct buffer tokenized = {0}, run = {0};
    for (size_t i = 0; i < n; i++)
        if (packed)
            wire_number(&run, ids[i]);
        else
            wire_varint(&tokenized, INPUT_IDS, ids[i]);
    if (packed)
        wire_message(&tokenized, INPUT_IDS, &run);
    wire_message(request, TOKENIZED, &tokenized);
}

static struct buffer full_message(void)
{
    struct buffer message = {0}, sampling = {0}, entry = {0};
    const float floats[] = {0.0f, 0.9f, 0.25f, 2.0f, -2.0f, 1.1f, -1.5f};
    const uint32_t ids[] = {1, 300, 4000000000u};
    wire_fixed32(&sampling, 1, &floats[0]);
    wire_fixed32(&sampling, 2, &floats[1]);
    wire_varint(&sampling, 3, 40);
    wire_fixed32(&sampling, 4, &floats[2]);
    wire_fixed32(&sampling, 5, &floats[3]);
    wire_fixed32(&sampling, 6, &floats[4]);
    wire_fixed32(&sampling, 7, &floats[5]);
    wire_varint(&sampling, 8, 77);
    wire_varint(&sampling, 9, 3);
    wire_text(&sampling, STOP, "END");
    wire_text(&sampling, STOP, "");
    wire_varint(&sampling, STOP_IDS, 9);
    wire_bytes(&sampling, STOP_IDS, "\x05\x80\x01", 3);
    wire_varint(&sampling, 12, 1);
    wire_varint(&sampling, 14, 1);
    wire_varint(&sampling, 15, 2);
    wire_varint(&sampling, 22, 5);
    wire_varint(&sampling, 23, 0);
    wire_varint(&sampling, 24, (uint64_t)-7);
    wire_varint(&sampling, 25, 1);
    wire_varint(&sampling, 27, (uint64_t)-1);
    wire_varint(&entry, 1, 12);
    wire_fixed32(&entry, 2, &floats[6]);
    wire_message(&sampling, BIAS, &entry);
    wire_text(&message, REQUEST_ID, "id-1");
    put_ids(&message, ids, 3, true);
    wire_message(&message, SAMPLING, &sampling);
    wire_varint(&message, STREAM, 1);
    return message;
}

static void everything_is_read(void **state)
{
    (void)state;
    struct buffer message = full_message();
    struct decoded decoded = decode(&message);
    const struct request *r = &decoded.request;
    const struct sampling_params *p = &r->sampling;
    assert_int_equal(decoded.e.code, ERR_OK);
    assert_false(decoded.options.whole);
    assert_string_equal(r->request_id, "id-1");
    assert_string_equal(r->tenant, "");
    assert_true(r->deadline_ns == REQUEST_NO_DEADLINE);
    assert_int_equal(r->prompt_kind, PROMPT_TOKEN_IDS);
    assert_int_equal(r->n_token_ids, 3);
    assert_memory_equal(r->token_ids, ((const uint32_t[]){1, 300, 4000000000u}), 12);
    assert_int_equal(p->set, ((1u << 16) - 1) | SAMPLING_TRUNCATE_PROMPT_TOKENS);
    assert_int_equal(p->truncate_prompt_tokens, SAMPLING_TRUNCATE_TO_FIT);
    assert_true(p->temperature == 0.0f && p->top_p == 0.9f && p->min_p == 0.25f &&
                p->repetition_penalty == 1.1f);
    assert_true(p->frequency_penalty == 2.0f && p->presence_penalty == -2.0f && p->top_k == 40);
    assert_true(p->max_tokens == 77 && p->min_tokens == 3 && p->n == 2 && p->logprobs == 5 &&
                p->prompt_logprobs == 0);
    assert_true(p->seed == (uint64_t)-7 && p->ignore_eos && p->skip_special_tokens &&
                p->include_stop_str_in_output);
    assert_int_equal(p->n_stop, 2);
    assert_string_equal(p->stop[0], "END");
    assert_string_equal(p->stop[1], "");
    assert_int_equal(p->n_stop_token_ids, 3);
    assert_memory_equal(p->stop_token_ids, ((const uint32_t[]){9, 5, 128}), 12);
    assert_int_equal(p->n_logit_bias, 1);
    assert_true(p->logit_bias[0].token_id == 12 && p->logit_bias[0].bias == -1.5f);
    decoded_free(&decoded);
    buffer_free(&message);
}

static void nothing_set_is_unset(void **state)
{
    (void)state;
    struct buffer empty = {0};
    struct decoded decoded = decode(&empty);
    assert_int_equal(decoded.e.code, ERR_OK);
    assert_true(decoded.options.whole);
    assert_null(decoded.request.request_id);
    assert_int_equal(decoded.request.prompt_kind, PROMPT_NONE);
    assert_int_equal(decoded.request.sampling.set, SAMPLING_MAX_TOKENS);
    assert_int_equal(decoded.request.sampling.max_tokens, 0);
    decoded_free(&decoded);
}

/* The text stands where it lay; what comes twice counts once, the last time. */
static void text_is_not_copied(void **state)
{
    (void)state;
    struct buffer message = {0};
    wire_text(&message, REQUEST_ID, "first");
    wire_text(&message, TEXT, "gone");
    wire_bytes(&message, TEXT, "a\0b", 3);
    wire_text(&message, REQUEST_ID, "second");
    struct decoded decoded = decode(&message);
    assert_int_equal(decoded.e.code, ERR_OK);
    assert_int_equal(decoded.request.text_bytes, 3);
    assert_memory_equal(decoded.request.text, "a\0b", 3);
    assert_true((const uint8_t *)decoded.request.text > watched &&
                (const uint8_t *)decoded.request.text < watched + message.size);
    assert_string_equal(decoded.request.request_id, "second");
    decoded_free(&decoded);
    buffer_free(&message);
}

/* Packed or one by one, in one run or in several: the same list. */
static void ids_by_the_hundred_thousand(void **state)
{
    (void)state;
    enum { N = 100000 };
    uint32_t *ids = mem_alloc_array(N, sizeof *ids);
    for (uint32_t i = 0; i < N; i++)
        ids[i] = i * 2654435761u;
    for (int way = 0; way < 3; way++) {
        struct buffer message = {0};
        if (way < 2) {
            put_ids(&message, ids, N, way == 0);
        } else {
            put_ids(&message, ids, 1000, true);
            put_ids(&message, ids + 1000, 10, false);
            put_ids(&message, ids + 1010, N - 1010, true);
        }
        struct decoded decoded = decode(&message);
        assert_int_equal(decoded.e.code, ERR_OK);
        assert_int_equal(decoded.request.n_token_ids, N);
        assert_memory_equal(decoded.request.token_ids, ids, N * sizeof *ids);
        decoded_free(&decoded);
        buffer_free(&message);
    }
    mem_free(ids);
}

static void unknown_fields_are_skipped(void **state)
{
    (void)state;
    struct buffer message = {0};
    wire_varint(&message, 1000, UINT64_MAX);
    wire_fixed32(&message, 1001, "abcd");
    wire_fixed64(&message, 1002, 7);
    wire_bytes(&message, 1003, "\xff\xff", 2);
    wire_text(&message, TEXT, "x");
    expect_error(&message, ERR_OK, "");
}

/* A field of another kind than the schema's is no reason to look at memory that is not there. */
static void wrong_wire_types_are_refused(void **state)
{
    (void)state;
    const uint32_t strings[] = {REQUEST_ID, TEXT, TOKENIZED, SAMPLING};
    for (size_t i = 0; i < 4; i++) {
        struct buffer message = {0}, fixed = {0};
        wire_varint(&message, strings[i], 7);
        expect_error(&message, ERR_INVALID_ARGUMENT, "well-formed");
        wire_fixed64(&fixed, strings[i], 0x0101010101010101);
        expect_error(&fixed, ERR_INVALID_ARGUMENT, "well-formed");
    }
    const uint32_t in_sampling[] = {STOP, STOP_IDS, BIAS, 1};
    for (size_t i = 0; i < 4; i++) {
        struct buffer message = {0}, sampling = {0};
        wire_fixed64(&sampling, in_sampling[i], 0x0101010101010101); /* eight numbers, were it a packed run */
        wire_message(&message, SAMPLING, &sampling);
        expect_error(&message, ERR_INVALID_ARGUMENT, "well-formed");
    }
    struct buffer message = {0}, tokenized = {0};
    wire_fixed32(&tokenized, INPUT_IDS, "\1\1\1\1");
    wire_message(&message, TOKENIZED, &tokenized);
    expect_error(&message, ERR_INVALID_ARGUMENT, "well-formed");
}

static void values_are_refused_by_name(void **state)
{
    (void)state;
    struct buffer both = {0}, nul_id = {0}, nul_stop = {0}, sampling = {0}, long_id = {0}, tokenized = {0};
    wire_text(&both, TEXT, "x");
    put_ids(&both, (const uint32_t[]){1}, 1, true);
    expect_error(&both, ERR_INVALID_ARGUMENT, "several prompts");
    wire_bytes(&nul_id, REQUEST_ID, "a\0b", 3);
    expect_error(&nul_id, ERR_INVALID_ARGUMENT, "request_id contains a NUL");
    wire_bytes(&sampling, STOP, "\0", 1);
    wire_message(&nul_stop, SAMPLING, &sampling);
    expect_error(&nul_stop, ERR_INVALID_ARGUMENT, "stop contains a NUL");
    wire_bytes(&tokenized, INPUT_IDS, "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
               12); /* beyond 64 bits */
    wire_message(&long_id, TOKENIZED, &tokenized);
    expect_error(&long_id, ERR_INVALID_ARGUMENT, "well-formed");
    wire_bytes(&tokenized, INPUT_IDS, "\xe8\xd2",
               2); /* a number without its end, and nothing else to count */
    wire_message(&long_id, TOKENIZED, &tokenized);
    expect_error(&long_id, ERR_INVALID_ARGUMENT, "well-formed");
}

/* Every prefix of a message is a request or is refused, and none is read past its end. */
static void truncation_is_seen(void **state)
{
    (void)state;
    struct buffer message = full_message();
    size_t size = message.size, n_refused = 0;
    for (message.size = 0; message.size < size; message.size++) {
        struct decoded decoded = decode(&message);
        assert_true(decoded.e.code == ERR_OK || decoded.e.code == ERR_INVALID_ARGUMENT);
        n_refused += decoded.e.code != ERR_OK;
        decoded_free(&decoded);
    }
    assert_true(n_refused > size * 9 / 10);
    message.size = size;
    buffer_free(&message);
}

/* The list that grows most. */
static void growth_is_bounded(void **state)
{
    (void)state;
    enum { N = 100000 };
    struct buffer message = {0}, sampling = {0};
    for (int i = 0; i < N; i++)
        wire_text(&sampling, STOP, "");
    wire_message(&message, SAMPLING, &sampling);
    struct decoded decoded = decode(&message); /* asserts PROTOBUF_GROWTH_MAX */
    assert_int_equal(decoded.e.code, ERR_OK);
    assert_int_equal(decoded.request.sampling.n_stop, N);
    decoded_free(&decoded);
    buffer_free(&message);
}

static void abort_ids(void **state)
{
    (void)state;
    struct buffer message = {0}, nothing = {0};
    struct codec_scratch scratch = {0};
    struct abort_request out;
    wire_text(&message, 1, "a");
    wire_text(&message, 1, "bc");
    assert_int_equal(protobuf_decode_abort((uint8_t *)message.data, message.size, &scratch, &out).code,
                     ERR_OK);
    assert_int_equal(out.n_request_ids, 2);
    assert_string_equal(out.request_ids[1], "bc");
    codec_scratch_free(&scratch);
    assert_int_equal(protobuf_decode_abort((const uint8_t *)"", 0, &scratch, &out).code,
                     ERR_INVALID_ARGUMENT);
    for (int i = 0; i < CODEC_ABORT_IDS_MAX; i++)
        wire_text(&nothing, 1, "x");
    assert_int_equal(protobuf_decode_abort((uint8_t *)nothing.data, nothing.size, &scratch, &out).code,
                     ERR_OK);
    codec_scratch_free(&scratch);
    wire_text(&nothing, 1, "x");
    err_t e = protobuf_decode_abort((uint8_t *)nothing.data, nothing.size, &scratch, &out);
    assert_string_equal(e.message, "request_ids has 1025 entries; 1 to 1024 are allowed");
    codec_scratch_free(&scratch);
    buffer_free(&message);
    buffer_free(&nothing);
}

static void memory_may_be_short(void **state)
{
    (void)state;
    struct buffer message = full_message();
    struct codec_scratch scratch = {0};
    struct request request;
    struct generate_options options;
    mem_fail_nth(0);
    err_t e = protobuf_decode_generate((uint8_t *)message.data, message.size, &scratch, &request, &options);
    mem_fail_nth(-1);
    assert_int_equal(e.code, ERR_RESOURCE_EXHAUSTED);
    codec_scratch_free(&scratch);
    buffer_free(&message);
    enum { N = 5000 };
    static uint32_t ids[N];
    struct model_info model = {.model = "m"};
    struct codec_answer answer = {.model = &model};
    struct event event = {.kind = EVENT_FINISHED, .token_ids = ids, .n_token_ids = N, .stop_token_id = 0};
    mem_fail_nth(0);
    struct codec_bytes bytes = protobuf_encode_event(&answer, &event, 0);
    mem_fail_nth(-1);
    assert_null(bytes.data);
    bytes = protobuf_encode_event(&answer, &event, 0);
    assert_non_null(bytes.data);
    assert_true(bytes.size > N);
    assert_non_null(protobuf_encode_aborted(NULL, 0).data);
}

/* Zero is a token like the others: the alternative that is set is told. */
static void matched_token_zero_is_told(void **state)
{
    (void)state;
    struct codec_answer answer = {0};
    struct event event = {.kind = EVENT_FINISHED, .finish_reason = FINISH_STOP, .stop_token_id = 0};
    struct codec_bytes bytes = protobuf_encode_event(&answer, &event, 0);
    const uint8_t expected[] = {2 << 3 | 2, 8, 2 << 3 | 2, 4, 's', 't', 'o', 'p', 10 << 3, 0};
    assert_int_equal(bytes.size, sizeof expected);
    assert_memory_equal(bytes.data, expected, sizeof expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_is_read),         cmocka_unit_test(nothing_set_is_unset),
        cmocka_unit_test(text_is_not_copied),         cmocka_unit_test(ids_by_the_hundred_thousand),
        cmocka_unit_test(unknown_fields_are_skipped), cmocka_unit_test(wrong_wire_types_are_refused),
        cmocka_unit_test(values_are_refused_by_name), cmocka_unit_test(truncation_is_seen),
        cmocka_unit_test(growth_is_bounded),          cmocka_unit_test(abort_ids),
        cmocka_unit_test(memory_may_be_short),        cmocka_unit_test(matched_token_zero_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
