/* What is asked, looked at: the request in its one form, what it shows of itself, where it may go, and what
 * the policy makes of it. Nobody is called. */
#pragma once

#include <jansson.h>
#include "api/request.h"
#include "router/policy/policy.h"
#include "router/service/route_snapshot.h"

struct question_context {
    struct route_snapshot *snapshot;
    struct upstream_table *upstreams;
    struct ledger *ledger;
    bool is_offline;
    int64_t now_ns;
};

/* Belongs to one request; strings of tenant and model are the request's. */
struct route_question {
    json_t *json; /* OpenAI's form; NULL = it has none, and stays here. Owned */
    struct request_signals signals;
    struct route_hints hints;
    uint64_t prompt_tokens;             /* estimated, or as an engine has counted them */
    uint64_t prompt_bytes;              /* that a model reads as text; 0 = there is more than text */
    uint64_t turn_tokens;               /* of prompt_tokens: those of a template */
    uint64_t input_bound;               /* tokens, at most, for what may have to be paid */
    uint64_t n_choices;                 /* that are asked for, each of them paid */
    uint8_t can_take[POLICY_TIERS_MAX]; /* bit i: the i-th model of the tier can be asked */
    size_t asked_tier, asked_model;     /* that the client names; POLICY_TIERS_MAX = none */
    char *why_not[POLICY_TIERS_MAX];    /* owned; where input.cannot_cross is */
    struct policy_input input;
    struct policy_decision decision;
};

/* request outlives the question. INVALID_ARGUMENT: a hint that makes no sense; RESOURCE_EXHAUSTED. On an
 * error nothing is left behind. */
err_t route_question_read(const struct question_context *context, const struct request *request,
                          struct route_question *out) ERR_MUST_CHECK;
void route_question_free(struct route_question *question);
/* trace: as policy_decide's. */
void route_question_decide(struct route_question *question, const struct question_context *context,
                           struct buffer *trace);
/* Which model of a tier is asked as its position-th: the one that the client names is the first. */
size_t route_question_model(const struct route_question *question, size_t tier, size_t position);
/* Why it is refused, as the error that the client gets. */
err_t route_question_refusal(const struct route_question *question);
/* The most that a call of this model can cost, if route_question_output_limit is sent with it. */
nanodollars route_question_estimate(const struct route_question *question,
                                    const struct route_upstream *upstream);
/* Tokens of a choice, to be sent where the request has no limit of its own; 0 = none is needed. */
uint32_t route_question_output_limit(const struct route_question *question,
                                     const struct provider_model *model);
