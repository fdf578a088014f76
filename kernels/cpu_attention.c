/* Attention of a step: units (some rows by one KV head), taken by the threads one after the other, since
 * sequences differ in length. Where there are too few of them for the threads, units are cut at chunks of
 * their contexts. Who computes a piece does not change it, and a chunk is the same cut or not. */
#include "kernels/cpu_backend.h"

struct attention_job {
    struct cpu_backend *cpu;
    const struct step *step;
    const struct act *qkv;
    const struct attention_params *params;
    const struct kv *kv;
    struct act *out;
    attention_fn *kernel;
    uint32_t queries_max;    /* that a call of it takes */
    uint32_t heads_per_kv;   /* query heads that share a KV head */
    uint32_t heads_per_part; /* of them in one unit, when they are too many for one */
    uint32_t parts;          /* units that the heads of a KV head make */
    uint32_t rows_per_unit;
    struct cpu_sharers *sharers; /* NULL = nothing is shared */
    size_t n_team_units;         /* theirs are the first */
    size_t n_units, n_pieces;
    bool has_cuts; /* one a unit, in the backend; else a piece is a unit */
    atomic_size_t next_piece;
};

/* Queries of one unit. */
struct unit {
    uint32_t kv_head, head, head_end; /* query heads [head, head_end) */
    uint32_t n_queries, n_shared;
    struct attention_query queries[TILE_QUERIES_MAX];
};

static struct unit begin_unit(const struct attention_job *job, uint32_t kv_head, uint32_t part)
{
    uint32_t head = kv_head * job->heads_per_kv + part * job->heads_per_part;
    uint32_t head_end = head + job->heads_per_part, last = (kv_head + 1) * job->heads_per_kv;
    return (struct unit){.kv_head = kv_head, .head = head, .head_end = head_end < last ? head_end : last};
}

static void add_row(const struct attention_job *job, struct unit *unit, uint32_t r)
{
    const struct step *step = job->step;
    uint32_t seq = step->rows[r].seq, last = step->rows[r].position, window = job->params->window;
    ASSERT(seq < step->n_seqs && last / KV_BLOCK_TOKENS < step->capacity.blocks_per_seq);
    ASSERT(unit->n_queries + unit->head_end - unit->head <= job->queries_max);
    for (uint32_t h = unit->head; h < unit->head_end; h++)
        unit->queries[unit->n_queries++] = (struct attention_query){
            .q = act_row(job->qkv, r) + (size_t)h * job->params->shape.head_dim,
            .out = act_row(job->out, r) + (size_t)h * job->params->shape.head_dim,
            .block_table = step_block_table(step, job->kv->desc.group, seq),
            .first = window > 0 && last >= window ? last - window + 1 : 0,
            .last = last,
        };
}

/* Teams by turns, so that a prefix that several share is still in the cache for the next. */
static struct unit team_unit(const struct attention_job *job, size_t index)
{
    const struct cpu_team *team = &job->sharers->teams[index % job->sharers->n_teams];
    size_t head_part = index / job->sharers->n_teams;
    struct unit unit =
        begin_unit(job, (uint32_t)(head_part / job->parts), (uint32_t)(head_part % job->parts));
    unit.n_shared = team->n_shared;
    for (uint32_t i = team->begin; i < team->end; i++)
        add_row(job, &unit, job->step->seqs[job->sharers->seqs[i]].first_row);
    return unit;
}

static bool is_in_team(const struct attention_job *job, uint32_t seq)
{
    return job->sharers != NULL && seq < job->sharers->end && job->step->seqs[seq].n_rows == 1;
}

/* Of a sequence by itself. */
static size_t count_units(const struct attention_job *job, uint32_t seq)
{
    size_t row_units = div_up(job->step->seqs[seq].n_rows, job->rows_per_unit);
    return is_in_team(job, seq) ? 0 : row_units * job->params->shape.n_kv_heads * job->parts;
}

static struct unit seq_unit(const struct attention_job *job, uint32_t seq_index, size_t index)
{
    const struct step_seq *seq = &job->step->seqs[seq_index];
    uint32_t n_kv_heads = job->params->shape.n_kv_heads;
    struct unit unit =
        begin_unit(job, (uint32_t)(index / job->parts % n_kv_heads), (uint32_t)(index % job->parts));
    uint32_t row = (uint32_t)(index / job->parts / n_kv_heads) * job->rows_per_unit;
    uint32_t row_end = row + job->rows_per_unit < seq->n_rows ? row + job->rows_per_unit : seq->n_rows;
    for (; row < row_end; row++) {
        ASSERT(job->step->rows[seq->first_row + row].seq == seq_index);
        add_row(job, &unit, seq->first_row + row);
    }
    return unit;
}

/* A way through the units in ascending order. */
struct walk {
    uint32_t seq;
    size_t first_unit; /* of seq, among those of all sequences */
};

static struct unit walk_to(const struct attention_job *job, size_t index, struct walk *walk)
{
    ASSERT(index < job->n_units);
    if (index < job->n_team_units)
        return team_unit(job, index);
    index -= job->n_team_units;
    while (index - walk->first_unit >= count_units(job, walk->seq))
        walk->first_unit += count_units(job, walk->seq++);
    return seq_unit(job, walk->seq, index - walk->first_unit);
}

static struct attention_args args_of(const struct attention_job *job, const struct unit *unit, float *scratch)
{
    return (struct attention_args){
        .kv = job->kv->blocks,
        .kv_head = unit->kv_head,
        .n_kv_heads = job->params->shape.n_kv_heads,
        .head_dim = job->params->shape.head_dim,
        .scale = job->params->scale,
        .soft_cap = job->params->soft_cap,
        .ahead_is_near = job->cpu->table.kv_ahead_is_near,
        .queries = unit->queries,
        .n_queries = unit->n_queries,
        .n_shared = unit->n_shared,
        .scratch = scratch,
    };
}

static void merge_chunks(const struct attention_job *job, const struct cpu_cut *cut, const struct unit *unit,
                         float *scratch)
{
    size_t partial_floats = attention_partial_floats(job->params->shape.head_dim);
    for (uint32_t i = 0; i < unit->n_queries; i++) {
        const struct attention_query *query = &unit->queries[i];
        uint32_t first = query->first / ATTENTION_CHUNK_TOKENS, last = query->last / ATTENTION_CHUNK_TOKENS;
        size_t begin = (size_t)(first - cut->first_chunk) * unit->n_queries + i;
        struct attention_merge_args args = {
            .partials = cut->partials + begin * partial_floats,
            .stride = unit->n_queries * partial_floats,
            .n_chunks = last - first + 1,
            .head_dim = job->params->shape.head_dim,
            .total = scratch,
            .out = query->out,
        };
        job->cpu->table.attention_merge(&args);
    }
}

/* Piece `index` of a unit that is cut. */
static void attend_cut(const struct attention_job *job, struct cpu_cut *cut, size_t index,
                       const struct unit *unit, float *scratch)
{
    struct attention_args args = args_of(job, unit, scratch);
    size_t first = index * cut->chunks_per_piece, end = first + cut->chunks_per_piece;
    args.first_chunk = cut->first_chunk + (uint32_t)first;
    args.end_chunk = cut->first_chunk + (uint32_t)(end < cut->n_chunks ? end : cut->n_chunks);
    args.partials = cut->partials + first * unit->n_queries * attention_partial_floats(args.head_dim);
    job->kernel(&args);
    if (atomic_fetch_sub_explicit(&cut->pieces_left, 1, memory_order_acq_rel) == 1)
        merge_chunks(job, cut, unit, scratch);
}

static void attend_pieces(void *context, int thread_index, int n_threads)
{
    (void)n_threads;
    struct attention_job *job = context;
    float *scratch = job->cpu->attention_scratch[thread_index];
    struct walk walk = {0};
    size_t cut = 0;
    for (;;) {
        size_t piece = atomic_fetch_add_explicit(&job->next_piece, 1, memory_order_relaxed);
        if (piece >= job->n_pieces)
            return;
        struct cpu_cut *cuts = job->has_cuts ? job->cpu->cuts : NULL;
        while (cuts != NULL && piece - cuts[cut].first_piece >= cuts[cut].n_pieces)
            cut++;
        struct unit unit = walk_to(job, cuts != NULL ? cut : piece, &walk);
        if (cuts != NULL && cuts[cut].partials != NULL) {
            attend_cut(job, &cuts[cut], piece - cuts[cut].first_piece, &unit, scratch);
        } else {
            struct attention_args args = args_of(job, &unit, scratch);
            job->kernel(&args);
        }
    }
}

static uint32_t visible_tokens(const struct attention_job *job, uint32_t seq)
{
    uint32_t n = job->step->seqs[seq].n_context, window = job->params->window;
    return window > 0 && window < n ? window : n;
}

/* As many of a KV head's sequences together as a unit has room for, unless threads would go without. */
static void make_teams(struct attention_job *job)
{
    const struct qkv_shape *shape = &job->params->shape;
    struct cpu_sharers *sharers = job->sharers;
    size_t parts = (size_t)shape->n_kv_heads * job->parts, tokens = 0;
    for (uint32_t i = 0; i < sharers->n; i++)
        tokens += visible_tokens(job, sharers->seqs[i]);
    size_t chunks =
        sharers->n == 0 ? 0 : tokens / sharers->n / ATTENTION_CHUNK_TOKENS; /* whole ones of each */
    uint32_t team_max = job->rows_per_unit;
    while (team_max > 1 && div_up(sharers->n, team_max) * parts * (chunks > 1 ? chunks : 1) <
                               (size_t)job->cpu->n_threads * CPU_PIECES_PER_THREAD)
        team_max /= 2;
    job->cpu->blocks_spared += cpu_sharers_team(sharers, team_max);
    job->n_team_units = sharers->n_teams * parts;
}

/* The chunks of which a unit's queries see something. */
static void set_chunks(struct cpu_cut *cut, const struct unit *unit)
{
    uint32_t first = UINT32_MAX, last = 0;
    for (uint32_t i = 0; i < unit->n_queries; i++) {
        first = unit->queries[i].first < first ? unit->queries[i].first : first;
        last = unit->queries[i].last > last ? unit->queries[i].last : last;
    }
    cut->first_chunk = first / ATTENTION_CHUNK_TOKENS;
    cut->n_chunks = last / ATTENTION_CHUNK_TOKENS - cut->first_chunk + 1;
}

/* Cuts units where they are too few for the threads. Where not all find room for what waits to be merged, the
 * others would be the longest pieces and begin last: then only what leaves threads without any is cut. */
static void make_cuts(struct attention_job *job)
{
    struct cpu_backend *cpu = job->cpu;
    size_t n_wanted = (size_t)cpu->n_threads * CPU_PIECES_PER_THREAD, n_chunks = 0, used = 0, wanted = 0;
    if (cpu->partials == NULL || job->n_units >= n_wanted)
        return;
    struct walk walk = {0};
    size_t partial_floats = attention_partial_floats(job->params->shape.head_dim);
    for (size_t i = 0; i < job->n_units; i++) {
        struct unit unit = walk_to(job, i, &walk);
        set_chunks(&cpu->cuts[i], &unit);
        n_chunks += cpu->cuts[i].n_chunks;
        wanted += cpu->cuts[i].n_chunks * unit.n_queries * partial_floats;
    }
    job->has_cuts =
        n_chunks > job->n_units && (wanted <= cpu->partials_floats || job->n_units < (size_t)cpu->n_threads);
    job->n_pieces = job->has_cuts ? 0 : job->n_units;
    walk = (struct walk){0};
    for (size_t i = 0; job->has_cuts && i < job->n_units; i++) {
        struct cpu_cut *cut = &cpu->cuts[i];
        cut->chunks_per_piece = (uint32_t)div_up(n_chunks, n_wanted);
        cut->n_pieces = div_up(cut->n_chunks, cut->chunks_per_piece);
        size_t floats = cut->n_chunks * walk_to(job, i, &walk).n_queries * partial_floats;
        bool is_cut = cut->n_pieces > 1 && used + floats <= cpu->partials_floats;
        cut->partials = is_cut ? cpu->partials + used : NULL;
        cut->n_pieces = is_cut ? cut->n_pieces : 1;
        cut->first_piece = job->n_pieces;
        atomic_store_explicit(&cut->pieces_left, cut->n_pieces, memory_order_relaxed);
        job->n_pieces += cut->n_pieces;
        used += is_cut ? floats : 0;
    }
    cpu->dispatches[KERNEL_attention_merge] += used > 0;
}

static void choose_kernel(struct attention_job *job, enum kv_dtype dtype, enum kernel_id *id)
{
    const struct kernel_table *table = &job->cpu->table;
    const bool tiles = table->arithmetic == ARITHMETIC_TILES && dtype != KV_F32;
    job->queries_max = tiles ? TILE_QUERIES_MAX : ATTENTION_QUERIES_MAX;
    switch (dtype) {
    case KV_F32:
        *id = KERNEL_attention_f32;
        job->kernel = table->attention_f32;
        return;
    case KV_BF16:
        *id = tiles ? KERNEL_attention_tile_bf16 : KERNEL_attention_bf16;
        job->kernel = tiles ? table->attention_tile_bf16 : table->attention_bf16;
        return;
    default:
        ASSERT(dtype == KV_INT8);
        *id = tiles ? KERNEL_attention_tile_int8 : KERNEL_attention_int8;
        job->kernel = tiles ? table->attention_tile_int8 : table->attention_int8;
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
        .heads_per_kv = shape->n_heads / shape->n_kv_heads,
    };
    choose_kernel(&job, kv->desc.dtype, &id);
    job.heads_per_part = job.heads_per_kv < job.queries_max ? job.heads_per_kv : job.queries_max;
    job.parts = (uint32_t)div_up(job.heads_per_kv, job.heads_per_part);
    job.rows_per_unit = job.queries_max / job.heads_per_part;
    job.sharers = cpu->sharing == step ? &cpu->sharers[kv->desc.group] : NULL;
    if (job.sharers != NULL)
        make_teams(&job);
    job.n_units = job.n_team_units;
    size_t work = 0; /* keys seen by the last row of each sequence */
    for (uint32_t s = 0; s < step->n_seqs; s++) {
        job.n_units += count_units(&job, s);
        work += (size_t)step->seqs[s].n_context * step->seqs[s].n_rows;
    }
    job.n_pieces = job.n_units;
    bool parallel = work * out->width >= CPU_PARALLEL_MIN_MACS;
    if (parallel)
        make_cuts(&job);
    out->n_quantized = 0;
    cpu_run(cpu, parallel, attend_pieces, &job);
    cpu->dispatches[id]++;
}
