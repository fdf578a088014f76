/* One line of the decision log: what was decided about a request and how it went, as JSON. Strings that
 * stand for something of the request's content are its own words only where that is wished and the request
 * may be shared; else a length and a hash stand for them. Pure functions. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/error.h"
#include "router/money/money.h"
#include "router/policy/policy.h"
#include "router/providers/provider_answer.h"

enum {
    DECISION_LINE_VERSION = 1,
    DECISION_LINE_BYTES_MAX = 4 << 20, /* a request with more has its hash in the log */
    DECISION_KEY_BYTES = 32,
};

/* Strings are never NULL. */
struct decision_entry {
    int64_t unix_ms;
    const char *id;                          /* of the decision */
    const char *request_id, *tenant, *model; /* asked for */
    const char *provider, *answered_by;      /* "local" and the model, or a provider and its model */
    const char *tier, *reason, *rule;
    const char *cache;     /* "hit", "shared", "miss", "off" */
    const char *policy_id; /* fingerprint of the policy */
    const char *fingerprint;
    const char *stage; /* of the rollout */
    const char *error; /* name of its code; "" = it was answered */
    const char *finish_reason;
    uint64_t seed;
    bool local_only, escalated, hedged, cost_is_estimate; /* the last: a call did not tell what it used */
    uint32_t attempts;
    double difficulty, confidence;              /* negative = not known */
    uint64_t prompt_tokens;                     /* estimated when decided */
    int64_t predicted_ttft_ms;                  /* -1 = not known */
    int64_t queue_us, first_token_us, total_us; /* -1 = did not happen */
    struct answer_usage usage;
    nanodollars cost, frontier_cost;  /* frontier_cost: what it would have cost there; -1 = not known */
    const struct policy_input *input; /* all that the decision rested on, so that policy_decide decides it
                                         again; NULL = not told */
    size_t n_tiers;                   /* of input */
    const json_t *request;            /* OpenAI's form; NULL = none */
    const char *answer;               /* answer_bytes; NULL = not kept */
    size_t answer_bytes;
};

/* Keys the hashes: HMAC-SHA-256. Whoever has the log and not the key cannot find a short prompt by trying. */
struct decision_key {
    uint8_t bytes[DECISION_KEY_BYTES];
};

/* Appends the line, without its line break. content: the request and the answer themselves, unless the entry
 * is local_only. Equal requests have equal hashes under one key, whatever the order of their fields.
 * RESOURCE_EXHAUSTED when it does not fit *out, which then ends anywhere. */
err_t decision_entry_encode(const struct decision_entry *entry, bool content, const struct decision_key *key,
                            struct buffer *out) ERR_MUST_CHECK;

/* A line that was read. It points into itself, so that it is not copied. */
struct decision_line {
    struct decision_entry entry; /* what the line does not tell is "", -1 or 0 */
    struct policy_input input;   /* entry.input points here when the line has it */
    struct request_signals signals;
    struct route_hints hints;
    json_t *document_; /* holds the strings */
};

/* INVALID_ARGUMENT says what is wrong with it. Fields that this version does not know are passed over. */
err_t decision_line_parse(const char *text, size_t text_bytes, struct decision_line *out) ERR_MUST_CHECK;
void decision_line_free(struct decision_line *line);
