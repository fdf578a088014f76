/* Between the asking and its two ways. */
#pragma once

#include <stdatomic.h>
#include "base/buffer.h"
#include "base/event_count.h"
#include "clients/c/bantam_client.h"
#include "router/gate/eval_ask.h"
#include "router/providers/provider_call.h"

enum eval_slot_state { SLOT_FREE, SLOT_RUNNING, SLOT_ENDED, SLOT_WAITING };

/* A request under way. Its handler writes all but state's first three, which the asking thread writes. */
struct eval_slot {
    _Atomic int state;
    struct eval_endpoint *endpoint;
    size_t index; /* of the request */
    uint32_t attempts;
    int64_t due_ns; /* SLOT_WAITING */
    struct eval_answer *answer;
    struct buffer text;
    json_t *calls; /* of tools: {"name", "arguments"}; owned */
    int64_t started_ns, first_ns, ended_ns;
    err_t error;
    bool may_retry;
};

struct eval_endpoint {
    char name[64];
    int64_t timeout_ns;
    const _Atomic bool *stop; /* NULL = never */
    bool has_price;
    struct price price;
    nanodollars per_hour; /* > 0: what was asked at once shares the time that it took */
    /* Over gRPC */
    struct bantam_client *client;
    bool is_router;
    char fingerprint[BANTAM_FINGERPRINT_BYTES_MAX + 1];
    /* Over HTTP */
    struct egress *egress;
    const struct provider *provider;
    const struct provider_model *model;
    struct provider own_provider;
    struct provider_model own_model;
    char *url, *key, *model_name; /* owned, of own_provider */
    struct event_count ended;     /* bumped when a slot ends */
};

/* Starts the slot's request; the slot then ends, now or later, on whatever thread. */
err_t eval_engine_start(struct eval_slot *slot, const json_t *request) ERR_MUST_CHECK;
err_t eval_http_start(struct eval_slot *slot, const json_t *request) ERR_MUST_CHECK;
/* By the handler, once a piece came or all ended. */
void eval_slot_saw(struct eval_slot *slot);
/* A tool's call: more of it, the whole or a part. False: no memory. */
bool eval_slot_call(struct eval_slot *slot, uint32_t index, const char *name, const char *arguments,
                    size_t arguments_bytes);
void eval_slot_end(struct eval_slot *slot, err_t error);
