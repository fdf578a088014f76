/* int4 and int8 weights by a few bf16 rows (int4: more than 16), on cards with bulk copies and 228 KB of
 * shared memory: the weight is streamed. A warp loads, and does nothing else: codes and scales of a stage are
 * one copy a panel, each row of activations is one. Four warps multiply, a slab of 32 outputs each; no thread
 * of theirs spends instructions on loading. The arithmetic is that of linear_tile.h, product by product. */
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/linear_tile.h"

enum { STREAM_WARPS = LINEAR_STREAM_THREADS / 32 };

template <enum linear_layout LAYOUT_, uint32_t ROWS_> struct stream_shape {
    static constexpr enum linear_layout LAYOUT = LAYOUT_;
    static constexpr bool AS_BF16 = false, HAS_LOADER = true, HAS_GROUPS = true, IS_WIDE = true;
    static constexpr uint32_t ROWS = ROWS_, ROW_TILES = ROWS / 8, THREADS = LINEAR_STREAM_THREADS;
    static constexpr uint32_t BLOCK_INPUTS = linear_block_inputs(LAYOUT);
    static constexpr uint32_t BLOCK_BYTES = linear_block_bytes(LAYOUT);
    static constexpr uint32_t BLOCKS = linear_stream_blocks(LAYOUT);
    static constexpr uint32_t GROUPS = BLOCKS * 2; /* of a stage, at most */
    static constexpr uint32_t GROUP_BYTES = linear_group_bytes(LAYOUT);
    static constexpr uint32_t ROW_BYTES = linear_stream_row_bytes(LAYOUT);
    static constexpr uint32_t SCALES_AT = BLOCKS * LINEAR_TILE_PANELS * BLOCK_BYTES;
    static constexpr uint32_t X_AT = SCALES_AT + GROUPS * LINEAR_TILE_PANELS * GROUP_BYTES;
    static constexpr uint32_t STAGES = linear_stream_stages(LAYOUT, ROWS);
    static constexpr uint32_t STAGE_BYTES = linear_stream_stage_bytes(LAYOUT, ROWS);
};

struct stream_pipeline {
    uint8_t *stages;
    uint64_t *full, *empty; /* [STAGES]; full: two arrivals, of weights and of rows, and their bytes */
};

/* One thread: codes and scales. A tile past the last panel takes that one twice. */
template <class S>
DEVICE void stream_weights(const struct stream_pipeline &p, uint32_t stage, const struct linear_cursor &at,
                           const struct linear_tile_args &args, const struct linear_job &job)
{
    uint32_t n_blocks = smaller(S::BLOCKS, at.block_end - at.block);
    uint32_t first = at.block * S::BLOCK_INPUTS >> args.group_shift;
    uint32_t last = ((at.block + n_blocks) * S::BLOCK_INPUTS - 1) >> args.group_shift;
    uint32_t codes_bytes = n_blocks * S::BLOCK_BYTES, scales_bytes = (last - first + 1) * S::GROUP_BYTES;
    uint8_t *to = p.stages + stage * S::STAGE_BYTES;
    mbarrier_expect(&p.full[stage], LINEAR_TILE_PANELS * (codes_bytes + scales_bytes));
    for (uint32_t i = 0; i < LINEAR_TILE_PANELS; i++) {
        uint32_t panel = smaller(at.output_tile * LINEAR_TILE_PANELS + i, linear_panels(args.n_out) - 1);
        bulk_copy_streaming(to + i * (S::BLOCKS * S::BLOCK_BYTES),
                            (const uint8_t *)args.weight +
                                linear_block_offset(S::LAYOUT, job.n_blocks, panel, at.block),
                            codes_bytes, &p.full[stage]);
        bulk_copy_streaming(to + S::SCALES_AT + i * (S::GROUPS * S::GROUP_BYTES),
                            (const uint8_t *)args.weight_scale +
                                ((size_t)panel * job.n_groups + first) * S::GROUP_BYTES,
                            scales_bytes, &p.full[stage]);
    }
}

/* The loader's warp: lane r brings row r. Rows lie apart by 16 bytes more than they are long, so that eight
 * of them begin in different banks. */
template <class S>
DEVICE void stream_rows(const struct stream_pipeline &p, uint32_t stage, const struct linear_cursor &at,
                        const struct linear_tile_args &args, const struct linear_job &job)
{
    uint32_t first_row = at.row_tile * S::ROWS, byte = at.block * LINEAR_BLOCK_BYTES;
    uint32_t n_rows = job.n_rows > first_row ? smaller(S::ROWS, job.n_rows - first_row) : 0;
    uint32_t n_bytes = smaller(S::BLOCKS * LINEAR_BLOCK_BYTES, args.n_in * 2 - byte), lane = lane_id();
    if (lane == 0)
        mbarrier_expect(&p.full[stage], n_rows * n_bytes);
    warp_sync();
    if (lane < n_rows)
        bulk_copy(p.stages + stage * S::STAGE_BYTES + S::X_AT + lane * S::ROW_BYTES,
                  (const uint8_t *)args.x + (size_t)(first_row + lane) * args.x_stride * 2 + byte, n_bytes,
                  &p.full[stage]);
}

template <class S>
DEVICE void run_stream_loader(const struct stream_pipeline &p, const struct linear_tile_args &args,
                              struct linear_job job)
{
    struct linear_cursor first = {};
    cursor_seek(&first, args, job, block_x());
    struct linear_cursor at = first;
    uint32_t n = 0;
    for (; n < S::STAGES && at.unit < job.n_units; n++) {
        if (lane_id() == 0)
            stream_weights<S>(p, n, at, args, job);
        cursor_advance<S>(&at, args, job);
    }
    dependents_launch();
    dependencies_wait();
    job.n_rows = count_rows(&args.rows);
    at = first;
    for (uint32_t i = 0; i < n; i++) {
        stream_rows<S>(p, i, at, args, job);
        cursor_advance<S>(&at, args, job);
    }
    for (; at.unit < job.n_units; n++) {
        uint32_t stage = n % S::STAGES;
        mbarrier_wait(&p.empty[stage], (n / S::STAGES - 1) & 1);
        if (lane_id() == 0)
            stream_weights<S>(p, stage, at, args, job);
        stream_rows<S>(p, stage, at, args, job);
        cursor_advance<S>(&at, args, job);
    }
}

/* One stage into acc, n_inputs of it. */
template <class S>
DEVICE void multiply_streamed(float acc[SLAB_TILES][S::ROW_TILES][4], const uint8_t *stage,
                              const struct linear_tile_args &args, uint32_t block, uint32_t n_inputs)
{
    const uint8_t *x = stage + S::X_AT + lane_id() % 8 * S::ROW_BYTES + lane_id() / 8 * 16;
    vec16 words[SLAB_TILES];
#pragma unroll
    for (uint32_t half = 0; half < 2 * S::BLOCKS; half++) {
        if (half * 32 >= n_inputs)
            break;
        slab_fragments a;
        load_fragments<S>(a, words, stage, args, block, half / 2, half % 2);
#pragma unroll
        for (uint32_t j = 0; j < S::ROW_TILES; j++) {
            uint32_t b[4]; /* both steps */
            ldmatrix_x4(b, x + j * 8 * S::ROW_BYTES + half * 64);
#pragma unroll
            for (uint32_t step = 0; step < HALF_STEPS; step++) {
                mma_bf16_16816(acc[0][j], a[step][0], b + 2 * step);
                mma_bf16_16816(acc[1][j], a[step][1], b + 2 * step);
            }
        }
    }
}

template <class S>
DEVICE void run_stream_warps(const struct stream_pipeline &p, const struct linear_tile_args &args,
                             struct linear_job job, uint32_t *n_arrived)
{
    dependencies_wait();
    job.n_rows = count_rows(&args.rows);
    float acc[SLAB_TILES][S::ROW_TILES][4], total[SLAB_TILES][S::ROW_TILES][4];
    clear_sums<S>(acc);
    clear_sums<S>(total);
    struct linear_cursor at = {};
    cursor_seek(&at, args, job, block_x());
    for (uint32_t n = 0; at.unit < job.n_units; n++) {
        uint32_t stage = n % S::STAGES;
        mbarrier_wait(&p.full[stage], n / S::STAGES & 1);
        multiply_streamed<S>(acc, p.stages + stage * S::STAGE_BYTES, args, at.block,
                             args.n_in - at.block * S::BLOCK_INPUTS);
        warp_sync();
        if (lane_id() == 0)
            mbarrier_arrive(&p.empty[stage]);
        struct linear_cursor done = at;
        cursor_advance<S>(&at, args, job);
        end_stage<S>(args, job, done, acc, total, n_arrived);
    }
}

/* Rows that never come must not hold anything that is no number. */
template <class S> DEVICE void clear_rows(uint8_t *stages)
{
    constexpr uint32_t PIECES = S::ROWS * S::ROW_BYTES / 16;
    for (uint32_t i = thread_x(); i < S::STAGES * PIECES; i += block_threads()) {
        vec16 zero = {};
        store_16(stages + i / PIECES * S::STAGE_BYTES + S::X_AT + i % PIECES * 16, zero);
    }
    fence_async_proxy();
}

template <class S> DEVICE void linear_stream(const struct linear_tile_args &args)
{
    SHARED(uint64_t, full, [S::STAGES]);
    SHARED(uint64_t, empty, [S::STAGES]);
    SHARED(uint32_t, n_arrived, [1]);
    struct stream_pipeline p = {shared_dynamic(), full, empty};
    clear_rows<S>(p.stages);
    if (thread_x() == 0) {
        for (uint32_t i = 0; i < S::STAGES; i++) {
            mbarrier_init(&full[i], 2);
            mbarrier_init(&empty[i], STREAM_WARPS);
        }
        fence_mbarrier_init();
    }
    struct linear_job job = make_job<S>(args);
    if (!units_are_known<S>(args))
        job.n_rows = count_rows(&args.rows);
    count_units<S>(args, &job);
    if (block_x() >= job.n_units) {
        dependencies_wait();
        return;
    }
    barrier();
    if (warp_id() == STREAM_WARPS)
        run_stream_loader<S>(p, args, job);
    else
        run_stream_warps<S>(p, args, job, n_arrived);
}

#if PTX_HAS_BULK_COPY
#define STREAM_BODY(...) linear_stream<stream_shape<__VA_ARGS__>>(args)
#else
#define STREAM_BODY(...) trap()
#endif
#define STREAM_KERNEL(name, rows, min_blocks, layout)                                                        \
    KERNEL_BOUNDS(linear_##name##_stream_r##rows, struct linear_tile_args,                                   \
                  LINEAR_STREAM_THREADS + LINEAR_LOADER_THREADS, min_blocks)                                 \
    {                                                                                                        \
        STREAM_BODY(layout, rows);                                                                           \
    }

STREAM_KERNEL(int4, 32, 2, LINEAR_INT4)
STREAM_KERNEL(uint4, 32, 2, LINEAR_UINT4)
STREAM_KERNEL(int8, 16, 2, LINEAR_INT8)
STREAM_KERNEL(int8, 32, 2, LINEAR_INT8)
