/* CUDA attention against a softmax in f64: the simple kernels, and those on tensor cores through their work
 * lists. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/float16.h"
#include "kernels/cuda/cuda_attention_plan.h"
#include "tests/cuda/check_cuda.h"

enum { SEQS = 3, BLOCKS_PER_SEQ = 40, BLOCKS = SEQS * BLOCKS_PER_SEQ, KEYS_MAX = BLOCKS_PER_SEQ * 16 };
/* Cases that see several splits, all of each: pieces have more tiles than there are stages, and a block has
 * several pieces. The first one for the kernels by wgmma; in the second one the sequences of small items have
 * a row each, and their first splits in common. */
enum { LONG_CASE = 0, SHARED_CASE = 2, LONG_MIN = 2 * CUDA_KV_SPLIT_TOKENS + 20 };

struct attention_case {
    uint32_t n_heads, n_kv_heads, head_dim, element_bytes, qkv_width, qkv_stride, out_stride;
    float scale, soft_cap, k_scale, v_scale;
    uint32_t window;
    uint32_t n_context[SEQS];
    bool is_long;
    uint32_t table[BLOCKS], n_shared; /* blocks at the beginning of each that are those of sequence 0 */
    uint8_t *cache;
    size_t cache_bytes;
    float *values; /* of the cache, scaled: [SEQS][part][n_kv_heads][KEYS_MAX][head_dim] */
    float *qkv;
    struct step_row rows[CHECK_ROWS_MAX];
};

static uint8_t *element_at(const struct attention_case *e, uint32_t seq, uint32_t position, uint32_t kv_head,
                           enum cuda_kv_part part, uint32_t i)
{
    uint32_t block = e->table[seq * BLOCKS_PER_SEQ + position / 16];
    uint32_t tile_bytes = cuda_kv_tile_bytes(e->head_dim, e->element_bytes);
    uint32_t row_pieces = cuda_kv_row_pieces(e->head_dim, e->element_bytes);
    return e->cache + cuda_kv_tile_offset(e->n_kv_heads, tile_bytes, block, kv_head, part) +
           cuda_kv_element_offset(row_pieces, e->element_bytes, position % 16, i);
}

static float element_load(const struct attention_case *e, const uint8_t *at, float scale)
{
    float value;
    if (e->element_bytes == 1)
        return e4m3_to_f32(*at) * scale;
    values_load(e->element_bytes == 4 ? CHECK_F32 : CHECK_BF16, at, 1, &value);
    return value;
}

/* Random keys and values for the context of each sequence, NaN everywhere else. */
static void fill_cache(struct cuda_case *c, struct attention_case *e)
{
    e->cache_bytes = BLOCKS * cuda_kv_block_bytes(e->n_kv_heads, e->head_dim, e->element_bytes);
    e->cache = check_alloc(c, e->cache_bytes);
    memset(e->cache, 0xff, e->cache_bytes);
    for (uint32_t s = 0; s < SEQS; s++) {
        for (uint32_t t = 0; t < e->n_context[s]; t++) {
            for (uint32_t i = 0; i < 2 * e->n_kv_heads * e->head_dim; i++) {
                uint8_t *at =
                    element_at(e, s, t, i / e->head_dim % e->n_kv_heads,
                               i / e->head_dim < e->n_kv_heads ? CUDA_KV_K : CUDA_KV_V, i % e->head_dim);
                float value = rng_normal(&c->rng);
                if (e->element_bytes == 1)
                    *at = e4m3_from_f32(value);
                else
                    values_store(e->element_bytes == 4 ? CHECK_F32 : CHECK_BF16, &value, 1, at);
            }
        }
    }
}

/* The keys or values of a sequence's head, [KEYS_MAX][head_dim]. */
static float *head_values(const struct attention_case *e, uint32_t seq, enum cuda_kv_part part,
                          uint32_t kv_head)
{
    size_t head = ((size_t)seq * 2 + (part == CUDA_KV_V)) * e->n_kv_heads + kv_head;
    return e->values + head * KEYS_MAX * e->head_dim;
}

/* What the cache holds, read once: the reference goes through it for every head of every row. */
static void read_cache(struct cuda_case *c, struct attention_case *e)
{
    e->values = check_alloc(c, (size_t)SEQS * 2 * e->n_kv_heads * KEYS_MAX * e->head_dim * sizeof *e->values);
    for (uint32_t at = 0; at < SEQS * 2 * e->n_kv_heads; at++) {
        uint32_t seq = at / (2 * e->n_kv_heads), kv_head = at % e->n_kv_heads;
        enum cuda_kv_part part = at / e->n_kv_heads % 2 == 0 ? CUDA_KV_K : CUDA_KV_V;
        float *values = head_values(e, seq, part, kv_head),
              scale = part == CUDA_KV_K ? e->k_scale : e->v_scale;
        for (uint32_t t = 0; t < e->n_context[seq]; t++)
            for (uint32_t i = 0; i < e->head_dim; i++)
                values[(size_t)t * e->head_dim + i] =
                    element_load(e, element_at(e, seq, t, kv_head, part, i), scale);
    }
}

/* Blocks in any order, random caches, queries and scales for the shape that e holds. */
static void fill_case(struct cuda_case *c, struct attention_case *e)
{
    e->qkv_width = (e->n_heads + 2 * e->n_kv_heads) * e->head_dim;
    e->qkv_stride = e->qkv_width + 8 * rng_below(&c->rng, 2);
    e->out_stride = e->n_heads * e->head_dim + 8 * rng_below(&c->rng, 2);
    e->scale = 1.0f / sqrtf((float)e->head_dim);
    e->soft_cap = rng_below(&c->rng, 3) == 0 ? 5.0f : 0.0f;
    e->k_scale = rng_below(&c->rng, 2) ? 1.0f : 0.7f;
    e->v_scale = rng_below(&c->rng, 2) ? 1.0f : 1.7f;
    e->window = !e->is_long && rng_below(&c->rng, 3) == 0 ? rng_between(&c->rng, 1, 300) : 0;
    for (uint32_t i = 0; i < BLOCKS; i++) {
        uint32_t other = rng_below(&c->rng, i + 1);
        e->table[i] = e->table[other];
        e->table[other] = i;
    }
    for (uint32_t i = BLOCKS_PER_SEQ; i < BLOCKS; i++) {
        if (i % BLOCKS_PER_SEQ < e->n_shared)
            e->table[i] = e->table[i % BLOCKS_PER_SEQ];
    }
    fill_cache(c, e);
    read_cache(c, e);
    e->qkv = check_alloc(c, (size_t)c->n_rows * e->qkv_width * 4);
    for (size_t i = 0; i < (size_t)c->n_rows * e->qkv_width; i++)
        e->qkv[i] = 2 * rng_normal(&c->rng);
    values_round(c->type, e->qkv, (size_t)c->n_rows * e->qkv_width);
    c->row_values = e->n_heads * e->head_dim;
    snprintf(c->note, sizeof c->note, "%u/%u heads of %u, %u-byte KV, window %u, cap %g, contexts %u %u %u",
             e->n_heads, e->n_kv_heads, e->head_dim, e->element_bytes, e->window, (double)e->soft_cap,
             e->n_context[0], e->n_context[1], e->n_context[2]);
}

static void attention_make(struct cuda_case *c)
{
    struct attention_case *e = c->context = check_alloc(c, sizeof *e);
    static const uint32_t dims[] = {64, 32, 80, 24, 128, 256};
    bool big = c->n_rows <= 20;
    c->n_rows = c->n_rows > 70 ? 70 : c->n_rows;
    e->head_dim = dims[rng_below(&c->rng, big ? 6 : 2)];
    e->n_kv_heads = rng_between(&c->rng, 1, 2);
    e->n_heads = e->n_kv_heads * rng_between(&c->rng, 1, 3);
    e->element_bytes = 1u << rng_below(&c->rng, 3);
    for (uint32_t s = 0; s < SEQS; s++)
        e->n_context[s] = rng_between(&c->rng, 1, big && rng_below(&c->rng, 2) ? BLOCKS_PER_SEQ * 16 : 100);
    c->type = (enum check_type)c->variant;
    /* Of the greatest value: scores up to 30 have an error of some 2^-20, and so has each weight. */
    c->tolerance = 3e-5f;
    fill_case(c, e);
    for (uint32_t r = 0; r < c->n_rows; r++) {
        uint32_t s = rng_below(&c->rng, SEQS);
        e->rows[r].seq = s;
        e->rows[r].position =
            rng_below(&c->rng, 3) ? e->n_context[s] - 1 : rng_below(&c->rng, e->n_context[s]);
    }
}

/* One head of one row. */
static void attend(const struct attention_case *e, uint32_t row, uint32_t head, float *out, float *scale)
{
    const float *q = e->qkv + (size_t)row * e->qkv_width + (size_t)head * e->head_dim;
    uint32_t seq = e->rows[row].seq, last = e->rows[row].position,
             kv_head = head / (e->n_heads / e->n_kv_heads);
    uint32_t first = e->window > 0 && last >= e->window ? last - e->window + 1 : 0;
    const float *keys = head_values(e, seq, CUDA_KV_K, kv_head);
    const float *values = head_values(e, seq, CUDA_KV_V, kv_head);
    double scores[KEYS_MAX], max = -INFINITY, sum = 0, o[512] = {0};
    for (uint32_t t = first; t <= last; t++) {
        double score = 0;
        for (uint32_t i = 0; i < e->head_dim; i++)
            score += (double)q[i] * (double)keys[(size_t)t * e->head_dim + i];
        score *= (double)e->scale;
        if (e->soft_cap > 0)
            score = (double)e->soft_cap * tanh(score / (double)e->soft_cap);
        scores[t] = score;
        max = fmax(max, score);
    }
    for (uint32_t t = first; t <= last; t++) {
        double p = exp(scores[t] - max);
        sum += p;
        for (uint32_t i = 0; i < e->head_dim; i++) {
            float v = values[(size_t)t * e->head_dim + i];
            o[i] += p * (double)v;
            *scale = fmaxf(*scale, fabsf(v));
        }
    }
    for (uint32_t i = 0; i < e->head_dim; i++)
        out[i] = (float)(o[i] / sum);
}

static void attention_reference(const struct cuda_case *c, uint32_t row, void *out, float *scale)
{
    const struct attention_case *e = c->context;
    for (uint32_t h = 0; h < e->n_heads; h++)
        attend(e, row, h, (float *)out + h * e->head_dim, scale);
}

static void attention_run(struct cuda_case *c, uint32_t first, uint32_t n, void *out)
{
    struct attention_case *e = c->context;
    size_t element = check_type_bytes(c->type);
    struct step_seq seqs[SEQS] = {{0}};
    struct check_step step = {.rows = e->rows + first,
                              .seqs = seqs,
                              .n_rows = n,
                              .n_seqs = SEQS,
                              .block_table = e->table,
                              .blocks_per_seq = BLOCKS_PER_SEQ};
    struct attention_simple_args args = {
        .step = step_upload(&step, NULL),
        .qkv = device_upload_rows(c->type, e->qkv + (size_t)first * e->qkv_width, n, e->qkv_width,
                                  e->qkv_stride),
        .out = device_alloc(n * e->out_stride * element),
        .qkv_stride = e->qkv_stride,
        .out_stride = e->out_stride,
        .n_heads = e->n_heads,
        .n_kv_heads = e->n_kv_heads,
        .head_dim = e->head_dim,
        .scale = e->scale,
        .window = e->window,
        .soft_cap = e->soft_cap,
        .kv = {device_upload(e->cache, e->cache_bytes), BLOCKS, e->n_kv_heads, e->head_dim, 0,
               e->element_bytes, e->k_scale, e->v_scale},
    };
    LAUNCH(c, c->kernel, n + rng_below(&c->rng, 3), e->n_heads, ATTENTION_SIMPLE_THREADS, args);
    device_read_rows(args.out, n, c->row_values * element, e->out_stride * element, out);
}

const struct cuda_check check_attention_simple = {attention_make, attention_reference, attention_run};

/* ---- On tensor cores ---- */

static const struct attention_kernel *tile_kernel(enum cuda_kernel_id id)
{
    static const uint32_t dims[] = {64, 96, 128, 256};
    for (uint32_t i = 0; i < 4 * 2 * ATTENTION_SIZES; i++) {
        const struct attention_kernel *kernel =
            attention_kernel_find(dims[i / ATTENTION_SIZES / 2], 1 + i / ATTENTION_SIZES % 2,
                                  (enum attention_size)(i % ATTENTION_SIZES));
        if (kernel != NULL && kernel->id == id)
            return kernel;
    }
    return NULL;
}

static bool takes_small_items(const struct attention_kernel *kernel)
{
    return kernel->size <= ATTENTION_SMALL;
}

/* Stretches of rows at the ends of the sequences, long enough for the large kernel where it is the one meant.
 */
static void tile_make(struct cuda_case *c)
{
    struct attention_case *e = c->context = check_alloc(c, sizeof *e);
    const struct attention_kernel *kernel = tile_kernel(c->kernel);
    ASSERT(kernel != NULL);
    bool is_small = takes_small_items(kernel);
    e->is_long = c->index == SHARED_CASE || (c->index == LONG_CASE && kernel->size == ATTENTION_WGMMA);
    static const uint32_t ratios[] = {1, 3, 4, 8, 12};
    c->is_long = e->is_long;
    e->head_dim = kernel->head_dim;
    e->element_bytes = kernel->element_bytes;
    e->n_kv_heads = e->is_long ? 2 : rng_between(&c->rng, 1, 2);
    e->n_heads = e->n_kv_heads * (is_small ? ratios[rng_below(&c->rng, 5)] : 8);
    uint32_t most = kernel->size == ATTENTION_WGMMA ? 20 : 7; /* more than a block has */
    c->n_rows = c->n_rows > most ? most : c->n_rows;
    c->n_rows = is_small || c->n_rows > 4 ? c->n_rows : 4;
    bool is_shared = is_small && c->index == SHARED_CASE;
    c->n_rows = is_shared ? SEQS : c->n_rows;
    for (uint32_t s = 0; s < SEQS; s++)
        e->n_context[s] = rng_between(&c->rng, e->is_long ? LONG_MIN : c->n_rows,
                                      e->is_long || rng_below(&c->rng, 4) == 0 ? BLOCKS_PER_SEQ * 16 : 100);
    e->n_shared = is_shared ? CUDA_KV_SPLIT_BLOCKS * rng_between(&c->rng, 1, 2) : 0;
    c->type = CHECK_BF16;
    c->tolerance = 0x1p-8f; /* of the greatest value: probabilities are rounded to bf16 */
    fill_case(c, e);
    uint32_t ends[SEQS] = {c->n_rows, c->n_rows, c->n_rows}, next = 0;
    if (is_small) {
        ends[0] = is_shared ? 1 : rng_between(&c->rng, 0, c->n_rows);
        ends[1] = is_shared ? 2 : rng_between(&c->rng, ends[0], c->n_rows);
    }
    for (uint32_t s = 0; s < SEQS; s++) {
        for (uint32_t first = next; next < ends[s]; next++) {
            e->rows[next].seq = s;
            e->rows[next].position = e->n_context[s] - (ends[s] - first) + (next - first);
        }
    }
}

/* The step of some of the case's rows, as the planner and the device see it: sequences of it that have none
 * are left out. */
static struct step *tile_step(const struct attention_case *e, uint32_t first, uint32_t n)
{
    struct step_capacity capacity = {CHECK_ROWS_MAX, SEQS, 1, 1, BLOCKS_PER_SEQ, 1};
    struct step *step;
    err_t error = step_create(&capacity, &step);
    ASSERT(error.code == ERR_OK);
    for (uint32_t r = first; r < first + n; r++) {
        uint32_t s = e->rows[r].seq;
        if (r == first || e->rows[r - 1].seq != s) {
            step->seqs[step->n_seqs] = (struct step_seq){.first_row = step->n_rows};
            memcpy(step_block_table(step, 0, step->n_seqs++), e->table + s * BLOCKS_PER_SEQ,
                   BLOCKS_PER_SEQ * sizeof e->table[0]);
        }
        struct step_seq *seq = &step->seqs[step->n_seqs - 1];
        seq->n_rows++;
        seq->n_context = e->rows[r].position + 1;
        step->rows[step->n_rows++] =
            (struct step_row){.position = e->rows[r].position, .seq = step->n_seqs - 1};
    }
    return step;
}

static void tile_launch(struct cuda_case *c, const struct attention_case *e,
                        const struct attention_group *group, enum attention_size size,
                        const struct attention_tile_args *args)
{
    const struct attention_kernel *kernel = attention_kernel_find(e->head_dim, e->element_bytes, size);
    uint32_t n = (takes_small_items(kernel) ? group->n_small : group->n_large) * e->n_kv_heads;
    if (n == 0)
        return;
    device_launch(c, &(struct check_launch){
                         .kernel = kernel->id,
                         .grid = {1 + rng_below(&c->rng, e->is_long && n > 2 ? 2 : n)},
                         .threads = kernel->threads,
                         .shared_bytes = kernel->shared_bytes,
                         .args = args,
                         .args_bytes = sizeof *args,
                         .target = size == ATTENTION_LONG_STREAMS || size == ATTENTION_WGMMA ? 90 : 0});
}

/* Of a step's small items: those of a kernel by warps go to the other one now and then, which has the same
 * bits. */
static enum attention_size small_size(struct cuda_case *c)
{
    const struct attention_kernel *kernel = tile_kernel(c->kernel);
    return takes_small_items(kernel) && rng_below(&c->rng, 4) > 0 ? kernel->size : ATTENTION_SMALL;
}

/* Likewise of the large ones, where the kernel is one by wgmma. */
static enum attention_size large_size(struct cuda_case *c)
{
    bool by_wgmma = tile_kernel(c->kernel)->size == ATTENTION_WGMMA;
    return by_wgmma && rng_below(&c->rng, 4) > 0 ? ATTENTION_WGMMA : ATTENTION_LARGE;
}

static void tile_run(struct cuda_case *c, uint32_t first, uint32_t n, void *out)
{
    struct attention_case *e = c->context;
    struct step *step = tile_step(e, first, n);
    enum attention_size large = large_size(c);
    bool by_streams = tile_kernel(c->kernel)->size <= ATTENTION_LONG_STREAMS;
    struct attention_limits limits = {.heads_per_kv = e->n_heads / e->n_kv_heads,
                                      .n_kv_heads = e->n_kv_heads,
                                      .large_pairs =
                                          attention_kernel_find(e->head_dim, e->element_bytes, large)->pairs,
                                      .warps = by_streams ? 1 + rng_below(&c->rng, 20) : 0,
                                      .n_partials = (e->n_shared > 0 ? 1 : rng_below(&c->rng, 3)) * 20,
                                      .blocks_wanted = rng_below(&c->rng, 2) * 100,
                                      .shares_prefixes = true};
    struct attention_work *work = check_alloc(c, attention_work_bytes(&limits, &step->capacity));
    size_t work_bytes = attention_plan(&limits, step, work), n_arrivals = (size_t)n * e->n_kv_heads;
    uint32_t *arrivals = check_alloc(c, n_arrivals * sizeof *arrivals);
    struct attention_tile_args args = {
        .step = step_upload(&(struct check_step){.rows = step->rows,
                                                 .seqs = step->seqs,
                                                 .n_rows = step->n_rows,
                                                 .n_seqs = step->n_seqs,
                                                 .block_table = step->block_tables[0],
                                                 .blocks_per_seq = BLOCKS_PER_SEQ},
                            NULL),
        .work = device_upload(work, work_bytes),
        .qkv = device_upload_rows(c->type, e->qkv + (size_t)first * e->qkv_width, n, e->qkv_width,
                                  e->qkv_stride),
        .out = device_alloc((size_t)n * e->out_stride * 2),
        .qkv_stride = e->qkv_stride,
        .out_stride = e->out_stride,
        .n_heads = e->n_heads,
        .scale = e->scale,
        .window = e->window,
        .soft_cap = e->soft_cap,
        .kv = {device_upload(e->cache, e->cache_bytes), BLOCKS, e->n_kv_heads, e->head_dim, 0,
               e->element_bytes, e->k_scale, e->v_scale},
        .partial_o = device_alloc((size_t)limits.n_partials * e->n_heads * e->head_dim * 4),
        .partial_ml = device_alloc((size_t)limits.n_partials * e->n_heads * 8),
        .arrivals = device_upload(arrivals, n_arrivals * sizeof *arrivals),
    };
    bool small_first = rng_below(&c->rng, 2); /* either merges what the other one has kept */
    if (small_first)
        tile_launch(c, e, &work->groups[0], small_size(c), &args);
    tile_launch(c, e, &work->groups[0], large, &args);
    if (!small_first)
        tile_launch(c, e, &work->groups[0], small_size(c), &args);
    device_read_rows(args.out, n, c->row_values * 2, e->out_stride * 2, out);
    device_read(arrivals, args.arrivals, n_arrivals * sizeof *arrivals);
    for (size_t i = 0; i < n_arrivals; i++) {
        if (arrivals[i] != 0)
            check_fail(c, "a count of arrivals is not back at zero");
    }
    step_destroy(step);
}

const struct cuda_check check_attention_tile = {tile_make, attention_reference, tile_run};
