/* Random cases of the kernels over panels, rows and heads. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/float16.h"
#include "tests/kernels/checkkernel.h"

/* A random finite f16 of moderate size. */
static uint16_t random_f16(struct rng *rng)
{
    return f16_from_f32(rng_normal(rng) * ldexpf(1.0f, (int)rng_between(rng, 0, 8) - 8));
}

static void fill_float_panel(struct rng *rng, enum kernel_id id, struct guarded *panel, size_t n)
{
    float scale = ldexpf(1.0f, (int)rng_between(rng, 0, 8) - 6);
    for (size_t i = 0; i < n; i++) {
        float w = rng_normal(rng) * scale;
        if (id == KERNEL_linear_f32)
            ((float *)panel->data)[i] = w;
        else
            ((uint16_t *)panel->data)[i] = id == KERNEL_linear_bf16 ? bf16_from_f32(w) : f16_from_f32(w);
    }
}

/* How the largest codes of either sign stand: at random, or a stretch of each in turn, so that a lane of a
 * product takes nothing but one of them, and sums reach the bounds that the kernels reckon with.
 */
struct extremes {
    bool are_wanted;
    uint32_t stretch; /* 0: at random */
    bool first;
};

static struct extremes choose_extremes(struct rng *rng, uint32_t log2_max)
{
    struct extremes extremes = {.are_wanted = rng_below(rng, 4) == 0};
    if (rng_below(rng, 2))
        extremes.stretch = 1U << rng_below(rng, log2_max + 1);
    extremes.first = rng_below(rng, 2);
    return extremes;
}

static bool is_high(const struct extremes *extremes, struct rng *rng, size_t i)
{
    return extremes->stretch == 0 ? rng_below(rng, 2) : (i / extremes->stretch % 2 == 0) == extremes->first;
}

void fill_quantized_panel(struct rng *rng, enum weight_format format, struct guarded *panel, size_t group)
{
    const struct extremes extremes = choose_extremes(rng, 12);
    uint8_t *at = panel->data, *end = panel->data + panel->size_bytes;
    while (at < end) {
        for (size_t o = 0; o < PANEL_OUTPUTS; o++) {
            ((uint16_t *)at)[o] = random_f16(rng);
            if (format == WEIGHT_UINT4)
                ((uint16_t *)at)[PANEL_OUTPUTS + o] = (uint16_t)rng_below(rng, 16);
            if (weight_has_minimums(format))
                ((uint16_t *)at)[PANEL_OUTPUTS + o] = random_f16(rng);
        }
        at += group_header_bytes(format);
        for (size_t i = 0; i < group / QUANT_BLOCK * quant_block_bytes(format); i++, at++) {
            *at =
                extremes.are_wanted ? (is_high(&extremes, rng, i) ? 0xff : 0) : (uint8_t)rng_below(rng, 256);
            bool is_header = i % quant_block_bytes(format) < block_header_bytes(format);
            if (is_header && weight_has_minimums(format))
                *at &= 63;
            if (is_header && format == WEIGHT_K6 && extremes.are_wanted)
                *at ^= 0x80; /* -128 or 127 */
        }
    }
}

static void fill_codes(struct rng *rng, struct guarded *blocks)
{
    const struct extremes extremes = choose_extremes(rng, 5);
    struct quant_block *end = (struct quant_block *)(blocks->data + blocks->size_bytes);
    for (struct quant_block *block = (struct quant_block *)blocks->data; block < end; block++) {
        *block = (struct quant_block){.scale = rng_uniform(rng) * 0.1f};
        int32_t sum = 0, low = 0;
        for (size_t i = 0; i < QUANT_BLOCK; i++) {
            int code = extremes.are_wanted ? (is_high(&extremes, rng, i) ? 127 : -127)
                                           : (int)rng_below(rng, 255) - 127;
            block->q[i] = (int8_t)code;
            sum += code;
            low += i < HALF_BLOCK ? code : 0;
        }
        block->minus_8_sum = -8 * sum;
        block->minus_8_low = -8 * low;
        block->total = block->scale * (float)sum;
    }
}

bool check_linear_fn(enum kernel_id id, generic_fn *reference, generic_fn *variant, struct rng *rng,
                     char failure[FAILURE_MAX])
{
    enum weight_format format = id == KERNEL_linear_f32    ? WEIGHT_F32
                                : id == KERNEL_linear_bf16 ? WEIGHT_BF16
                                : id == KERNEL_linear_f16  ? WEIGHT_F16
                                : id == KERNEL_linear_int8 ? WEIGHT_INT8
                                : id == KERNEL_linear_int4 ? WEIGHT_INT4
                                : id == KERNEL_linear_int5 ? WEIGHT_INT5
                                : id == KERNEL_linear_k4   ? WEIGHT_K4
                                : id == KERNEL_linear_k5   ? WEIGHT_K5
                                : id == KERNEL_linear_k6   ? WEIGHT_K6
                                                           : WEIGHT_UINT4;
    bool quantized = weight_is_quantized(format);
    struct linear_args args = {.n_rows = rng_between(rng, 1, 45),
                               .group = QUANT_BLOCK * rng_between(rng, 1, 4)};
    args.n_in = quantized ? args.group * rng_between(rng, 1, 5) : rng_between(rng, 1, 150);
    args.n_out = rng_below(rng, 2) ? PANEL_OUTPUTS : rng_between(rng, 1, PANEL_OUTPUTS);
    args.x_stride = args.n_in + rng_below(rng, 3);
    args.q_tile_stride = args.n_in / QUANT_BLOCK * QUANT_TILE_ROWS + rng_below(rng, 3);
    args.out_stride = args.n_out + rng_below(rng, 3);
    struct guarded panel = guarded_alloc(panel_bytes(format, args.n_in, args.group));
    struct guarded x = guarded_alloc(((args.n_rows - 1) * args.x_stride + args.n_in) * 4);
    size_t n_blocks =
        (args.n_rows - 1) / QUANT_TILE_ROWS * args.q_tile_stride + args.n_in / QUANT_BLOCK * QUANT_TILE_ROWS;
    struct guarded blocks = guarded_alloc(n_blocks * sizeof(struct quant_block));
    struct guarded bias = guarded_alloc(PANEL_OUTPUTS * 4), factor = guarded_alloc(PANEL_OUTPUTS * 4);
    size_t out_bytes = ((args.n_rows - 1) * args.out_stride + args.n_out) * 4;
    struct guarded want = guarded_alloc(out_bytes), got = guarded_alloc(out_bytes);
    if (quantized) {
        fill_quantized_panel(rng, format, &panel, args.group);
        fill_codes(rng, &blocks);
    } else {
        fill_float_panel(rng, id, &panel, PANEL_OUTPUTS * args.n_in);
        fill_normal(rng, (float *)x.data, x.size_bytes / 4);
    }
    fill_normal(rng, (float *)bias.data, PANEL_OUTPUTS);
    fill_normal(rng, (float *)factor.data, PANEL_OUTPUTS);
    args.scale = !quantized && rng_below(rng, 2) ? (const float *)factor.data : NULL;
    args.panel = panel.data;
    args.x = (const float *)x.data;
    args.q = (const struct quant_block *)blocks.data;
    args.bias = rng_below(rng, 2) ? (const float *)bias.data : NULL;
    args.out = (float *)want.data;
    ((linear_fn *)reference)(&args);
    args.out = (float *)got.data;
    ((linear_fn *)variant)(&args);
    char what[96];
    snprintf(what, sizeof what, "%zu rows, %zu inputs, group %zu, %zu outputs", args.n_rows, args.n_in,
             args.group, args.n_out);
    bool same = compare_outputs(&want, &got, what, failure);
    guarded_free(&panel), guarded_free(&x), guarded_free(&blocks);
    guarded_free(&bias), guarded_free(&factor), guarded_free(&want), guarded_free(&got);
    return same;
}

bool check_quantize_row_fn(enum kernel_id id, generic_fn *reference, generic_fn *variant, struct rng *rng,
                           char failure[FAILURE_MAX])
{
    (void)id;
    size_t blocks = rng_between(rng, 1, 9), n = blocks * QUANT_BLOCK;
    struct guarded x = guarded_alloc(n * 4);
    float *values = (float *)x.data;
    fill_normal(rng, values, n);
    for (size_t b = 0; b < blocks; b++) {
        float *block = values + b * QUANT_BLOCK;
        switch (rng_below(rng, 8)) {
        case 0: /* ties of rounding */
            for (size_t i = 0; i < QUANT_BLOCK; i++)
                block[i] = (float)rng_between(rng, 0, 254) * 0.5f - 63.5f;
            block[0] = 127.0f;
            break;
        case 1: /* nothing, or next to it */
            for (size_t i = 0; i < QUANT_BLOCK; i++)
                block[i] = rng_below(rng, 2) ? 0.0f : 1e-40f;
            break;
        case 2:
            block[rng_below(rng, QUANT_BLOCK)] = rng_below(rng, 2) ? NAN : -INFINITY;
            break;
        case 3:
            block[rng_below(rng, QUANT_BLOCK)] = 3e38f;
            break;
        default:
            break;
        }
    }
    size_t stride = rng_between(rng, 1, QUANT_TILE_ROWS);
    size_t bytes = ((blocks - 1) * stride + 1) * sizeof(struct quant_block);
    struct guarded out[2] = {guarded_alloc(bytes), guarded_alloc(bytes)};
    for (int i = 0; i < 2; i++) {
        memset(out[i].data, 0x5a, bytes); /* what stands between a row's blocks is not touched */
        ((quantize_row_fn *)(i == 0 ? reference : variant))(values, n, (struct quant_block *)out[i].data,
                                                            stride);
    }
    bool same = compare_outputs(&out[0], &out[1], "blocks", failure);
    guarded_free(&out[0]), guarded_free(&out[1]);
    guarded_free(&x);
    return same;
}

bool check_quantize_kv_fn(enum kernel_id id, generic_fn *reference, generic_fn *variant, struct rng *rng,
                          char failure[FAILURE_MAX])
{
    (void)id;
    size_t n = rng_between(rng, 1, 160), padded = round_up(n, LANES);
    struct guarded x = guarded_alloc(n * 4), codes[2] = {guarded_alloc(padded), guarded_alloc(padded)};
    float *values = (float *)x.data;
    fill_normal(rng, values, n);
    switch (rng_below(rng, 8)) {
    case 0: /* ties of rounding */
        for (size_t i = 0; i < n; i++)
            values[i] = (float)rng_between(rng, 0, 254) * 0.5f - 63.5f;
        values[0] = 127.0f;
        break;
    case 1: /* nothing, or next to it */
        for (size_t i = 0; i < n; i++)
            values[i] = rng_below(rng, 2) ? 0.0f : 1e-40f;
        break;
    case 2:
        values[rng_below(rng, (uint32_t)n)] = rng_below(rng, 2) ? NAN : -INFINITY;
        break;
    case 3:
        values[rng_below(rng, (uint32_t)n)] = 3e38f;
        break;
    default:
        break;
    }
    uint16_t scale[2];
    for (int i = 0; i < 2; i++) {
        memset(codes[i].data, 0x5a, padded);
        scale[i] = ((quantize_kv_fn *)(i == 0 ? reference : variant))(values, n, (int8_t *)codes[i].data);
    }
    bool same = compare_outputs(&codes[0], &codes[1], "codes", failure);
    if (same && scale[0] != scale[1]) {
        snprintf(failure, FAILURE_MAX, "scale %04x, the reference has %04x", scale[1], scale[0]);
        same = false;
    }
    guarded_free(&codes[0]), guarded_free(&codes[1]);
    guarded_free(&x);
    return same;
}

bool check_quantize_group_fn(enum kernel_id id, generic_fn *reference, generic_fn *variant, struct rng *rng,
                             char failure[FAILURE_MAX])
{
    (void)id;
    size_t n = QUANT_BLOCK * rng_between(rng, 1, 4);
    struct guarded w = guarded_alloc(n * 4), codes[2];
    float *values = (float *)w.data;
    fill_normal(rng, values, n);
    switch (rng_below(rng, 8)) {
    case 0:
        memset(values, 0, n * 4);
        break;
    case 1: /* beyond the range of an f16 scale */
        values[rng_below(rng, (uint32_t)n)] = rng_below(rng, 2) ? 1e9f : -1e9f;
        break;
    case 2: /* below it */
        for (size_t i = 0; i < n; i++)
            values[i] *= 1e-7f;
        break;
    default:
        break;
    }
    uint16_t scale[2];
    for (int i = 0; i < 2; i++) {
        codes[i] = guarded_alloc(n);
        scale[i] = ((quantize_group_fn *)(i == 0 ? reference : variant))(values, n, (int8_t *)codes[i].data);
    }
    bool same = scale[0] == scale[1];
    if (!same)
        snprintf(failure, FAILURE_MAX, "n %zu: scale %04x, the reference has %04x", n, scale[1], scale[0]);
    same = same && compare_outputs(&codes[0], &codes[1], "codes", failure);
    guarded_free(&w), guarded_free(&codes[0]), guarded_free(&codes[1]);
    return same;
}

bool check_norm_row_fn(enum kernel_id id, generic_fn *reference, generic_fn *variant, struct rng *rng,
                       char failure[FAILURE_MAX])
{
    (void)id;
    size_t n = rng_between(rng, 1, 300), bytes = n * 4;
    struct guarded add = guarded_alloc(bytes), weight = guarded_alloc(bytes);
    struct guarded add_weight = guarded_alloc(bytes);
    struct guarded residual[2] = {guarded_alloc(bytes), guarded_alloc(bytes)};
    struct guarded out[2] = {guarded_alloc(bytes), guarded_alloc(bytes)};
    fill_normal(rng, (float *)add.data, n);
    fill_normal(rng, (float *)add_weight.data, n);
    fill_normal(rng, (float *)weight.data, n);
    fill_normal(rng, (float *)residual[0].data, n);
    memcpy(residual[1].data, residual[0].data, bytes);
    bool in_place = rng_below(rng, 3) == 0;
    struct norm_args args = {.add = rng_below(rng, 2) ? (const float *)add.data : NULL,
                             .weight = (const float *)weight.data,
                             .n = n,
                             .eps = 1e-5f};
    if (args.add != NULL && rng_below(rng, 2))
        args.add_weight = (const float *)add_weight.data;
    for (int i = 0; i < 2; i++) {
        args.residual = (float *)residual[i].data;
        args.out = in_place ? args.residual : (float *)out[i].data;
        ((norm_row_fn *)(i == 0 ? reference : variant))(&args);
    }
    bool same = compare_outputs(&residual[0], &residual[1], "residual", failure) &&
                compare_outputs(&out[0], &out[1], "out", failure);
    for (int i = 0; i < 2; i++)
        guarded_free(&residual[i]), guarded_free(&out[i]);
    guarded_free(&add), guarded_free(&add_weight), guarded_free(&weight);
    return same;
}

bool check_rope_head_fn(enum kernel_id id, generic_fn *reference, generic_fn *variant, struct rng *rng,
                        char failure[FAILURE_MAX])
{
    (void)id;
    size_t n = rng_between(rng, 1, 100);
    struct guarded cosines = guarded_alloc(n * 4), sines = guarded_alloc(n * 4);
    struct guarded x[2] = {guarded_alloc(2 * n * 4), guarded_alloc(2 * n * 4)};
    fill_normal(rng, (float *)x[0].data, 2 * n);
    memcpy(x[1].data, x[0].data, x[0].size_bytes);
    for (size_t i = 0; i < n; i++) {
        float angle = rng_uniform(rng) * 6.2831853f;
        ((float *)cosines.data)[i] = cosf(angle);
        ((float *)sines.data)[i] = sinf(angle);
    }
    for (int i = 0; i < 2; i++)
        ((rope_head_fn *)(i == 0 ? reference : variant))((float *)x[i].data, (const float *)cosines.data,
                                                         (const float *)sines.data, n);
    bool same = compare_outputs(&x[0], &x[1], "head", failure);
    guarded_free(&x[0]), guarded_free(&x[1]), guarded_free(&cosines), guarded_free(&sines);
    return same;
}

/* Values that reach every branch of exp and tanh, over- and underflow included. */
static void fill_wide(struct rng *rng, float *values, size_t n)
{
    float scale = ldexpf(1.0f, (int)rng_between(rng, 0, 20) - 12);
    for (size_t i = 0; i < n; i++)
        values[i] = rng_normal(rng) * scale;
}

bool check_activation_row_fn(enum kernel_id id, generic_fn *reference, generic_fn *variant, struct rng *rng,
                             char failure[FAILURE_MAX])
{
    (void)id;
    size_t n = rng_between(rng, 1, 300), bytes = n * 4;
    struct guarded gate = guarded_alloc(bytes), up = guarded_alloc(bytes);
    struct guarded out[2] = {guarded_alloc(bytes), guarded_alloc(bytes)};
    fill_wide(rng, (float *)gate.data, n);
    fill_normal(rng, (float *)up.data, n);
    for (int i = 0; i < 2; i++)
        ((activation_row_fn *)(i == 0 ? reference : variant))(
            (const float *)gate.data, (const float *)up.data, n, (float *)out[i].data);
    bool same = compare_outputs(&out[0], &out[1], "out", failure);
    guarded_free(&gate), guarded_free(&up), guarded_free(&out[0]), guarded_free(&out[1]);
    return same;
}

bool check_soft_cap_row_fn(enum kernel_id id, generic_fn *reference, generic_fn *variant, struct rng *rng,
                           char failure[FAILURE_MAX])
{
    (void)id;
    size_t n = rng_between(rng, 1, 300);
    struct guarded x[2] = {guarded_alloc(n * 4), guarded_alloc(n * 4)};
    fill_wide(rng, (float *)x[0].data, n);
    memcpy(x[1].data, x[0].data, n * 4);
    float cap = 0.5f + 50.0f * rng_uniform(rng);
    for (int i = 0; i < 2; i++)
        ((soft_cap_row_fn *)(i == 0 ? reference : variant))((float *)x[i].data, n, cap);
    bool same = compare_outputs(&x[0], &x[1], "out", failure);
    guarded_free(&x[0]), guarded_free(&x[1]);
    return same;
}
