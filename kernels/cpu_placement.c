/* Which memory node the pages of a weight and of the KV come from (base/numa.h). On one node: nothing is
 * done. */
#include "base/numa.h"
#include "kernels/cpu_backend.h"
#include "kernels/cpu_memory.h"

void cpu_place_panels(const struct cpu_backend *cpu, const struct panels *panels)
{
    size_t bytes = panels->n_panels * panels->panel_bytes;
    if (thread_pool_node_count(cpu->pool) == 1 || bytes < CPU_MEMORY_MAP_FROM_BYTES)
        return;
    for (int i = 0, next; i < cpu->n_threads; i = next) {
        size_t begin, end, last_end;
        int node = thread_pool_node(cpu->pool, i);
        thread_split(panels->n_panels, 1, i, cpu->n_threads, &begin, &end);
        for (next = i + 1; next < cpu->n_threads && thread_pool_node(cpu->pool, next) == node; next++) {
            size_t next_begin;
            thread_split(panels->n_panels, 1, next, cpu->n_threads, &next_begin, &last_end);
            end = last_end;
        }
        if (begin < end)
            (void)numa_bind(panels->data + begin * panels->panel_bytes, (end - begin) * panels->panel_bytes,
                            NUMA_PREFERRED, UINT64_C(1) << node);
    }
}

void cpu_place_shared(const struct cpu_backend *cpu, void *block, size_t size_bytes)
{
    if (thread_pool_node_count(cpu->pool) == 1 || size_bytes < CPU_MEMORY_MAP_FROM_BYTES)
        return;
    uint64_t nodes = 0;
    for (int i = 0; i < cpu->n_threads; i++)
        nodes |= UINT64_C(1) << thread_pool_node(cpu->pool, i);
    (void)numa_bind(block, size_bytes, NUMA_INTERLEAVED, nodes);
}
