/* What reflection answers, message by message; tests/e2e asks through grpcio's own client. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <string.h>
#include "base/alloc.h"
#include "proto/reflection.h"
#include "proto/wire_schemas.h"
#include "tests/proto/wire_bytes.h"

enum { HOST = 1, BY_FILENAME = 3, BY_SYMBOL = 4, BY_EXTENSION = 5, EXTENSION_NUMBERS = 6, LIST_SERVICES = 7 };
enum { FILES = 4, NUMBERS = 5, SERVICES = 6, ERROR = 7 };

/* The answer: its kind is the field number after the repeated request. Caller buffer_frees. */
static struct buffer ask(uint32_t field, const char *value, uint32_t *kind)
{
    struct buffer request = {0}, answer = {.limit_bytes = REFLECTION_ANSWER_BYTES_MAX * 2};
    wire_text(&request, field, value);
    assert_int_equal(reflection_answer((uint8_t *)request.data, request.size, &answer).code, ERR_OK);
    const uint8_t *at = (const uint8_t *)answer.data;
    assert_int_equal(at[0], 2 << 3 | 2);
    assert_int_equal(at[1], request.size); /* of one byte */
    assert_memory_equal(at + 2, request.data, request.size);
    *kind = at[2 + request.size] >> 3;
    buffer_free(&request);
    return answer;
}

static bool holds(const struct buffer *answer, const char *text)
{
    return memmem(answer->data, answer->size, text, strlen(text)) != NULL;
}

static void expect_kind(uint32_t field, const char *value, uint32_t expected)
{
    uint32_t kind;
    struct buffer answer = ask(field, value, &kind);
    if (kind != expected)
        fail_msg("\"%s\" of field %u is answered by %u, not %u", value, field, kind, expected);
    buffer_free(&answer);
}

static void services_are_listed(void **state)
{
    (void)state;
    uint32_t kind;
    struct buffer answer = ask(LIST_SERVICES, "", &kind);
    assert_int_equal(kind, SERVICES);
    const char *names[] = {"vllm.grpc.engine.VllmEngine", "bantam.v1.Loads", "grpc.health.v1.Health",
                           "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"};
    size_t bytes = 0;
    for (size_t i = 0; i < 5; i++) {
        assert_true(holds(&answer, names[i]));
        bytes += strlen(names[i]) + 4;
    }
    assert_int_equal(answer.size,
                     4 + 2 + 1 + bytes); /* and no others: request, header with a length of two bytes */
    buffer_free(&answer);
}

/* With what it imports, and each file once. */
static void a_file_comes_with_its_imports(void **state)
{
    (void)state;
    uint32_t kind;
    struct buffer answer = ask(BY_FILENAME, "vllm_engine.proto", &kind);
    assert_int_equal(kind, FILES);
    assert_true(holds(&answer, "GetTokenizerChunk") && holds(&answer, "InputTokenLogProb"));
    size_t with_import = answer.size;
    buffer_free(&answer);
    answer = ask(BY_FILENAME, "smg_common.proto", &kind);
    assert_int_equal(kind, FILES);
    assert_true(holds(&answer, "GetTokenizerChunk") && !holds(&answer, "InputTokenLogProb"));
    assert_true(answer.size < with_import && with_import < wire_protobuf_files_bytes);
    buffer_free(&answer);
}

static void symbols_of_every_kind(void **state)
{
    (void)state;
    const char *there[] = {"vllm.grpc.engine.VllmEngine",
                           "vllm.grpc.engine.VllmEngine.Generate",
                           "vllm.grpc.engine.SamplingParams",
                           "vllm.grpc.engine.SamplingParams.top_p",
                           "vllm.grpc.engine.SamplingParams.constraint",
                           "vllm.grpc.engine.SamplingParams.LogitBiasEntry",
                           "vllm.grpc.engine.SamplingParams.LogitBiasEntry.key",
                           "smg.grpc.common.Modality",
                           "grpc.health.v1.HealthCheckResponse.ServingStatus",
                           "grpc.reflection.v1alpha.ErrorResponse"};
    const char *not_there[] = {"",
                               ".",
                               "vllm",
                               "vllm.grpc.engine",
                               "vllm.grpc.engine.",
                               "vllm.grpc.engine.VllmEngin",
                               "vllm.grpc.engine.VllmEngine.",
                               "vllm.grpc.engine.VllmEngine.Generat",
                               "vllm.grpc.engine.VllmEngine.Generate.x",
                               "vllm.grpc.engineVllmEngine",
                               "GenerateRequest",
                               "bantam.Bantam"};
    for (size_t i = 0; i < sizeof there / sizeof there[0]; i++)
        expect_kind(BY_SYMBOL, there[i], FILES);
    for (size_t i = 0; i < sizeof not_there / sizeof not_there[0]; i++)
        expect_kind(BY_SYMBOL, not_there[i], ERROR);
}

static void what_is_not_there_is_told(void **state)
{
    (void)state;
    uint32_t kind;
    struct buffer answer = ask(BY_FILENAME, "nothing.proto", &kind);
    assert_int_equal(kind, ERROR);
    assert_true(holds(&answer, "no such file: nothing.proto"));
    assert_true(holds(&answer, "\x08\x05")); /* error_code NOT_FOUND */
    buffer_free(&answer);
    expect_kind(BY_FILENAME, "", ERROR);
    expect_kind(BY_EXTENSION, "", ERROR);
    expect_kind(BY_EXTENSION, "\x0a\x01x", ERROR);
    expect_kind(EXTENSION_NUMBERS, "vllm.grpc.engine.GenerateRequest", NUMBERS);
    expect_kind(EXTENSION_NUMBERS, "x", ERROR);
    struct buffer request = {0}, asked_nothing = {.limit_bytes = REFLECTION_ANSWER_BYTES_MAX};
    wire_text(&request, HOST, "only");
    assert_int_equal(reflection_answer((uint8_t *)request.data, request.size, &asked_nothing).code, ERR_OK);
    assert_memory_equal(asked_nothing.data, request.data,
                        request.size); /* valid_host has the number of host */
    assert_true(holds(&asked_nothing, "the request asks for nothing"));
    buffer_free(&request);
    buffer_free(&asked_nothing);
}

static void malformed_requests_are_refused(void **state)
{
    (void)state;
    const char *bad[] = {"\xff", "\x3a", "\x3a\x05x", "\x0f", "\x08\x80", "\x22\xff\xff\xff\xff\x0fx"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct buffer answer = {.limit_bytes = REFLECTION_ANSWER_BYTES_MAX};
        assert_int_equal(reflection_answer((const uint8_t *)bad[i], strlen(bad[i]), &answer).code,
                         ERR_INVALID_ARGUMENT);
        buffer_free(&answer);
    }
    struct buffer request = {0}, answer = {.limit_bytes = REFLECTION_ANSWER_BYTES_MAX};
    char name[REFLECTION_REQUEST_BYTES_MAX + 1];
    memset(name, 'x', sizeof name);
    wire_bytes(&request, BY_SYMBOL, name, sizeof name - 4);
    assert_int_equal(request.size, REFLECTION_REQUEST_BYTES_MAX);
    assert_int_equal(reflection_answer((uint8_t *)request.data, request.size, &answer).code, ERR_OK);
    buffer_clear(&request);
    wire_bytes(&request, BY_SYMBOL, name, sizeof name - 3);
    assert_int_equal(reflection_answer((uint8_t *)request.data, request.size, &answer).code,
                     ERR_INVALID_ARGUMENT);
    buffer_free(&request);
    buffer_free(&answer);
}

static void memory_may_be_short(void **state)
{
    (void)state;
    const uint32_t fields[] = {LIST_SERVICES, BY_FILENAME, BY_SYMBOL};
    const char *values[] = {"", "vllm_engine.proto", "none"};
    for (size_t i = 0; i < 3; i++) {
        struct buffer request = {0};
        wire_text(&request, fields[i], values[i]);
        err_t e = err_new(ERR_RESOURCE_EXHAUSTED, "not yet");
        int n_failed = 0;
        for (int nth = 0; e.code != ERR_OK; nth++) {
            struct buffer answer = {.limit_bytes = REFLECTION_ANSWER_BYTES_MAX};
            mem_fail_nth(nth);
            e = reflection_answer((uint8_t *)request.data, request.size, &answer);
            mem_fail_nth(-1);
            assert_true(e.code == ERR_OK || e.code == ERR_RESOURCE_EXHAUSTED);
            n_failed += e.code != ERR_OK;
            buffer_free(&answer);
        }
        assert_true(n_failed >= 2);
        buffer_free(&request);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(services_are_listed),
        cmocka_unit_test(a_file_comes_with_its_imports),
        cmocka_unit_test(symbols_of_every_kind),
        cmocka_unit_test(what_is_not_there_is_told),
        cmocka_unit_test(malformed_requests_are_refused),
        cmocka_unit_test(memory_may_be_short),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
