/* What `complete` answered lately, by handle: so that an agent may escalate it, or ask what was decided.
 * Bounded in number and bytes; the oldest goes first. A tenant finds its own alone. A request that must stay
 * on this machine is told of, and its words are not kept. Any thread. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include "base/error.h"

enum {
    MCP_HANDLES_MAX = 1024,
    MCP_HANDLES_BYTES_MAX = 16 << 20, /* of requests, together */
    MCP_HANDLE_BYTES = 17,            /* 16 hexadecimal digits */
};

struct mcp_handles;

err_t mcp_handles_create(struct mcp_handles **out) ERR_MUST_CHECK;
void mcp_handles_destroy(struct mcp_handles *handles); /* NULL is fine */
/* A fresh handle, not to be guessed. */
void mcp_handle_make(char out[MCP_HANDLE_BYTES]);
/* request: the arguments; NULL = they are not kept. decision: who answered and why. Takes references of its
 * own. */
void mcp_handles_put(struct mcp_handles *handles, const char *handle, const char *tenant, json_t *request,
                     json_t *decision);
/* False: there is none, or it is another tenant's. References that the caller gives back; *request NULL: it
 * was not kept. */
bool mcp_handles_get(struct mcp_handles *handles, const char *handle, const char *tenant, json_t **request,
                     json_t **decision);
