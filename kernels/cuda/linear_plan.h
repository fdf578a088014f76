/* Which kernel serves a linear layer at a number of rows, and its launch. Pure functions. The arithmetic of a
 * weight is the same in every plan; what is chosen here is speed, by a computed cost whose
 * constants were set by an H200. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/linear_pack.h"

struct linear_device {
    uint32_t compute_capability; /* 10 * major + minor */
    uint32_t n_multiprocessors;
    uint32_t shared_bytes;   /* of a multiprocessor */
    size_t partial_bytes;    /* scratch for partial sums: plans that need more are not split */
    uint32_t resident_bytes; /* of rows that a kernel keeps whole, at most; 0: LINEAR_RESIDENT_X_BYTES */
};

struct linear_plan {
    enum cuda_kernel_id kernel;
    uint32_t grid, block_threads, shared_bytes;
    uint32_t tile_rows;
    uint32_t chunk_blocks, window_blocks;
    bool rows_in_blocks;  /* bf16 rows are to be arranged (arrange_rows_bf16) */
    bool is_split;        /* chunks go to different blocks: partials and arrivals are needed */
    size_t partial_bytes; /* scratch that the launch writes */
    size_t n_arrivals;    /* counters, zero before the first launch */
};

/* Scratch for partial sums that is worth having for weights up to [n_out, n_in] and up to `rows` rows. */
enum { LINEAR_PARTIAL_BYTES_MAX = 32 << 20 };
size_t linear_partial_bytes(size_t n_out, size_t n_in, size_t rows);
/* Counters that plans with so much scratch can need. */
size_t linear_arrivals_max(size_t partial_bytes);

/* rows: the capacity of the launch, at least 1. */
struct linear_plan linear_plan_choose(enum linear_layout layout, uint32_t n_out, uint32_t n_in, uint32_t rows,
                                      const struct linear_device *device);
/* The plan with that tile; for the choice, checks and tuning. tile_rows: of linear_tile_sizes. */
struct linear_plan linear_plan_of_tile(enum linear_layout layout, uint32_t n_out, uint32_t n_in,
                                       uint32_t rows, const struct linear_device *device, uint32_t tile_rows,
                                       bool is_split);

enum { LINEAR_TILE_SIZES = 6 };
extern const uint32_t linear_tile_sizes[LINEAR_TILE_SIZES];
/* How many of them, from the first on, a layout has kernels for. */
size_t linear_tile_sizes_of(enum linear_layout layout, const struct linear_device *device);
