/* The kernels over logits, for sixteen lanes of any width; see rows_x86.h for how it is included. */
#include "kernels/kernel_table.h"
#include "kernels/x86/math_x86.h"

/* Lanes [0, n), the others `rest`. */
static inline vf load_or(const float *p, size_t n, float rest)
{
    return n >= LANES ? vf_load(p) : vf_select(vm_first(n), vf_load_first(p, n), vf_set1(rest));
}

static inline vi lane_numbers(void)
{
    static const uint32_t numbers[LANES] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return vi_load(numbers);
}

/* The greatest of the lanes' values, on ties that with the lowest index. */
static uint32_t best_lane(vf values, vi indices, float *best_value)
{
    float value[LANES];
    uint32_t index[LANES];
    vf_store(value, values);
    vi_store(index, indices);
    size_t best = 0;
    for (size_t i = 1; i < LANES; i++) {
        if (value[i] > value[best] || (value[i] == value[best] && index[i] < index[best]))
            best = i;
    }
    *best_value = value[best];
    return index[best];
}

struct logits_stats KERNEL(logits_stats)(const float *x, size_t n)
{
    const vf infinity = vf_set1(INFINITY);
    vf max = vf_set1(-INFINITY);
    vi argmax = vi_zero(), index = lane_numbers();
    vm malformed = vm_range(0, 0);
    for (size_t i = 0; i < n; i += LANES) {
        vf v = load_or(x + i, n - i, -INFINITY);
        malformed = vm_or(malformed, vf_equal_or_nan(v, infinity));
        vm better = vf_greater(v, max);
        max = vf_select(better, v, max);
        argmax = vi_select(better, index, argmax);
        index = vi_add(index, vi_set1(LANES));
    }
    struct logits_stats stats = {.is_malformed = vm_bits(malformed) != 0};
    stats.argmax = best_lane(max, argmax, &stats.max);
    return stats;
}

double KERNEL(exp_sum)(const float *x, size_t n, float max)
{
    const vf maxima = vf_set1(max);
    double sum = 0;
    for (size_t begin = 0; begin < n; begin += EXP_SUM_CHUNK) {
        size_t end = n - begin < EXP_SUM_CHUNK ? n : begin + EXP_SUM_CHUNK;
        vf lanes = vf_zero();
        for (size_t i = begin; i < end; i += LANES)
            lanes = vf_add(lanes, vf_exp(vf_sub(load_or(x + i, end - i, -INFINITY), maxima)));
        sum += (double)vf_sum(lanes);
    }
    return sum;
}

void KERNEL(exp_row)(const float *x, size_t n, float *out)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vf_store(out + i, vf_exp(vf_load(x + i)));
    if (i < n)
        vf_store_first(out + i, vf_exp(vf_load_first(x + i, n - i)), n - i);
}

size_t KERNEL(count_above)(const float *x, size_t n, float value)
{
    const vf values = vf_set1(value);
    size_t count = 0;
    for (size_t i = 0; i < n; i += LANES)
        count += (size_t)__builtin_popcount(vm_bits(vf_greater(load_or(x + i, n - i, -INFINITY), values)));
    return count;
}

size_t KERNEL(select_from)(const float *x, size_t n, float cut, float *values, uint32_t *ids)
{
    const vf cuts = vf_set1(cut);
    size_t count = 0;
    vi index = lane_numbers();
    for (size_t i = 0; i < n; i += LANES) {
        vf v = load_or(x + i, n - i, NAN);
        vm chosen = vf_not_less(v, cuts);
        if (vm_bits(chosen) != 0) {
            vi_store_chosen(values + count, chosen, vi_bits(v));
            count += vi_store_chosen(ids + count, chosen, index);
        }
        index = vi_add(index, vi_set1(LANES));
    }
    return count;
}

void KERNEL(temper)(float *x, size_t n, float max, float temperature)
{
    const vf maxima = vf_set1(max), temperatures = vf_set1(temperature);
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        vf_store(x + i, vf_div(vf_sub(vf_load(x + i), maxima), temperatures));
    if (i < n)
        vf_store_first(x + i, vf_div(vf_sub(vf_load_first(x + i, n - i), maxima), temperatures), n - i);
}

/* Philox4x32-10 of sixteen counters {c0, c1, c2, c3}; the block's four words replace them. */
static inline void philox_blocks(uint64_t key, vi c[4])
{
    uint32_t key0 = (uint32_t)key, key1 = (uint32_t)(key >> 32);
    const vi m0 = vi_set1(0xd2511f53u), m1 = vi_set1(0xcd9e8d57u);
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++) {
        vi high0, low0, high1, low1;
        vi_mul_wide(c[0], m0, &high0, &low0);
        vi_mul_wide(c[2], m1, &high1, &low1);
        c[0] = vi_xor(vi_xor(high1, c[1]), vi_set1(key0));
        c[2] = vi_xor(vi_xor(high0, c[3]), vi_set1(key1));
        c[1] = low1;
        c[3] = low0;
        key0 += 0x9e3779b9u;
        key1 += 0xbb67ae85u;
    }
}

uint32_t KERNEL(gumbel_argmax)(const float *x, size_t n, struct gumbel_key key)
{
    /* Lane 4 q + i takes block q + 4 i, so that after transposing the fours of lanes, vector i holds the
     * draws of the sixteen adjacent tokens 16 i .. 16 i + 15. */
    static const uint32_t block_of_lane[LANES] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
    vf best = vf_set1(-INFINITY);
    vi best_index = vi_zero(), index = lane_numbers(), blocks = vi_load(block_of_lane);
    for (size_t at = 0; at < n; at += 4 * LANES) {
        /* The counter is {position, purpose, token / 4, 0}. */
        vi c[4] = {vi_set1(key.position), vi_set1(key.purpose), blocks, vi_zero()};
        philox_blocks(key.key, c);
        vi low01 = vi_unpack_low(c[0], c[1]), low23 = vi_unpack_low(c[2], c[3]);
        vi high01 = vi_unpack_high(c[0], c[1]), high23 = vi_unpack_high(c[2], c[3]);
        const vi draws[4] = {vi_unpack_low_pairs(low01, low23), vi_unpack_high_pairs(low01, low23),
                             vi_unpack_low_pairs(high01, high23), vi_unpack_high_pairs(high01, high23)};
        for (size_t i = 0; i < 4 && at + i * LANES < n; i++) {
            size_t first = at + i * LANES;
            vf score = vf_add(load_or(x + first, n - first, -INFINITY), vf_gumbel_from_bits(draws[i]));
            vm better = vf_greater(score, best);
            best = vf_select(better, score, best);
            best_index = vi_select(better, index, best_index);
            index = vi_add(index, vi_set1(LANES));
        }
        blocks = vi_add(blocks, vi_set1(LANES));
    }
    float best_score;
    return best_lane(best, best_index, &best_score);
}
