#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/log.h"
#include "base/progress.h"
#include "model/fingerprint.h"
#include "model/model_internal.h"

enum { UNUSED_NAMED_MAX = 8 }; /* tensors that the warning names; the others are counted */

/* What is known of a model before anything large is allocated. */
struct survey {
    struct model_config config;
    struct checkpoint *checkpoint; /* NULL = dummy weights */
    struct weight_list list;
    struct backend *backend;
};

static void survey_free(struct survey *survey)
{
    weight_list_free(&survey->list);
    checkpoint_close(survey->checkpoint);
    if (survey->backend)
        survey->backend->vtable->destroy(survey->backend);
    *survey = (struct survey){0};
}

static err_t create_cpu(const struct model_options *options, struct backend **out)
{
    return backend_cpu_create(options->n_threads, options->isa ? options->isa : "auto", out);
}

/* dtype: as computed, never AUTO. */
static err_t create_backend(const struct model_options *options, enum model_dtype dtype, struct backend **out)
{
    const char *device = options->device ? options->device : "cpu";
    if (strcmp(device, "cpu") == 0)
        return create_cpu(options, out);
    struct backend_cuda_options cuda = {.f32 = dtype == MODEL_DTYPE_F32, .n_threads = options->n_threads};
    if (strcmp(device, "auto") == 0) {
        err_t e = backend_cuda_create(&cuda, out);
        if (e.code == ERR_OK)
            return e;
        log_info("model", "--device auto takes the CPU: %s", e.message);
        return create_cpu(options, out);
    }
    int end = -1;
    if (strcmp(device, "cuda") != 0 &&
        (sscanf(device, "cuda:%3d%n", &cuda.device, &end) != 1 || device[end] != '\0' || cuda.device < 0))
        return err_new(ERR_UNIMPLEMENTED,
                       "--device \"%.60s\" is not known; known are cpu, cuda, cuda:N and auto", device);
    return backend_cuda_create(&cuda, out);
}

/* survey stays where it is until freed: the list's sources point into it. */
static err_t survey_make(const struct model_options *options, struct survey *survey, struct memory_plan *plan)
{
    TRY(model_config_load(options->directory, &survey->config));
    if (!options->dummy_weights)
        TRY(checkpoint_open(options->directory, &survey->checkpoint));
    TRY(weight_list_create(&survey->config, survey->checkpoint, options, &survey->list));
    TRY(create_backend(options, survey->list.dtype, &survey->backend));
    return memory_plan_compute(options, &survey->config, &survey->list, survey->backend, plan);
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
        /* Old Llama checkpoints carry the rotary table, which is computed here. */
        if (tensor->used || strstr(tensor->info->name, ".rotary_emb.inv_freq"))
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

/* ---- Loading ---- */

struct loader {
    struct model *model;
    struct survey *survey;
    struct progress progress;
    uint64_t done_bytes;
};

static err_t load_matrix(struct loader *loader, size_t index, struct weight **out)
{
    const struct weight_list *list = &loader->survey->list;
    const struct weight_source *source = &list->matrices[index];
    struct backend *backend = loader->model->backend;
    if (loader->survey->checkpoint && index + 1 < list->n_matrices) {
        const struct weight_source *next = &list->matrices[index + 1];
        for (uint32_t i = 0; i < next->n_parts; i++)
            checkpoint_prefetch(loader->survey->checkpoint, next->parts[i].tensor);
    }
    struct weight_desc desc = weight_source_desc(source);
    float *bias = NULL;
    if (source->n_biases > 0) {
        bias = mem_alloc_array(source->n_out, sizeof *bias);
        if (!bias)
            return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the bias of %s", source->name);
        err_t e = weight_source_read_bias(source, bias);
        if (e.code != ERR_OK) {
            mem_free(bias);
            return e;
        }
        desc.bias = bias;
    }
    err_t e = backend->vtable->weight_pack(backend, &desc, out);
    mem_free(bias);
    TRY(e);
    loader->done_bytes += backend->vtable->weight_bytes(backend, &desc);
    progress_update(&loader->progress, loader->done_bytes);
    return weight_list_fault(&loader->survey->list);
}

static err_t load_vector(struct loader *loader, size_t index, struct vector **out)
{
    const struct weight_source *source = &loader->survey->list.vectors[index];
    float *values = mem_alloc_array(source->n_in, sizeof *values);
    if (!values)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %s", source->name);
    err_t e = weight_source_read_vector(source, values);
    struct backend *backend = loader->model->backend;
    if (e.code == ERR_OK)
        e = backend->vtable->vector_create(backend, values, source->n_in, out);
    mem_free(values);
    return e;
}

static err_t load_layer(struct loader *loader, uint32_t index)
{
    struct model *model = loader->model;
    const struct model_config *config = &model->config;
    struct layer *layer = &model->layers[index];
    size_t matrix = (size_t)index * LAYER_MATRICES, vector = (size_t)index * LAYER_VECTORS;
    TRY(load_vector(loader, vector + LAYER_ATTENTION_NORM, &layer->attention_norm));
    TRY(load_vector(loader, vector + LAYER_MLP_NORM, &layer->mlp_norm));
    TRY(load_matrix(loader, matrix + LAYER_QKV, &layer->qkv));
    TRY(load_matrix(loader, matrix + LAYER_O, &layer->o));
    TRY(load_matrix(loader, matrix + LAYER_GATE_UP, &layer->gate_up));
    TRY(load_matrix(loader, matrix + LAYER_DOWN, &layer->down));
    layer->attention = (struct attention_params){
        .shape = {config->n_heads, config->n_kv_heads, config->head_dim},
        .scale = 1.0f / sqrtf((float)config->head_dim),
        .window = config->layer_windowed[index] ? config->window : 0,
        .soft_cap = 0.0f,
    };
    return err_ok();
}

static err_t load_weights(struct loader *loader)
{
    struct model *model = loader->model;
    size_t n_layers = model->config.n_layers;
    for (uint32_t i = 0; i < n_layers; i++)
        TRY(load_layer(loader, i));
    TRY(load_vector(loader, n_layers * LAYER_VECTORS, &model->final_norm));
    TRY(load_matrix(loader, n_layers * LAYER_MATRICES, &model->embedding));
    if (loader->survey->list.tied) {
        model->lm_head = model->embedding;
        return err_ok();
    }
    return load_matrix(loader, n_layers * LAYER_MATRICES + 1, &model->lm_head);
}

/* Before the weights: a KV format that the backend lacks is then refused at once. */
static err_t create_layers(struct loader *loader, enum kv_dtype kv_dtype)
{
    struct model *model = loader->model;
    size_t n_layers = model->config.n_layers;
    model->layers = mem_alloc_array(n_layers, sizeof *model->layers);
    if (!model->layers)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %zu layers", n_layers);
    struct kv_desc kv = model_kv_desc(&model->config, kv_dtype, model->plan.num_kv_blocks);
    for (size_t i = 0; i < n_layers; i++)
        TRY(model->backend->vtable->kv_create(model->backend, &kv, &model->layers[i].kv));
    return err_ok();
}

static err_t create_acts(struct model *model)
{
    struct model_acts *acts = &model->acts;
    struct act **const out[MODEL_ACTS] = {
        [MODEL_ACT_RESIDUAL] = &acts->residual,
        [MODEL_ACT_NORMED] = &acts->normed,
        [MODEL_ACT_DELTA] = &acts->delta,
        [MODEL_ACT_QKV] = &acts->qkv,
        [MODEL_ACT_ATTENTION] = &acts->attention,
        [MODEL_ACT_GATE_UP] = &acts->gate_up,
        [MODEL_ACT_MLP] = &acts->mlp,
        [MODEL_ACT_OUTPUT_HIDDEN] = &acts->output_hidden,
        [MODEL_ACT_LOGITS] = &acts->logits,
    };
    for (int act = 0; act < MODEL_ACTS; act++) {
        struct act_spec spec = model_act_spec(&model->config, &model->plan, (enum model_act)act);
        TRY(model->backend->vtable->act_create(model->backend, spec.role, spec.rows, spec.width, out[act]));
    }
    return err_ok();
}

static err_t create_rope(struct model *model)
{
    float inv_freq[MODEL_HEAD_DIM_MAX / 2];
    rope_frequencies(&model->config.rope, model->config.head_dim, inv_freq);
    return model->backend->vtable->rope_create(model->backend, inv_freq, model->config.head_dim / 2, 1.0f,
                                               model->plan.max_model_len, &model->rope);
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

static const char *quantization_name(enum model_quantization quantization)
{
    static const char *const names[] = {
        [MODEL_QUANT_NONE] = "none",
        [MODEL_QUANT_INT8] = "int8",
        [MODEL_QUANT_INT4] = "int4",
        [MODEL_QUANT_FP8] = "fp8",
    };
    return names[quantization];
}

static err_t describe(struct loader *loader, const struct model_options *options)
{
    struct model *model = loader->model;
    const struct survey *survey = loader->survey;
    struct model_description *out = &model->description;
    *out = (struct model_description){
        .architecture = model->config.family->architecture,
        .dtype = dtype_name(survey->list.dtype),
        .quantization = quantization_name(options->quantization),
        .backend = model->backend->vtable->description(model->backend),
        .vocab_size = model->config.vocab_size,
        .n_layers = model->config.n_layers,
        .hidden_size = model->config.hidden_size,
        .max_model_len = model->plan.max_model_len,
        .n_parameters = survey->list.n_parameters,
        .arithmetic_fingerprint =
            fingerprint_arithmetic(survey->list.dtype, options->quantization,
                                   model_kv_dtype(options->kv_cache, survey->list.dtype), model->backend),
    };
    return fingerprint_weights(&model->config, survey->checkpoint, options->dummy_seed,
                               &out->weights_fingerprint);
}

static err_t load(struct loader *loader, const struct model_options *options)
{
    struct model *model = loader->model;
    const struct memory_plan *plan = &model->plan;
    TRY(generation_config_load(options->directory, model->config.vocab_size, &model->generation));
    TRY(describe(loader, options));
    struct backend_needs needs = model_backend_needs(&model->config, plan);
    TRY(model->backend->vtable->reserve(model->backend, &needs, plan->total_bytes));
    TRY(create_layers(loader, model_kv_dtype(options->kv_cache, loader->survey->list.dtype)));
    TRY(create_acts(model));
    TRY(create_rope(model));
    TRY(model->backend->vtable->sampler_create(model->backend, plan->max_num_seqs, model->config.vocab_size,
                                               plan->max_model_len, &model->sampler));
    progress_begin(&loader->progress, "loading weights", plan->weights_bytes);
    loader->progress.enabled = loader->progress.enabled && options->show_progress;
    err_t e = load_weights(loader);
    progress_end(&loader->progress);
    return e;
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
        model->config = survey.config;
        model->backend = survey.backend;
        survey.backend = NULL; /* the model's now */
        struct loader loader = {.model = model, .survey = &survey};
        e = load(&loader, options);
    }
    survey_free(&survey);
    if (e.code != ERR_OK) {
        model_destroy(model);
        return e;
    }
    *out = model;
    return e;
}

static void destroy_layer(const struct backend_vtable *vtable, const struct layer *layer)
{
    struct weight *const weights[] = {layer->qkv, layer->o, layer->gate_up, layer->down};
    struct vector *const vectors[] = {layer->attention_norm, layer->mlp_norm};
    for (size_t i = 0; i < sizeof weights / sizeof weights[0]; i++) {
        if (weights[i])
            vtable->weight_destroy(weights[i]);
    }
    for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
        if (vectors[i])
            vtable->vector_destroy(vectors[i]);
    }
    if (layer->kv)
        vtable->kv_destroy(layer->kv);
}

static void destroy_parts(struct model *model)
{
    const struct backend_vtable *vtable = model->backend->vtable;
    for (uint32_t i = 0; model->layers && i < model->config.n_layers; i++)
        destroy_layer(vtable, &model->layers[i]);
    if (model->lm_head && model->lm_head != model->embedding)
        vtable->weight_destroy(model->lm_head);
    if (model->embedding)
        vtable->weight_destroy(model->embedding);
    if (model->final_norm)
        vtable->vector_destroy(model->final_norm);
    if (model->rope)
        vtable->rope_destroy(model->rope);
    if (model->sampler)
        vtable->sampler_destroy(model->sampler);
    const struct model_acts *acts = &model->acts;
    struct act *const all[] = {acts->residual, acts->normed,        acts->delta,
                               acts->qkv,      acts->attention,     acts->gate_up,
                               acts->mlp,      acts->output_hidden, acts->logits};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (all[i])
            vtable->act_destroy(all[i]);
    }
    vtable->destroy(model->backend);
}

void model_destroy(struct model *model)
{
    if (!model)
        return;
    if (model->backend)
        destroy_parts(model);
    mem_free(model->layers);
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

err_t model_step_create(const struct model *model, struct step **out)
{
    struct step_capacity capacity = model_step_capacity(&model->plan);
    return model->backend->vtable->step_create(model->backend, &capacity, out);
}

void model_step_destroy(const struct model *model, struct step *step)
{
    model->backend->vtable->step_destroy(model->backend, step);
}

uint32_t model_steps_in_flight(const struct model *model)
{
    return model->backend->vtable->steps_in_flight(model->backend);
}

void model_slot_set(struct model *model, uint32_t slot, const struct sampler_params *params,
                    const struct sampler_history *history)
{
    ASSERT(slot < model->plan.max_num_seqs);
    model->backend->vtable->slot_set(model->sampler, slot, params, history);
}

void model_collect(struct model *model, struct step *step)
{
    model->backend->vtable->collect(model->backend, step);
}
