/* Attention of a step: pieces of some rows by one KV head, taken by the threads one after the other, since
 * sequences differ in length. Who computes a piece does not change it. */
#include <stdatomic.h>
#include "kernels/cpu_backend.h"

struct attention_job {
    struct cpu_backend *cpu;
    const struct step *step;
    const struct act *qkv;
    const struct attention_params *params;
    const struct kv *kv;
    struct act *out;
    attention_fn *kernel;
    uint32_t heads_per_kv;   /* query heads that share a KV head */
    uint32_t heads_per_part; /* of them in one piece, when they are too many for one */
    uint32_t parts;          /* pieces that the heads of a KV head make */
    uint32_t rows_per_piece;
    struct cpu_sharers *sharers; /* NULL = nothing is shared */
    size_t n_team_pieces;        /* theirs are the first */
    atomic_size_t next_piece;
};

/* Queries of one piece. */
struct piece {
    uint32_t kv_head, head, head_end; /* query heads [head, head_end) */
    uint32_t n_queries, n_shared;
    struct attention_query queries[ATTENTION_QUERIES_MAX];
};

static struct piece begin_piece(const struct attention_job *job, uint32_t kv_head, uint32_t part)
{
    uint32_t head = kv_head * job->heads_per_kv + part * job->heads_per_part;
    uint32_t head_end = head + job->heads_per_part, last = (kv_head + 1) * job->heads_per_kv;
    return (struct piece){.kv_head = kv_head, .head = head, .head_end = head_end < last ? head_end : last};
}

static void add_row(const struct attention_job *job, struct piece *piece, uint32_t r)
{
    const struct step *step = job->step;
    uint32_t seq = step->rows[r].seq, last = step->rows[r].position, window = job->params->window;
    ASSERT(seq < step->n_seqs && last / KV_BLOCK_TOKENS < step->capacity.blocks_per_seq);
    ASSERT(piece->n_queries + piece->head_end - piece->head <= ATTENTION_QUERIES_MAX);
    for (uint32_t h = piece->head; h < piece->head_end; h++)
        piece->queries[piece->n_queries++] = (struct attention_query){
            .q = act_row(job->qkv, r) + (size_t)h * job->params->shape.head_dim,
            .out = act_row(job->out, r) + (size_t)h * job->params->shape.head_dim,
            .block_table = step_block_table(step, job->kv->desc.group, seq),
            .first = window > 0 && last >= window ? last - window + 1 : 0,
            .last = last,
        };
}

static void attend_piece(const struct attention_job *job, const struct piece *piece, float *scratch)
{
    struct attention_args args = {
        .kv = job->kv->blocks,
        .kv_head = piece->kv_head,
        .n_kv_heads = job->params->shape.n_kv_heads,
        .head_dim = job->params->shape.head_dim,
        .scale = job->params->scale,
        .soft_cap = job->params->soft_cap,
        .queries = piece->queries,
        .n_queries = piece->n_queries,
        .n_shared = piece->n_shared,
        .scratch = scratch,
    };
    job->kernel(&args);
}

/* Teams by turns, so that a prefix that several share is still in the cache for the next. */
static void attend_team(const struct attention_job *job, size_t index, float *scratch)
{
    const struct cpu_team *team = &job->sharers->teams[index % job->sharers->n_teams];
    size_t head_part = index / job->sharers->n_teams;
    struct piece piece =
        begin_piece(job, (uint32_t)(head_part / job->parts), (uint32_t)(head_part % job->parts));
    piece.n_shared = team->n_shared;
    for (uint32_t i = team->begin; i < team->end; i++)
        add_row(job, &piece, job->step->seqs[job->sharers->seqs[i]].first_row);
    attend_piece(job, &piece, scratch);
}

static bool is_in_team(const struct attention_job *job, uint32_t seq)
{
    return job->sharers != NULL && seq < job->sharers->end && job->step->seqs[seq].n_rows == 1;
}

/* Pieces of a sequence by itself. */
static size_t count_pieces(const struct attention_job *job, uint32_t seq)
{
    size_t row_pieces = div_up(job->step->seqs[seq].n_rows, job->rows_per_piece);
    return is_in_team(job, seq) ? 0 : row_pieces * job->params->shape.n_kv_heads * job->parts;
}

static void attend_seq(const struct attention_job *job, uint32_t seq_index, size_t index, float *scratch)
{
    const struct step_seq *seq = &job->step->seqs[seq_index];
    uint32_t n_kv_heads = job->params->shape.n_kv_heads;
    struct piece piece =
        begin_piece(job, (uint32_t)(index / job->parts % n_kv_heads), (uint32_t)(index % job->parts));
    uint32_t row = (uint32_t)(index / job->parts / n_kv_heads) * job->rows_per_piece;
    uint32_t row_end = row + job->rows_per_piece < seq->n_rows ? row + job->rows_per_piece : seq->n_rows;
    for (; row < row_end; row++) {
        ASSERT(job->step->rows[seq->first_row + row].seq == seq_index);
        add_row(job, &piece, seq->first_row + row);
    }
    attend_piece(job, &piece, scratch);
}

static void attend_pieces(void *context, int thread_index, int n_threads)
{
    (void)n_threads;
    struct attention_job *job = context;
    float *scratch = job->cpu->attention_scratch[thread_index];
    uint32_t seq = 0;
    size_t first_piece = job->n_team_pieces; /* of seq, among all */
    for (;;) {
        size_t piece = atomic_fetch_add_explicit(&job->next_piece, 1, memory_order_relaxed);
        if (piece < job->n_team_pieces) {
            attend_team(job, piece, scratch);
            continue;
        }
        while (seq < job->step->n_seqs && piece - first_piece >= count_pieces(job, seq))
            first_piece += count_pieces(job, seq++);
        if (seq == job->step->n_seqs)
            return;
        attend_seq(job, seq, piece - first_piece, scratch);
    }
}

enum { PIECES_PER_THREAD = 4 }; /* of teams, at least, where there are as many sequences */

/* As many of a KV head's sequences together as a piece has room for, unless threads would go without. */
static void make_teams(struct attention_job *job)
{
    const struct qkv_shape *shape = &job->params->shape;
    struct cpu_sharers *sharers = job->sharers;
    size_t parts = (size_t)shape->n_kv_heads * job->parts;
    uint32_t team_max = job->rows_per_piece;
    while (team_max > 1 &&
           div_up(sharers->n, team_max) * parts < (size_t)job->cpu->n_threads * PIECES_PER_THREAD)
        team_max /= 2;
    job->cpu->blocks_spared += cpu_sharers_team(sharers, team_max);
    job->n_team_pieces = sharers->n_teams * parts;
}

static attention_fn *choose_kernel(const struct kernel_table *table, enum kv_dtype dtype, enum kernel_id *id)
{
    switch (dtype) {
    case KV_F32:
        *id = KERNEL_attention_f32;
        return table->attention_f32;
    case KV_BF16:
        *id = KERNEL_attention_bf16;
        return table->attention_bf16;
    default:
        ASSERT(dtype == KV_INT8);
        *id = KERNEL_attention_int8;
        return table->attention_int8;
    }
}

void cpu_attention(struct backend *backend, const struct step *step, const struct act *qkv,
                   const struct attention_params *params, const struct kv *kv, struct act *out)
{
    const struct qkv_shape *shape = &params->shape;
    ASSERT(shape->n_kv_heads > 0 && shape->n_heads % shape->n_kv_heads == 0);
    ASSERT(qkv->width == (size_t)(shape->n_heads + 2 * shape->n_kv_heads) * shape->head_dim);
    ASSERT(out->width == (size_t)shape->n_heads * shape->head_dim && out != qkv);
    ASSERT(kv->desc.n_kv_heads == shape->n_kv_heads && kv->desc.head_dim == shape->head_dim);
    ASSERT(step->n_rows <= qkv->max_rows && step->n_rows <= out->max_rows);
    ASSERT(kv->desc.group < step->capacity.kv_groups);
    struct cpu_backend *cpu = cpu_of(backend);
    enum kernel_id id;
    struct attention_job job = {
        .cpu = cpu,
        .step = step,
        .qkv = qkv,
        .params = params,
        .kv = kv,
        .out = out,
        .kernel = choose_kernel(&cpu->table, kv->desc.dtype, &id),
        .heads_per_kv = shape->n_heads / shape->n_kv_heads,
    };
    job.heads_per_part = job.heads_per_kv < ATTENTION_QUERIES_MAX ? job.heads_per_kv : ATTENTION_QUERIES_MAX;
    job.parts = (uint32_t)div_up(job.heads_per_kv, job.heads_per_part);
    job.rows_per_piece = ATTENTION_QUERIES_MAX / job.heads_per_part;
    job.sharers = cpu->sharing == step ? &cpu->sharers[kv->desc.group] : NULL;
    if (job.sharers != NULL)
        make_teams(&job);
    size_t work = 0; /* keys seen by the last row of each sequence */
    for (uint32_t s = 0; s < step->n_seqs; s++)
        work += (size_t)step->seqs[s].n_context * step->seqs[s].n_rows;
    out->n_quantized = 0;
    cpu_run(cpu, work * out->width >= CPU_PARALLEL_MIN_MACS, attend_pieces, &job);
    cpu->dispatches[id]++;
}
