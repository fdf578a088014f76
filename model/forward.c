/* The forward pass, once, for every family, every backend and every rank of a model. */
#include "base/assert.h"
#include "model/model_internal.h"

/* Every rank has computed a part of the sum. */
static void add_ranks(struct model_rank *rank, const struct step *step, struct act *act)
{
    if (rank->shard.n_ranks > 1)
        rank->backend->vtable->all_reduce(rank->backend, step, act);
}

/* acts.delta holds what the layer before adds to the residual; first layer: before is NULL. */
static void run_attention(struct model_rank *rank, const struct layer *layer, const struct step *step,
                          const struct layer *before)
{
    struct backend *backend = rank->backend;
    const struct backend_vtable *op = backend->vtable;
    struct model_acts *acts = &rank->acts;
    float eps = (float)rank->config.norm_eps;

    op->add_norm(backend, step, acts->residual, before ? acts->delta : NULL,
                 before ? before->norms[LAYER_MLP_POST_NORM] : NULL, layer->norms[LAYER_ATTENTION_NORM], eps,
                 acts->normed);
    op->linear(backend, step, acts->normed, layer->qkv, acts->qkv);
    op->rope_kv_write(backend, step, acts->qkv, &layer->attention.shape, layer->norms[LAYER_Q_NORM],
                      layer->norms[LAYER_K_NORM], eps, layer->rope, rank->config.family->rope, layer->kv);
    op->attention(backend, step, acts->qkv, &layer->attention, layer->kv, acts->attention);
    op->linear(backend, step, acts->attention, layer->o, acts->delta);
    add_ranks(rank, step, acts->delta);
}

static void run_mlp(struct model_rank *rank, const struct layer *layer, const struct step *step)
{
    struct backend *backend = rank->backend;
    const struct backend_vtable *op = backend->vtable;
    struct model_acts *acts = &rank->acts;

    op->add_norm(backend, step, acts->residual, acts->delta, layer->norms[LAYER_ATTENTION_POST_NORM],
                 layer->norms[LAYER_MLP_NORM], (float)rank->config.norm_eps, acts->normed);
    op->linear(backend, step, acts->normed, layer->gate_up, acts->gate_up);
    op->activation_mul(backend, step, acts->gate_up, rank->config.activation, acts->mlp);
    op->linear(backend, step, acts->mlp, layer->down, acts->delta);
    add_ranks(rank, step, acts->delta);
}

static void run_rows(struct model_rank *rank, struct step *step)
{
    struct backend *backend = rank->backend;
    const struct backend_vtable *op = backend->vtable;
    struct model_acts *acts = &rank->acts;

    if (step->n_copies > 0) {
        for (uint32_t i = 0; i < rank->config.n_layers; i++)
            op->kv_copy(backend, step, rank->layers[i].kv);
    }
    if (step->n_rows == 0)
        return;
    op->embed(backend, step, rank->sampler, rank->embedding, rank->shard.first_token, rank->embedding_scale,
              acts->residual);
    add_ranks(rank, step, acts->residual);
    for (uint32_t i = 0; i < rank->config.n_layers; i++) {
        const struct layer *layer = &rank->layers[i];
        run_attention(rank, layer, step, i > 0 ? layer - 1 : NULL);
        run_mlp(rank, layer, step);
    }
    const struct layer *last = &rank->layers[rank->config.n_layers - 1];
    if (step->n_outputs > 0)
        op->add_norm(backend, step, acts->residual, acts->delta, last->norms[LAYER_MLP_POST_NORM],
                     rank->final_norm, (float)rank->config.norm_eps, acts->normed);
}

void rank_forward(struct model_rank *rank, struct step *step)
{
    struct backend *backend = rank->backend;
    if (!backend->vtable->forward_begin(backend, step))
        return;
    run_rows(rank, step);
    backend->vtable->forward_end(backend, step);
}

/* Logits of the outputs [first, first + n): every rank ends up with all of them, and draws the same tokens.
 */
static void run_logits(struct model_rank *rank, const struct step *step, uint32_t first, uint32_t n)
{
    struct backend *backend = rank->backend;
    const struct backend_vtable *op = backend->vtable;
    struct model_acts *acts = &rank->acts;
    float soft_cap = rank->config.final_soft_cap;
    op->gather_outputs(backend, step, first, n, acts->normed, acts->output_hidden);
    if (rank->shard.n_ranks == 1) {
        op->logits(backend, step, first, n, acts->output_hidden, rank->lm_head, soft_cap, acts->logits);
        return;
    }
    op->logits(backend, step, first, n, acts->output_hidden, rank->lm_head, soft_cap, acts->logits_part);
    op->all_gather(backend, step, first, n, acts->logits_part, acts->logits);
}

void rank_sample(struct model_rank *rank, uint32_t logits_rows, struct step *step,
                 const uint32_t *const *masks)
{
    struct backend *backend = rank->backend;
    const struct backend_vtable *op = backend->vtable;
    if (!op->sample_begin(backend, step, masks))
        return;
    for (uint32_t first = 0; first < step->n_outputs; first += logits_rows) {
        uint32_t n = step->n_outputs - first;
        n = n < logits_rows ? n : logits_rows;
        run_logits(rank, step, first, n);
        op->sample(backend, step, first, n, rank->acts.logits, masks ? masks + first : NULL, rank->sampler);
    }
    op->sample_end(backend, step);
}
