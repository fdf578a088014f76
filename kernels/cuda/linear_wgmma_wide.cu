/* bf16, int4 and int8 weights by many bf16 rows with wgmma (sm_90a). Rows come in blocks (linear_layout.h), a
 * bulk copy for each stage. Codes of int4 and int8 come whole, by bulk copies too; a warp makes fragments of
 * its own 16 outputs, which are operand A from registers, while the products of those before run. A bf16
 * weight lies as it is: warps that do nothing else copy it, 16 bytes at a time, to where wgmma's swizzle
 * wants it. A chunk's sums have the bits of linear_tile.h's: wgmma adds as mma does (docs/cuda.md). */
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/linear_wgmma.h"

static constexpr uint32_t LOADER_WARPS = LINEAR_WIDE_LOADER_THREADS / 32;

template <enum linear_layout LAYOUT_, uint32_t ROWS_> struct wide_shape {
    static constexpr enum linear_layout LAYOUT = LAYOUT_;
    static constexpr bool IS_WIDE = true, HAS_LOADER = true, HAS_GROUPS = linear_has_groups(LAYOUT);
    static constexpr uint32_t ROWS = ROWS_, BLOCKS = 1, THREADS = LINEAR_WGMMA_THREADS;
    static constexpr uint32_t FULL_ARRIVALS = HAS_GROUPS ? 1 : 2;
    static constexpr uint32_t BLOCK_INPUTS = linear_block_inputs(LAYOUT);
    static constexpr uint32_t PANEL_BYTES = linear_stage_codes_bytes(LAYOUT, ROWS) / LINEAR_TILE_PANELS;
    static constexpr uint32_t GROUP_BYTES = linear_group_bytes(LAYOUT);
    static constexpr uint32_t GROUPS = 2; /* of a stage, at most */
    static constexpr uint32_t X_AT = linear_stage_codes_bytes(LAYOUT, ROWS);
    static constexpr uint32_t X_BYTES = linear_stage_x_bytes(LAYOUT, ROWS);
    static constexpr uint32_t SCALES_AT = X_AT + linear_stage_x_bytes(LAYOUT, ROWS);
    static constexpr uint32_t STAGES = linear_wide_stages(LAYOUT, ROWS);
    static constexpr uint32_t STAGE_BYTES = linear_wide_stage_bytes(LAYOUT, ROWS);
    /* Warps that load. No more than stages: one then never waits for a phase of `empty` two ahead, whose
     * parity would be that of one long over. */
    static constexpr uint32_t LOADERS = STAGES < LOADER_WARPS ? STAGES : LOADER_WARPS;
    static constexpr uint32_t SUMS = ROWS / 2; /* of a thread */
    static constexpr uint32_t SHARED_SUMS = linear_wide_shared_sums(ROWS);
};

/* A lane of a loader's warp: it brings piece `piece` (16 bytes) of rows first, first + 4, .. of a tile. */
struct wide_lane {
    uint32_t first, piece;
    uint32_t to[2]; /* of rows first, first + 4 in a swizzled tile; eight rows on: 1,024 bytes */
};
enum { LANE_ROWS = WARP_LANES / LINEAR_PIECES };

template <class S> DEVICE struct wide_lane make_lane(void)
{
    struct wide_lane lane = {lane_id() / LINEAR_PIECES, lane_id() % LINEAR_PIECES, {0, 0}};
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t row = lane.first + i * LANE_ROWS;
        lane.to[i] = row * LINEAR_BLOCK_BYTES + (lane.piece ^ row) * 16;
    }
    return lane;
}

/* Which output stands at row 4i of the tile, for the lane's first row. */
template <class S> DEVICE constexpr uint32_t output_of_step(uint32_t i)
{
    return i / 4 * 16 + i % 2 * (2 * LANE_ROWS) + i / 2 % 2;
}

/* The tile's outputs of a bf16 weight, a block of each: outputs 2g + h of 16 stand at row g + 8h. Outputs
 * that are not there and what is no input become zeros. */
template <class S>
DEVICE void load_outputs(uint8_t *tile, const struct wide_lane &lane, const struct linear_cursor &at,
                         const struct linear_tile_args &args)
{
    uint32_t first = at.output_tile * LINEAR_TILE_OUTPUTS + lane.first * 2;
    uint32_t byte = at.block * LINEAR_BLOCK_BYTES + lane.piece * 16;
    uint32_t n_outputs = args.n_out - smaller(first, args.n_out);
    uint32_t n_valid = smaller(16, args.n_in * 2 - smaller(byte, args.n_in * 2));
    const uint8_t *from = (const uint8_t *)args.weight + first * (size_t)args.row_bytes + byte;
    if (n_valid % 16 == 0) {
        n_outputs = n_valid == 0 ? 0 : n_outputs;
#pragma unroll
        for (uint32_t i = 0; i < LINEAR_TILE_OUTPUTS / LANE_ROWS; i++) {
            uint32_t output = output_of_step<S>(i);
            copy_async_16_if(tile + lane.to[i % 2] + i / 2 * (8 * LINEAR_BLOCK_BYTES),
                             from + output * (size_t)args.row_bytes, output < n_outputs);
        }
        return;
    }
#pragma unroll 1
    for (uint32_t i = 0; i < LINEAR_TILE_OUTPUTS / LANE_ROWS; i++) {
        uint32_t output = output_of_step<S>(i);
        uint32_t to = (i % 2 == 0 ? lane.to[0] : lane.to[1]) + i / 2 * (8 * LINEAR_BLOCK_BYTES);
        copy_async_16(tile + to, from + (output < n_outputs ? output * (size_t)args.row_bytes : 0),
                      output < n_outputs ? n_valid : 0);
    }
}

/* One thread: codes and scales of a block; the stage expects its rows too. A tile past the last panel takes
 * that one twice. */
template <class S>
DEVICE void load_codes_of_groups(const struct wgmma_pipeline &p, uint32_t stage,
                                 const struct linear_cursor &at, const struct linear_tile_args &args,
                                 const struct linear_job &job)
{
    uint32_t first = at.block * S::BLOCK_INPUTS >> args.group_shift;
    uint32_t last = ((at.block + 1) * S::BLOCK_INPUTS - 1) >> args.group_shift;
    uint32_t scales_bytes = (last - first + 1) * S::GROUP_BYTES;
    uint8_t *to = p.stages + stage * S::STAGE_BYTES;
    mbarrier_expect(&p.full[stage], LINEAR_TILE_PANELS * (S::PANEL_BYTES + scales_bytes) + S::X_BYTES);
    for (uint32_t i = 0; i < LINEAR_TILE_PANELS; i++) {
        uint32_t panel = smaller(at.output_tile * LINEAR_TILE_PANELS + i, linear_panels(args.n_out) - 1);
        bulk_copy(to + i * S::PANEL_BYTES,
                  (const uint8_t *)args.weight +
                      linear_block_offset(S::LAYOUT, job.n_blocks, panel, at.block),
                  S::PANEL_BYTES, &p.full[stage]);
        bulk_copy(to + S::SCALES_AT + i * (S::GROUPS * S::GROUP_BYTES),
                  (const uint8_t *)args.weight_scale +
                      ((size_t)panel * job.n_groups + first) * S::GROUP_BYTES,
                  scales_bytes, &p.full[stage]);
    }
}

/* To the loader's next stage. */
template <class S>
DEVICE void advance_loader(struct linear_cursor *at, const struct linear_tile_args &args,
                           const struct linear_job &job, uint32_t n)
{
#pragma unroll 1
    for (uint32_t i = 0; i < n && at->unit < job.n_units; i++)
        cursor_advance<S>(at, args, job);
}

/* A bf16 weight. Loader w (a warp) has stages w, w + LOADERS, ..: it waits for its own copies alone while the
 * others' are under way. Weights of the first stages are asked for before the rows are there. */
template <class S>
DEVICE void run_row_loader(const struct wgmma_pipeline &p, const struct linear_tile_args &args,
                           const struct linear_job &job, uint32_t loader)
{
    struct wide_lane lane = make_lane<S>();
    struct linear_cursor first = {};
    cursor_seek(&first, args, job, block_x());
    advance_loader<S>(&first, args, job, loader);
    struct linear_cursor at = first;
    for (uint32_t n = loader; n < S::STAGES && at.unit < job.n_units; n += S::LOADERS) {
        load_outputs<S>(p.stages + n * S::STAGE_BYTES, lane, at, args);
        advance_loader<S>(&at, args, job, S::LOADERS);
    }
    dependents_launch();
    dependencies_wait();
    at = first;
    for (uint32_t n = loader; at.unit < job.n_units; n += S::LOADERS) {
        uint32_t stage = n % S::STAGES;
        if (n >= S::STAGES) {
            mbarrier_wait(&p.empty[stage], (n / S::STAGES - 1) & 1);
            load_outputs<S>(p.stages + stage * S::STAGE_BYTES, lane, at, args);
        }
        if (lane_id() == 0) {
            mbarrier_expect(&p.full[stage], S::X_BYTES);
            load_rows<S>(p, stage, at, args);
        }
        copy_async_commit();
        advance_loader<S>(&at, args, job, S::LOADERS);
        copy_async_wait(0);
        fence_async_proxy();
        warp_sync();
        if (lane_id() == 0)
            mbarrier_arrive(&p.full[stage]);
    }
    copy_async_wait(0);
}

/* Where a warp of a warpgroup finds its 16 outputs: tile `tile` of slab `slab` of panel `panel`. */
struct warp_tile {
    uint32_t panel, slab, tile;
};

/* What a lane needs of half a block for its fragments: codes, scales. */
struct half_codes {
    uint32_t words[HALF_STEPS][2];
    uint32_t scales, minus; /* of the lane's pair of outputs; minus: UINT4 */
};

/* group: of those in the stage. */
template <class S>
DEVICE struct half_codes load_half(const uint8_t *stage, const struct warp_tile &warp, uint32_t half,
                                   uint32_t group)
{
    constexpr uint32_t HALF_BYTES = S::PANEL_BYTES / 2, SLAB_BYTES = HALF_BYTES / 2;
    const uint8_t *codes = stage + warp.panel * S::PANEL_BYTES + lane_id() * 16;
    struct half_codes out = {};
    if constexpr (linear_is_int4(S::LAYOUT)) {
        vec8 words = load_8(codes + (warp.slab * SLAB_TILES + warp.tile) * LINEAR_TILE_BYTES + half * 8);
        for (uint32_t step = 0; step < HALF_STEPS; step++)
            out.words[step][0] = words.w[step];
    } else {
        codes += half * HALF_BYTES + warp.slab * SLAB_BYTES;
        for (uint32_t step = 0; step < HALF_STEPS; step++) {
            vec8 words = load_8(codes + step * 512 + warp.tile * 8);
            memcpy(out.words[step], words.w, sizeof words.w);
        }
    }
    const uint8_t *scales = stage + S::SCALES_AT + (warp.panel * S::GROUPS + group) * S::GROUP_BYTES +
                            (warp.slab * LINEAR_SLAB + lane_id() / 4 * 4 + warp.tile * 2) * 2;
    out.scales = *(const uint32_t *)scales;
    if constexpr (S::LAYOUT == LINEAR_UINT4)
        out.minus = *(const uint32_t *)(scales + LINEAR_PANEL * 2);
    return out;
}

template <class S> DEVICE void make_fragments(uint32_t (&a)[HALF_STEPS][4], const struct half_codes &codes)
{
    uint32_t scales[2], minus[2];
    spread_pair(scales, codes.scales);
    spread_pair(minus, codes.minus);
    if constexpr (S::LAYOUT == LINEAR_INT4)
        int4_minus(minus, scales);
#pragma unroll
    for (uint32_t step = 0; step < HALF_STEPS; step++) {
        if constexpr (S::LAYOUT == LINEAR_INT4)
            fragment_int4(a[step], codes.words[step][0], scales, minus);
        else if constexpr (S::LAYOUT == LINEAR_UINT4)
            fragment_uint4(a[step], codes.words[step][0], scales, minus);
        else
            fragment_int8(a[step], codes.words[step], scales);
    }
}

/* n_blocks from `block` on into acc, half a block at a time: its fragments are made while the products of the
 * half before run, in registers that those before that have left. *n: stages so far. */
template <class S>
DEVICE void multiply_groups(float (&acc)[S::SUMS], const struct wgmma_pipeline &p,
                            const struct linear_tile_args &args, uint32_t block, uint32_t n_blocks,
                            uint32_t *n)
{
    uint32_t warp = shuffle(warp_id(), 0);
    struct warp_tile tile = {warp / 4, warp / 2 % 2, warp % 2};
    uint32_t a[2][HALF_STEPS][4];
    for (uint32_t i = 0; i < n_blocks; i++) {
        const uint8_t *stage = p.stages + *n % S::STAGES * S::STAGE_BYTES;
        uint32_t k = (block + i) * S::BLOCK_INPUTS, first = k >> args.group_shift;
        mbarrier_wait(&p.full[*n % S::STAGES], *n / S::STAGES & 1);
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            struct half_codes codes =
                load_half<S>(stage, tile, half, ((k + half * 32) >> args.group_shift) - first);
            wgmma_wait<1>();
            if (half == 1 && i > 0 && lane_id() == 0)
                mbarrier_arrive(&p.empty[(*n - 1) % S::STAGES]);
            make_fragments<S>(a[half], codes);
            wgmma_fence();
#pragma unroll
            for (uint32_t step = 0; step < HALF_STEPS; step++) {
                const uint8_t *x = stage + S::X_AT + (half * HALF_STEPS + step) * 32;
                uint64_t b = shared_descriptor(x, 16, 8 * LINEAR_BLOCK_BYTES, SWIZZLE_128);
                wgmma_bf16_m64k16<(int)S::ROWS>(acc, a[half][step], b, i + half + step > 0);
            }
            wgmma_commit();
        }
        ++*n;
    }
    wgmma_wait<0>();
    wgmma_hold(acc);
    if (lane_id() == 0)
        mbarrier_arrive(&p.empty[(*n - 1) % S::STAGES]);
}

template <class S> DEVICE void linear_wide(const struct linear_tile_args &args)
{
    SHARED(wgmma_shared<S::STAGES>, shared, );
    struct wgmma_pipeline p = {shared_dynamic(), shared.full, shared.empty};
    struct linear_job job;
    if (!start_wgmma<S>(p, args, &job))
        return;
    uint32_t warp = shuffle(warp_id(), 0); /* the compiler sees that it is one for the warp */
    if (warp >= CONSUMER_WARPS) {
        registers_lower<LOADER_REGISTERS>();
        if constexpr (S::HAS_GROUPS) {
            if (warp == CONSUMER_WARPS && lane_id() == 0)
                run_bulk_loader<S>(p, args, job, [&](uint32_t stage, const struct linear_cursor &at) {
                    load_codes_of_groups<S>(p, stage, at, args, job);
                });
        } else if (warp - CONSUMER_WARPS < S::LOADERS) {
            run_row_loader<S>(p, args, job, warp - CONSUMER_WARPS);
        }
        return;
    }
    registers_raise<CONSUMER_REGISTERS>();
    uint32_t n = 0;
    struct stage_cursor stage = {};
    run_warpgroups<S>(p, args, job, &shared.n_arrived, args.chunk_blocks,
                      [&](float(&acc)[S::SUMS], const struct linear_cursor &at, uint32_t n_blocks) {
                          if constexpr (S::HAS_GROUPS)
                              multiply_groups<S>(acc, p, args, at.block, n_blocks, &n);
                          else
                              multiply_chain<S>(acc, p, warp / 4, n_blocks, &stage);
                      });
}

#if PTX_HAS_WGMMA
#define WIDE_BODY(layout, rows) linear_wide<wide_shape<layout, rows>>(args)
#else
#define WIDE_BODY(layout, rows) trap()
#endif
#define WIDE_KERNEL(name, rows, layout)                                                                      \
    KERNEL_BOUNDS(linear_##name##_wgmma_r##rows, struct linear_tile_args,                                    \
                  LINEAR_WGMMA_THREADS + LINEAR_WIDE_LOADER_THREADS, 1)                                      \
    {                                                                                                        \
        WIDE_BODY(layout, rows);                                                                             \
    }

WIDE_KERNEL(bf16, 64, LINEAR_BF16)
WIDE_KERNEL(bf16, 128, LINEAR_BF16)
WIDE_KERNEL(bf16, 256, LINEAR_BF16)

WIDE_KERNEL(int4, 64, LINEAR_INT4)
WIDE_KERNEL(int4, 128, LINEAR_INT4)
WIDE_KERNEL(int4, 256, LINEAR_INT4)

WIDE_KERNEL(uint4, 64, LINEAR_UINT4)
WIDE_KERNEL(uint4, 128, LINEAR_UINT4)
WIDE_KERNEL(uint4, 256, LINEAR_UINT4)

WIDE_KERNEL(int8, 64, LINEAR_INT8)
WIDE_KERNEL(int8, 128, LINEAR_INT8)
WIDE_KERNEL(int8, 256, LINEAR_INT8)
