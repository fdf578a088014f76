/* The tensor-core linear layers: near the plain sum, and the same bits for a row alone and among others, by
 * any tile, by one block or several along K. int8 by int8 is exact. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/float16.h"
#include "kernels/cuda/linear_plan.h"
#include "tests/cuda/check_cuda.h"
#include "tests/cuda/check_matrix.h"
#include "tests/cuda/wgmma_sum.h"

struct tile_case {
    struct check_matrix weight;
    struct linear_packed packed; /* host memory */
    struct linear_device device;
    float *values; /* [n_out][n_in]: what the kernel multiplies, scales of whole rows left out */
    float *channel_scales;
    uint32_t x_stride, out_stride;
    uint16_t *x;    /* bf16 [rows][x_stride] */
    uint8_t *codes; /* quantised [rows][n_in] */
    float *scales;  /* [rows] */
};

static bool is_by_row(int family)
{
    return family >= LINEAR_CHECK_S8;
}

static bool is_e4m3(int family)
{
    return is_by_row(family) && family != LINEAR_CHECK_S8;
}

/* ---- Rows to 8 bits ---- */

/* What quantize_rows_* makes of a row. */
static float quantize_reference(bool to_e4m3, const uint16_t *x, uint32_t n, uint8_t *codes)
{
    float amax = 0, limit = to_e4m3 ? 448.0f : 127.0f;
    bool is_bad = false;
    for (uint32_t k = 0; k < n; k++) {
        float magnitude = fabsf(bf16_to_f32(x[k]));
        is_bad |= !(magnitude < INFINITY);
        amax = fmaxf(amax, magnitude);
    }
    float inverse = amax > 0 ? limit / amax : 0;
    for (uint32_t k = 0; k < n; k++) {
        float value = is_bad ? 0 : bf16_to_f32(x[k]) * inverse;
        codes[k] = to_e4m3 ? e4m3_from_f32(value) : (uint8_t)(int8_t)rintf(value);
    }
    return is_bad ? NAN : amax / limit;
}

static uint32_t padded_rows(uint32_t n)
{
    return (uint32_t)round_up(n, 8);
}

/* Room for the codes of rows_stride rows. */
static size_t quantized_bytes(uint32_t n_in, uint32_t rows_stride)
{
    return div_up(n_in, LINEAR_BLOCK_BYTES) * rows_stride * LINEAR_BLOCK_BYTES;
}

/* Variants of check_quantize_rows. */
enum rows_kind { ROWS_S8, ROWS_E4M3, ROWS_BF16 };

static void launch_quantize(struct cuda_case *c, enum rows_kind kind, const struct quantize_rows_args *args)
{
    static const enum cuda_kernel_id ids[] = {CUDA_KERNEL_quantize_rows_s8, CUDA_KERNEL_quantize_rows_e4m3,
                                              CUDA_KERNEL_arrange_rows_bf16};
    LAUNCH(c, ids[kind], args->rows.max, 1, QUANTIZE_ROWS_THREADS, *args);
}

/* Bytes of an input in blocks. */
static uint32_t input_bytes(const struct cuda_case *c)
{
    return c->variant == ROWS_BF16 ? 2 : 1;
}

/* bf16 rows: [n_in], then NaN up to the stride. */
static uint16_t *make_rows(struct cuda_case *c, uint32_t n_in, uint32_t stride)
{
    uint16_t *x = check_alloc(c, (size_t)c->n_rows * stride * 2);
    for (size_t i = 0; i < (size_t)c->n_rows * stride; i++)
        x[i] = i % stride < n_in ? bf16_from_f32(rng_normal(&c->rng)) : 0x7fff;
    return x;
}

static void quantize_make(struct cuda_case *c)
{
    struct tile_case *e = c->context = check_alloc(c, sizeof *e);
    uint32_t n_in = rng_between(&c->rng, 1, rng_below(&c->rng, 16) == 0 ? 20000 : 700);
    c->n_rows = n_in > 700 && c->n_rows > 8 ? 8 : c->n_rows;
    e->packed.n_in = n_in;
    e->x_stride = (uint32_t)round_up(n_in, 8) + 8 * rng_below(&c->rng, 2);
    e->x = make_rows(c, n_in, e->x_stride);
    for (uint32_t r = 0; r < c->n_rows; r++) {
        uint16_t *row = e->x + (size_t)r * e->x_stride;
        if (r % 7 == 3)
            memset(row, 0, n_in * 2);
        if (r % 7 == 5)
            row[rng_below(&c->rng, n_in)] = r % 2 ? 0x7fc0 : 0xff80; /* NaN, -infinity */
    }
    c->type = CHECK_BYTES;
    c->row_values = (uint32_t)round_up(n_in * input_bytes(c), LINEAR_BLOCK_BYTES) + 4;
    snprintf(c->note, sizeof c->note, "%u inputs", n_in);
}

/* A row's codes, zeros to the end of the block, and the scale; bf16 has none: 0. */
static void quantize_row_reference(const struct cuda_case *c, uint32_t row, void *out, float *scale)
{
    const struct tile_case *e = c->context;
    (void)scale;
    const uint16_t *x = e->x + (size_t)row * e->x_stride;
    memset(out, 0, c->row_values);
    if (c->variant == ROWS_BF16) {
        memcpy(out, x, e->packed.n_in * sizeof *x);
        return;
    }
    float s = quantize_reference(c->variant == ROWS_E4M3, x, e->packed.n_in, out);
    memcpy((uint8_t *)out + c->row_values - 4, &s, 4);
}

static void quantize_run(struct cuda_case *c, uint32_t first, uint32_t n, void *out)
{
    struct tile_case *e = c->context;
    uint32_t capacity = n + rng_below(&c->rng, 3), stride = padded_rows(n);
    /* For a library's product. */
    uint32_t plain =
        c->variant != ROWS_BF16 && rng_below(&c->rng, 2) ? (uint32_t)round_up(e->packed.n_in, 16) : 0;
    size_t bytes = quantized_bytes(e->packed.n_in * input_bytes(c), stride), row_codes = c->row_values - 4;
    struct quantize_rows_args args = {
        .rows = {.step = step_upload_rows(n), .count = CUDA_COUNT_ROWS, .max = capacity},
        .x = device_upload(e->x + (size_t)first * e->x_stride, (size_t)n * e->x_stride * 2),
        .x_stride = e->x_stride,
        .n_in = e->packed.n_in,
        .to = {device_alloc(bytes), device_alloc(n * sizeof(float)), stride, plain},
    };
    device_is_late(args.x);
    launch_quantize(c, (enum rows_kind)c->variant, &args);
    uint8_t *q = check_alloc(c, bytes);
    float *scale = check_alloc(c, n * sizeof(float));
    device_read(q, args.to.q, bytes);
    if (c->variant != ROWS_BF16) /* else zeros */
        device_read(scale, args.to.scale, n * sizeof(float));
    for (uint32_t r = 0; r < n; r++) {
        uint8_t *row = (uint8_t *)out + (size_t)r * c->row_values;
        for (uint32_t k = 0; k < row_codes && plain == 0; k++)
            row[k] = q[linear_activation_offset(stride, r, k)];
        if (plain > 0) { /* nothing stands behind its inputs but other rows */
            memset(row, 0, row_codes);
            memcpy(row, q + (size_t)r * plain, plain);
        }
        memcpy(row + row_codes, &scale[r], 4);
    }
}

const struct cuda_check check_quantize_rows = {quantize_make, quantize_row_reference, quantize_run};

/* ---- Linear layers ---- */

static uint32_t tile_of_kernel(const struct cuda_case *c)
{
    const struct tile_case *e = c->context;
    for (size_t i = 0; i < linear_tile_sizes_of(e->packed.layout, &e->device); i++) {
        struct linear_plan plan = linear_plan_of_tile(e->packed.layout, e->packed.n_out, e->packed.n_in, 1,
                                                      &e->device, linear_tile_sizes[i], false);
        if (plan.kernel == c->kernel)
            return linear_tile_sizes[i];
    }
    ASSERT(!"no plan has this kernel");
    return 0;
}

static const char *const kernel_names[] = {
#define K(name, args, what) #name,
    CUDA_KERNEL_LIST(K)
#undef K
};

/* A weight of the family; the matrix draws the group, and one group of all inputs is another family of int8.
 */
static void make_weight(struct cuda_case *c, struct tile_case *e, bool small)
{
    static const enum weight_format formats[] = {
        [LINEAR_CHECK_INT4_STREAM] = WEIGHT_INT4, [LINEAR_CHECK_INT8_STREAM] = WEIGHT_INT8,
        [LINEAR_CHECK_BF16] = WEIGHT_BF16,        [LINEAR_CHECK_INT4] = WEIGHT_INT4,
        [LINEAR_CHECK_UINT4] = WEIGHT_UINT4,      [LINEAR_CHECK_UINT4_STREAM] = WEIGHT_UINT4,
        [LINEAR_CHECK_INT8] = WEIGHT_INT8,        [LINEAR_CHECK_S8] = WEIGHT_INT8,
        [LINEAR_CHECK_E4M3] = WEIGHT_FP8,         [LINEAR_CHECK_E4M3_AS_BF16] = WEIGHT_FP8,
        [LINEAR_CHECK_E4M3_WGMMA] = WEIGHT_FP8,   [LINEAR_CHECK_BF16_WGMMA] = WEIGHT_BF16,
        [LINEAR_CHECK_INT4_WGMMA] = WEIGHT_INT4,  [LINEAR_CHECK_UINT4_WGMMA] = WEIGHT_UINT4,
        [LINEAR_CHECK_INT8_WGMMA] = WEIGHT_INT8};
    bool by_windows = strstr(kernel_names[c->kernel], "_resident_") != NULL && c->index % 2 == 1;
    bool fits, is_deep = rng_below(&c->rng, 4) == 0 || by_windows; /* chunks of several steps and chains */
    do {
        matrix_make(c, &e->weight, formats[c->variant],
                    rng_between(&c->rng, 1,
                                is_deep ? 40
                                : small ? 140
                                        : 300),
                    is_deep ? 5000
                    : small ? 300
                            : 1100);
        bool has_one_group = e->weight.group == e->weight.n_in;
        fits = c->variant == LINEAR_CHECK_S8 ? has_one_group
                                             : formats[c->variant] != WEIGHT_INT8 || !has_one_group;
        fits = fits && (!by_windows || e->weight.n_in > LINEAR_GROUP_CHUNKS * LINEAR_CHUNK_MIN);
    } while (!fits);
    if (is_e4m3(c->variant))
        linear_packed_describe_e4m3(e->weight.n_out, e->weight.n_in, e->device.compute_capability,
                                    &e->packed);
    else
        ASSERT(linear_packed_describe(formats[c->variant], e->weight.n_out, e->weight.n_in, e->weight.group,
                                      &e->packed));
}

/* Row o of the plain matrix to the packed one; its values as the kernel multiplies them. */
static void pack_row(struct cuda_case *c, struct tile_case *e, uint32_t o, int8_t *codes, float *scales)
{
    const struct check_matrix *m = &e->weight;
    const uint8_t *row = m->codes + (size_t)o * m->row_bytes;
    float *values = e->values + (size_t)o * m->n_in;
    uint32_t n_groups = m->n_in / m->group;
    if (m->format == WEIGHT_BF16) {
        memcpy(values, m->values + (size_t)o * m->n_in, m->n_in * sizeof(float));
        linear_pack_codes(&e->packed, o, row);
        return;
    }
    bool has_zeros = m->format == WEIGHT_UINT4;
    const uint16_t *halves = (const uint16_t *)m->scales + (size_t)o * n_groups * (has_zeros ? 2 : 1);
    for (uint32_t k = 0; k < m->n_in; k++) {
        bool int4 = m->format == WEIGHT_INT4 || has_zeros;
        codes[k] = int4 ? (int8_t)((row[k / 2] >> k % 2 * 4 & 15) - (has_zeros ? 0 : 8)) : (int8_t)row[k];
    }
    for (uint32_t g = 0; g < n_groups; g++) {
        scales[g] = is_by_row(c->variant) ? ((float *)m->scales)[(size_t)o * n_groups + g]
                                          : f16_to_f32(halves[has_zeros ? 2 * g : g]);
        linear_pack_scale(&e->packed, o, g, scales[g]);
        if (has_zeros)
            linear_pack_zero(&e->packed, o, g, (uint8_t)halves[2 * g + 1]);
    }
    linear_pack_codes(&e->packed, o, codes);
    e->channel_scales[o] = scales[0];
    for (uint32_t k = 0; k < m->n_in; k++) {
        int zero = has_zeros ? halves[2 * (k / m->group) + 1] : 0;
        float code = is_e4m3(c->variant) ? e4m3_to_f32((uint8_t)codes[k]) : (float)(codes[k] - zero);
        float scale = bf16_to_f32(bf16_from_f32(scales[k / m->group]));
        values[k] = is_by_row(c->variant) ? code : bf16_to_f32(bf16_from_f32(code * scale));
    }
}

static void pack_weight(struct cuda_case *c, struct tile_case *e)
{
    const struct check_matrix *m = &e->weight;
    e->packed.codes = check_alloc(c, linear_packed_codes_bytes(&e->packed));
    e->packed.scales = check_alloc(c, linear_packed_scales_bytes(&e->packed) + 1);
    e->values = check_alloc(c, (size_t)m->n_out * m->n_in * sizeof(float));
    e->channel_scales = check_alloc(c, m->n_out * sizeof(float));
    int8_t *codes = check_alloc(c, m->n_in);
    float *scales = check_alloc(c, m->n_in * sizeof(float));
    for (uint32_t o = 0; o < m->n_out; o++)
        pack_row(c, e, o, codes, scales);
}

static void tile_make(struct cuda_case *c)
{
    struct tile_case *e = c->context = check_alloc(c, sizeof *e);
    static const uint32_t capabilities[] = {
        [LINEAR_CHECK_E4M3] = 89,       [LINEAR_CHECK_E4M3_AS_BF16] = 86, [LINEAR_CHECK_E4M3_WGMMA] = 90,
        [LINEAR_CHECK_BF16_WGMMA] = 90, [LINEAR_CHECK_INT4_WGMMA] = 90,   [LINEAR_CHECK_UINT4_WGMMA] = 90,
        [LINEAR_CHECK_INT8_WGMMA] = 90, [LINEAR_CHECK_INT4_STREAM] = 90,  [LINEAR_CHECK_UINT4_STREAM] = 90,
        [LINEAR_CHECK_INT8_STREAM] = 90};
    uint32_t capability = capabilities[c->variant] == 0 ? 80 : capabilities[c->variant];
    e->device = (struct linear_device){.compute_capability = capability,
                                       .n_multiprocessors = 3,
                                       .shared_bytes = (capability == 90 ? 228 : 100) << 10,
                                       .partial_bytes = LINEAR_PARTIAL_BYTES_MAX};
    /* A tile computes all its rows, also for one: less of it where tiles are large. */
    bool is_large = strstr(kernel_names[c->kernel], "_r64") != NULL ||
                    strstr(kernel_names[c->kernel], "_r128") != NULL ||
                    strstr(kernel_names[c->kernel], "_r256") != NULL;
    bool is_small = is_large ? rng_below(&c->rng, 8) > 0 : c->n_rows > 20 && rng_below(&c->rng, 2);
    make_weight(c, e, is_small);
    pack_weight(c, e);
    uint32_t n_in = e->weight.n_in, most = tile_of_kernel(c) * (is_large ? 1 : 2) + 3;
    c->n_rows = c->n_rows < most ? c->n_rows : most;
    e->x_stride = (uint32_t)round_up(n_in, 8) + 8 * rng_below(&c->rng, 2);
    e->out_stride = (uint32_t)round_up(e->weight.n_out, 4) + 4 * rng_below(&c->rng, 2);
    e->x = make_rows(c, n_in, e->x_stride);
    e->codes = check_alloc(c, (size_t)c->n_rows * n_in);
    e->scales = check_alloc(c, c->n_rows * sizeof(float));
    for (uint32_t r = 0; is_by_row(c->variant) && r < c->n_rows; r++)
        e->scales[r] = quantize_reference(is_e4m3(c->variant), e->x + (size_t)r * e->x_stride, n_in,
                                          e->codes + (size_t)r * n_in);
    c->type = rng_below(&c->rng, 4) == 0 ? CHECK_BF16 : CHECK_F32;
    c->row_values = e->weight.n_out;
    /* Chains of f32 additions: half an ulp of the sum of magnitudes each. */
    c->tolerance = c->variant == LINEAR_CHECK_S8 ? 0 : (float)(n_in + 4) * 0x1p-24f;
    snprintf(c->note, sizeof c->note, "%u x %u, group %u", e->weight.n_out, n_in, e->weight.group);
}

static double row_value(const struct cuda_case *c, uint32_t row, uint32_t k)
{
    const struct tile_case *e = c->context;
    if (!is_by_row(c->variant))
        return bf16_to_f32(e->x[(size_t)row * e->x_stride + k]);
    uint8_t code = e->codes[(size_t)row * e->weight.n_in + k];
    return is_e4m3(c->variant) ? e4m3_to_f32(code) : (int8_t)code;
}

/* By wgmma, which keeps 13 bits: a chain of instructions. */
static float wgmma_chain(const float *values, const uint8_t *codes, uint32_t n)
{
    double sum = 0;
    for (uint32_t k = 0; k < n; k += WGMMA_E4M3_INPUTS) {
        float a[WGMMA_E4M3_INPUTS] = {0}, b[WGMMA_E4M3_INPUTS] = {0};
        for (uint32_t i = 0; i < WGMMA_E4M3_INPUTS && k + i < n; i++) {
            a[i] = values[k + i];
            b[i] = e4m3_to_f32(codes[k + i]);
        }
        sum = wgmma_e4m3_add(sum, a, b);
    }
    return (float)sum;
}

/* Chunks are sums of chains, added in f32 like them. */
static float wgmma_sum(const struct cuda_case *c, uint32_t row, uint32_t o)
{
    const struct tile_case *e = c->context;
    uint32_t n_in = e->weight.n_in, chunk = linear_chunk_inputs(e->packed.layout, e->weight.n_out, n_in);
    uint32_t chain = linear_chain_inputs(chunk);
    const uint8_t *codes = e->codes + (size_t)row * n_in;
    const float *values = e->values + (size_t)o * n_in;
    float total = 0;
    for (uint32_t begin = 0; begin < n_in; begin += chunk) {
        float sum = 0;
        for (uint32_t k = begin; k < n_in && k < begin + chunk; k += chain) {
            uint32_t end = k + chain < begin + chunk ? k + chain : begin + chunk;
            sum += wgmma_chain(values + k, codes + k, (end < n_in ? end : n_in) - k);
        }
        total += sum;
    }
    return total;
}

static void tile_reference(const struct cuda_case *c, uint32_t row, void *out, float *scale)
{
    const struct tile_case *e = c->context;
    const struct check_matrix *m = &e->weight;
    double greatest = 0;
    for (uint32_t o = 0; o < m->n_out; o++) {
        double sum = 0, magnitude = 0;
        for (uint32_t k = 0; k < m->n_in; k++) {
            double product = row_value(c, row, k) * e->values[(size_t)o * m->n_in + k];
            sum += product;
            magnitude += fabs(product);
        }
        if (c->variant == LINEAR_CHECK_E4M3_WGMMA)
            sum = (double)wgmma_sum(c, row, o);
        float factor = is_by_row(c->variant) ? e->scales[row] * e->channel_scales[o] : 1.0f;
        float bias = m->bias == NULL ? 0.0f : m->bias[o];
        ((float *)out)[o] = m->bias == NULL ? (float)sum * factor : fmaf((float)sum, factor, bias);
        greatest = fmax(greatest, magnitude * factor + fabs(bias));
    }
    *scale = (float)greatest;
}

/* The rows on the device, as the kernel reads them. */
static void upload_rows(struct cuda_case *c, uint32_t first, uint32_t n, uint32_t capacity,
                        struct linear_tile_args *args)
{
    const struct tile_case *e = c->context;
    const void *x = device_upload(e->x + (size_t)first * e->x_stride, (size_t)n * e->x_stride * 2);
    device_is_late(x);
    args->x = x;
    args->x_stride = e->x_stride;
    if (!is_by_row(c->variant))
        return;
    /* wgmma reads whole tiles. */
    uint32_t stride = c->variant == LINEAR_CHECK_E4M3_WGMMA ? 256 : padded_rows(capacity);
    struct quantize_rows_args quantize = {
        .rows = args->rows,
        .x = x,
        .x_stride = e->x_stride,
        .n_in = e->weight.n_in,
        .to = {device_alloc(quantized_bytes(e->weight.n_in, stride)), device_alloc(n * sizeof(float)), stride,
               0},
    };
    launch_quantize(c, is_e4m3(c->variant) ? ROWS_E4M3 : ROWS_S8, &quantize);
    args->x = quantize.to.q;
    args->x_scale = quantize.to.scale;
    args->x_stride = quantize.to.rows_stride;
}

/* bf16 rows to blocks of whole tiles. */
static void arrange_rows(struct cuda_case *c, struct linear_tile_args *args)
{
    enum { STRIDE = 512 };
    struct quantize_rows_args arrange = {
        .rows = args->rows,
        .x = args->x,
        .x_stride = args->x_stride,
        .n_in = args->n_in,
        .to = {device_alloc(quantized_bytes(2 * args->n_in, STRIDE)), NULL, STRIDE, 0},
    };
    launch_quantize(c, ROWS_BF16, &arrange);
    args->x = arrange.to.q;
    args->x_stride = STRIDE;
}

static void launch_plan(struct cuda_case *c, const struct linear_plan *plan, struct linear_tile_args *args,
                        uint32_t n, void *out)
{
    const struct tile_case *e = c->context;
    size_t element = check_type_bytes(c->type), arrivals_bytes = plan->n_arrivals * sizeof(uint32_t);
    struct linear_tile_args in_blocks = *args;
    if (plan->rows_in_blocks) {
        arrange_rows(c, &in_blocks);
        args = &in_blocks;
    }
    uint32_t *arrivals = check_alloc(c, arrivals_bytes + 1);
    args->out = device_alloc(n * e->out_stride * element);
    args->chunk_blocks = plan->chunk_blocks;
    args->window_blocks = plan->window_blocks;
    args->is_split = plan->is_split;
    if (plan->is_split) {
        args->partials = device_alloc(plan->partial_bytes);
        args->arrivals = device_upload(arrivals, arrivals_bytes);
    }
    struct check_launch launch = {.kernel = plan->kernel,
                                  .grid = {plan->grid, 1, 1},
                                  .threads = plan->block_threads,
                                  .shared_bytes = plan->shared_bytes,
                                  .args = args,
                                  .args_bytes = sizeof *args,
                                  .target = e->device.compute_capability};
    device_launch(c, &launch);
    device_read_rows(args->out, n, c->row_values * element, e->out_stride * element, out);
    if (plan->is_split)
        device_read(arrivals, args->arrivals, arrivals_bytes);
    for (size_t i = 0; i < plan->n_arrivals; i++) {
        if (arrivals[i] != 0)
            check_fail(c, "arrivals are left at %u, not 0", arrivals[i]);
    }
}

/* A step may have no row for the kernel: it writes nothing. */
static void run_empty(struct cuda_case *c, const struct linear_plan *plan, struct linear_tile_args args,
                      uint32_t n)
{
    size_t bytes = n * c->row_values * check_type_bytes(c->type);
    uint8_t *out = check_alloc(c, bytes);
    args.rows.step = step_upload_rows(0);
    launch_plan(c, plan, &args, n, out);
    for (size_t i = 0; i < bytes; i++) {
        if (out[i] != DEVICE_NOISE)
            check_fail(c, "writes outputs of a step without rows");
    }
}

/* By this kernel, and by another tile or what the choice prefers, which must give the same bits. */
static void tile_run(struct cuda_case *c, uint32_t first, uint32_t n, void *out)
{
    struct tile_case *e = c->context;
    const struct linear_packed *p = &e->packed;
    uint32_t capacity = n + rng_below(&c->rng, 3);
    struct linear_tile_args args = {
        .rows = {.step = step_upload_rows(n), .count = CUDA_COUNT_ROWS, .max = capacity},
        .weight = device_upload(p->codes, linear_packed_codes_bytes(p)),
        .weight_scale = device_upload(p->scales, linear_packed_scales_bytes(p)),
        .bias =
            e->weight.bias == NULL ? NULL : device_upload(e->weight.bias, e->weight.n_out * sizeof(float)),
        .n_out = p->n_out,
        .n_in = p->n_in,
        .group_shift = linear_group_shift(p->n_in, p->group),
        .row_bytes = p->row_bytes,
        .out_stride = e->out_stride,
        .out_is_f32 = c->type == CHECK_F32,
    };
    upload_rows(c, first, n, capacity, &args);
    e->device.resident_bytes = rng_below(&c->rng, 2) ? 4096 : 0;
    struct linear_plan plan = linear_plan_of_tile(p->layout, p->n_out, p->n_in, capacity, &e->device,
                                                  tile_of_kernel(c), rng_below(&c->rng, 2));
    launch_plan(c, &plan, &args, n, out);
    if (n == c->n_rows)
        run_empty(c, &plan, args, n);
    if (n == 1 && rng_below(&c->rng, 4) != 0)
        return;
    uint32_t n_sizes = (uint32_t)linear_tile_sizes_of(p->layout, &e->device);
    struct linear_plan other = linear_plan_choose(p->layout, p->n_out, p->n_in, capacity, &e->device);
    if (rng_below(&c->rng, 2))
        other = linear_plan_of_tile(p->layout, p->n_out, p->n_in, capacity, &e->device,
                                    linear_tile_sizes[rng_below(&c->rng, n_sizes)], rng_below(&c->rng, 2));
    size_t bytes = n * c->row_values * check_type_bytes(c->type);
    void *again = check_alloc(c, bytes);
    launch_plan(c, &other, &args, n, again);
    if (memcmp(out, again, bytes) != 0)
        check_fail(c, "%u rows by tiles of %u rows (%s) and of %u (%s) differ", n, plan.tile_rows,
                   plan.is_split ? "split" : "whole", other.tile_rows, other.is_split ? "split" : "whole");
}

const struct cuda_check check_linear_tile = {tile_make, tile_reference, tile_run};
