/* The bench of attention and of KV: ops as the engine calls them, each call on blocks that the last ones did
 * not touch. */
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "tests/kernels/bench.h"
#include "tests/kernels/bench_expand.h"

enum { BENCH_CONTEXT_MAX = 4096, BENCH_PREFILL_ROWS = 512 };

/* Sequences of one length, each with n_rows new tokens at its end. */
struct attention_shape {
    struct qkv_shape qkv;
    enum kv_dtype dtype;
    uint32_t n_seqs, n_rows, n_context;
    uint32_t n_shared; /* tokens with which all begin, whole blocks */
};

struct attention_bench {
    struct bench *bench;
    struct attention_shape shape;
    struct step *step;
    struct act *qkv, *out;
    struct act **qkvs; /* [n_qkvs] that KV is written from in turn; qkv is the first */
    size_t n_qkvs;
    struct rope *rope;
    struct kv *kv;
    struct attention_params params;
    uint32_t set_blocks, n_sets, next; /* a call takes the set_blocks of one set */
};

static const char *dtype_name(enum kv_dtype dtype)
{
    return dtype == KV_F32 ? "f32" : dtype == KV_BF16 ? "bf16" : "int8";
}

/* The blocks of the next set: those that are shared first, then each sequence's, dealt out in turn. */
static void take_next_set(struct attention_bench *b)
{
    const struct attention_shape *shape = &b->shape;
    uint32_t begin = b->next++ % b->n_sets * b->set_blocks, n_shared = shape->n_shared / KV_BLOCK_TOKENS;
    uint32_t blocks = shape->n_context / KV_BLOCK_TOKENS;
    for (uint32_t s = 0; s < shape->n_seqs; s++) {
        for (uint32_t i = 0; i < blocks; i++)
            step_block_table(b->step, 0, s)[i] =
                begin + (i < n_shared ? i : n_shared + (i - n_shared) * shape->n_seqs + s);
    }
}

static void run_attention(void *context)
{
    struct attention_bench *b = context;
    take_next_set(b);
    b->bench->ops->forward_begin(b->bench->backend, b->step);
    b->bench->ops->attention(b->bench->backend, b->step, b->qkv, &b->params, b->kv, b->out);
    b->bench->ops->forward_end(b->bench->backend, b->step);
}

static void run_kv_write(void *context)
{
    struct attention_bench *b = context;
    struct act *qkv = b->qkvs[b->next % b->n_qkvs];
    take_next_set(b);
    b->bench->ops->rope_kv_write(b->bench->backend, b->step, qkv, &b->shape.qkv, NULL, NULL, 1e-5f, b->rope,
                                 ROPE_HALVES, b->kv);
}

static void run_kv_copy(void *context)
{
    struct attention_bench *b = context;
    uint32_t half = b->kv->desc.n_blocks / 2, n = b->step->capacity.copies;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t block = b->next++ % half;
        b->step->copies[i] = (struct step_copy){block, half + block};
    }
    b->step->n_copies = n;
    b->bench->ops->kv_copy(b->bench->backend, b->step, b->kv);
}

static void fill_step(struct attention_bench *b)
{
    const struct attention_shape *shape = &b->shape;
    uint32_t n_rows = shape->n_rows;
    for (uint32_t s = 0; s < shape->n_seqs; s++) {
        b->step->seqs[s] =
            (struct step_seq){s * n_rows, n_rows, shape->n_context, STEP_NO_SLOT, STEP_NO_SLOT};
        for (uint32_t r = 0; r < n_rows; r++) {
            b->step->rows[b->step->n_rows++] =
                (struct step_row){.position = shape->n_context - n_rows + r, .seq = s};
            bench_noise(s * n_rows + r, b->qkv->width, act_row(b->qkv, s * n_rows + r));
        }
    }
    b->step->n_seqs = shape->n_seqs;
}

static void create(struct attention_bench *b, struct bench *bench, const struct attention_shape *shape)
{
    const struct backend_vtable *ops = bench->ops;
    const struct qkv_shape *qkv = &shape->qkv;
    uint32_t blocks = shape->n_context / KV_BLOCK_TOKENS, n_shared = shape->n_shared / KV_BLOCK_TOKENS;
    uint32_t rows = shape->n_seqs * shape->n_rows;
    *b =
        (struct attention_bench){.bench = bench, .shape = *shape, .params = {.shape = *qkv, .scale = 0.088f}};
    struct step_capacity capacity = {rows, shape->n_seqs, 1, 64, blocks, 1};
    struct kv_desc desc = {shape->dtype, 1, KV_BLOCK_TOKENS, qkv->n_kv_heads, qkv->head_dim, 0};
    b->set_blocks = n_shared + shape->n_seqs * (blocks - n_shared);
    b->n_sets = (uint32_t)(bench->bytes / (ops->kv_bytes(bench->backend, &desc) * b->set_blocks)) + 2;
    desc.n_blocks = b->n_sets * b->set_blocks;
    err_t e = step_create(&capacity, &b->step);
    if (e.code == ERR_OK)
        e = ops->act_create(bench->backend, ACT_HIDDEN, rows,
                            (size_t)(qkv->n_heads + 2 * qkv->n_kv_heads) * qkv->head_dim, &b->qkv);
    if (e.code == ERR_OK)
        e = ops->act_create(bench->backend, ACT_HIDDEN, rows, (size_t)qkv->n_heads * qkv->head_dim, &b->out);
    if (e.code == ERR_OK)
        e = ops->kv_create(bench->backend, &desc, &b->kv);
    float inv_freq[HEAD_DIM_MAX / 2];
    for (uint32_t i = 0; i < qkv->head_dim / 2; i++)
        inv_freq[i] = 1.0f / (float)(i + 1);
    if (e.code == ERR_OK)
        e = ops->rope_create(bench->backend, inv_freq, qkv->head_dim / 2, 1, shape->n_context, &b->rope);
    ASSERT(e.code == ERR_OK);
    memset(b->kv->blocks, 0x3d, b->kv->block_bytes * desc.n_blocks); /* small positive numbers */
    fill_step(b);
}

static void destroy(struct attention_bench *b)
{
    const struct backend_vtable *ops = b->bench->ops;
    ops->act_destroy(b->qkv);
    ops->act_destroy(b->out);
    ops->rope_destroy(b->rope);
    ops->kv_destroy(b->kv);
    step_destroy(b->step);
    for (size_t i = 1; i < b->n_qkvs; i++)
        ops->act_destroy(b->qkvs[i]);
    mem_free(b->qkvs);
}

/* Of the kernel that the backend takes. A row's name ends with the KV heads and their width. */
static void measure_attention(struct bench *bench, struct attention_shape shape)
{
    const bool tiles = cpu_of(bench->backend)->table.arithmetic == ARITHMETIC_TILES && shape.dtype != KV_F32;
    char name[96], shared[32] = "", kernel[32];
    shape.n_context = bench_size(bench, shape.n_context, 64);
    shape.n_shared = bench_size(bench, shape.n_shared, shape.n_shared > 0 ? 48 : 0);
    shape.n_rows = shape.n_rows > 1 ? bench_size(bench, shape.n_rows, 8) : 1;
    if (shape.n_shared > 0)
        snprintf(shared, sizeof shared, ", %u shared", shape.n_shared);
    snprintf(kernel, sizeof kernel, "attention_%s%s", tiles ? "tile_" : "", dtype_name(shape.dtype));
    snprintf(name, sizeof name, "%s %u x %u rows, %u tokens%s, %u of %u%s", kernel, shape.n_seqs,
             shape.n_rows, shape.n_context, shared, shape.qkv.n_kv_heads, shape.qkv.head_dim,
             bench->lacks_products ? ", to tiles" : "");
    if (!check_selected(bench->options, name))
        return;
    struct attention_bench b;
    create(&b, bench, &shape);
    double keys = 0;
    for (uint32_t r = 0; r < shape.n_rows; r++)
        keys += (double)(shape.n_seqs * (shape.n_context - shape.n_rows + r + 1));
    bench_measure(bench, name, run_attention, &b,
                  (struct bench_cost){.read_bytes = (double)b.kv->block_bytes * b.set_blocks,
                                      .ops = 4.0 * keys * (double)b.out->width,
                                      .peak_gop_s = bench->lacks_products ? 0
                                                    : tiles               ? bench->ceilings.tile_bf16_gflop_s
                                                                          : bench->ceilings.f32_gflop_s});
    bench_covers(bench, kernel);
    destroy(&b);
}

static void create_qkvs(struct attention_bench *b)
{
    size_t n_rows = b->step->n_rows, bytes = n_rows * b->qkv->width * sizeof(float);
    b->n_qkvs = b->bench->bytes / bytes + 1;
    b->qkvs = mem_alloc_array(b->n_qkvs, sizeof b->qkvs[0]);
    ASSERT(b->qkvs != NULL);
    b->qkvs[0] = b->qkv;
    for (size_t i = 1; i < b->n_qkvs; i++) {
        err_t e =
            b->bench->ops->act_create(b->bench->backend, ACT_HIDDEN, n_rows, b->qkv->width, &b->qkvs[i]);
        ASSERT(e.code == ERR_OK);
        for (size_t r = 0; r < n_rows; r++)
            memcpy(act_row(b->qkvs[i], r), act_row(b->qkv, r), b->qkv->width * sizeof(float));
    }
}

/* Rotation of q and k, in place, and K and V of a prompt into its blocks. */
static void measure_kv(struct bench *bench, struct qkv_shape qkv, enum kv_dtype dtype)
{
    char name[96];
    uint32_t n_rows = bench_size(bench, BENCH_PREFILL_ROWS, KV_BLOCK_TOKENS);
    struct attention_shape shape = {
        .qkv = qkv, .dtype = dtype, .n_seqs = 1, .n_rows = n_rows, .n_context = n_rows};
    snprintf(name, sizeof name, "rope_kv_write_%s %u rows", dtype_name(dtype), n_rows);
    struct attention_bench b;
    create(&b, bench, &shape);
    size_t turned = (size_t)(qkv.n_heads + qkv.n_kv_heads) * qkv.head_dim;
    double kv_bytes = (double)b.kv->block_bytes * b.set_blocks;
    if (check_selected(bench->options, name)) {
        create_qkvs(&b);
        bench_measure(
            bench, name, run_kv_write, &b,
            (struct bench_cost){.read_bytes = (double)(n_rows * b.qkv->width * sizeof(float)),
                                .written_bytes = (double)(n_rows * turned * sizeof(float)) + kv_bytes,
                                .ops = (double)(n_rows * turned) * 3,
                                .peak_gop_s = bench->ceilings.f32_gflop_s});
    }
    snprintf(name, sizeof name, "kv_copy_%s %u blocks", dtype_name(dtype), b.step->capacity.copies);
    double copied = (double)b.kv->block_bytes * b.step->capacity.copies;
    if (check_selected(bench->options, name))
        bench_measure(bench, name, run_kv_copy, &b,
                      (struct bench_cost){.read_bytes = copied, .written_bytes = copied});
    destroy(&b);
}

/* For the partial results of attention. */
static void reserve(const struct bench *bench, struct qkv_shape qkv)
{
    struct backend_needs needs = {.step.blocks_per_seq = BENCH_CONTEXT_MAX / KV_BLOCK_TOKENS, .qkv = qkv};
    err_t e = bench->ops->reserve(bench->backend, &needs, 0);
    ASSERT(e.code == ERR_OK);
}

static void measure_head(struct bench *bench, struct qkv_shape qkv, enum kv_dtype dtype)
{
    measure_attention(bench, (struct attention_shape){qkv, dtype, 1, 1, 4096, 0});
    measure_attention(bench, (struct attention_shape){qkv, dtype, 1, BENCH_PREFILL_ROWS, 512, 0});
    measure_attention(bench, (struct attention_shape){qkv, dtype, 1, BENCH_PREFILL_ROWS, 2048, 0});
}

/* All but the products of attention by tiles, on machines without. */
static void measure_to_tiles(const struct bench *bench, struct qkv_shape qkv)
{
    struct bench own = *bench;
    err_t e =
        cpu_backend_create(cpu_of(bench->backend)->n_threads, bench->isa, ARITHMETIC_TILES, &own.backend);
    ASSERT(e.code == ERR_OK);
    reserve(&own, qkv);
    own.lacks_products = true;
    expand_attention(&cpu_of(own.backend)->table);
    measure_head(&own, qkv, KV_BF16);
    measure_head(&own, qkv, KV_INT8);
    own.ops->destroy(own.backend);
}

void bench_attention(struct bench *bench)
{
    const struct qkv_shape many_heads = {32, 8, 128}, narrow_heads = {32, 8, 64}, /* 8B, 1B */
        one_head = {4, 1, 256};                                                   /* Gemma 3 270M */
    static const enum kv_dtype dtypes[] = {KV_BF16, KV_INT8, KV_F32};
    reserve(bench, one_head);
    bench_measure_ceilings(bench);
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        measure_attention(bench, (struct attention_shape){many_heads, dtypes[i], 1, 1, 4096, 0});
        measure_attention(bench, (struct attention_shape){many_heads, dtypes[i], 8, 1, 1024, 0});
        measure_attention(bench, (struct attention_shape){many_heads, dtypes[i], 8, 1, 1024, 896});
        measure_attention(bench,
                          (struct attention_shape){many_heads, dtypes[i], 1, BENCH_PREFILL_ROWS, 1024, 0});
    }
    measure_head(bench, narrow_heads, KV_BF16);
    measure_head(bench, narrow_heads, KV_INT8);
    if (bench->isa >= ISA_AVX512VNNI && expand_is_available())
        measure_to_tiles(bench, narrow_heads);
    measure_attention(bench, (struct attention_shape){one_head, KV_BF16, 1, 1, 128, 0});
    measure_attention(bench, (struct attention_shape){one_head, KV_BF16, 1, 1, 512, 0});
    measure_attention(bench, (struct attention_shape){one_head, KV_BF16, 1, 1, 4096, 0});
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++)
        measure_kv(bench, many_heads, dtypes[i]);
}
