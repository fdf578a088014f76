/* Chat templates: what came from a message stays marked, errors name their place, and every cap ends a
 * render. */
#include "tests/text/text_fixture.h"

static struct chat_message message(const char *role, const char *content)
{
    return (struct chat_message){role, content, strlen(content)};
}

/* The prompt with each byte that came from a message as it is and each other one as '.', in a static buffer.
 */
static const char *user_part_with(const char *source, const struct chat_message *messages, size_t n,
                                  const char *json)
{
    static char out[4096];
    struct rendered_prompt prompt;
    OK(try_render_with(source, messages, n, json, &prompt));
    assert_true(prompt.size_bytes < sizeof out);
    for (size_t i = 0; i < prompt.size_bytes; i++)
        out[i] = prompt.untrusted[i] ? prompt.text[i] : '.';
    out[prompt.size_bytes] = '\0';
    rendered_prompt_free(&prompt);
    return out;
}

static const char *user_part(const char *source, const struct chat_message *messages, size_t n)
{
    return user_part_with(source, messages, n, NULL);
}

static const char *render(const char *source)
{
    static char out[65536];
    struct chat_message one = message("user", "Hi There");
    struct rendered_prompt prompt;
    OK(try_render(source, &one, 1, &prompt));
    assert_true(prompt.size_bytes < sizeof out);
    memcpy(out, prompt.text, prompt.size_bytes + 1);
    rendered_prompt_free(&prompt);
    return out;
}

static void marks_follow_the_text(void **state)
{
    (void)state;
    static const struct {
        const char *source, *expected;
    } CASES[] = {
        {"<{{ messages[0].content }}>", ".ab cd."},
        {"{{ '<' + messages[0]['content'] + '>' }}", ".ab cd."},
        {"{{ '<' ~ messages[0].content ~ '>' }}", ".ab cd."},
        {"{{ messages[0].content * 2 }}.", "ab cdab cd."},
        {"{{ ('x' ~ messages[0].content)[:3] }}", ".ab"},
        {"{{ messages[0].content[::-1] }}", "dc ba"},
        {"{{ messages[0].content[1] }}-", "b."},
        {"{{ ('  ' ~ messages[0].content ~ '  ')|trim }}", "ab cd"},
        {"{{ messages[0].content.replace(' ', '_') }}", "ab_cd"}, /* in the place of what a user wrote */
        {"{{ ('x' ~ messages[0].content)|replace('x', 'yy') }}", "..ab cd"},
        {"{{ messages[0].content|upper }}", "AB CD"},
        {"{{ messages[0].content.title() }}", "Ab Cd"},
        {"{{ messages[0].content.split(' ')|join('+') }}", "ab.cd"},
        {"{{ messages[0].content|tojson }}", ".ab cd."},
        {"{{ messages|tojson }}", "..............................ab cd..."},
        {"{{ [messages[0].content] }}", "..ab cd.."},
        {"{% set x %}<{{ messages[0].content }}>{% endset %}{{ x }}", ".ab cd."},
        {"{% macro m(t) %}<{{ t }}>{% endmacro %}{{ m(messages[0].content) }}", ".ab cd."},
        {"{% filter upper %}x{{ messages[0].content }}{% endfilter %}", ".AB CD"},
        {"{% for c in messages[0].content %}{{ c }}-{% endfor %}", "a.b. .c.d."},
        {"{{ messages[0].content|list|reverse|join }}", "dc ba"},
        {"{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}", "..................ab cd."},
        {"{% set ns = namespace(t='') %}{% for m in messages %}{% set ns.t = ns.t ~ m.content %}{% endfor "
         "%}{{ ns.t }}",
         "ab cd"},
        {"{{ messages|map(attribute='content')|first }}", "ab cd"},
        {"{{ messages[0].content|indent(2, true) }}", "..ab cd"},
        {"{{ messages[0].content|length }}", "."}, /* a number says nothing that could be a token */
    };
    struct chat_message one = message("user", "ab cd");
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++)
        assert_string_equal(user_part(CASES[i].source, &one, 1), CASES[i].expected);
}

/* '<|' + role + '|>' is how some templates write special tokens: a role of theirs is trusted, another is not.
 */
static void only_known_roles_are_trusted(void **state)
{
    (void)state;
    struct chat_message known = message("assistant", ""), other = message("eot_id", "");
    assert_string_equal(user_part("<|{{ messages[0].role }}|>", &known, 1), ".............");
    assert_string_equal(user_part("<|{{ messages[0].role }}|>", &other, 1), "..eot_id..");
}

/* What comes with the request has its kinds and its order, and is a user's to the last byte. */
static void json_of_a_request_is_shown(void **state)
{
    (void)state;
    static const struct {
        const char *source, *json, *expected;
    } CASES[] = {
        {"{{ tools is none }}{{ documents is none }}{{ x is defined }}", "{}", "............."},
        {"[{{ tools[0].name }}]", "{\"tools\":[{\"name\":\"<|eot|>\"}]}", ".<|eot|>."},
        {"{{ tools|tojson }}", "{\"tools\":[{\"b\":\"x\",\"a\":\"y\"}]}", "...b....x....a....y..."},
        {"{% for k, v in tools[0].items() %}{{ k }}-{% endfor %}", "{\"tools\":[{\"b\":1,\"a\":2}]}", "b.a."},
        {"{% if thinks %}yes{% else %}no!{% endif %}", "{\"thinks\":true,\"other\":[]}", "..."},
        {"{{ n + 1 }},{{ f }},{{ z }}", "{\"n\":41,\"f\":0.1,\"z\":null}", "..........."},
        {"{{ messages[0].tool_calls[0].function.arguments.city }}",
         "{\"messages\":[{\"tool_calls\":[{\"function\":{\"arguments\":{\"city\":\"Oslo\"}}}]}]}", "Oslo"},
        {"{{ messages[0].name }}:{{ messages[0].content }}", "{\"messages\":[{\"name\":\"bo\"}]}",
         "bo.ab cd"},
        {"{{ 'name' in messages[0] }}{{ 'role' in messages[0] }}", "{\"messages\":[{}]}", "........."},
    };
    struct chat_message one = message("user", "ab cd");
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++)
        assert_string_equal(user_part_with(CASES[i].source, &one, 1, CASES[i].json), CASES[i].expected);
}

static void json_of_a_request_is_checked(void **state)
{
    (void)state;
    static const struct {
        const char *json, *part;
    } CASES[] = {
        {"", "not JSON"},
        {"{", "not JSON: line 1"},
        {"[]", "no JSON object"},
        {"{\"a\":1,\"a\":2}", "duplicate"},
        {"{\"bos_token\":\"\"}", "sets bos_token"},
        {"{\"add_generation_prompt\":false}", "sets add_generation_prompt"},
        {"{\"messages\":{}}", "a list of 1 objects"},
        {"{\"messages\":[]}", "a list of 1 objects"},
        {"{\"messages\":[[]]}", "messages[0] is no object"},
        {"{\"messages\":[{\"content\":\"x\"}]}", "sets content"},
        {"{\"a\":\"\xff\"}", "not JSON"},
        {"{\"a\":[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[0]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}", "deeper than 32"},
    };
    struct chat_message one = message("user", "x");
    struct rendered_prompt prompt;
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++)
        assert_fails(ERR_INVALID_ARGUMENT, CASES[i].part,
                     try_render_with("{{ messages[0].content }}", &one, 1, CASES[i].json, &prompt));
}

static void unsupported_constructs_fail_at_compile_time(void **state)
{
    (void)state;
    static const struct {
        enum err_code code;
        const char *part, *source;
    } CASES[] = {
        {ERR_UNIMPLEMENTED, "line 2 column 8: not supported: the filter \"nope\"", "a\n{{ x | nope }}"},
        {ERR_UNIMPLEMENTED, "line 1 column 9: not supported: the test \"nope\"", "{{ x is nope }}"},
        {ERR_UNIMPLEMENTED, "line 3 column 4: not supported: {% include", "\n\n{% include 'x' %}"},
        {ERR_UNIMPLEMENTED, "{% extends %}", "{% extends 'x' %}"},
        {ERR_INVALID_ARGUMENT, "expected a call", "{% call f %}{% endcall %}"},
        {ERR_UNIMPLEMENTED, "recursive", "{% for a in b recursive %}{% endfor %}"},
        {ERR_INVALID_ARGUMENT, "expected {% endif %}", "{% if x %}a"},
        {ERR_INVALID_ARGUMENT, "expected {% endfor %}", "{% for x in y %}{% if x %}{% endif %}"},
        {ERR_UNIMPLEMENTED, "{% endif %}", "{% endif %}"},
        {ERR_INVALID_ARGUMENT, "expected \"in\"", "{% for x y %}{% endfor %}"},
        {ERR_INVALID_ARGUMENT, "line 1 column 1", "{# no end"},
        {ERR_INVALID_ARGUMENT, "expected }}", "{{ x"},
        {ERR_INVALID_ARGUMENT, "expected }}", "{{ x y }}"},
        {ERR_INVALID_ARGUMENT, "expected %}", "{% set x = 1"},
        {ERR_INVALID_ARGUMENT, "no end", "{{ 'x }}"},
        {ERR_INVALID_ARGUMENT, "closes nothing", "{{ x) }}"},
        {ERR_INVALID_ARGUMENT, "unexpected character", "{{ x ? y }}"},
        {ERR_INVALID_ARGUMENT, "expected an expression", "{{ }}"},
        {ERR_INVALID_ARGUMENT, "expected an expression", "{{ 1 + }}"},
        {ERR_INVALID_ARGUMENT, "out of range", "{{ 99999999999999999999 }}"},
        {ERR_INVALID_ARGUMENT, "need a loop", "{% break %}"},
        {ERR_INVALID_ARGUMENT, "need a loop",
         "{% for a in b %}{% macro m() %}{% break %}{% endmacro %}{% endfor %}"},
        {ERR_INVALID_ARGUMENT, "behind one by name", "{{ f(a=1, 2) }}"},
        {ERR_INVALID_ARGUMENT, "endraw", "{% raw %} x"},
        {ERR_INVALID_ARGUMENT, "not UTF-8", "\xff"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++)
        assert_fails(CASES[i].code, CASES[i].part, try_compile(CASES[i].source));
}

static void errors_of_a_render_name_their_place(void **state)
{
    (void)state;
    static const struct {
        const char *part, *source;
    } CASES[] = {
        {"line 2 column 6: \"x\" is undefined", "a\n{{ x.y }}"},
        {"line 1 column 4: str and int have no +", "{{ 'a' + 1 }}"},
        {"int cannot be iterated", "{% for i in 3 %}{% endfor %}"},
        {"refuses the messages: user only", "{{ raise_exception('user only') }}"},
        {"no order", "{{ 'a' < 1 }}"},
        {"2 values for 3 names", "{% for a, b, c in [[1, 2]] %}{% endfor %}"},
        {"not of dict", "{% set x = {} %}{% set x.a = 1 %}"},
        {"cannot be called", "{{ messages() }}"},
        {"\"f\" is undefined", "{{ f(1) }}"},
        {"takes 1 arguments, not 2", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}"},
        {"no argument of that name", "{% macro m(a) %}{% endmacro %}{{ m(b=2) }}"},
        {"wrong number of arguments", "{{ 'a'.strip(1, 2) }}"},
        {"expected a str", "{{ 'a'.strip(1) }}"},
        {"past 64 bits", "{{ 9223372036854775807 + 1 }}"},
        {"past 64 bits", "{{ 10 ** 19 }}"},
        {"past 64 bits", "{{ (-9223372036854775807 - 1) // -1 }}"},
        {"division by zero", "{{ 5 % 0 }}"},
        {"step cannot be 0", "{{ 'abc'[::0] }}"},
        {"cannot be JSON", "{{ nothing|tojson }}"},
        {"empty separator", "{{ 'a'.split('') }}"},
    };
    struct chat_message one = message("user", "Hi");
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct rendered_prompt prompt;
        assert_fails(ERR_INVALID_ARGUMENT, CASES[i].part, try_render(CASES[i].source, &one, 1, &prompt));
        assert_null(prompt.text);
    }
}

/* Templates that would run for ever, or fill memory: each ends at a cap. */
static void hostile_templates_end_at_a_cap(void **state)
{
    (void)state;
    static const struct {
        const char *part, *source;
    } CASES[] = {
        {"range of more than", "{% for i in range(1000000000000) %}{% endfor %}"},
        {"steps", "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% "
                  "endfor %}{% endfor %}{% endfor %}"},
        {"text",
         "{% set ns = namespace(s='x') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}"},
        {"text of more than", "{{ 'x' * 1000000000000 }}"},
        {"text of more than", "{{ 'xyz' * 9223372036854775807 }}"},
        {"items", "{{ [1] * 1000000000 }}"},
        {"",
         "{% set ns = namespace(s=[1]) %}{% for i in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}"},
        {"text is longer", "{% set x = 'x' * 10000000 %}{% for i in range(99) %}{{ x }}{% endfor %}"},
        {"nested more than", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"},
        {"nested more than", "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] "
                             "%}{% endfor %}{{ ns.l }}"},
        {"nested more than", "{% set ns = namespace(l=[]) %}{% for i in range(9999) %}{% set ns.l = [ns.l] "
                             "%}{% endfor %}{{ ns.l|tojson }}"},
        {"nested more than",
         "{% set a = namespace(l=[]) %}{% set b = namespace(l=[]) %}{% for i in range(9999) %}{% set "
         "a.l = [a.l] %}{% set b.l = [b.l] %}{% endfor %}{{ a.l == b.l }}"},
        {"steps", "{% set x = 'ab' * 1000000 %}{% for i in range(99999) %}{% if 'ba' * 3 ~ 'c' in x %}{% "
                  "endif %}{% endfor %}"},
        {"",
         "{% set x = 'a' * 1000000 %}{% for i in range(99) %}{% set y = x.replace('a', 'bb') %}{% endfor %}"},
        {"", "{% set x = 'a ' * 1000000 %}{% for i in range(99) %}{% set y = x.split() %}{% endfor %}"},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct rendered_prompt prompt;
        assert_fails(ERR_RESOURCE_EXHAUSTED, CASES[i].part, try_render(CASES[i].source, NULL, 0, &prompt));
    }
}

/* before, `n` times part, after. */
static void put_times(struct buffer *out, const char *before, const char *part, int n, const char *after)
{
    assert_true(buffer_append_text(out, before));
    for (int i = 0; i < n; i++)
        assert_true(buffer_append_text(out, part));
    assert_true(buffer_append_text(out, after));
}

static void nesting_has_a_limit(void **state)
{
    (void)state;
    struct buffer source = {.limit_bytes = TEMPLATE_SOURCE_BYTES_MAX};
    static const struct {
        const char *open, *close;
    } PAIRS[] = {{"(", ")"},   {"[", "]"},  {"{'a':", "}"}, {"-", ""},
                 {"not ", ""}, {"", "[1]"}, {"", "|trim"},  {"", ".a"}};
    for (size_t k = 0; k < sizeof PAIRS / sizeof PAIRS[0]; k++)
        for (int depth = 20; depth <= 2000; depth += 1980) {
            buffer_clear(&source);
            put_times(&source, "{% if false %}{{ ", PAIRS[k].open, depth, "1");
            put_times(&source, "", PAIRS[k].close, depth, " }}{% endif %}");
            err_t e = try_compile(source.data);
            assert_int_equal(e.code, depth == 20 ? ERR_OK : ERR_INVALID_ARGUMENT);
        }
    buffer_clear(&source);
    put_times(&source, "", "{% if x %}", 2000, "");
    assert_fails(ERR_INVALID_ARGUMENT, "nested", try_compile(source.data));
    buffer_clear(&source);
    put_times(&source, "{{ 0", "+1", 2000, " }}"); /* a long chain is not deep */
    assert_string_equal(render(source.data), "2000");
    buffer_free(&source);
}

static void size_of_the_source_has_a_limit(void **state)
{
    (void)state;
    size_t size_bytes = TEMPLATE_SOURCE_BYTES_MAX + 1;
    char *source = mem_alloc(size_bytes + 1);
    struct chat_template *chat_template;
    memset(source, 'x', size_bytes);
    assert_fails(ERR_RESOURCE_EXHAUSTED, "the most is",
                 chat_template_compile(source, size_bytes, "test", &chat_template));
    OK(chat_template_compile(source, size_bytes - 1, "test", &chat_template));
    chat_template_destroy(chat_template);
    mem_free(source);
}

static void messages_must_be_utf8(void **state)
{
    (void)state;
    struct rendered_prompt prompt;
    struct chat_message bad = {"user", "\xff", 1};
    assert_fails(ERR_INVALID_ARGUMENT, "message 0", try_render("x", &bad, 1, &prompt));
    struct chat_message empty = {"user", NULL, 0};
    OK(try_render("{{ messages[0].content }}", &empty, 1, &prompt));
    assert_int_equal(prompt.size_bytes, 0);
    rendered_prompt_free(&prompt);
}

/* The same compiled template renders the same, again and again. */
static void a_render_can_be_repeated(void **state)
{
    (void)state;
    const char *source =
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}"
        "{{ ns.n }} {{ strftime_now('%H:%M') }}";
    struct chat_template *chat_template;
    OK(chat_template_compile(source, strlen(source), "test", &chat_template));
    struct chat_message two[] = {message("user", "a"), message("user", "b")};
    struct template_input input = {.messages = two, .n_messages = 2, .now_unix_s = 1718000000};
    for (int i = 0; i < 3; i++) {
        struct rendered_prompt prompt;
        OK(chat_template_render(chat_template, &input, &prompt));
        assert_string_equal(prompt.text, "2 06:13");
        rendered_prompt_free(&prompt);
    }
    chat_template_destroy(chat_template);
}

/* Every allocation of compile and render fails once; nothing leaks. */
static void failing_memory_is_an_error(void **state)
{
    (void)state;
    const char *source =
        "{% macro m(a, b=2) %}<{{ a ~ b }}>{% endmacro %}{% for x in messages if x.content %}{{ "
        "m(x.content|upper|replace('A', 'bb'))|tojson }}{% endfor %}{{ [1, {'a': 2}] }}";
    struct chat_message one = message("user", "abc");
    bool done = false;
    for (int64_t nth = 0; !done; nth++) {
        struct rendered_prompt prompt;
        assert_true(nth < 1000);
        mem_fail_nth(nth);
        err_t e = try_render_with(source, &one, 1, "{\"tools\":[{\"a\":[1]}],\"messages\":[{\"n\":\"x\"}]}",
                                  &prompt);
        mem_fail_nth(-1);
        done = e.code == ERR_OK;
        assert_true(done || e.code == ERR_RESOURCE_EXHAUSTED);
        rendered_prompt_free(&prompt);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks_follow_the_text),
        cmocka_unit_test(only_known_roles_are_trusted),
        cmocka_unit_test(json_of_a_request_is_shown),
        cmocka_unit_test(json_of_a_request_is_checked),
        cmocka_unit_test(unsupported_constructs_fail_at_compile_time),
        cmocka_unit_test(errors_of_a_render_name_their_place),
        cmocka_unit_test(hostile_templates_end_at_a_cap),
        cmocka_unit_test(nesting_has_a_limit),
        cmocka_unit_test(size_of_the_source_has_a_limit),
        cmocka_unit_test(messages_must_be_utf8),
        cmocka_unit_test(a_render_can_be_repeated),
        cmocka_unit_test(failing_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
