/* Ranks of one model on the CPU backend: each is a backend driven by its own thread, and the sums over them.
 */
#include <string.h>
#include "base/alloc.h"
#include "base/spin_barrier.h"
#include "kernels/cpu_backend.h"

struct cpu_group {
    uint32_t n_ranks, n_members; /* n_members: backends that still refer to it */
    struct spin_barrier barrier;
    struct act *acts[BACKEND_RANKS_MAX]; /* what each rank brings to the op under way */
};

err_t cpu_join(struct backend *const *ranks, uint32_t n_ranks)
{
    ASSERT(n_ranks >= 1 && n_ranks <= BACKEND_RANKS_MAX);
    struct cpu_group *group = mem_alloc(sizeof *group);
    if (group == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a group of %u ranks", n_ranks);
    *group = (struct cpu_group){.n_ranks = n_ranks, .n_members = n_ranks};
    spin_barrier_init(&group->barrier, (int)n_ranks, spin_time_ns((int)n_ranks, usable_cpu_count()));
    for (uint32_t i = 0; i < n_ranks; i++) {
        ASSERT(cpu_of(ranks[i])->group == NULL);
        cpu_of(ranks[i])->group = group;
        cpu_of(ranks[i])->rank = i;
    }
    return err_ok();
}

uint32_t cpu_rank_count(const struct cpu_backend *cpu)
{
    return cpu->group != NULL ? cpu->group->n_ranks : 1;
}

void cpu_leave(struct cpu_backend *cpu)
{
    if (cpu->group != NULL && --cpu->group->n_members == 0)
        mem_free(cpu->group);
    cpu->group = NULL;
}

/* Columns [begin, end) of one row of every rank become their sum, added in rank order. */
static void reduce_row(const struct cpu_group *group, size_t row, size_t begin, size_t end)
{
    for (size_t i = begin; i < end; i++) {
        float sum = act_row(group->acts[0], row)[i];
        for (uint32_t r = 1; r < group->n_ranks; r++)
            sum += act_row(group->acts[r], row)[i];
        for (uint32_t r = 0; r < group->n_ranks; r++)
            act_row(group->acts[r], row)[i] = sum;
    }
}

void cpu_all_reduce(struct backend *backend, const struct step *step, enum step_rows rows, struct act *act)
{
    struct cpu_backend *cpu = cpu_of(backend);
    struct cpu_group *group = cpu->group;
    const size_t n_rows = step_row_count(step, rows);
    ASSERT(n_rows <= act->max_rows);
    act->n_quantized = 0;
    if (group == NULL)
        return;
    group->acts[cpu->rank] = act;
    spin_barrier_wait(&group->barrier);
    size_t begin, end;
    thread_split(act->width, LANES, (int)cpu->rank, (int)group->n_ranks, &begin, &end);
    for (size_t row = 0; row < n_rows; row++)
        reduce_row(group, row, begin, end);
    spin_barrier_wait(&group->barrier);
}

void cpu_all_gather(struct backend *backend, const struct step *step, uint32_t first_output, uint32_t n,
                    struct act *part, struct act *whole)
{
    (void)step, (void)first_output;
    struct cpu_backend *cpu = cpu_of(backend);
    struct cpu_group *group = cpu->group;
    ASSERT(n <= part->max_rows && n <= whole->max_rows && group != NULL);
    group->acts[cpu->rank] = part;
    spin_barrier_wait(&group->barrier);
    for (uint32_t row = 0; row < n; row++) {
        size_t column = 0;
        for (uint32_t r = 0; r < group->n_ranks; r++) {
            size_t width = group->acts[r]->width;
            ASSERT(width <= whole->width - column);
            memcpy(act_row(whole, row) + column, act_row(group->acts[r], row), width * sizeof(float));
            column += width;
        }
        ASSERT(column == whole->width);
    }
    whole->n_quantized = 0;
    spin_barrier_wait(&group->barrier); /* nobody overwrites its part before */
}
