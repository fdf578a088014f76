/* Recorded traffic, read back: our decision log with content, OpenAI-style logs and LiteLLM's, a JSON line
 * each.
 *
 *   {"version": 1, "unix_ms": ..., "request": {...}, "answer": "...", ...}      decision_entry.h
 *   {"request": {"messages": [...]}, "response": {"choices": [...], "usage": {...}}}
 *   {"messages": [..., {"role": "assistant", "content": "..."}]}                 the last one is the answer
 *   {"messages": [...], "response": {...} or "...", "response_cost": 0.002, "startTime": s, "endTime": s}
 *
 * Lines that have no request or no answer (content is off, the call failed) are counted and left out, and so
 * are lines that are none of these. */
#pragma once

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "router/money/money.h"

enum { REPLAY_ITEMS_MAX = 1000000, REPLAY_NAME_BYTES = 64, REPLAY_TENANT_BYTES = 65 };

struct replay_item {
    json_t *request; /* owned: a chat request in OpenAI's form, without the answer and `stream` */
    char *answer;    /* owned, answer_bytes and a NUL; tool calls as eval_put_calls writes them */
    size_t answer_bytes;
    nanodollars cost;                              /* -1 = not known */
    int64_t input_tokens, output_tokens, total_us; /* -1 = not known */
    char model[REPLAY_NAME_BYTES];                 /* that answered; "" = not told */
    char tenant[REPLAY_TENANT_BYTES];              /* of our own logs; "" = not told */
};

struct replay_log {
    struct replay_item *items; /* [n], in the log's order */
    size_t n, capacity;
    size_t n_without_content, n_bad;
    size_t first_bad; /* number of its line, from 1 on */
    err_t why_bad;
};

/* RESOURCE_EXHAUSTED: no memory, or more than REPLAY_ITEMS_MAX; *out is empty then. */
err_t replay_log_parse(const char *text, size_t text_bytes, struct replay_log *out) ERR_MUST_CHECK;
err_t replay_log_read(const char *path, struct replay_log *out) ERR_MUST_CHECK;
/* Leaves the last n. */
void replay_log_keep_last(struct replay_log *log, size_t n);
void replay_log_free(struct replay_log *log);
