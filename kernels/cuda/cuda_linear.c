/* Linear layers and logits: which layout a weight gets when it is packed, and which kernel serves it for how
 * many rows. The arithmetic of a weight is one for every number of rows; tiles may differ. */
#include "kernels/cuda/cuda_backend.h"

const struct cuda_layout *cuda_linear_layout(const struct cuda_backend *cuda, const struct weight_desc *desc)
{
    (void)cuda, (void)desc;
    return &cuda_layout_rows;
}

size_t cuda_linear_scratch_bytes(const struct cuda_backend *cuda, const struct backend_needs *needs)
{
    (void)cuda, (void)needs;
    return 0;
}

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
    if (rows.max > 0)
        cuda_launch(cuda, choose_kernel(in, out), grid, LINEAR_SIMPLE_THREADS, 0, &args, sizeof args);
}

void cuda_linear(struct backend *backend, const struct step *step, struct act *in,
                 const struct weight *weight, struct act *out)
{
    (void)step;
    struct cuda_backend *cuda = cuda_of(backend);
    linear_rows(cuda, cuda_step_rows(cuda), in, weight, out);
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
