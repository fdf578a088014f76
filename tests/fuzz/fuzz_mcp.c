/* Messages of the Model Context Protocol as bytes, with headers before them: "version|method|name", a line
 * break, the body. What is answered is JSON with the message's own id. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "base/assert.h"
#include "router/mcp/mcp_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct http_text next_part(const char **at, const char *end)
{
    const char *bar = memchr(*at, '|', (size_t)(end - *at)), *stop = bar ? bar : end;
    struct http_text part = {*at, (size_t)(stop - *at)};
    *at = bar ? bar + 1 : end;
    return part;
}

static void check_answer(const struct mcp_message *message, const struct buffer *text, const char *key)
{
    json_t *answer = json_loadb(text->data, text->size, JSON_ALLOW_NUL, NULL);
    const json_t *id = json_object_get(answer, "id");
    ASSERT(json_object_get(answer, key) && memchr(text->data, '\n', text->size) == NULL);
    ASSERT(message->id ? json_equal(id, message->id) : json_is_null(id));
    json_decref(answer);
}

static void read_message(const char *body, size_t size, const struct mcp_headers *headers)
{
    struct mcp_message message = {0};
    struct mcp_fault fault = {0};
    struct buffer text = {.limit_bytes = 16 << 20};
    if (mcp_message_read(body, size, headers, &message, &fault)) {
        ASSERT(message.root && message.method && strlen(message.method) <= MCP_METHOD_BYTES_MAX);
        ASSERT(message.params == NULL || json_is_object(message.params));
        ASSERT(mcp_write_result(&message, json_object(), &text));
        check_answer(&message, &text, "result");
    } else {
        ASSERT(fault.code < 0 && fault.message[0] != '\0' && mcp_status_of(fault.code) >= 400);
        ASSERT(mcp_write_fault(&message, &fault, &text));
        check_answer(&message, &text, "error");
    }
    buffer_free(&text);
    mcp_fault_free(&fault);
    mcp_message_free(&message);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *bytes = (const char *)data, *line_end = memchr(bytes, '\n', size), *at = bytes;
    const char *body = line_end ? line_end + 1 : bytes + size;
    struct mcp_headers headers = {0};
    if (line_end) {
        headers.version = next_part(&at, line_end);
        headers.method = next_part(&at, line_end);
        headers.name = next_part(&at, line_end);
        headers.is_repeated = at < line_end;
    }
    read_message(body, (size_t)(bytes + size - body), &headers);
    read_message(body, (size_t)(bytes + size - body), NULL);
    return 0;
}
