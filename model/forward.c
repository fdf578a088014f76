/* The forward pass, once, for every family, every backend and every rank of a model. */
#include "base/assert.h"
#include "model/model_internal.h"

/* Every rank has computed a part of the sum. */
static void add_ranks(struct model_rank *rank, const struct step *step, struct act *act)
{
    if (rank->shard.n_ranks > 1)
        rank->backend->vtable->all_reduce(rank->backend, step, act);
}

/* acts.delta holds what the layer before adds to the residual; first layer: NULL. */
static void run_attention(struct model_rank *rank, const struct layer *layer, const struct step *step,
                          const struct act *before)
{
    struct backend *backend = rank->backend;
    const struct backend_vtable *op = backend->vtable;
    struct model_acts *acts = &rank->acts;
    const struct family *family = rank->config.family;
    float eps = (float)rank->config.norm_eps;

    op->add_norm(backend, step, acts->residual, before, layer->attention_norm, eps, family->norm,
                 acts->normed);
    op->linear(backend, step, acts->normed, layer->qkv, acts->qkv);
    op->rope_kv_write(backend, step, acts->qkv, &layer->attention.shape, NULL, NULL, eps, rank->rope,
                      family->rope, layer->kv);
    op->attention(backend, step, acts->qkv, &layer->attention, layer->kv, acts->attention);
    op->linear(backend, step, acts->attention, layer->o, acts->delta);
    add_ranks(rank, step, acts->delta);
}

static void run_mlp(struct model_rank *rank, const struct layer *layer, const struct step *step)
{
    struct backend *backend = rank->backend;
    const struct backend_vtable *op = backend->vtable;
    struct model_acts *acts = &rank->acts;

    op->add_norm(backend, step, acts->residual, acts->delta, layer->mlp_norm, (float)rank->config.norm_eps,
                 rank->config.family->norm, acts->normed);
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
    op->embed(backend, step, rank->sampler, rank->embedding, rank->shard.first_token, 1.0f, acts->residual);
    add_ranks(rank, step, acts->residual);
    for (uint32_t i = 0; i < rank->config.n_layers; i++) {
        const struct layer *layer = &rank->layers[i];
        run_attention(rank, layer, step, i > 0 ? acts->delta : NULL);
        run_mlp(rank, layer, step);
    }
    if (step->n_outputs > 0)
        op->add_norm(backend, step, acts->residual, acts->delta, rank->final_norm,
                     (float)rank->config.norm_eps, rank->config.family->norm, acts->normed);
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
    op->gather_outputs(backend, step, first, n, acts->normed, acts->output_hidden);
    if (rank->shard.n_ranks == 1) {
        op->logits(backend, step, first, n, acts->output_hidden, rank->lm_head, 0.0f, acts->logits);
        return;
    }
    op->logits(backend, step, first, n, acts->output_hidden, rank->lm_head, 0.0f, acts->logits_part);
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
