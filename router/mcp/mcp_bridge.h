/* MCP over stdio: lines of JSON-RPC from an agent that starts programs, carried to a router's /mcp and back.
 * A line may be asked while others are still being answered; answers come as they are ready, and
 * notifications/cancelled ends one by closing its connection. */
#pragma once

#include <stdint.h>
#include <stdio.h>
#include "base/error.h"

enum {
    MCP_LINE_BYTES_MAX = 4 << 20, /* of one message from the agent; a longer one is answered with an error */
    MCP_BRIDGE_CALLS_MAX = 64,    /* under way; beyond it, the next line waits */
};

struct mcp_bridge_options {
    const char *url;     /* of the router: "http://127.0.0.1:8010/mcp" */
    const char *key;     /* sent as a bearer; NULL = none */
    const char *ca_file; /* PEM; NULL = the system's */
    int64_t timeout_ms;  /* of one message */
    FILE *in, *out;
};

/* Until `in` ends and every answer is out. What cannot be delivered is answered with a JSON-RPC error.
 * INVALID_ARGUMENT: the URL or key cannot be sent; IO: `out` takes no more. */
err_t mcp_bridge_run(const struct mcp_bridge_options *options) ERR_MUST_CHECK;
