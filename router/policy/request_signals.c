#include "router/policy/request_signals.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/assert.h"
#include "base/utf8.h"
#include "router/money/money.h"

enum { SCAN_BYTES_MAX = 64 << 10, COMPLEXITY_MAX = 10 }; /* scanned: of all texts, for script and code */

const char *const ROUTE_WISH_NAMES[5] = {"auto", "local", "frontier", "model", NULL};

/* What is counted while the texts are walked. */
struct scan {
    uint64_t letters[SCRIPTS];
    size_t left; /* bytes that may still be looked at */
    uint32_t n_code_lines;
    bool has_fence;
    enum language language; /* of the last message in which it was told */
};

static bool begins(const char *line, size_t size, const char *word)
{
    size_t bytes = strlen(word);
    return size >= bytes && memcmp(line, word, bytes) == 0;
}

/* How lines of programs begin or end, in the languages that people paste most. */
static bool looks_like_code(const char *line, size_t size)
{
    static const char *const BEGINNINGS[] = {
        "#include", "import ", "from ",   "def ",     "class ", "return ", "if (",     "for (",   "while (",
        "func ",    "fn ",     "let ",    "const ",   "var ",   "public ", "private ", "static ", "SELECT ",
        "INSERT ",  "UPDATE ", "CREATE ", "package ", "using ", "#!/",     "</"};
    while (size > 0 && (line[0] == ' ' || line[0] == '\t')) {
        line++;
        size--;
    }
    while (size > 0 && strchr(" \t\r", line[size - 1]))
        size--;
    if (size == 0)
        return false;
    char last = line[size - 1];
    if (last == ';' || last == '{' || last == '}')
        return true;
    for (size_t i = 0; i < sizeof BEGINNINGS / sizeof *BEGINNINGS; i++) {
        if (begins(line, size, BEGINNINGS[i]))
            return memchr(line, '(', size) || memchr(line, ':', size) || memchr(line, '=', size) ||
                   memchr(line, '"', size) || memchr(line, '<', size);
    }
    return false;
}

static void scan_lines(struct scan *scan, const char *text, size_t size)
{
    for (const char *end = text + size; text < end;) {
        const char *line_end = memchr(text, '\n', (size_t)(end - text));
        size_t line_bytes = (size_t)((line_end ? line_end : end) - text);
        scan->has_fence =
            scan->has_fence || begins(text, line_bytes, "```") || begins(text, line_bytes, "~~~");
        scan->n_code_lines += looks_like_code(text, line_bytes);
        text += line_bytes + 1;
    }
}

static void scan_letters(struct scan *scan, const char *text, size_t size)
{
    for (size_t at = 0; at < size;) {
        uint32_t code_point;
        size_t bytes = utf8_decode(text + at, size - at, &code_point);
        if (bytes > 0)
            scan->letters[script_of_letter(code_point)]++;
        at += bytes > 0 ? bytes : 1;
    }
}

static void scan_text(struct scan *scan, const json_t *text, bool is_user)
{
    size_t size = json_string_length(text);
    if (size > scan->left)
        size = scan->left;
    scan->left -= size;
    if (size == 0)
        return;
    scan_lines(scan, json_string_value(text), size);
    if (!is_user)
        return;
    scan_letters(scan, json_string_value(text), size);
    enum language language = language_guess(json_string_value(text), size);
    if (language != LANGUAGE_UNKNOWN)
        scan->language = language;
}

static bool is_text(const json_t *value, const char *text)
{
    const char *is = json_string_value(value);
    return is && strcmp(is, text) == 0;
}

static void take_content(struct request_signals *signals, struct scan *scan, const json_t *content,
                         bool is_user)
{
    signals->text_bytes += json_string_length(content);
    scan_text(scan, content, is_user);
    size_t i;
    json_t *part;
    json_array_foreach(content, i, part)
    {
        const json_t *type = json_object_get(part, "type"), *text = json_object_get(part, "text");
        signals->n_images += is_text(type, "image_url");
        signals->n_audio += is_text(type, "input_audio");
        signals->n_files += is_text(type, "file");
        signals->text_bytes += json_string_length(text);
        scan_text(scan, text, is_user);
    }
}

struct request_signals request_signals_of(const json_t *request)
{
    struct request_signals signals = {0};
    struct scan scan = {.left = SCAN_BYTES_MAX};
    size_t i;
    json_t *message;
    json_array_foreach(json_object_get(request, "messages"), i, message)
    {
        const json_t *role = json_object_get(message, "role");
        bool is_user = is_text(role, "user");
        signals.n_turns += is_user;
        signals.calls_tools = signals.calls_tools || is_text(role, "tool") ||
                              json_array_size(json_object_get(message, "tool_calls")) > 0;
        take_content(&signals, &scan, json_object_get(message, "content"), is_user);
    }
    const json_t *prompt = json_object_get(request, "prompt"),
                 *most = json_object_get(request, "max_completion_tokens"),
                 *format = json_object_get(json_object_get(request, "response_format"), "type");
    signals.text_bytes += json_string_length(prompt);
    scan_text(&scan, prompt, true);
    if (!json_is_integer(most))
        most = json_object_get(request, "max_tokens");
    if (json_is_integer(most) && json_integer_value(most) > 0)
        signals.max_tokens = (uint64_t)json_integer_value(most);
    signals.n_tools = (uint32_t)json_array_size(json_object_get(request, "tools"));
    signals.has_schema = is_text(format, "json_schema") || is_text(format, "json_object");
    signals.has_code = scan.has_fence || scan.n_code_lines >= 2;
    signals.script = script_of_counts(scan.letters);
    signals.language = scan.language;
    return signals;
}

static err_t wrong_hint(const char *name, const char *value, const char *expected)
{
    return err_new(ERR_INVALID_ARGUMENT, "%s \"%.60s\" must be %s", name, value, expected);
}

static err_t set_complexity(struct route_hints *hints, const char *value)
{
    char *end;
    errno = 0;
    long number = isdigit((unsigned char)value[0]) ? strtol(value, &end, 10) : 0;
    if (number < 1 || number > COMPLEXITY_MAX || *end != '\0' || errno != 0)
        return wrong_hint("complexity", value, "a whole number from 1 to 10");
    hints->complexity = (uint32_t)number;
    return err_ok();
}

err_t route_hint_set(struct route_hints *hints, const char *name, const char *value)
{
    if (strcmp(name, "route") == 0) {
        for (int i = 0; i < WISH_MODEL; i++) {
            if (strcmp(ROUTE_WISH_NAMES[i], value) == 0) {
                hints->route = (enum route_wish)i;
                return err_ok();
            }
        }
        return wrong_hint(name, value, "auto, local or frontier");
    }
    if (strcmp(name, "privacy") == 0) {
        bool is_local = strcmp(value, "local_only") == 0;
        if (!is_local && strcmp(value, "shareable") != 0)
            return wrong_hint(name, value, "local_only or shareable");
        hints->local_only = hints->local_only || is_local; /* nobody takes it back */
        return err_ok();
    }
    if (strcmp(name, "complexity") == 0)
        return set_complexity(hints, value);
    if (strcmp(name, "max-cost") == 0) {
        nanodollars most;
        if (money_parse(value, &most).code != ERR_OK)
            return wrong_hint(name, value, "an amount in dollars, like 0.01");
        hints->max_cost = most;
        return err_ok();
    }
    if (strcmp(name, "task") != 0)
        return err_new(ERR_INVALID_ARGUMENT,
                       "unknown hint \"%.60s\"; hints are route, privacy, complexity, max-cost and task",
                       name);
    if (strlen(value) >= sizeof hints->task)
        return wrong_hint(name, value, "shorter than 64 bytes");
    snprintf(hints->task, sizeof hints->task, "%s", value);
    return err_ok();
}

err_t route_hints_of_body(const json_t *request, struct route_hints *hints)
{
    const json_t *object = json_object_get(request, "bantam");
    if (object == NULL || json_is_null(object))
        return err_ok();
    if (!json_is_object(object))
        return err_new(ERR_INVALID_ARGUMENT, "bantam must be an object");
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        char name[32], number[32];
        snprintf(name, sizeof name, "%s", key);
        for (char *c = name; *c; c++)
            *c = *c == '_' ? '-' : *c;
        const char *text = json_string_value(value);
        if (json_is_integer(value)) {
            snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
            text = number;
        }
        if (text == NULL)
            return err_new(ERR_INVALID_ARGUMENT, "bantam.%.60s must be a string%s", key,
                           strcmp(name, "complexity") == 0 ? " or a whole number" : "");
        err_t e = route_hint_set(hints, name, text);
        if (e.code != ERR_OK)
            return err_prefix(e, "bantam");
    }
    return err_ok();
}
