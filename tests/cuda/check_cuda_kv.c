/* CUDA kernels that write the KV cache, bit for bit against the references in kernels/ref. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/float16.h"
#include "kernels/kernel_table.h"
#include "tests/cuda/check_cuda.h"

enum { SEQS = 3, BLOCKS_PER_SEQ = 8, BLOCKS = SEQS * BLOCKS_PER_SEQ, POSITIONS = BLOCKS_PER_SEQ * 16 };

static uint32_t draw_element_bytes(struct cuda_case *c)
{
    return 1u << rng_below(&c->rng, 3);
}

/* ---- rope_kv_write ---- */

struct write_case {
    uint32_t n_heads, n_kv_heads, head_dim, n_freq, qkv_width, stride, element_bytes;
    float *qkv, *q_norm, *k_norm, *cosines, *sines; /* norms: or NULL */
    float eps, k_scale, v_scale;
    struct step_row rows[CHECK_ROWS_MAX];
    uint32_t table[BLOCKS];
};

static float *draw_norm(struct cuda_case *c, uint32_t n)
{
    float *norm = check_alloc(c, n * 4);
    fill_normal(&c->rng, norm, n);
    return rng_below(&c->rng, 2) ? norm : NULL;
}

static void draw_table(struct cuda_case *c, uint32_t table[BLOCKS])
{
    for (uint32_t i = 0; i < BLOCKS; i++) {
        uint32_t other = rng_below(&c->rng, i + 1);
        table[i] = table[other];
        table[other] = i;
    }
}

static void write_make(struct cuda_case *c)
{
    struct write_case *e = c->context = check_alloc(c, sizeof *e);
    static const uint32_t dims[] = {64, 128, 96, 80, 256, 24, 512};
    uint32_t d = e->head_dim = dims[rng_below(&c->rng, c->n_rows > 20 ? 4 : 7)];
    e->n_kv_heads = rng_between(&c->rng, 1, 3);
    e->n_heads = e->n_kv_heads * rng_between(&c->rng, 1, 3);
    e->n_freq = rng_below(&c->rng, 3) == 0 ? rng_between(&c->rng, 1, d / 2) : d / 2;
    e->element_bytes = draw_element_bytes(c);
    e->qkv_width = (e->n_heads + 2 * e->n_kv_heads) * d;
    e->stride = e->qkv_width + 16 * rng_below(&c->rng, 2);
    e->qkv = check_alloc(c, (size_t)c->n_rows * e->qkv_width * 4);
    fill_normal(&c->rng, e->qkv, (size_t)c->n_rows * e->qkv_width);
    values_round((enum check_type)c->variant, e->qkv, (size_t)c->n_rows * e->qkv_width);
    if (rng_below(&c->rng, 2)) {
        e->q_norm = draw_norm(c, d);
        e->k_norm = draw_norm(c, d);
    }
    e->eps = 1e-6f;
    e->k_scale = rng_below(&c->rng, 2) ? 1.0f : 0.37f;
    e->v_scale = rng_below(&c->rng, 2) ? 1.0f : 2.9f;
    e->cosines = check_alloc(c, (size_t)POSITIONS * e->n_freq * 4);
    e->sines = check_alloc(c, (size_t)POSITIONS * e->n_freq * 4);
    for (size_t i = 0; i < (size_t)POSITIONS * e->n_freq; i++) {
        float angle = 6.3f * rng_uniform(&c->rng);
        e->cosines[i] = cosf(angle);
        e->sines[i] = sinf(angle);
    }
    uint32_t next[SEQS]; /* positions of a sequence ascend, from anywhere */
    for (uint32_t s = 0; s < SEQS; s++)
        next[s] = rng_below(&c->rng, POSITIONS - CHECK_ROWS_MAX + 1);
    for (uint32_t r = 0; r < c->n_rows; r++) {
        e->rows[r].seq = rng_below(&c->rng, SEQS);
        e->rows[r].position = next[e->rows[r].seq]++;
    }
    draw_table(c, e->table);
    c->type = CHECK_BYTES;
    size_t q_bytes = e->n_heads * d * check_type_bytes((enum check_type)c->variant);
    c->row_values = (uint32_t)q_bytes + 2 * e->n_kv_heads * d * e->element_bytes;
    snprintf(c->note, sizeof c->note, "%u+2*%u heads of %u, %u turned, %u-byte KV", e->n_heads, e->n_kv_heads,
             d, 2 * e->n_freq, e->element_bytes);
}

static void store_element(uint32_t element_bytes, float value, float scale, uint8_t *out)
{
    if (element_bytes == 4)
        memcpy(out, &value, 4);
    else if (element_bytes == 2)
        memcpy(out, &(uint16_t){bf16_from_f32(value)}, 2);
    else
        *out = e4m3_from_f32(value / scale);
}

static void write_reference(const struct cuda_case *c, uint32_t row, void *out, float *scale)
{
    const struct write_case *e = c->context;
    (void)scale;
    enum check_type type = (enum check_type)c->variant;
    uint32_t d = e->head_dim, position = e->rows[row].position;
    uint8_t *at = out;
    for (uint32_t h = 0; h < e->n_heads + 2 * e->n_kv_heads; h++) {
        float head[HEAD_DIM_MAX];
        memcpy(head, e->qkv + (size_t)row * e->qkv_width + (size_t)h * d, d * 4);
        bool is_q = h < e->n_heads, is_v = h >= e->n_heads + e->n_kv_heads;
        const float *norm = is_q ? e->q_norm : is_v ? NULL : e->k_norm;
        if (norm != NULL)
            norm_row_ref(
                &(struct norm_args){.residual = head, .weight = norm, .n = d, .eps = e->eps, .out = head});
        if (!is_v)
            rope_head_ref(head, e->cosines + (size_t)position * e->n_freq,
                          e->sines + (size_t)position * e->n_freq, e->n_freq);
        if (is_q) {
            values_store(type, head, d, at);
            at += d * check_type_bytes(type);
            continue;
        }
        for (uint32_t i = 0; i < d; i++, at += e->element_bytes)
            store_element(e->element_bytes, head[i], is_v ? e->v_scale : e->k_scale, at);
    }
}

/* The row's keys and values out of a copy of the cache, in whose place noise is left. */
static uint8_t *take_row(const struct write_case *e, const struct step_row *row, uint8_t *cache, uint8_t *out)
{
    uint32_t block = e->table[row->seq * BLOCKS_PER_SEQ + row->position / 16];
    uint32_t tile_bytes = cuda_kv_tile_bytes(e->head_dim, e->element_bytes);
    uint32_t row_pieces = cuda_kv_row_pieces(e->head_dim, e->element_bytes);
    for (int part = CUDA_KV_K; part <= CUDA_KV_V; part++) {
        for (uint32_t h = 0; h < e->n_kv_heads; h++) {
            uint8_t *tile =
                cache + cuda_kv_tile_offset(e->n_kv_heads, tile_bytes, block, h, (enum cuda_kv_part)part);
            for (uint32_t i = 0; i < e->head_dim; i++, out += e->element_bytes) {
                uint8_t *at =
                    tile + cuda_kv_element_offset(row_pieces, e->element_bytes, row->position % 16, i);
                memcpy(out, at, e->element_bytes);
                memset(at, DEVICE_NOISE, e->element_bytes);
            }
        }
    }
    return out;
}

static void write_run(struct cuda_case *c, uint32_t first, uint32_t n, void *out)
{
    struct write_case *e = c->context;
    enum check_type type = (enum check_type)c->variant;
    size_t cache_bytes = BLOCKS * cuda_kv_block_bytes(e->n_kv_heads, e->head_dim, e->element_bytes);
    struct step_seq seqs[SEQS] = {{0}};
    struct check_step step = {.rows = e->rows + first,
                              .seqs = seqs,
                              .n_rows = n,
                              .n_seqs = SEQS,
                              .block_table = e->table,
                              .blocks_per_seq = BLOCKS_PER_SEQ};
    size_t table_bytes = (size_t)POSITIONS * e->n_freq * 4;
    struct rope_kv_write_args args = {
        .step = step_upload(&step, NULL),
        .qkv = device_upload_rows(type, e->qkv + (size_t)first * e->qkv_width, n, e->qkv_width, e->stride),
        .qkv_stride = e->stride,
        .n_heads = e->n_heads,
        .n_kv_heads = e->n_kv_heads,
        .head_dim = e->head_dim,
        .q_norm = e->q_norm == NULL ? NULL : device_upload(e->q_norm, e->head_dim * 4),
        .k_norm = e->k_norm == NULL ? NULL : device_upload(e->k_norm, e->head_dim * 4),
        .eps = e->eps,
        .cosines = device_upload(e->cosines, table_bytes),
        .sines = device_upload(e->sines, table_bytes),
        .n_freq = e->n_freq,
        .kv = {device_alloc(cache_bytes), BLOCKS, e->n_kv_heads, e->head_dim, 0, e->element_bytes, e->k_scale,
               e->v_scale},
    };
    LAUNCH(c, c->kernel, n + rng_below(&c->rng, 3), rope_blocks(&args), ROPE_THREADS, args);
    uint8_t *cache = check_alloc(c, cache_bytes), *at = out;
    device_read(cache, args.kv.blocks, cache_bytes);
    size_t q_bytes = e->n_heads * e->head_dim * check_type_bytes(type);
    for (uint32_t r = 0; r < n; r++) {
        device_read(at, (const uint8_t *)args.qkv + r * e->stride * check_type_bytes(type), q_bytes);
        at = take_row(e, &e->rows[first + r], cache, at + q_bytes);
    }
    for (size_t i = 0; i < cache_bytes; i++) {
        if (cache[i] != DEVICE_NOISE)
            check_fail(c, "byte %zu of the cache belongs to no row and was written", i);
    }
}

const struct cuda_check check_rope_kv_write = {write_make, write_reference, write_run};

/* ---- kv_copy: a row of the check is a block, after the copies in order ---- */

enum { COPY_BLOCKS = 12, COPIES_MAX = 6 };

struct copy_case {
    size_t block_bytes;
    uint8_t *before, *after; /* [COPY_BLOCKS][block_bytes] */
    struct step_copy copies[COPIES_MAX];
    uint32_t n_copies;
};

static void copy_make(struct cuda_case *c)
{
    struct copy_case *e = c->context = check_alloc(c, sizeof *e);
    uint32_t d = 8 * rng_between(&c->rng, 1, 20);
    e->block_bytes = cuda_kv_block_bytes(rng_between(&c->rng, 1, 4), d, draw_element_bytes(c));
    e->before = check_alloc(c, COPY_BLOCKS * e->block_bytes);
    e->after = check_alloc(c, COPY_BLOCKS * e->block_bytes);
    for (size_t i = 0; i < COPY_BLOCKS * e->block_bytes; i++)
        e->after[i] = e->before[i] = (uint8_t)rng_u32(&c->rng);
    e->n_copies = rng_below(&c->rng, COPIES_MAX + 1);
    for (uint32_t i = 0; i < e->n_copies; i++) {
        uint32_t from = rng_below(&c->rng, COPY_BLOCKS), to = rng_below(&c->rng, COPY_BLOCKS - 1);
        to += to >= from;
        e->copies[i] = (struct step_copy){from, to};
        memcpy(e->after + to * e->block_bytes, e->after + from * e->block_bytes, e->block_bytes);
    }
    c->n_rows = COPY_BLOCKS;
    c->type = CHECK_BYTES;
    c->row_values = (uint32_t)e->block_bytes;
    snprintf(c->note, sizeof c->note, "%u copies of %zu bytes", e->n_copies, e->block_bytes);
}

static void copy_reference(const struct cuda_case *c, uint32_t row, void *out, float *scale)
{
    const struct copy_case *e = c->context;
    (void)scale;
    memcpy(out, e->after + row * e->block_bytes, e->block_bytes);
}

static void copy_run(struct cuda_case *c, uint32_t first, uint32_t n, void *out)
{
    struct copy_case *e = c->context;
    struct check_step step = {.copies = e->copies, .n_copies = e->n_copies};
    struct kv_copy_args args = {step_upload(&step, NULL),
                                device_upload(e->before, COPY_BLOCKS * e->block_bytes), e->block_bytes};
    device_is_late(args.blocks);
    LAUNCH(c, c->kernel, (uint32_t)div_up(e->block_bytes, 16 * KV_COPY_THREADS), 1, KV_COPY_THREADS, args);
    device_read(out, (const uint8_t *)args.blocks + first * e->block_bytes, n * e->block_bytes);
}

const struct cuda_check check_kv_copy = {copy_make, copy_reference, copy_run};
