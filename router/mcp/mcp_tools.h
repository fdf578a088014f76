/* The tools of mcp_server.h: what an agent is told of them, and their running. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include "api/service.h"
#include "base/event_count.h"
#include "router/mcp/mcp_handles.h"
#include "router/mcp/mcp_message.h"
#include "router/mcp/mcp_server.h"

/* Names, descriptions and schemas of arguments and answers: the list of tools/list. Owned by the caller. */
json_t *mcp_tools_describe(void);

/* What tools work with; all borrowed. */
struct mcp_ground {
    const struct mcp_backend *backend;
    struct service *service;
    struct mcp_handles *handles;
};

/* A call of a tool under way. */
struct mcp_run;

/* Starts name(arguments) for a tenant. *result is set when the answer is there already (owned; a tool that
 * fails answers with isError), else *run is. False: *fault says why it is no call of a tool. */
bool mcp_run_start(const struct mcp_ground *ground, const char *tenant, const char *name,
                   const json_t *arguments, struct mcp_run **run, json_t **result, struct mcp_fault *fault);
/* Takes what has come; the result when all has (owned), else NULL. After each bump of service_progress. */
json_t *mcp_run_pump(struct mcp_run *run);
/* Cancels what is under way. NULL is fine. */
void mcp_run_end(struct mcp_run *run);

/* A decision that a handle names, as JSON; NULL = there is none of this tenant's. Owned by the caller. */
json_t *mcp_decision_of(const struct mcp_ground *ground, const char *tenant, const char *handle);
