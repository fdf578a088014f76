/* Where memory is: the nodes of a machine (sockets, as a rule), each with CPUs that reach its memory faster
 * than the others'. Read from sysfs and asked of the kernel by system calls: no library. Set-up time, any
 * thread. */
#pragma once

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { NUMA_NODES_MAX = 64 };

struct numa_node {
    int id; /* the kernel's number, below NUMA_NODES_MAX */
    cpu_set_t cpus;
};

/* The nodes that have CPUs of a set, in the order of their numbers. One node: nothing is to be placed. */
struct numa_topology {
    int n_nodes; /* >= 1 */
    struct numa_node nodes[NUMA_NODES_MAX];
};

/* The nodes of this machine that `usable` has CPUs of. */
void numa_detect(const cpu_set_t *usable, struct numa_topology *out);
/* The same from a tree like /sys/devices/system/node. What cannot be read, or does not say of every usable
 * CPU which one node it belongs to, is one node. */
void numa_read(const char *root, const cpu_set_t *usable, struct numa_topology *out);
/* "0-3,8,10-11", with a line's end or without. False: it is no such list, or names CPU_SETSIZE and more. */
bool numa_parse_list(const char *text, cpu_set_t *out);

/* Thread `thread_index` of n: the index in `nodes` that it belongs to, and the CPUs that it should run on.
 * Nodes have threads by how many CPUs they have, the first threads the first node; each has a CPU of its own
 * where there are as many threads as CPUs, else all of its node. */
int numa_thread_node(const struct numa_topology *topology, int thread_index, int n_threads, cpu_set_t *cpus);

/* Values of the system call. */
enum numa_policy { NUMA_PREFERRED = 1, NUMA_INTERLEAVED = 3 };
/* Pages of [start, start + size_bytes) that are touched from now on come from these nodes (bit i: node id i),
 * the range rounded outward to pages. False when the kernel does not do it: they come from anywhere, and
 * everything works. */
bool numa_bind(void *start, size_t size_bytes, enum numa_policy policy, uint64_t nodes);

typedef bool numa_bind_fn(void *start, size_t size_bytes, enum numa_policy policy, uint64_t nodes);
/* Tests only: what numa_detect says from now on, and who is told of every numa_bind; NULL: the machine's
 * again. */
void numa_pretend(const struct numa_topology *topology, numa_bind_fn *bind);
