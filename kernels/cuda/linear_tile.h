/* The tensor-core linear kernel, a template over layout and tile: linear_kernels.h says what it computes. A
 * stage holds some blocks of K: codes of 128 outputs, activations of the tile's rows, scales. Warps stand
 * four (slabs of 32 outputs) by one or two (rows); each keeps acc [2 tiles of 16 outputs][row tiles of 8]. */
#pragma once

#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/linear_fragment.h"

template <enum linear_layout LAYOUT_, uint32_t ROWS_, bool AS_BF16_ = false> struct linear_shape {
    static constexpr enum linear_layout LAYOUT = LAYOUT_;
    static constexpr bool AS_BF16 = AS_BF16_, HAS_LOADER = false;
    static constexpr bool HAS_GROUPS = linear_has_groups(LAYOUT);
    static constexpr bool IS_WIDE = HAS_GROUPS || LAYOUT == LINEAR_BF16; /* 16-bit inputs */
    static constexpr uint32_t ROWS = ROWS_;
    static constexpr uint32_t ROW_TILES = ROWS / 8 / linear_row_warps(ROWS); /* of a warp */
    static constexpr uint32_t THREADS = linear_tile_threads(ROWS);
    static constexpr uint32_t BLOCKS = linear_stage_blocks(LAYOUT, ROWS);
    static constexpr uint32_t GROUPS = linear_stage_groups(LAYOUT, ROWS);
    static constexpr uint32_t GROUP_BYTES = linear_group_bytes(LAYOUT);
    static constexpr uint32_t STAGES = linear_stages(LAYOUT, ROWS);
    static constexpr uint32_t STAGE_BYTES = linear_stage_bytes(LAYOUT, ROWS);
    static constexpr uint32_t X_AT = linear_stage_codes_bytes(LAYOUT, ROWS);
    static constexpr uint32_t SCALES_AT = X_AT + linear_stage_x_bytes(LAYOUT, ROWS);
    static constexpr uint32_t BLOCK_INPUTS = linear_block_inputs(LAYOUT);
    static constexpr uint32_t BLOCK_BYTES = linear_block_bytes(LAYOUT);
};

template <enum linear_layout LAYOUT> struct linear_sum {
    typedef float type;
};
template <> struct linear_sum<LINEAR_S8> {
    typedef int32_t type;
};

/* What the whole kernel knows. */
struct linear_job {
    uint32_t n_rows, n_row_tiles;
    uint32_t n_blocks; /* of K */
    uint32_t n_chunks, n_groups;
    uint32_t n_units;
};

/* Where a walk over the units of this block stands. */
struct linear_cursor {
    uint32_t unit; /* n_units or more: at the end */
    uint32_t output_tile, row_tile, chunk;
    uint32_t block, block_end;
};

DEVICE uint32_t smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

DEVICE void cursor_seek(struct linear_cursor *at, const struct linear_tile_args &args,
                        const struct linear_job &job, uint32_t unit)
{
    at->unit = unit;
    uint32_t tile = args.is_split ? unit / job.n_chunks : unit;
    at->chunk = args.is_split ? unit % job.n_chunks : 0;
    at->output_tile = job.n_row_tiles == 1 ? tile : tile / job.n_row_tiles;
    at->row_tile = tile - at->output_tile * job.n_row_tiles;
    at->block = at->chunk * args.chunk_blocks;
    at->block_end = args.is_split ? smaller(at->block + args.chunk_blocks, job.n_blocks) : job.n_blocks;
}

/* All but what hangs on the number of rows. */
template <class S> DEVICE struct linear_job make_job(const struct linear_tile_args &args)
{
    struct linear_job job = {};
    job.n_blocks = ceil_div(args.n_in, S::BLOCK_INPUTS);
    job.n_chunks = ceil_div(job.n_blocks, args.chunk_blocks);
    job.n_groups = ((job.n_blocks * S::BLOCK_INPUTS - 1) >> args.group_shift) + 1;
    return job;
}

/* Where the capacity is one tile the units do not hang on the number of rows. */
template <class S> DEVICE bool units_are_known(const struct linear_tile_args &args)
{
    return args.rows.max <= S::ROWS;
}

template <class S> DEVICE void count_units(const struct linear_tile_args &args, struct linear_job *job)
{
    job->n_row_tiles = units_are_known<S>(args) ? 1 : ceil_div(job->n_rows, S::ROWS);
    uint32_t n_tiles = ceil_div(args.n_out, LINEAR_TILE_OUTPUTS) * job->n_row_tiles;
    job->n_units = n_tiles * (args.is_split ? job->n_chunks : 1);
}

/* Past one stage. */
template <class S>
DEVICE void cursor_advance(struct linear_cursor *at, const struct linear_tile_args &args,
                           const struct linear_job &job)
{
    at->block += S::BLOCKS;
    if (at->block >= at->block_end)
        cursor_seek(at, args, job, at->unit + grid_x());
}

template <class S>
DEVICE void load_codes(uint8_t *stage, const struct linear_cursor &at, const struct linear_tile_args &args,
                       const struct linear_job &job)
{
    constexpr uint32_t PIECES = S::X_AT / 16;
    const uint8_t *weight = (const uint8_t *)args.weight;
#pragma unroll
    for (uint32_t first = 0; first < PIECES; first += S::THREADS) {
        uint32_t i = first + thread_x();
        if constexpr (S::LAYOUT == LINEAR_BF16) {
            uint32_t output = at.output_tile * LINEAR_TILE_OUTPUTS + i / LINEAR_PIECES;
            uint32_t byte = at.block * LINEAR_BLOCK_BYTES + i % LINEAR_PIECES * 16;
            bool is_there = output < args.n_out && byte < args.n_in * 2;
            const uint8_t *from = weight + (is_there ? (size_t)output * args.row_bytes + byte : 0);
            copy_async_16(stage + bf16_piece_offset(i / LINEAR_PIECES, i % LINEAR_PIECES), from,
                          is_there ? smaller(16, args.n_in * 2 - byte) : 0);
        } else {
            constexpr uint32_t OF_PANEL = S::BLOCKS * S::BLOCK_BYTES / 16;
            uint32_t panel = at.output_tile * LINEAR_TILE_PANELS + i / OF_PANEL;
            uint32_t block = at.block + i % OF_PANEL / (OF_PANEL / S::BLOCKS);
            bool is_there = panel < linear_panels(args.n_out) && block < job.n_blocks;
            const uint8_t *from =
                weight +
                (is_there ? linear_block_offset(S::LAYOUT, job.n_blocks, panel, at.block) + i % OF_PANEL * 16
                          : 0);
            copy_async_16(stage + i * 16, from, is_there ? 16 : 0);
        }
    }
}

/* The stage's groups of both panels. */
template <class S>
DEVICE void load_stage_scales(uint8_t *stage, const struct linear_cursor &at,
                              const struct linear_tile_args &args, const struct linear_job &job)
{
    constexpr uint32_t ROW_PIECES = S::GROUP_BYTES / 16;
    uint32_t i = thread_x();
    if (i >= LINEAR_TILE_PANELS * S::GROUPS * ROW_PIECES)
        return;
    uint32_t panel = at.output_tile * LINEAR_TILE_PANELS + i / (S::GROUPS * ROW_PIECES);
    uint32_t first = at.block * S::BLOCK_INPUTS >> args.group_shift;
    uint32_t last = (smaller(at.block + S::BLOCKS, job.n_blocks) * S::BLOCK_INPUTS - 1) >> args.group_shift;
    uint32_t group = first + i / ROW_PIECES % S::GROUPS;
    if (panel >= linear_panels(args.n_out) || group > last)
        return;
    const uint8_t *from = (const uint8_t *)args.weight_scale +
                          ((size_t)panel * job.n_groups + group) * S::GROUP_BYTES + i % ROW_PIECES * 16;
    copy_async_16(stage + S::SCALES_AT + i * 16, from, 16);
}

template <class S>
DEVICE void load_weights(uint8_t *stage, const struct linear_cursor &at, const struct linear_tile_args &args,
                         const struct linear_job &job)
{
    load_codes<S>(stage, at, args, job);
    if constexpr (S::HAS_GROUPS)
        load_stage_scales<S>(stage, at, args, job);
}

/* Rows past the last and inputs past n_in become zeros. */
template <class S>
DEVICE void load_activations(uint8_t *stage, const struct linear_cursor &at,
                             const struct linear_tile_args &args, const struct linear_job &job)
{
    constexpr uint32_t OF_BLOCK = S::ROWS * LINEAR_PIECES, PIECES = S::BLOCKS * OF_BLOCK;
    const uint8_t *x = (const uint8_t *)args.x;
#pragma unroll
    for (uint32_t first = 0; first < PIECES; first += S::THREADS) {
        uint32_t i = first + thread_x();
        uint32_t block = at.block + i / OF_BLOCK, row = i % OF_BLOCK / LINEAR_PIECES;
        uint32_t piece = i % LINEAR_PIECES, n_valid = 0;
        uint32_t global_row = at.row_tile * S::ROWS + row;
        size_t from = 0;
        if (global_row < job.n_rows && block < job.n_blocks) {
            if (S::IS_WIDE) {
                uint32_t byte = block * LINEAR_BLOCK_BYTES + piece * 16;
                n_valid = byte < args.n_in * 2 ? smaller(16, args.n_in * 2 - byte) : 0;
                from = n_valid > 0 ? (size_t)global_row * args.x_stride * 2 + byte : 0;
            } else {
                n_valid = 16;
                from = ((size_t)block * args.x_stride + global_row) * LINEAR_BLOCK_BYTES + piece * 16;
            }
        }
        uint32_t to = S::IS_WIDE ? piece ^ (row & 7) : piece; /* quantised rows lie swizzled already */
        if (PIECES % S::THREADS == 0 || i < PIECES)
            copy_async_16(stage + S::X_AT + (i - piece + to) * 16, x + from, n_valid);
    }
}

template <class S, class T> DEVICE void multiply(T d[4], const uint32_t a[4], const uint32_t b[2])
{
    if constexpr (S::AS_BF16)
        mma_e4m3_as_bf16(d, a, b);
    else if constexpr (S::LAYOUT == LINEAR_S8)
        mma_s8_16832(d, a, b);
    else if constexpr (S::LAYOUT == LINEAR_E4M3)
        mma_e4m3_16832(d, a, b);
    else
        mma_bf16_16816(d, a, b);
}

/* INT4, UINT4: the lane's codes of its slab's tiles in a panel's block: all for half 0, or, where registers
 * are short, those of the half. */
template <class S> DEVICE void load_words(vec16 words[SLAB_TILES], const uint8_t *panel, uint32_t half)
{
#pragma unroll
    for (uint32_t tile = 0; tile < SLAB_TILES; tile++) {
        const uint8_t *codes = panel + (warp_id() % 2 * SLAB_TILES + tile) * LINEAR_TILE_BYTES;
        if (S::ROWS < 64 && half == 0)
            words[tile] = load_16(codes);
        if (S::ROWS < 64)
            continue;
        vec8 of_half = load_8(codes + half * HALF_STEPS * 4);
#pragma unroll
        for (uint32_t step = 0; step < HALF_STEPS; step++)
            words[tile].w[half * HALF_STEPS + step] = of_half.w[step];
    }
}

/* Weights of half a block (64 bytes of a row). first_group: of the stage. words: INT4, UINT4: the block's
 * codes, as load_words keeps them. */
template <class S>
DEVICE void load_fragments(slab_fragments a, vec16 words[SLAB_TILES], const uint8_t *stage,
                           const struct linear_tile_args &args, uint32_t stage_block, uint32_t in_stage,
                           uint32_t half)
{
    uint32_t slab = warp_id() % 4, lane = lane_id();
    if constexpr (S::LAYOUT == LINEAR_BF16) {
        fragments_bf16(a, stage, slab, half);
    } else {
        constexpr uint32_t HALF_BYTES = S::BLOCK_BYTES / 2;
        const uint8_t *codes = stage + (slab / 2 * S::BLOCKS + in_stage) * S::BLOCK_BYTES +
                               half * HALF_BYTES + slab % 2 * (HALF_BYTES / 2) + lane * 16;
        if constexpr (S::HAS_GROUPS) {
            uint32_t first = stage_block * S::BLOCK_INPUTS >> args.group_shift;
            uint32_t k = (stage_block + in_stage) * S::BLOCK_INPUTS + half * 32;
            uint32_t group = slab / 2 * S::GROUPS + (k >> args.group_shift) - first;
            const uint8_t *of_lane =
                stage + S::SCALES_AT + group * S::GROUP_BYTES + (slab % 2 * LINEAR_SLAB + lane / 4 * 4) * 2;
            uint32_t scales[4], minus[4];
            spread_scales(scales, load_8(of_lane));
            if constexpr (linear_is_int4(S::LAYOUT))
                load_words<S>(words, stage + (slab / 2 * S::BLOCKS + in_stage) * S::BLOCK_BYTES + lane * 16,
                              half);
            if constexpr (S::LAYOUT == LINEAR_UINT4) {
                spread_scales(minus, load_8(of_lane + LINEAR_PANEL * 2));
                fragments_int4<S::LAYOUT>(a, words, half, scales, minus);
            } else if constexpr (S::LAYOUT == LINEAR_INT4) {
                int4_minus(minus, scales);
                int4_minus(minus + 2, scales + 2);
                fragments_int4<S::LAYOUT>(a, words, half, scales, minus);
            } else {
                vec16 steps[HALF_STEPS] = {load_16(codes), load_16(codes + 512)};
                fragments_int8(a, steps, scales);
            }
        } else {
            fragments_ready(a, codes);
        }
    }
}

/* One stage into acc; n blocks of it are there. */
template <class S, class T>
DEVICE void multiply_stage(T acc[SLAB_TILES][S::ROW_TILES][4], const uint8_t *stage,
                           const struct linear_tile_args &args, uint32_t stage_block, uint32_t n)
{
    uint32_t first_row = warp_id() / 4 * S::ROW_TILES * 8, row = lane_id() % 8;
#pragma unroll
    for (uint32_t in_stage = 0; in_stage < S::BLOCKS; in_stage++) {
        if (in_stage > 0 && in_stage >= n)
            break;
        const uint8_t *x = stage + S::X_AT + (in_stage * S::ROWS + first_row + row) * LINEAR_BLOCK_BYTES;
        vec16 words[SLAB_TILES];
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            slab_fragments a;
            load_fragments<S>(a, words, stage, args, stage_block, in_stage, half);
            const uint8_t *piece = x + ((half * 4 + lane_id() / 8) ^ row) * 16;
#pragma unroll
            for (uint32_t j = 0; j < S::ROW_TILES; j++) {
                uint32_t b[4]; /* both steps */
                ldmatrix_x4(b, piece + j * 8 * LINEAR_BLOCK_BYTES);
#pragma unroll
                for (uint32_t step = 0; step < HALF_STEPS; step++) {
                    multiply<S>(acc[0][j], a[step][0], b + 2 * step);
                    multiply<S>(acc[1][j], a[step][1], b + 2 * step);
                }
            }
        }
    }
}

/* N values (4 or 2) that lie together: 32 bits each, or bf16. */
template <uint32_t N> DEVICE void store_words(void *to, const uint32_t words[N])
{
    if constexpr (N == 4) {
        vec16 v = {{words[0], words[1], words[2], words[3]}};
        store_16(to, v);
    } else {
        vec8 v = {{words[0], words[1]}};
        store_8(to, v);
    }
}

template <uint32_t N> DEVICE void store_bf16(void *to, const float y[N])
{
    if constexpr (N == 4) {
        vec8 v = {{to_bf16x2(y[0], y[1]), to_bf16x2(y[2], y[3])}};
        store_8(to, v);
    } else {
        *(uint32_t *)to = to_bf16x2(y[0], y[1]);
    }
}

/* N outputs of a row, from output `o` on: scales, bias, the type of the output. */
template <class S, uint32_t N, class T>
DEVICE void store_outputs(const struct linear_tile_args &args, uint32_t row, uint32_t o, const T sum[N])
{
    if (o >= args.n_out)
        return;
    uint32_t n = smaller(N, args.n_out - o);
    float y[N];
#pragma unroll
    for (uint32_t i = 0; i < N; i++) {
        float scale = S::LAYOUT == LINEAR_INT4 ? LINEAR_INT4_UNIT : 1.0f;
        if (!S::IS_WIDE)
            scale = args.x_scale[row] * ((const float *)args.weight_scale)[o + i]; /* padded to panels */
        float bias = args.bias != NULL && i < n ? args.bias[o + i] : 0.0f;
        y[i] = args.bias != NULL ? fmaf((float)sum[i], scale, bias) : (float)sum[i] * scale;
    }
    size_t at = (size_t)row * args.out_stride + o;
    float *out = (float *)args.out + at;
    uint16_t *out_bf16 = (uint16_t *)args.out + at;
    if (n == N && args.out_is_f32) {
        uint32_t words[N];
        memcpy(words, y, sizeof words);
        store_words<N>(out, words);
    } else if (n == N) {
        store_bf16<N>(out_bf16, y);
    } else {
        for (uint32_t i = 0; i < n; i++) {
            if (args.out_is_f32)
                out[i] = y[i];
            else
                out_bf16[i] = to_bf16(y[i]);
        }
    }
}

/* The row of the tile that half e (0, 1) of the lane's sums of row tile j belongs to. */
template <class S> DEVICE uint32_t row_of_sum(uint32_t j, uint32_t e)
{
    return warp_id() / 4 * S::ROW_TILES * 8 + j * 8 + lane_id() % 4 * 2 + e;
}

DEVICE uint32_t output_of_sum(void)
{
    return warp_id() % 4 * LINEAR_SLAB + lane_id() / 4 * 4;
}

template <class S, class T>
DEVICE void store_tile(const struct linear_tile_args &args, const struct linear_job &job,
                       const struct linear_cursor &at, const T sum[SLAB_TILES][S::ROW_TILES][4])
{
    uint32_t output = at.output_tile * LINEAR_TILE_OUTPUTS + output_of_sum();
#pragma unroll
    for (uint32_t j = 0; j < S::ROW_TILES; j++) {
#pragma unroll
        for (uint32_t e = 0; e < 2; e++) {
            uint32_t row = at.row_tile * S::ROWS + row_of_sum<S>(j, e);
            T four[4] = {sum[0][j][e], sum[0][j][e + 2], sum[1][j][e], sum[1][j][e + 2]};
            if (row < job.n_rows)
                store_outputs<S, 4>(args, row, output, four);
        }
    }
}

/* The partial sums of a tile: [chunks][rows][LINEAR_TILE_OUTPUTS]. */
template <class S>
DEVICE float *tile_partials(const struct linear_tile_args &args, const struct linear_job &job,
                            const struct linear_cursor &at)
{
    size_t tile = (size_t)at.output_tile * job.n_row_tiles + at.row_tile;
    return args.partials + tile * job.n_chunks * (S::ROWS * LINEAR_TILE_OUTPUTS);
}

/* The chunks' sums in ascending order, by the block that came last. */
template <class S, class T>
DEVICE void add_partials(const struct linear_tile_args &args, const struct linear_job &job,
                         const struct linear_cursor &at)
{
    const float *partials = tile_partials<S>(args, job, at);
    uint32_t n_rows = smaller(S::ROWS, job.n_rows - at.row_tile * S::ROWS);
    for (uint32_t i = thread_x(); i < n_rows * (LINEAR_TILE_OUTPUTS / 4); i += S::THREADS) {
        uint32_t row = i / (LINEAR_TILE_OUTPUTS / 4), output = i % (LINEAR_TILE_OUTPUTS / 4) * 4;
        T sum[4] = {0, 0, 0, 0};
#pragma unroll 4
        for (uint32_t chunk = 0; chunk < job.n_chunks; chunk++) {
            vec16 part = load_16(partials + (chunk * S::ROWS + row) * LINEAR_TILE_OUTPUTS + output);
#pragma unroll
            for (uint32_t o = 0; o < 4; o++) {
                T value;
                memcpy(&value, &part.w[o], sizeof value);
                sum[o] += value;
            }
        }
        store_outputs<S, 4>(args, at.row_tile * S::ROWS + row, at.output_tile * LINEAR_TILE_OUTPUTS + output,
                            sum);
    }
}

/* The threads that keep sums: the whole block, or those that do not only load. */
template <class S> DEVICE void tile_barrier(void)
{
    if constexpr (S::HAS_LOADER)
        barrier_named(1, S::THREADS);
    else
        barrier();
}

/* A chunk's sums lie in memory; the last chunk of a tile to arrive adds them all. */
template <class S, class T>
DEVICE void arrive_chunk(const struct linear_tile_args &args, const struct linear_job &job,
                         const struct linear_cursor &at, uint32_t *n_arrived)
{
    uint32_t *arrivals = args.arrivals + at.output_tile * job.n_row_tiles + at.row_tile;
    tile_barrier<S>();
    if (thread_x() == 0) {
        fence_device(); /* one thread's, behind the barrier, counts for all: causality is transitive */
        *n_arrived = atomic_add_u32(arrivals, 1);
        fence_device();
    }
    tile_barrier<S>();
    if (*n_arrived + 1 == job.n_chunks) {
        add_partials<S, T>(args, job, at);
        if (thread_x() == 0)
            *arrivals = 0;
    }
}

template <class S, class T>
DEVICE void finish_chunk(const struct linear_tile_args &args, const struct linear_job &job,
                         const struct linear_cursor &at, const T acc[SLAB_TILES][S::ROW_TILES][4],
                         uint32_t *n_arrived)
{
    float *partial = tile_partials<S>(args, job, at) + at.chunk * (S::ROWS * LINEAR_TILE_OUTPUTS);
#pragma unroll
    for (uint32_t j = 0; j < S::ROW_TILES; j++) {
#pragma unroll
        for (uint32_t e = 0; e < 2; e++) {
            uint32_t row = row_of_sum<S>(j, e);
            T four[4] = {acc[0][j][e], acc[0][j][e + 2], acc[1][j][e], acc[1][j][e + 2]};
            uint32_t words[4];
            memcpy(words, four, sizeof words);
            if (at.row_tile * S::ROWS + row < job.n_rows)
                store_words<4>(partial + row * LINEAR_TILE_OUTPUTS + output_of_sum(), words);
        }
    }
    arrive_chunk<S, T>(args, job, at, n_arrived);
}

template <class S, class T>
DEVICE void add_chunk(T total[SLAB_TILES][S::ROW_TILES][4], T acc[SLAB_TILES][S::ROW_TILES][4])
{
#pragma unroll
    for (uint32_t tile = 0; tile < SLAB_TILES; tile++) {
#pragma unroll
        for (uint32_t j = 0; j < S::ROW_TILES; j++) {
#pragma unroll
            for (uint32_t i = 0; i < 4; i++) {
                total[tile][j][i] += acc[tile][j][i];
                acc[tile][j][i] = 0;
            }
        }
    }
}

template <class S, class T> DEVICE void clear_sums(T sums[SLAB_TILES][S::ROW_TILES][4])
{
#pragma unroll
    for (uint32_t tile = 0; tile < SLAB_TILES; tile++) {
#pragma unroll
        for (uint32_t j = 0; j < S::ROW_TILES; j++) {
#pragma unroll
            for (uint32_t i = 0; i < 4; i++)
                sums[tile][j][i] = 0;
        }
    }
}

/* After a stage: what becomes of the sums where it ended a chunk. */
template <class S, class T>
DEVICE void end_stage(const struct linear_tile_args &args, const struct linear_job &job,
                      const struct linear_cursor &done, T acc[SLAB_TILES][S::ROW_TILES][4],
                      T total[SLAB_TILES][S::ROW_TILES][4], uint32_t *n_arrived)
{
    bool unit_ends = done.block + S::BLOCKS >= done.block_end;
    if (args.is_split && unit_ends) {
        finish_chunk<S>(args, job, done, acc, n_arrived);
        clear_sums<S>(acc);
    } else if (!args.is_split && (unit_ends || (done.block + S::BLOCKS) % args.chunk_blocks == 0)) {
        add_chunk<S>(total, acc);
        if (unit_ends) {
            store_tile<S>(args, job, done, total);
            clear_sums<S>(total);
        }
    }
}

/* The first stages: weights before the inputs are there; the step, whose number of rows makes the units, is.
 * Fills job; leaves `load` behind the stages asked for. */
template <class S>
DEVICE void start_pipeline(const struct linear_tile_args &args, struct linear_job *job,
                           struct linear_cursor *load, uint8_t *stages)
{
    job->n_rows = count_rows(&args.rows);
    count_units<S>(args, job);
    struct linear_cursor first = {};
    first.unit = job->n_units;
    if (block_x() < job->n_units)
        cursor_seek(&first, args, *job, block_x());
    *load = first;
    for (uint32_t s = 0; s + 1 < S::STAGES; s++) {
        if (load->unit < job->n_units) {
            load_weights<S>(stages + s * S::STAGE_BYTES, *load, args, *job);
            cursor_advance<S>(load, args, *job);
        }
        copy_async_commit();
    }
    dependents_launch();
    dependencies_wait();
    *load = first;
    for (uint32_t s = 0; s + 1 < S::STAGES; s++) {
        if (load->unit < job->n_units) {
            load_activations<S>(stages + s * S::STAGE_BYTES, *load, args, *job);
            cursor_advance<S>(load, args, *job);
        }
        copy_async_commit();
    }
}

template <class S> DEVICE void linear_tile(const struct linear_tile_args &args)
{
#ifdef __CUDACC__
    if constexpr (S::AS_BF16 ? PTX_HAS_MMA_E4M3 || PTX_HAS_WGMMA
                             : S::LAYOUT == LINEAR_E4M3 && !PTX_HAS_MMA_E4M3) {
        trap();
        return;
    }
#endif
    typedef typename linear_sum<S::LAYOUT>::type sum_t;
    SHARED(uint32_t, n_arrived, [1]);
    uint8_t *stages = shared_dynamic();
    struct linear_job job = make_job<S>(args);
    struct linear_cursor load, work = {};
    start_pipeline<S>(args, &job, &load, stages);
    work.unit = job.n_rows > 0 ? block_x() : job.n_units;
    if (work.unit < job.n_units)
        cursor_seek(&work, args, job, work.unit);
    sum_t acc[SLAB_TILES][S::ROW_TILES][4], total[SLAB_TILES][S::ROW_TILES][4];
    clear_sums<S>(acc);
    clear_sums<S>(total);
    for (uint32_t step = 0; work.unit < job.n_units; step++) {
        copy_async_wait(S::STAGES - 2);
        barrier();
        if (load.unit < job.n_units) {
            uint8_t *stage = stages + (step + S::STAGES - 1) % S::STAGES * S::STAGE_BYTES;
            load_weights<S>(stage, load, args, job);
            load_activations<S>(stage, load, args, job);
            cursor_advance<S>(&load, args, job);
        }
        copy_async_commit();
        multiply_stage<S>(acc, stages + step % S::STAGES * S::STAGE_BYTES, args, work.block,
                          work.block_end - work.block);
        struct linear_cursor done = work;
        cursor_advance<S>(&work, args, job);
        end_stage<S>(args, job, done, acc, total, n_arrived);
    }
    copy_async_wait(0);
}

/* Registers of few rows let two blocks and more share a multiprocessor. */
#define LINEAR_KERNEL(name, rows, min_blocks, ...)                                                           \
    KERNEL_BOUNDS(linear_##name##_r##rows, struct linear_tile_args, linear_tile_threads(rows), min_blocks)   \
    {                                                                                                        \
        linear_tile<linear_shape<__VA_ARGS__>>(args);                                                        \
    }
