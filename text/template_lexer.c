#include "text/template_lexer.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "base/utf8.h"
#include "text/unicode_class.h"

enum { BRACKETS_MAX = 64, NUMBER_BYTES_MAX = 64 };

struct lexer {
    const char *text; /* source with \n newlines, NUL-terminated */
    size_t size_bytes, position;
    uint32_t line;
    size_t line_start;
    bool line_starting;      /* the last tag took the newline behind it, or there was none */
    char open[BRACKETS_MAX]; /* brackets that wait for their end */
    size_t n_open;
    struct template_pool *pool;
    struct template_tokens *out;
};

static err_t lex_error(const struct lexer *lexer, const char *what)
{
    return err_new(ERR_INVALID_ARGUMENT, "line %u column %zu: %s", lexer->line,
                   lexer->position - lexer->line_start + 1, what);
}

static err_t out_of_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the template");
}

static void advance(struct lexer *lexer, size_t n)
{
    for (size_t end = lexer->position + n; lexer->position < end; lexer->position++)
        if (lexer->text[lexer->position] == '\n') {
            lexer->line++;
            lexer->line_start = lexer->position + 1;
        }
}

static bool at(const struct lexer *lexer, const char *what)
{
    return strncmp(lexer->text + lexer->position, what, strlen(what)) == 0;
}

/* Bytes of white space (Python's \s) at `position`. */
static size_t space_length(const struct lexer *lexer, size_t position)
{
    size_t start = position;
    while (position < lexer->size_bytes) {
        uint32_t code_point;
        size_t length = utf8_decode(lexer->text + position, lexer->size_bytes - position, &code_point);
        if (length == 0 || !unicode_is_python_space(code_point))
            break;
        position += length;
    }
    return position - start;
}

static err_t token_new(struct lexer *lexer, enum token_kind kind, struct template_token **out)
{
    struct template_tokens *tokens = lexer->out;
    if (tokens->count == tokens->capacity) {
        size_t capacity = tokens->capacity ? 2 * tokens->capacity : 256;
        struct template_token *items = template_pool_alloc(lexer->pool, capacity * sizeof *items);
        if (items == NULL)
            return out_of_memory();
        if (tokens->count > 0)
            memcpy(items, tokens->items, tokens->count * sizeof *items);
        tokens->items = items;
        tokens->capacity = capacity;
    }
    *out = &tokens->items[tokens->count++];
    memset(*out, 0, sizeof **out);
    (*out)->kind = kind;
    (*out)->line = lexer->line;
    (*out)->column = (uint32_t)(lexer->position - lexer->line_start + 1);
    return err_ok();
}

static err_t token_with_text(struct lexer *lexer, enum token_kind kind, const char *text, size_t size_bytes)
{
    struct template_token *token;
    TRY(token_new(lexer, kind, &token));
    char *copy = template_pool_alloc(lexer->pool, size_bytes + 1);
    if (copy == NULL)
        return out_of_memory();
    memcpy(copy, text, size_bytes);
    token->text = copy;
    token->size_bytes = size_bytes;
    return err_ok();
}

/* The text in front of a tag: "-" takes all white space at its end, and in front of a block or comment what
 * stands alone on the tag's line goes too (lstrip_blocks), unless "+". */
static size_t text_end(const struct lexer *lexer, size_t start, size_t tag, bool is_output)
{
    char sign = lexer->text[tag + 2];
    const char *text = lexer->text;
    if (sign == '-') {
        size_t end = start;
        for (size_t i = start; i < tag;) {
            size_t space = space_length(lexer, i);
            if (i + space >= tag)
                break;
            uint32_t code_point;
            i += space;
            i += utf8_decode(text + i, tag - i, &code_point);
            end = i;
        }
        return end;
    }
    if (sign == '+' || is_output)
        return tag;
    size_t line = tag;
    while (line > start && (text[line - 1] == ' ' || text[line - 1] == '\t'))
        line--;
    bool from_line_start = line > start ? text[line - 1] == '\n' : lexer->line_starting;
    return from_line_start ? line : tag;
}

static err_t lex_text(struct lexer *lexer, size_t tag, bool is_output)
{
    size_t start = lexer->position;
    size_t end = text_end(lexer, start, tag, is_output);
    if (end > start)
        TRY(token_with_text(lexer, TOKEN_TEXT, lexer->text + start, end - start));
    advance(lexer, tag - start);
    return err_ok();
}

/* Behind a tag's end: "-" takes all white space, a block or comment one newline (trim_blocks), "+" nothing.
 */
static void skip_after_tag(struct lexer *lexer, char sign, bool is_output)
{
    size_t start = lexer->position;
    if (sign == '-')
        advance(lexer, space_length(lexer, lexer->position));
    else if (sign != '+' && !is_output && lexer->text[lexer->position] == '\n')
        advance(lexer, 1);
    lexer->line_starting = lexer->position > start && lexer->text[lexer->position - 1] == '\n';
}

static err_t lex_comment(struct lexer *lexer)
{
    const char *end = strstr(lexer->text + lexer->position + 2, "#}");
    if (end == NULL)
        return lex_error(lexer, "this comment has no end, expected #}");
    size_t length = (size_t)(end - lexer->text) - lexer->position;
    char first = lexer->text[lexer->position + 2];
    size_t head = first == '-' || first == '+' ? 3 : 2; /* the comment's own beginning is not its end */
    char sign = length > head ? end[-1] : ' ';
    advance(lexer, length + 2);
    skip_after_tag(lexer, sign, false);
    return err_ok();
}

/* Value of `n` hexadecimal digits; false when they are not there. */
static bool hex_value(const char *text, size_t n, uint32_t *out)
{
    char digits[9] = {0}, *end;
    memcpy(digits, text, strnlen(text, n));
    if (strspn(digits, "0123456789abcdefABCDEF") != n)
        return false;
    *out = (uint32_t)strtoul(digits, &end, 16);
    return true;
}

/* One escape at text[0] == '\\' of a string; Python's rules. *used: bytes read. Returns bytes written to out,
 * which has room for as many as were read. */
static size_t unescape(const char *text, size_t *used, char *out)
{
    static const char PLAIN[] = "n\nt\tr\r\\\\'\'\"\"a\ab\bf\fv\v";
    for (size_t i = 0; i + 1 < sizeof PLAIN; i += 2)
        if (text[1] == PLAIN[i]) {
            *used = 2;
            out[0] = PLAIN[i + 1];
            return 1;
        }
    size_t digits = text[1] == 'x' ? 2 : text[1] == 'u' ? 4 : text[1] == 'U' ? 8 : 0;
    uint32_t code_point;
    if (digits > 0 && hex_value(text + 2, digits, &code_point) && code_point <= 0x10ffff &&
        (code_point < 0xd800 || code_point > 0xdfff)) {
        *used = 2 + digits;
        return utf8_encode(code_point, out);
    }
    size_t octal = strspn(text + 1, "01234567");
    if (octal > 0) {
        octal = octal > 3 ? 3 : octal;
        code_point = 0;
        for (size_t i = 0; i < octal; i++)
            code_point = code_point * 8 + (uint32_t)(text[1 + i] - '0');
        *used = 1 + octal;
        return utf8_encode(code_point, out);
    }
    *used = 2;
    if (text[1] == '\n') /* a line that goes on */
        return 0;
    out[0] = '\\';
    out[1] = text[1];
    return 2;
}

static err_t lex_string(struct lexer *lexer)
{
    char quote = lexer->text[lexer->position];
    size_t end = lexer->position + 1;
    while (end < lexer->size_bytes && lexer->text[end] != quote)
        end += lexer->text[end] == '\\' ? 2 : 1;
    if (end >= lexer->size_bytes)
        return lex_error(lexer, "this string has no end");
    size_t start = lexer->position + 1;
    TRY(token_with_text(lexer, TOKEN_STRING, lexer->text + start, end - start));
    struct template_token *token = &lexer->out->items[lexer->out->count - 1];
    char *copy = (char *)token->text;
    size_t n = 0;
    for (size_t i = start; i < end;) {
        size_t used = 1;
        char written[UTF8_MAX_BYTES];
        if (lexer->text[i] != '\\') {
            copy[n++] = lexer->text[i++];
            continue;
        }
        if (lexer->text[i + 1] == 'N')
            return lex_error(lexer, "\\N{..} in a string is not supported");
        size_t length = unescape(lexer->text + i, &used, written);
        memcpy(copy + n, written, length);
        n += length;
        i += used;
    }
    copy[n] = '\0';
    token->size_bytes = n;
    advance(lexer, end + 1 - lexer->position);
    return err_ok();
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_name_start(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* Decimal digits with single underscores in between, the underscores left out of `copy`. */
static size_t copy_digits(const char *text, char *copy, size_t *n)
{
    size_t i = 0;
    while (is_digit(text[i]) || (text[i] == '_' && i > 0 && is_digit(text[i + 1]))) {
        if (text[i] != '_' && *n + 1 < NUMBER_BYTES_MAX)
            copy[(*n)++] = text[i];
        i++;
    }
    return i;
}

static err_t lex_number(struct lexer *lexer)
{
    const char *text = lexer->text + lexer->position;
    char copy[NUMBER_BYTES_MAX] = {0};
    size_t n = 0, used = copy_digits(text, copy, &n);
    bool is_float = false;
    if (text[used] == '.' && is_digit(text[used + 1])) {
        is_float = true;
        copy[n++] = '.';
        used++;
        used += copy_digits(text + used, copy, &n);
    }
    size_t sign = text[used + 1] == '+' || text[used + 1] == '-';
    if ((text[used] == 'e' || text[used] == 'E') && is_digit(text[used + 1 + sign]) &&
        n + 3 < NUMBER_BYTES_MAX) {
        is_float = true;
        memcpy(copy + n, text + used, 1 + sign);
        n += 1 + sign;
        used += 1 + sign;
        used += copy_digits(text + used, copy, &n);
    }
    if (n + 4 >= NUMBER_BYTES_MAX || is_name_start(text[used]))
        return lex_error(lexer, "this number is not supported");
    struct template_token *token;
    TRY(token_new(lexer, is_float ? TOKEN_FLOAT : TOKEN_INT, &token));
    errno = 0;
    if (is_float)
        token->number = strtod(copy, NULL);
    else
        token->integer = strtoll(copy, NULL, 10);
    if (errno == ERANGE)
        return lex_error(lexer, "this number is out of range");
    advance(lexer, used);
    return err_ok();
}

static err_t lex_bracket(struct lexer *lexer, char c)
{
    if (c == '(' || c == '[' || c == '{') {
        if (lexer->n_open == BRACKETS_MAX)
            return lex_error(lexer, "brackets are nested too deeply");
        lexer->open[lexer->n_open++] = c;
        return err_ok();
    }
    char opening = (char)(c == ')' ? '(' : c == ']' ? '[' : c == '}' ? '{' : 0);
    if (opening == 0)
        return err_ok();
    if (lexer->n_open == 0 || lexer->open[lexer->n_open - 1] != opening)
        return lex_error(lexer, "this bracket closes nothing");
    lexer->n_open--;
    return err_ok();
}

static err_t lex_operator(struct lexer *lexer)
{
    static const struct {
        char text[3];
        int op;
    } LONG[] = {{"==", OP_EQ}, {"!=", OP_NE},           {"<=", OP_LE},
                {">=", OP_GE}, {"//", OP_FLOOR_DIVIDE}, {"**", OP_POWER}};
    struct template_token *token;
    char c = lexer->text[lexer->position];
    for (size_t i = 0; i < sizeof LONG / sizeof LONG[0]; i++)
        if (at(lexer, LONG[i].text)) {
            TRY(token_new(lexer, TOKEN_OPERATOR, &token));
            token->op = LONG[i].op;
            advance(lexer, 2);
            return err_ok();
        }
    if (strchr("+-*/%~()[]{}<>=.:|,", c) == NULL)
        return lex_error(lexer, "unexpected character");
    TRY(lex_bracket(lexer, c));
    TRY(token_new(lexer, TOKEN_OPERATOR, &token));
    token->op = (unsigned char)c;
    advance(lexer, 1);
    return err_ok();
}

static err_t lex_in_tag(struct lexer *lexer)
{
    char c = lexer->text[lexer->position];
    if (c == '\'' || c == '"')
        return lex_string(lexer);
    if (is_digit(c))
        return lex_number(lexer);
    if (!is_name_start(c))
        return lex_operator(lexer);
    size_t end = lexer->position;
    while (is_name_start(lexer->text[end]) || is_digit(lexer->text[end]))
        end++;
    TRY(token_with_text(lexer, TOKEN_NAME, lexer->text + lexer->position, end - lexer->position));
    advance(lexer, end - lexer->position);
    return err_ok();
}

/* From behind {% or {{ to behind %} or }}. */
static err_t lex_tag(struct lexer *lexer, bool is_output)
{
    struct template_token *token;
    const char *end = is_output ? "}}" : "%}";
    TRY(token_new(lexer, is_output ? TOKEN_OUTPUT_BEGIN : TOKEN_BLOCK_BEGIN, &token));
    advance(lexer, 2);
    if (at(lexer, "-") || (at(lexer, "+") && !is_output))
        advance(lexer, 1);
    lexer->n_open = 0;
    for (;;) {
        advance(lexer, space_length(lexer, lexer->position));
        if (lexer->position >= lexer->size_bytes)
            return lex_error(lexer, is_output ? "expected }}" : "expected %}");
        const char *here = lexer->text + lexer->position;
        char sign = (*here == '-' || (*here == '+' && !is_output)) ? *here : ' ';
        if (lexer->n_open == 0 && strncmp(here + (sign != ' '), end, 2) == 0) {
            TRY(token_new(lexer, is_output ? TOKEN_OUTPUT_END : TOKEN_BLOCK_END, &token));
            advance(lexer, sign == ' ' ? 2 : 3);
            skip_after_tag(lexer, sign, is_output);
            return err_ok();
        }
        TRY(lex_in_tag(lexer));
    }
}

/* {% name %} at `position`, with any white space and signs: its length, 0 = something else stands there.
 * *end_sign: the sign in front of %}. */
static size_t bare_tag_length(const struct lexer *lexer, size_t position, const char *name, char *end_sign)
{
    size_t i = position + 2;
    if (strncmp(lexer->text + position, "{%", 2) != 0)
        return 0;
    if (lexer->text[i] == '-' || lexer->text[i] == '+')
        i++;
    i += space_length(lexer, i);
    if (strncmp(lexer->text + i, name, strlen(name)) != 0)
        return 0;
    i += strlen(name);
    i += space_length(lexer, i);
    *end_sign = ' ';
    if (lexer->text[i] == '-' || lexer->text[i] == '+')
        *end_sign = lexer->text[i++];
    return strncmp(lexer->text + i, "%}", 2) == 0 ? i + 2 - position : 0;
}

/* {% raw %} .. {% endraw %}: text as it is. */
static err_t lex_raw(struct lexer *lexer, size_t begin_length, char begin_sign)
{
    char sign;
    advance(lexer, begin_length);
    skip_after_tag(lexer, begin_sign == '-' ? '-' : '+', false);
    for (size_t i = lexer->position; i < lexer->size_bytes; i++) {
        size_t length = bare_tag_length(lexer, i, "endraw", &sign);
        if (length == 0)
            continue;
        TRY(lex_text(lexer, i, false));
        advance(lexer, length);
        skip_after_tag(lexer, sign, false);
        return err_ok();
    }
    return lex_error(lexer, "{% raw %} has no {% endraw %}");
}

static err_t lex_all(struct lexer *lexer)
{
    while (lexer->position < lexer->size_bytes) {
        size_t tag = lexer->position;
        while (tag < lexer->size_bytes &&
               (lexer->text[tag] != '{' || strchr("{%#", lexer->text[tag + 1]) == NULL ||
                lexer->text[tag + 1] == '\0'))
            tag++;
        if (tag == lexer->size_bytes) {
            TRY(token_with_text(lexer, TOKEN_TEXT, lexer->text + lexer->position, tag - lexer->position));
            advance(lexer, tag - lexer->position);
            break;
        }
        char kind = lexer->text[tag + 1], sign;
        TRY(lex_text(lexer, tag, kind == '{'));
        size_t raw = bare_tag_length(lexer, tag, "raw", &sign);
        if (kind == '#')
            TRY(lex_comment(lexer));
        else if (raw != 0)
            TRY(lex_raw(lexer, raw, sign));
        else
            TRY(lex_tag(lexer, kind == '{'));
    }
    struct template_token *token;
    return token_new(lexer, TOKEN_END, &token);
}

err_t template_lex(const char *source, size_t source_bytes, struct template_pool *pool,
                   struct template_tokens *out)
{
    struct lexer lexer = {.line = 1, .line_starting = true, .pool = pool, .out = out};
    /* room for look-ahead behind the end */
    char *text = template_pool_alloc(pool, source_bytes + 8);
    if (text == NULL)
        return out_of_memory();
    for (size_t i = 0; i < source_bytes; i++) { /* \r\n and \r are newlines */
        if (source[i] == '\r' && i + 1 < source_bytes && source[i + 1] == '\n')
            continue;
        text[lexer.size_bytes++] = source[i] == '\r' ? '\n' : source[i];
    }
    if (lexer.size_bytes > 0 && text[lexer.size_bytes - 1] == '\n')
        text[--lexer.size_bytes] = '\0'; /* the file's last newline is not the template's */
    lexer.text = text;
    return lex_all(&lexer);
}
