/* Failures of providers, as they send them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "router/providers/provider_error.h"

static err_t of_response(int status, const char *body)
{
    return provider_error_of_response(status, body, strlen(body), 1500);
}

static void a_status_decides_the_code(void **state)
{
    (void)state;
    const struct {
        int status;
        enum err_code code;
        bool may_retry;
    } CASES[] = {
        {400, ERR_INVALID_ARGUMENT, false},
        {401, ERR_UNAUTHENTICATED, false},
        {402, ERR_FAILED_PRECONDITION, false},
        {403, ERR_PERMISSION_DENIED, false},
        {404, ERR_NOT_FOUND, false},
        {408, ERR_DEADLINE_EXCEEDED, true},
        {409, ERR_INVALID_ARGUMENT, false},
        {413, ERR_INVALID_ARGUMENT, false},
        {422, ERR_INVALID_ARGUMENT, false},
        {429, ERR_RESOURCE_EXHAUSTED, true},
        {500, ERR_UNAVAILABLE, true},
        {502, ERR_UNAVAILABLE, true},
        {503, ERR_UNAVAILABLE, true},
        {504, ERR_DEADLINE_EXCEEDED, true},
        {529, ERR_UNAVAILABLE, true},
        {301, ERR_INTERNAL, false},
        {0, ERR_INTERNAL, false},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        err_t e = of_response(CASES[i].status, "{\"error\": {\"message\": \"why\"}}");
        assert_int_equal(e.code, CASES[i].code);
        assert_int_equal(provider_error_may_retry(e), CASES[i].may_retry);
        assert_int_equal(e.retry_after_ms, CASES[i].may_retry ? 1500 : 0);
        assert_non_null(strstr(e.message, "why"));
    }
}

static void bodies_of_every_kind_are_read(void **state)
{
    (void)state;
    const struct {
        const char *body, *message;
    } CASES[] = {
        {"{\"error\": {\"message\": \"m\", \"type\": \"t\", \"code\": \"c\"}}",
         "the provider answers 500 c: m"},
        {"{\"type\": \"error\", \"error\": {\"type\": \"api_error\", \"message\": \"m\"}}",
         "the provider answers 500 api_error: m"},
        {"{\"error\": \"m\"}", "the provider answers 500: m"},
        {"{\"object\": \"error\", \"message\": \"m\", \"code\": 500}", "the provider answers 500: m"},
        {"{\"detail\": \"m\"}", "the provider answers 500: m"},
        {"<html>Bad Gateway</html>", "the provider answers 500: it says nothing more"},
        {"[]", "the provider answers 500: it says nothing more"},
        {"", "the provider answers 500: it says nothing more"},
        {"{\"error\": {\"message\": {}, \"code\": []}}", "the provider answers 500: it says nothing more"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        assert_string_equal(of_response(500, CASES[i].body).message, CASES[i].message);
    assert_string_equal(provider_error_of_response(500, NULL, 0, 0).message,
                        "the provider answers 500: it says nothing more");
}

static void spent_money_is_not_tried_again(void **state)
{
    (void)state;
    const struct {
        int status;
        const char *body;
    } CASES[] = {
        {429, "{\"error\": {\"message\": \"m\", \"type\": \"insufficient_quota\", \"code\": "
              "\"insufficient_quota\"}}"},
        {429, "{\"error\": {\"message\": \"m\", \"code\": \"billing_hard_limit_reached\"}}"},
        {400, "{\"type\": \"error\", \"error\": {\"type\": \"invalid_request_error\","
              " \"message\": \"Your credit balance is too low to access the API.\"}}"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        err_t e = of_response(CASES[i].status, CASES[i].body);
        assert_int_equal(e.code, ERR_FAILED_PRECONDITION);
        assert_false(provider_error_may_retry(e));
        assert_int_equal(e.retry_after_ms, 0);
    }
}

static void errors_inside_a_stream_have_a_code_too(void **state)
{
    (void)state;
    const struct {
        const char *json;
        enum err_code code;
    } CASES[] = {
        {"{\"error\": {\"code\": 502, \"message\": \"m\"}}", ERR_UNAVAILABLE},
        {"{\"error\": {\"code\": 429, \"message\": \"m\"}}", ERR_RESOURCE_EXHAUSTED},
        {"{\"error\": {\"type\": \"overloaded_error\", \"message\": \"m\"}, \"type\": \"error\"}",
         ERR_UNAVAILABLE},
        {"{\"error\": {\"type\": \"rate_limit_error\", \"message\": \"m\"}}", ERR_RESOURCE_EXHAUSTED},
        {"{\"error\": {\"type\": \"invalid_request_error\", \"message\": \"m\"}}", ERR_INVALID_ARGUMENT},
        {"{\"error\": {\"code\": \"insufficient_quota\", \"message\": \"m\"}}", ERR_FAILED_PRECONDITION},
        {"{\"error\": {\"message\": \"m\"}}", ERR_UNAVAILABLE},
        {"{\"error\": {\"code\": 7, \"message\": \"m\"}}", ERR_UNAVAILABLE},
        {"{\"error\": \"m\"}", ERR_UNAVAILABLE},
        {"{\"object\": \"error\", \"message\": \"m\", \"type\": \"BadRequestError\", \"code\": 400}",
         ERR_INVALID_ARGUMENT},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        json_t *root = json_loads(CASES[i].json, 0, NULL);
        assert_non_null(root);
        err_t e;
        assert_true(provider_error_of_json(root, &e));
        assert_int_equal(e.code, CASES[i].code);
        json_decref(root);
    }
    const char *NO_ERRORS[] = {"{}", "{\"error\": null}", "{\"object\": \"chat.completion.chunk\"}", "[]"};
    for (size_t i = 0; i < sizeof NO_ERRORS / sizeof *NO_ERRORS; i++) {
        json_t *root = json_loads(NO_ERRORS[i], 0, NULL);
        err_t e;
        assert_false(provider_error_of_json(root, &e));
        json_decref(root);
    }
}

static void a_wait_is_read_from_the_headers(void **state)
{
    (void)state;
    const int64_t now_s = 1767225600; /* Thu, 01 Jan 2026 00:00:00 GMT */
    const struct {
        const char *value;
        int64_t ms;
    } CASES[] = {
        {"0", 0},
        {"2", 2000},
        {"0.5", 500},
        {"2 ", 2000},
        {"", -1},
        {"-1", -1},
        {"soon", -1},
        {"2s", -1},
        {"0x10", -1},
        {"1e9", -1},
        {"nan", -1},
        {"999999999999", PROVIDER_RETRY_AFTER_MS_MAX},
        {"99999999999999999999999999999999999999", -1},
        {"Thu, 01 Jan 2026 00:00:07 GMT", 7000},
        {"Wed, 31 Dec 2025 23:59:59 GMT", 0},
        {"Thu, 01 Jan 2026 00:00:07", -1},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        assert_int_equal(provider_retry_after_ms(CASES[i].value, now_s), CASES[i].ms);
    assert_int_equal(provider_retry_after_ms_exact("250"), 250);
    assert_int_equal(provider_retry_after_ms_exact("250.5"), 250);
    assert_int_equal(provider_retry_after_ms_exact("Thu, 01 Jan 2026 00:00:07 GMT"), -1);
}

static void resets_of_rate_limits_come_in_many_forms(void **state)
{
    (void)state;
    const int64_t now_s = 1767225600;
    const struct {
        const char *value;
        int64_t ms;
    } CASES[] = {
        {"20ms", 20},
        {"6m0s", 360000},
        {"1h2m3.5s", 3723500},
        {"1s", 1000},
        {"0s", 0},
        {"-1", -1},
        {"", -1},
        {"12", 12000},
        {"1767225610", 10000},
        {"1767225600250", 250},
        {"1767225590", 0},
        {"6 minutes", -1},
        {"5x", -1},
        {"1m2", -1},
        {"2026-01-01T00:00:10Z", 10000},
        {"2026-01-01T01:00:10.5+01:00", 10000},
        {"2025-12-31T22:30:10-01:30", 10000},
        {"2025-12-31T23:59:50Z", 0},
        {"2026-01-01T00:00:10", -1},
        {"2026-01-01T00:00:10+1:00", -1},
        {"2026-01-01T00:00:10Zulu", -1},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        assert_int_equal(provider_rate_reset_ms(CASES[i].value, now_s), CASES[i].ms);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_status_decides_the_code),
        cmocka_unit_test(bodies_of_every_kind_are_read),
        cmocka_unit_test(spent_money_is_not_tried_again),
        cmocka_unit_test(errors_inside_a_stream_have_a_code_too),
        cmocka_unit_test(a_wait_is_read_from_the_headers),
        cmocka_unit_test(resets_of_rate_limits_come_in_many_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
