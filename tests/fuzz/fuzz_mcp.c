/* Any bytes as a message of MCP, over stdio and with headers: a message that is read has what its fields
 * promise, one that is not has a fault, and both can be answered. */
#include <stdint.h>
#include "base/assert.h"
#include "router/mcp/mcp_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_one(const char *bytes, size_t size, const struct mcp_headers *headers)
{
    struct mcp_message message = {0};
    struct mcp_fault fault = {0};
    struct buffer out = {.limit_bytes = 1 << 20};
    bool good = mcp_message_read(bytes, size, headers, &message, &fault);
    ASSERT(good == (fault.code == 0));
    ASSERT(!good || (message.method && (!message.params || json_is_object(message.params))));
    const char *name = good ? mcp_message_name(&message) : NULL;
    if (name && mcp_write_name(name, &out)) { /* a header's value */
        for (size_t i = 0; i < out.size; i++)
            ASSERT(out.data[i] >= ' ' && out.data[i] <= '~');
        buffer_clear(&out);
    }
    bool written =
        good ? mcp_write_result(&message, json_object(), &out) : mcp_write_fault(&message, &fault, &out);
    ASSERT(written || size > out.limit_bytes / 8);
    ASSERT(mcp_status_of(fault.code) >= 200);
    buffer_free(&out);
    mcp_fault_free(&fault);
    mcp_message_free(&message);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct mcp_headers headers = {
        .version = {"2026-07-28", 10}, .method = {"tools/call", 10}, .name = {"complete", 8}};
    read_one((const char *)data, size, NULL);
    read_one((const char *)data, size, &headers);
    return 0;
}
