/* Runs CUDA kernels on the CPU: one fiber a thread, one block at a time on an OS thread. docs/cuda.md says
 * what it catches. What a kernel does wrong is a bug: it prints the kernel, block and thread and aborts.
 *
 * Blocks run to their end in any order: a kernel may wait for other blocks only by "last block done"
 * counters, never by spinning. */
#pragma once

#include "kernels/cuda/ptx_host.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The launch in front of a dependent one, still under way: what it is to write is hidden before each block
 * begins and shown when no thread of the block can go on without it. By then the block's cp.async have read
 * what they found. One OS thread. */
struct emu_front {
    void (*hide)(void *context);
    void (*show)(void *context);
    void *context;
};

/* Memory that launches in front write. */
struct emu_late {
    const void *at;
    size_t bytes;
};

struct emu_launch {
    const struct emu_kernel *kernel;
    uint32_t grid[3];
    uint32_t block_threads;
    uint32_t shared_bytes; /* dynamic */
    const void *args;
    size_t args_bytes;
    bool
        dependent; /* launched with programmatic dependent launch: the kernel must call dependencies_wait() */
    bool shared_not_asked;         /* as the host may: static and dynamic are at most 48 KB */
    const struct emu_front *front; /* NULL: it has ended */
    /* Of a dependent launch: what no thread may read before a dependencies_wait(), as far as a kernel reports
     * its accesses. */
    const struct emu_late *late;
    size_t n_late;
};

/* Runs the grid and returns when it has ended. Thread-safe. */
void emu_launch(const struct emu_launch *launch);

/* Of the launches that follow, from all threads. */
struct emu_options {
    uint64_t seed;      /* 0: blocks, warps and lanes in ascending order; else at random */
    uint32_t n_threads; /* OS threads that share the blocks of a grid; 1 gives the same order in every run */
    uint32_t target;    /* compute capability: 80, 86, 89, 90, 120 */
};
void emu_set_options(const struct emu_options *options);
/* From BANTAM_EMULATOR_SEED (0), _THREADS (1) and _TARGET (90) until set otherwise. */
struct emu_options emu_get_options(void);
/* Static and dynamic shared memory that a block may have, bytes. */
uint32_t emu_shared_limit(uint32_t target);

/* The kernels of cuda_kernels.h by id; NULL beyond them. In the library cuda_kernels_emulated. */
const struct emu_kernel *emulated_kernel(uint32_t cuda_kernel_id);

/* Of a kernel that a test defines: EMU_KERNEL(name) declares it, &emu_kernel_name names it. */
#define EMU_KERNEL(name) extern const struct emu_kernel emu_kernel_##name

#ifdef __cplusplus
}
#endif
