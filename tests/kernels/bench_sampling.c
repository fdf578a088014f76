/* The bench of sampling: the op, and each kernel over logits. Logits come from memory, as an LM head of many
 * rows leaves them. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "kernels/cpu_memory.h"
#include "tests/kernels/bench.h"

enum { BENCH_VOCAB = 128256, BENCH_OUTPUTS_MAX = 32 };

/* ---- The op ---- */

struct sampling_bench {
    struct bench *bench;
    struct step *step;
    struct act *logits;
    struct sampler *sampler;
    const struct sampler_params *params;
    float *raw; /* [n_raw][vocab] */
    size_t vocab, n_raw, next;
};

static void run_sample(void *context)
{
    struct sampling_bench *b = context;
    const uint32_t prompt[] = {1, 2, 3};
    struct sampler_history history = {prompt, 3, NULL, 0};
    for (uint32_t s = 0; s < b->step->n_outputs; s++) {
        b->bench->ops->slot_set(b->sampler, s, b->params, &history);
        memcpy(act_row(b->logits, s), b->raw + b->next++ % b->n_raw * b->vocab, b->vocab * sizeof(float));
    }
    b->bench->ops->sample(b->bench->backend, b->step, 0, b->step->n_outputs, b->logits, NULL, b->sampler);
}

/* One output a thread. */
static void create(struct sampling_bench *b, struct bench *bench)
{
    int n_threads = cpu_of(bench->backend)->n_threads;
    uint32_t n = n_threads < BENCH_OUTPUTS_MAX ? (uint32_t)n_threads : BENCH_OUTPUTS_MAX;
    struct step_capacity capacity = {n, n, n, 1, 1, 1};
    *b = (struct sampling_bench){.bench = bench, .vocab = bench_size(bench, BENCH_VOCAB, 2048)};
    b->n_raw = bench->bytes / (b->vocab * sizeof(float)) + 1;
    b->raw = cpu_memory_alloc(b->n_raw * b->vocab * sizeof(float));
    ASSERT(b->raw != NULL);
    struct rng rng = rng_make(1);
    for (size_t i = 0; i < b->vocab; i++)
        b->raw[i] = 2.5f * rng_normal(&rng);
    for (size_t i = 1; i < b->n_raw; i++)
        memcpy(b->raw + i * b->vocab, b->raw, b->vocab * sizeof(float));
    err_t e = step_create(&capacity, &b->step);
    if (e.code == ERR_OK)
        e = bench->ops->act_create(bench->backend, ACT_LOGITS, n, b->vocab, &b->logits);
    if (e.code == ERR_OK)
        e = bench->ops->sampler_create(bench->backend, n, b->vocab, 64, &b->sampler);
    ASSERT(e.code == ERR_OK);
    b->step->n_rows = b->step->n_seqs = b->step->n_outputs = n;
    for (uint32_t s = 0; s < n; s++) {
        b->step->rows[s] = (struct step_row){.position = 2, .seq = s};
        b->step->seqs[s] = (struct step_seq){s, 1, 3, s, STEP_NO_SLOT};
    }
}

static void bench_sample_op(struct bench *bench)
{
    static const struct {
        const char *name;
        struct sampler_params params;
        int32_t n_logprobs;
        double ops; /* of a logit */
    } cases[] = {
        {"sample greedy", {.temperature = 0, .top_p = 1, .repetition_penalty = 1}, -1, 0},
        {"sample temperature 1",
         {.temperature = 1, .top_p = 1, .repetition_penalty = 1},
         -1,
         BENCH_GUMBEL_OPS + 3},
        {"sample top_k 50", {.temperature = 1, .top_p = 1, .top_k = 50, .repetition_penalty = 1}, -1, 0},
        {"sample top_p 0.9", {.temperature = 1, .top_p = 0.9f, .repetition_penalty = 1}, -1, BENCH_EXP_OPS},
        {"sample top_p 0.95, T 2, flat",
         {.temperature = 2, .top_p = 0.95f, .repetition_penalty = 1},
         -1,
         BENCH_EXP_OPS},
        {"sample greedy, 5 logprobs",
         {.temperature = 0, .top_p = 1, .repetition_penalty = 1},
         5,
         BENCH_EXP_OPS},
    };
    struct sampling_bench b;
    create(&b, bench);
    uint32_t n = b.step->n_outputs;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char name[96];
        snprintf(name, sizeof name, "%s, %u output%s", cases[i].name, n, n == 1 ? "" : "s");
        if (!check_selected(bench->options, name))
            continue;
        for (uint32_t s = 0; s < n; s++)
            b.step->outputs[s] = (struct step_output){s, STEP_OUTPUT_SAMPLE, 0, cases[i].n_logprobs};
        b.params = &cases[i].params;
        double logits = (double)n * (double)b.vocab;
        bench_measure(bench, name, run_sample, &b,
                      (struct bench_cost){.read_bytes = logits * sizeof(float),
                                          .ops = cases[i].ops * logits,
                                          .peak_gop_s = bench->ceilings.f32_gflop_s});
    }
    bench->ops->act_destroy(b.logits);
    bench->ops->sampler_destroy(b.sampler);
    step_destroy(b.step);
    cpu_memory_free(b.raw);
}

/* ---- Kernels by themselves: a piece is the logits of one output ---- */

/* What keeps the compiler from leaving a call out: no more than its result, which is read nowhere. */
static void keep(double result)
{
    volatile double sink = result;
    (void)sink;
}

static void soft_cap_row(const struct piece_bench *b, size_t piece)
{
    b->table->soft_cap_row(piece_in(b, piece), b->what->n, 30);
}

static void logits_stats(const struct piece_bench *b, size_t piece)
{
    keep(b->table->logits_stats(piece_in(b, piece), b->what->n).max);
}

static void exp_sum(const struct piece_bench *b, size_t piece)
{
    keep(b->table->exp_sum(piece_in(b, piece), b->what->n, 2));
}

static void exp_row(const struct piece_bench *b, size_t piece)
{
    b->table->exp_row(piece_in(b, piece), b->what->n, piece_out(b, piece));
}

static void count_above(const struct piece_bench *b, size_t piece)
{
    keep((double)b->table->count_above(piece_in(b, piece), b->what->n, 1.9f));
}

/* Few are, as when top-k looks for its candidates: they stay in the cache. */
static void select_from(const struct piece_bench *b, size_t piece)
{
    static _Thread_local float values[BENCH_VOCAB];
    static _Thread_local uint32_t ids[BENCH_VOCAB];
    keep((double)b->table->select_from(piece_in(b, piece), b->what->n, 1.999f, values, ids));
}

static void temper(const struct piece_bench *b, size_t piece)
{
    b->table->temper(piece_in(b, piece), b->what->n, 0, 1);
}

static void gumbel_argmax(const struct piece_bench *b, size_t piece)
{
    keep(b->table->gumbel_argmax(piece_in(b, piece), b->what->n,
                                 (struct gumbel_key){7, (uint32_t)piece, SAMPLER_PURPOSE_DRAW}));
}

void bench_sampling(struct bench *bench)
{
    bench_measure_ceilings(bench);
    bench_sample_op(bench);
    size_t vocab = bench_size(bench, BENCH_VOCAB, 2048);
    const struct piece_case cases[] = {
        {"soft_cap_row", soft_cap_row, vocab, 0, true, BENCH_TANH_OPS + 2},
        {"logits_stats", logits_stats, vocab, 0, false, 0},
        {"exp_sum", exp_sum, vocab, 0, false, BENCH_EXP_OPS + 2},
        {"exp_row", exp_row, vocab, vocab * sizeof(float), false, BENCH_EXP_OPS},
        {"count_above", count_above, vocab, 0, false, 0},
        {"select_from", select_from, vocab, 0, false, 0},
        {"temper", temper, vocab, 0, true, 2},
        {"gumbel_argmax", gumbel_argmax, vocab, 0, false, BENCH_GUMBEL_OPS + 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        bench_piece(bench, &cases[i]);
}
