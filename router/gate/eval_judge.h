/* A model that judges another model's answer beside a reference. It is asked twice, with the sides changed,
 * since judges like one side better; where its word cannot be read, nothing is said. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include "base/error.h"
#include "router/gate/eval_ask.h"

struct eval_judgement {
    const json_t *request; /* what both answers are to */
    const char *reference; /* reference_bytes */
    size_t reference_bytes;
    const char *answer; /* answer_bytes */
    size_t answer_bytes;
    double score;   /* out: 1 the answer is as good or better, 0 it is worse, 0.5 one of each, NaN not told */
    bool was_asked; /* out: both times; false: the endpoint was told to stop before */
};

/* The chat request that asks; the caller's. is_swapped: the reference is B, else A. NULL without memory. What
 * must stay on this machine must stay for the judge, too. */
json_t *eval_judge_request(const struct eval_judgement *judgement, bool is_swapped);
/* 'A', 'B' or 'C' (as good): the first that stands alone in what a judge said; 0 = none. */
char eval_judge_word(const char *text, size_t text_bytes);
/* Judges all of judgements[0..n). Errors are eval_ask's. */
err_t eval_judge(struct eval_endpoint *judge, struct eval_judgement *judgements, size_t n,
                 uint32_t concurrency, void (*done)(void *context, size_t n_done),
                 void *context) ERR_MUST_CHECK;
