/* A service without a model behind the doors' vtable: a thread draws tokens that depend only on the prompt,
 * the choice and the position. Text prompts are one token a byte; text of a token is "<id> "; tokens of
 * output_prefix_ids count against max_tokens. What it counts,
 * the tests assert. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "api/service.h"
#include "base/error.h"

struct fake_service;

enum {
    FAKE_RING_TOKENS = 64,
    FAKE_VOCAB_SIZE = 1000,
    FAKE_MAX_MODEL_LEN = 4096,
    FAKE_MAX_TOKENS_DEFAULT = 16,
    FAKE_CARDS = 2
};

struct fake_options {
    int64_t tick_ns;      /* between two steps; 0 = as fast as it goes */
    uint32_t max_streams; /* then submit answers RESOURCE_EXHAUSTED; 0 = no limit */
    uint64_t salt;        /* another model: other tokens */
};

err_t fake_service_open(const struct fake_options *options, struct fake_service **out) ERR_MUST_CHECK;
void fake_service_close(struct fake_service *fake);
struct service *fake_service_of(struct fake_service *fake);

/* While held no stream gets a token. */
void fake_service_hold(struct fake_service *fake, bool held);
/* What loads reports: a loop that died so long ago, or is in a step. */
void fake_service_set_heartbeat(struct fake_service *fake, int64_t age_ns, bool step_running);
/* What loads reports: the device is lost. */
void fake_service_set_failed(struct fake_service *fake);
/* The next submit fails with this code. */
void fake_service_fail_submit(struct fake_service *fake, enum err_code code);
/* Streams fail at this position with ERR_INTERNAL; UINT32_MAX = never. */
void fake_service_fail_at(struct fake_service *fake, uint32_t position);

/* An answer has no token at this position and after it, and no end there, until this is moved; UINT32_MAX =
 * nowhere. */
void fake_service_stall_at(struct fake_service *fake, uint32_t position);

/* From now on it is a service that passes requests on (api/service.h): it has FAKE_CARDS models to ask for,
 * and what is submitted is answered with these events (borrowed, [n_events], the last one with `last`), one
 * by one. */
void fake_service_pass_on(struct fake_service *fake, const struct event *events, size_t n_events);
/* Whose request came last, and with which wishes. */
struct fake_asked {
    char tenant[REQUEST_TENANT_BYTES_MAX + 1], cache_salt[256]; /* "" = none */
    int32_t priority;
    enum prompt_kind prompt_kind;
    bool takes_ids_only;
    char text[256];  /* of all messages, each with its role: "user: hi\n" */
    char hints[512]; /* "route=local privacy=local_only " */
    char beyond[ERR_MESSAGE_MAX];
    char original[1024]; /* its JSON, keys sorted; "" = none. Cut off when it is longer */
};
struct fake_asked fake_service_asked(struct fake_service *fake);

struct fake_counts {
    uint32_t live;                           /* submitted and not released */
    uint32_t submitted, released, cancelled; /* since start */
    uint32_t paused;                         /* with a full ring now */
    uint64_t pauses;                         /* streams that were found so, summed over all steps */
    uint64_t steps;
};
struct fake_counts fake_service_counts(struct fake_service *fake);
/* Waits until predicate(counts) holds; aborts the test after a minute. */
void fake_service_wait(struct fake_service *fake, bool (*predicate)(const struct fake_counts *counts));

/* The token that stands at a position. */
uint32_t fake_token(uint64_t prompt_hash, uint32_t choice, uint32_t position);
uint64_t fake_prompt_hash(const uint32_t *ids, size_t n_ids);
