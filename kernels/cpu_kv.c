/* Rotary tables and the paged KV of the CPU backend: creation, writes, copies. */
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "base/float16.h"
#include "kernels/cpu_backend.h"
#include "kernels/cpu_memory.h"

/* ---- Rotary tables ---- */

size_t cpu_rope_bytes(const struct backend *backend, size_t n_freq, size_t max_positions)
{
    (void)backend;
    size_t bytes;
    if (!checked_mul(n_freq, 2 * sizeof(float), &bytes) || !checked_mul(bytes, max_positions, &bytes) ||
        !checked_add(bytes, sizeof(struct rope), &bytes))
        return SIZE_MAX;
    return bytes;
}

struct rope_job {
    struct rope *rope;
    const float *inv_freq;
    float magnitude;
};

static void fill_rope(void *context, int thread_index, int n_threads)
{
    const struct rope_job *job = context;
    struct rope *rope = job->rope;
    size_t begin, end;
    thread_split(rope->max_positions, 1, thread_index, n_threads, &begin, &end);
    for (size_t position = begin; position < end; position++) {
        for (size_t i = 0; i < rope->n_freq; i++) {
            double angle = (double)((float)position * job->inv_freq[i]);
            rope->cosines[position * rope->n_freq + i] = (float)cos(angle) * job->magnitude;
            rope->sines[position * rope->n_freq + i] = (float)sin(angle) * job->magnitude;
        }
    }
}

err_t cpu_rope_create(struct backend *backend, const float *inv_freq, size_t n_freq, float magnitude,
                      size_t max_positions, struct rope **out)
{
    ASSERT(n_freq > 0 && max_positions > 0);
    *out = NULL;
    size_t bytes = cpu_rope_bytes(backend, n_freq, max_positions);
    struct rope *rope = mem_alloc(sizeof *rope);
    float *tables = rope == NULL || bytes == SIZE_MAX ? NULL : cpu_memory_alloc(bytes);
    if (tables == NULL) {
        mem_free(rope);
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for rotary tables of %zu positions", max_positions);
    }
    *rope = (struct rope){n_freq, max_positions, tables, tables + n_freq * max_positions};
    struct rope_job job = {rope, inv_freq, magnitude};
    cpu_run(cpu_of(backend), true, fill_rope, &job);
    *out = rope;
    return err_ok();
}

void cpu_rope_destroy(struct rope *rope)
{
    if (rope == NULL)
        return;
    cpu_memory_free(rope->cosines);
    mem_free(rope);
}

/* ---- KV ---- */

static size_t element_bytes(enum kv_dtype dtype)
{
    return dtype == KV_F32 ? sizeof(float) : dtype == KV_BF16 ? sizeof(uint16_t) : sizeof(uint8_t);
}

/* Bytes of one block; false past the address space. */
static bool block_bytes(const struct kv_desc *desc, size_t *out)
{
    return desc->head_dim <= HEAD_DIM_MAX &&
           checked_mul(desc->n_kv_heads,
                       kv_head_stride(desc->dtype, desc->head_dim) * element_bytes(desc->dtype), out);
}

size_t cpu_kv_bytes(const struct backend *backend, const struct kv_desc *desc)
{
    (void)backend;
    size_t bytes;
    if (!block_bytes(desc, &bytes) || !checked_mul(desc->n_blocks, bytes, &bytes) ||
        !checked_add(bytes, sizeof(struct kv), &bytes))
        return SIZE_MAX;
    return bytes;
}

err_t cpu_kv_create(struct backend *backend, const struct kv_desc *desc, struct kv **out)
{
    ASSERT(desc->block_tokens == KV_BLOCK_TOKENS && desc->group < STEP_KV_GROUPS_MAX);
    ASSERT(desc->n_blocks > 0 && desc->n_kv_heads > 0 && desc->head_dim > 0);
    *out = NULL;
    if (desc->dtype == KV_FP8)
        return err_new(ERR_INVALID_ARGUMENT,
                       "the CPU has no fp8 KV cache: --kv-cache-dtype fp8 needs --device cuda, int8 is "
                       "the CPU's");
    if (desc->head_dim > HEAD_DIM_MAX)
        return err_new(ERR_UNIMPLEMENTED, "head_dim %u exceeds the CPU backend's %d", desc->head_dim,
                       HEAD_DIM_MAX);
    size_t bytes = cpu_kv_bytes(backend, desc), one_block = 0;
    struct kv *kv = mem_alloc(sizeof *kv);
    uint8_t *blocks =
        kv == NULL || bytes == SIZE_MAX || !block_bytes(desc, &one_block) ? NULL : cpu_memory_alloc(bytes);
    if (blocks == NULL) {
        mem_free(kv);
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for %u KV blocks: %zu bytes", desc->n_blocks,
                       bytes);
    }
    cpu_place_shared(cpu_of(backend), blocks, bytes);
    *kv = (struct kv){*desc, one_block, blocks};
    *out = kv;
    return err_ok();
}

void cpu_kv_destroy(struct kv *kv)
{
    if (kv == NULL)
        return;
    cpu_memory_free(kv->blocks);
    mem_free(kv);
}

enum { BF16_INFINITY = 0x7f80, BF16_NAN = 0x7fc0 };

/* Writes one token's key and value of one head. */
static void write_head(const struct kernel_table *table, const struct kv *kv, uint32_t block, uint32_t head,
                       uint32_t slot, const float *k, const float *v)
{
    size_t d = kv->desc.head_dim, d_stride = round_up(d, LANES), lead = kv_head_lead(kv->desc.dtype);
    size_t begin = ((size_t)block * kv->desc.n_kv_heads + head) * kv_head_stride(kv->desc.dtype, d);
    size_t k0 = begin + lead + slot, v0 = begin + lead + d * KV_BLOCK_TOKENS + slot * d_stride;
    if (kv->desc.dtype == KV_INT8) {
        int8_t codes[HEAD_DIM_MAX], *base = (int8_t *)kv->blocks;
        uint16_t *scales = (uint16_t *)(kv->blocks + begin);
        scales[slot] = table->quantize_kv(k, d, codes);
        for (size_t i = 0; i < d; i++)
            base[k0 + i * KV_BLOCK_TOKENS] = codes[i];
        scales[KV_BLOCK_TOKENS + slot] = table->quantize_kv(v, d, codes);
        memcpy(base + v0, codes, d);
        return;
    }
    if (kv->desc.dtype == KV_F32) {
        float *base = (float *)kv->blocks;
        for (size_t i = 0; i < d; i++)
            base[k0 + i * KV_BLOCK_TOKENS] = k[i];
        memcpy(base + v0, v, d * sizeof(float));
        return;
    }
    uint16_t *base = (uint16_t *)kv->blocks;
    uint16_t greatest = 0; /* of V, without its sign */
    for (size_t i = 0; i < d; i++) {
        base[k0 + i * KV_BLOCK_TOKENS] = bf16_from_f32(k[i]);
        base[v0 + i] = bf16_from_f32(v[i]);
        uint16_t magnitude = base[v0 + i] & 0x7fff;
        greatest = magnitude > greatest ? magnitude : greatest;
    }
    if (table->arithmetic == ARITHMETIC_TILES && greatest >= BF16_INFINITY) {
        /* A tile multiplies it by 0 for who does not see it. Who does gets NaN by its score. */
        memset(base + v0, 0, d * sizeof *base);
        base[k0] = BF16_NAN;
    }
}

struct kv_write_job {
    struct cpu_backend *cpu;
    const struct step *step;
    struct act *qkv;
    const struct qkv_shape *shape;
    const struct vector *q_norm, *k_norm;
    float eps;
    const struct rope *rope;
    struct kv *kv;
};

/* Norm and rotation of n heads that stand one after the other. */
static void turn_heads(const struct kv_write_job *job, float *heads, size_t n, const struct vector *norm,
                       uint32_t position)
{
    const struct kernel_table *table = &job->cpu->table;
    size_t d = job->shape->head_dim, n_freq = job->rope->n_freq;
    for (size_t h = 0; h < n; h++) {
        float *head = heads + h * d;
        if (norm != NULL)
            table->norm_row(&(struct norm_args){
                .residual = head, .weight = norm->values, .n = d, .eps = job->eps, .out = head});
        table->rope_head(head, job->rope->cosines + position * n_freq, job->rope->sines + position * n_freq,
                         n_freq);
    }
}

static void rope_kv_write_rows(void *context, int thread_index, int n_threads)
{
    const struct kv_write_job *job = context;
    const struct step *step = job->step;
    const struct qkv_shape *shape = job->shape;
    size_t begin, end, d = shape->head_dim;
    thread_split(step->n_rows, 1, thread_index, n_threads, &begin, &end);
    for (size_t r = begin; r < end; r++) {
        const struct step_row *row = &step->rows[r];
        ASSERT(row->position < job->rope->max_positions && row->seq < step->n_seqs);
        ASSERT(row->position / KV_BLOCK_TOKENS < step->capacity.blocks_per_seq);
        uint32_t block =
            step_block_table(step, job->kv->desc.group, row->seq)[row->position / KV_BLOCK_TOKENS];
        ASSERT(block < job->kv->desc.n_blocks);
        float *q = act_row(job->qkv, r), *k = q + shape->n_heads * d, *v = k + shape->n_kv_heads * d;
        turn_heads(job, q, shape->n_heads, job->q_norm, row->position);
        turn_heads(job, k, shape->n_kv_heads, job->k_norm, row->position);
        for (uint32_t h = 0; h < shape->n_kv_heads; h++)
            write_head(&job->cpu->table, job->kv, block, h, row->position % KV_BLOCK_TOKENS, k + h * d,
                       v + h * d);
    }
}

void cpu_rope_kv_write(struct backend *backend, const struct step *step, struct act *qkv,
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
    struct cpu_backend *cpu = cpu_of(backend);
    struct kv_write_job job = {.cpu = cpu,
                               .step = step,
                               .qkv = qkv,
                               .shape = shape,
                               .q_norm = q_norm,
                               .k_norm = k_norm,
                               .eps = eps,
                               .rope = rope,
                               .kv = kv};
    qkv->n_quantized = 0;
    cpu_run(cpu, step->n_rows > 1 && step->n_rows * qkv->width >= CPU_PARALLEL_MIN_ELEMENTS,
            rope_kv_write_rows, &job);
    cpu->dispatches[KERNEL_rope_head]++;
    if (q_norm != NULL || k_norm != NULL)
        cpu->dispatches[KERNEL_norm_row]++;
    if (kv->desc.dtype == KV_INT8)
        cpu->dispatches[KERNEL_quantize_kv]++;
}

void cpu_kv_copy(struct backend *backend, const struct step *step, struct kv *kv)
{
    (void)backend;
    for (uint32_t i = 0; i < step->n_copies; i++) {
        const struct step_copy *copy = &step->copies[i];
        ASSERT(copy->from_block < kv->desc.n_blocks && copy->to_block < kv->desc.n_blocks);
        ASSERT(copy->from_block != copy->to_block);
        memcpy(kv->blocks + copy->to_block * kv->block_bytes, kv->blocks + copy->from_block * kv->block_bytes,
               kv->block_bytes);
    }
}
