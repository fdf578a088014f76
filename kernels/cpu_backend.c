/* The CPU backend: creation and the table of its ops. */
#include "kernels/cpu_backend.h"

#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/available_memory.h"
#include "kernels/cpu_memory.h"

void cpu_run(struct cpu_backend *cpu, bool parallel, thread_pool_fn *fn, void *context)
{
    if (parallel && cpu->n_threads > 1)
        thread_pool_share(cpu->pool, fn, context);
    else
        fn(context, 0, 1);
}

static const char *cpu_description(const struct backend *backend)
{
    return ((const struct cpu_backend *)backend)->description;
}

/* The same for every instruction set but AMX. The numbers change with any change of the bits. */
static const char *cpu_arithmetic(const struct backend *backend)
{
    return ((const struct cpu_backend *)backend)->table.arithmetic == ARITHMETIC_TILES ? "cpu-tiles-4"
                                                                                       : "cpu-3";
}

static const struct backend_library *cpu_library(const struct backend *backend)
{
    static const struct backend_library none = {.note = "the CPU has one mode, which is batch-invariant"};
    (void)backend;
    return &none;
}

static bool cpu_library_serves(const struct weight *weight, uint32_t rows)
{
    (void)weight, (void)rows;
    return false;
}

static uint64_t cpu_memory_available(const struct backend *backend)
{
    return available_memory_bytes() / cpu_rank_count((const struct cpu_backend *)backend);
}

/* Ops run at once: a second step in flight would only wait. */
static uint32_t cpu_steps_in_flight(const struct backend *backend)
{
    (void)backend;
    return 1;
}

static err_t cpu_fault(const struct backend *backend)
{
    (void)backend;
    return err_ok();
}

/* Blocks of all backends of the process: whose they are does not matter. */
static bool cpu_tend(struct backend *backend)
{
    (void)backend;
    return cpu_memory_tend();
}

/* Of attention by several threads, for as many units as are cut at once. */
static size_t partials_floats(const struct cpu_backend *cpu, const struct backend_needs *needs)
{
    size_t chunks = div_up(needs->step.blocks_per_seq, ATTENTION_CHUNK_BLOCKS);
    if (cpu->n_threads == 1 || chunks == 1)
        return 0;
    size_t units = (size_t)cpu->n_threads * CPU_PIECES_PER_THREAD;
    size_t query = chunks * attention_partial_floats(needs->qkv.head_dim);
    size_t queries = cpu->tile_scratch == NULL ? ATTENTION_QUERIES_MAX : TILE_QUERIES_MAX;
    size_t n = units * queries * query, one_row = needs->qkv.n_heads * query;
    size_t most = one_row > CPU_PARTIALS_FLOATS_MAX ? one_row : CPU_PARTIALS_FLOATS_MAX;
    return n < most ? n : most;
}

/* Of a thread, for whatever kernel attention takes. */
static size_t attention_scratch_bytes(bool tiles)
{
    size_t n = attention_scratch_floats(HEAD_DIM_MAX);
    if (tiles && attention_tile_scratch_floats(HEAD_DIM_MAX) > n)
        n = attention_tile_scratch_floats(HEAD_DIM_MAX);
    return n * sizeof(float);
}

static size_t cpu_scratch_bytes(const struct backend *backend, const struct backend_needs *needs)
{
    const struct cpu_backend *cpu = (const struct cpu_backend *)backend;
    bool tiles = cpu->tile_scratch != NULL;
    size_t thread = attention_scratch_bytes(tiles) + (tiles ? TILE_SCRATCH_BYTES : 0);
    return step_bytes(&needs->step) + (size_t)cpu->n_threads * thread +
           partials_floats(cpu, needs) * sizeof(float);
}

static err_t cpu_reserve(struct backend *backend, const struct backend_needs *needs, uint64_t total_bytes)
{
    (void)total_bytes;
    struct cpu_backend *cpu = cpu_of(backend);
    ASSERT(cpu->partials == NULL);
    size_t n = partials_floats(cpu, needs);
    cpu->partials = n == 0 ? NULL : cpu_memory_alloc(n * sizeof(float));
    if (n > 0 && cpu->partials == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the partial results of attention");
    cpu->partials_floats = n;
    return err_ok();
}

static err_t cpu_step_create(struct backend *backend, const struct step_capacity *capacity, struct step **out)
{
    (void)backend;
    return step_create(capacity, out);
}

static void cpu_step_destroy(struct backend *backend, struct step *step)
{
    (void)backend;
    step_destroy(step);
}

static bool cpu_forward_begin(struct backend *backend, struct step *step)
{
    thread_pool_place_caller(cpu_of(backend)->pool);
    cpu_sharers_find(cpu_of(backend), step);
    return true;
}

static bool cpu_forward_end(struct backend *backend, struct step *step)
{
    (void)step;
    cpu_sharers_forget(cpu_of(backend));
    return true;
}

static bool cpu_sample_begin(struct backend *backend, struct step *step, const uint32_t *const *masks)
{
    (void)backend, (void)step, (void)masks;
    return true;
}

/* The ops have returned with their results. */
static bool cpu_sample_end(struct backend *backend, struct step *step)
{
    (void)backend, (void)step;
    return true;
}

static void cpu_collect(struct backend *backend, struct step *step)
{
    (void)backend, (void)step;
}

static void cpu_destroy(struct backend *backend)
{
    if (backend == NULL)
        return;
    struct cpu_backend *cpu = cpu_of(backend);
    cpu_leave(cpu);
    for (int i = 0; cpu->attention_scratch != NULL && i < cpu->n_threads; i++)
        cpu_memory_free(cpu->attention_scratch[i]);
    mem_free(cpu->attention_scratch);
    for (int i = 0; cpu->tile_scratch != NULL && i < cpu->n_threads; i++)
        cpu_memory_free(cpu->tile_scratch[i]);
    mem_free(cpu->tile_scratch);
    mem_free(cpu->cuts);
    cpu_memory_free(cpu->partials);
    thread_pool_destroy(cpu->pool);
    mem_free(cpu);
}

static const struct backend_vtable cpu_vtable = {
    .name = "cpu",
    .memory_share_percent = 85,
    .is_host_memory = true,
    .logits_rows_max = 32,
    .has_block_formats = true,
    .destroy = cpu_destroy,
    .description = cpu_description,
    .arithmetic = cpu_arithmetic,
    .library = cpu_library,
    .library_serves = cpu_library_serves,
    .memory_available = cpu_memory_available,
    .steps_in_flight = cpu_steps_in_flight,
    .fault = cpu_fault,
    .tend = cpu_tend,
    .weight_bytes = cpu_weight_bytes,
    .vector_bytes = cpu_vector_bytes,
    .act_bytes = cpu_act_bytes,
    .rope_bytes = cpu_rope_bytes,
    .kv_bytes = cpu_kv_bytes,
    .sampler_bytes = cpu_sampler_bytes,
    .scratch_bytes = cpu_scratch_bytes,
    .reserve = cpu_reserve,
    .weight_pack = cpu_weight_pack,
    .weight_destroy = cpu_weight_destroy,
    .packed_layout = PACKED_LAYOUT,
    .packed_bytes = cpu_packed_bytes,
    .weight_export = cpu_weight_export,
    .weight_import = cpu_weight_import,
    .vector_create = cpu_vector_create,
    .vector_destroy = cpu_vector_destroy,
    .act_create = cpu_act_create,
    .act_destroy = cpu_act_destroy,
    .rope_create = cpu_rope_create,
    .rope_destroy = cpu_rope_destroy,
    .kv_create = cpu_kv_create,
    .kv_destroy = cpu_kv_destroy,
    .sampler_create = cpu_sampler_create,
    .sampler_destroy = cpu_sampler_destroy,
    .step_create = cpu_step_create,
    .step_destroy = cpu_step_destroy,
    .forward_begin = cpu_forward_begin,
    .forward_end = cpu_forward_end,
    .sample_begin = cpu_sample_begin,
    .sample_end = cpu_sample_end,
    .collect = cpu_collect,
    .join = cpu_join,
    .all_reduce = cpu_all_reduce,
    .all_gather = cpu_all_gather,
    .embed = cpu_embed,
    .add_norm = cpu_add_norm,
    .linear = cpu_linear,
    .rope_kv_write = cpu_rope_kv_write,
    .kv_copy = cpu_kv_copy,
    .attention = cpu_attention,
    .activation_mul = cpu_activation_mul,
    .gather_outputs = cpu_gather_outputs,
    .logits = cpu_logits,
    .sample = cpu_sample,
    .slot_set = cpu_slot_set,
    .act_write = cpu_act_write,
    .act_read = cpu_act_read,
};

/* Of every thread; false: not enough memory. */
static bool create_scratch(struct cpu_backend *cpu)
{
    bool tiles = cpu->table.arithmetic == ARITHMETIC_TILES, enough = true;
    size_t n = (size_t)cpu->n_threads;
    cpu->attention_scratch = mem_alloc_array(n, sizeof cpu->attention_scratch[0]);
    cpu->tile_scratch = tiles ? mem_alloc_array(n, sizeof cpu->tile_scratch[0]) : NULL;
    if (cpu->attention_scratch == NULL || (tiles && cpu->tile_scratch == NULL))
        return false;
    for (size_t i = 0; enough && i < n; i++) {
        cpu->attention_scratch[i] = cpu_memory_alloc(attention_scratch_bytes(tiles));
        enough = cpu->attention_scratch[i] != NULL;
        if (enough && tiles) {
            cpu->tile_scratch[i] = cpu_memory_alloc(TILE_SCRATCH_BYTES);
            enough = cpu->tile_scratch[i] != NULL;
        }
    }
    cpu->cuts = mem_alloc_array(n * CPU_PIECES_PER_THREAD, sizeof cpu->cuts[0]);
    return enough && cpu->cuts != NULL;
}

err_t cpu_backend_create(int n_threads, enum isa_level highest, enum arithmetic arithmetic,
                         struct backend **out)
{
    *out = NULL;
    struct cpu_backend *cpu = mem_alloc(sizeof *cpu);
    if (cpu == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the CPU backend");
    cpu->base.vtable = &cpu_vtable;
    err_t e = thread_pool_create(n_threads, &cpu->pool);
    if (e.code != ERR_OK) {
        mem_free(cpu);
        return e;
    }
    cpu->n_threads = thread_pool_size(cpu->pool);
    kernel_table_fill(&cpu->table, highest);
    cpu->table.arithmetic = arithmetic;
    snprintf(cpu->description, sizeof cpu->description, "CPU, %s, %d thread%s", isa_name(highest),
             cpu->n_threads, cpu->n_threads == 1 ? "" : "s");
    int n_nodes = thread_pool_node_count(cpu->pool);
    if (n_nodes > 1) {
        size_t at = strlen(cpu->description);
        (void)snprintf(cpu->description + at, sizeof cpu->description - at, " on %d memory nodes", n_nodes);
    }
    if (!create_scratch(cpu)) {
        cpu_destroy(&cpu->base);
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the scratch of %d threads", n_threads);
    }
    *out = &cpu->base;
    return err_ok();
}

err_t backend_cpu_create(int n_threads, const char *isa, struct backend **out)
{
    *out = NULL;
    enum isa_level highest;
    TRY(isa_parse(isa, &highest));
    highest = isa_at_most(highest);
    return cpu_backend_create(n_threads, highest, isa_arithmetic(highest), out);
}
