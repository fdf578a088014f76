/* What is kept of an answer until it is whole, who gave it included: limits, and memory that runs out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "proto/answer_source.h"
#include "proto/whole_answer.h"
#include "tests/proto/answer_scripts.h"

static void costs_are_exact(void **state)
{
    (void)state;
    static const struct {
        int64_t cost;
        const char *text;
    } rows[] = {{-1, ""},
                {0, "0.0"},
                {1, "0.000000001"},
                {1500000, "0.0015"},
                {12000000000, "12.0"},
                {1230000000, "1.23"},
                {INT64_MAX, "9223372036.854775807"}};
    char text[ANSWER_COST_BYTES];
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        answer_cost_format(rows[i].cost, text);
        assert_string_equal(text, rows[i].text);
    }
}

static void long_texts_are_cut_between_characters(void **state)
{
    (void)state;
    char fits[ANSWER_SOURCE_TEXT_BYTES_MAX + 1], odd[ANSWER_SOURCE_TEXT_BYTES_MAX + 4];
    memset(fits, 'a', sizeof fits);
    fits[sizeof fits - 1] = '\0';
    memcpy(odd, fits, sizeof fits);
    memcpy(odd + ANSWER_SOURCE_TEXT_BYTES_MAX - 1, "\xe2\x82\xac", 4);
    struct answer_source source = script_source;
    source.model = fits;
    source.rule = odd;
    struct answer_source *kept = answer_source_copy(&source);
    assert_non_null(kept);
    assert_string_equal(kept->model, fits);
    assert_int_equal(strlen(kept->rule), ANSWER_SOURCE_TEXT_BYTES_MAX - 1);
    assert_string_equal(kept->dropped, "top_k,min_p");
    assert_int_equal(kept->attempts, 1);
    mem_free(kept);
}

static struct event call_event(const struct tool_call *call)
{
    return (struct event){
        .kind = EVENT_TOKENS, .text = "", .stop_token_id = -1, .tool_calls = call, .n_tool_calls = 1};
}

static void tool_calls_have_a_limit(void **state)
{
    (void)state;
    struct whole_answer *answer;
    assert_int_equal(whole_answer_create(1, &answer).code, ERR_OK);
    for (uint32_t i = 0; i <= WHOLE_ANSWER_TOOL_CALLS_MAX; i++) {
        struct tool_call call = {i, "id", "name", SCRIPT_BYTES("{}")};
        struct event event = call_event(&call);
        assert_int_equal(whole_answer_add(answer, &event, false).code,
                         i < WHOLE_ANSWER_TOOL_CALLS_MAX ? ERR_OK : ERR_RESOURCE_EXHAUSTED);
        /* More of a call that is there may always come. */
        call.index = 0;
        call.id = call.name = NULL;
        assert_int_equal(whole_answer_add(answer, &event, false).code, ERR_OK);
    }
    whole_answer_destroy(answer);
    /* And bytes: of arguments as of text. */
    assert_int_equal(whole_answer_create(1, &answer).code, ERR_OK);
    enum { PIECE_BYTES = 1 << 20 };
    char *piece = mem_alloc(PIECE_BYTES);
    struct tool_call call = {0, "id", "name", piece, PIECE_BYTES};
    struct event event = call_event(&call);
    enum err_code code = ERR_OK;
    size_t n = 0;
    for (; code == ERR_OK; n++)
        code = whole_answer_add(answer, &event, false).code;
    assert_int_equal(code, ERR_RESOURCE_EXHAUSTED);
    assert_int_equal(n, WHOLE_ANSWER_BYTES_MAX / PIECE_BYTES);
    mem_free(piece);
    whole_answer_destroy(answer);
}

static err_t add_script(struct whole_answer *answer, const struct event *events, size_t n_events)
{
    for (size_t i = 0; i < n_events; i++)
        TRY(whole_answer_add(answer, &events[i], false));
    return err_ok();
}

static void memory_may_end_anywhere(void **state)
{
    (void)state;
    int64_t nth = 0;
    for (bool failed = true; failed; nth++) {
        struct whole_answer *answer = NULL;
        mem_fail_nth(nth);
        err_t e = whole_answer_create(1, &answer);
        if (e.code == ERR_OK)
            e = add_script(answer, script_tool_answer, 3);
        mem_fail_nth(-1);
        failed = e.code != ERR_OK;
        if (failed)
            assert_int_equal(e.code, ERR_RESOURCE_EXHAUSTED);
        whole_answer_destroy(answer);
    }
    assert_true(nth > 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(costs_are_exact),
        cmocka_unit_test(long_texts_are_cut_between_characters),
        cmocka_unit_test(tool_calls_have_a_limit),
        cmocka_unit_test(memory_may_end_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
