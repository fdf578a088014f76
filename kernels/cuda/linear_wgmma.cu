/* e4m3 weights by e4m3 rows with wgmma (sm_90a). Panels and rows lie in memory as wgmma wants them in shared
 * memory (linear_layout.h), so that bulk copies bring whole tiles: one warp loads. */
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/linear_wgmma.h"

template <uint32_t ROWS_> struct wgmma_shape {
    static constexpr enum linear_layout LAYOUT = LINEAR_E4M3_WGMMA;
    static constexpr bool IS_WIDE = false, HAS_LOADER = true, HAS_GROUPS = false;
    static constexpr uint32_t ROWS = ROWS_, BLOCKS = 1, THREADS = LINEAR_WGMMA_THREADS;
    static constexpr uint32_t BLOCK_INPUTS = linear_block_inputs(LAYOUT);
    static constexpr uint32_t PANEL_BYTES = linear_block_bytes(LAYOUT);
    static constexpr uint32_t X_BYTES = linear_stage_x_bytes(LAYOUT, ROWS);
    static constexpr uint32_t X_AT = linear_stage_codes_bytes(LAYOUT, ROWS);
    static constexpr uint32_t STAGES = linear_stages(LAYOUT, ROWS);
    static constexpr uint32_t STAGE_BYTES = linear_stage_bytes(LAYOUT, ROWS);
    static constexpr uint32_t SUMS = ROWS / 2; /* of a thread */
    static constexpr uint32_t SHARED_SUMS = 0, FULL_ARRIVALS = 1;
    /* Three sets of sums, of a chain, a chunk and all, want the registers of those that load. */
    static constexpr bool MOVES_REGISTERS = linear_e4m3_moves_registers(ROWS);
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

template <class S> DEVICE void linear_wgmma(const struct linear_tile_args &args)
{
    SHARED(wgmma_shared<S::STAGES>, shared, );
    struct wgmma_pipeline p = {shared_dynamic(), shared.full, shared.empty};
    struct linear_job job;
    if (!start_wgmma<S>(p, args, &job))
        return;
    uint32_t warp = shuffle(warp_id(), 0); /* the compiler sees that it is one for the warp */
    if (warp >= CONSUMER_WARPS) {
        if constexpr (S::MOVES_REGISTERS)
            registers_lower<LOADER_REGISTERS>();
        if (warp == CONSUMER_WARPS && lane_id() == 0)
            run_bulk_loader<S>(p, args, job, [&](uint32_t stage, const struct linear_cursor &at) {
                load_panels<S>(p, stage, at, args, job);
            });
        return;
    }
    if constexpr (S::MOVES_REGISTERS)
        registers_raise<CONSUMER_REGISTERS>();
    struct stage_cursor stage = {};
    uint32_t chain = linear_chain_inputs(args.chunk_blocks * S::BLOCK_INPUTS) / S::BLOCK_INPUTS;
    /* Where a chunk is one chain, the sum of the chunks is that of their chains. */
    uint32_t span = chain == args.chunk_blocks ? job.n_blocks : args.chunk_blocks;
    run_warpgroups<S>(p, args, job, &shared.n_arrived, span,
                      [&](float(&sum)[S::SUMS], const struct linear_cursor &, uint32_t n_blocks) {
                          multiply_chains<S>(sum, p, warp / 4, chain, n_blocks, &stage);
                      });
}

#if PTX_HAS_WGMMA
#define WGMMA_BODY(rows) linear_wgmma<wgmma_shape<rows>>(args)
#else
#define WGMMA_BODY(rows) trap()
#endif
#define WGMMA_KERNEL(rows, min_blocks)                                                                       \
    KERNEL_BOUNDS(linear_e4m3_wgmma_r##rows, struct linear_tile_args,                                        \
                  linear_block_threads(LINEAR_E4M3_WGMMA, rows), min_blocks)                                 \
    {                                                                                                        \
        WGMMA_BODY(rows);                                                                                    \
    }

WGMMA_KERNEL(8, 2)
WGMMA_KERNEL(16, 2)
WGMMA_KERNEL(32, 2)
WGMMA_KERNEL(64, 1)
WGMMA_KERNEL(128, 1)
