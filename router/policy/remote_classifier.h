/* The classifier's question (classifier_verdict.h) put to a model of a provider, in one token: max_tokens is
 * 1, the answer is held to the labels' tokens where the configuration has their ids (allowed_token_ids, or
 * logit_bias at OpenAI), and the probabilities of the first token (top_logprobs) are the scores. A token is a
 * label's when the label, and no other one, begins with it, whatever its case. Who tells no probabilities is
 * taken at his word.
 *
 * It is asked through a `struct shareable` alone: what must stay here has none, and cannot be asked about. */
#pragma once

#include "router/policy/classifier_verdict.h"
#include "router/policy/privacy.h"
#include "router/providers/provider_call.h"

/* Any thread. config is one with a provider, and outlives the call. done is called once, on the egress
 * thread, within the configuration's timeout, or left_ms where that is less; result is its own, for money and
 * breakers. *number is egress.h's. PERMISSION_DENIED: what is to be shared is empty; UNIMPLEMENTED: it has no
 * text of a user; no callback then. */
err_t remote_classifier_ask(const struct classifier_config *config, struct egress *egress,
                            const struct shareable *shareable, int64_t left_ms,
                            void (*done)(void *context, const struct classifier_verdict *verdict,
                                         const struct provider_result *result),
                            void *context, uint64_t *number) ERR_MUST_CHECK;

/* Whose label a token or an answer is; n_labels: nobody's. Pure. */
size_t remote_classifier_label(const struct classifier_config *config, const char *text, size_t text_bytes);
/* Scores [n_labels] from `logprobs` of a choice as OpenAI writes it; false where it tells of no label. Pure.
 */
bool remote_classifier_score(const struct classifier_config *config, const json_t *logprobs, double *scores);
/* What such a question may cost at most. */
nanodollars remote_classifier_estimate(const struct classifier_config *config);
