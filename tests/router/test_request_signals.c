/* What requests show of themselves, and what their callers wish. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "router/money/money.h"
#include "router/policy/request_signals.h"

static struct request_signals signals_of(const char *json)
{
    json_error_t error;
    json_t *request = json_loads(json, 0, &error);
    if (request == NULL)
        fail_msg("%s", error.text);
    struct request_signals signals = request_signals_of(request);
    json_decref(request);
    return signals;
}

static struct request_signals signals_of_text(const char *text)
{
    json_t *request = json_pack("{s:[{s:s, s:s}]}", "messages", "role", "user", "content", text);
    assert_non_null(request);
    struct request_signals signals = request_signals_of(request);
    json_decref(request);
    return signals;
}

static void parts_and_turns_are_counted(void **state)
{
    (void)state;
    struct request_signals signals =
        signals_of("{\"messages\": [{\"role\": \"system\", \"content\": \"Be kind.\"}, {\"role\": \"user\", "
                   "\"content\": [{\"type\":"
                   " \"text\", \"text\": \"Look:\"}, {\"type\": \"image_url\"}, {\"type\": \"image_url\"}, "
                   "{\"type\": \"input_audio\"},"
                   " {\"type\": \"file\"}]}, {\"role\": \"assistant\", \"content\": null, \"tool_calls\": "
                   "[{}]}, {\"role\": \"tool\","
                   " \"content\": \"5\"}, {\"role\": \"user\", \"content\": \"And?\"}], \"tools\": [{}, {}, "
                   "{}], \"max_tokens\": 50,"
                   " \"response_format\": {\"type\": \"json_schema\"}}");
    assert_int_equal(signals.n_turns, 2);
    assert_int_equal(signals.n_images, 2);
    assert_int_equal(signals.n_audio, 1);
    assert_int_equal(signals.n_files, 1);
    assert_int_equal(signals.n_tools, 3);
    assert_true(signals.calls_tools && signals.has_schema && !signals.has_code);
    assert_int_equal(signals.text_bytes, 8 + 5 + 1 + 4);
    assert_int_equal(signals.max_tokens, 50);
    signals = signals_of("{\"prompt\": \"Once\", \"max_tokens\": 5, \"max_completion_tokens\": 9}");
    assert_int_equal(signals.text_bytes, 4);
    assert_int_equal(signals.max_tokens, 9);
    assert_int_equal(signals.script, SCRIPT_LATIN);
    signals = signals_of("{\"messages\": 5, \"tools\": {}, \"max_tokens\": -1, \"response_format\": \"x\"}");
    assert_int_equal(signals.n_turns + signals.n_tools + signals.max_tokens + signals.has_schema, 0);
}

static void scripts_are_told_apart(void **state)
{
    (void)state;
    const struct {
        const char *text;
        enum script script;
    } CASES[] = {
        {"Grüße aus Köln", SCRIPT_LATIN},
        {"Καλημέρα κόσμε", SCRIPT_GREEK},
        {"Привет, мир", SCRIPT_CYRILLIC},
        {"שלום עולם", SCRIPT_HEBREW},
        {"مرحبا بالعالم", SCRIPT_ARABIC},
        {"नमस्ते दुनिया", SCRIPT_INDIC},
        {"สวัสดีชาวโลก", SCRIPT_THAI},
        {"안녕하세요 세계", SCRIPT_HANGUL},
        {"你好，世界", SCRIPT_HAN},
        {"東京都に住んでいます", SCRIPT_KANA},
        {"日本国憲法前文の全文はこちら", SCRIPT_KANA},
        {"12345 !?", SCRIPT_NONE},
        {"", SCRIPT_NONE},
        {"Привет hello привет", SCRIPT_CYRILLIC},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        enum script script = signals_of_text(CASES[i].text).script;
        if (script != CASES[i].script)
            fail_msg("%s is %s", CASES[i].text, SCRIPT_NAMES[script]);
    }
    assert_string_equal(SCRIPT_NAMES[SCRIPT_HAN], "han");
    assert_string_equal(SCRIPT_NAMES[SCRIPTS - 1], "other");
}

/* An answer in another language, a thanks or a system prompt do not change it. */
static void the_last_message_with_a_language_tells_it(void **state)
{
    (void)state;
    struct request_signals signals = signals_of(
        "{\"messages\": [{\"role\": \"system\", \"content\": \"You are a helper for all of us, with the "
        "patience of a saint.\"},"
        " {\"role\": \"user\", \"content\": \"What is the best way to do this?\"},"
        " {\"role\": \"assistant\", \"content\": \"Je ne sais pas, mais vous pouvez le faire avec elle.\"},"
        " {\"role\": \"user\", \"content\": [{\"type\": \"text\", \"text\": \"Und wie mache ich das auf "
        "Deutsch?\"}]},"
        " {\"role\": \"user\", \"content\": \"Danke!\"}]}");
    assert_string_equal(LANGUAGE_NAMES[signals.language], "de");
    assert_int_equal(signals_of_text("Hello").language, LANGUAGE_UNKNOWN);
    assert_int_equal(signals_of("{\"prompt\": \"Why is it so that the sun is red?\"}").language, LANGUAGE_EN);
}

static void code_is_seen_and_prose_is_not(void **state)
{
    (void)state;
    const char *CODE[] = {
        "Why does this fail?\n```\nx\n```", "#include <stdio.h>\nint main(void)\n{\n    return 0;\n}\n",
        "def f(x):\n    return x + g(x)\n", "SELECT a FROM b WHERE c = 5;\nSELECT 1;\n",
        "const a = 5\nlet b = a\n",
    };
    const char *PROSE[] = {
        "Please summarise this letter for me.",
        "from my window I see the sea\nreturn to me\nclass starts at nine",
        "We met; we talked; we left.\nIt was fine.",
        "One line of code: x = 5;",
        "",
    };
    for (size_t i = 0; i < sizeof CODE / sizeof *CODE; i++) {
        if (!signals_of_text(CODE[i]).has_code)
            fail_msg("no code in: %s", CODE[i]);
    }
    for (size_t i = 0; i < sizeof PROSE / sizeof *PROSE; i++) {
        if (signals_of_text(PROSE[i]).has_code)
            fail_msg("code in: %s", PROSE[i]);
    }
}

static void only_the_first_part_of_a_long_text_is_looked_at(void **state)
{
    (void)state;
    size_t size = 4 << 20;
    char *text = mem_alloc(size + 1);
    assert_non_null(text);
    memset(text, 'a', size);
    memcpy(text + (1 << 20), "\n```\n", 5);
    struct request_signals signals = signals_of_text(text);
    assert_int_equal(signals.text_bytes, size);
    assert_false(signals.has_code);
    mem_free(text);
}

static void assert_hint(const char *name, const char *value, enum err_code code)
{
    struct route_hints hints = ROUTE_HINTS_NONE;
    assert_int_equal(route_hint_set(&hints, name, value).code, code);
}

static void hints_are_read_and_checked(void **state)
{
    (void)state;
    struct route_hints hints = ROUTE_HINTS_NONE;
    json_t *request =
        json_loads("{\"bantam\": {\"route\": \"frontier\", \"privacy\": \"local_only\", \"complexity\": 7,"
                   " \"max_cost\": \"0.01\", \"task\": \"tickets\"}}",
                   0, NULL);
    assert_int_equal(route_hints_of_body(request, &hints).code, ERR_OK);
    json_decref(request);
    assert_int_equal(hints.route, WISH_FRONTIER);
    assert_true(hints.local_only);
    assert_int_equal(hints.complexity, 7);
    assert_int_equal(hints.max_cost, NANODOLLARS_PER_DOLLAR / 100);
    assert_string_equal(hints.task, "tickets");
    /* A header may keep it here; a body cannot take that back. */
    assert_int_equal(route_hint_set(&hints, "privacy", "shareable").code, ERR_OK);
    assert_true(hints.local_only);

    assert_hint("route", "auto", ERR_OK);
    assert_hint("route", "moon", ERR_INVALID_ARGUMENT);
    assert_hint("privacy", "none", ERR_INVALID_ARGUMENT);
    assert_hint("complexity", "0", ERR_INVALID_ARGUMENT);
    assert_hint("complexity", "11", ERR_INVALID_ARGUMENT);
    assert_hint("complexity", "5.5", ERR_INVALID_ARGUMENT);
    assert_hint("complexity", " 5", ERR_INVALID_ARGUMENT);
    assert_hint("max-cost", "cheap", ERR_INVALID_ARGUMENT);
    assert_hint("colour", "red", ERR_INVALID_ARGUMENT);
    assert_hint("task", "0123456789012345678901234567890123456789012345678901234567890123",
                ERR_INVALID_ARGUMENT);
    const char *BAD[] = {"{\"bantam\": 5}", "{\"bantam\": {\"route\": 5}}", "{\"bantam\": {\"route\": {}}}",
                         "{\"bantam\": {\"rout\": \"auto\"}}"};
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        request = json_loads(BAD[i], 0, NULL);
        err_t e = route_hints_of_body(request, &hints);
        assert_int_equal(e.code, ERR_INVALID_ARGUMENT);
        assert_non_null(strstr(e.message, "bantam"));
        json_decref(request);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_and_turns_are_counted),
        cmocka_unit_test(scripts_are_told_apart),
        cmocka_unit_test(the_last_message_with_a_language_tells_it),
        cmocka_unit_test(code_is_seen_and_prose_is_not),
        cmocka_unit_test(only_the_first_part_of_a_long_text_is_looked_at),
        cmocka_unit_test(hints_are_read_and_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
