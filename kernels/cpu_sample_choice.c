/* Which token: exact top-k, top-p and min-p without sorting the vocabulary, Gumbel-max, log-probabilities.
 * Candidates above a threshold are taken; when it was too high, it is lowered and they are taken again. Top-k
 * and the best log-probabilities come from a heap, in descending order (ties: lower id first); top-p from a
 * selection that adds up the weights of what it puts in front. */
#include <float.h>
#include <math.h>
#include <string.h>
#include "kernels/cpu_sampler.h"
#include "kernels/ref/math_ref.h"

/* Thresholds below the maximum, tried in turn, in nats; the last one takes everything finite. */
static const float depths[] = {6.0f, 14.0f, INFINITY};
enum {
    N_DEPTHS = sizeof depths / sizeof depths[0],
    /* Survivors up to which each draws for itself; with more the whole row draws at once, sixteen lanes wide,
     * which gives the same bits. */
    DRAW_ONE_BY_ONE_MAX = 64,
};

/* ---- Max-heap of keys: value in the upper half, so ordered as integers are; complement of the id below ----
 */

static uint64_t key_make(float value, uint32_t id)
{
    uint32_t bits = f32_to_bits(value + 0.0f); /* -0 becomes 0: equal values must have equal keys */
    bits ^= bits >> 31 ? 0xffffffffu : 0x80000000u;
    return (uint64_t)bits << 32 | (uint32_t)~id;
}

static float key_value(uint64_t key)
{
    uint32_t bits = (uint32_t)(key >> 32);
    return f32_from_bits(bits ^ (bits >> 31 ? 0x80000000u : 0xffffffffu));
}

static uint32_t key_id(uint64_t key)
{
    return ~(uint32_t)key;
}

static void heap_sift(uint64_t *heap, size_t n, size_t i)
{
    uint64_t key = heap[i];
    for (size_t child = 2 * i + 1; child < n; child = 2 * i + 1) {
        if (child + 1 < n && heap[child + 1] > heap[child])
            child++;
        if (heap[child] <= key)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = key;
}

static uint64_t heap_pop(uint64_t *heap, size_t *n)
{
    uint64_t top = heap[0];
    heap[0] = heap[--*n];
    if (*n > 1)
        heap_sift(heap, *n, 0);
    return top;
}

/* Candidates x[i] >= cut, in scratch->values and as keys; returns their number. */
static size_t candidates_fill(const struct kernel_table *table, struct sampler_scratch *scratch,
                              const float *x, size_t n, float cut)
{
    size_t count = table->select_from(x, n, cut, scratch->values, scratch->ids);
    scratch->dispatches[KERNEL_select_from]++;
    for (size_t i = 0; i < count; i++)
        scratch->heap[i] = key_make(scratch->values[i], scratch->ids[i]);
    return count;
}

/* The same as a heap. */
static size_t heap_fill(const struct kernel_table *table, struct sampler_scratch *scratch, const float *x,
                        size_t n, float cut)
{
    size_t count = candidates_fill(table, scratch, x, n, cut);
    for (size_t i = count / 2; i-- > 0;)
        heap_sift(scratch->heap, count, i);
    return count;
}

/* max - depth, but not below `lowest` nor so low that it takes in -inf. */
static float depth_cut(float max, size_t depth, float lowest)
{
    float cut = max - depths[depth];
    cut = cut < lowest ? lowest : cut;
    return cut < -FLT_MAX ? -FLT_MAX : cut;
}

/* ---- Filters: survivors are left in scratch->heap, as keys; the maximum of x is 0 ---- */

/* The k best with x >= lowest, in descending order. */
static size_t keep_top_k(const struct kernel_table *table, struct sampler_scratch *scratch, const float *x,
                         size_t n, float lowest, size_t k)
{
    size_t count = 0;
    for (size_t depth = 0; depth < N_DEPTHS && count < k; depth++)
        count = heap_fill(table, scratch, x, n, depth_cut(0, depth, lowest));
    size_t kept = 0;
    for (; kept < k && count > 0; kept++)
        scratch->popped[kept] = heap_pop(scratch->heap, &count);
    memcpy(scratch->heap, scratch->popped, kept * sizeof scratch->heap[0]);
    return kept;
}

/* Replaces the values of n candidates by their probabilities (not normalised) and returns their sum. */
static double weigh(const struct kernel_table *table, struct sampler_scratch *scratch, size_t n)
{
    double sum = 0;
    table->exp_row(scratch->values, n, scratch->values);
    scratch->dispatches[KERNEL_exp_row]++;
    for (size_t i = 0; i < n; i++)
        sum += (double)scratch->values[i];
    return sum;
}

static void swap_candidates(struct sampler_scratch *scratch, size_t i, size_t j)
{
    uint64_t key = scratch->heap[i];
    float weight = scratch->values[i];
    scratch->heap[i] = scratch->heap[j];
    scratch->values[i] = scratch->values[j];
    scratch->heap[j] = key;
    scratch->values[j] = weight;
}

/* Puts the keys of [begin, end) greater than some pivot before it and the others behind; returns its index.
 * *above: sum of the weights before it. */
static size_t partition(struct sampler_scratch *scratch, size_t begin, size_t end, double *above)
{
    const uint64_t *keys = scratch->heap;
    size_t middle = begin + (end - begin) / 2, last = end - 1;
    /* Median of three to the end. */
    if (keys[middle] > keys[begin])
        swap_candidates(scratch, middle, begin);
    if (keys[last] > keys[begin])
        swap_candidates(scratch, last, begin);
    if (keys[middle] < keys[last])
        swap_candidates(scratch, middle, last);
    swap_candidates(scratch, middle, last);
    size_t at = begin;
    *above = 0;
    for (size_t i = begin; i < last; i++) {
        if (keys[i] > keys[last]) {
            *above += (double)scratch->values[i];
            swap_candidates(scratch, i, at++);
        }
    }
    swap_candidates(scratch, at, last);
    return at;
}

/* Moves the fewest of the best candidates whose weights reach `mass` to the front; returns their number. */
static size_t select_mass(struct sampler_scratch *scratch, size_t n, double mass)
{
    size_t begin = 0, end = n; /* [0, begin) is in, [end, n) is out */
    double sum = 0;            /* of [0, begin) */
    while (begin < end) {
        double above;
        size_t pivot = partition(scratch, begin, end, &above);
        if (sum + above >= mass && pivot > 0) {
            end = pivot;
            continue;
        }
        sum += above + (double)scratch->values[pivot];
        begin = pivot + 1;
        if (sum >= mass)
            break;
    }
    return begin;
}

/* The fewest of the best with x >= lowest that hold `mass` of probability. */
static size_t keep_top_p(const struct kernel_table *table, struct sampler_scratch *scratch, const float *x,
                         size_t n, float lowest, double mass)
{
    size_t count = 0;
    double sum = -1;
    for (size_t depth = 0; depth < N_DEPTHS && sum < mass; depth++) {
        count = candidates_fill(table, scratch, x, n, depth_cut(0, depth, lowest));
        sum = weigh(table, scratch, count);
    }
    return select_mass(scratch, count, mass);
}

/* Of n survivors in descending order, how many hold top_p of their probability. */
static size_t cut_top_p(const struct kernel_table *table, struct sampler_scratch *scratch, size_t n,
                        float top_p)
{
    for (size_t i = 0; i < n; i++)
        scratch->values[i] = key_value(scratch->heap[i]);
    double mass = (double)top_p * weigh(table, scratch, n), sum = 0;
    size_t kept = 0;
    while (kept < n && (kept == 0 || sum < mass))
        sum += (double)scratch->values[kept++];
    return kept;
}

/* 0: no filter is on and everything survives. */
static size_t filter(const struct kernel_table *table, struct sampler_scratch *scratch, const float *x,
                     size_t n, const struct sampler_params *params)
{
    bool top_k = params->top_k > 0 && params->top_k < n, top_p = params->top_p<1, min_p = params->min_p> 0;
    float lowest = min_p ? logf(params->min_p) : -INFINITY;
    lowest = lowest > 0 ? 0 : lowest;
    if (top_k) {
        size_t kept = keep_top_k(table, scratch, x, n, lowest, params->top_k);
        return top_p ? cut_top_p(table, scratch, kept, params->top_p) : kept;
    }
    size_t kept = min_p ? candidates_fill(table, scratch, x, n, lowest) : 0;
    if (!top_p)
        return kept;
    double mass = min_p ? weigh(table, scratch, kept) : table->exp_sum(x, n, 0);
    scratch->dispatches[KERNEL_exp_sum] += !min_p;
    return keep_top_p(table, scratch, x, n, lowest, (double)params->top_p * mass);
}

/* The draw among the first n keys. */
static uint32_t draw_among(const struct sampler_scratch *scratch, size_t n, struct gumbel_key key)
{
    uint32_t best = 0;
    float best_score = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        uint32_t id = key_id(scratch->heap[i]);
        float score = key_value(scratch->heap[i]) + gumbel_ref(key, id);
        if (i == 0 || score > best_score || (score == best_score && id < best)) {
            best_score = score;
            best = id;
        }
    }
    return best;
}

uint32_t sampler_draw(const struct kernel_table *table, struct sampler_scratch *scratch, float *x, size_t n,
                      float max, const struct sampler_params *params, uint32_t position)
{
    struct gumbel_key key = {
        .key = params->seed + params->choice_index * 0x9e3779b97f4a7c15u,
        .position = position,
        .purpose = SAMPLER_PURPOSE_DRAW,
    };
    table->temper(x, n, max, params->temperature);
    scratch->dispatches[KERNEL_temper]++;
    size_t kept = filter(table, scratch, x, n, params);
    if (kept > 0 && kept <= DRAW_ONE_BY_ONE_MAX)
        return draw_among(scratch, kept, key);
    if (kept > 0) {
        for (size_t i = 0; i < n; i++)
            x[i] = -INFINITY;
        for (size_t i = 0; i < kept; i++)
            x[key_id(scratch->heap[i])] = key_value(scratch->heap[i]);
    }
    scratch->dispatches[KERNEL_gumbel_argmax]++;
    return table->gumbel_argmax(x, n, key);
}

void sampler_logprobs(const struct kernel_table *table, struct sampler_scratch *scratch, const float *x,
                      size_t n, float max, uint32_t token_id, uint32_t n_top, struct step_result *result)
{
    double normalizer = (double)max + log(table->exp_sum(x, n, max));
    result->chosen = (struct step_logprob){token_id, (float)((double)x[token_id] - normalizer)};
    result->rank = 1 + (uint32_t)table->count_above(x, n, x[token_id]);
    scratch->dispatches[KERNEL_exp_sum]++;
    scratch->dispatches[KERNEL_count_above]++;
    size_t count = 0;
    for (size_t depth = 0; depth < N_DEPTHS && count < n_top; depth++)
        count = heap_fill(table, scratch, x, n, depth_cut(max, depth, -INFINITY));
    for (result->n_top = 0; result->n_top < n_top && count > 0; result->n_top++) {
        uint64_t key = heap_pop(scratch->heap, &count);
        result->top[result->n_top] =
            (struct step_logprob){key_id(key), (float)((double)key_value(key) - normalizer)};
    }
}
