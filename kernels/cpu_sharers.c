/* Which sequences of a step begin with the same blocks: decode attention reads those once for several. */
#include <string.h>
#include "kernels/cpu_backend.h"

/* Blocks that are full: what a sequence shares with others. */
static uint32_t count_whole_blocks(const struct step *step, uint32_t seq)
{
    return step->seqs[seq].n_context / KV_BLOCK_TOKENS;
}

/* An order of tables in which those with a common beginning are neighbours; that of memory will do. */
static bool comes_before(const struct step *step, uint32_t group, uint32_t a, uint32_t b)
{
    uint32_t n_a = count_whole_blocks(step, a), n_b = count_whole_blocks(step, b), n = n_a < n_b ? n_a : n_b;
    int order =
        memcmp(step_block_table(step, group, a), step_block_table(step, group, b), n * sizeof(uint32_t));
    return order != 0 ? order < 0 : n_a != n_b ? n_a < n_b : a < b;
}

static void sort(const struct step *step, uint32_t group, struct cpu_sharers *sharers)
{
    static const uint32_t gaps[] = {701, 301, 132, 57, 23, 10, 4, 1}; /* Ciura's, of Shell's sort */
    for (size_t g = 0; g < sizeof gaps / sizeof gaps[0]; g++) {
        for (uint32_t i = gaps[g]; i < sharers->n; i++) {
            uint32_t seq = sharers->seqs[i], at = i;
            for (; at >= gaps[g] && comes_before(step, group, seq, sharers->seqs[at - gaps[g]]);
                 at -= gaps[g])
                sharers->seqs[at] = sharers->seqs[at - gaps[g]];
            sharers->seqs[at] = seq;
        }
    }
}

static uint32_t count_common_blocks(const struct step *step, uint32_t group, uint32_t a, uint32_t b)
{
    const uint32_t *table_a = step_block_table(step, group, a), *table_b = step_block_table(step, group, b);
    uint32_t n_a = count_whole_blocks(step, a), n_b = count_whole_blocks(step, b), n = 0;
    while (n < n_a && n < n_b && table_a[n] == table_b[n])
        n++;
    return n;
}

void cpu_sharers_find(struct cpu_backend *cpu, const struct step *step)
{
    for (uint32_t group = 0; group < step->capacity.kv_groups; group++) {
        struct cpu_sharers *sharers = &cpu->sharers[group];
        sharers->n = sharers->end = 0;
        for (; sharers->end < step->n_seqs && sharers->n < CPU_SHARERS_MAX; sharers->end++) {
            if (step->seqs[sharers->end].n_rows == 1)
                sharers->seqs[sharers->n++] = sharers->end;
        }
        sort(step, group, sharers);
        for (uint32_t i = 0; i < sharers->n; i++)
            sharers->common[i] = i + 1 == sharers->n ? 0
                                                     : count_common_blocks(step, group, sharers->seqs[i],
                                                                           sharers->seqs[i + 1]);
    }
    cpu->sharing = step;
}

void cpu_sharers_forget(struct cpu_backend *cpu)
{
    cpu->sharing = NULL;
}

uint64_t cpu_sharers_team(struct cpu_sharers *sharers, uint32_t team_max)
{
    uint64_t spared = 0;
    sharers->n_teams = 0;
    for (uint32_t i = 0; i < sharers->n;) {
        struct cpu_team *team = &sharers->teams[sharers->n_teams++];
        *team = (struct cpu_team){.begin = i, .end = i + 1, .n_shared = UINT32_MAX};
        for (; team->end < sharers->n && team->end - team->begin < team_max; team->end++) {
            uint32_t common = sharers->common[team->end - 1];
            uint32_t before = team->n_shared == UINT32_MAX ? 0 : team->n_shared;
            /* Much less would be a loss to those before, or to the one that comes and the next. */
            if (common == 0 || common < before / 2 || common < sharers->common[team->end] / 2)
                break;
            team->n_shared = common < team->n_shared ? common : team->n_shared;
        }
        if (team->end - team->begin == 1)
            team->n_shared = 0;
        spared += (uint64_t)(team->end - team->begin - 1) * team->n_shared;
        i = team->end;
    }
    return spared;
}
