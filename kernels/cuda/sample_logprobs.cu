/* Sampling, what is reported: log-probability and rank of a token and the best alternatives, from the raw
 * logits. */
#include "kernels/cuda/sample_device.h"

struct logprobs_shared {
    uint64_t parts[BLOCK_WARPS_MAX];
    float sum_parts[BLOCK_WARPS_MAX];
    uint32_t is_last;
};

/* A thread's tokens of the slice, as keys; 0 where there is none, or none to choose (-inf). */
DEVICE void load_keys(uint64_t keys[4 * SLICE_GROUPS], const float *logits, const struct sample_place *place)
{
#pragma unroll
    for (uint32_t g = 0; g < SLICE_GROUPS; g++) {
        uint32_t token = place->begin + 4 * (g * SAMPLE_THREADS + thread_x());
        float x[4];
        load_logits(x, logits, token, place->end);
        for (uint32_t j = 0; j < 4; j++)
            keys[4 * g + j] = x[j] == -INFINITY ? 0 : key_make(x[j], token + j);
    }
}

/* The n_top best of the slice, one after the other. */
DEVICE void top_of_slice(const uint64_t keys[4 * SLICE_GROUPS], uint32_t n_top, struct sample_slice *slice,
                         uint64_t *parts)
{
    uint64_t last = ~0ull;
    uint32_t n = 0;
    for (; n < n_top; n++) {
        uint64_t best = 0;
#pragma unroll
        for (uint32_t j = 0; j < 4 * SLICE_GROUPS; j++)
            best = keys[j] < last && keys[j] > best ? keys[j] : best;
        best = block_max_u64(best, parts);
        if (best == 0)
            break;
        if (thread_x() == 0)
            slice->top[n] = best;
        last = best;
    }
    if (thread_x() == 0)
        slice->n_top = n;
}

/* The n_top best of all slices: thread s walks the list of slice s. */
DEVICE void merge_top(const struct sample_place *place, uint32_t n_top, double normalizer,
                      struct step_result *result, uint64_t *parts)
{
    const struct sample_slice *slice = place->row->slices + thread_x();
    uint32_t at = 0, n = 0;
    for (; n < n_top; n++) {
        uint64_t mine = thread_x() < place->n_slices && at < slice->n_top ? slice->top[at] : 0;
        uint64_t best = block_max_u64(mine, parts);
        if (best == 0)
            break;
        at += mine == best;
        if (thread_x() == 0) {
            result->top[n].token_id = key_token(best);
            result->top[n].logprob = (float)((double)key_value(best) - normalizer);
        }
    }
    if (thread_x() == 0)
        result->n_top = n;
}

KERNEL_BOUNDS(sample_logprobs, struct sample_args, SAMPLE_THREADS, 2)
{
    SHARED(struct logprobs_shared, shared, );
    dependents_launch();
    dependencies_wait();
    struct sample_place place;
    if (!place_find(args, &place) || place.output->n_logprobs < 0 || place.row->state != SAMPLE_DONE)
        return;
    const float *logits = args.logits + (size_t)place.i * args.stride;
    uint32_t token = place.row->token, n_top = (uint32_t)place.output->n_logprobs;
    if (token >= args.slots.vocab_size || n_top > STEP_LOGPROBS_MAX)
        trap();
    float chosen = logits[token], sum = 0;
    uint64_t keys[4 * SLICE_GROUPS], n_above = 0;
    load_keys(keys, logits, &place);
#pragma unroll
    for (uint32_t j = 0; j < 4 * SLICE_GROUPS; j++) {
        if (keys[j] != 0) {
            sum += exp_ref(key_value(keys[j]) - place.row->raw_max);
            n_above += key_value(keys[j]) > chosen;
        }
    }
    struct sample_slice *slice = place.row->slices + place.slice;
    sum = block_sum(sum, shared.sum_parts);
    n_above = block_sum_u64(n_above, shared.parts);
    top_of_slice(keys, n_top, slice, shared.parts);
    if (thread_x() == 0) {
        slice->exp_sum = sum;
        slice->n_above = (uint32_t)n_above;
    }
    if (!arrive(&place, &shared.is_last))
        return;
    double total = 0;
    uint32_t rank = 1;
    for (uint32_t s = 0; s < place.n_slices; s++) {
        total += (double)place.row->slices[s].exp_sum;
        rank += place.row->slices[s].n_above;
    }
    double normalizer = (double)place.row->raw_max + log(total);
    struct step_result *result = result_of(args, place.i);
    merge_top(&place, n_top, normalizer, result, shared.parts);
    if (thread_x() == 0) {
        result->chosen.token_id = token;
        result->chosen.logprob = (float)((double)chosen - normalizer);
        result->rank = rank;
    }
}
