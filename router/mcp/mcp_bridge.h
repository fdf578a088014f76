/* The Model Context Protocol over standard input and output, for agents that start their servers themselves:
 * each line is a message of JSON-RPC, passed on to a router's /mcp over HTTP, and each answer is a line.
 * Calls go on beside each other; notifications/cancelled ends one by closing its connection. Source:
 * modelcontextprotocol.io, specification of 2026-07-28, "Transports". */
#pragma once

#include "base/error.h"

enum {
    MCP_LINE_BYTES_MAX = 4 << 20, /* of a message that comes; a longer one gets an error */
    MCP_CALLS_MAX = 64,           /* at once; more get an error */
};

struct mcp_bridge_options {
    const char *url;     /* of the router's /mcp: "http://127.0.0.1:8010/mcp" */
    const char *api_key; /* a secret; NULL = none */
    const char *ca_file; /* certificates to trust; NULL = the system's */
    int input, output;   /* descriptors; lines come and go */
};

/* Until the input ends and all calls have been answered. INVALID_ARGUMENT: the URL or key cannot be sent. IO:
 * nobody reads the output any more, or the input cannot be read. */
err_t mcp_bridge_run(const struct mcp_bridge_options *options) ERR_MUST_CHECK;
