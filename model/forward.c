/* The forward pass, once, for every family and every backend: model_forward and model_sample of model.h. */
#include "base/assert.h"
#include "model/model_internal.h"

/* acts.delta holds what the layer before adds to the residual; first layer: NULL. */
static void run_attention(struct model *model, const struct layer *layer, const struct step *step,
                          const struct act *before)
{
    struct backend *backend = model->backend;
    const struct backend_vtable *op = backend->vtable;
    struct model_acts *acts = &model->acts;
    const struct family *family = model->config.family;
    float eps = (float)model->config.norm_eps;

    op->add_norm(backend, step, acts->residual, before, layer->attention_norm, eps, family->norm,
                 acts->normed);
    op->linear(backend, step, acts->normed, layer->qkv, acts->qkv);
    op->rope_kv_write(backend, step, acts->qkv, &layer->attention.shape, NULL, NULL, eps, model->rope,
                      family->rope, layer->kv);
    op->attention(backend, step, acts->qkv, &layer->attention, layer->kv, acts->attention);
    op->linear(backend, step, acts->attention, layer->o, acts->delta);
}

static void run_mlp(struct model *model, const struct layer *layer, const struct step *step)
{
    struct backend *backend = model->backend;
    const struct backend_vtable *op = backend->vtable;
    struct model_acts *acts = &model->acts;

    op->add_norm(backend, step, acts->residual, acts->delta, layer->mlp_norm, (float)model->config.norm_eps,
                 model->config.family->norm, acts->normed);
    op->linear(backend, step, acts->normed, layer->gate_up, acts->gate_up);
    op->activation_mul(backend, step, acts->gate_up, model->config.activation, acts->mlp);
    op->linear(backend, step, acts->mlp, layer->down, acts->delta);
}

static void run_rows(struct model *model, struct step *step)
{
    struct backend *backend = model->backend;
    const struct backend_vtable *op = backend->vtable;
    struct model_acts *acts = &model->acts;

    if (step->n_copies > 0) {
        for (uint32_t i = 0; i < model->config.n_layers; i++)
            op->kv_copy(backend, step, model->layers[i].kv);
    }
    if (step->n_rows == 0)
        return;
    op->embed(backend, step, model->sampler, model->embedding, 1.0f, acts->residual);
    for (uint32_t i = 0; i < model->config.n_layers; i++) {
        const struct layer *layer = &model->layers[i];
        run_attention(model, layer, step, i > 0 ? acts->delta : NULL);
        run_mlp(model, layer, step);
    }
    if (step->n_outputs > 0)
        op->add_norm(backend, step, acts->residual, acts->delta, model->final_norm,
                     (float)model->config.norm_eps, model->config.family->norm, acts->normed);
}

void model_forward(struct model *model, struct step *step)
{
    struct backend *backend = model->backend;
    ASSERT(step->n_rows <= model->plan.max_num_batched_tokens);
    if (!backend->vtable->forward_begin(backend, step))
        return;
    run_rows(model, step);
    backend->vtable->forward_end(backend, step);
}

void model_sample(struct model *model, struct step *step, const uint32_t *const *masks)
{
    struct backend *backend = model->backend;
    const struct backend_vtable *op = backend->vtable;
    struct model_acts *acts = &model->acts;
    uint32_t n_max = model->plan.logits_rows;
    if (!op->sample_begin(backend, step, masks))
        return;
    for (uint32_t first = 0; first < step->n_outputs; first += n_max) {
        uint32_t n = step->n_outputs - first;
        n = n < n_max ? n : n_max;
        op->gather_outputs(backend, step, first, n, acts->normed, acts->output_hidden);
        op->logits(backend, step, first, n, acts->output_hidden, model->lm_head, 0.0f, acts->logits);
        op->sample(backend, step, first, n, acts->logits, masks ? masks + first : NULL, model->sampler);
    }
    op->sample_end(backend, step);
}
