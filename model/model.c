#include "model/model.h"

#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/thread_pool.h"
#include "model/fingerprint.h"
#include "model/model_internal.h"
#include "model/survey.h"

static err_t survey_once(const struct model_options *options, struct survey *survey, struct memory_plan *plan)
{
    TRY(survey_open(options, survey));
    /* No rank has more than the first. */
    struct model_config config = shard_config(&survey->config, &survey->shards[0]);
    return memory_plan_compute(&survey->options, &config, &survey->shards[0], &survey->lists[0],
                               survey->backends[0], plan);
}

/* A GPU that is too small for the model is none to `auto`. */
static err_t survey_make(const struct model_options *options, struct survey *survey, struct memory_plan *plan)
{
    err_t e = survey_once(options, survey, plan);
    const char *device = survey->options.device;
    if (e.code != ERR_RESOURCE_EXHAUSTED || device == NULL || strcmp(device, "auto") != 0)
        return e;
    log_warn("model", "--device auto takes the CPU: %s", e.message);
    struct model_options on_cpu = *options;
    on_cpu.device = "cpu";
    survey_free(survey);
    return survey_once(&on_cpu, survey, plan);
}

err_t model_plan_memory(const struct model_options *options, struct memory_plan *out)
{
    struct survey survey = {0};
    err_t e = survey_make(options, &survey, out);
    survey_free(&survey);
    return e;
}

/* ---- Loading ---- */

/* What the checkpoint brings, else what was asked for. */
static const char *quantization_of(const struct model *model, const struct survey *survey)
{
    const struct model_options *options = &survey->options;
    if (!options->dummy_weights && model->config.quantization.method)
        return model->config.quantization.method;
    return survey->lists[0].n_of_blocks > 0 ? "gguf" : MODEL_QUANTIZATION_NAMES[options->quantization];
}

static void describe(struct model *model, const struct survey *survey, uint64_t weights_fingerprint)
{
    const struct model_options *options = &survey->options;
    const struct weight_list *list = &survey->lists[0];
    const struct backend *backend = model->ranks[0].backend;
    enum kv_dtype kv_dtype = model_kv_dtype(options->kv_cache, list->dtype);
    model->description = (struct model_description){
        .architecture = model->config.family->architecture,
        .dtype = MODEL_DTYPE_NAMES[list->dtype],
        .kv_dtype = model_kv_dtype_name(kv_dtype),
        .quantization = quantization_of(model, survey),
        .backend = backend->vtable->description(backend),
        .vocab_size = model->config.vocab_size,
        .n_layers = model->config.n_layers,
        .hidden_size = model->config.hidden_size,
        .max_model_len = model->plan.max_model_len,
        .n_ranks = model->n_ranks,
        .n_parameters = list->n_parameters,
        .weights_fingerprint = weights_fingerprint,
        .arithmetic_fingerprint =
            fingerprint_arithmetic(list->dtype, options->quantization, weight_list_group(options), kv_dtype,
                                   model->n_ranks, backend),
    };
}

/* The first rank alone, or each on its thread: what they read and write apart from their step is their own.
 */
static err_t load_ranks(struct model *model, struct survey *survey, struct thread_pool *pool)
{
    const struct model_options *options = &survey->options;
    struct progress progress;
    uint64_t done_bytes = 0;
    progress_begin(&progress, "loading weights", model->plan.weights_bytes * model->n_ranks);
    progress.enabled = progress.enabled && options->show_progress;
    err_t e = err_ok();
    for (uint32_t i = 0; i < model->n_ranks && e.code == ERR_OK; i++) {
        struct rank_source source = {
            .list = &survey->lists[i],
            .checkpoint = survey->checkpoint,
            .packed = model->packed.path ? &model->packed : NULL,
            .pool = pool,
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

static err_t load(struct model *model, struct survey *survey, uint64_t weights_fingerprint)
{
    TRY(generation_config_load(survey->options.directory, model->config.vocab_size, &model->generation));
    describe(model, survey, weights_fingerprint);
    if (model->n_ranks > 1)
        TRY(thread_pool_create((int)model->n_ranks, &model->drivers));
    if (!model->packed.path)
        return load_ranks(model, survey, NULL);
    struct thread_pool *pool;
    TRY(thread_pool_create(survey->options.n_threads, &pool));
    err_t e = load_ranks(model, survey, pool);
    thread_pool_destroy(pool);
    return e;
}

/* The model owns the backends, and the file that its weights may lie in, from here on. */
static void take_ranks(struct model *model, struct survey *survey)
{
    model->config = survey->config;
    model->packed = survey->packed;
    survey->packed = (struct packed_file){0};
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
    uint64_t fingerprint;
    struct model *model = mem_alloc(sizeof *model);
    if (!model)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory");
    err_t e = survey_make(options, &survey, &model->plan);
    if (e.code == ERR_OK) {
        if (on_plan)
            on_plan(&model->plan);
        survey_warn(&survey);
        e = survey_fingerprint(&survey, &fingerprint);
        take_ranks(model, &survey);
        if (e.code == ERR_OK)
            e = load(model, &survey, fingerprint);
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
    packed_file_close(&model->packed);
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
