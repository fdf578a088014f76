/* The router as a service (api/service.h): behind the same doors as an engine. A request is looked at, a
 * policy decides, and its answer comes from an engine beside the router, from a provider, or from what was
 * answered before. Whoever answers, the reader gets the one kind of events, which say who it was.
 *
 * A request is a chain of attempts until one is committed, that is until the first byte of an answer has gone
 * on: another model of the tier, another tier, a hedge, a cascade that changes its mind. After that there is
 * no way back, but a replica that dies is followed by another (local_fleet.h). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "api/service.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/error.h"
#include "router/config/route_config.h"

struct event_base;
struct route_service;

struct route_service_options {
    struct route_config *config; /* taken over, on success and on failure alike */
    bool is_offline;             /* nothing leaves this machine, whatever the configuration says */
    uint32_t max_requests;       /* at once */
    uint64_t max_held_bytes;     /* that they may take together, about: what is asked, not what is answered */
    const struct clock *clock;
};

err_t route_service_open(const struct route_service_options *options,
                         struct route_service **out) ERR_MUST_CHECK;
/* Every stream must have been released. NULL is fine. */
void route_service_close(struct route_service *service);
struct service *route_service_of(struct route_service *service);

/* On a thread with an event loop: what it submits from now on goes out to providers on that loop, until it
 * leaves (egress_join). */
void route_service_join(struct route_service *service, struct event_base *base);
void route_service_leave(struct route_service *service);

/* Another configuration from the next request on; requests under way end by the one they began with. What
 * cannot change while it runs (listeners, the ledger's file) is refused with INVALID_ARGUMENT, and nothing
 * changes then. Takes config over in any case. Any thread. */
err_t route_service_reload(struct route_service *service, struct route_config *config) ERR_MUST_CHECK;

/* Why a request would go where, without calling anyone: signals, scores, each tier's expected first token and
 * price, and the decision, as a JSON object appended to *out. Any thread. */
err_t route_service_explain(struct route_service *service, const struct request *request,
                            struct buffer *out) ERR_MUST_CHECK;
/* What a tenant has spent and may yet spend, as JSON. Any thread. */
err_t route_service_budget(struct route_service *service, const char *tenant,
                           struct buffer *out) ERR_MUST_CHECK;
/* What the router sees now, as JSON, for its page and MCP: requests, decisions by reason, upstreams with
 * their breakers and times, cache, money spent and saved, rollout. Holds no content. Any thread. */
err_t route_service_state(struct route_service *service, struct buffer *out) ERR_MUST_CHECK;
