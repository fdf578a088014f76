/* What the loop asks of a model, on every rank: its part of each step, each on its own thread. */
#include "base/assert.h"
#include "model/model_internal.h"

static struct step_set *find_steps(struct model *model, const struct step *step)
{
    for (int i = 0; i < MODEL_STEPS_MAX; i++) {
        if (model->steps[i].of_rank[0] == step)
            return &model->steps[i];
    }
    return NULL;
}

err_t model_step_create(struct model *model, struct step **out)
{
    struct step_capacity capacity = model_step_capacity(&model->plan);
    struct step_set *steps = find_steps(model, NULL);
    *out = NULL;
    if (!steps)
        return err_new(ERR_RESOURCE_EXHAUSTED, "a model has at most %d steps", MODEL_STEPS_MAX);
    for (uint32_t i = 0; i < model->n_ranks; i++) {
        struct backend *backend = model->ranks[i].backend;
        err_t e = backend->vtable->step_create(backend, &capacity, &steps->of_rank[i]);
        if (e.code == ERR_OK)
            continue;
        while (i-- > 0)
            model->ranks[i].backend->vtable->step_destroy(model->ranks[i].backend, steps->of_rank[i]);
        *steps = (struct step_set){0};
        return e;
    }
    *out = steps->of_rank[0];
    return err_ok();
}

void model_step_destroy(struct model *model, struct step *step)
{
    if (!step)
        return;
    struct step_set *steps = find_steps(model, step);
    ASSERT(steps != NULL);
    for (uint32_t i = 0; i < model->n_ranks; i++)
        model->ranks[i].backend->vtable->step_destroy(model->ranks[i].backend, steps->of_rank[i]);
    *steps = (struct step_set){0};
}

/* What the ranks are asked to do, one of them or all. */
struct drive {
    struct model *model;
    void (*run)(const struct drive *drive, struct model_rank *rank, struct step *step);
    struct step_set *steps;
    const uint32_t *const *masks;
    uint32_t slot;
    const struct sampler_params *params;
    const struct sampler_history *history;
};

static void drive_rank(void *context, int index, int n_threads)
{
    const struct drive *drive = context;
    (void)n_threads;
    drive->run(drive, &drive->model->ranks[index], drive->steps ? drive->steps->of_rank[index] : NULL);
}

static void drive_all(struct drive *drive)
{
    if (drive->model->n_ranks == 1)
        drive_rank(drive, 0, 1);
    else
        thread_pool_run(drive->model->drivers, drive_rank, drive);
}

static void run_slot_set(const struct drive *drive, struct model_rank *rank, struct step *step)
{
    (void)step;
    rank->backend->vtable->slot_set(rank->sampler, drive->slot, drive->params, drive->history);
}

static void run_forward(const struct drive *drive, struct model_rank *rank, struct step *step)
{
    if (rank->shard.rank > 0)
        step_copy_inputs(step, drive->steps->of_rank[0]);
    rank_forward(rank, step);
}

static void run_sample(const struct drive *drive, struct model_rank *rank, struct step *step)
{
    rank_sample(rank, step, drive->masks);
}

static void run_collect(const struct drive *drive, struct model_rank *rank, struct step *step)
{
    (void)drive;
    rank->backend->vtable->collect(rank->backend, step);
}

void model_slot_set(struct model *model, uint32_t slot, const struct sampler_params *params,
                    const struct sampler_history *history)
{
    ASSERT(slot < model->plan.max_num_seqs);
    struct drive drive = {
        .model = model, .run = run_slot_set, .slot = slot, .params = params, .history = history};
    drive_all(&drive);
}

static err_t drive_step(struct model *model, struct step *step, const uint32_t *const *masks,
                        void (*run)(const struct drive *drive, struct model_rank *rank, struct step *step))
{
    struct drive drive = {.model = model, .run = run, .steps = find_steps(model, step), .masks = masks};
    ASSERT(drive.steps != NULL);
    drive_all(&drive);
    const struct backend *backend = model->ranks[0].backend; /* a group's ranks are lost together */
    return backend->vtable->fault(backend);
}

err_t model_forward(struct model *model, struct step *step)
{
    ASSERT(step->n_rows <= model->plan.max_num_batched_tokens);
    return drive_step(model, step, NULL, run_forward);
}

err_t model_sample(struct model *model, struct step *step, const uint32_t *const *masks)
{
    return drive_step(model, step, masks, run_sample);
}

err_t model_collect(struct model *model, struct step *step)
{
    return drive_step(model, step, NULL, run_collect);
}

bool model_tend(struct model *model)
{
    for (uint32_t i = 0; i < model->n_ranks; i++) {
        struct backend *backend = model->ranks[i].backend;
        if (backend->vtable->tend && backend->vtable->tend(backend))
            return true;
    }
    return false;
}
