/* The router's page: what it does now, for people, as paths of a door over HTTP (proto/extra_routes.h): "/",
 * its style and its one script, and "/router/state", which the script asks each second. No content of
 * requests is in any of it. It belongs on the operator's listener.
 *
 * The page shows, and takes as missing what is not there:
 *   {"policy": "id", "offline": false,
 *    "requests": {"running": 3},
 *    "decisions": {"default": 10, "rule": 2},              # by reason, since the start
 *    "answers": {"local": 9, "frontier": 2, "cache": 1},   # by whom, since the start
 *    "money": {"spent_dollars": 0.02, "saved_dollars": 0.4},
 *    "slo": {"ttft_ms": 500},
 *    "local": [{"model": "local/demo", "replicas": 2, "up": 2, "waiting": 0, "running": 1, "kv_used": 0.25,
 *               "predicted_ttft_ms": 12.5}],
 *    "providers": [{"model": "openai/gpt-5", "breaker": "closed", "calls": 3, "answers": 2,
 *                   "first_token_ms": 400, "spent_dollars": 0.02}],
 *    "cache": {"hit": 1, "shared": 0, "miss": 11},
 *    "rollout": {"stage": "promoted", "why": "..."}} */
#pragma once

#include "base/buffer.h"
#include "base/error.h"
#include "proto/extra_routes.h"

enum { ROUTE_PAGE_ROUTES = 4, ROUTE_STATE_BYTES_MAX = 1 << 20 };

/* Whose state it shows: appends JSON. On a thread of the door. */
struct route_page {
    err_t (*state)(void *context, struct buffer *out);
    void *context;
};

/* page: borrowed as long as the routes are. */
void route_page_fill(const struct route_page *page, struct extra_route out[ROUTE_PAGE_ROUTES]);
