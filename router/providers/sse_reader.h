/* Server-sent events out of bytes that come in any pieces. Source: WHATWG HTML, "Server-sent events", as far
 * as a client of model providers needs it (`id` and `retry` are ignored). CR, LF and CRLF end a line; a byte
 * order mark at the start, comments, several data lines and a missing blank after the colon are as the
 * standard has them. Zero-initialise with a limit: struct sse_reader r = {.event_bytes_max = 1 << 20}. One
 * thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/error.h"

enum { SSE_NAME_BYTES_MAX = 63 }; /* of an event's name; a longer one reads as "" */

/* Both strings live until the reader is used again, and end with a NUL. */
struct sse_event {
    const char *name; /* "" when the stream gives none */
    const char *data; /* lines joined by LF; data_bytes of it */
    size_t data_bytes;
};

struct sse_reader {
    size_t event_bytes_max; /* of one event's data, and of one line */
    uint64_t n_comments;    /* lines that only keep a connection alive */
    struct buffer line, data;
    char name[SSE_NAME_BYTES_MAX + 1];
    bool is_begun, has_data, was_carriage_return, is_delivered;
};

/* Takes bytes[0..size) up to the end of the next event. *consumed says how many; *found whether *out is one.
 * An event that is not found has taken everything. RESOURCE_EXHAUSTED: a line or an event is longer than the
 * limit, or memory is short; the stream is then of no use any more. */
err_t sse_reader_next(struct sse_reader *reader, const char *bytes, size_t size, size_t *consumed,
                      struct sse_event *out, bool *found) ERR_MUST_CHECK;
/* The stream has ended. *found: it ended within an event, whose data so far *out gives (some servers leave
 * out the last blank line). Whether it is whole, its reader must see. */
err_t sse_reader_end(struct sse_reader *reader, struct sse_event *out, bool *found) ERR_MUST_CHECK;
void sse_reader_free(struct sse_reader *reader);
