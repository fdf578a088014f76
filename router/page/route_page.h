/* The router's page: what it does now, for people, as paths of a door over HTTP (proto/extra_routes.h): "/",
 * its style and its one script, and "/router/state", which the script asks each second. No content of
 * requests is in any of it. It belongs on the operator's listener.
 *
 * The state is that of route_service_state (router/service/route_service.h). The page reads of it, and takes
 * as missing what is not there:
 *   {"policy": "id", "offline": false, "in_flight": 3, "refused": 0, "fallbacks": 0, "handovers": 0,
 *    "slo_ttft_ms": 500, "decisions": {"default": 10}, "cache": {"hit": 1, "shared": 0, "miss": 11},
 *    "cascades": {"escalated": 0}, "hedges": {"won": 0}, "money": {"spent": 0.02, "reserved": 0, "saved":
 * 0.4}, "tiers": [{"name": "small", "models": [
 *      {"name": "local/demo", "breaker": "closed", "calls": 9, "answers": 9, "under_way": 1, "spent": 0,
 *       "first_token_ms_p50": 12, "replicas": 2, "replicas_up": 2, "waiting": 0, "running": 1,
 *       "predicted_ttft_ms": 12.5}]}],                 # without replicas: a provider's
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
