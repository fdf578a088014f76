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
    atomic_size_t next_piece;
};

static size_t count_pieces(const struct attention_job *job, const struct step_seq *seq)
{
    return div_up(seq->n_rows, job->rows_per_piece) * job->params->shape.n_kv_heads * job->parts;
}

/* Piece `piece` of a sequence. */
static void attend_piece(const struct attention_job *job, uint32_t seq_index, size_t piece, float *scratch)
{
    const struct step *step = job->step;
    const struct step_seq *seq = &step->seqs[seq_index];
    const struct qkv_shape *shape = &job->params->shape;
    uint32_t part = (uint32_t)(piece % job->parts);
    uint32_t kv_head = (uint32_t)(piece / job->parts % shape->n_kv_heads);
    uint32_t row = (uint32_t)(piece / job->parts / shape->n_kv_heads) * job->rows_per_piece;
    uint32_t row_end = row + job->rows_per_piece < seq->n_rows ? row + job->rows_per_piece : seq->n_rows;
    uint32_t head = kv_head * job->heads_per_kv + part * job->heads_per_part;
    uint32_t head_end = head + job->heads_per_part;
    if (head_end > (kv_head + 1) * job->heads_per_kv)
        head_end = (kv_head + 1) * job->heads_per_kv;
    struct attention_query queries[ATTENTION_QUERIES_MAX];
    uint32_t n_queries = 0;
    for (; row < row_end; row++) {
        uint32_t r = seq->first_row + row, last = step->rows[r].position;
        ASSERT(step->rows[r].seq == seq_index && last / KV_BLOCK_TOKENS < step->capacity.blocks_per_seq);
        uint32_t window = job->params->window;
        for (uint32_t h = head; h < head_end; h++)
            queries[n_queries++] = (struct attention_query){
                .q = act_row(job->qkv, r) + (size_t)h * shape->head_dim,
                .out = act_row(job->out, r) + (size_t)h * shape->head_dim,
                .first = window > 0 && last >= window ? last - window + 1 : 0,
                .last = last,
            };
    }
    struct attention_args args = {
        .kv = job->kv->blocks,
        .block_table = step_block_table(step, job->kv->desc.group, seq_index),
        .kv_head = kv_head,
        .n_kv_heads = shape->n_kv_heads,
        .head_dim = shape->head_dim,
        .scale = job->params->scale,
        .soft_cap = job->params->soft_cap,
        .queries = queries,
        .n_queries = n_queries,
        .scratch = scratch,
    };
    job->kernel(&args);
}

static void attend_pieces(void *context, int thread_index, int n_threads)
{
    (void)n_threads;
    struct attention_job *job = context;
    uint32_t seq = 0;
    size_t first_piece = 0; /* of seq, among those of all sequences */
    for (;;) {
        size_t piece = atomic_fetch_add_explicit(&job->next_piece, 1, memory_order_relaxed);
        while (seq < job->step->n_seqs && piece - first_piece >= count_pieces(job, &job->step->seqs[seq]))
            first_piece += count_pieces(job, &job->step->seqs[seq++]);
        if (seq == job->step->n_seqs)
            return;
        attend_piece(job, seq, piece - first_piece, job->cpu->attention_scratch[thread_index]);
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
    bool f32 = kv->desc.dtype == KV_F32;
    struct attention_job job = {
        .cpu = cpu,
        .step = step,
        .qkv = qkv,
        .params = params,
        .kv = kv,
        .out = out,
        .kernel = f32 ? cpu->table.attention_f32 : cpu->table.attention_bf16,
        .heads_per_kv = shape->n_heads / shape->n_kv_heads,
    };
    job.heads_per_part = job.heads_per_kv < ATTENTION_QUERIES_MAX ? job.heads_per_kv : ATTENTION_QUERIES_MAX;
    job.parts = (uint32_t)div_up(job.heads_per_kv, job.heads_per_part);
    job.rows_per_piece = ATTENTION_QUERIES_MAX / job.heads_per_part;
    size_t work = 0; /* keys seen by the last row of each sequence */
    for (uint32_t s = 0; s < step->n_seqs; s++)
        work += (size_t)step->seqs[s].n_context * step->seqs[s].n_rows;
    out->n_quantized = 0;
    cpu_run(cpu, work * out->width >= CPU_PARALLEL_MIN_MACS, attend_pieces, &job);
    cpu->dispatches[f32 ? KERNEL_attention_f32 : KERNEL_attention_bf16]++;
}
