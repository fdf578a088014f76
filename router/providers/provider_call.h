/* One request to one model of a provider: the body is written, sent, and the answer read piece by piece. What
 * a handler gets is the same for every kind of provider, streamed or not. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "router/policy/privacy.h"
#include "router/providers/egress.h"
#include "router/providers/provider.h"
#include "router/providers/provider_answer.h"
#include "router/providers/provider_request.h"

enum {
    PROVIDER_REQUEST_BYTES_MAX = 64 << 20,
    PROVIDER_EVENT_BYTES_MAX = 16 << 20, /* of one event of a stream, and one line of it */
    PROVIDER_BODY_BYTES_MAX = 64 << 20,  /* of an answer that is not streamed */
    PROVIDER_FAULT_BYTES_MAX = 64 << 10, /* of an error's body; the call ends there */
};

/* How it went. Strings live until the handler's end returns. */
struct provider_result {
    err_t error;    /* OK: the answer is complete. egress.h's and provider_answer.h's codes */
    bool may_retry; /* the same request may do better a little later: before the first piece has gone on, that
                       is */
    bool has_pieces;   /* something of the answer was given */
    bool reached;      /* bytes of an answer came: the provider may bill the call, whatever became of it */
    bool is_its_fault; /* the provider's or the network's, not the request's and not ours: for breakers */
    struct answer_usage usage;
    int64_t told_cost;                    /* nano-dollars, where it is a router that says so; -1 = not told */
    const char *model, *id, *fingerprint; /* as it calls them; "" = not told */
    struct egress_head head;              /* status 0: there was none */
    struct egress_times times;
};

/* On the egress thread. */
struct provider_handler {
    /* The head of an answer or of a refusal, once; NULL = of no interest. */
    void (*head)(void *context, const struct egress_head *head);
    /* *pause: no more until egress_resume. An error ends the call with it. */
    err_t (*piece)(void *context, const struct answer_piece *piece, bool *pause);
    void (*end)(void *context, const struct provider_result *result); /* the last call, exactly once */
};

/* Any thread. The request has passed provider_request_check for this model, and is only read here, now;
 * provider and model must live until the end. *number is egress.h's: egress_cancel and egress_resume take it.
 * PERMISSION_DENIED: what is to be shared is empty (privacy.h). */
err_t provider_call_start(struct egress *egress, const struct provider *provider,
                          const struct provider_model *model, const struct shareable *shareable,
                          bool is_stream, const struct provider_handler *handler, void *context,
                          struct provider_dropped *dropped, uint64_t *number) ERR_MUST_CHECK;
