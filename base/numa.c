#include "base/numa.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/mapped_file.h"

enum { LIST_BYTES_MAX = 64 * 1024, PATH_BYTES_MAX = 512 };

static const struct numa_topology *pretended;
static numa_bind_fn *pretended_bind;

void numa_pretend(const struct numa_topology *topology, numa_bind_fn *bind)
{
    pretended = topology;
    pretended_bind = bind;
}

/* A number below CPU_SETSIZE; -1: there is none. */
static int take_number(const char **at)
{
    char *end;
    if (!isdigit((unsigned char)**at))
        return -1;
    unsigned long value = strtoul(*at, &end, 10);
    *at = end;
    return value < CPU_SETSIZE ? (int)value : -1;
}

bool numa_parse_list(const char *text, cpu_set_t *out)
{
    CPU_ZERO(out);
    const char *at = text;
    if (*at == '\n' || *at == '\0') /* a node with memory alone */
        return true;
    for (;;) {
        int first = take_number(&at), last = first;
        if (first >= 0 && *at == '-') {
            at++;
            last = take_number(&at);
        }
        if (first < 0 || last < first)
            return false;
        for (int i = first; i <= last; i++)
            CPU_SET(i, out);
        if (*at != ',')
            break;
        at++;
    }
    return *at == '\0' || (*at == '\n' && at[1] == '\0');
}

static bool read_list(const char *root, const char *name, cpu_set_t *out)
{
    char path[PATH_BYTES_MAX], *text;
    size_t size_bytes;
    if (snprintf(path, sizeof path, "%s/%s", root, name) >= (int)sizeof path ||
        file_read(path, LIST_BYTES_MAX, &text, &size_bytes).code != ERR_OK)
        return false;
    bool good = numa_parse_list(text, out);
    mem_free(text);
    return good;
}

/* False: the tree does not say it. */
static bool read_nodes(const char *root, const cpu_set_t *usable, struct numa_topology *out)
{
    cpu_set_t online, seen, twice;
    CPU_ZERO(&seen);
    out->n_nodes = 0;
    if (!read_list(root, "online", &online))
        return false;
    for (int id = 0; id < CPU_SETSIZE; id++) {
        char name[32];
        cpu_set_t cpus;
        if (!CPU_ISSET(id, &online))
            continue;
        (void)snprintf(name, sizeof name, "node%d/cpulist", id);
        if (!read_list(root, name, &cpus))
            return false;
        CPU_AND(&cpus, &cpus, usable);
        CPU_AND(&twice, &cpus, &seen);
        if (CPU_COUNT(&cpus) == 0)
            continue;
        if (id >= NUMA_NODES_MAX || CPU_COUNT(&twice) > 0)
            return false;
        CPU_OR(&seen, &seen, &cpus);
        out->nodes[out->n_nodes++] = (struct numa_node){id, cpus};
    }
    return CPU_EQUAL(&seen, usable) && out->n_nodes > 0;
}

void numa_read(const char *root, const cpu_set_t *usable, struct numa_topology *out)
{
    if (read_nodes(root, usable, out))
        return;
    out->n_nodes = 1;
    out->nodes[0] = (struct numa_node){0, *usable};
}

void numa_detect(const cpu_set_t *usable, struct numa_topology *out)
{
    if (pretended != NULL)
        *out = *pretended;
    else
        numa_read("/sys/devices/system/node", usable, out);
}

/* The n-th CPU of a set, which has more. */
static int nth_cpu(const cpu_set_t *cpus, int n)
{
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, cpus) && n-- == 0)
            return cpu;
    ASSERT(false && "fewer CPUs");
    return 0;
}

int numa_thread_node(const struct numa_topology *topology, int thread_index, int n_threads, cpu_set_t *cpus)
{
    ASSERT(topology->n_nodes >= 1 && thread_index >= 0 && thread_index < n_threads);
    int n_cpus = 0, node = 0;
    for (int i = 0; i < topology->n_nodes; i++)
        n_cpus += CPU_COUNT(&topology->nodes[i].cpus);
    /* The CPUs stand in a row, node by node, and the threads beside them at even distances. */
    int at = (int)((int64_t)thread_index * n_cpus / n_threads);
    while (at >= CPU_COUNT(&topology->nodes[node].cpus))
        at -= CPU_COUNT(&topology->nodes[node++].cpus);
    *cpus = topology->nodes[node].cpus;
    if (n_threads == n_cpus) {
        int cpu = nth_cpu(cpus, at);
        CPU_ZERO(cpus);
        CPU_SET(cpu, cpus);
    }
    return node;
}

bool numa_bind(void *start, size_t size_bytes, enum numa_policy policy, uint64_t nodes)
{
    ASSERT(size_bytes > 0 && nodes != 0);
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), first = (uintptr_t)start / page * page;
    size_t bytes = ((uintptr_t)start + size_bytes - first + page - 1) / page * page;
    if (pretended_bind != NULL)
        return pretended_bind((void *)first, bytes, policy, nodes);
    unsigned long mask = nodes;
    /* The kernel wants the number of bits and one. */
    return syscall(SYS_mbind, first, bytes, (int)policy, &mask, 8 * sizeof mask + 1, 0) == 0;
}
