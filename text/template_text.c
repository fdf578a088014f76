/* Errors, memory, texts and sinks of a render. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "text/template_run.h"

bool run_fail(struct run *run, enum err_code code, const struct node *at, const char *format, ...)
{
    char what[ERR_MESSAGE_MAX - 64];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    run->error = at != NULL ? err_new(code, "line %u column %u: %s", at->line, at->column, what)
                            : err_new(code, "%s", what);
    return false;
}

bool run_type_error(struct run *run, const struct node *at, const char *format, ...)
{
    char what[ERR_MESSAGE_MAX / 2];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    return run_fail(run, ERR_INVALID_ARGUMENT, at, "%s", what);
}

bool run_charge(struct run *run, const struct node *at, size_t steps)
{
    run->steps += steps;
    if (run->steps <= TEMPLATE_STEPS_MAX)
        return true;
    return run_fail(run, ERR_RESOURCE_EXHAUSTED, at, "the template took more than %d steps",
                    TEMPLATE_STEPS_MAX);
}

bool run_charge_bytes(struct run *run, const struct node *at, size_t size_bytes)
{
    return run_charge(run, at, size_bytes / TEMPLATE_BYTES_PER_STEP);
}

bool run_charge_scan(struct run *run, const struct node *at, size_t size_bytes)
{
    return run_charge(run, at, size_bytes / TEMPLATE_SCANNED_BYTES_PER_STEP);
}

void *run_alloc(struct run *run, const struct node *at, size_t size_bytes)
{
    if (!run_charge_bytes(run, at, size_bytes))
        return NULL;
    void *block = template_pool_alloc(&run->pool, size_bytes);
    if (block == NULL)
        run_fail(run, ERR_RESOURCE_EXHAUSTED, at, "the template needs more than %d bytes",
                 TEMPLATE_POOL_BYTES_MAX);
    return block;
}

bool run_enter(struct run *run, const struct node *at)
{
    if (run->depth == TEMPLATE_RUN_DEPTH_MAX)
        return run_fail(run, ERR_RESOURCE_EXHAUSTED, at, "calls or values are nested more than %d deep",
                        TEMPLATE_RUN_DEPTH_MAX);
    run->depth++;
    return true;
}

bool text_new(struct run *run, const struct node *at, size_t size_bytes, bool with_marks, char **data,
              uint8_t **marks, struct value *out)
{
    if (size_bytes > TEMPLATE_OUTPUT_BYTES_MAX)
        return run_fail(run, ERR_RESOURCE_EXHAUSTED, at, "a text of more than %d bytes",
                        TEMPLATE_OUTPUT_BYTES_MAX);
    struct text *text = run_alloc(run, at, sizeof *text);
    *data = text ? run_alloc(run, at, size_bytes + 1) : NULL;
    *marks = *data && with_marks ? run_alloc(run, at, size_bytes + 1) : NULL;
    if (*data == NULL || (with_marks && *marks == NULL))
        return false;
    *text = (struct text){*data, *marks, size_bytes};
    *out = (struct value){.kind = VALUE_TEXT, .text = text};
    return true;
}

bool text_slice(struct run *run, const struct node *at, const struct text *text, size_t start, size_t end,
                struct value *out)
{
    struct text *part = run_alloc(run, at, sizeof *part);
    if (part == NULL)
        return false;
    *part = (struct text){text->data + start, text->marks ? text->marks + start : NULL, end - start};
    *out = (struct value){.kind = VALUE_TEXT, .text = part};
    return true;
}

bool text_copy(struct run *run, const struct node *at, const char *data, size_t size_bytes, struct value *out)
{
    char *copy;
    uint8_t *marks;
    if (!text_new(run, at, size_bytes, false, &copy, &marks, out))
        return false;
    memcpy(copy, data, size_bytes);
    return true;
}

bool text_join(struct run *run, const struct node *at, const struct text *a, const struct text *b,
               struct value *out)
{
    char *data;
    uint8_t *marks;
    bool with_marks = a->marks != NULL || b->marks != NULL;
    if (!text_new(run, at, a->size_bytes + b->size_bytes, with_marks, &data, &marks, out))
        return false;
    memcpy(data, a->data, a->size_bytes);
    memcpy(data + a->size_bytes, b->data, b->size_bytes);
    if (a->marks != NULL)
        memcpy(marks, a->marks, a->size_bytes);
    if (b->marks != NULL)
        memcpy(marks + a->size_bytes, b->marks, b->size_bytes);
    return true;
}

bool text_equal(const struct text *a, const struct text *b)
{
    return a->size_bytes == b->size_bytes && memcmp(a->data, b->data, a->size_bytes) == 0;
}

bool text_is(const struct value *value, const char *text)
{
    struct text other = {text, NULL, strlen(text)};
    return value->kind == VALUE_TEXT && text_equal(value->text, &other);
}

size_t text_length(const struct text *text)
{
    size_t n = 0;
    for (size_t i = 0; i < text->size_bytes; i++)
        n += ((uint8_t)text->data[i] & 0xc0) != 0x80;
    return n;
}

size_t text_find(const struct text *text, const struct text *needle, size_t from)
{
    if (from > text->size_bytes)
        return SIZE_MAX;
    const char *found = memmem(text->data + from, text->size_bytes - from, needle->data, needle->size_bytes);
    return found ? (size_t)(found - text->data) : SIZE_MAX;
}

static bool put_zeros(struct buffer *buffer, size_t n)
{
    static const char ZEROS[4096];
    while (n > 0) {
        size_t part = n < sizeof ZEROS ? n : sizeof ZEROS;
        if (!buffer_append(buffer, ZEROS, part))
            return false;
        n -= part;
    }
    return true;
}

static bool put_marks(struct sink *sink, size_t text_size, const struct text *text)
{
    if (text->marks == NULL)
        return true;
    sink->marks.limit_bytes = TEMPLATE_OUTPUT_BYTES_MAX;
    return put_zeros(&sink->marks, text_size - sink->marks.size) &&
           buffer_append(&sink->marks, text->marks, text->size_bytes);
}

bool sink_put(struct run *run, const struct node *at, struct sink *sink, const struct text *text)
{
    if (text->size_bytes == 0)
        return true;
    if (!run_charge_bytes(run, at, text->size_bytes))
        return false;
    size_t before = sink->text.size;
    sink->text.limit_bytes = TEMPLATE_OUTPUT_BYTES_MAX;
    if (buffer_append(&sink->text, text->data, text->size_bytes) && put_marks(sink, before, text))
        return true;
    return run_fail(run, ERR_RESOURCE_EXHAUSTED, at, "the text is longer than %d bytes, or out of memory",
                    TEMPLATE_OUTPUT_BYTES_MAX);
}

bool sink_put_plain(struct run *run, const struct node *at, struct sink *sink, const char *text)
{
    struct text plain = {text, NULL, strlen(text)};
    return sink_put(run, at, sink, &plain);
}

bool sink_take(struct run *run, const struct node *at, struct sink *sink, struct value *out)
{
    char *data;
    uint8_t *marks;
    bool ok = text_new(run, at, sink->text.size, sink->marks.size > 0, &data, &marks, out);
    if (ok && sink->text.size > 0)
        memcpy(data, sink->text.data, sink->text.size);
    if (ok && sink->marks.size > 0)
        memcpy(marks, sink->marks.data, sink->marks.size);
    sink_free(sink);
    return ok;
}

void sink_free(struct sink *sink)
{
    buffer_free(&sink->text);
    buffer_free(&sink->marks);
}
