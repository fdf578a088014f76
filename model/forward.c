/* The forward pass, once, for every family, every backend and every rank of a model. */
#include "base/assert.h"
#include "model/model_internal.h"

/* What the ops behind an attention cover, and the acts that they go on with. */
struct covered {
    enum step_rows rows;
    struct act *residual, *attention;
};

/* Whether nothing but the rows of outputs goes on behind the last attention: what the others would become,
 * nobody reads. Of a step with one row a sequence all go on, whichever have outputs, since a device may
 * replay another such step for it. */
static bool narrows(const struct model_rank *rank, const struct step *step)
{
    return step->n_rows > step->n_seqs && step->n_outputs < step->n_rows &&
           step->n_outputs <= rank->logits_rows;
}

/* Every rank has computed a part of the sum. */
static void add_ranks(struct model_rank *rank, const struct step *step, enum step_rows rows, struct act *act)
{
    if (rank->shard.n_ranks > 1)
        rank->backend->vtable->all_reduce(rank->backend, step, rows, act);
}

/* acts.delta holds what the layer before adds to the residual; first layer: before is NULL. */
static void write_kv(struct model_rank *rank, const struct layer *layer, const struct step *step,
                     const struct layer *before)
{
    struct backend *backend = rank->backend;
    const struct backend_vtable *op = backend->vtable;
    struct model_acts *acts = &rank->acts;
    float eps = (float)rank->config.norm_eps;

    op->add_norm(backend, step, STEP_ROWS_ALL, acts->residual, before ? acts->delta : NULL,
                 before ? before->norms[LAYER_MLP_POST_NORM] : NULL, layer->norms[LAYER_ATTENTION_NORM], eps,
                 acts->normed);
    op->linear(backend, step, STEP_ROWS_ALL, acts->normed, layer->qkv, acts->qkv);
    op->rope_kv_write(backend, step, acts->qkv, &layer->attention.shape, layer->norms[LAYER_Q_NORM],
                      layer->norms[LAYER_K_NORM], eps, layer->rope, rank->config.family->rope, layer->kv);
}

/* The rows of outputs alone, from here on. */
static struct covered narrow(struct model_rank *rank, const struct step *step)
{
    struct backend *backend = rank->backend;
    const struct backend_vtable *op = backend->vtable;
    struct model_acts *acts = &rank->acts;
    op->gather_outputs(backend, step, 0, step->n_outputs, acts->residual, acts->output_residual);
    op->gather_outputs(backend, step, 0, step->n_outputs, acts->attention, acts->output_attention);
    return (struct covered){STEP_ROWS_OUTPUTS, acts->output_residual, acts->output_attention};
}

/* What attention brought in, and the MLP. */
static void run_mlp(struct model_rank *rank, const struct layer *layer, const struct step *step,
                    const struct covered *c)
{
    struct backend *backend = rank->backend;
    const struct backend_vtable *op = backend->vtable;
    struct model_acts *acts = &rank->acts;

    op->linear(backend, step, c->rows, c->attention, layer->o, acts->delta);
    add_ranks(rank, step, c->rows, acts->delta);
    op->add_norm(backend, step, c->rows, c->residual, acts->delta, layer->norms[LAYER_ATTENTION_POST_NORM],
                 layer->norms[LAYER_MLP_NORM], (float)rank->config.norm_eps, acts->normed);
    op->linear(backend, step, c->rows, acts->normed, layer->gate_up, acts->gate_up);
    op->activation_mul(backend, step, c->rows, acts->gate_up, rank->config.activation, acts->mlp);
    op->linear(backend, step, c->rows, acts->mlp, layer->down, acts->delta);
    add_ranks(rank, step, c->rows, acts->delta);
}

static void run_rows(struct model_rank *rank, struct step *step)
{
    struct backend *backend = rank->backend;
    const struct backend_vtable *op = backend->vtable;
    struct model_acts *acts = &rank->acts;
    const struct layer *last = &rank->layers[rank->config.n_layers - 1];
    struct covered covered = {STEP_ROWS_ALL, acts->residual, acts->attention};

    if (step->n_copies > 0) {
        for (uint32_t i = 0; i < rank->config.n_layers; i++)
            op->kv_copy(backend, step, rank->layers[i].kv);
    }
    if (step->n_rows == 0)
        return;
    op->embed(backend, step, rank->sampler, rank->embedding, rank->shard.first_token, rank->embedding_scale,
              acts->residual);
    add_ranks(rank, step, STEP_ROWS_ALL, acts->residual);
    for (uint32_t i = 0; i < rank->config.n_layers; i++) {
        const struct layer *layer = &rank->layers[i];
        write_kv(rank, layer, step, i > 0 ? layer - 1 : NULL);
        if (layer == last && step->n_outputs == 0)
            return; /* later steps read the KV, and nobody anything else */
        op->attention(backend, step, acts->qkv, &layer->attention, layer->kv, acts->attention);
        if (layer == last && narrows(rank, step))
            covered = narrow(rank, step);
        run_mlp(rank, layer, step, &covered);
    }
    op->add_norm(backend, step, covered.rows, covered.residual, acts->delta, last->norms[LAYER_MLP_POST_NORM],
                 rank->final_norm, (float)rank->config.norm_eps,
                 covered.rows == STEP_ROWS_OUTPUTS ? acts->output_hidden : acts->normed);
}

void rank_forward(struct model_rank *rank, struct step *step)
{
    struct backend *backend = rank->backend;
    if (!backend->vtable->forward_begin(backend, step))
        return;
    do
        run_rows(rank, step);
    while (!backend->vtable->forward_end(backend, step));
}

void rank_gather_hidden(struct model_rank *rank, const struct step *step, uint32_t first, uint32_t n)
{
    if (!narrows(rank, step))
        rank->backend->vtable->gather_outputs(rank->backend, step, first, n, rank->acts.normed,
                                              rank->acts.output_hidden);
}

/* Logits of the outputs [first, first + n): every rank ends up with all of them, and draws the same tokens.
 */
static void run_logits(struct model_rank *rank, const struct step *step, uint32_t first, uint32_t n)
{
    struct backend *backend = rank->backend;
    const struct backend_vtable *op = backend->vtable;
    struct model_acts *acts = &rank->acts;
    float soft_cap = rank->config.final_soft_cap;
    rank_gather_hidden(rank, step, first, n);
    if (rank->shard.n_ranks == 1) {
        op->logits(backend, step, first, n, acts->output_hidden, rank->lm_head, soft_cap, acts->logits);
        return;
    }
    op->logits(backend, step, first, n, acts->output_hidden, rank->lm_head, soft_cap, acts->logits_part);
    op->all_gather(backend, step, first, n, acts->logits_part, acts->logits);
}

static void run_outputs(struct model_rank *rank, struct step *step, const uint32_t *const *masks)
{
    for (uint32_t first = 0; first < step->n_outputs; first += rank->logits_rows) {
        uint32_t n = step->n_outputs - first;
        n = n < rank->logits_rows ? n : rank->logits_rows;
        run_logits(rank, step, first, n);
        rank->backend->vtable->sample(rank->backend, step, first, n, rank->acts.logits,
                                      masks ? masks + first : NULL, rank->sampler);
    }
}

void rank_sample(struct model_rank *rank, struct step *step, const uint32_t *const *masks)
{
    struct backend *backend = rank->backend;
    if (!backend->vtable->sample_begin(backend, step, masks))
        return;
    do
        run_outputs(rank, step, masks);
    while (!backend->vtable->sample_end(backend, step));
}
