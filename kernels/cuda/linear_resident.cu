/* int4 weights by at most 16 bf16 rows: bound by the bytes of the weight, which go from memory to registers
 * and are fragments there, some blocks ahead, those of the next outputs too. The rows stay in shared memory
 * while all outputs of a thread block pass by; rows too long for that come in windows. A team of eight warps
 * has 16 outputs, a warp of it a chunk of K; the chunks' sums meet in shared memory. The arithmetic is that
 * of linear_tile.h, product by product. */
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/linear_tile.h"

enum { QUAD = LINEAR_RESIDENT_WINDOW, BLOCK_HALVES = 2 }; /* QUAD: blocks, 256 inputs */

/* IS_LONG: a group is two blocks at least. IS_WHOLE: rows stay whole. */
template <enum linear_layout LAYOUT_, uint32_t ROWS_, bool IS_LONG_, bool IS_WHOLE_> struct resident_shape {
    static constexpr enum linear_layout LAYOUT = LAYOUT_;
    static constexpr bool IS_WIDE = true, IS_LONG = IS_LONG_, IS_WHOLE = IS_WHOLE_;
    static constexpr uint32_t ROWS = ROWS_, ROW_TILES = ROWS / 8;
    static constexpr uint32_t BLOCK_INPUTS = linear_block_inputs(LAYOUT);
    static constexpr uint32_t BLOCK_BYTES = linear_block_bytes(LAYOUT); /* of a panel */
    static constexpr uint32_t PARTS = LAYOUT == LINEAR_UINT4 ? 2 : 1;   /* of a group: scales, zero points */
    static constexpr uint32_t GROUP_BYTES = linear_group_bytes(LAYOUT);
    /* Blocks that are on their way, and a step of the loop: what registers hold. */
    static constexpr uint32_t AHEAD = IS_LONG ? 2 * QUAD : QUAD;
    static constexpr uint32_t GROUPS = IS_LONG ? AHEAD / 2 : AHEAD * BLOCK_HALVES;
    static constexpr uint32_t WINDOWS = linear_resident_windows(ROWS);
};

/* What is the same for all units of a warp. */
struct resident_warp {
    uint32_t team, chunk;
    uint32_t first, n;          /* blocks of the chunk */
    uint32_t n_quads;           /* of a whole chunk */
    uint32_t n_units, n_rounds; /* units of all teams; those of each, in turn */
};

/* Where a block of threads keeps rows: [windows][chunks][rows][row_bytes]. */
struct resident_rows {
    uint8_t *base;
    uint32_t n_capacity, row_bytes, window_bytes;
    uint32_t window_inputs; /* of each chunk */
};

/* Bytes to the codes of a tile's chunk at the lane's piece; to the scales of its group 0, of the lane's pair
 * of outputs. */
struct resident_tile {
    uint32_t codes, scales;
};

/* Blocks on their way or there. */
template <class S> struct resident_ahead {
    vec16 codes[S::AHEAD];
    uint32_t scales[S::GROUPS][S::PARTS];
};

template <class S>
DEVICE struct resident_tile resident_tile_of(const struct linear_job &job, const struct resident_warp &warp,
                                             uint32_t tile)
{
    uint32_t panel = tile / LINEAR_PANEL_TILES, in_panel = tile % LINEAR_PANEL_TILES;
    uint32_t output = in_panel / SLAB_TILES * LINEAR_SLAB + in_panel % SLAB_TILES * 2 + lane_id() / 4 * 4;
    return {(panel * job.n_blocks + warp.first) * S::BLOCK_BYTES + in_panel * LINEAR_TILE_BYTES +
                lane_id() * 16,
            panel * job.n_groups * S::GROUP_BYTES + output * 2};
}

/* Where slots get their blocks from: block first + i of a tile's chunk for slot i, n of them. */
struct slot_source {
    const uint8_t *codes, *scales;
    uint32_t block; /* of K, of slot 0 */
    int32_t n;
};

template <class S>
DEVICE struct slot_source slots_from(const struct linear_tile_args &args, const struct resident_tile &tile,
                                     const struct resident_warp &warp, uint32_t first, int32_t n)
{
    return {(const uint8_t *)args.weight + (tile.codes + first * S::BLOCK_BYTES),
            (const uint8_t *)args.weight_scale + tile.scales, warp.first + first, n};
}

template <class S>
DEVICE void load_slot(resident_ahead<S> *ahead, const struct linear_tile_args &args,
                      const struct slot_source &from, uint32_t i)
{
    ahead->codes[i] = load_once_16(from.codes + i * S::BLOCK_BYTES);
    if (S::IS_LONG && i % 2 != 0)
        return;
    constexpr uint32_t N = S::IS_LONG ? 1 : BLOCK_HALVES;
#pragma unroll
    for (uint32_t h = 0; h < N; h++) {
        uint32_t k = (from.block + i) * S::BLOCK_INPUTS + h * 32;
        const uint8_t *at = from.scales + (k >> args.group_shift) * S::GROUP_BYTES;
#pragma unroll
        for (uint32_t part = 0; part < S::PARTS; part++)
            ahead->scales[S::IS_LONG ? i / 2 : i * BLOCK_HALVES + h][part] =
                load_cached_4(at + part * LINEAR_PANEL * 2);
    }
}

/* Half a block, 32 inputs. x: the lane's rows at its inputs. */
template <class S>
DEVICE void multiply_half(float acc[S::ROW_TILES][4], const uint32_t codes[HALF_STEPS],
                          const uint32_t parts[S::PARTS], const uint8_t *const x[S::ROW_TILES], uint32_t byte)
{
    uint32_t scales[2], minus[2], b[S::ROW_TILES][4];
    spread_pair(scales, parts[0]);
    if constexpr (S::LAYOUT == LINEAR_UINT4)
        spread_pair(minus, parts[1]);
    else
        int4_minus(minus, scales);
#pragma unroll
    for (uint32_t j = 0; j < S::ROW_TILES; j++)
        ldmatrix_x4(b[j], x[j] + byte);
#pragma unroll
    for (uint32_t step = 0; step < HALF_STEPS; step++) {
        uint32_t a[4];
        if constexpr (S::LAYOUT == LINEAR_UINT4)
            fragment_uint4(a, codes[step], scales, minus);
        else
            fragment_int4(a, codes[step], scales, minus);
#pragma unroll
        for (uint32_t j = 0; j < S::ROW_TILES; j++)
            mma_bf16_16816(acc[j], a, b[j] + 2 * step);
    }
}

/* Four blocks, from slot FIRST on; n: that are there. */
template <class S, uint32_t FIRST, bool IS_PART>
DEVICE void multiply_quad(float acc[S::ROW_TILES][4], const resident_ahead<S> &ahead,
                          const uint8_t *const x[S::ROW_TILES], uint32_t n)
{
#pragma unroll
    for (uint32_t i = 0; i < QUAD; i++) {
        if (IS_PART && i >= n)
            break;
#pragma unroll
        for (uint32_t h = 0; h < BLOCK_HALVES; h++) {
            uint32_t slot = FIRST + i, group = S::IS_LONG ? slot / 2 : slot * BLOCK_HALVES + h;
            multiply_half<S>(acc, ahead.codes[slot].w + h * HALF_STEPS, ahead.scales[group], x,
                             i * LINEAR_BLOCK_BYTES + h * (LINEAR_BLOCK_BYTES / 2));
        }
    }
}

/* ---- Rows to shared memory ---- */

/* Inputs [at, at + window_inputs) of every chunk, of the rows from first_row on; inputs past n_in become
 * zeros. All warps of the block: a warp its chunk's, of every row its team takes. */
template <class S>
DEVICE void copy_window(const struct resident_rows &rows, uint8_t *to, const struct linear_tile_args &args,
                        const struct linear_job &job, const struct resident_warp &warp, uint32_t first_row,
                        uint32_t at)
{
    uint32_t n_rows = smaller(S::ROWS, job.n_rows - first_row);
    uint32_t begin = warp.first * S::BLOCK_INPUTS + at, end = (warp.first + warp.n) * S::BLOCK_INPUTS;
    end = smaller(begin + rows.window_inputs, end);
    for (uint32_t row = warp.team; row < n_rows; row += block_threads() / LINEAR_TEAM_THREADS) {
        const uint8_t *from = (const uint8_t *)args.x + (size_t)(first_row + row) * args.x_stride * 2;
        uint8_t *line = to + (warp.chunk * rows.n_capacity + row) * rows.row_bytes;
        for (uint32_t k = begin + lane_id() * 8; k < end; k += WARP_LANES * 8) {
            uint32_t n_valid = k < args.n_in ? smaller(16, (args.n_in - k) * 2) : 0;
            copy_async_16(line + (k - begin) * 2, from + (n_valid > 0 ? k * 2 : 0), n_valid);
        }
    }
}

/* Steps of all warps through windows: of the units' quads, one after another, for each tile of rows. */
struct window_cursor {
    uint32_t quad, round, first_row; /* of what is asked for next */
    uint32_t step;                   /* that is multiplied next */
};

template <class S> DEVICE void window_advance(struct window_cursor *at, const struct resident_warp &warp)
{
    if (++at->quad < warp.n_quads)
        return;
    at->quad = 0;
    if (++at->round < warp.n_rounds)
        return;
    at->round = 0;
    at->first_row += S::ROWS;
}

/* Asks for the cursor's window, the step'th, and moves on. */
template <class S>
DEVICE void ask_window(struct window_cursor *at, const struct resident_rows &rows,
                       const struct linear_tile_args &args, const struct linear_job &job,
                       const struct resident_warp &warp, uint32_t step)
{
    if (at->first_row < job.n_rows)
        copy_window<S>(rows, rows.base + step % S::WINDOWS * rows.window_bytes, args, job, warp,
                       at->first_row, at->quad * (QUAD * S::BLOCK_INPUTS));
    copy_async_commit();
    window_advance<S>(at, warp);
}

/* The window of the next step, once it is there for all warps, which are then done with the one before. */
template <class S>
DEVICE const uint8_t *next_window(struct window_cursor *at, const struct resident_rows &rows,
                                  const struct linear_tile_args &args, const struct linear_job &job,
                                  const struct resident_warp &warp)
{
    copy_async_wait(S::WINDOWS - 2);
    barrier();
    ask_window<S>(at, rows, args, job, warp, at->step + S::WINDOWS - 1);
    return rows.base + at->step++ % S::WINDOWS * rows.window_bytes;
}

/* All inputs of the rows from first_row on. */
template <class S>
DEVICE void copy_whole(const struct resident_rows &rows, const struct linear_tile_args &args,
                       const struct linear_job &job, const struct resident_warp &warp, uint32_t first_row)
{
    if (first_row > 0)
        barrier();
    copy_window<S>(rows, rows.base, args, job, warp, first_row, 0);
    copy_async_commit();
    copy_async_wait(0);
    barrier();
}

/* ---- Sums ---- */

/* sums: of the team, [chunks][rows][16 outputs]. */
template <class S>
DEVICE void keep_sums(float *sums, const struct resident_warp &warp, const float acc[S::ROW_TILES][4])
{
#pragma unroll
    for (uint32_t j = 0; j < S::ROW_TILES; j++) {
#pragma unroll
        for (uint32_t e = 0; e < 2; e++) {
            uint32_t row = warp.chunk * S::ROWS + j * 8 + lane_id() % 4 * 2 + e;
            vec8 pair = {{float_bits(acc[j][e]), float_bits(acc[j][e + 2])}};
            store_8(sums + row * LINEAR_TILE_M + lane_id() / 4 * 2, pair);
        }
    }
}

/* The chunks' sums in ascending order: a thread two outputs of a row. */
template <class S>
DEVICE void add_sums(const float *sums, const struct linear_tile_args &args, const struct linear_job &job,
                     uint32_t tile, uint32_t first_row)
{
    constexpr uint32_t PAIRS = LINEAR_TILE_M / 2;
    uint32_t i = thread_x() % LINEAR_TEAM_THREADS, row = i / PAIRS, pair = i % PAIRS;
    if (row >= S::ROWS || first_row + row >= job.n_rows)
        return;
    float sum[2] = {0, 0};
#pragma unroll
    for (uint32_t chunk = 0; chunk < LINEAR_GROUP_CHUNKS; chunk++) {
        if (chunk < job.n_chunks) {
            vec8 part = load_8(sums + ((chunk * S::ROWS + row) * PAIRS + pair) * 2);
            sum[0] += bits_float(part.w[0]);
            sum[1] += bits_float(part.w[1]);
        }
    }
    store_outputs<S, 2>(args, first_row + row,
                        tile / SLAB_TILES * LINEAR_SLAB + pair * 4 + tile % SLAB_TILES * 2, sum);
}

/* ---- The units: a tile of 16 outputs, for each tile of rows ---- */

/* The unit of the team's round'th turn; n_units or more: none. */
DEVICE uint32_t unit_of_round(uint32_t round, const struct resident_warp &warp)
{
    return (round * (block_threads() / LINEAR_TEAM_THREADS) + warp.team) * grid_x() + block_x();
}

template <class S>
DEVICE struct resident_warp make_warp(const struct linear_tile_args &args, const struct linear_job &job)
{
    uint32_t index = shuffle(warp_id(), 0), n_teams = block_threads() / LINEAR_TEAM_THREADS;
    struct resident_warp warp;
    warp.team = index / LINEAR_GROUP_CHUNKS;
    warp.chunk = index % LINEAR_GROUP_CHUNKS;
    warp.first = warp.chunk * args.chunk_blocks;
    warp.n = warp.first < job.n_blocks ? smaller(args.chunk_blocks, job.n_blocks - warp.first) : 0;
    warp.n_quads = args.chunk_blocks / QUAD;
    warp.n_units = linear_resident_tiles(args.n_out);
    warp.n_rounds = ceil_div(warp.n_units, grid_x() * n_teams);
    return warp;
}

template <class S>
DEVICE struct resident_rows make_rows(const struct linear_tile_args &args, uint32_t n_chunks, uint8_t *base)
{
    struct resident_rows rows;
    rows.base = base;
    rows.n_capacity = smaller(S::ROWS, args.rows.max);
    rows.window_inputs = args.window_blocks * S::BLOCK_INPUTS;
    rows.row_bytes = linear_resident_row_bytes(args.window_blocks);
    rows.window_bytes = n_chunks * rows.n_capacity * rows.row_bytes;
    return rows;
}

/* Slots of one quad: multiplied, and asked for again. left: blocks of the unit from this quad on, at most 0:
 * none. */
template <class S, uint32_t FIRST>
DEVICE void run_quad(float acc[S::ROW_TILES][4], resident_ahead<S> *ahead,
                     const struct linear_tile_args &args, const uint8_t *const x[S::ROW_TILES], int32_t left,
                     const struct slot_source &from)
{
    if (left >= QUAD)
        multiply_quad<S, FIRST, false>(acc, *ahead, x, QUAD);
    else if (left > 0)
        multiply_quad<S, FIRST, true>(acc, *ahead, x, (uint32_t)left);
    if (from.n >= (int32_t)(FIRST + QUAD)) {
#pragma unroll
        for (uint32_t i = FIRST; i < FIRST + QUAD; i++)
            load_slot<S>(ahead, args, from, i);
        return;
    }
#pragma unroll
    for (uint32_t i = FIRST; i < FIRST + QUAD; i++) {
        if ((int32_t)i < from.n)
            load_slot<S>(ahead, args, from, i);
    }
}

/* A unit and where it begins; n blocks of it, 0: there is none. */
struct resident_unit {
    uint32_t index;
    struct resident_tile tile;
    int32_t n;
};

template <class S>
DEVICE struct resident_unit make_unit(const struct linear_job &job, const struct resident_warp &warp,
                                      uint32_t index, bool is_wanted)
{
    bool is_there = is_wanted && index < warp.n_units;
    return {index, resident_tile_of<S>(job, warp, smaller(index, warp.n_units - 1)),
            is_there ? (int32_t)warp.n : 0};
}

/* The sums of a unit's chunk; what is ahead becomes the next one's. offset: of the lane's rows in a window.
 */
template <class S>
DEVICE void multiply_unit(float acc[S::ROW_TILES][4], resident_ahead<S> *ahead,
                          const struct linear_tile_args &args, const struct linear_job &job,
                          const struct resident_warp &warp, const struct resident_rows &rows,
                          struct window_cursor *windows, const uint32_t offset[S::ROW_TILES],
                          const struct resident_unit &unit, const struct resident_unit &next)
{
#pragma unroll 1
    for (uint32_t quad = 0; quad < warp.n_quads; quad += S::AHEAD / QUAD) {
        bool is_end = quad + S::AHEAD / QUAD >= warp.n_quads;
        uint32_t first = is_end ? 0 : quad * QUAD + S::AHEAD;
        struct slot_source from = slots_from<S>(args, is_end ? next.tile : unit.tile, warp, first,
                                                is_end ? next.n : unit.n - (int32_t)first);
#pragma unroll
        for (uint32_t half = 0; half < S::AHEAD / QUAD; half++) {
            uint32_t at = quad + half;
            const uint8_t *x[S::ROW_TILES], *window = rows.base + at * (QUAD * LINEAR_BLOCK_BYTES);
            if (!S::IS_WHOLE && at < warp.n_quads)
                window = next_window<S>(windows, rows, args, job, warp);
#pragma unroll
            for (uint32_t j = 0; j < S::ROW_TILES; j++)
                x[j] = window + offset[j];
            int32_t left = unit.n - (int32_t)(at * QUAD);
            if (half == 0)
                run_quad<S, 0>(acc, ahead, args, x, left, from);
            else
                run_quad<S, S::AHEAD - QUAD>(acc, ahead, args, x, left, from);
        }
    }
}

template <class S> DEVICE void run_resident(const struct linear_tile_args &args, uint8_t *shared)
{
    constexpr uint32_t SUMS = LINEAR_GROUP_CHUNKS * S::ROWS * LINEAR_TILE_M;
    constexpr uint32_t SUMS_BYTES = linear_resident_sums(S::ROWS);
    struct linear_job job = make_job<S>(args);
    struct resident_warp warp = make_warp<S>(args, job);
    struct resident_rows rows =
        make_rows<S>(args, job.n_chunks, shared + block_threads() / LINEAR_TEAM_THREADS * SUMS_BYTES);
    float *sums = (float *)(shared + warp.team * SUMS_BYTES);
    resident_ahead<S> ahead = {};
    struct resident_unit unit = make_unit<S>(job, warp, unit_of_round(0, warp), true);
    dependents_launch();
    struct slot_source from = slots_from<S>(args, unit.tile, warp, 0, unit.n);
#pragma unroll
    for (uint32_t i = 0; i < S::AHEAD; i++) {
        if ((int32_t)i < from.n)
            load_slot<S>(&ahead, args, from, i);
    }
    job.n_rows = count_rows(&args.rows);
    dependencies_wait();
    struct window_cursor windows = {0, 0, 0, 0};
    for (uint32_t step = 0; !S::IS_WHOLE && step + 1 < S::WINDOWS; step++)
        ask_window<S>(&windows, rows, args, job, warp, step);
    uint32_t parity = 0;
    for (uint32_t first_row = 0; first_row < job.n_rows; first_row += S::ROWS) {
        uint32_t offset[S::ROW_TILES];
#pragma unroll
        for (uint32_t j = 0; j < S::ROW_TILES; j++) {
            uint32_t row = smaller(j * 8 + lane_id() % 8, smaller(S::ROWS, job.n_rows - first_row) - 1);
            offset[j] = (warp.chunk * rows.n_capacity + row) * rows.row_bytes + lane_id() / 8 * 16;
        }
        if (S::IS_WHOLE)
            copy_whole<S>(rows, args, job, warp, first_row);
        for (uint32_t round = 0; round < warp.n_rounds; round++) {
            bool is_last = round + 1 == warp.n_rounds;
            struct resident_unit next = make_unit<S>(job, warp, unit_of_round(is_last ? 0 : round + 1, warp),
                                                     !is_last || first_row + S::ROWS < job.n_rows);
            float acc[S::ROW_TILES][4] = {};
            multiply_unit<S>(acc, &ahead, args, job, warp, rows, &windows, offset, unit, next);
            if (unit.index < warp.n_units) {
                if (warp.chunk < job.n_chunks)
                    keep_sums<S>(sums + parity * SUMS, warp, acc);
                barrier_named(1 + warp.team, LINEAR_TEAM_THREADS);
                add_sums<S>(sums + parity * SUMS, args, job, unit.index, first_row);
                parity ^= 1;
            }
            unit = next;
        }
    }
    copy_async_wait(0);
}

template <enum linear_layout LAYOUT, uint32_t ROWS>
DEVICE void linear_resident(const struct linear_tile_args &args)
{
    uint8_t *shared = shared_dynamic();
    bool is_whole = args.window_blocks == args.chunk_blocks, is_long = args.group_shift >= 7;
    if (is_long && is_whole)
        run_resident<resident_shape<LAYOUT, ROWS, true, true>>(args, shared);
    else if (is_long)
        run_resident<resident_shape<LAYOUT, ROWS, true, false>>(args, shared);
    else if (is_whole)
        run_resident<resident_shape<LAYOUT, ROWS, false, true>>(args, shared);
    else
        run_resident<resident_shape<LAYOUT, ROWS, false, false>>(args, shared);
}

/* Registers of 8 rows leave room beside two teams, for blocks of the kernels before and behind. */
#define RESIDENT_KERNEL(name, rows, layout)                                                                  \
    KERNEL_BOUNDS(linear_##name##_resident_r##rows, struct linear_tile_args,                                 \
                  LINEAR_TEAM_THREADS *(LINEAR_RESIDENT_TEAMS + (rows == 8)), 1)                             \
    {                                                                                                        \
        linear_resident<layout, rows>(args);                                                                 \
    }

RESIDENT_KERNEL(int4, 8, LINEAR_INT4)
RESIDENT_KERNEL(int4, 16, LINEAR_INT4)
RESIDENT_KERNEL(uint4, 8, LINEAR_UINT4)
RESIDENT_KERNEL(uint4, 16, LINEAR_UINT4)
