/* What this process takes of the machine, as Prometheus's client libraries report it. */
#pragma once

#include <stdint.h>

/* What the system does not say is 0. */
struct process_usage {
    double cpu_s;        /* user and system, since start */
    double start_unix_s; /* when the process began */
    uint64_t resident_bytes, virtual_bytes;
    uint64_t open_files, max_files; /* descriptors; max: the soft limit, UINT64_MAX = none */
    uint64_t threads;
};

/* Reads /proc. Any thread. */
void process_usage_read(struct process_usage *out);
