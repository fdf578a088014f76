/* e4m3 weights by e4m3 rows with wgmma (sm_90a). A block has two warpgroups, a panel of 64 outputs each, and
 * a warp that loads: panels and rows lie in memory as wgmma wants them in shared memory (linear_layout.h), so
 * that bulk copies bring whole tiles. A stage is full when its bytes have landed and empty when all eight
 * warps have read it. Weights are operand A at every number of rows. */
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/linear_tile.h"
#include "kernels/cuda/ptx_wgmma.h"

enum { CONSUMER_WARPS = LINEAR_WGMMA_THREADS / 32, BLOCK_STEPS = 4 /* of 32 inputs */ };

template <uint32_t ROWS_> struct wgmma_shape {
    static constexpr enum linear_layout LAYOUT = LINEAR_E4M3_WGMMA;
    static constexpr bool IS_WIDE = false, HAS_LOADER = true;
    static constexpr uint32_t ROWS = ROWS_, BLOCKS = 1, THREADS = LINEAR_WGMMA_THREADS;
    static constexpr uint32_t BLOCK_INPUTS = linear_block_inputs(LAYOUT);
    static constexpr uint32_t PANEL_BYTES = linear_block_bytes(LAYOUT);
    static constexpr uint32_t X_BYTES = linear_stage_x_bytes(LAYOUT, ROWS);
    static constexpr uint32_t X_AT = linear_stage_codes_bytes(LAYOUT, ROWS);
    static constexpr uint32_t STAGES = linear_stages(LAYOUT, ROWS);
    static constexpr uint32_t STAGE_BYTES = linear_stage_bytes(LAYOUT, ROWS);
    static constexpr uint32_t SUMS = ROWS / 2; /* of a thread */
};

/* The stages that the loader and the warpgroups hand each other. */
struct wgmma_pipeline {
    uint8_t *stages;
    uint64_t *full, *empty; /* [STAGES] */
};

/* A tile past the last panel takes that one twice: both warpgroups do the same work, and outputs past n_out
 * are not stored. */
template <class S>
DEVICE void load_panels(const struct wgmma_pipeline &p, uint32_t stage, const struct linear_cursor &at,
                        const struct linear_tile_args &args, const struct linear_job &job)
{
    mbarrier_expect(&p.full[stage], LINEAR_TILE_PANELS * S::PANEL_BYTES + S::X_BYTES);
    for (uint32_t i = 0; i < LINEAR_TILE_PANELS; i++) {
        uint32_t panel = smaller(at.output_tile * LINEAR_TILE_PANELS + i, linear_panels(args.n_out) - 1);
        bulk_copy_streaming(p.stages + stage * S::STAGE_BYTES + i * S::PANEL_BYTES,
                            (const uint8_t *)args.weight +
                                linear_block_offset(S::LAYOUT, job.n_blocks, panel, at.block),
                            S::PANEL_BYTES, &p.full[stage]);
    }
}

template <class S>
DEVICE void load_rows(const struct wgmma_pipeline &p, uint32_t stage, const struct linear_cursor &at,
                      const struct linear_tile_args &args)
{
    size_t row = (size_t)at.block * args.x_stride + at.row_tile * S::ROWS;
    bulk_copy(p.stages + stage * S::STAGE_BYTES + S::X_AT, (const uint8_t *)args.x + row * LINEAR_BLOCK_BYTES,
              S::X_BYTES, &p.full[stage]);
}

/* One thread. Weights of the first stages are asked for before the rows are there. */
template <class S>
DEVICE void run_loader(const struct wgmma_pipeline &p, const struct linear_tile_args &args,
                       const struct linear_job &job)
{
    struct linear_cursor first = {};
    cursor_seek(&first, args, job, block_x());
    struct linear_cursor at = first;
    uint32_t n = 0;
    for (; n < S::STAGES && at.unit < job.n_units; n++) {
        load_panels<S>(p, n, at, args, job);
        cursor_advance<S>(&at, args, job);
    }
    dependents_launch();
    dependencies_wait();
    at = first;
    for (uint32_t i = 0; i < n; i++) {
        load_rows<S>(p, i, at, args);
        cursor_advance<S>(&at, args, job);
    }
    for (; at.unit < job.n_units; n++) {
        uint32_t stage = n % S::STAGES;
        mbarrier_wait(&p.empty[stage], (n / S::STAGES - 1) & 1);
        load_panels<S>(p, stage, at, args, job);
        load_rows<S>(p, stage, at, args);
        cursor_advance<S>(&at, args, job);
    }
}

/* One stage: the warpgroup's panel by the rows, asynchronously. is_first: of a chunk. */
template <class S>
DEVICE void multiply_block(float (&acc)[S::SUMS], const uint8_t *stage, uint32_t warpgroup, bool is_first)
{
    const uint8_t *panel = stage + warpgroup * S::PANEL_BYTES;
    wgmma_fence();
#pragma unroll
    for (uint32_t step = 0; step < BLOCK_STEPS; step++) {
        uint64_t a = shared_descriptor(panel + step * 32, 16, 8 * LINEAR_BLOCK_BYTES, SWIZZLE_128);
        uint64_t b = shared_descriptor(stage + S::X_AT + step * 32, 16, 8 * LINEAR_BLOCK_BYTES, SWIZZLE_128);
        wgmma_e4m3_m64k32<(int)S::ROWS>(acc, a, b, !is_first || step > 0);
    }
    wgmma_commit();
}

/* Of the sums d[4c + 2h + i]: outputs 2g + h of the warp's 16, row 8c + 2t + i. */
template <class S> DEVICE uint32_t wgmma_output(void)
{
    return warp_id() * 16 + lane_id() / 4 * 2;
}

template <class S, class F>
DEVICE void for_each_pair(const struct linear_job &job, const struct linear_cursor &at,
                          const float (&sums)[S::SUMS], F store)
{
#pragma unroll
    for (uint32_t c = 0; c < S::ROWS / 8; c++) {
#pragma unroll
        for (uint32_t i = 0; i < 2; i++) {
            uint32_t row = c * 8 + lane_id() % 4 * 2 + i;
            float pair[2] = {sums[4 * c + i], sums[4 * c + 2 + i]};
            if (at.row_tile * S::ROWS + row < job.n_rows)
                store(row, pair);
        }
    }
}

template <class S>
DEVICE void store_sums(const struct linear_tile_args &args, const struct linear_job &job,
                       const struct linear_cursor &at, const float (&sums)[S::SUMS])
{
    uint32_t output = at.output_tile * LINEAR_TILE_OUTPUTS + wgmma_output<S>();
    for_each_pair<S>(job, at, sums, [&](uint32_t row, const float pair[2]) {
        store_outputs<S, 2>(args, at.row_tile * S::ROWS + row, output, pair);
    });
}

template <class S>
DEVICE void finish_sums(const struct linear_tile_args &args, const struct linear_job &job,
                        const struct linear_cursor &at, const float (&sums)[S::SUMS], uint32_t *n_arrived)
{
    float *partial = tile_partials<S>(args, job, at) + at.chunk * (S::ROWS * LINEAR_TILE_OUTPUTS);
    for_each_pair<S>(job, at, sums, [&](uint32_t row, const float pair[2]) {
        uint32_t words[2] = {float_bits(pair[0]), float_bits(pair[1])};
        store_words<2>(partial + row * LINEAR_TILE_OUTPUTS + wgmma_output<S>(), words);
    });
    arrive_chunk<S, float>(args, job, at, n_arrived);
}

/* n_blocks as one chain into acc. A stage is given back when the products after it are under way. *n: stages
 * so far. */
template <class S>
DEVICE void multiply_chain(float (&acc)[S::SUMS], const struct wgmma_pipeline &p, uint32_t warpgroup,
                           uint32_t n_blocks, uint32_t *n)
{
    for (uint32_t i = 0; i < n_blocks; i++) {
        uint32_t stage = *n % S::STAGES;
        mbarrier_wait(&p.full[stage], *n / S::STAGES & 1);
        multiply_block<S>(acc, p.stages + stage * S::STAGE_BYTES, warpgroup, i == 0);
        wgmma_wait<1>();
        if (i > 0 && lane_id() == 0)
            mbarrier_arrive(&p.empty[(*n - 1) % S::STAGES]);
        ++*n;
    }
    wgmma_wait<0>();
    wgmma_hold(acc);
    if (lane_id() == 0)
        mbarrier_arrive(&p.empty[(*n - 1) % S::STAGES]);
}

/* n_blocks in chains of at most `chain`: their sum in ascending order. */
template <class S>
DEVICE void multiply_chains(float (&sum)[S::SUMS], const struct wgmma_pipeline &p, uint32_t warpgroup,
                            uint32_t chain, uint32_t n_blocks, uint32_t *n)
{
    multiply_chain<S>(sum, p, warpgroup, smaller(chain, n_blocks), n);
    for (uint32_t done = chain; done < n_blocks; done += chain) {
        float acc[S::SUMS];
        multiply_chain<S>(acc, p, warpgroup, smaller(chain, n_blocks - done), n);
#pragma unroll
        for (uint32_t i = 0; i < S::SUMS; i++)
            sum[i] += acc[i];
    }
}

/* Registers hold two sets of sums, a chain's and a chunk's; that of the chunks before waits in shared memory,
 * a column for each thread. */
template <class S> DEVICE float *kept_total(const struct wgmma_pipeline &p)
{
    return (float *)(p.stages + S::STAGES * S::STAGE_BYTES) + thread_x();
}

template <class S> DEVICE void keep_total(const struct wgmma_pipeline &p, const float (&total)[S::SUMS])
{
#pragma unroll
    for (uint32_t i = 0; i < S::SUMS; i++)
        kept_total<S>(p)[i * S::THREADS] = total[i];
}

template <class S> DEVICE void add_total(const struct wgmma_pipeline &p, float (&sum)[S::SUMS])
{
#pragma unroll
    for (uint32_t i = 0; i < S::SUMS; i++)
        sum[i] = kept_total<S>(p)[i * S::THREADS] + sum[i];
}

/* The two warpgroups. */
template <class S>
DEVICE void run_warpgroups(const struct wgmma_pipeline &p, const struct linear_tile_args &args,
                           struct linear_job job, uint32_t warpgroup, uint32_t *n_arrived)
{
    dependencies_wait();
    job.n_rows = count_rows(&args.rows);
    uint32_t n = 0, chain = linear_chain_inputs(args.chunk_blocks * S::BLOCK_INPUTS) / S::BLOCK_INPUTS;
    for (uint32_t unit = block_x(); unit < job.n_units; unit += grid_x()) {
        struct linear_cursor at = {};
        cursor_seek(&at, args, job, unit);
        /* Where a chunk is one chain, the sum of the chunks is that of their chains. */
        uint32_t span = chain == args.chunk_blocks ? at.block_end - at.block : args.chunk_blocks;
        float total[S::SUMS];
        multiply_chains<S>(total, p, warpgroup, chain, smaller(span, at.block_end - at.block), &n);
        for (at.block += span; at.block < at.block_end; at.block += span) {
            keep_total<S>(p, total);
            multiply_chains<S>(total, p, warpgroup, chain, smaller(span, at.block_end - at.block), &n);
            add_total<S>(p, total);
        }
        if (args.is_split)
            finish_sums<S>(args, job, at, total, n_arrived);
        else
            store_sums<S>(args, job, at, total);
    }
}

template <class S> DEVICE void linear_wgmma(const struct linear_tile_args &args)
{
    SHARED(uint64_t, full, [S::STAGES]);
    SHARED(uint64_t, empty, [S::STAGES]);
    SHARED(uint32_t, n_arrived, [1]);
    struct wgmma_pipeline p = {shared_dynamic(), full, empty};
    if (thread_x() == 0) {
        for (uint32_t i = 0; i < S::STAGES; i++) {
            mbarrier_init(&full[i], 1);
            mbarrier_init(&empty[i], CONSUMER_WARPS);
        }
        fence_mbarrier_init();
    }
    struct linear_job job = make_job<S>(args);
    if (!units_are_known<S>(args)) {
        dependencies_wait();
        job.n_rows = count_rows(&args.rows);
    }
    count_units<S>(args, &job);
    if (block_x() >= job.n_units) {
        dependencies_wait();
        return;
    }
    barrier();
    uint32_t warp = shuffle(warp_id(), 0); /* the compiler sees that it is one for the warp */
    if (warp == CONSUMER_WARPS) {
        if (lane_id() == 0)
            run_loader<S>(p, args, job);
    } else {
        run_warpgroups<S>(p, args, job, warp / 4, n_arrived);
    }
}

#if PTX_HAS_WGMMA
#define WGMMA_BODY(rows) linear_wgmma<wgmma_shape<rows>>(args)
#else
#define WGMMA_BODY(rows) trap()
#endif
#define WGMMA_KERNEL(rows, min_blocks)                                                                       \
    KERNEL_BOUNDS(linear_e4m3_wgmma_r##rows, struct linear_tile_args,                                        \
                  LINEAR_WGMMA_THREADS + LINEAR_LOADER_THREADS, min_blocks)                                  \
    {                                                                                                        \
        WGMMA_BODY(rows);                                                                                    \
    }

WGMMA_KERNEL(8, 2)
WGMMA_KERNEL(16, 2)
WGMMA_KERNEL(32, 2)
WGMMA_KERNEL(64, 1)
WGMMA_KERNEL(128, 1)
