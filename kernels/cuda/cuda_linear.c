/* Linear layers and logits: which layout a weight gets when it is packed, and which kernel serves it for how
 * many rows. The arithmetic of a weight is one for every number of rows; tiles may differ. */
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/linear_plan.h"
#include "kernels/cuda/linear_weight.h"

const struct cuda_layout *cuda_linear_layout(const struct cuda_backend *cuda, const struct weight_desc *desc)
{
    const struct cuda_layout *layout =
        cuda->f32 ? NULL : linear_weight_layout(desc, cuda->properties->capability);
    return layout != NULL ? layout : &cuda_layout_rows;
}

/* ---- Scratch: counters, quantised rows and their scales, partial sums ---- */

struct linear_scratch {
    uint32_t *arrivals;
    uint32_t *row_arrivals; /* [rows] */
    float *x_scale;         /* [rows] */
    uint8_t *q;             /* rows in blocks, linear_layout.h */
    uint32_t q_stride;      /* rows */
    float *partials;
    size_t partial_bytes, total_bytes;
};

static struct linear_scratch scratch_at(const struct cuda_backend *cuda, const struct backend_needs *needs,
                                        void *base)
{
    if (cuda->f32)
        return (struct linear_scratch){0};
    size_t rows = needs->step.rows > needs->logits_rows ? needs->step.rows : needs->logits_rows;
    size_t n_out = needs->widest_out > needs->vocab_size ? needs->widest_out : needs->vocab_size;
    size_t stride = round_up(rows, 256); /* whole tiles of every kernel */
    size_t partial_bytes = linear_partial_bytes(n_out, needs->widest_in, rows);
    size_t arrivals = cuda_bytes(linear_arrivals_max(partial_bytes), sizeof(uint32_t));
    size_t of_rows = cuda_bytes(stride, sizeof(float));
    bool is_wide = cuda->properties->capability == 90; /* wgmma by bf16 rows */
    size_t q = cuda_bytes(round_up(needs->widest_in * (is_wide ? 2 : 1), LINEAR_BLOCK_BYTES) * stride, 1);
    uint8_t *at = base;
    return (struct linear_scratch){
        .arrivals = (uint32_t *)at,
        .row_arrivals = (uint32_t *)(at + arrivals),
        .x_scale = (float *)(at + arrivals + of_rows),
        .q = at + arrivals + 2 * of_rows,
        .q_stride = (uint32_t)stride,
        .partials = (float *)(at + arrivals + 2 * of_rows + q),
        .partial_bytes = partial_bytes,
        .total_bytes = arrivals + 2 * of_rows + q + partial_bytes,
    };
}

size_t cuda_linear_scratch_bytes(const struct cuda_backend *cuda, const struct backend_needs *needs)
{
    return scratch_at(cuda, needs, NULL).total_bytes;
}

/* ---- Kernels of tensor cores ---- */

/* Where the rows of activations go in 8 bits, or in blocks as they are: for our kernels (NULL), or plain for
 * a product. */
static struct quantized_rows rows_in_8_bits(const struct cuda_backend *cuda,
                                            const struct cuda_product *product)
{
    struct linear_scratch scratch = scratch_at(cuda, &cuda->needs, cuda->scratch.linear);
    return (struct quantized_rows){scratch.q, scratch.x_scale, scratch.q_stride,
                                   product != NULL ? product->shape.x_stride : 0};
}

bool cuda_linear_wants(const struct cuda_backend *cuda, const struct act *act, uint32_t n_rows,
                       struct quantized_rows *rows)
{
    if (act->wanted == 0)
        return false;
    *rows = rows_in_8_bits(cuda, cuda_product_serves(act->wanted_by, n_rows) ? act->wanted_by : NULL);
    return true;
}

uint32_t *cuda_linear_row_arrivals(const struct cuda_backend *cuda)
{
    return scratch_at(cuda, &cuda->needs, cuda->scratch.linear).row_arrivals;
}

/* The rows of in to 8 bits, for weights that want it, if they are not there yet. */
static void quantize_rows(struct cuda_backend *cuda, struct cuda_rows rows, const struct act *in,
                          const struct weight *weight, const struct quantized_rows *to)
{
    const struct cuda_matrix *m = &weight->matrix;
    if (cuda->quantized == in && in->wanted == m->packed && cuda->quantized_plain_bytes == to->plain_bytes)
        return;
    struct quantize_rows_args quantize = {
        .rows = rows,
        .x = in->data,
        .x_stride = in->stride,
        .n_in = m->n_in,
        .to = *to,
    };
    if (m->packed - 1 == LINEAR_S8)
        CUDA_LAUNCH(cuda, quantize_rows_s8, rows.max, 1, QUANTIZE_ROWS_THREADS, quantize);
    else
        CUDA_LAUNCH(cuda, quantize_rows_e4m3, rows.max, 1, QUANTIZE_ROWS_THREADS, quantize);
}

/* The bf16 rows of in as wgmma multiplies them, to scratch. */
static void arrange_rows(struct cuda_backend *cuda, struct cuda_rows rows, const struct act *in,
                         uint32_t n_in)
{
    struct quantize_rows_args arrange = {
        .rows = rows,
        .x = in->data,
        .x_stride = in->stride,
        .n_in = n_in,
        .to = rows_in_8_bits(cuda, NULL),
    };
    CUDA_LAUNCH(cuda, arrange_rows_bf16, rows.max, 1, QUANTIZE_ROWS_THREADS, arrange);
}

static void linear_packed_rows(struct cuda_backend *cuda, struct cuda_rows rows, const struct act *in,
                               const struct weight *weight, struct act *out)
{
    const struct cuda_matrix *m = &weight->matrix;
    enum linear_layout layout = (enum linear_layout)(m->packed - 1);
    struct linear_scratch scratch = scratch_at(cuda, &cuda->needs, cuda->scratch.linear);
    struct linear_device device = {
        .compute_capability = cuda->properties->capability,
        .n_multiprocessors = cuda->properties->n_multiprocessors,
        .shared_bytes = cuda->properties->shared_bytes_max + 1024, /* a block cannot have the last KB */
        .partial_bytes = scratch.partial_bytes,
    };
    struct linear_plan plan = linear_plan_choose(layout, m->n_out, m->n_in, rows.max, &device);
    struct linear_tile_args args = {
        .rows = rows,
        .weight = m->codes,
        .weight_scale = m->scales,
        .bias = m->bias,
        .x = in->data,
        .out = out->data,
        .partials = scratch.partials,
        .arrivals = scratch.arrivals,
        .n_out = m->n_out,
        .n_in = m->n_in,
        .group_shift = linear_group_shift(m->n_in, m->group),
        .row_bytes = m->row_bytes,
        .x_stride = in->stride,
        .out_stride = out->stride,
        .out_is_f32 = out->f32,
        .chunk_blocks = plan.chunk_blocks,
        .window_blocks = plan.window_blocks,
        .is_split = plan.is_split,
    };
    if (layout >= LINEAR_S8) {
        struct quantized_rows in_8_bits = rows_in_8_bits(cuda, NULL);
        quantize_rows(cuda, rows, in, weight, &in_8_bits);
        args.x = in_8_bits.q;
        args.x_scale = in_8_bits.scale;
        args.x_stride = in_8_bits.rows_stride;
    }
    if (plan.rows_in_blocks) {
        args.x = scratch.q;
        args.x_stride = scratch.q_stride;
        arrange_rows(cuda, rows, in, m->n_in);
    }
    cuda_launch(cuda, plan.kernel, (const uint32_t[3]){plan.grid, 1, 1}, plan.block_threads,
                plan.shared_bytes, &args, sizeof args);
}

/* Results go to bf16, which all but the logits are. */
static void linear_by_library(struct cuda_backend *cuda, struct cuda_rows rows, const struct act *in,
                              const struct weight *weight, struct act *out)
{
    if (weight->matrix.packed - 1 == LINEAR_BF16) {
        cuda_product_run(cuda, weight, rows.max, in->data, NULL, out);
        return;
    }
    struct quantized_rows in_8_bits = rows_in_8_bits(cuda, weight->product);
    quantize_rows(cuda, rows, in, weight, &in_8_bits);
    cuda_product_run(cuda, weight, rows.max, in_8_bits.q, in_8_bits.scale, out);
}

/* ---- Ops ---- */

static enum cuda_kernel_id choose_kernel(const struct act *in, const struct act *out)
{
    if (in->f32)
        return CUDA_KERNEL_linear_simple_f32;
    return out->f32 ? CUDA_KERNEL_linear_simple_bf16_f32 : CUDA_KERNEL_linear_simple_bf16;
}

static void linear_rows(struct cuda_backend *cuda, struct cuda_rows rows, const struct act *in,
                        const struct weight *weight, struct act *out)
{
    ASSERT(in->width == weight->matrix.n_in && out->width == weight->matrix.n_out && in != out);
    ASSERT(rows.max <= in->max_rows && rows.max <= out->max_rows && (!in->f32 || out->f32));
    if (rows.max == 0)
        return;
    if (!out->f32 && cuda_product_serves(weight->product, rows.max)) {
        linear_by_library(cuda, rows, in, weight, out);
        return;
    }
    if (weight->matrix.packed != 0) {
        linear_packed_rows(cuda, rows, in, weight, out);
        return;
    }
    struct linear_simple_args args = {
        .rows = rows,
        .weight = weight->matrix,
        .x = in->data,
        .out = out->data,
        .x_stride = in->stride,
        .out_stride = out->stride,
    };
    const uint32_t grid[3] = {(uint32_t)div_up(weight->matrix.n_out, LINEAR_SIMPLE_OUTPUTS),
                              (uint32_t)div_up(rows.max, LINEAR_SIMPLE_ROWS), 1};
    cuda_launch(cuda, choose_kernel(in, out), grid, LINEAR_SIMPLE_THREADS, 0, &args, sizeof args);
}

void cuda_linear(struct backend *backend, const struct step *step, enum step_rows rows, struct act *in,
                 const struct weight *weight, struct act *out)
{
    struct cuda_backend *cuda = cuda_of(backend);
    linear_rows(cuda, cuda_step_rows(cuda, step, rows), in, weight, out);
    in->wanted = weight->matrix.packed > LINEAR_S8 ? weight->matrix.packed : 0;
    in->wanted_by = weight->product;
}

void cuda_logits(struct backend *backend, const struct step *step, uint32_t first_output, uint32_t n,
                 struct act *hidden, const struct weight *weight, float soft_cap, struct act *logits)
{
    (void)step;
    struct cuda_backend *cuda = cuda_of(backend);
    struct cuda_rows rows = cuda_output_rows(cuda, first_output, n);
    linear_rows(cuda, rows, hidden, weight, logits);
    if (soft_cap <= 0)
        return;
    struct soft_cap_args args = {
        .rows = rows,
        .x = logits->data,
        .stride = logits->stride,
        .width = (uint32_t)logits->width,
        .cap = soft_cap,
    };
    CUDA_LAUNCH(cuda, soft_cap_f32, rows.max, div_up(logits->width, ACTIVATION_PIECE), ACTIVATION_THREADS,
                args);
}
