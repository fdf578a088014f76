/* What the ways to ask a classifier share: what is put to it, and what its probabilities mean. Pure.
 *
 *   classifier: {model: local/demo, prompt: "Is this easy or hard? ...", timeout: 300ms,
 *                labels: [{text: easy, difficulty: 0.1, intent: chat}, {text: hard, difficulty: 0.9}]}
 *
 * The prompt that says which labels there are comes first and is always the same, so that whoever answers has
 * it in its prefix cache. Of long requests their beginning and end are read. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/error.h"
#include "router/config/route_config.h"

enum { CLASSIFIER_TEXT_BYTES_MAX = 4096 }; /* of a request */

struct classifier_verdict {
    err_t error; /* else nothing below means anything */
    size_t label;
    double scores[CLASSIFIER_LABELS_MAX]; /* [n_labels], of 1 together */
    double difficulty;  /* mean over the labels that say one, by their scores; negative = none does */
    const char *intent; /* of the best label; "" = it says none. The configuration's */
    int64_t took_ns;
};

/* Appends prompt and request. False: no memory. */
bool classifier_write_prompt(const struct classifier_config *config, const char *text, size_t text_bytes,
                             struct buffer *out);
/* Scores of n labels from their probabilities, negative = not told of: such a label gets what it can have at
 * most, told being the sum and least the least of all that was told. False: none is told of. */
bool classifier_share(const double *probabilities, size_t n, double told, double least, double *scores);
/* Fills label, difficulty and intent from the scores. */
void classifier_judge(const struct classifier_config *config, struct classifier_verdict *verdict);
