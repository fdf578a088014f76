#include "router/providers/sse_reader.h"

#include <string.h>
#include "base/assert.h"

static const char BYTE_ORDER_MARK[] = "\xef\xbb\xbf";

static err_t too_long(const struct sse_reader *reader)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "an event of the stream is longer than %zu bytes",
                   reader->event_bytes_max);
}

static void forget_event(struct sse_reader *reader)
{
    buffer_clear(&reader->data);
    reader->name[0] = '\0';
    reader->has_data = false;
    reader->is_delivered = false;
}

/* What the buffers may hold is known only from the first call on. */
static void begin(struct sse_reader *reader)
{
    ASSERT(reader->event_bytes_max > 0);
    reader->line.limit_bytes = reader->event_bytes_max;
    reader->data.limit_bytes = reader->event_bytes_max;
    if (reader->is_delivered)
        forget_event(reader);
}

static void take_name(struct sse_reader *reader, const char *value, size_t size)
{
    if (size > SSE_NAME_BYTES_MAX || memchr(value, '\0', size))
        size = 0;
    memcpy(reader->name, value, size);
    reader->name[size] = '\0';
}

static err_t take_data(struct sse_reader *reader, const char *value, size_t size)
{
    bool fits = !reader->has_data || buffer_append(&reader->data, "\n", 1);
    reader->has_data = true;
    return fits && buffer_append(&reader->data, value, size) ? err_ok() : too_long(reader);
}

/* One line without its end. *is_event: a blank one, and there is something to give. */
static err_t take_line(struct sse_reader *reader, const char *line, size_t size, bool *is_event)
{
    const size_t mark_bytes = sizeof BYTE_ORDER_MARK - 1;
    if (!reader->is_begun && size >= mark_bytes && memcmp(line, BYTE_ORDER_MARK, mark_bytes) == 0) {
        line += mark_bytes;
        size -= mark_bytes;
    }
    reader->is_begun = true;
    if (size == 0) {
        *is_event = reader->has_data;
        if (!reader->has_data)
            reader->name[0] = '\0';
        return err_ok();
    }
    const char *colon = memchr(line, ':', size);
    size_t name_bytes = colon ? (size_t)(colon - line) : size;
    const char *value = colon ? colon + 1 : line + size;
    size_t value_bytes = size - (size_t)(value - line);
    if (value_bytes > 0 && value[0] == ' ') {
        value++;
        value_bytes--;
    }
    if (name_bytes == 0)
        reader->n_comments++;
    else if (name_bytes == 4 && memcmp(line, "data", 4) == 0)
        return take_data(reader, value, value_bytes);
    else if (name_bytes == 5 && memcmp(line, "event", 5) == 0)
        take_name(reader, value, value_bytes);
    return err_ok();
}

static void give(struct sse_reader *reader, struct sse_event *out)
{
    *out = (struct sse_event){
        .name = reader->name,
        .data = reader->data.data ? reader->data.data : "",
        .data_bytes = reader->data.size,
    };
    reader->is_delivered = true;
}

/* Where the line ends in bytes[0..size); NULL = not in them. */
static const char *find_line_end(const char *bytes, size_t size)
{
    const char *line_feed = memchr(bytes, '\n', size);
    size_t before = line_feed ? (size_t)(line_feed - bytes) : size;
    const char *carriage_return = memchr(bytes, '\r', before);
    return carriage_return ? carriage_return : line_feed;
}

err_t sse_reader_next(struct sse_reader *reader, const char *bytes, size_t size, size_t *consumed,
                      struct sse_event *out, bool *found)
{
    begin(reader);
    *found = false;
    size_t at = 0;
    while (at < size && !*found) {
        if (reader->was_carriage_return && bytes[at] == '\n') {
            reader->was_carriage_return = false;
            at++;
            continue;
        }
        reader->was_carriage_return = false;
        const char *start = bytes + at, *end = find_line_end(start, size - at);
        size_t line_bytes = end ? (size_t)(end - start) : size - at;
        bool is_in_one_piece = end != NULL && reader->line.size == 0;
        if (is_in_one_piece ? line_bytes > reader->event_bytes_max
                            : !buffer_append(&reader->line, start, line_bytes))
            return too_long(reader);
        at += line_bytes;
        if (end == NULL)
            break;
        reader->was_carriage_return = *end == '\r';
        at++;
        err_t e = is_in_one_piece ? take_line(reader, start, line_bytes, found)
                                  : take_line(reader, reader->line.data, reader->line.size, found);
        buffer_clear(&reader->line);
        TRY(e);
    }
    *consumed = at;
    if (*found)
        give(reader, out);
    return err_ok();
}

err_t sse_reader_end(struct sse_reader *reader, struct sse_event *out, bool *found)
{
    begin(reader);
    *found = false;
    if (reader->line.size > 0) {
        bool is_event;
        err_t e = take_line(reader, reader->line.data, reader->line.size, &is_event);
        buffer_clear(&reader->line);
        TRY(e);
    }
    *found = reader->has_data;
    if (*found)
        give(reader, out);
    return err_ok();
}

void sse_reader_free(struct sse_reader *reader)
{
    buffer_free(&reader->line);
    buffer_free(&reader->data);
}
