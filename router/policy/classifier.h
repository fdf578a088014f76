/* How hard a request is and what it wants, asked of a local model in one token (classifier_verdict.h): the
 * token is one of the labels' first ones, and the probabilities of these are the scores. A model with a chat
 * template gets prompt and request as one message of a user, any other as a text that ends in "Answer:".
 * remote_classifier.h asks a provider. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "api/event.h"
#include "api/request.h"
#include "base/clock.h"
#include "base/error.h"
#include "router/local/local_fleet.h"
#include "router/policy/classifier_verdict.h"

struct classifier;

/* config and fleet are borrowed and must outlive it. */
err_t classifier_open(const struct classifier_config *config, struct local_fleet *fleet,
                      const struct clock *clock, struct classifier **out) ERR_MUST_CHECK;
/* Every ask has ended. NULL is fine. */
void classifier_close(struct classifier *classifier);

/* Learns the labels' tokens from an engine, which it waits for: not on the fleet's thread. Needed before the
 * first ask, and again when the model has another tokenizer (classifier_is_ready). INVALID_ARGUMENT names two
 * labels that begin with the same token; UNAVAILABLE: no engine is up yet. */
err_t classifier_prepare(struct classifier *classifier, int64_t timeout_ns) ERR_MUST_CHECK;
bool classifier_is_ready(struct classifier *classifier); /* any thread */

/* Any thread. done is called once, on the fleet's thread, within the configuration's timeout or when the
 * request's deadline is over. out: NULL, or the call, to be cancelled and released by the caller.
 * UNAVAILABLE: not prepared, or no engine is up; UNIMPLEMENTED: a request of token ids. No callback then. */
err_t classifier_ask(struct classifier *classifier, const struct request *request,
                     void (*done)(void *context, const struct classifier_verdict *verdict), void *context,
                     struct local_call **out) ERR_MUST_CHECK;

/* Scores from what a model told of the position: ids [n] of the labels. A label that it does not tell of gets
 * what it can have at most. False: it tells of none. Pure. */
bool classifier_score(const struct position_logprobs *position, const uint32_t *ids, size_t n,
                      double *scores);
