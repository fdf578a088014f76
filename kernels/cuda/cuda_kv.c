/* Rotary tables and the paged KV of the CUDA backend. */
#include <math.h>
#include "base/alloc.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/kernel_types.h"

/* ---- Rotary tables ---- */

size_t cuda_rope_bytes(const struct backend *backend, size_t n_freq, size_t max_positions)
{
    (void)backend;
    size_t n;
    if (!checked_mul(n_freq, max_positions, &n) || n > SIZE_MAX / 32)
        return SIZE_MAX;
    return 2 * cuda_bytes(n, sizeof(float));
}

struct rope_job {
    const float *inv_freq;
    float magnitude;
    size_t n_freq, first_position, n_positions;
    float *cosines, *sines;
};

static void fill_rope(void *context, int thread_index, int n_threads)
{
    const struct rope_job *job = context;
    size_t begin, end;
    thread_split(job->n_positions, 1, thread_index, n_threads, &begin, &end);
    for (size_t p = begin; p < end; p++) {
        for (size_t i = 0; i < job->n_freq; i++) {
            double angle = (double)((float)(job->first_position + p) * job->inv_freq[i]);
            job->cosines[p * job->n_freq + i] = (float)cos(angle) * job->magnitude;
            job->sines[p * job->n_freq + i] = (float)sin(angle) * job->magnitude;
        }
    }
}

static err_t upload_rope(struct cuda_backend *cuda, const struct rope *rope, struct rope_job *job)
{
    size_t position_bytes = rope->n_freq * sizeof(float);
    size_t chunk = (cuda->stage_bytes - CUDA_ALIGN) / (2 * position_bytes);
    ASSERT(chunk > 0);
    for (size_t done = 0; done < rope->max_positions; done += job->n_positions) {
        uint8_t *stage;
        size_t left = rope->max_positions - done;
        TRY(cuda_stage_begin(cuda, &stage));
        job->first_position = done;
        job->n_positions = left < chunk ? left : chunk;
        size_t bytes = job->n_positions * position_bytes;
        job->cosines = (float *)stage;
        job->sines = (float *)(stage + bytes);
        thread_pool_run(cuda->pool, fill_rope, job);
        size_t at = done * rope->n_freq;
        TRY(cuda->api->copy_to_device(cuda->device, cuda->stream, rope->cosines + at, job->cosines, bytes));
        TRY(cuda->api->copy_to_device(cuda->device, cuda->stream, rope->sines + at, job->sines, bytes));
        TRY(cuda_stage_end(cuda));
    }
    return err_ok();
}

err_t cuda_rope_create(struct backend *backend, const float *inv_freq, size_t n_freq, float magnitude,
                       size_t max_positions, struct rope **out)
{
    ASSERT(n_freq > 0 && max_positions > 0 && n_freq <= HEAD_DIM_MAX);
    struct cuda_backend *cuda = cuda_of(backend);
    void *cosines, *sines;
    *out = NULL;
    TRY(cuda_take(cuda, n_freq * max_positions, sizeof(float), "rotary tables", &cosines));
    TRY(cuda_take(cuda, n_freq * max_positions, sizeof(float), "rotary tables", &sines));
    struct rope *rope = mem_alloc(sizeof *rope);
    if (rope == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for rotary tables of %zu positions", max_positions);
    *rope = (struct rope){n_freq, max_positions, cosines, sines};
    struct rope_job job = {.inv_freq = inv_freq, .magnitude = magnitude, .n_freq = n_freq};
    err_t e = upload_rope(cuda, rope, &job);
    if (e.code != ERR_OK) {
        mem_free(rope);
        return e;
    }
    *out = rope;
    return e;
}

void cuda_rope_destroy(struct rope *rope)
{
    mem_free(rope);
}

/* ---- KV ---- */

static uint32_t element_bytes(enum kv_dtype dtype)
{
    return dtype == KV_F32 ? 4 : dtype == KV_BF16 ? 2 : 1;
}

static size_t block_bytes(const struct kv_desc *desc)
{
    return cuda_kv_block_bytes(desc->n_kv_heads, desc->head_dim, element_bytes(desc->dtype));
}

size_t cuda_kv_bytes(const struct backend *backend, const struct kv_desc *desc)
{
    (void)backend;
    size_t bytes;
    if (!checked_mul(block_bytes(desc), desc->n_blocks, &bytes) || bytes > SIZE_MAX - CUDA_ALIGN)
        return SIZE_MAX;
    return cuda_bytes(bytes, 1);
}

err_t cuda_kv_create(struct backend *backend, const struct kv_desc *desc, struct kv **out)
{
    ASSERT(desc->block_tokens == CUDA_KV_BLOCK_TOKENS && desc->group < STEP_KV_GROUPS_MAX);
    ASSERT(desc->n_blocks > 0 && desc->n_kv_heads > 0 && desc->head_dim > 0);
    struct cuda_backend *cuda = cuda_of(backend);
    *out = NULL;
    if (desc->head_dim > ATTENTION_SIMPLE_DIM_MAX)
        return err_new(ERR_UNIMPLEMENTED, "head_dim %u exceeds the CUDA backend's %d", desc->head_dim,
                       ATTENTION_SIMPLE_DIM_MAX);
    if (desc->dtype == KV_INT8)
        return err_new(ERR_INVALID_ARGUMENT,
                       "CUDA has no int8 KV cache: --kv-cache-dtype int8 is the CPU's, on a "
                       "GPU fp8 has as many bits");
    if (desc->dtype != KV_F32 && cuda->f32)
        return err_new(ERR_INVALID_ARGUMENT, "on CUDA --dtype float32 keeps KV in float32 too: leave out "
                                             "--kv-cache-dtype, or use --dtype bfloat16");
    void *blocks;
    TRY(cuda_take(cuda, cuda_kv_bytes(backend, desc), 1, "the KV cache", &blocks));
    struct kv *kv = mem_alloc(sizeof *kv);
    if (kv == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a KV cache");
    *kv = (struct kv){
        .desc = *desc,
        .cache =
            {
                .blocks = blocks,
                .n_blocks = desc->n_blocks,
                .n_kv_heads = desc->n_kv_heads,
                .head_dim = desc->head_dim,
                .group = desc->group,
                .element_bytes = element_bytes(desc->dtype),
                .k_scale = 1,
                .v_scale = 1,
            },
        .block_bytes = block_bytes(desc),
    };
    *out = kv;
    return err_ok();
}

void cuda_kv_destroy(struct kv *kv)
{
    mem_free(kv);
}

static void launch_turn(struct cuda_backend *cuda, const struct act *qkv, struct rope_kv_write_args args)
{
    if (qkv->f32)
        CUDA_LAUNCH(cuda, rope_kv_write_f32, cuda->rows_max, rope_blocks(&args), ROPE_THREADS, args);
    else
        CUDA_LAUNCH(cuda, rope_kv_write_bf16, cuda->rows_max, rope_blocks(&args), ROPE_THREADS, args);
}

void cuda_turn_flush(struct cuda_backend *cuda)
{
    struct cuda_turn turn = cuda->turn;
    cuda->turn.kv = NULL;
    if (turn.kv != NULL)
        launch_turn(cuda, turn.qkv, turn.args);
}

void cuda_rope_kv_write(struct backend *backend, const struct step *step, struct act *qkv,
                        const struct qkv_shape *shape, const struct vector *q_norm,
                        const struct vector *k_norm, float eps, const struct rope *rope, enum rope_kind kind,
                        struct kv *kv)
{
    ASSERT(kind == ROPE_HALVES && 2 * rope->n_freq <= shape->head_dim);
    ASSERT(qkv->width == (size_t)(shape->n_heads + 2 * shape->n_kv_heads) * shape->head_dim);
    ASSERT(kv->desc.n_kv_heads == shape->n_kv_heads && kv->desc.head_dim == shape->head_dim);
    ASSERT((q_norm == NULL || q_norm->n == shape->head_dim) &&
           (k_norm == NULL || k_norm->n == shape->head_dim));
    ASSERT(step->n_rows <= qkv->max_rows && kv->desc.group < step->capacity.kv_groups);
    struct cuda_backend *cuda = cuda_of(backend);
    struct rope_kv_write_args args = {
        .step = cuda->scratch.step,
        .qkv = qkv->data,
        .qkv_stride = qkv->stride,
        .n_heads = shape->n_heads,
        .n_kv_heads = shape->n_kv_heads,
        .head_dim = shape->head_dim,
        .q_norm = q_norm == NULL ? NULL : q_norm->values,
        .k_norm = k_norm == NULL ? NULL : k_norm->values,
        .eps = eps,
        .cosines = rope->cosines,
        .sines = rope->sines,
        .n_freq = (uint32_t)rope->n_freq,
        .kv = kv->cache,
    };
    cuda_turn_flush(cuda);
    if (rope_is_by_quads(&args) && cuda_attention_turns(cuda, step, kv))
        cuda->turn = (struct cuda_turn){kv, qkv, args};
    else
        launch_turn(cuda, qkv, args);
}

void cuda_kv_copy(struct backend *backend, const struct step *step, struct kv *kv)
{
    struct cuda_backend *cuda = cuda_of(backend);
    for (uint32_t i = 0; i < step->n_copies; i++)
        ASSERT(step->copies[i].from_block < kv->desc.n_blocks &&
               step->copies[i].to_block < kv->desc.n_blocks);
    struct kv_copy_args args = {
        .step = cuda->scratch.step, .blocks = kv->cache.blocks, .block_bytes = kv->block_bytes};
    CUDA_LAUNCH(cuda, kv_copy, div_up(kv->block_bytes, 16 * KV_COPY_THREADS), 1, KV_COPY_THREADS, args);
}
