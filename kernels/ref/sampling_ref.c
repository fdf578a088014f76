/* Reference of the kernels over the logits of one output. */
#include <math.h>
#include "base/assert.h"
#include "kernels/kernel_table.h"
#include "kernels/ref/math_ref.h"

struct logits_stats logits_stats_ref(const float *x, size_t n)
{
    ASSERT(n <= UINT32_MAX);
    struct logits_stats stats = {.max = -INFINITY};
    for (size_t i = 0; i < n; i++) {
        if (isnan(x[i]) || x[i] == INFINITY)
            stats.is_malformed = true;
        if (x[i] > stats.max) {
            stats.max = x[i];
            stats.argmax = (uint32_t)i;
        }
    }
    return stats;
}

double exp_sum_ref(const float *x, size_t n, float max)
{
    double sum = 0;
    for (size_t begin = 0; begin < n; begin += EXP_SUM_CHUNK) {
        size_t end = n - begin < EXP_SUM_CHUNK ? n : begin + EXP_SUM_CHUNK;
        float lanes[LANES] = {0};
        for (size_t i = begin; i < end; i++)
            lanes[i % LANES] += exp_ref(x[i] - max);
        sum += (double)sum_lanes_ref(lanes);
    }
    return sum;
}

void exp_row_ref(const float *x, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = exp_ref(x[i]);
}

size_t count_above_ref(const float *x, size_t n, float value)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += x[i] > value;
    return count;
}

size_t select_from_ref(const float *x, size_t n, float cut, float *values, uint32_t *ids)
{
    ASSERT(n <= UINT32_MAX);
    size_t count = 0;
    for (size_t i = 0; i < n; i++) {
        if (x[i] >= cut) {
            values[count] = x[i];
            ids[count++] = (uint32_t)i;
        }
    }
    return count;
}

void temper_ref(float *x, size_t n, float max, float temperature)
{
    ASSERT(temperature > 0);
    for (size_t i = 0; i < n; i++)
        x[i] = (x[i] - max) / temperature;
}

uint32_t gumbel_argmax_ref(const float *x, size_t n, struct gumbel_key key)
{
    ASSERT(n > 0 && n <= UINT32_MAX);
    uint32_t best = 0;
    float best_score = -INFINITY;
    for (size_t i = 0; i < n; i++) {
        float score = x[i] + gumbel_ref(key, (uint32_t)i);
        if (score > best_score) {
            best_score = score;
            best = (uint32_t)i;
        }
    }
    return best;
}
