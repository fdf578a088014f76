/* Chunks of a context: the state of one, and together. */
#pragma once

#include <math.h>
#include "kernels/kernel_types.h"
#include "kernels/ref/math_ref.h"

struct softmax_state {
    float max, sum;
    float *o; /* [head_dim] */
};

static inline void merge_ref(struct softmax_state *total, float max, float sum, const float *o,
                             size_t head_dim)
{
    float new_max = max > total->max ? max : total->max;
    float keep = exp_ref(total->max - new_max), add = exp_ref(max - new_max);
    total->max = new_max;
    total->sum = fmaf(total->sum, keep, sum * add);
    for (size_t d = 0; d < head_dim; d++)
        total->o[d] = fmaf(total->o[d], keep, o[d] * add);
}

/* A chunk of a query is done: it goes to its place, or into the total. */
static inline void end_chunk_ref(const struct attention_args *a, uint32_t query, uint32_t chunk,
                                 bool is_first, const struct softmax_state *state,
                                 struct softmax_state *total)
{
    if (a->partials != NULL) {
        float *partial = a->partials + ((size_t)(chunk - a->first_chunk) * a->n_queries + query) *
                                           attention_partial_floats(a->head_dim);
        partial[0] = state->max;
        partial[1] = state->sum;
        for (size_t d = 0; d < a->head_dim; d++)
            partial[ATTENTION_PARTIAL_LEAD + d] = state->o[d];
    } else if (is_first) {
        total->max = state->max;
        total->sum = state->sum;
        for (size_t d = 0; d < a->head_dim; d++)
            total->o[d] = state->o[d];
    } else {
        merge_ref(total, state->max, state->sum, state->o, a->head_dim);
    }
}
