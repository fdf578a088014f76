/* The CUDA backend: creation, and the table of its ops. */
#include "kernels/cuda/cuda_backend.h"

#include <stdio.h>
#include "base/alloc.h"

/* What graphs, lazily loaded kernels and the libraries take of the device beside the plan. */
enum { CUDA_HELD_BACK_BYTES = 384 << 20 };

void cuda_launch(struct cuda_backend *cuda, enum cuda_kernel_id kernel, const uint32_t grid[3],
                 uint32_t block_threads, uint32_t shared_bytes, const void *args, size_t args_bytes)
{
    cuda_turn_flush(cuda);
    cuda->quantized = NULL;
    if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0)
        return;
    struct launch launch = {
        .kernel = kernel,
        .grid = {grid[0], grid[1], grid[2]},
        .block_threads = block_threads,
        .shared_bytes = shared_bytes,
        .args = args,
        .args_bytes = args_bytes,
        .flags = cuda->behind_library ? 0 : LAUNCH_PDL,
    };
    cuda->behind_library = false;
    (void)CUDA_STEP(cuda, cuda->api->launch(cuda->device, cuda->stream, &launch));
}

static const char *cuda_description(const struct backend *backend)
{
    return cuda_of_const(backend)->description;
}

/* The architecture is named: their matrix instructions need not round alike. The number changes with any
 * change of the bits. */
static const char *cuda_arithmetic(const struct backend *backend)
{
    return cuda_of_const(backend)->arithmetic;
}

static uint64_t cuda_memory_available(const struct backend *backend)
{
    const struct cuda_backend *cuda = cuda_of_const(backend);
    uint64_t bytes;
    if (cuda->api->memory_free_bytes(cuda->device, &bytes).code != ERR_OK)
        return 0;
    uint64_t held_back = bytes / 8 < CUDA_HELD_BACK_BYTES ? bytes / 8 : CUDA_HELD_BACK_BYTES;
    return bytes - held_back;
}

static uint32_t cuda_steps_in_flight(const struct backend *backend)
{
    (void)backend;
    return CUDA_FLIGHTS_MAX;
}

static err_t cuda_reserve(struct backend *backend, const struct backend_needs *needs, uint64_t total_bytes)
{
    struct cuda_backend *cuda = cuda_of(backend);
    ASSERT(!cuda->is_reserved && needs->logits_rows > 0 && needs->widest_in > 0);
    TRY(cuda_ranks_check(cuda, needs));
    cuda->needs = *needs;
    cuda_graphs_plan(&cuda->graphs,
                     needs->step.seqs < needs->step.rows ? needs->step.seqs : needs->step.rows);
    TRY(cuda_memory_reserve(cuda, total_bytes));
    TRY(cuda_scratch_create(cuda));
    cuda->is_reserved = true;
    return err_ok();
}

static void cuda_destroy(struct backend *backend)
{
    if (backend == NULL)
        return;
    struct cuda_backend *cuda = cuda_of(backend);
    for (int i = 0; i < CUDA_FLIGHTS_MAX; i++)
        ASSERT(cuda->flights[i].step == NULL);
    if (cuda->device != NULL) {
        /* Uploads may still be under way. */
        if (cuda->stream != NULL && cuda_is_alive(cuda))
            (void)cuda->api->stream_wait(cuda->device, cuda->stream);
        cuda_graphs_destroy(cuda);
        cuda_products_close(cuda);
        cuda_leave(cuda);
        cuda_memory_release(cuda);
        if (cuda->stream != NULL)
            cuda->api->stream_destroy(cuda->device, cuda->stream);
        if (cuda->results_stream != NULL)
            cuda->api->stream_destroy(cuda->device, cuda->results_stream);
        cuda->api->close(cuda->device);
    }
    thread_pool_destroy(cuda->pool);
    mem_free(cuda);
}

static const struct backend_vtable cuda_vtable = {
    .name = "cuda",
    .memory_share_percent = 98,
    .logits_rows_max = CUDA_LOGITS_ROWS_MAX,
    .destroy = cuda_destroy,
    .description = cuda_description,
    .arithmetic = cuda_arithmetic,
    .library = cuda_library,
    .library_serves = cuda_library_serves,
    .memory_available = cuda_memory_available,
    .steps_in_flight = cuda_steps_in_flight,
    .fault = cuda_fault,
    .weight_bytes = cuda_weight_bytes,
    .vector_bytes = cuda_vector_bytes,
    .act_bytes = cuda_act_bytes,
    .rope_bytes = cuda_rope_bytes,
    .kv_bytes = cuda_kv_bytes,
    .sampler_bytes = cuda_sampler_bytes,
    .scratch_bytes = cuda_scratch_bytes,
    .reserve = cuda_reserve,
    .weight_pack = cuda_weight_pack,
    .weight_destroy = cuda_weight_destroy,
    .vector_create = cuda_vector_create,
    .vector_destroy = cuda_vector_destroy,
    .act_create = cuda_act_create,
    .act_destroy = cuda_act_destroy,
    .rope_create = cuda_rope_create,
    .rope_destroy = cuda_rope_destroy,
    .kv_create = cuda_kv_create,
    .kv_destroy = cuda_kv_destroy,
    .sampler_create = cuda_sampler_create,
    .sampler_destroy = cuda_sampler_destroy,
    .step_create = cuda_step_create,
    .step_destroy = cuda_step_destroy,
    .forward_begin = cuda_forward_begin,
    .forward_end = cuda_forward_end,
    .sample_begin = cuda_sample_begin,
    .sample_end = cuda_sample_end,
    .collect = cuda_collect,
    .join = cuda_join,
    .all_reduce = cuda_all_reduce,
    .all_gather = cuda_all_gather,
    .embed = cuda_embed,
    .add_norm = cuda_add_norm,
    .linear = cuda_linear,
    .rope_kv_write = cuda_rope_kv_write,
    .kv_copy = cuda_kv_copy,
    .attention = cuda_attention,
    .activation_mul = cuda_activation_mul,
    .gather_outputs = cuda_gather_outputs,
    .logits = cuda_logits,
    .sample = cuda_sample,
    .slot_set = cuda_slot_set,
    .act_write = cuda_act_write,
    .act_read = cuda_act_read,
};

static void describe(struct cuda_backend *cuda)
{
    const struct device_properties *p = cuda->properties;
    snprintf(cuda->description, sizeof cuda->description, "%s (compute capability %u.%u, %.1f GiB, %s)",
             p->name, p->capability / 10, p->capability % 10,
             (double)p->memory_bytes / (1024.0 * 1024 * 1024), cuda->f32 ? "float32" : "bfloat16");
    int n = snprintf(cuda->arithmetic, sizeof cuda->arithmetic, "cuda-1 sm_%u %s", p->capability,
                     cuda->f32 ? "f32" : "bf16");
    const struct product_policy *policy = &cuda->products.policy;
    if (cuda->products.is_open && policy->batch_variant)
        snprintf(cuda->arithmetic + n, sizeof cuda->arithmetic - (size_t)n, " cublaslt %u from %u, %u",
                 policy->library_version, product_policy_rows_min(policy, PRODUCT_BF16),
                 product_policy_rows_min(policy, PRODUCT_E4M3));
}

static err_t open_device(struct cuda_backend *cuda, const struct backend_cuda_options *options)
{
    const struct device_api *api = cuda->api;
    TRY(api->open(options->device, &cuda->device));
    cuda->properties = api->properties(cuda->device);
    TRY(cuda_code_check(cuda));
    TRY(api->stream_create(cuda->device, &cuda->stream));
    TRY(api->stream_create(cuda->device, &cuda->results_stream));
    TRY(cuda_products_open(cuda, options));
    return thread_pool_create(options->n_threads, &cuda->pool);
}

err_t cuda_backend_create(const struct device_api *api, const struct backend_cuda_options *options,
                          struct backend **out)
{
    *out = NULL;
    struct cuda_backend *cuda = mem_alloc(sizeof *cuda);
    if (cuda == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the CUDA backend");
    cuda->base.vtable = &cuda_vtable;
    cuda->api = api;
    cuda->ordinal = options->device;
    cuda->f32 = options->f32;
    cuda->eager = options->eager;
    kernel_table_fill(&cuda->table, isa_detect());
    err_t e = open_device(cuda, options);
    if (e.code != ERR_OK) {
        cuda_destroy(&cuda->base);
        return e;
    }
    describe(cuda);
    *out = &cuda->base;
    return e;
}
