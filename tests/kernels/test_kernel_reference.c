/* The scalar references against the formulas in double precision. The variants are bit-equal to the
 * references (checkkernel), so that these tolerances hold for them too. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/philox.h"
#include "kernels/kernel_table.h"
#include "kernels/ref/math_ref.h"

static void assert_near(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance))
        fail_msg("%.9g is not within %.3g of %.9g", got, tolerance, want);
}

static void test_exp(void **state)
{
    (void)state;
    double worst = 0;
    for (float x = -87.0f; x < 88.0f; x += 0.00137f) {
        double want = exp((double)x);
        worst = fmax(worst, fabs((double)exp_ref(x) - want) / want);
    }
    assert_true(worst < 1.5e-7);
    assert_true(exp_ref(0.0f) == 1.0f && exp_ref(-0.0f) == 1.0f);
    assert_true(exp_ref(-INFINITY) == 0.0f && exp_ref(-200.0f) == 0.0f);
    assert_true(exp_ref(INFINITY) == INFINITY && isnan(exp_ref(NAN)));
    assert_near((double)exp_ref(-100.0f), exp(-100.0), 2e-45); /* subnormal */
}

static void test_tanh_and_logs(void **state)
{
    (void)state;
    double worst = 0;
    for (float x = -12.0f; x < 12.0f; x += 0.00013f)
        worst = fmax(worst, fabs((double)tanh_ref(x) - tanh((double)x)));
    assert_true(worst < 2e-7);
    for (float x = -0.01f; x < 0.01f; x += 0.00001f) /* small values keep their relative precision */
        assert_near((double)tanh_ref(x), tanh((double)x), 2e-7 * fabs((double)x) + 1e-12);
    for (float x = 1e-10f; x < 1e10f; x *= 1.0137f)
        assert_near((double)log_ref(x), log((double)x), 3e-7 * (1 + fabs(log((double)x))));
    for (float w = 1e-9f; w < 1.0f; w = w * 1.013f) {
        double want = -log1p(-(double)w);
        assert_near((double)exponential_ref(w), want, 4e-7 * want);
    }
}

/* The sum of 1 / E over a uniform grid of draws has no outliers: the ends of the range of bits are finite. */
static void test_gumbel_range(void **state)
{
    (void)state;
    assert_true(isfinite(gumbel_from_bits_ref(0)) && isfinite(gumbel_from_bits_ref(UINT32_MAX)));
    assert_true(gumbel_from_bits_ref(0) > 20.0f && gumbel_from_bits_ref(UINT32_MAX) < -2.0f);
    double sum = 0, square = 0;
    enum { DRAWS = 1 << 20 };
    for (uint32_t i = 0; i < DRAWS; i++) {
        double g = (double)gumbel_from_bits_ref(i << 12 | 1u << 11);
        sum += g;
        square += g * g;
    }
    double mean = sum / DRAWS;
    assert_near(mean, 0.5772156649, 1e-3);
    assert_near(square / DRAWS - mean * mean, 1.6449340668, 5e-3);
}

/* ---- Linear ---- */

enum { ROWS = 3, INPUTS = 256 };

static void test_linear_float(void **state)
{
    (void)state;
    struct rng rng = rng_make(1);
    static _Alignas(64) float w32[INPUTS * PANEL_OUTPUTS];
    static _Alignas(64) uint16_t w16[2][INPUTS * PANEL_OUTPUTS];
    float x[ROWS * INPUTS], bias[PANEL_OUTPUTS], out[ROWS * PANEL_OUTPUTS];
    for (size_t i = 0; i < INPUTS * PANEL_OUTPUTS; i++) {
        w32[i] = rng_normal(&rng);
        w16[0][i] = bf16_from_f32(w32[i]);
        w16[1][i] = f16_from_f32(w32[i]);
    }
    for (size_t i = 0; i < ROWS * INPUTS; i++)
        x[i] = rng_normal(&rng);
    for (size_t i = 0; i < PANEL_OUTPUTS; i++)
        bias[i] = rng_normal(&rng);
    for (int format = 0; format < 3; format++) {
        struct linear_args args = {.panel = format == 0 ? (const void *)w32 : w16[format - 1],
                                   .n_in = INPUTS,
                                   .n_rows = ROWS,
                                   .x = x,
                                   .x_stride = INPUTS,
                                   .bias = bias,
                                   .out = out,
                                   .out_stride = PANEL_OUTPUTS,
                                   .n_out = PANEL_OUTPUTS};
        (format == 0 ? linear_f32_ref : format == 1 ? linear_bf16_ref : linear_f16_ref)(&args);
        for (size_t r = 0; r < ROWS; r++) {
            for (size_t o = 0; o < PANEL_OUTPUTS; o++) {
                double want = (double)bias[o];
                for (size_t k = 0; k < INPUTS; k++) {
                    size_t at = k * PANEL_OUTPUTS + o;
                    float w = format == 0   ? w32[at]
                              : format == 1 ? bf16_to_f32(w16[0][at])
                                            : f16_to_f32(w16[1][at]);
                    want += (double)w * (double)x[r * INPUTS + k];
                }
                assert_near((double)out[r * PANEL_OUTPUTS + o], want, 5e-5);
            }
        }
    }
}

/* The tile arithmetic on int4 codes: in bf16 against the products of what was rounded, in int8 those of what
 * was quantised. */
static void test_linear_tiles(void **state)
{
    (void)state;
    enum { GROUP = 128, PANEL_BYTES = INPUTS / GROUP * (64 + GROUP / 32 * INT4_BLOCK_BYTES) };
    struct rng rng = rng_make(8);
    static _Alignas(64) uint8_t panel[PANEL_BYTES], scratch[TILE_SCRATCH_BYTES];
    float x[ROWS * INPUTS], q_scale[ROWS * INPUTS / WIDE_BLOCK], out[2][ROWS * PANEL_OUTPUTS];
    uint16_t x16[ROWS * INPUTS];
    int8_t q[ROWS * INPUTS];
    assert_int_equal(sizeof panel, panel_bytes(WEIGHT_INT4, INPUTS, GROUP));
    for (size_t i = 0; i < sizeof panel; i++)
        panel[i] = (uint8_t)rng_below(&rng, 256);
    for (size_t g = 0; g < INPUTS / GROUP; g++) {
        for (size_t o = 0; o < PANEL_OUTPUTS; o++)
            ((uint16_t *)(panel + g * PANEL_BYTES / (INPUTS / GROUP)))[o] =
                f16_from_f32(0.01f + 0.01f * (float)o);
    }
    for (size_t r = 0; r < ROWS; r++) {
        for (size_t i = 0; i < INPUTS; i++)
            x[r * INPUTS + i] = rng_normal(&rng);
        round_row_ref(x + r * INPUTS, INPUTS, x16 + r * INPUTS);
        quantize_wide_row_ref(x + r * INPUTS, INPUTS, q + r * INPUTS, q_scale + r * INPUTS / WIDE_BLOCK);
    }
    struct tile_args args = {
        .panel = panel, .n_in = INPUTS, .group = GROUP, .last_in = INPUTS, .n_rows = ROWS};
    args.x = x16, args.q = q, args.q_scale = q_scale, args.scratch = scratch;
    args.x_stride = args.q_stride = INPUTS;
    args.q_block_stride = INPUTS / WIDE_BLOCK, args.out_stride = args.n_out = PANEL_OUTPUTS;
    args.out = out[0];
    linear_tile_int4_ref(&args);
    args.out = out[1];
    linear_wide_int4_ref(&args);
    for (size_t r = 0; r < ROWS; r++) {
        for (size_t o = 0; o < PANEL_OUTPUTS; o++) {
            double want[2] = {0, 0};
            for (size_t k = 0; k < INPUTS; k++) {
                const uint8_t *group = panel + k / GROUP * (PANEL_BYTES / (INPUTS / GROUP));
                uint8_t byte = group[64 + k % GROUP / 32 * INT4_BLOCK_BYTES + int4_code_offset(o, k % 32)];
                int code = (k % 32 < 16 ? byte & 15 : byte >> 4) - 8;
                float w = (float)code * f16_to_f32(((const uint16_t *)group)[o]);
                want[0] += (double)bf16_to_f32(bf16_from_f32(w)) * (double)bf16_to_f32(x16[r * INPUTS + k]);
                want[1] += (double)w * q[r * INPUTS + k] * (double)q_scale[(r * INPUTS + k) / WIDE_BLOCK];
            }
            assert_near((double)out[0][r * PANEL_OUTPUTS + o], want[0], 5e-5);
            assert_near((double)out[1][r * PANEL_OUTPUTS + o], want[1], 5e-5);
        }
    }
}

/* Activations and weights quantised, against the product of what they were made from. */
static void test_quantize_row(void **state)
{
    (void)state;
    struct rng rng = rng_make(2);
    float x[INPUTS];
    struct quant_block blocks[INPUTS / QUANT_BLOCK];
    for (size_t i = 0; i < INPUTS; i++)
        x[i] = rng_normal(&rng);
    quantize_row_ref(x, INPUTS, blocks, 1);
    for (size_t b = 0; b < INPUTS / QUANT_BLOCK; b++) {
        const struct quant_block *block = &blocks[b];
        int32_t total = 0, first_half = 0, largest = 0;
        for (size_t i = 0; i < QUANT_BLOCK; i++) {
            int q = block->q[i];
            assert_near((double)q * (double)block->scale, (double)x[b * QUANT_BLOCK + i],
                        0.5001 * (double)block->scale);
            total += q;
            first_half += i < HALF_BLOCK ? q : 0;
            largest = abs(q) > largest ? abs(q) : largest;
        }
        assert_int_equal(-8 * total, block->minus_8_sum);
        assert_int_equal(total, quant_block_sum(block));
        assert_int_equal(-8 * first_half, block->minus_8_low);
        assert_true(block->total == block->scale * (float)total);
        assert_int_equal(largest, 127);
    }
}

static void test_quantize_kv(void **state)
{
    (void)state;
    struct rng rng = rng_make(12);
    int8_t codes[112];
    for (int round = 0; round < 2000; round++) {
        float x[100];
        size_t n = 1 + rng_below(&rng, 100);
        for (size_t i = 0; i < n; i++)
            x[i] = ldexpf(rng_normal(&rng), round % 60 - 30);
        memset(codes, 0x5a, sizeof codes);
        double scale = (double)bf16_to_f32(quantize_kv_ref(x, n, codes));
        int largest = 0;
        for (size_t i = 0; i < n; i++) { /* at the ends of the range the rounding of the scale shows too */
            assert_near(codes[i] * scale, (double)x[i], 0.501 * scale);
            largest = abs(codes[i]) > largest ? abs(codes[i]) : largest;
        }
        assert_int_equal(largest, 127);
        for (size_t i = n; i < round_up(n, LANES); i++)
            assert_int_equal(codes[i], 0);
    }
    float zeros[3] = {0, -0.0f, 1e-31f}, broken[2] = {1, -INFINITY};
    assert_int_equal(quantize_kv_ref(zeros, 3, codes), 0);
    assert_true(codes[0] == 0 && codes[2] == 0);
    assert_true(isnan(bf16_to_f32(quantize_kv_ref(broken, 2, codes))) && codes[0] == 0);
    broken[1] = NAN;
    assert_true(isnan(bf16_to_f32(quantize_kv_ref(broken, 2, codes))));
}

static void test_quantize_group_bounds(void **state)
{
    (void)state;
    struct rng rng = rng_make(3);
    double error4 = 0, plain4 = 0;
    for (int round = 0; round < 2000; round++) {
        float w[64];
        int8_t codes[64];
        size_t n = round % 2 ? 32 : 64;
        float amax = 0;
        for (size_t i = 0; i < n; i++) {
            w[i] = rng_normal(&rng) * 0.02f;
            amax = fmaxf(amax, fabsf(w[i]));
        }
        double scale = (double)f16_to_f32(quantize_group_int8_ref(w, n, codes));
        for (size_t i = 0; i < n; i++) {
            assert_true(codes[i] >= -127);
            assert_near(codes[i] * scale, (double)w[i], 0.51 * scale + 127 * scale * 0x1p-11);
        }
        scale = (double)f16_to_f32(quantize_group_int4_ref(w, n, codes));
        for (size_t i = 0; i < n; i++) {
            assert_true(codes[i] >= -8 && codes[i] <= 7);
            double plain = (double)amax / 7;
            error4 += pow(codes[i] * scale - (double)w[i], 2);
            plain4 += pow(nearbyint((double)w[i] / plain) * plain - (double)w[i], 2);
        }
    }
    /* The search is worth having: well below the error of amax / 7. */
    assert_true(error4 < 0.80 * plain4);
}

static void test_quantize_group_edges(void **state)
{
    (void)state;
    float w[32] = {0};
    int8_t codes[32];
    assert_int_equal(quantize_group_int4_ref(w, 32, codes), 0);
    for (int i = 0; i < 32; i++)
        assert_int_equal(codes[i], 0);
    w[3] = -1e-9f; /* its scale is no f16 */
    quantize_group_int8_ref(w, 32, codes);
    assert_int_equal(codes[3], 0);
    w[3] = 3e38f;
    assert_int_equal(quantize_group_int8_ref(w, 32, codes), f16_from_f32(65504.0f));
    assert_int_equal(codes[3], 127);
    for (int i = 0; i < 32; i++)
        w[i] = (float)(i % 16 - 8) * 0.25f; /* exactly what int4 can hold */
    float scale = f16_to_f32(quantize_group_int4_ref(w, 32, codes));
    for (int i = 0; i < 32; i++)
        assert_true((float)codes[i] * scale == w[i]);
}

/* ---- Rows ---- */

static void test_norm(void **state)
{
    (void)state;
    enum { N = 77 };
    struct rng rng = rng_make(4);
    float residual[N], add[N], add_weight[N], weight[N], out[N];
    for (int normed = 0; normed < 2; normed++) {
        double squares = 0, add_squares = 0, sums[N];
        for (int i = 0; i < N; i++) {
            residual[i] = rng_normal(&rng);
            add[i] = rng_normal(&rng);
            add_weight[i] = rng_normal(&rng);
            weight[i] = rng_normal(&rng);
            add_squares += (double)add[i] * (double)add[i];
        }
        for (int i = 0; i < N; i++) {
            double scale = normed ? (double)add_weight[i] / sqrt(add_squares / N + 1e-5) : 1;
            sums[i] = (double)residual[i] + (double)add[i] * scale;
            squares += sums[i] * sums[i];
        }
        struct norm_args args = {residual, add, normed ? add_weight : NULL, weight, N, 1e-5f, out};
        norm_row_ref(&args);
        for (int i = 0; i < N; i++) {
            assert_near((double)residual[i], sums[i], 2e-6);
            assert_near((double)out[i], sums[i] / sqrt(squares / N + 1e-5) * (double)weight[i], 4e-6);
        }
    }
}

static void test_rope_and_activations(void **state)
{
    (void)state;
    enum { N = 10 };
    struct rng rng = rng_make(5);
    float x[2 * N], before[2 * N], cosines[N], sines[N], out[2 * N];
    for (int i = 0; i < 2 * N; i++)
        before[i] = x[i] = 3.0f * rng_normal(&rng);
    for (int i = 0; i < N; i++) {
        cosines[i] = cosf((float)i);
        sines[i] = sinf((float)i);
    }
    rope_head_ref(x, cosines, sines, N);
    for (int i = 0; i < N; i++) {
        double c = (double)cosines[i], s = (double)sines[i], a = (double)before[i], b = (double)before[N + i];
        assert_near((double)x[i], a * c - b * s, 2e-6);
        assert_near((double)x[N + i], b * c + a * s, 2e-6);
    }
    silu_mul_row_ref(before, x, 2 * N, out);
    for (int i = 0; i < 2 * N; i++) {
        double g = (double)before[i];
        assert_near((double)out[i], g / (1 + exp(-g)) * (double)x[i], 1e-5);
    }
    gelu_mul_row_ref(before, x, 2 * N, out);
    for (int i = 0; i < 2 * N; i++) {
        double g = (double)before[i], z = sqrt(2 / M_PI) * (g + 0.044715 * g * g * g);
        assert_near((double)out[i], 0.5 * g * (1 + tanh(z)) * (double)x[i], 1e-5);
    }
    memcpy(out, before, sizeof out);
    soft_cap_row_ref(out, 2 * N, 2.5f);
    for (int i = 0; i < 2 * N; i++)
        assert_near((double)out[i], 2.5 * tanh((double)before[i] / 2.5), 1e-6);
}

/* ---- Attention: paged, against a dense softmax ---- */

enum { CONTEXT = 75, DIM = 20, KV_HEADS = 2, BLOCKS = 8 };

static void dense_attention(const double *k, const double *v, const float *q, uint32_t first, uint32_t last,
                            double scale, double soft_cap, double *out)
{
    double p[CONTEXT], max = -INFINITY, sum = 0;
    for (uint32_t t = first; t <= last; t++) {
        p[t] = 0;
        for (int d = 0; d < DIM; d++)
            p[t] += (double)q[d] * k[t * DIM + d];
        p[t] *= scale;
        if (soft_cap > 0)
            p[t] = soft_cap * tanh(p[t] / soft_cap);
        max = fmax(max, p[t]);
    }
    for (uint32_t t = first; t <= last; t++)
        sum += p[t] = exp(p[t] - max);
    for (int d = 0; d < DIM; d++) {
        out[d] = 0;
        for (uint32_t t = first; t <= last; t++)
            out[d] += p[t] / sum * v[t * DIM + d];
    }
}

/* A layer's KV of a type; k and v get what it holds. */
struct dense_kv {
    enum kv_dtype dtype;
    _Alignas(64) uint8_t bytes[BLOCKS * KV_HEADS * 16 * (DIM + 32) * sizeof(float)];
    double k[CONTEXT * DIM], v[CONTEXT * DIM];
};

static double store_element(struct dense_kv *kv, size_t index, float value, float scale)
{
    if (kv->dtype == KV_INT8) {
        int8_t code = (int8_t)fmaxf(-127.0f, fminf(127.0f, rintf(40.0f * value)));
        kv->bytes[index] = (uint8_t)code;
        return (double)scale * code;
    }
    uint16_t rounded = bf16_from_f32(value);
    if (kv->dtype == KV_BF16)
        ((uint16_t *)kv->bytes)[index] = rounded;
    else
        ((float *)kv->bytes)[index] = bf16_to_f32(rounded);
    return (double)bf16_to_f32(rounded);
}

static void fill_dense(struct rng *rng, const uint32_t table[BLOCKS], uint32_t kv_head, struct dense_kv *kv)
{
    size_t stride = kv_head_stride(kv->dtype, DIM), lead = kv_head_lead(kv->dtype);
    size_t element_bytes = kv->dtype == KV_F32 ? 4 : kv->dtype == KV_BF16 ? 2 : 1;
    assert_true(BLOCKS * KV_HEADS * stride * element_bytes <= sizeof kv->bytes);
    for (uint32_t t = 0; t < CONTEXT; t++) {
        size_t begin = (table[t / 16] * KV_HEADS + kv_head) * stride, k0 = begin + lead, v0 = k0 + DIM * 16;
        float scale[2] = {0, 0};
        for (size_t i = 0; lead > 0 && i < 2; i++) {
            uint16_t bits = bf16_from_f32(0.01f + 0.03f * rng_uniform(rng));
            ((uint16_t *)(kv->bytes + begin))[i * KV_BLOCK_TOKENS + t % 16] = bits;
            scale[i] = bf16_to_f32(bits);
        }
        for (uint32_t d = 0; d < DIM; d++) {
            kv->k[t * DIM + d] = store_element(kv, k0 + d * 16 + t % 16, rng_normal(rng), scale[0]);
            kv->v[t * DIM + d] = store_element(kv, v0 + t % 16 * 32 + d, rng_normal(rng), scale[1]);
        }
    }
}

static void test_attention(void **state)
{
    (void)state;
    struct rng rng = rng_make(6);
    static const struct {
        attention_fn *kernel;
        enum kv_dtype dtype;
        bool by_tiles;
    } cases[] = {{attention_f32_ref, KV_F32, false},
                 {attention_bf16_ref, KV_BF16, false},
                 {attention_int8_ref, KV_INT8, false},
                 {attention_tile_bf16_ref, KV_BF16, true},
                 {attention_tile_int8_ref, KV_INT8, true}};
    for (int round = 0; round < 100; round++) {
        static struct dense_kv kv;
        const bool by_tiles = cases[round % 5].by_tiles;
        kv.dtype = cases[round % 5].dtype;
        uint32_t table[BLOCKS]; /* a random layout of the blocks */
        for (uint32_t i = 0; i < BLOCKS; i++) {
            uint32_t other = rng_below(&rng, i + 1);
            table[i] = table[other];
            table[other] = i;
        }
        uint32_t kv_head = rng_below(&rng, KV_HEADS);
        fill_dense(&rng, table, kv_head, &kv);
        float q[2 * DIM], out[2 * DIM], scratch[16 * (2 * 32 + 16)];
        for (int i = 0; i < 2 * DIM; i++) {
            q[i] = rng_normal(&rng);
            if (by_tiles)
                q[i] = bf16_to_f32(bf16_from_f32(q[i]));
        }
        struct attention_query queries[2];
        for (int i = 0; i < 2; i++) {
            uint32_t last = rng_below(&rng, CONTEXT);
            queries[i] =
                (struct attention_query){q + i * DIM, out + i * DIM, table, rng_below(&rng, last + 1), last};
        }
        struct attention_args args = {.kv = kv.bytes,
                                      .kv_head = kv_head,
                                      .n_kv_heads = KV_HEADS,
                                      .head_dim = DIM,
                                      .scale = 0.3f,
                                      .soft_cap = round % 4 ? 0.0f : 1.5f,
                                      .queries = queries,
                                      .n_queries = 2,
                                      .scratch = scratch};
        cases[round % 5].kernel(&args);
        for (int i = 0; i < 2; i++) {
            double want[DIM];
            dense_attention(kv.k, kv.v, queries[i].q, queries[i].first, queries[i].last, (double)0.3f,
                            (double)args.soft_cap, want);
            for (int d = 0; d < DIM; d++) /* by tiles: each probability rounded to 8 bits, values up to 5 */
                assert_near((double)queries[i].out[d], want[d], by_tiles ? 0x1p-8 * 5 : 3e-6);
        }
    }
}

static void test_logits_kernels(void **state)
{
    (void)state;
    enum { N = 5000 };
    static float x[N], values[N];
    static uint32_t ids[N];
    struct rng rng = rng_make(7);
    double sum = 0;
    for (int i = 0; i < N; i++) {
        x[i] = 3.0f * rng_normal(&rng);
        sum += exp((double)x[i] - 4.0);
    }
    assert_near(exp_sum_ref(x, N, 4.0f), sum, 1e-6 * sum);
    struct logits_stats stats = logits_stats_ref(x, N);
    assert_true(x[stats.argmax] == stats.max && count_above_ref(x, N, stats.max) == 0);
    assert_false(stats.is_malformed);
    size_t n = select_from_ref(x, N, 2.0f, values, ids);
    for (size_t i = 0; i < n; i++)
        assert_true(values[i] >= 2.0f && x[ids[i]] == values[i] && (i == 0 || ids[i] > ids[i - 1]));
    assert_true(n == count_above_ref(x, N, nextafterf(2.0f, 0.0f)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exp),
        cmocka_unit_test(test_tanh_and_logs),
        cmocka_unit_test(test_gumbel_range),
        cmocka_unit_test(test_linear_float),
        cmocka_unit_test(test_linear_tiles),
        cmocka_unit_test(test_quantize_row),
        cmocka_unit_test(test_quantize_kv),
        cmocka_unit_test(test_quantize_group_bounds),
        cmocka_unit_test(test_quantize_group_edges),
        cmocka_unit_test(test_norm),
        cmocka_unit_test(test_rope_and_activations),
        cmocka_unit_test(test_attention),
        cmocka_unit_test(test_logits_kernels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
