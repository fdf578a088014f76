/* Random cases of the kernels of the tile arithmetic. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/float16.h"
#include "tests/kernels/checkkernel.h"

static enum weight_format format_of(enum kernel_id id)
{
    switch (id) {
    case KERNEL_linear_tile_bf16:
        return WEIGHT_BF16;
    case KERNEL_linear_tile_int8:
    case KERNEL_linear_wide_int8:
        return WEIGHT_INT8;
    case KERNEL_linear_tile_int4:
    case KERNEL_linear_wide_int4:
        return WEIGHT_INT4;
    case KERNEL_linear_tile_int5:
        return WEIGHT_INT5;
    case KERNEL_linear_tile_k4:
        return WEIGHT_K4;
    case KERNEL_linear_tile_k5:
        return WEIGHT_K5;
    case KERNEL_linear_tile_k6:
        return WEIGHT_K6;
    default:
        return WEIGHT_UINT4;
    }
}

static bool is_wide(enum kernel_id id)
{
    return id == KERNEL_linear_wide_int8 || id == KERNEL_linear_wide_int4 || id == KERNEL_linear_wide_uint4;
}

/* bf16 values, in one of four cases so small that products and sums are subnormal. */
static void fill_bf16(struct rng *rng, uint16_t *values, size_t n)
{
    int exponent = rng_below(rng, 4) == 0 ? -64 : (int)rng_between(rng, 0, 8) - 6;
    for (size_t i = 0; i < n; i++)
        values[i] = rng_below(rng, 16) == 0 ? (uint16_t)(rng_below(rng, 2) << 15 | rng_below(rng, 128))
                                            : bf16_from_f32(ldexpf(rng_normal(rng), exponent));
}

/* Everything that a case needs, in guarded memory. */
struct tile_case {
    struct tile_args args;
    struct guarded panel, x, q_scale, scale, bias, scratch, want, got;
};

static void shape_case(struct tile_case *c, enum kernel_id id, struct rng *rng)
{
    struct tile_args *a = &c->args;
    a->n_rows = rng_below(rng, 4) == 0 ? rng_between(rng, 30, 70) : rng_between(rng, 1, 35);
    a->group = is_wide(id) ? WIDE_BLOCK * rng_between(rng, 1, 3) : QUANT_BLOCK * rng_between(rng, 1, 5);
    a->n_in = id == KERNEL_linear_tile_bf16 ? rng_between(rng, 1, 300) : a->group * rng_between(rng, 1, 4);
    if (rng_below(rng, 8) == 0) /* more than is expanded at once, in one call or two */
        a->n_in = id == KERNEL_linear_tile_bf16 ? rng_between(rng, 1025, 1300)
                                                : round_up(EXPAND_INPUTS + 1, a->group);
    a->n_out = rng_below(rng, 2) ? PANEL_OUTPUTS : rng_between(rng, 1, PANEL_OUTPUTS);
    a->x_stride = round_up(a->n_in, TILE_INPUTS) + rng_below(rng, 3);
    a->q_stride = a->n_in + rng_below(rng, 3);
    a->q_block_stride = div_up(a->n_in, WIDE_BLOCK) + rng_below(rng, 3);
    a->out_stride = a->n_out + rng_below(rng, 3);
}

static void fill_activations(struct tile_case *c, bool wide, struct rng *rng)
{
    struct tile_args *a = &c->args;
    size_t last = a->n_rows - 1;
    if (!wide) {
        c->x = guarded_alloc((last * a->x_stride + round_up(a->n_in, TILE_INPUTS)) * 2);
        c->q_scale = guarded_alloc(4);
        fill_bf16(rng, (uint16_t *)c->x.data, c->x.size_bytes / 2);
        for (size_t r = 0; r < a->n_rows; r++) {
            for (size_t k = a->n_in; k < round_up(a->n_in, TILE_INPUTS); k++)
                ((uint16_t *)c->x.data)[r * a->x_stride + k] = 0;
        }
        return;
    }
    bool extreme = rng_below(rng, 4) == 0;
    c->x = guarded_alloc(last * a->q_stride + a->n_in);
    c->q_scale = guarded_alloc((last * a->q_block_stride + a->n_in / WIDE_BLOCK) * 4);
    for (size_t i = 0; i < c->x.size_bytes; i++)
        c->x.data[i] = (uint8_t)(extreme ? (rng_below(rng, 2) ? 127 : -127) : (int)rng_below(rng, 255) - 127);
    for (size_t i = 0; i < c->q_scale.size_bytes / 4; i++)
        ((float *)c->q_scale.data)[i] = rng_uniform(rng) * 0.1f;
}

static void fill_case(struct tile_case *c, enum kernel_id id, struct rng *rng)
{
    struct tile_args *a = &c->args;
    enum weight_format format = format_of(id);
    c->panel = guarded_alloc(round_up(panel_bytes(format, a->n_in, a->group), 64));
    if (format == WEIGHT_BF16)
        fill_bf16(rng, (uint16_t *)c->panel.data, a->n_in * PANEL_OUTPUTS);
    else
        fill_quantized_panel(rng, format, &c->panel, a->group);
    fill_activations(c, is_wide(id), rng);
    c->scale = guarded_alloc(PANEL_OUTPUTS * 4);
    c->bias = guarded_alloc(PANEL_OUTPUTS * 4);
    fill_normal(rng, (float *)c->scale.data, PANEL_OUTPUTS);
    fill_normal(rng, (float *)c->bias.data, PANEL_OUTPUTS);
    c->scratch = guarded_alloc(TILE_SCRATCH_BYTES);
    size_t out_bytes = ((a->n_rows - 1) * a->out_stride + a->n_out) * 4;
    c->want = guarded_alloc(out_bytes);
    c->got = guarded_alloc(out_bytes);
    a->panel = c->panel.data;
    a->x = (const uint16_t *)(const void *)c->x.data;
    a->q = (const int8_t *)c->x.data;
    a->q_scale = (const float *)(const void *)c->q_scale.data;
    a->scale = format == WEIGHT_BF16 && rng_below(rng, 2) ? (const float *)c->scale.data : NULL;
    a->bias = rng_below(rng, 2) ? (const float *)c->bias.data : NULL;
    a->scratch = c->scratch.data;
}

/* All inputs in one call, or those from EXPAND_INPUTS on in a second one. */
static void run_case(const struct tile_case *c, tile_fn *kernel, const struct guarded *out, bool in_two)
{
    struct tile_args a = c->args;
    a.out = (float *)(void *)out->data;
    a.last_in = a.n_in;
    if (in_two && a.n_in > EXPAND_INPUTS) {
        struct tile_args first = a;
        first.last_in = EXPAND_INPUTS;
        first.scale = first.bias = NULL;
        kernel(&first);
        a.first_in = EXPAND_INPUTS;
    }
    kernel(&a);
}

bool check_tile_fn(enum kernel_id id, generic_fn *reference, generic_fn *variant, struct rng *rng,
                   char failure[FAILURE_MAX])
{
    struct tile_case c = {0};
    shape_case(&c, id, rng);
    fill_case(&c, id, rng);
    bool in_two = rng_below(rng, 2);
    run_case(&c, (tile_fn *)reference, &c.want, false);
    run_case(&c, (tile_fn *)variant, &c.got, in_two);
    char what[96];
    snprintf(what, sizeof what, "%zu rows, %zu inputs, group %zu, %zu outputs", c.args.n_rows, c.args.n_in,
             c.args.group, c.args.n_out);
    bool same = compare_outputs(&c.want, &c.got, what, failure);
    if (same && !guarded_intact(&c.scratch)) {
        snprintf(failure, FAILURE_MAX, "%s: wrote before its scratch", what);
        same = false;
    }
    guarded_free(&c.panel), guarded_free(&c.x), guarded_free(&c.q_scale), guarded_free(&c.scale);
    guarded_free(&c.bias), guarded_free(&c.scratch), guarded_free(&c.want), guarded_free(&c.got);
    return same;
}

bool check_round_row_fn(enum kernel_id id, generic_fn *reference, generic_fn *variant, struct rng *rng,
                        char failure[FAILURE_MAX])
{
    (void)id;
    size_t n = rng_between(rng, 1, 150), out_bytes = round_up(n, TILE_INPUTS) * 2;
    struct guarded x = guarded_alloc(n * 4);
    struct guarded out[2] = {guarded_alloc(out_bytes), guarded_alloc(out_bytes)};
    float *values = (float *)x.data;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = rng_u32(rng);
        switch (rng_below(rng, 6)) {
        case 0: /* halfway between two */
            values[i] = f32_from_bits((bits & 0xbf7f0000u) | 0x8000u);
            break;
        case 1: /* subnormal */
            values[i] = f32_from_bits(bits & 0x807fffffu);
            break;
        case 2:
            values[i] = rng_below(rng, 2) ? INFINITY : -3.4e38f;
            break;
        default:
            values[i] = rng_normal(rng);
        }
    }
    for (int i = 0; i < 2; i++)
        ((round_row_fn *)(i == 0 ? reference : variant))(values, n, (uint16_t *)out[i].data);
    bool same = compare_outputs(&out[0], &out[1], "bf16", failure);
    guarded_free(&x), guarded_free(&out[0]), guarded_free(&out[1]);
    return same;
}

bool check_quantize_wide_fn(enum kernel_id id, generic_fn *reference, generic_fn *variant, struct rng *rng,
                            char failure[FAILURE_MAX])
{
    (void)id;
    size_t blocks = rng_between(rng, 1, 5), n = blocks * WIDE_BLOCK;
    struct guarded x = guarded_alloc(n * 4), q[2], scale[2];
    float *values = (float *)x.data;
    fill_normal(rng, values, n);
    for (size_t b = 0; b < blocks; b++) {
        float *block = values + b * WIDE_BLOCK;
        switch (rng_below(rng, 8)) {
        case 0: /* ties of rounding */
            for (size_t i = 0; i < WIDE_BLOCK; i++)
                block[i] = (float)rng_between(rng, 0, 254) * 0.5f - 63.5f;
            block[0] = 127.0f;
            break;
        case 1: /* next to nothing */
            for (size_t i = 0; i < WIDE_BLOCK; i++)
                block[i] = rng_below(rng, 2) ? 0.0f : 1e-40f;
            break;
        case 2:
            block[rng_below(rng, WIDE_BLOCK)] = rng_below(rng, 2) ? NAN : -INFINITY;
            break;
        default:
            break;
        }
    }
    for (int i = 0; i < 2; i++) {
        q[i] = guarded_alloc(n);
        scale[i] = guarded_alloc(blocks * 4);
        ((quantize_wide_fn *)(i == 0 ? reference : variant))(values, n, (int8_t *)q[i].data,
                                                             (float *)scale[i].data);
    }
    bool same = compare_outputs(&q[0], &q[1], "codes", failure) &&
                compare_outputs(&scale[0], &scale[1], "scales", failure);
    for (int i = 0; i < 2; i++)
        guarded_free(&q[i]), guarded_free(&scale[i]);
    guarded_free(&x);
    return same;
}
