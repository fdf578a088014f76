/* CUDA kernels over rows against the references in kernels/ref. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "kernels/cuda/linear_layout.h"
#include "kernels/kernel_table.h"
#include "tests/cuda/check_cuda.h"
#include "tests/cuda/check_matrix.h"

/* A width that is a multiple of 4, 8 or 16 as often as not. */
static uint32_t draw_width(struct cuda_case *c, uint32_t max)
{
    uint32_t step = 1u << rng_below(&c->rng, 5);
    return step * rng_between(&c->rng, 1, max / step);
}

static uint32_t draw_stride(struct cuda_case *c, uint32_t width)
{
    return (uint32_t)round_up(width, 16) + 16 * rng_below(&c->rng, 2);
}

/* ---- embed ---- */

enum { EMBED_VOCAB = 50, EMBED_SLOTS = 3 };

struct embed_case {
    struct check_matrix table;
    float scale;
    uint32_t stride;
    struct step_row rows[CHECK_ROWS_MAX];
    struct step_seq seqs[EMBED_SLOTS];
    uint32_t last_tokens[EMBED_SLOTS];
};

static void embed_make(struct cuda_case *c)
{
    struct embed_case *e = c->context = check_alloc(c, sizeof *e);
    matrix_make(c, &e->table, (enum weight_format)rng_below(&c->rng, WEIGHT_FP8 + 1), EMBED_VOCAB, 300);
    e->scale = rng_below(&c->rng, 2) ? 1.0f : 27.7f;
    e->stride = draw_stride(c, e->table.n_in);
    for (uint32_t s = 0; s < EMBED_SLOTS; s++) {
        e->seqs[s].sampling_slot = EMBED_SLOTS - 1 - s;
        e->last_tokens[s] = rng_below(&c->rng, EMBED_VOCAB);
    }
    for (uint32_t r = 0; r < c->n_rows; r++) {
        e->rows[r].token = rng_below(&c->rng, EMBED_VOCAB);
        e->rows[r].seq = rng_below(&c->rng, EMBED_SLOTS);
        if (rng_below(&c->rng, 4) == 0) {
            e->rows[r].flags = STEP_ROW_TOKEN_FROM_SLOT;
            e->rows[r].token = 0xffffffffu;
        }
    }
    c->row_values = e->table.n_in;
    c->type = CHECK_F32;
    snprintf(c->note, sizeof c->note, "format %d, width %u, group %u", e->table.format, e->table.n_in,
             e->table.group);
}

static void embed_reference(const struct cuda_case *c, uint32_t row, void *out, float *scale)
{
    const struct embed_case *e = c->context;
    (void)scale;
    uint32_t token = e->rows[row].token;
    if (e->rows[row].flags & STEP_ROW_TOKEN_FROM_SLOT)
        token = e->last_tokens[e->seqs[e->rows[row].seq].sampling_slot];
    for (uint32_t k = 0; k < e->table.n_in; k++)
        ((float *)out)[k] = e->table.values[(size_t)token * e->table.n_in + k] * e->scale;
}

static void embed_run(struct cuda_case *c, uint32_t first, uint32_t n, void *out)
{
    struct embed_case *e = c->context;
    struct cuda_slot *slots = check_alloc(c, EMBED_SLOTS * sizeof *slots);
    for (uint32_t s = 0; s < EMBED_SLOTS; s++)
        slots[s].last_token = e->last_tokens[s];
    float *on_device = device_alloc((size_t)n * e->stride * 4);
    struct embed_args args = {
        .step = step_upload(
            &(struct check_step){
                .rows = e->rows + first, .n_rows = n, .seqs = e->seqs, .n_seqs = EMBED_SLOTS},
            NULL),
        .slots = {.slots = device_upload(slots, EMBED_SLOTS * sizeof *slots), .n_slots = EMBED_SLOTS},
        .table = matrix_upload(&e->table),
        .scale = e->scale,
        .out = on_device,
        .out_stride = e->stride,
    };
    device_is_late(args.slots.slots);
    LAUNCH(c, CUDA_KERNEL_embed, n + rng_below(&c->rng, 3), 1, EMBED_THREADS, args);
    device_read_rows(on_device, n, e->table.n_in * 4, e->stride * 4, out);
}

const struct cuda_check check_embed = {embed_make, embed_reference, embed_run};

/* ---- Rows in 8 bits besides ---- */

/* What a kernel is given to write to; NULLs when it does not. */
struct quantized_check {
    bool is_on, is_e4m3;
    size_t q_bytes, scale_bytes;
    struct quantized_rows rows;
};

static struct quantized_check quantized_make(struct cuda_case *c, uint32_t n, uint32_t width)
{
    struct quantized_check check = {0};
    check.is_e4m3 = c->kernel == CUDA_KERNEL_add_norm_e4m3 || c->kernel == CUDA_KERNEL_activation_mul_e4m3;
    check.is_on =
        check.is_e4m3 || c->kernel == CUDA_KERNEL_add_norm_s8 || c->kernel == CUDA_KERNEL_activation_mul_s8;
    if (!check.is_on)
        return check;
    check.rows.rows_stride = (uint32_t)round_up(n, 8);
    if (rng_below(&c->rng, 2))
        check.rows.plain_bytes = (uint32_t)round_up(width, 16);
    check.q_bytes = round_up(width, LINEAR_BLOCK_BYTES) * check.rows.rows_stride;
    check.scale_bytes = n * sizeof(float);
    check.rows.q = device_alloc(check.q_bytes);
    check.rows.scale = device_alloc(check.scale_bytes);
    return check;
}

/* The codes and scales must be those that quantize_rows makes of the rows, x: bf16 [n][stride] on the device.
 */
static void quantized_compare(struct cuda_case *c, const struct quantized_check *check, const void *x,
                              uint32_t n, uint32_t width, uint32_t stride)
{
    if (!check->is_on)
        return;
    struct quantize_rows_args args = {
        .rows = {.step = step_upload_rows(n), .count = CUDA_COUNT_ROWS, .max = n},
        .x = x,
        .x_stride = stride,
        .n_in = width,
        .to = {device_alloc(check->q_bytes), device_alloc(check->scale_bytes), check->rows.rows_stride,
               check->rows.plain_bytes},
    };
    LAUNCH(c, check->is_e4m3 ? CUDA_KERNEL_quantize_rows_e4m3 : CUDA_KERNEL_quantize_rows_s8, n, 1,
           QUANTIZE_ROWS_THREADS, args);
    const void *both[2][2] = {{args.to.q, args.to.scale}, {check->rows.q, check->rows.scale}};
    uint8_t *bytes[2];
    for (int i = 0; i < 2; i++) {
        bytes[i] = check_alloc(c, check->q_bytes + check->scale_bytes);
        device_read(bytes[i], both[i][0], check->q_bytes);
        device_read(bytes[i] + check->q_bytes, both[i][1], check->scale_bytes);
    }
    for (size_t i = 0; i < check->q_bytes + check->scale_bytes; i++) {
        if (bytes[0][i] != bytes[1][i])
            check_fail(c, "%s %zu: byte %02x, quantize_rows has %02x",
                       i < check->q_bytes ? "code" : "scale byte",
                       i < check->q_bytes ? i : i - check->q_bytes, bytes[1][i], bytes[0][i]);
    }
}

/* ---- add_norm ---- */

struct norm_case {
    uint32_t width, residual_stride, add_stride, out_stride;
    float *residual, *add, *add_weight, *weight; /* add and add_weight: NULL = none */
    float eps;
    bool in_place;
};

/* The result: the new residual, then the normed row in the type, widened to f32. */
static void norm_make(struct cuda_case *c)
{
    struct norm_case *e = c->context = check_alloc(c, sizeof *e);
    uint32_t n = e->width = draw_width(c, rng_below(&c->rng, 8) == 0 ? ADD_NORM_WIDTH_MAX : 600);
    c->n_rows = n > 2000 && c->n_rows > 9 ? 9 : c->n_rows;
    e->residual = check_alloc(c, (size_t)c->n_rows * n * 4);
    e->add = check_alloc(c, (size_t)c->n_rows * n * 4);
    e->weight = check_alloc(c, (size_t)n * 4);
    for (uint32_t r = 0; r < c->n_rows; r++) {
        fill_normal(&c->rng, e->residual + (size_t)r * n, n);
        fill_normal(&c->rng, e->add + (size_t)r * n, n);
    }
    fill_normal(&c->rng, e->weight, n);
    values_round((enum check_type)c->variant, e->add, (size_t)c->n_rows * n);
    if (rng_below(&c->rng, 4) == 0)
        e->add = NULL;
    if (e->add != NULL && rng_below(&c->rng, 2)) {
        e->add_weight = check_alloc(c, (size_t)n * 4);
        fill_normal(&c->rng, e->add_weight, n);
    }
    e->in_place = e->add == NULL && c->variant == CHECK_F32 && rng_below(&c->rng, 2);
    e->residual_stride = draw_stride(c, n);
    e->add_stride = draw_stride(c, n);
    e->out_stride = draw_stride(c, n);
    e->eps = rng_below(&c->rng, 2) ? 1e-5f : 1e-6f;
    c->row_values = n;
    c->type = (enum check_type)c->variant;
    c->tolerance = 2e-6f; /* of the scale: n squares of relative error 2^-24 each, summed in another order */
    snprintf(c->note, sizeof c->note, "width %u%s%s%s", n, e->add == NULL ? ", nothing added" : "",
             e->add_weight == NULL ? "" : ", norm of what is added", e->in_place ? ", in place" : "");
}

static void norm_reference(const struct cuda_case *c, uint32_t row, void *out, float *scale)
{
    const struct norm_case *e = c->context;
    (void)scale;
    memcpy(out, e->residual + (size_t)row * e->width, e->width * 4);
    norm_row_ref(&(struct norm_args){.residual = out,
                                     .add = e->add == NULL ? NULL : e->add + (size_t)row * e->width,
                                     .add_weight = e->add_weight,
                                     .weight = e->weight,
                                     .n = e->width,
                                     .eps = e->eps,
                                     .out = out});
}

/* The residual must be the sum, bit for bit; where the norm of what is added counts, up to the rounding of
 * its scale. */
static void norm_check_residual(struct cuda_case *c, uint32_t first, uint32_t n, const float *on_device)
{
    const struct norm_case *e = c->context;
    float *got = check_alloc(c, e->width * 4), *out = check_alloc(c, e->width * 4);
    float *sum = check_alloc(c, e->width * 4);
    for (uint32_t r = 0; r < n; r++) {
        size_t at = (size_t)(first + r) * e->width;
        device_read(got, on_device + (size_t)r * e->residual_stride, e->width * 4);
        memcpy(sum, e->residual + at, e->width * 4);
        norm_row_ref(&(struct norm_args){.residual = sum,
                                         .add = e->add == NULL ? NULL : e->add + at,
                                         .add_weight = e->add_weight,
                                         .weight = e->weight,
                                         .n = e->width,
                                         .eps = e->eps,
                                         .out = out});
        for (uint32_t i = 0; i < e->width; i++) {
            float want = sum[i];
            bool same = memcmp(&want, got + i, 4) == 0;
            if (e->add_weight != NULL)
                same =
                    fabsf(want - got[i]) <= c->tolerance * (1.0f + fabsf(e->residual[at + i]) + fabsf(want));
            if (!same)
                check_fail(c, "row %u: residual %u is %.9g and not %.9g", first + r, i, (double)got[i],
                           (double)want);
        }
    }
}

/* n rows: all of a step, or those of its outputs. */
static struct cuda_rows rows_upload(struct cuda_case *c, uint32_t n)
{
    if (rng_below(&c->rng, 2) == 0)
        return (struct cuda_rows){step_upload_rows(n), CUDA_COUNT_ROWS, 0, n};
    struct step_row rows[CHECK_ROWS_MAX + 3] = {{0}};
    struct step_output outputs[CHECK_ROWS_MAX] = {{0}};
    ASSERT(n <= CHECK_ROWS_MAX);
    const struct check_step step = {.rows = rows, .n_rows = n + 3, .outputs = outputs, .n_outputs = n};
    return (struct cuda_rows){step_upload(&step, NULL), CUDA_COUNT_OUTPUTS, 0, n};
}

static void norm_run(struct cuda_case *c, uint32_t first, uint32_t n, void *out)
{
    struct norm_case *e = c->context;
    size_t element = check_type_bytes(c->type), at = (size_t)first * e->width;
    float *residual = device_upload_rows(CHECK_F32, e->residual + at, n, e->width, e->residual_stride);
    uint32_t out_stride = e->in_place ? e->residual_stride : e->out_stride;
    struct quantized_check quantized = quantized_make(c, n, e->width);
    struct add_norm_args args = {
        .rows = rows_upload(c, n),
        .residual = residual,
        .add = e->add == NULL ? NULL : device_upload_rows(c->type, e->add + at, n, e->width, e->add_stride),
        .add_weight = e->add_weight == NULL ? NULL : device_upload(e->add_weight, e->width * 4),
        .weight = device_upload(e->weight, e->width * 4),
        .out = e->in_place ? (void *)residual : device_alloc(n * out_stride * element),
        .residual_stride = e->residual_stride,
        .add_stride = e->add_stride,
        .out_stride = out_stride,
        .n = e->width,
        .eps = e->eps,
        .quantized = quantized.rows,
    };
    LAUNCH(c, c->kernel, n + rng_below(&c->rng, 3), 1, add_norm_threads(e->width, rng_below(&c->rng, 2)),
           args);
    if (!e->in_place)
        norm_check_residual(c, first, n, residual);
    quantized_compare(c, &quantized, args.out, n, e->width, out_stride);
    device_read_rows(args.out, n, e->width * element, out_stride * element, out);
}

const struct cuda_check check_add_norm = {norm_make, norm_reference, norm_run};

/* ---- activation_mul and soft_cap ---- */

struct activation_case {
    uint32_t width, in_stride, out_stride;
    enum activation_kind kind;
    float cap;
    float *in; /* [rows][2 * width], or [rows][width] */
};

static void activation_make(struct cuda_case *c)
{
    static const float far[] = {0.0f,  -0.0f,  1e-25f, -3e-39f, 7.5f,   -7.5f,  39.0f,  -39.0f,
                                42.0f, -42.0f, -87.5f, 88.5f,   -88.5f, -89.5f, 104.0f, -104.0f};
    struct activation_case *e = c->context = check_alloc(c, sizeof *e);
    /* With the row in 8 bits a wide one goes by several blocks, the last of which quantises it. */
    bool by_pieces =
        c->kernel == CUDA_KERNEL_activation_mul_s8 || c->kernel == CUDA_KERNEL_activation_mul_e4m3;
    e->width = draw_width(c, rng_below(&c->rng, by_pieces ? 2 : 16) == 0 ? 10000 : 2600);
    e->kind = rng_below(&c->rng, 2) ? ACTIVATION_SILU : ACTIVATION_GELU_TANH;
    e->in_stride = draw_stride(c, 2 * e->width);
    e->out_stride = draw_stride(c, e->width);
    c->n_rows = e->width > 2600 && c->n_rows > 5 ? 5 : c->n_rows > 70 ? 70 : c->n_rows;
    e->in = check_alloc(c, (size_t)c->n_rows * 2 * e->width * 4);
    fill_normal(&c->rng, e->in, (size_t)c->n_rows * 2 * e->width);
    for (uint32_t i = 0; i < c->n_rows * 4; i++) /* values that the kernel treats apart */
        e->in[rng_below(&c->rng, c->n_rows * 2 * e->width)] =
            far[rng_below(&c->rng, sizeof far / sizeof far[0])];
    c->row_values = e->width;
    c->type = (enum check_type)c->variant;
    values_round(c->type, e->in, (size_t)c->n_rows * 2 * e->width);
    snprintf(c->note, sizeof c->note, "width %u, kind %d", e->width, e->kind);
}

static void activation_reference(const struct cuda_case *c, uint32_t row, void *out, float *scale)
{
    const struct activation_case *e = c->context;
    (void)scale;
    const float *gate = e->in + (size_t)row * 2 * e->width;
    (e->kind == ACTIVATION_SILU ? silu_mul_row_ref : gelu_mul_row_ref)(gate, gate + e->width, e->width, out);
}

static void activation_run(struct cuda_case *c, uint32_t first, uint32_t n, void *out)
{
    struct activation_case *e = c->context;
    size_t element = check_type_bytes(c->type);
    struct quantized_check quantized = quantized_make(c, n, e->width);
    struct activation_mul_args args = {
        .rows = rows_upload(c, n),
        .gate_up =
            device_upload_rows(c->type, e->in + (size_t)first * 2 * e->width, n, 2 * e->width, e->in_stride),
        .out = device_alloc(n * e->out_stride * element),
        .gate_up_stride = e->in_stride,
        .out_stride = e->out_stride,
        .width = e->width,
        .kind = e->kind,
        .quantized = quantized.rows,
    };
    uint32_t rows = n + rng_below(&c->rng, 3), pieces = (uint32_t)div_up(e->width, ACTIVATION_PIECE);
    if (!quantized.is_on) {
        LAUNCH(c, c->kernel, 1 + rng_below(&c->rng, rows), pieces, ACTIVATION_THREADS, args);
    } else if (e->width % 8 == 0 && rng_below(&c->rng, 2)) {
        LAUNCH(c, c->kernel, rows, 1, ACTIVATION_WHOLE_THREADS, args);
    } else {
        uint32_t *arrivals = check_alloc(c, n * sizeof *arrivals);
        args.arrivals = device_upload(arrivals, n * sizeof *arrivals);
        pieces = (uint32_t)div_up(e->width, 8 * ACTIVATION_WHOLE_THREADS);
        LAUNCH(c, c->kernel, rows, pieces, ACTIVATION_WHOLE_THREADS, args);
        device_read(arrivals, args.arrivals, n * sizeof *arrivals);
        for (uint32_t r = 0; r < n; r++) {
            if (arrivals[r] != 0)
                check_fail(c, "the counter of row %u ends at %u", r, arrivals[r]);
        }
    }
    quantized_compare(c, &quantized, args.out, n, e->width, e->out_stride);
    device_read_rows(args.out, n, e->width * element, e->out_stride * element, out);
}

const struct cuda_check check_activation_mul = {activation_make, activation_reference, activation_run};

static void soft_cap_make(struct cuda_case *c)
{
    struct activation_case *e = c->context = check_alloc(c, sizeof *e);
    e->width = draw_width(c, 2600);
    e->in_stride = draw_stride(c, e->width);
    e->cap = 0.5f + 30 * rng_uniform(&c->rng);
    c->n_rows = c->n_rows > 70 ? 70 : c->n_rows;
    e->in = check_alloc(c, (size_t)c->n_rows * e->width * 4);
    fill_normal(&c->rng, e->in, (size_t)c->n_rows * e->width);
    c->row_values = e->width;
    c->type = CHECK_F32;
    snprintf(c->note, sizeof c->note, "width %u, cap %g", e->width, (double)e->cap);
}

static void soft_cap_reference(const struct cuda_case *c, uint32_t row, void *out, float *scale)
{
    const struct activation_case *e = c->context;
    (void)scale;
    memcpy(out, e->in + (size_t)row * e->width, e->width * 4);
    soft_cap_row_ref(out, e->width, e->cap);
}

static void soft_cap_run(struct cuda_case *c, uint32_t first, uint32_t n, void *out)
{
    struct activation_case *e = c->context;
    struct soft_cap_args args = {
        .rows = {.step = step_upload_rows(n), .count = CUDA_COUNT_ROWS, .max = n},
        .x = device_upload_rows(CHECK_F32, e->in + (size_t)first * e->width, n, e->width, e->in_stride),
        .stride = e->in_stride,
        .width = e->width,
        .cap = e->cap,
    };
    LAUNCH(c, c->kernel, n + rng_below(&c->rng, 3), (uint32_t)div_up(e->width, ACTIVATION_PIECE),
           ACTIVATION_THREADS, args);
    device_read_rows(args.x, n, e->width * 4, e->in_stride * 4, out);
}

const struct cuda_check check_soft_cap = {soft_cap_make, soft_cap_reference, soft_cap_run};

/* ---- gather_outputs ---- */

enum { GATHER_OUTPUTS = CHECK_ROWS_MAX, GATHER_ROWS = 150 };

struct gather_case {
    uint32_t width_bytes, in_stride, out_stride, n_before;
    uint8_t *in; /* [GATHER_ROWS][width_bytes] */
    struct step_output outputs[GATHER_OUTPUTS + 8];
};

static void gather_make(struct cuda_case *c)
{
    struct gather_case *e = c->context = check_alloc(c, sizeof *e);
    e->width_bytes = 2 * draw_width(c, 400);
    e->in_stride = 2 * draw_stride(c, e->width_bytes / 2);
    e->out_stride = 2 * draw_stride(c, e->width_bytes / 2);
    e->n_before = rng_below(&c->rng, 8);
    e->in = check_alloc(c, (size_t)GATHER_ROWS * e->in_stride);
    for (size_t i = 0; i < (size_t)GATHER_ROWS * e->in_stride; i++)
        e->in[i] = (uint8_t)rng_u32(&c->rng);
    for (uint32_t i = 0; i < GATHER_OUTPUTS + 8; i++)
        e->outputs[i].row = rng_below(&c->rng, GATHER_ROWS);
    c->row_values = e->width_bytes;
    c->type = CHECK_BYTES;
    snprintf(c->note, sizeof c->note, "%u bytes, strides %u and %u", e->width_bytes, e->in_stride,
             e->out_stride);
}

static void gather_reference(const struct cuda_case *c, uint32_t row, void *out, float *scale)
{
    const struct gather_case *e = c->context;
    (void)scale;
    memcpy(out, e->in + (size_t)e->outputs[e->n_before + row].row * e->in_stride, e->width_bytes);
}

/* The outputs before `first` belong to an earlier pass. */
static void gather_run(struct cuda_case *c, uint32_t first, uint32_t n, void *out)
{
    struct gather_case *e = c->context;
    uint32_t capacity = n + rng_below(&c->rng, 3), n_outputs = e->n_before + first + n;
    struct step_row rows[1] = {{0}};
    struct check_step step = {.rows = rows, .n_rows = 1, .outputs = e->outputs, .n_outputs = n_outputs};
    uint8_t *on_device = device_alloc((size_t)capacity * e->out_stride);
    struct gather_outputs_args args = {
        .rows = {step_upload(&step, NULL), CUDA_COUNT_OUTPUTS, e->n_before + first, capacity},
        .in = device_upload(e->in, (size_t)GATHER_ROWS * e->in_stride),
        .out = on_device,
        .in_stride_bytes = e->in_stride,
        .out_stride_bytes = e->out_stride,
        .row_bytes = e->width_bytes,
    };
    device_is_late(args.in);
    LAUNCH(c, c->kernel, capacity, 1, GATHER_THREADS, args);
    device_read_rows(on_device, n, e->width_bytes, e->out_stride, out);
}

const struct cuda_check check_gather_outputs = {gather_make, gather_reference, gather_run};
