/* Every fault of the mock provider through a provider's call, and streams that are cut and mutated at random:
 * how an answer is written must not show, and what is wrong with it must. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/buffer.h"
#include "benchmarks/mock_answer.h"
#include "benchmarks/mock_orders.h"
#include "benchmarks/mock_provider.h"
#include "router/providers/provider_call.h"
#include "tests/router/answer_script.h"

enum { IN_FLIGHT = 32, FUZZED_CALLS = 2000, FUZZED_STREAMS = 10000, HUGE_BYTES = (16 << 20) + 1 };
enum { PATIENT_MS = 600000, IMPATIENT_MS = 300 };

static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
} ends = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER};

struct hearer {
    struct buffer text; /* pieces of text, "[name arguments]" of tools, "|stop" */
    struct provider_result result;
    bool has_ended; /* under the lock, which outlives a hearer, as whoever ends one may */
    bool is_open;
};

static err_t take_piece(void *context, const struct answer_piece *piece, bool *pause)
{
    struct hearer *hearer = context;
    (void)pause;
    if (hearer->is_open && (piece->kind != ANSWER_TOOL_CALL || piece->tool_name))
        assert_true(buffer_append_text(&hearer->text, "]"));
    if (piece->kind != ANSWER_TOOL_CALL || piece->tool_name)
        hearer->is_open = false;
    if (piece->kind == ANSWER_TOOL_CALL && piece->tool_name) {
        hearer->is_open = true;
        assert_true(buffer_append_format(&hearer->text, "[%s ", piece->tool_name));
    }
    if (piece->kind == ANSWER_FINISH)
        assert_true(buffer_append_format(&hearer->text, "|%s", answer_finish_name(piece->finish)));
    assert_true(buffer_append(&hearer->text, piece->text, piece->text_bytes));
    return err_ok();
}

static void take_end(void *context, const struct provider_result *result)
{
    struct hearer *hearer = context;
    hearer->result = *result;
    pthread_mutex_lock(&ends.lock);
    assert_false(hearer->has_ended);
    hearer->has_ended = true;
    pthread_cond_broadcast(&ends.changed);
    pthread_mutex_unlock(&ends.lock);
}

static const struct provider_handler HANDLER = {.piece = take_piece, .end = take_end};

struct fixture {
    struct mock_provider *mock;
    struct egress *egress;
    char url[64];
    struct provider_model model;
    struct provider provider;
    int64_t impatient_ms;
};

static void open_fixture(struct fixture *f, enum provider_kind kind)
{
    struct mock_options options = mock_options_default();
    options.huge_bytes = HUGE_BYTES;
    assert_int_equal(mock_provider_open(&options, &f->mock).code, ERR_OK);
    struct egress_options egress = egress_options_default();
    assert_int_equal(egress_open(&egress, &f->egress).code, ERR_OK);
    snprintf(f->url, sizeof f->url, "http://127.0.0.1:%u/v1", mock_provider_port(f->mock));
    f->model = (struct provider_model){
        .kind = kind, .name = "big", .max_output_tokens = 1000, .takes_tools = true, .takes_schemas = true};
    f->provider = (struct provider){.name = "mock",
                                    .kind = kind,
                                    .url = f->url,
                                    .first_byte_timeout_ms = PATIENT_MS,
                                    .chunk_timeout_ms = PATIENT_MS,
                                    .models = &f->model,
                                    .n_models = 1};
    f->impatient_ms = IMPATIENT_MS;
}

static void close_fixture(struct fixture *f)
{
    egress_close(f->egress);
    mock_provider_close(f->mock);
}

/* Only what never comes is waited for a short time: all else may take as long as a busy machine needs. */
static struct provider provider_for(const struct fixture *f, const char *prompt)
{
    struct provider provider = f->provider;
    if (strstr(prompt, "mock:hang"))
        provider.first_byte_timeout_ms = f->impatient_ms;
    if (strstr(prompt, "mock:stall"))
        provider.chunk_timeout_ms = f->impatient_ms;
    if (strstr(prompt, "mock:drip")) /* which no time between bytes ends */
        provider.total_timeout_ms = f->impatient_ms;
    return provider;
}

static void start(struct fixture *f, const char *prompt, const char *more, bool is_stream, struct hearer *out)
{
    char text[1024];
    json_error_t fault;
    struct provider_dropped dropped;
    uint64_t number;
    snprintf(text, sizeof text, "{\"messages\": [{\"role\": \"user\", \"content\": \"%s\"}]%s}", prompt,
             more);
    json_t *request = json_loads(text, 0, &fault);
    assert_non_null(request);
    *out = (struct hearer){.text = {.limit_bytes = 1 << 20}};
    assert_true(buffer_append_text(&out->text, ""));
    struct shareable shareable;
    assert_true(privacy_release(&(struct policy_decision){0}, false, request, &shareable));
    struct provider provider = provider_for(f, prompt);
    err_t e = provider_call_start(f->egress, &provider, &f->model, &shareable, is_stream, &HANDLER, out,
                                  &dropped, &number);
    assert_int_equal(e.code, ERR_OK);
    shareable_free(&shareable);
    json_decref(request);
}

static void wait_for(struct hearer *hearer)
{
    pthread_mutex_lock(&ends.lock);
    while (!hearer->has_ended)
        pthread_cond_wait(&ends.changed, &ends.lock);
    pthread_mutex_unlock(&ends.lock);
}

/* --- how it is written does not show */

static const char *const STYLES[] = {
    "none",  "crlf",     "cr",       "comments",   "bom",      "lines",   "no-space",
    "bytes", "trailing", "no-usage", "split-utf8", "segments", "no-done", "crlf,comments,lines,bom,segments"};

static void check_styles(enum provider_kind kind)
{
    struct fixture f;
    open_fixture(&f, kind);
    for (size_t i = 0; i < sizeof STYLES / sizeof *STYLES; i++) {
        for (int is_stream = 0; is_stream <= 1; is_stream++) {
            struct hearer hearer;
            char prompt[100], expected[200];
            bool odd = strcmp(STYLES[i], "split-utf8") == 0;
            snprintf(prompt, sizeof prompt, "mock:%s", STYLES[i]);
            start(&f, prompt, "", is_stream, &hearer);
            wait_for(&hearer);
            snprintf(expected, sizeof expected, "A mock answer to: %s%s|stop", prompt,
                     odd ? " Grüße 世界 😀 naïve …" : "");
            assert_int_equal(hearer.result.error.code, ERR_OK);
            assert_string_equal(hearer.text.data, expected);
            bool counts = strcmp(STYLES[i], "no-usage") != 0;
            assert_int_equal(hearer.result.usage.output_tokens, counts ? (odd ? 10 : 5) : -1);
            buffer_free(&hearer.text);
        }
    }
    close_fixture(&f);
}

static void test_styles_do_not_show(void **state)
{
    (void)state;
    check_styles(PROVIDER_OPENAI);
    check_styles(PROVIDER_ANTHROPIC);
}

static void test_tools_and_schemas(void **state)
{
    (void)state;
    static const char TOOLS[] =
        ", \"tools\": [{\"type\": \"function\", \"function\": {\"name\": \"look\", \"parameters\": "
        "{\"type\": "
        "\"object\", \"required\": [\"at\"], \"properties\": {\"at\": {\"enum\": [\"Köln\"]}}}}}]";
    static const char SCHEMA[] =
        ", \"response_format\": {\"type\": \"json_schema\", \"json_schema\": {\"name\": \"s\", \"schema\": "
        "{\"type\": \"object\", \"required\": [\"a\", \"b\"], \"properties\": {\"a\": {\"type\": "
        "\"integer\", "
        "\"minimum\": 3}, \"b\": {\"type\": \"array\", \"minItems\": 1, \"items\": {\"type\": \"boolean\"}}, "
        "\"c\": {\"type\": \"null\"}}}}}";
    static const struct {
        const char *prompt, *more, *expected;
    } CASES[] = {
        {"please look", TOOLS, "[look {\"at\":\"Köln\"}]|tool_calls"},
        {"mock:tools-at-once", TOOLS, "[look {\"at\":\"Köln\"}][look {\"at\":\"Köln\"}]|tool_calls"},
        {"an overlooked one", TOOLS, "A mock answer to: an overlooked one|stop"},
        {"fill it", SCHEMA, "{\"a\":3,\"b\":[false]}|stop"},
        {"mock:bad-schema", SCHEMA, "{\"mock\":\"not what was asked for|stop"},
        {"a b c d e f", ", \"max_tokens\": 2", "A mock|length"},
        {"mock:tokens=3", "", "These words are|stop"},
    };
    for (int kind = 0; kind < 2; kind++) {
        struct fixture f;
        open_fixture(&f, kind ? PROVIDER_ANTHROPIC : PROVIDER_OPENAI);
        for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
            for (int is_stream = 0; is_stream <= 1; is_stream++) {
                struct hearer hearer;
                start(&f, CASES[i].prompt, CASES[i].more, is_stream, &hearer);
                wait_for(&hearer);
                assert_string_equal(hearer.text.data, CASES[i].expected);
                assert_int_equal(hearer.result.error.code, ERR_OK);
                buffer_free(&hearer.text);
            }
        }
        close_fixture(&f);
    }
}

/* --- what is wrong does */

static const struct expected_fault {
    const char *name;
    enum err_code stream, whole;
    bool may_retry, has_pieces; /* of the stream; whoever calls joins the two */
} FAULTS[] = {
    {"302", ERR_INTERNAL, ERR_INTERNAL, false, false},
    {"400", ERR_INVALID_ARGUMENT, ERR_INVALID_ARGUMENT, false, false},
    {"401", ERR_UNAUTHENTICATED, ERR_UNAUTHENTICATED, false, false},
    {"402", ERR_FAILED_PRECONDITION, ERR_FAILED_PRECONDITION, false, false},
    {"403", ERR_PERMISSION_DENIED, ERR_PERMISSION_DENIED, false, false},
    {"404", ERR_NOT_FOUND, ERR_NOT_FOUND, false, false},
    {"408", ERR_DEADLINE_EXCEEDED, ERR_DEADLINE_EXCEEDED, true, false},
    {"413", ERR_INVALID_ARGUMENT, ERR_INVALID_ARGUMENT, false, false},
    {"422", ERR_INVALID_ARGUMENT, ERR_INVALID_ARGUMENT, false, false},
    {"429", ERR_RESOURCE_EXHAUSTED, ERR_RESOURCE_EXHAUSTED, true, false},
    {"429-money", ERR_FAILED_PRECONDITION, ERR_FAILED_PRECONDITION, false, false},
    {"500", ERR_UNAVAILABLE, ERR_UNAVAILABLE, true, false},
    {"502", ERR_UNAVAILABLE, ERR_UNAVAILABLE, true, false},
    {"503", ERR_UNAVAILABLE, ERR_UNAVAILABLE, true, false},
    {"504", ERR_DEADLINE_EXCEEDED, ERR_DEADLINE_EXCEEDED, true, false},
    {"529", ERR_UNAVAILABLE, ERR_UNAVAILABLE, true, false},
    {"overloaded", ERR_UNAVAILABLE, ERR_UNAVAILABLE, true, false},
    {"error-mid", ERR_UNAVAILABLE, ERR_UNAVAILABLE, true, true},
    {"error-object", ERR_UNAVAILABLE, ERR_UNAVAILABLE, true, true},
    {"finish-error", ERR_UNAVAILABLE, ERR_UNAVAILABLE, true, true}, /* OpenAI's form alone has it */
    {"reset", ERR_UNAVAILABLE, ERR_UNAVAILABLE, true, false},
    {"reset-mid", ERR_UNAVAILABLE, ERR_UNAVAILABLE, true, true},
    {"hang", ERR_DEADLINE_EXCEEDED, ERR_DEADLINE_EXCEEDED, true, false},
    {"stall", ERR_DEADLINE_EXCEEDED, ERR_DEADLINE_EXCEEDED, true, true},
    {"drip", ERR_DEADLINE_EXCEEDED, ERR_DEADLINE_EXCEEDED, true, false},
    {"garbled", ERR_DATA_LOSS, ERR_DATA_LOSS, true, true},
    {"noise", ERR_UNAVAILABLE, ERR_DATA_LOSS, true, false},
    {"huge-line", ERR_DATA_LOSS, ERR_OK, true, true},
    {"eof", ERR_DATA_LOSS, ERR_DATA_LOSS, true, true},
    {"cut", ERR_UNAVAILABLE, ERR_UNAVAILABLE, true, true},
    {"no-finish", ERR_UNAVAILABLE, ERR_UNAVAILABLE, true, true},
    {"empty", ERR_UNAVAILABLE, ERR_DATA_LOSS, true, false},
    {"html", ERR_DATA_LOSS, ERR_DATA_LOSS, true, false},
};
enum { N_FAULTS = sizeof FAULTS / sizeof *FAULTS };

static void start_fault(struct fixture *f, const struct expected_fault *fault, bool is_stream,
                        struct hearer *out)
{
    char prompt[100];
    snprintf(prompt, sizeof prompt, "one two three mock:%s", fault->name);
    start(f, prompt, "", is_stream, out);
}

/* A busy machine may stall before the mock has: then once more, with more patience. */
static void wait_for_fault(struct fixture *f, const struct expected_fault *fault, bool is_stream,
                           struct hearer *hearer)
{
    wait_for(hearer);
    while (is_stream && strcmp(fault->name, "stall") == 0 && !hearer->result.has_pieces &&
           hearer->result.error.code == ERR_DEADLINE_EXCEEDED && f->impatient_ms < PATIENT_MS) {
        f->impatient_ms *= 2;
        buffer_free(&hearer->text);
        start_fault(f, fault, is_stream, hearer);
        wait_for(hearer);
    }
}

/* All at once: those that wait for a time wait together. */
static void check_faults(enum provider_kind kind)
{
    static struct hearer hearers[N_FAULTS][2];
    struct fixture f;
    open_fixture(&f, kind);
    for (size_t i = 0; i < N_FAULTS; i++)
        for (int is_stream = 0; is_stream <= 1; is_stream++)
            start_fault(&f, &FAULTS[i], is_stream, &hearers[i][is_stream]);
    for (size_t i = 0; i < N_FAULTS; i++) {
        const struct expected_fault *expected = &FAULTS[i];
        for (int is_stream = 0; is_stream <= 1; is_stream++) {
            struct hearer *hearer = &hearers[i][is_stream];
            wait_for_fault(&f, expected, is_stream, hearer);
            bool has_it = kind == PROVIDER_OPENAI || strcmp(expected->name, "finish-error") != 0;
            enum err_code code = is_stream ? expected->stream : expected->whole;
            if (!has_it) {
                assert_int_equal(hearer->result.error.code, ERR_OK);
                buffer_free(&hearer->text);
                continue;
            }
            if (hearer->result.error.code != code ||
                (is_stream && (hearer->result.may_retry != expected->may_retry ||
                               hearer->result.has_pieces != expected->has_pieces)))
                fail_msg("%s, %s: %s (%s), may retry %d, has pieces %d", expected->name,
                         is_stream ? "stream" : "whole", err_code_name(hearer->result.error.code),
                         hearer->result.error.message, hearer->result.may_retry, hearer->result.has_pieces);
            if (strcmp(expected->name, "429") == 0 || strcmp(expected->name, "503") == 0)
                assert_int_equal(hearer->result.error.retry_after_ms, 1000);
            buffer_free(&hearer->text);
        }
    }
    close_fixture(&f);
}

static void test_every_fault_is_told(void **state)
{
    (void)state;
    check_faults(PROVIDER_OPENAI);
    check_faults(PROVIDER_ANTHROPIC);
}

static bool is_tested(const char *name)
{
    static const char *const OTHERS[] = {"cut-anywhere", "mutated", "tools-at-once", "bad-schema"};
    bool found = false;
    for (size_t i = 0; i < N_FAULTS; i++)
        found = found || strcmp(FAULTS[i].name, name) == 0;
    for (size_t i = 0; i < sizeof STYLES / sizeof *STYLES; i++)
        found = found || strcmp(STYLES[i], name) == 0;
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++)
        found = found || strcmp(OTHERS[i], name) == 0;
    return found;
}

/* Every fault and style that has a name is in one of the tests here. */
static void test_no_fault_is_forgotten(void **state)
{
    (void)state;
    const char *what, *name;
    for (size_t i = 0; (name = mock_fault_name(i, &what)) != NULL; i++) {
        struct mock_fault fault = {.course = COURSE_WHOLE};
        assert_int_equal(mock_fault_parse(name, strlen(name), &fault).code, ERR_OK);
        assert_true(mock_fault_is_any(&fault));
        if (!is_tested(name))
            fail_msg("%s is in no test", name);
    }
    struct mock_fault fault = {.course = COURSE_WHOLE};
    err_t e = mock_fault_parse("crlf,crfl", 9, &fault);
    assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(e.message, "\"crfl\" is no fault; there are 302, 400"));
}

/* --- at random */

static void fuzz_calls(enum provider_kind kind)
{
    static struct hearer hearers[IN_FLIGHT];
    static const char *const PROMPTS[] = {"a b c mock:cut-anywhere",
                                          "a b c mock:cut-anywhere,crlf,segments,comments",
                                          "a b c mock:mutated", "a b c mock:mutated,segments,lines,cr"};
    struct fixture f;
    size_t n_whole = 0, n_broken = 0;
    open_fixture(&f, kind);
    for (size_t n = 0; n < FUZZED_CALLS; n += IN_FLIGHT) {
        for (size_t i = 0; i < IN_FLIGHT; i++)
            start(&f, PROMPTS[i % 4], "", true, &hearers[i]);
        for (size_t i = 0; i < IN_FLIGHT; i++) {
            wait_for(&hearers[i]);
            bool is_whole = hearers[i].result.error.code == ERR_OK;
            assert_false(is_whole && i % 4 < 2); /* what was cut is never complete */
            n_whole += is_whole;
            n_broken += !is_whole && i % 4 >= 2;
            buffer_free(&hearers[i].text);
        }
    }
    assert_true(n_whole > 0 && n_broken > 0);
    assert_int_equal(egress_active(f.egress), 0);
    close_fixture(&f);
}

static void test_fuzzed_calls(void **state)
{
    (void)state;
    fuzz_calls(PROVIDER_OPENAI);
    fuzz_calls(PROVIDER_ANTHROPIC);
}

/* A stream of the mock's as bytes. */
static struct buffer make_stream(enum mock_form form, const char *fault_name, uint64_t number)
{
    static const char REQUEST[] = "{\"model\": \"m\", \"max_tokens\": 50, \"stream\": true, \"messages\": "
                                  "[{\"role\": \"user\", \"content\": \"a Wörd, and more\"}]}";
    struct mock_options options = mock_options_default();
    struct mock_fault fault = {.course = COURSE_WHOLE};
    struct mock_answer *answer;
    struct buffer stream = {.limit_bytes = 1 << 20};
    size_t told_bytes;
    assert_int_equal(mock_fault_parse(fault_name, strlen(fault_name), &fault).code, ERR_OK);
    assert_int_equal(
        mock_answer_make(&options, form, REQUEST, sizeof REQUEST - 1, &fault, number, &answer).code, ERR_OK);
    while (mock_answer_next(answer, &stream, &told_bytes) == MOCK_MORE) {
    }
    mock_answer_free(answer);
    return stream;
}

/* In pieces of every size up to 17, and whole: the same answer; cut: never a complete one. */
static void test_fuzzed_streams(void **state)
{
    (void)state;
    static const char *const NAMES[] = {"cut-anywhere", "mutated", "mutated,crlf,comments",
                                        "cut-anywhere,cr,lines"};
    const char *wanted = getenv("BANTAM_FUZZED_STREAMS"); /* more of them, by hand */
    uint64_t n_streams = wanted ? strtoull(wanted, NULL, 10) : FUZZED_STREAMS, n_whole = 0;
    for (uint64_t i = 0; i < n_streams; i++) {
        enum mock_form form = i % 2 ? MOCK_OPENAI : MOCK_ANTHROPIC;
        enum provider_kind kind = i % 2 ? PROVIDER_OPENAI : PROVIDER_ANTHROPIC;
        struct buffer stream = make_stream(form, NAMES[i / 2 % 4], i);
        char *whole = answer_script(kind, stream.data ? stream.data : "", stream.size, SIZE_MAX, true);
        char *cut = answer_script(kind, stream.data ? stream.data : "", stream.size, i % 17 + 1, true);
        assert_string_equal(whole, cut);
        bool is_complete = strstr(whole, " error(") == NULL && strncmp(whole, "error(", 6) != 0;
        assert_false(is_complete && i / 2 % 4 % 3 == 0);
        n_whole += is_complete;
        mem_free(whole);
        mem_free(cut);
        buffer_free(&stream);
    }
    assert_true(n_whole > n_streams / 10);
}

/* --- which fault an answer has */

static struct mock_fault choose(struct mock_orders *orders, int64_t now_ms, const char *header)
{
    struct mock_fault fault;
    struct http_text text = {header, header ? strlen(header) : 0};
    assert_int_equal(mock_orders_choose(orders, text, now_ms * 1000000, &fault).code, ERR_OK);
    return fault;
}

static void test_orders(void **state)
{
    (void)state;
    struct mock_orders orders = {.every = 3};
    static const char ALWAYS[] = "name=500", NEXT[] = "count=2&name=503,crlf", WRONG[] = "name=5";
    assert_int_equal(mock_orders_take(&orders, (struct http_text){ALWAYS, sizeof ALWAYS - 1}).code, ERR_OK);
    assert_int_equal(choose(&orders, 0, NULL).course, COURSE_WHOLE);
    assert_int_equal(choose(&orders, 0, NULL).course, COURSE_WHOLE);
    assert_int_equal(choose(&orders, 0, NULL).status, 500);
    assert_int_equal(mock_orders_take(&orders, (struct http_text){NEXT, sizeof NEXT - 1}).code, ERR_OK);
    assert_int_equal(choose(&orders, 0, NULL).status, 503);
    assert_int_equal(choose(&orders, 0, "lines").styles, STYLE_CRLF | STYLE_LINES);
    assert_int_equal(choose(&orders, 0, NULL).status, 500); /* the sixth */
    assert_int_equal(choose(&orders, 0, "429").status, 429);
    assert_int_equal(mock_orders_take(&orders, (struct http_text){WRONG, sizeof WRONG - 1}).code,
                     ERR_INVALID_ARGUMENT);
}

/* 120 a minute: two at once, then one each half second. */
static void test_requests_per_minute(void **state)
{
    (void)state;
    struct mock_orders orders = {.per_minute = 120, .tokens = 2};
    static const struct {
        int64_t at_ms;
        int status;
    } CASES[] = {{0, 0},     {0, 0},    {0, 429},  {499, 429}, {501, 0},
                 {502, 429}, {9000, 0}, {9000, 0}, {9000, 429}};
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++)
        assert_int_equal(choose(&orders, CASES[i].at_ms, NULL).status, CASES[i].status);
}

/* --- counts, and a client that leaves */

static void test_counts(void **state)
{
    (void)state;
    struct fixture f;
    struct hearer hearers[3];
    struct mock_counts counts;
    open_fixture(&f, PROVIDER_OPENAI);
    start(&f, "Hi", "", true, &hearers[0]);
    start(&f, "mock:503", "", true, &hearers[1]);
    start(&f, "mock:stall", "", true, &hearers[2]);
    for (int i = 0; i < 3; i++) {
        wait_for(&hearers[i]);
        buffer_free(&hearers[i].text);
    }
    egress_close(f.egress);
    do /* until it has seen that the last one is gone */
        mock_provider_counts(f.mock, &counts);
    while (counts.open > 0);
    assert_int_equal(counts.requests, 3);
    assert_int_equal(counts.answered, 2);
    assert_int_equal(counts.cancelled, 1);
    assert_int_equal(counts.faults, 2);
    mock_provider_close(f.mock);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_styles_do_not_show),
        cmocka_unit_test(test_tools_and_schemas),
        cmocka_unit_test(test_every_fault_is_told),
        cmocka_unit_test(test_no_fault_is_forgotten),
        cmocka_unit_test(test_fuzzed_calls),
        cmocka_unit_test(test_fuzzed_streams),
        cmocka_unit_test(test_orders),
        cmocka_unit_test(test_requests_per_minute),
        cmocka_unit_test(test_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
