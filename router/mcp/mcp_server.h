/* The Model Context Protocol over HTTP (POST /mcp), so that an agent switches between the engine beside the
 * router and a frontier: the tools complete, route_explain, escalate, compare and budget_status, and
 * resources about models, prices, the router's state and decisions. Stateless: no sessions, an answer a
 * request. A page of another origin is refused (403), since a browser on this machine reaches loopback too.
 */
#pragma once

#include <stddef.h>
#include "api/service.h"
#include "base/buffer.h"
#include "base/error.h"
#include "proto/extra_routes.h"

#define MCP_PATH "/mcp"

enum {
    MCP_COMPARE_MODELS_MAX = 4,
    MCP_ORIGIN_BYTES_MAX = 256,
    MCP_ANSWER_BYTES_MAX = 64 << 20, /* of one message */
};

/* What it speaks for. Each of the four appends a JSON object; any thread. */
struct mcp_backend {
    void *context;
    err_t (*explain)(void *context, const struct request *request, struct buffer *out);
    err_t (*budget)(void *context, const char *tenant, struct buffer *out);
    err_t (*state)(void *context, struct buffer *out);
    err_t (*prices)(void *context, struct buffer *out);
};

struct mcp_options {
    struct mcp_backend backend;
    const char *version;        /* of this program; static */
    const char *const *origins; /* [n_origins] besides those of this machine; borrowed */
    size_t n_origins;
};

struct mcp_server;

err_t mcp_server_open(const struct mcp_options *options, struct mcp_server **out) ERR_MUST_CHECK;
/* The door must have been closed. NULL is fine. */
void mcp_server_close(struct mcp_server *server);
/* For a door's options, whose service is what requests are put to. */
struct extra_route mcp_server_route(struct mcp_server *server);
