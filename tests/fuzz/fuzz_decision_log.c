/* A line of a decision log as bytes: what is read can be written, and read again as the same. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "base/assert.h"
#include "router/log/decision_entry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write_and_read(const struct decision_line *line, struct buffer *text)
{
    static const struct decision_key KEY = {{1}};
    err_t e = decision_entry_encode(&line->entry, true, &KEY, text);
    ASSERT(e.code == ERR_OK && memchr(text->data, '\n', text->size) == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct decision_line line, again;
    err_t e = decision_line_parse((const char *)data, size, &line);
    if (e.code != ERR_OK) {
        ASSERT(e.code == ERR_INVALID_ARGUMENT);
        return 0;
    }
    line.entry.local_only = false; /* or a hash would be written, which is not read */
    struct buffer first = {.limit_bytes = DECISION_LINE_BYTES_MAX},
                  second = {.limit_bytes = DECISION_LINE_BYTES_MAX};
    write_and_read(&line, &first);
    e = decision_line_parse(first.data, first.size, &again);
    ASSERT(e.code == ERR_OK);
    write_and_read(&again, &second);
    ASSERT(first.size == second.size && memcmp(first.data, second.data, first.size) == 0);
    decision_line_free(&again);
    decision_line_free(&line);
    buffer_free(&first);
    buffer_free(&second);
    return 0;
}
