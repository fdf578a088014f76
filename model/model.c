#include "model/model.h"

#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/thread_pool.h"
#include "model/fingerprint.h"
#include "model/gguf_config.h"
#include "model/model_internal.h"

enum { UNUSED_NAMED_MAX = 8 }; /* tensors that the warning names; the others are counted */

/* What is known of a model before anything large is allocated. */
struct survey {
    struct model_config config;
    struct checkpoint *checkpoint; /* NULL = dummy weights */
    uint32_t n_ranks;
    struct shard shards[MODEL_RANKS_MAX];
    struct weight_list lists[MODEL_RANKS_MAX];
    struct backend *backends[MODEL_RANKS_MAX];
};

static void survey_free(struct survey *survey)
{
    for (uint32_t i = 0; i < survey->n_ranks; i++) {
        weight_list_free(&survey->lists[i]);
        if (survey->backends[i])
            survey->backends[i]->vtable->destroy(survey->backends[i]);
    }
    checkpoint_close(survey->checkpoint);
    *survey = (struct survey){0};
}

/* The ranks share the CPUs. */
static err_t create_cpu(const struct model_options *options, uint32_t n_ranks, struct backend **out)
{
    int n_threads = options->n_threads;
    if (n_ranks > 1) {
        n_threads = (n_threads > 0 ? n_threads : usable_cpu_count()) / (int)n_ranks;
        n_threads = n_threads > 1 ? n_threads : 1;
    }
    return backend_cpu_create(n_threads, options->isa ? options->isa : "auto", out);
}

/* The backend of one rank; GPUs are taken one after the other. dtype: as computed, never AUTO. */
static err_t create_backend(const struct model_options *options, const struct shard *shard,
                            enum model_dtype dtype, struct backend **out)
{
    const char *device = options->device ? options->device : "cpu";
    if (strcmp(device, "cpu") == 0)
        return create_cpu(options, shard->n_ranks, out);
    struct backend_cuda_options cuda = {.device = (int)shard->rank,
                                        .f32 = dtype == MODEL_DTYPE_F32,
                                        .eager = options->enforce_eager,
                                        .batch_variant = options->batch_variant,
                                        .library_rows_min = options->library_rows_min,
                                        .n_threads = options->n_threads};
    if (strcmp(device, "auto") == 0) {
        err_t e = backend_cuda_create(&cuda, out);
        if (e.code == ERR_OK)
            return e;
        log_info("model", "--device auto takes the CPU: %s", e.message);
        return create_cpu(options, shard->n_ranks, out);
    }
    int first;
    if (!backend_cuda_parse(device, &first))
        return err_new(ERR_UNIMPLEMENTED,
                       "--device \"%.60s\" is not known; known are cpu, cuda, cuda:N and auto", device);
    cuda.device += first;
    return backend_cuda_create(&cuda, out);
}

/* survey stays where it is until freed: the lists' sources point into it. */
static err_t survey_ranks(const struct model_options *options, struct survey *survey)
{
    uint32_t n_ranks = options->n_ranks ? options->n_ranks : 1;
    enum model_dtype dtype = weight_list_dtype(&survey->config, survey->checkpoint, options);
    for (uint32_t i = 0; i < n_ranks; i++) {
        TRY(shard_make(&survey->config, n_ranks, i, &survey->shards[i]));
        survey->n_ranks = i + 1;
    }
    for (uint32_t i = 0; i < n_ranks; i++) {
        TRY(create_backend(options, &survey->shards[i], dtype, &survey->backends[i]));
        TRY(weight_list_create(&survey->config, &survey->shards[i], survey->checkpoint, options,
                               survey->backends[i], &survey->lists[i]));
    }
    return n_ranks > 1 ? survey->backends[0]->vtable->join(survey->backends, n_ranks) : err_ok();
}

static err_t survey_make(const struct model_options *options, struct survey *survey, struct memory_plan *plan)
{
    TRY(model_config_load(options->directory, &survey->config));
    if (!options->dummy_weights)
        TRY(checkpoint_open(options->directory, &survey->checkpoint));
    TRY(survey_ranks(options, survey));
    /* No rank has more than the first. */
    struct model_config config = shard_config(&survey->config, &survey->shards[0]);
    return memory_plan_compute(options, &config, &survey->shards[0], &survey->lists[0], survey->backends[0],
                               plan);
}

err_t model_plan_memory(const struct model_options *options, struct memory_plan *out)
{
    struct survey survey = {0};
    err_t e = survey_make(options, &survey, out);
    survey_free(&survey);
    return e;
}

static void warn_unused(const char *directory, const struct checkpoint *checkpoint)
{
    char names[512] = "";
    size_t used = 0, n_unused = 0;
    for (size_t i = 0; i < checkpoint_count(checkpoint); i++) {
        const struct checkpoint_tensor *tensor = checkpoint_at(checkpoint, i);
        /* Old Llama checkpoints carry the rotary table, which is computed here; GGUF files carry divisors of
         * its frequencies, which the configuration has. */
        if (tensor->used || strstr(tensor->info->name, ".rotary_emb.inv_freq") ||
            strcmp(tensor->info->name, GGUF_ROPE_DIVISORS) == 0)
            continue;
        if (n_unused++ < UNUSED_NAMED_MAX && used < sizeof names) {
            int n = snprintf(names + used, sizeof names - used, "%s%s", used ? ", " : "", tensor->info->name);
            used += n > 0 ? (size_t)n : 0;
        }
    }
    if (n_unused > 0)
        log_warn("model", "%s: %zu tensors of the checkpoint are not used: %s%s", directory, n_unused, names,
                 n_unused > UNUSED_NAMED_MAX ? ", ..." : "");
}

static const char *dtype_name(enum model_dtype dtype)
{
    switch (dtype) {
    case MODEL_DTYPE_F32:
        return "float32";
    case MODEL_DTYPE_F16:
        return "float16";
    case MODEL_DTYPE_BF16:
    case MODEL_DTYPE_AUTO:
        break;
    }
    return "bfloat16";
}

static void warn_widened(const char *directory, const struct weight_list *list)
{
    if (list->n_widened > 0)
        log_warn("model", "%s: the codes of %zu matrices become %s numbers, larger and slower: they have %s",
                 directory, list->n_widened, dtype_name(list->dtype), list->widened_why);
}

/* ---- Loading ---- */

static const char *quantization_name(enum model_quantization quantization)
{
    static const char *const names[] = {
        [MODEL_QUANT_NONE] = "none", [MODEL_QUANT_INT8] = "int8", [MODEL_QUANT_INT4] = "int4",
        [MODEL_QUANT_W8A8] = "w8a8", [MODEL_QUANT_FP8] = "fp8",
    };
    return names[quantization];
}

/* What the checkpoint brings, else what was asked for. */
static const char *quantization_of(const struct model *model, const struct survey *survey,
                                   const struct model_options *options)
{
    if (survey->checkpoint && model->config.quantization.method)
        return model->config.quantization.method;
    return survey->lists[0].n_of_blocks > 0 ? "gguf" : quantization_name(options->quantization);
}

static err_t describe(struct model *model, const struct survey *survey, const struct model_options *options)
{
    const struct weight_list *list = &survey->lists[0];
    const struct backend *backend = model->ranks[0].backend;
    struct model_description *out = &model->description;
    *out = (struct model_description){
        .architecture = model->config.family->architecture,
        .dtype = dtype_name(list->dtype),
        .quantization = quantization_of(model, survey, options),
        .backend = backend->vtable->description(backend),
        .vocab_size = model->config.vocab_size,
        .n_layers = model->config.n_layers,
        .hidden_size = model->config.hidden_size,
        .max_model_len = model->plan.max_model_len,
        .n_ranks = model->n_ranks,
        .n_parameters = list->n_parameters,
        .arithmetic_fingerprint =
            fingerprint_arithmetic(list->dtype, options->quantization, weight_list_group(options),
                                   model_kv_dtype(options->kv_cache, list->dtype), model->n_ranks, backend),
    };
    return fingerprint_weights(&model->config, survey->checkpoint, options->dummy_seed,
                               &out->weights_fingerprint);
}

/* The first rank alone, or each on its thread: what they read and write apart from their step is their own.
 */
static err_t load_ranks(struct model *model, struct survey *survey, const struct model_options *options)
{
    struct progress progress;
    uint64_t done_bytes = 0;
    progress_begin(&progress, "loading weights", model->plan.weights_bytes * model->n_ranks);
    progress.enabled = progress.enabled && options->show_progress;
    err_t e = err_ok();
    for (uint32_t i = 0; i < model->n_ranks && e.code == ERR_OK; i++) {
        struct rank_source source = {
            .list = &survey->lists[i],
            .checkpoint = survey->checkpoint,
            .plan = &model->plan,
            .kv_dtype = model_kv_dtype(options->kv_cache, survey->lists[i].dtype),
            .progress = &progress,
            .done_bytes = &done_bytes,
        };
        e = rank_create(&model->ranks[i], &source);
        if (e.code == ERR_OK)
            e = rank_load_weights(&model->ranks[i], &source);
    }
    progress_end(&progress);
    return e;
}

static err_t load(struct model *model, struct survey *survey, const struct model_options *options)
{
    TRY(generation_config_load(options->directory, model->config.vocab_size, &model->generation));
    TRY(describe(model, survey, options));
    if (model->n_ranks > 1)
        TRY(thread_pool_create((int)model->n_ranks, &model->drivers));
    return load_ranks(model, survey, options);
}

/* The model owns the backends from here on. */
static void take_ranks(struct model *model, struct survey *survey)
{
    model->config = survey->config;
    model->n_ranks = survey->n_ranks;
    for (uint32_t i = 0; i < survey->n_ranks; i++) {
        model->ranks[i].shard = survey->shards[i];
        model->ranks[i].config = shard_config(&survey->config, &survey->shards[i]);
        model->ranks[i].backend = survey->backends[i];
        survey->backends[i] = NULL;
    }
}

err_t model_load(const struct model_options *options, void (*on_plan)(const struct memory_plan *plan),
                 struct model **out)
{
    *out = NULL;
    struct survey survey = {0};
    struct model *model = mem_alloc(sizeof *model);
    if (!model)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory");
    err_t e = survey_make(options, &survey, &model->plan);
    if (e.code == ERR_OK) {
        if (on_plan)
            on_plan(&model->plan);
        if (survey.checkpoint)
            warn_unused(options->directory, survey.checkpoint);
        warn_widened(options->directory, &survey.lists[0]);
        take_ranks(model, &survey);
        e = load(model, &survey, options);
    }
    survey_free(&survey);
    if (e.code != ERR_OK) {
        model_destroy(model);
        return e;
    }
    const struct backend *backend = model->ranks[0].backend;
    if (options->batch_variant)
        log_info("model", "--no-batch-invariant: %s", backend->vtable->library(backend)->note);
    *out = model;
    return e;
}

void model_destroy(struct model *model)
{
    if (!model)
        return;
    thread_pool_destroy(model->drivers);
    for (uint32_t i = 0; i < model->n_ranks; i++)
        rank_destroy(&model->ranks[i]);
    mem_free(model);
}

const struct memory_plan *model_memory_plan(const struct model *model)
{
    return &model->plan;
}

const struct model_description *model_describe(const struct model *model)
{
    return &model->description;
}

const struct generation_config *model_generation_config(const struct model *model)
{
    return &model->generation;
}

uint32_t model_steps_in_flight(const struct model *model)
{
    const struct backend *backend = model->ranks[0].backend;
    return backend->vtable->steps_in_flight(backend);
}
