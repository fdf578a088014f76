/* The choice of tile and split for a linear layer. */
#include "base/assert.h"
#include "base/checked.h"
#include "kernels/cuda/linear_plan.h"

const uint32_t linear_tile_sizes[LINEAR_TILE_SIZES] = {8, 16, 32, 64, 128, 256};

#define TILE_KERNELS(name)                                                                                   \
    {                                                                                                        \
        CUDA_KERNEL_linear_##name##_r8, CUDA_KERNEL_linear_##name##_r16, CUDA_KERNEL_linear_##name##_r32,    \
            CUDA_KERNEL_linear_##name##_r64, CUDA_KERNEL_linear_##name##_r128                                \
    }

/* Whether the weight is streamed: where there are bulk copies and shared memory for three stages in two
 * blocks. */
static bool is_streamed(enum linear_layout layout, uint32_t tile_rows, const struct linear_device *device)
{
    return linear_has_groups(layout) && tile_rows <= LINEAR_STREAM_ROWS_MAX &&
           device->compute_capability >= 90 && device->shared_bytes >= 228 << 10;
}

/* Whether rows stay in shared memory. */
static bool is_resident(enum linear_layout layout, uint32_t tile_rows, const struct linear_device *device)
{
    return linear_is_int4(layout) && tile_rows <= LINEAR_RESIDENT_ROWS_MAX &&
           is_streamed(layout, tile_rows, device);
}

#define RESIDENT_KERNELS(name)                                                                               \
    {                                                                                                        \
        CUDA_KERNEL_linear_##name##_resident_r8, CUDA_KERNEL_linear_##name##_resident_r16,                   \
            CUDA_KERNEL_linear_##name##_stream_r32                                                           \
    }

static enum cuda_kernel_id stream_kernel(enum linear_layout layout, size_t tile)
{
    static const enum cuda_kernel_id int4[] = RESIDENT_KERNELS(int4), uint4[] = RESIDENT_KERNELS(uint4),
                                     int8[] = {CUDA_KERNEL_linear_int8_slab_r8,
                                               CUDA_KERNEL_linear_int8_stream_r16,
                                               CUDA_KERNEL_linear_int8_stream_r32};
    return layout == LINEAR_INT4 ? int4[tile] : layout == LINEAR_UINT4 ? uint4[tile] : int8[tile];
}

static enum cuda_kernel_id tile_kernel(enum linear_layout layout, uint32_t compute_capability, size_t tile)
{
    static const enum cuda_kernel_id kernels[LINEAR_LAYOUTS][LINEAR_TILE_SIZES] = {
        [LINEAR_BF16] = TILE_KERNELS(bf16),
        [LINEAR_INT4] = TILE_KERNELS(int4),
        [LINEAR_UINT4] = TILE_KERNELS(uint4),
        [LINEAR_INT8] = TILE_KERNELS(int8),
        [LINEAR_S8] = TILE_KERNELS(s8),
        [LINEAR_E4M3] = TILE_KERNELS(e4m3),
        [LINEAR_E4M3_WGMMA] = TILE_KERNELS(e4m3_wgmma),
    };
    static const enum cuda_kernel_id as_bf16[LINEAR_TILE_SIZES] = TILE_KERNELS(e4m3_as_bf16);
    if (layout == LINEAR_E4M3 && linear_e4m3_kind(compute_capability) == LINEAR_E4M3_AS_BF16)
        return as_bf16[tile];
    return kernels[layout][tile];
}

/* Whether many bf16 rows are multiplied by wgmma. */
static bool is_wide_wgmma(enum linear_layout layout, uint32_t tile_rows, const struct linear_device *device)
{
    return (layout == LINEAR_BF16 || linear_has_groups(layout)) && tile_rows >= LINEAR_WIDE_ROWS_MIN &&
           device->compute_capability == 90;
}

size_t linear_tile_sizes_of(enum linear_layout layout, const struct linear_device *device)
{
    return is_wide_wgmma(layout, 256, device) ? LINEAR_TILE_SIZES : LINEAR_TILE_SIZES - 1;
}

#define WIDE_KERNELS(name)                                                                                   \
    {                                                                                                        \
        CUDA_KERNEL_linear_##name##_wgmma_r64, CUDA_KERNEL_linear_##name##_wgmma_r128,                       \
            CUDA_KERNEL_linear_##name##_wgmma_r256                                                           \
    }

static enum cuda_kernel_id wide_kernel(enum linear_layout layout, uint32_t tile_rows)
{
    static const enum cuda_kernel_id kernels[LINEAR_LAYOUTS][3] = {
        [LINEAR_BF16] = WIDE_KERNELS(bf16),
        [LINEAR_INT4] = WIDE_KERNELS(int4),
        [LINEAR_UINT4] = WIDE_KERNELS(uint4),
        [LINEAR_INT8] = WIDE_KERNELS(int8),
    };
    return kernels[layout][tile_rows / LINEAR_WIDE_ROWS_MIN / 2];
}

size_t linear_partial_bytes(size_t n_out, size_t n_in, size_t rows)
{
    size_t bytes = round_up(n_out, LINEAR_TILE_OUTPUTS) * round_up(rows, 128) * sizeof(float), n;
    if (!checked_mul(bytes, div_up(n_in, LINEAR_CHUNK_MIN), &n) || n > LINEAR_PARTIAL_BYTES_MAX)
        return LINEAR_PARTIAL_BYTES_MAX;
    return n;
}

size_t linear_arrivals_max(size_t partial_bytes)
{
    /* A tile that is split has two chunks at least, of eight rows. */
    return partial_bytes / (2 * 8 * LINEAR_TILE_OUTPUTS * sizeof(float)) + 1;
}

/* Blocks that share a multiprocessor: registers (the kernels' launch bounds) and shared memory. */
static uint32_t resident_blocks(uint32_t tile_rows, uint32_t shared_bytes, const struct linear_device *device)
{
    uint32_t by_registers = tile_rows <= 32 ? 3 : tile_rows == 64 ? 2 : 1;
    uint32_t by_shared = device->shared_bytes / (shared_bytes + 2048); /* 1 KB of the driver's, 1 KB static */
    uint32_t n = by_registers < by_shared ? by_registers : by_shared;
    return n > 0 ? n : 1;
}

/* Chunks are warps of one block. */
static struct linear_plan plan_of_slabs(struct linear_plan plan, uint32_t n_out, uint32_t rows,
                                        const struct linear_device *device)
{
    size_t units = div_up(n_out, LINEAR_SLAB) * div_up(rows, LINEAR_SLAB_ROWS);
    size_t slots = (size_t)device->n_multiprocessors * LINEAR_SLAB_BLOCKS;
    plan.block_threads = LINEAR_SLAB_THREADS;
    plan.shared_bytes = LINEAR_SLAB_SHARED_BYTES;
    plan.is_split = false;
    plan.grid = (uint32_t)(units < slots ? units : slots);
    return plan;
}

/* Chunks are warps of a team, teams share the rows; one block a multiprocessor, which leaves room beside it.
 */
static struct linear_plan plan_of_teams(struct linear_plan plan, enum linear_layout layout, uint32_t n_out,
                                        uint32_t n_in, uint32_t rows, const struct linear_device *device)
{
    uint32_t tile_rows = plan.tile_rows, n_rows = rows < tile_rows ? rows : tile_rows;
    uint32_t n_chunks = (uint32_t)div_up(linear_blocks(layout, n_in), plan.chunk_blocks);
    uint32_t x_bytes = n_chunks * n_rows * linear_resident_row_bytes(plan.chunk_blocks);
    plan.window_blocks = plan.chunk_blocks;
    if (x_bytes > (device->resident_bytes > 0 ? device->resident_bytes : LINEAR_RESIDENT_X_BYTES)) {
        plan.window_blocks = LINEAR_RESIDENT_WINDOW;
        x_bytes = linear_resident_windows(tile_rows) * n_chunks * n_rows *
                  linear_resident_row_bytes(LINEAR_RESIDENT_WINDOW);
    }
    uint32_t n_tiles = linear_resident_tiles(n_out), n_multiprocessors = device->n_multiprocessors;
    uint32_t teams = n_tiles > n_multiprocessors ? LINEAR_RESIDENT_TEAMS : 1;
    plan.block_threads = teams * LINEAR_TEAM_THREADS;
    plan.shared_bytes = teams * linear_resident_sums(tile_rows) + x_bytes;
    plan.is_split = false;
    uint32_t blocks = (uint32_t)div_up(n_tiles, teams);
    plan.grid = blocks < n_multiprocessors ? blocks : n_multiprocessors;
    return plan;
}

struct linear_plan linear_plan_of_tile(enum linear_layout layout, uint32_t n_out, uint32_t n_in,
                                       uint32_t rows, const struct linear_device *device, uint32_t tile_rows,
                                       bool is_split)
{
    ASSERT(rows > 0 && n_out > 0 && n_in > 0);
    size_t tile = 0;
    while (tile < LINEAR_TILE_SIZES && linear_tile_sizes[tile] != tile_rows)
        tile++;
    ASSERT(tile < linear_tile_sizes_of(layout, device));
    uint32_t chunk = linear_chunk_inputs(layout, n_out, n_in);
    size_t n_chunks = div_up(n_in, chunk);
    size_t n_tiles = div_up(n_out, LINEAR_TILE_OUTPUTS) * div_up(rows, tile_rows);
    struct linear_plan plan = {
        .kernel = tile_kernel(layout, device->compute_capability, tile),
        .block_threads = linear_block_threads(layout, tile_rows),
        .shared_bytes = linear_tile_shared_bytes(layout, tile_rows),
        .tile_rows = tile_rows,
        .chunk_blocks = chunk / linear_block_inputs(layout),
        .is_split = is_split && n_chunks > 1,
    };
    if (is_resident(layout, tile_rows, device)) {
        plan.kernel = stream_kernel(layout, tile);
        return plan_of_teams(plan, layout, n_out, n_in, rows, device);
    }
    if (is_streamed(layout, tile_rows, device)) {
        plan.kernel = stream_kernel(layout, tile);
        plan.block_threads = LINEAR_STREAM_THREADS + LINEAR_LOADER_THREADS;
        plan.shared_bytes =
            linear_stream_stages(layout, tile_rows) * linear_stream_stage_bytes(layout, tile_rows);
        if (tile_rows == LINEAR_SLAB_ROWS)
            return plan_of_slabs(plan, n_out, rows, device);
    }
    if (is_wide_wgmma(layout, tile_rows, device)) {
        plan.kernel = wide_kernel(layout, tile_rows);
        plan.rows_in_blocks = true;
        plan.block_threads = LINEAR_WGMMA_THREADS + LINEAR_WIDE_LOADER_THREADS;
        plan.shared_bytes = linear_wide_shared_bytes(layout, tile_rows);
    }
    if (plan.is_split) {
        plan.n_arrivals = n_tiles;
        plan.partial_bytes = n_tiles * n_chunks * tile_rows * LINEAR_TILE_OUTPUTS * sizeof(float);
    }
    size_t units = n_tiles * (plan.is_split ? n_chunks : 1);
    size_t slots = (size_t)device->n_multiprocessors * resident_blocks(tile_rows, plan.shared_bytes, device);
    plan.grid = (uint32_t)(units < slots ? units : slots);
    return plan;
}

/* Cycles of the launch, computed: the units that the busiest multiprocessor gets, each bound by its matrix
 * instructions or by the bytes that it reads; partial sums go out and come back. */
static double plan_cost(const struct linear_plan *plan, enum linear_layout layout, uint32_t n_out,
                        uint32_t n_in, uint32_t rows, const struct linear_device *device)
{
    enum { MMA_CYCLES = 2, BYTES_A_CYCLE = 38, UNIT_CYCLES = 800, SPLIT_CYCLES = 2500, SUM_COSTS = 8 };
    size_t chunk = (size_t)plan->chunk_blocks * linear_block_inputs(layout);
    size_t inputs = plan->is_split && chunk < n_in ? chunk : n_in;
    size_t n_chunks = plan->is_split ? div_up(n_in, chunk) : 1;
    size_t units = div_up(n_out, LINEAR_TILE_OUTPUTS) * div_up(rows, plan->tile_rows) * n_chunks;
    size_t block = linear_block_inputs(layout);
    /* 16 outputs by 8 rows by 32 bytes of a row: four instructions a multiprocessor in 8 cycles; wgmma is
     * twice as fast. */
    size_t products = LINEAR_TILE_OUTPUTS / 16 * (plan->tile_rows / 8) * div_up(inputs, block) * 4;
    /* Codes to bf16: 18 instructions for 16 outputs by 16 inputs, in every warp along the rows, by four
     * schedulers. */
    double by_codes = 0;
    bool is_wide = is_wide_wgmma(layout, plan->tile_rows, device);
    if (linear_has_groups(layout))
        by_codes = 18.0 / 4 * (LINEAR_TILE_OUTPUTS / 16) * 4 * (double)div_up(inputs, block) *
                   (is_wide ? 1 : linear_row_warps(plan->tile_rows));
    size_t codes = layout == LINEAR_BF16 ? LINEAR_PANEL * LINEAR_BLOCK_BYTES : linear_block_bytes(layout);
    size_t live_rows = rows < plan->tile_rows ? rows : plan->tile_rows;
    size_t bytes = div_up(inputs, block) * (LINEAR_TILE_PANELS * codes + live_rows * LINEAR_BLOCK_BYTES);
    double by_products = (double)products * (layout == LINEAR_E4M3_WGMMA || is_wide ? 1 : MMA_CYCLES),
           by_bytes = (double)bytes / BYTES_A_CYCLE;
    if (!is_wide) /* wgmma runs while codes become bf16 */
        by_products += by_codes;
    else if (by_products < by_codes)
        by_products = by_codes;
    double unit =
        (by_products > by_bytes ? by_products : by_bytes) + UNIT_CYCLES + (plan->is_split ? SPLIT_CYCLES : 0);
    double sums = plan->is_split ? SUM_COSTS * (double)n_chunks * rows * n_out * sizeof(float) : 0;
    return (double)div_up(units, device->n_multiprocessors) * unit +
           sums / (BYTES_A_CYCLE * (double)device->n_multiprocessors);
}

struct linear_plan linear_plan_choose(enum linear_layout layout, uint32_t n_out, uint32_t n_in, uint32_t rows,
                                      const struct linear_device *device)
{
    struct linear_plan best = {0};
    double best_cost = 0;
    /* Of a bf16 weight the tiles for 256 rows serve half as many sooner than those that the cost prefers: on
     * an H200 a layer of Llama-8B took 379 us at 128 rows, 286 at 256. */
    uint32_t as_rows = rows;
    if (layout == LINEAR_BF16 && rows > 64 && rows <= 128 && is_wide_wgmma(layout, 256, device))
        as_rows = 256;
    if (rows <= LINEAR_SLAB_ROWS && is_streamed(layout, LINEAR_SLAB_ROWS, device))
        return linear_plan_of_tile(layout, n_out, n_in, rows, device, LINEAR_SLAB_ROWS, false);
    if (rows <= LINEAR_RESIDENT_ROWS_MAX && is_resident(layout, LINEAR_RESIDENT_ROWS_MAX, device))
        return linear_plan_of_tile(layout, n_out, n_in, rows, device, LINEAR_RESIDENT_ROWS_MAX, false);
    for (size_t tile = 0; tile < linear_tile_sizes_of(layout, device); tile++) {
        if (is_resident(layout, linear_tile_sizes[tile], device))
            continue;
        for (int is_split = 0; is_split < 2; is_split++) {
            struct linear_plan plan =
                linear_plan_of_tile(layout, n_out, n_in, rows, device, linear_tile_sizes[tile], is_split);
            double cost = plan_cost(&plan, layout, n_out, n_in, as_rows, device);
            if (plan.partial_bytes > device->partial_bytes || (best.grid > 0 && cost >= best_cost))
                continue;
            best = plan;
            best_cost = cost;
        }
        if (linear_tile_sizes[tile] >= as_rows)
            break;
    }
    return best;
}
