/* Ranks of one model on several GPUs. Parts are gathered from all ranks and added by every one of them in
 * rank order: a library's reduction would choose its order by the size. */
#include <stdatomic.h>
#include "base/alloc.h"
#include "kernels/cuda/cuda_backend.h"

struct cuda_group {
    const struct device_api *api;
    struct device_group *devices;
    uint32_t n_members;      /* backends that still refer to it */
    _Atomic bool is_claimed; /* by the rank that writes `fault`, */
    _Atomic bool is_lost;    /* which others read from here on */
    err_t fault;
};

err_t cuda_join(struct backend *const *ranks, uint32_t n_ranks)
{
    ASSERT(n_ranks >= 1 && n_ranks <= BACKEND_RANKS_MAX);
    struct device *devices[BACKEND_RANKS_MAX];
    for (uint32_t i = 0; i < n_ranks; i++) {
        ASSERT(cuda_of(ranks[i])->group == NULL && !cuda_of(ranks[i])->is_reserved);
        devices[i] = cuda_of(ranks[i])->device;
    }
    struct cuda_group *group = mem_alloc(sizeof *group);
    if (group == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a group of %u GPUs", n_ranks);
    *group = (struct cuda_group){.api = cuda_of(ranks[0])->api, .n_members = n_ranks};
    err_t e = group->api->group_create(devices, n_ranks, &group->devices);
    if (e.code != ERR_OK) {
        mem_free(group);
        return e;
    }
    for (uint32_t i = 0; i < n_ranks; i++) {
        cuda_of(ranks[i])->group = group;
        cuda_of(ranks[i])->n_ranks = n_ranks;
    }
    return err_ok();
}

void cuda_leave(struct cuda_backend *cuda)
{
    struct cuda_group *group = cuda->group;
    cuda->group = NULL;
    if (group == NULL || --group->n_members > 0)
        return;
    group->api->group_destroy(group->devices);
    mem_free(group);
}

void cuda_group_lose(struct cuda_backend *cuda, const err_t *fault)
{
    struct cuda_group *group = cuda->group;
    if (!atomic_exchange(&group->is_claimed, true)) {
        group->fault = *fault;
        atomic_store(&group->is_lost, true);
    }
    group->api->group_abort(cuda->device);
}

const err_t *cuda_group_fault(const struct cuda_backend *cuda)
{
    return cuda->group != NULL && atomic_load(&cuda->group->is_lost) ? &cuda->group->fault : NULL;
}

const _Atomic bool *cuda_group_given_up(const struct cuda_backend *cuda)
{
    return cuda->group != NULL ? &cuda->group->is_lost : NULL;
}

/* The largest of what is gathered: a step's rows of the widest act, or logits. */
size_t cuda_ranks_scratch_bytes(const struct cuda_backend *cuda, const struct backend_needs *needs)
{
    if (cuda->n_ranks <= 1)
        return 0;
    size_t hidden = round_up(needs->widest_out, ACT_STRIDE_ELEMENTS) * needs->step.rows;
    size_t part = round_up(div_up(needs->vocab_size, cuda->n_ranks), ACT_STRIDE_ELEMENTS);
    size_t logits = part * needs->logits_rows;
    return cuda->n_ranks * (hidden > logits ? hidden : logits) * sizeof(float);
}

err_t cuda_ranks_check(const struct cuda_backend *cuda, const struct backend_needs *needs)
{
    if (cuda->n_ranks <= 1 || needs->vocab_size % cuda->n_ranks == 0)
        return err_ok();
    return err_new(
        ERR_INVALID_ARGUMENT,
        "--tensor-parallel-size %u: GPUs take equal parts of the vocabulary, and %zu tokens do not "
        "divide so",
        cuda->n_ranks, needs->vocab_size);
}

/* Every rank's part, part_bytes each, to scratch. */
static bool gather(struct cuda_backend *cuda, const void *part, size_t part_bytes)
{
    cuda_turn_flush(cuda);
    bool worked = CUDA_STEP(
        cuda, cuda->api->all_gather(cuda->device, cuda->stream, part, cuda->scratch.ranks, part_bytes));
    cuda->behind_library = true;
    return worked;
}

void cuda_all_reduce(struct backend *backend, const struct step *step, enum step_rows rows, struct act *act)
{
    struct cuda_backend *cuda = cuda_of(backend);
    const struct cuda_rows covered = cuda_step_rows(cuda, step, rows);
    ASSERT(cuda->n_ranks > 1 && covered.max <= act->max_rows);
    if (!gather(cuda, act->data, (size_t)covered.max * act->stride * act_element_bytes(act)))
        return;
    struct sum_ranks_args args = {
        .rows = covered,
        .gathered = cuda->scratch.ranks,
        .out = act->data,
        .n_ranks = cuda->n_ranks,
        .stride = act->stride,
        .width = (uint32_t)act->width,
    };
    size_t pieces = div_up(act->width, RANK_PIECE);
    if (act->f32)
        CUDA_LAUNCH(cuda, sum_ranks_f32, args.rows.max, pieces, RANK_THREADS, args);
    else
        CUDA_LAUNCH(cuda, sum_ranks_bf16, args.rows.max, pieces, RANK_THREADS, args);
}

void cuda_all_gather(struct backend *backend, const struct step *step, uint32_t first_output, uint32_t n,
                     struct act *part, struct act *whole)
{
    struct cuda_backend *cuda = cuda_of(backend);
    ASSERT(first_output <= step->n_outputs && n <= step->n_outputs - first_output);
    ASSERT(cuda->n_ranks > 1 && part->f32 && whole->f32 && part->width * cuda->n_ranks == whole->width);
    struct join_ranks_args args = {
        .rows = cuda_output_rows(cuda, first_output, n),
        .gathered = cuda->scratch.ranks,
        .whole = whole->data,
        .part_stride = part->stride,
        .part_width = (uint32_t)part->width,
        .whole_stride = whole->stride,
    };
    if (!gather(cuda, part->data, (size_t)args.rows.max * part->stride * sizeof(float)))
        return;
    const uint32_t grid[3] = {args.rows.max, (uint32_t)div_up(part->width, RANK_PIECE), cuda->n_ranks};
    cuda_launch(cuda, CUDA_KERNEL_join_ranks, grid, RANK_THREADS, 0, &args, sizeof args);
}
