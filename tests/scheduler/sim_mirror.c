/* A listener that knows the prefix cache from its events alone: after every step it must know what the cache
 * itself holds, and no more. */
#include <string.h>
#include "tests/scheduler/sim_world.h"

static struct sim_mirror_entry *find(struct sim_mirror *mirror, uint64_t serial)
{
    for (uint32_t i = 0; i < mirror->n_entries; i++)
        if (mirror->entries[i].serial == serial)
            return &mirror->entries[i];
    return NULL;
}

static bool is_equal(const struct sim *sim, const struct sim_mirror_entry *known,
                     const struct prefix_block *told)
{
    return known->block == told->block && known->parent_serial == told->parent_serial &&
           known->salt == told->salt && known->adapter == told->adapter &&
           memcmp(known->tokens, told->tokens, sim->config.block_tokens * sizeof *told->tokens) == 0;
}

static void on_stored(void *context, const struct prefix_block *told)
{
    struct sim *sim = context;
    struct sim_mirror *mirror = &sim->mirror;
    SIM_CHECK(sim, told->serial > mirror->last_serial && told->parent_serial < told->serial);
    SIM_CHECK(sim, told->parent_serial == 0 || find(mirror, told->parent_serial) != NULL);
    SIM_CHECK(sim, mirror->n_entries < sim->config.n_blocks && told->block < sim->config.n_blocks);
    mirror->last_serial = told->serial;
    struct sim_mirror_entry *entry = &mirror->entries[mirror->n_entries++];
    *entry = (struct sim_mirror_entry){.serial = told->serial,
                                       .parent_serial = told->parent_serial,
                                       .salt = told->salt,
                                       .block = told->block,
                                       .adapter = told->adapter};
    memcpy(entry->tokens, told->tokens, sim->config.block_tokens * sizeof *told->tokens);
    sim->counts->prefixes_stored++;
}

static void on_removed(void *context, const struct prefix_block *told)
{
    struct sim *sim = context;
    struct sim_mirror_entry *entry = find(&sim->mirror, told->serial);
    SIM_CHECK(sim, entry != NULL && is_equal(sim, entry, told));
    *entry = sim->mirror.entries[--sim->mirror.n_entries];
    sim->counts->prefixes_removed++;
}

struct prefix_observer sim_mirror_observer(struct sim *sim)
{
    return (struct prefix_observer){sim, on_stored, on_removed};
}

void sim_mirror_check(struct sim *sim)
{
    const struct prefix_cache *cache = &sim->sched->cache;
    uint32_t n_entries = 0;
    for (uint32_t block = 0; cache->enabled && block < sim->config.n_blocks; block++) {
        struct prefix_block held;
        if (!prefix_cache_entry(cache, block, &held))
            continue;
        n_entries++;
        const struct sim_mirror_entry *known = find(&sim->mirror, held.serial);
        SIM_CHECK(sim, known != NULL && is_equal(sim, known, &held));
    }
    SIM_CHECK(sim, n_entries == sim->mirror.n_entries);
}
