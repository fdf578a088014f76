/* Answers that were given before, given again to the same question of the same tenant, and one call for equal
 * questions that are asked at the same time. Exact: one byte of difference in what an answer depends on is
 * another question. Only complete answers are kept. Any thread. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/error.h"
#include "router/cache/response_store.h"

struct response_cache;

struct response_cache_options {
    struct response_store *store; /* taken over: closed with the cache */
    int64_t ttl_ns;               /* of an answer */
    bool draws_too; /* also questions whose answer is drawn (a temperature, and no seed): the first draw
                       stands for all */
};
err_t response_cache_open(const struct response_cache_options *options,
                          struct response_cache **out) ERR_MUST_CHECK;
/* Nobody may be asking or waiting any more. NULL is fine. */
void response_cache_close(struct response_cache *cache);

/* What an answer depends on. */
struct response_question {
    const json_t *request;   /* a chat request in OpenAI's form */
    const char *tenant;      /* or what a group of tenants shares; "" = nobody */
    const char *cache_salt;  /* of a caller who speaks for others: whose it is; NULL = nobody's besides */
    const char *model;       /* who is to answer: "openai/gpt-5" */
    const char *fingerprint; /* of the local model, template and arithmetic; "" = not known */
    bool local_only;         /* it stays in this process */
};
/* False: it is not to be kept, since its answer is drawn anew each time or the store lies outside and it may
 * not. What does not change an answer
 * (stream, stream_options, user, metadata, hints and the like) is not in the key; a field that asks for
 * nothing is as if it were not there. RESOURCE_EXHAUSTED. */
err_t response_cache_key(const struct response_cache *cache, const struct response_question *question,
                         struct response_key *out, bool *is_kept) ERR_MUST_CHECK;

enum response_turn {
    RESPONSE_HIT,  /* *answer is a checked record (answer_record.h) */
    RESPONSE_LEAD, /* answer it yourself, then response_cache_done, whatever comes of it */
    RESPONSE_WAIT, /* somebody is at it: ready will be called */
};
/* ready: on the thread of response_cache_done. bytes: the record, until it returns; NULL = there is none.
 * Then leads says that the waiter answers the question now, as one that got RESPONSE_LEAD does, while the
 * others go on waiting for it; else it goes on alone. */
struct response_waiter {
    struct response_waiter *next; /* the cache's */
    void (*ready)(struct response_waiter *waiter, const char *bytes, size_t size, bool leads);
};
/* How a leader is done without a record. */
enum response_end {
    RESPONSE_WHOLE,   /* there is one */
    RESPONSE_LEFT,    /* it has left, which says nothing of the question: who has waited longest leads */
    RESPONSE_FAILED,  /* nobody answered it: likewise, but the second time all go on alone */
    RESPONSE_NOT_HIS, /* it was answered, but not so that the answer is kept: all go on alone */
};

/* A store that fails makes a LEAD of what could have been a HIT, and is logged. waiter: the caller's memory,
 * which must live until ready or response_cache_leave; NULL = never wait (the turn is then LEAD without
 * response_cache_done when somebody is at it: *is_alone). */
enum response_turn response_cache_ask(struct response_cache *cache, const struct response_key *key,
                                      struct response_waiter *waiter, struct buffer *answer, bool *is_alone);
/* The leader is done: bytes is the record of a complete answer, which is kept and given to all who wait; NULL
 * = there is none, and end (not RESPONSE_WHOLE) says why. Exactly once for each LEAD that is not alone. */
void response_cache_done(struct response_cache *cache, const struct response_key *key, enum response_end end,
                         const char *bytes, size_t size);
/* One that waits does so no more: its client has left. False: ready has been called or is about to be, and
 * the waiter's memory must live until then. */
bool response_cache_leave(struct response_cache *cache, const struct response_key *key,
                          struct response_waiter *waiter);

/* Since the start. */
struct response_cache_counts {
    uint64_t hits, misses, shared; /* shared: got the answer that another one had asked for */
};
struct response_cache_counts response_cache_counts(struct response_cache *cache);
