/* What was decided and how it went, a JSON line for each request: enough to replay the decisions, and, where
 * that is wished, the requests. Content is off unless the configuration says otherwise, and never written for
 * a request that must stay: then hashes and lengths stand for it. A disk that is full or a pipe that is
 * blocked loses lines, counts them, and holds nobody up. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/error.h"
#include "router/config/yaml_fields.h"
#include "router/money/money.h"
#include "router/providers/provider_answer.h"

/* log: {path: decisions.jsonl, content: no, max_bytes: 100000000, keep: 5, retention: 30d} */
struct decision_log_options {
    const char *path;     /* NULL = no log */
    bool content;         /* prompts and answers too, of requests that may be shared */
    int64_t max_bytes;    /* of a file, which is then renamed PATH.1, PATH.1 to PATH.2, ... */
    uint32_t keep;        /* renamed ones */
    int64_t retention_ms; /* renamed ones that are older are deleted; 0 = kept */
};
err_t decision_log_options_read(const struct yaml_value *value,
                                struct decision_log_options *out) ERR_MUST_CHECK;

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
    bool local_only, escalated, hedged;
    uint32_t attempts;
    double difficulty, confidence;              /* negative = not known */
    uint64_t prompt_tokens;                     /* estimated when decided */
    int64_t predicted_ttft_ms;                  /* -1 = not known */
    int64_t queue_us, first_token_us, total_us; /* -1 = did not happen */
    struct answer_usage usage;
    nanodollars cost, frontier_cost; /* frontier_cost: what it would have cost there, -1 = not known */
    const json_t *request;           /* OpenAI's form */
    const char *answer;              /* answer_bytes; NULL = not kept */
    size_t answer_bytes;
};

struct decision_log;

err_t decision_log_open(const struct decision_log_options *options, struct decision_log **out) ERR_MUST_CHECK;
void decision_log_close(struct decision_log *log); /* writes what is queued; NULL is fine */
/* Any thread; never blocks on the file. The entry is read before it returns. */
void decision_log_write(struct decision_log *log, const struct decision_entry *entry);
uint64_t decision_log_lost(const struct decision_log *log); /* lines since the start */
/* The line that would be written, without its line break. */
err_t decision_entry_encode(const struct decision_entry *entry, bool content,
                            struct buffer *out) ERR_MUST_CHECK;
