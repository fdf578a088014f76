/* Attention of a step: what the device is told of the work beside the step, and which kernels do it. */
#include "kernels/cuda/cuda_backend.h"

size_t cuda_attention_scratch_bytes(const struct cuda_backend *cuda, const struct backend_needs *needs)
{
    (void)cuda, (void)needs;
    return 0;
}

size_t cuda_attention_work_bytes(const struct cuda_backend *cuda, const struct backend_needs *needs)
{
    (void)cuda, (void)needs;
    return 0;
}

size_t cuda_attention_work_fill(const struct cuda_backend *cuda, const struct step *step, void *work)
{
    (void)cuda, (void)step, (void)work;
    return 0;
}

void cuda_attention(struct backend *backend, const struct step *step, const struct act *qkv,
                    const struct attention_params *params, const struct kv *kv, struct act *out)
{
    const struct qkv_shape *shape = &params->shape;
    ASSERT(shape->n_kv_heads > 0 && shape->n_heads % shape->n_kv_heads == 0);
    ASSERT(qkv->width == (size_t)(shape->n_heads + 2 * shape->n_kv_heads) * shape->head_dim);
    ASSERT(out->width == (size_t)shape->n_heads * shape->head_dim && out != qkv && out->f32 == qkv->f32);
    ASSERT(kv->desc.n_kv_heads == shape->n_kv_heads && kv->desc.head_dim == shape->head_dim);
    ASSERT(step->n_rows <= qkv->max_rows && step->n_rows <= out->max_rows);
    ASSERT(kv->desc.group < step->capacity.kv_groups);
    struct cuda_backend *cuda = cuda_of(backend);
    struct attention_simple_args args = {
        .step = cuda->scratch.step,
        .qkv = qkv->data,
        .out = out->data,
        .qkv_stride = qkv->stride,
        .out_stride = out->stride,
        .n_heads = shape->n_heads,
        .n_kv_heads = shape->n_kv_heads,
        .head_dim = shape->head_dim,
        .scale = params->scale,
        .window = params->window,
        .soft_cap = params->soft_cap,
        .kv = kv->cache,
    };
    if (qkv->f32)
        CUDA_LAUNCH(cuda, attention_simple_f32, cuda->rows_max, shape->n_heads, ATTENTION_SIMPLE_THREADS,
                    args);
    else
        CUDA_LAUNCH(cuda, attention_simple_bf16, cuda->rows_max, shape->n_heads, ATTENTION_SIMPLE_THREADS,
                    args);
}
