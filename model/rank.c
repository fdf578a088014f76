#include "model/rank.h"

#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "base/float16.h"

/* The next matrix is on its way while this one is packed. */
static void prefetch(const struct rank_source *from, const struct weight_source *next)
{
    if (from->packed)
        packed_file_prefetch(from->packed, next->packed);
    for (uint32_t i = 0; from->checkpoint && i < next->n_parts; i++)
        checkpoint_prefetch(from->checkpoint, weight_part_tensor(&next->parts[i]));
}

static err_t import_matrix(const struct model_rank *rank, const struct rank_source *from,
                           const struct weight_source *source, struct weight **out)
{
    static const float not_read = 0;
    struct backend *backend = rank->backend;
    struct weight_desc desc = weight_source_desc(source);
    desc.bias = source->n_biases > 0 ? &not_read : NULL;
    TRY(packed_file_verify(from->packed, source->packed, from->pool));
    return backend->vtable->weight_import(backend, &desc, from->packed->data + source->packed->offset, out);
}

static err_t load_matrix(struct model_rank *rank, const struct rank_source *from, size_t index,
                         struct weight **out)
{
    const struct weight_list *list = from->list;
    struct weight_source *source = &list->matrices[index];
    struct backend *backend = rank->backend;
    if (index + 1 < list->n_matrices)
        prefetch(from, &list->matrices[index + 1]);
    TRY(from->packed ? import_matrix(rank, from, source, out) : weight_source_pack(source, backend, out));
    struct weight_desc desc = weight_source_desc(source);
    *from->done_bytes += backend->vtable->weight_bytes(backend, &desc);
    progress_update(from->progress, *from->done_bytes);
    return weight_list_fault(from->list);
}

static err_t load_vector(struct model_rank *rank, const struct rank_source *from, size_t index,
                         struct vector **out)
{
    const struct weight_source *source = &from->list->vectors[index];
    if (source->n_parts == 0)
        return err_ok();
    float *values = mem_alloc_array(source->n_in, sizeof *values);
    if (!values)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %s", source->name);
    err_t e = from->packed ? packed_file_verify(from->packed, source->packed, from->pool)
                           : weight_source_read_vector(source, values);
    if (e.code == ERR_OK && from->packed)
        memcpy(values, from->packed->data + source->packed->offset, source->n_in * sizeof *values);
    struct backend *backend = rank->backend;
    if (e.code == ERR_OK)
        e = backend->vtable->vector_create(backend, values, source->n_in, out);
    mem_free(values);
    return e;
}

static err_t load_layer(struct model_rank *rank, const struct rank_source *from, uint32_t index)
{
    const struct model_config *config = &rank->config;
    struct layer *layer = &rank->layers[index];
    size_t matrix = (size_t)index * LAYER_MATRICES, vector = (size_t)index * LAYER_VECTORS;
    for (size_t i = 0; i < LAYER_VECTORS; i++)
        TRY(load_vector(rank, from, vector + i, &layer->norms[i]));
    TRY(load_matrix(rank, from, matrix + LAYER_QKV, &layer->qkv));
    TRY(load_matrix(rank, from, matrix + LAYER_O, &layer->o));
    TRY(load_matrix(rank, from, matrix + LAYER_GATE_UP, &layer->gate_up));
    TRY(load_matrix(rank, from, matrix + LAYER_DOWN, &layer->down));
    layer->attention = (struct attention_params){
        .shape = {config->n_heads, config->n_kv_heads, config->head_dim},
        .scale = config->attention_scale,
        .window = model_config_is_windowed(config, index) ? config->window : 0,
        .soft_cap = config->attention_soft_cap,
    };
    layer->rope = layer->attention.window > 0 && rank->local_rope ? rank->local_rope : rank->rope;
    return err_ok();
}

err_t rank_load_weights(struct model_rank *rank, const struct rank_source *from)
{
    size_t n_layers = rank->config.n_layers;
    for (uint32_t i = 0; i < n_layers; i++)
        TRY(load_layer(rank, from, i));
    TRY(load_vector(rank, from, n_layers * LAYER_VECTORS, &rank->final_norm));
    TRY(load_matrix(rank, from, n_layers * LAYER_MATRICES, &rank->embedding));
    if (from->list->tied) {
        rank->lm_head = rank->embedding;
        return err_ok();
    }
    return load_matrix(rank, from, n_layers * LAYER_MATRICES + 1, &rank->lm_head);
}

/* Before the weights: a KV format that the backend lacks is then refused at once. */
static err_t create_layers(struct model_rank *rank, const struct rank_source *from)
{
    size_t n_layers = rank->config.n_layers;
    rank->layers = mem_alloc_array(n_layers, sizeof *rank->layers);
    if (!rank->layers)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %zu layers", n_layers);
    struct kv_desc kv = model_kv_desc(&rank->config, from->kv_dtype, from->plan->num_kv_blocks);
    for (size_t i = 0; i < n_layers; i++)
        TRY(rank->backend->vtable->kv_create(rank->backend, &kv, &rank->layers[i].kv));
    return err_ok();
}

static err_t create_acts(struct model_rank *rank, const struct memory_plan *plan)
{
    struct model_acts *acts = &rank->acts;
    struct act **const out[MODEL_ACTS] = {
        [MODEL_ACT_RESIDUAL] = &acts->residual,
        [MODEL_ACT_NORMED] = &acts->normed,
        [MODEL_ACT_DELTA] = &acts->delta,
        [MODEL_ACT_QKV] = &acts->qkv,
        [MODEL_ACT_ATTENTION] = &acts->attention,
        [MODEL_ACT_GATE_UP] = &acts->gate_up,
        [MODEL_ACT_MLP] = &acts->mlp,
        [MODEL_ACT_OUTPUT_RESIDUAL] = &acts->output_residual,
        [MODEL_ACT_OUTPUT_ATTENTION] = &acts->output_attention,
        [MODEL_ACT_OUTPUT_HIDDEN] = &acts->output_hidden,
        [MODEL_ACT_LOGITS_PART] = &acts->logits_part,
        [MODEL_ACT_LOGITS] = &acts->logits,
    };
    for (int act = 0; act < MODEL_ACTS; act++) {
        struct act_spec spec = model_act_spec(&rank->config, &rank->shard, plan, (enum model_act)act);
        if (spec.width == 0)
            continue;
        TRY(rank->backend->vtable->act_create(rank->backend, spec.role, spec.rows, spec.width, out[act]));
    }
    return err_ok();
}

static err_t create_rope(struct model_rank *rank, const struct rope_config *config,
                         const struct memory_plan *plan, struct rope **out)
{
    float inv_freq[MODEL_HEAD_DIM_MAX / 2];
    rope_frequencies(config, rank->config.head_dim, inv_freq);
    return rank->backend->vtable->rope_create(rank->backend, inv_freq, rank->config.head_dim / 2, 1.0f,
                                              plan->max_model_len, out);
}

/* The root of the width, rounded to the type of the activations that Transformers multiplies by it. */
static float embedding_scale(const struct model_config *config, enum model_dtype dtype)
{
    if (!config->family->scaled_embedding)
        return 1.0f;
    float scale = sqrtf((float)config->hidden_size);
    if (dtype == MODEL_DTYPE_F32)
        return scale;
    return dtype == MODEL_DTYPE_F16 ? f16_to_f32(f16_from_f32(scale)) : bf16_to_f32(bf16_from_f32(scale));
}

err_t rank_create(struct model_rank *rank, const struct rank_source *from)
{
    const struct memory_plan *plan = from->plan;
    struct backend *backend = rank->backend;
    struct backend_needs needs = model_backend_needs(&rank->config, &rank->shard, plan);
    TRY(backend->vtable->reserve(backend, &needs, plan->total_bytes));
    TRY(create_layers(rank, from));
    TRY(create_acts(rank, plan));
    TRY(create_rope(rank, &rank->config.rope, plan, &rank->rope));
    if (rank->config.has_local_rope)
        TRY(create_rope(rank, &rank->config.local_rope, plan, &rank->local_rope));
    rank->logits_rows = plan->logits_rows;
    rank->embedding_scale = embedding_scale(&rank->config, from->list->dtype);
    return backend->vtable->sampler_create(backend, plan->max_num_seqs, rank->config.vocab_size,
                                           plan->max_model_len, &rank->sampler);
}

static void destroy_layer(const struct backend_vtable *vtable, const struct layer *layer)
{
    struct weight *const weights[] = {layer->qkv, layer->o, layer->gate_up, layer->down};
    for (size_t i = 0; i < sizeof weights / sizeof weights[0]; i++) {
        if (weights[i])
            vtable->weight_destroy(weights[i]);
    }
    for (size_t i = 0; i < LAYER_VECTORS; i++) {
        if (layer->norms[i])
            vtable->vector_destroy(layer->norms[i]);
    }
    if (layer->kv)
        vtable->kv_destroy(layer->kv);
}

void rank_destroy(struct model_rank *rank)
{
    if (!rank->backend)
        return;
    const struct backend_vtable *vtable = rank->backend->vtable;
    for (uint32_t i = 0; rank->layers && i < rank->config.n_layers; i++)
        destroy_layer(vtable, &rank->layers[i]);
    if (rank->lm_head && rank->lm_head != rank->embedding)
        vtable->weight_destroy(rank->lm_head);
    if (rank->embedding)
        vtable->weight_destroy(rank->embedding);
    if (rank->final_norm)
        vtable->vector_destroy(rank->final_norm);
    if (rank->rope)
        vtable->rope_destroy(rank->rope);
    if (rank->local_rope)
        vtable->rope_destroy(rank->local_rope);
    if (rank->sampler)
        vtable->sampler_destroy(rank->sampler);
    const struct model_acts *acts = &rank->acts;
    struct act *const all[] = {acts->residual,      acts->normed,          acts->delta,
                               acts->qkv,           acts->attention,       acts->gate_up,
                               acts->mlp,           acts->output_residual, acts->output_attention,
                               acts->output_hidden, acts->logits_part,     acts->logits};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (all[i])
            vtable->act_destroy(all[i]);
    }
    mem_free(rank->layers);
    vtable->destroy(rank->backend);
    *rank = (struct model_rank){0};
}
