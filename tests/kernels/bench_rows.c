/* The bench of what treats each row by itself: ops over a batch of rows, and kernels on pieces of their own.
 */
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "kernels/cpu_memory.h"
#include "tests/kernels/bench.h"

enum {
    BENCH_ROWS = 512,
    BENCH_WIDTH = 4096, /* of an 8B model: hidden and feed-forward */
    BENCH_FEED = 14336,
    BENCH_HEAD = 128,
    BENCH_TABLE_TOKENS = 32768,
    BENCH_MERGED_CHUNKS = 16,
    BENCH_CALL_BYTES = 8 << 20, /* that a call takes of the pieces: what starts the threads does not show */
};

/* ---- Ops: a call takes the next set of activations ---- */

enum { BENCH_ACTS = 3 };
struct rows_bench {
    struct bench *bench;
    struct step *step;
    struct act **acts[BENCH_ACTS]; /* each [n_sets] */
    size_t n_sets, next;
    struct vector *norm;
    struct weight *table;
    enum activation_kind activation;
};

static void run_norm(void *context)
{
    struct rows_bench *b = context;
    size_t i = b->next++ % b->n_sets;
    b->bench->ops->add_norm(b->bench->backend, b->step, STEP_ROWS_ALL, b->acts[0][i], b->acts[1][i], NULL,
                            b->norm, 1e-5f, b->acts[2][i]);
}

static void run_activation(void *context)
{
    struct rows_bench *b = context;
    size_t i = b->next++ % b->n_sets;
    b->bench->ops->activation_mul(b->bench->backend, b->step, STEP_ROWS_ALL, b->acts[0][i], b->activation,
                                  b->acts[1][i]);
}

static void run_gather(void *context)
{
    struct rows_bench *b = context;
    size_t i = b->next++ % b->n_sets;
    b->bench->ops->gather_outputs(b->bench->backend, b->step, 0, b->step->n_outputs, b->acts[0][i],
                                  b->acts[1][i]);
}

static void run_embed(void *context)
{
    struct rows_bench *b = context;
    size_t i = b->next++ % b->n_sets;
    for (uint32_t r = 0; r < b->step->n_rows; r++) /* 40,503: odd, so that all tokens have their turn */
        b->step->rows[r].token = (uint32_t)((b->next * b->step->n_rows + r) * 40503 % b->table->n_out);
    b->bench->ops->embed(b->bench->backend, b->step, NULL, b->table, 0, 1, b->acts[0][i]);
}

/* Acts of these widths (0 = none), as many of each as make up the bytes of a row. */
static void create_acts(struct rows_bench *b, const size_t widths[BENCH_ACTS])
{
    size_t n_rows = b->step->capacity.rows, bytes = 0;
    for (size_t a = 0; a < BENCH_ACTS; a++)
        bytes += n_rows * widths[a] * sizeof(float);
    b->n_sets = b->bench->bytes / bytes + 1;
    for (size_t a = 0; a < BENCH_ACTS && widths[a] > 0; a++) {
        b->acts[a] = mem_alloc_array(b->n_sets, sizeof b->acts[a][0]);
        ASSERT(b->acts[a] != NULL);
        for (size_t i = 0; i < b->n_sets; i++) {
            err_t e =
                b->bench->ops->act_create(b->bench->backend, ACT_HIDDEN, n_rows, widths[a], &b->acts[a][i]);
            ASSERT(e.code == ERR_OK);
            for (size_t r = 0; r < n_rows; r++) {
                if (i == 0)
                    bench_noise((uint32_t)r, widths[a], act_row(b->acts[a][0], r));
                else
                    memcpy(act_row(b->acts[a][i], r), act_row(b->acts[a][0], r), widths[a] * sizeof(float));
            }
        }
    }
}

static void destroy_acts(struct rows_bench *b)
{
    for (size_t a = 0; a < BENCH_ACTS; a++) {
        for (size_t i = 0; b->acts[a] != NULL && i < b->n_sets; i++)
            b->bench->ops->act_destroy(b->acts[a][i]);
        mem_free(b->acts[a]);
        b->acts[a] = NULL;
    }
}

/* op: the name of the row; values_read and _written of a row, in f32. */
static void measure_rows(struct rows_bench *b, const char *op, bench_fn *fn, const size_t widths[BENCH_ACTS],
                         size_t n_rows, size_t values_read, size_t values_written, double ops)
{
    char name[96];
    snprintf(name, sizeof name, "%s %zu rows of %zu", op, n_rows, widths[1] > 0 ? widths[1] : widths[0]);
    if (!check_selected(b->bench->options, name))
        return;
    create_acts(b, widths);
    double bytes = (double)(n_rows * sizeof(float));
    bench_measure(b->bench, name, fn, b,
                  (struct bench_cost){.read_bytes = (double)values_read * bytes,
                                      .written_bytes = (double)values_written * bytes,
                                      .ops = ops * (double)n_rows,
                                      .peak_gop_s = b->bench->ceilings.f32_gflop_s});
    destroy_acts(b);
}

static void copy_row(const void *context, size_t row, float *out)
{
    const size_t *n_in = context;
    bench_noise((uint32_t)row, *n_in, out);
}

static void create_rows(struct rows_bench *b, struct bench *bench, uint32_t width)
{
    uint32_t n_rows = bench_size(bench, BENCH_ROWS, 4);
    *b = (struct rows_bench){.bench = bench};
    struct step_capacity capacity = {n_rows, 1, n_rows, 1, 1, 1};
    float *ones = mem_alloc_array(width, sizeof(float));
    ASSERT(ones != NULL);
    for (uint32_t i = 0; i < width; i++)
        ones[i] = 1;
    err_t e = step_create(&capacity, &b->step);
    if (e.code == ERR_OK)
        e = bench->ops->vector_create(bench->backend, ones, width, &b->norm);
    mem_free(ones);
    size_t n_in = width;
    struct weight_desc desc = {.name = "bench",
                               .n_out = bench_size(bench, BENCH_TABLE_TOKENS, 32),
                               .n_in = n_in,
                               .format = WEIGHT_BF16,
                               .row = copy_row,
                               .row_context = &n_in,
                               .is_table = true};
    if (e.code == ERR_OK)
        e = bench->ops->weight_pack(bench->backend, &desc, &b->table);
    ASSERT(e.code == ERR_OK);
    b->step->n_rows = b->step->n_outputs = n_rows;
    b->step->n_seqs = 1;
    b->step->seqs[0] = (struct step_seq){0, n_rows, n_rows, STEP_NO_SLOT, STEP_NO_SLOT};
    for (uint32_t r = 0; r < n_rows; r++) {
        b->step->rows[r] = (struct step_row){.position = r};
        b->step->outputs[r] = (struct step_output){.row = r};
    }
}

static void bench_row_ops(struct bench *bench)
{
    struct rows_bench b;
    uint32_t width = bench_size(bench, BENCH_WIDTH, 64), feed = bench_size(bench, BENCH_FEED, 64);
    create_rows(&b, bench, width);
    size_t n_rows = b.step->n_rows;
    const size_t three[] = {width, width, width}, halves[] = {2 * feed, feed, 0}, two[] = {width, width, 0},
                 one[] = {width, 0, 0};
    /* residual + add; squares; times the scale and the weight. It writes the residual and its norm. */
    measure_rows(&b, "add_norm", run_norm, three, n_rows, 2 * width, 2 * width, 5.0 * width);
    bench_covers(bench, "norm_row");
    b.activation = ACTIVATION_SILU;
    measure_rows(&b, "silu_mul", run_activation, halves, n_rows, 2 * feed, feed,
                 (BENCH_EXP_OPS + 3.0) * feed);
    bench_covers(bench, "silu_mul_row");
    b.activation = ACTIVATION_GELU_TANH;
    measure_rows(&b, "gelu_mul", run_activation, halves, n_rows, 2 * feed, feed,
                 (BENCH_EXP_OPS + 8.0) * feed);
    bench_covers(bench, "gelu_mul_row");
    measure_rows(&b, "gather_outputs", run_gather, two, n_rows, width, width, 0);
    /* Of a bf16 table. */
    measure_rows(&b, "embed_bf16", run_embed, one, n_rows, width / 2, width, 0);
    step_destroy(b.step);
    bench->ops->vector_destroy(b.norm);
    bench->ops->weight_destroy(b.table);
}

/* ---- Kernels by themselves ---- */

static void run_pieces(void *context, int thread_index, int n_threads)
{
    const struct piece_bench *b = context;
    size_t begin, end;
    /* Where twelve rows stand together, they are one thread's. */
    thread_split(b->pieces_per_call, QUANT_TILE_ROWS, thread_index, n_threads, &begin, &end);
    for (size_t i = begin; i < end; i++)
        b->what->fn(b, b->next + i);
}

static void run_piece_call(void *context)
{
    struct piece_bench *b = context;
    cpu_run(cpu_of(b->bench->backend), true, run_pieces, b);
    b->next = (b->next + b->pieces_per_call) % b->n_pieces;
}

void bench_piece(struct bench *bench, const struct piece_case *what)
{
    char name[96];
    snprintf(name, sizeof name, "%s, %zu values", what->kernel, what->n);
    bench_covers(bench, what->kernel);
    if (!check_selected(bench->options, name))
        return;
    struct piece_bench b = {.bench = bench, .table = &cpu_of(bench->backend)->table, .what = what};
    size_t read = what->n * sizeof(float), bytes = read + what->written_bytes;
    size_t least = (size_t)cpu_of(bench->backend)->n_threads * QUANT_TILE_ROWS;
    b.pieces_per_call = round_up(bench_size(bench, BENCH_CALL_BYTES, 1) / bytes + 1, least);
    b.n_pieces = round_up(bench->bytes / bytes + 1, b.pieces_per_call);
    b.in = cpu_memory_alloc(b.n_pieces * read);
    b.out = what->written_bytes == 0 ? NULL : cpu_memory_alloc(b.n_pieces * what->written_bytes);
    ASSERT(b.in != NULL && (b.out != NULL || what->written_bytes == 0));
    bench_noise(1, what->n, b.in);
    for (size_t i = 1; i < b.n_pieces; i++)
        memcpy(piece_in(&b, i), b.in, read);
    if (b.out != NULL)
        memset(b.out, 1, b.n_pieces * what->written_bytes);
    double pieces = (double)b.pieces_per_call;
    bench_measure(bench, name, run_piece_call, &b,
                  (struct bench_cost){.read_bytes = (double)read * pieces,
                                      .written_bytes =
                                          (double)(what->is_in_place ? read : what->written_bytes) * pieces,
                                      .ops = what->ops * (double)what->n * pieces,
                                      .peak_gop_s = bench->ceilings.f32_gflop_s});
    cpu_memory_free(b.in);
    cpu_memory_free(b.out);
}

/* Twelve rows stand together, as in an act. */
static void quantize_row(const struct piece_bench *b, size_t piece)
{
    size_t tile_stride = b->what->n / QUANT_BLOCK * QUANT_TILE_ROWS;
    b->table->quantize_row(piece_in(b, piece), b->what->n,
                           (struct quant_block *)(void *)b->out + quant_row_offset(piece, tile_stride),
                           QUANT_TILE_ROWS);
}

static void round_row(const struct piece_bench *b, size_t piece)
{
    b->table->round_row(piece_in(b, piece), b->what->n, piece_out(b, piece));
}

/* Scales, then codes. */
static void quantize_wide_row(const struct piece_bench *b, size_t piece)
{
    float *scales = piece_out(b, piece);
    b->table->quantize_wide_row(piece_in(b, piece), b->what->n, (int8_t *)(scales + b->what->n / WIDE_BLOCK),
                                scales);
}

static void quantize_kv(const struct piece_bench *b, size_t piece)
{
    uint16_t *scale = piece_out(b, piece);
    *scale = b->table->quantize_kv(piece_in(b, piece), b->what->n, (int8_t *)(scale + 1));
}

static void quantize_group_int8(const struct piece_bench *b, size_t piece)
{
    uint16_t *scale = piece_out(b, piece);
    *scale = b->table->quantize_group_int8(piece_in(b, piece), b->what->n, (int8_t *)(scale + 1));
}

static void quantize_group_int4(const struct piece_bench *b, size_t piece)
{
    uint16_t *scale = piece_out(b, piece);
    *scale = b->table->quantize_group_int4(piece_in(b, piece), b->what->n, (int8_t *)(scale + 1));
}

static void rope_head(const struct piece_bench *b, size_t piece)
{
    static const float cosines[BENCH_HEAD / 2] = {1, 0.5f}, sines[BENCH_HEAD / 2] = {0, 0.5f};
    b->table->rope_head(piece_in(b, piece), cosines, sines, BENCH_HEAD / 2);
}

static void attention_merge(const struct piece_bench *b, size_t piece)
{
    float total[BENCH_HEAD];
    b->table->attention_merge(&(struct attention_merge_args){.partials = piece_in(b, piece),
                                                             .stride = attention_partial_floats(BENCH_HEAD),
                                                             .n_chunks = BENCH_MERGED_CHUNKS,
                                                             .head_dim = BENCH_HEAD,
                                                             .total = total,
                                                             .out = piece_out(b, piece)});
}

void bench_rows(struct bench *bench)
{
    bench_measure_ceilings(bench);
    bench_row_ops(bench);
    size_t width = bench_size(bench, BENCH_WIDTH, WIDE_BLOCK);
    /* Operations of a code: a product, two to round it. int4 tries seven scales, each with four fused steps
     * more. */
    const struct piece_case cases[] = {
        {"quantize_row", quantize_row, width, width / QUANT_BLOCK * sizeof(struct quant_block), false, 3},
        {"round_row", round_row, width, width * sizeof(uint16_t), false, 0},
        {"quantize_wide_row", quantize_wide_row, width, width + width / WIDE_BLOCK * sizeof(float), false, 3},
        {"quantize_kv", quantize_kv, BENCH_HEAD, BENCH_HEAD + sizeof(uint16_t), false, 3},
        {"quantize_group_int8", quantize_group_int8, WEIGHT_GROUP, WEIGHT_GROUP + sizeof(uint16_t), false, 3},
        {"quantize_group_int4", quantize_group_int4, WEIGHT_GROUP, WEIGHT_GROUP + sizeof(uint16_t), false,
         7 * 11 + 3},
        {"rope_head", rope_head, BENCH_HEAD, 0, true, 3},
        {"attention_merge", attention_merge, BENCH_MERGED_CHUNKS * attention_partial_floats(BENCH_HEAD),
         BENCH_HEAD * sizeof(float), false, 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        bool is_of_tiles =
            strcmp(cases[i].kernel, "round_row") == 0 || strcmp(cases[i].kernel, "quantize_wide_row") == 0;
        if (!is_of_tiles || isa_arithmetic(bench->isa) == ARITHMETIC_TILES)
            bench_piece(bench, &cases[i]);
    }
}
