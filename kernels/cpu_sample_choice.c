/* Which token: exact top-k, top-p and min-p without sorting the vocabulary, Gumbel-max, log-probabilities.
 * Candidates above a threshold go into a heap and leave it in descending order (ties: lower id first) until
 * the filters are satisfied; when a threshold was too high, it is lowered and the heap made again. The
 * threshold never changes the result. */
#include <float.h>
#include <math.h>
#include "kernels/cpu_sampler.h"
#include "kernels/ref/math_ref.h"

/* Thresholds below the maximum, tried in turn, in nats; the last one takes everything finite. */
static const float depths[] = {6.0f, 14.0f, INFINITY};
enum { N_DEPTHS = sizeof depths / sizeof depths[0] };

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

/* Candidates x[i] >= cut as a heap; returns their number. */
static size_t heap_fill(const struct kernel_table *table, struct sampler_scratch *scratch, const float *x,
                        size_t n, float cut)
{
    size_t count = table->select_from(x, n, cut, scratch->values, scratch->ids);
    scratch->dispatches[KERNEL_select_from]++;
    for (size_t i = 0; i < count; i++)
        scratch->heap[i] = key_make(scratch->values[i], scratch->ids[i]);
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

/* ---- Filters: survivors are left in scratch->values and ids; the maximum of x is 0 ---- */

/* The k best with x >= lowest, in descending order. */
static size_t keep_top_k(const struct kernel_table *table, struct sampler_scratch *scratch, const float *x,
                         size_t n, float lowest, size_t k)
{
    size_t count = 0;
    for (size_t depth = 0; depth < N_DEPTHS && count < k; depth++)
        count = heap_fill(table, scratch, x, n, depth_cut(0, depth, lowest));
    size_t kept = 0;
    for (; kept < k && count > 0; kept++) {
        uint64_t key = heap_pop(scratch->heap, &count);
        scratch->values[kept] = key_value(key);
        scratch->ids[kept] = key_id(key);
    }
    return kept;
}

/* The fewest of the best with x >= lowest that hold `mass` of probability, in descending order. */
static size_t keep_top_p(const struct kernel_table *table, struct sampler_scratch *scratch, const float *x,
                         size_t n, float lowest, double mass)
{
    size_t kept = 0;
    double sum = 0;
    for (size_t depth = 0; depth < N_DEPTHS && (kept == 0 || sum < mass); depth++) {
        size_t count = heap_fill(table, scratch, x, n, depth_cut(0, depth, lowest));
        sum = 0;
        for (kept = 0; count > 0 && (kept == 0 || sum < mass); kept++) {
            uint64_t key = heap_pop(scratch->heap, &count);
            scratch->values[kept] = key_value(key);
            scratch->ids[kept] = key_id(key);
            sum += (double)exp_ref(scratch->values[kept]);
        }
    }
    return kept;
}

static double sum_survivors(const struct sampler_scratch *scratch, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)exp_ref(scratch->values[i]);
    return sum;
}

/* Of n survivors in descending order, how many hold top_p of their probability. */
static size_t cut_top_p(const struct sampler_scratch *scratch, size_t n, float top_p)
{
    double mass = (double)top_p * sum_survivors(scratch, n), sum = 0;
    size_t kept = 0;
    while (kept < n && (kept == 0 || sum < mass))
        sum += (double)exp_ref(scratch->values[kept++]);
    return kept;
}

/* 0: no filter is on and everything survives. */
static size_t filter(const struct kernel_table *table, struct sampler_scratch *scratch, const float *x,
                     size_t n, const struct sampler_params *params)
{
    bool top_k = params->top_k > 0 && params->top_k < n, top_p = params->top_p < 1;
    float lowest = params->min_p > 0 ? logf(params->min_p) : -INFINITY;
    if (top_k) {
        size_t kept = keep_top_k(table, scratch, x, n, lowest, params->top_k);
        return top_p ? cut_top_p(scratch, kept, params->top_p) : kept;
    }
    size_t kept = 0;
    if (params->min_p > 0) {
        kept = table->select_from(x, n, lowest > 0 ? 0 : lowest, scratch->values, scratch->ids);
        scratch->dispatches[KERNEL_select_from]++;
    }
    if (!top_p)
        return kept;
    double mass;
    if (params->min_p > 0) {
        mass = sum_survivors(scratch, kept);
    } else {
        mass = table->exp_sum(x, n, 0);
        scratch->dispatches[KERNEL_exp_sum]++;
    }
    return keep_top_p(table, scratch, x, n, lowest, (double)params->top_p * mass);
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
    if (kept == 0) {
        scratch->dispatches[KERNEL_gumbel_argmax]++;
        return table->gumbel_argmax(x, n, key);
    }
    uint32_t best = 0;
    float best_score = -INFINITY;
    for (size_t i = 0; i < kept; i++) {
        uint32_t id = scratch->ids[i];
        float score = scratch->values[i] + gumbel_ref(key, id);
        if (i == 0 || score > best_score || (score == best_score && id < best)) {
            best_score = score;
            best = id;
        }
    }
    return best;
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
