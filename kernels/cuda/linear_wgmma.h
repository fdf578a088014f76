/* What the wgmma linear kernels (sm_90a) share: two warpgroups with a panel of 64 outputs each, warps that
 * only load, and the stages that they hand each other. Weights are operand A at every number of rows. A shape
 * S says where a stage keeps what, and how many arrivals fill it. */
#pragma once

#include "kernels/cuda/linear_tile.h"
#include "kernels/cuda/ptx_wgmma.h"

/* Of 65,536, where a warpgroup loads and two multiply. */
enum { LOADER_REGISTERS = 40, CONSUMER_REGISTERS = 232 };
enum { CONSUMER_WARPS = LINEAR_WGMMA_THREADS / 32, BLOCK_STEPS = 4 /* of 32 bytes of a row */ };
enum { DESCRIPTOR_STEP = 32 / 16 }; /* what they are in a descriptor's address */

/* A stage is full when its bytes have landed and empty when all eight warps have read it. */
struct wgmma_pipeline {
    uint8_t *stages;
    uint64_t *full, *empty; /* [STAGES] */
};

/* What lies in static shared memory. */
template <uint32_t STAGES> struct wgmma_shared {
    uint64_t full[STAGES], empty[STAGES];
    uint32_t n_arrived;
};

/* The rows of a stage, which lie in blocks; one thread. */
template <class S>
DEVICE void load_rows(const struct wgmma_pipeline &p, uint32_t stage, const struct linear_cursor &at,
                      const struct linear_tile_args &args)
{
    size_t row = (size_t)at.block * args.x_stride + at.row_tile * S::ROWS;
    bulk_copy(p.stages + stage * S::STAGE_BYTES + S::X_AT, (const uint8_t *)args.x + row * LINEAR_BLOCK_BYTES,
              S::X_BYTES, &p.full[stage]);
}

/* One thread, where bulk copies bring whole stages. load(stage, at): asks for the weights. Those of the first
 * stages are asked for before the rows are there. */
template <class S, class LOAD>
DEVICE void run_bulk_loader(const struct wgmma_pipeline &p, const struct linear_tile_args &args,
                            const struct linear_job &job, LOAD load)
{
    struct linear_cursor first = {};
    cursor_seek(&first, args, job, block_x());
    struct linear_cursor at = first;
    uint32_t n = 0;
    for (; n < S::STAGES && at.unit < job.n_units; n++) {
        load(n, at);
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
        load(stage, at);
        load_rows<S>(p, stage, at, args);
        cursor_advance<S>(&at, args, job);
    }
}

/* acc = (accumulate ? acc : 0) + one stage: the warpgroup's panel by the rows, asynchronously. */
template <class S>
DEVICE void multiply_block(float (&acc)[S::SUMS], const uint8_t *stage, uint32_t warpgroup, bool accumulate)
{
    const uint8_t *panel = stage + warpgroup * S::PANEL_BYTES;
    wgmma_fence();
    uint64_t a = shared_descriptor(panel, 16, 8 * LINEAR_BLOCK_BYTES, SWIZZLE_128);
    uint64_t b = shared_descriptor(stage + S::X_AT, 16, 8 * LINEAR_BLOCK_BYTES, SWIZZLE_128);
#pragma unroll
    for (uint32_t step = 0; step < BLOCK_STEPS; step++) {
        if constexpr (S::IS_WIDE)
            wgmma_bf16_m64k16<(int)S::ROWS>(acc, a + step * DESCRIPTOR_STEP, b + step * DESCRIPTOR_STEP,
                                            accumulate || step > 0);
        else
            wgmma_e4m3_m64k32<(int)S::ROWS>(acc, a + step * DESCRIPTOR_STEP, b + step * DESCRIPTOR_STEP,
                                            accumulate || step > 0);
    }
    wgmma_commit();
}

/* Where a warpgroup stands among the stages. */
struct stage_cursor {
    uint32_t stage, parity; /* of the stage's `full` */
};

template <class S> DEVICE void next_stage(struct stage_cursor *at)
{
    if (++at->stage == S::STAGES) {
        at->stage = 0;
        at->parity ^= 1;
    }
}

template <class S> DEVICE uint32_t stage_before(const struct stage_cursor &at)
{
    return (at.stage == 0 ? S::STAGES : at.stage) - 1;
}

/* n_blocks as one chain into acc. A stage is given back when the products after it are under way. */
template <class S>
DEVICE void multiply_chain(float (&acc)[S::SUMS], const struct wgmma_pipeline &p, uint32_t warpgroup,
                           uint32_t n_blocks, struct stage_cursor *at)
{
    /* Few registers that hold nothing yet nvcc would define within the loop, which serialises its products.
     */
    if constexpr (S::SUMS < 8) {
#pragma unroll
        for (uint32_t i = 0; i < S::SUMS; i++)
            acc[i] = 0;
        wgmma_hold(acc);
    }
#pragma unroll 1
    for (uint32_t i = 0; i < n_blocks; i++) {
        mbarrier_wait(&p.full[at->stage], at->parity);
        multiply_block<S>(acc, p.stages + at->stage * S::STAGE_BYTES, warpgroup, i > 0);
        wgmma_wait<1>();
        if (i > 0 && lane_id() == 0)
            mbarrier_arrive(&p.empty[stage_before<S>(*at)]);
        next_stage<S>(at);
    }
    wgmma_wait<0>();
    wgmma_hold(acc);
    if (lane_id() == 0)
        mbarrier_arrive(&p.empty[stage_before<S>(*at)]);
}

/* What sums begin with: it leaves any number that is added to it as it is, +0 too. */
static constexpr float NO_SUM = -0.0f;

/* sum += n_blocks in chains of at most `chain`, in ascending order. */
template <class S>
DEVICE void multiply_chains(float (&sum)[S::SUMS], const struct wgmma_pipeline &p, uint32_t warpgroup,
                            uint32_t chain, uint32_t n_blocks, struct stage_cursor *at)
{
    float acc[S::SUMS];
#pragma unroll
    for (uint32_t i = 0; i < S::SUMS; i++)
        sum[i] = NO_SUM;
#pragma unroll 1
    for (uint32_t done = 0; done < n_blocks; done += chain) {
        multiply_chain<S>(acc, p, warpgroup, smaller(chain, n_blocks - done), at);
#pragma unroll
        for (uint32_t i = 0; i < S::SUMS; i++)
            sum[i] += acc[i];
    }
}

/* Of the sums d[4c + 2h + i]: row 8c + 2t + i, outputs wgmma_output + h. In shared memory 16 outputs of a
 * panel lie with 2g + h at row g + 8h; codes of fragments are a warp's tile of a slab (linear_layout.h). */
template <class S> DEVICE uint32_t wgmma_output(void)
{
    uint32_t warp = warp_id(), group = lane_id() / 4;
    return S::HAS_GROUPS ? warp / 2 * LINEAR_SLAB + warp % 2 * 2 + group * 4 : warp * 16 + group * 2;
}

/* The sums of a thread over chunks. Of the largest tiles the last SHARED_SUMS lie in shared memory behind the
 * stages, [pieces of four][threads]. */
template <class S> struct tile_sums {
    static constexpr uint32_t KEPT = S::SUMS - S::SHARED_SUMS;
    float kept[KEPT];
    uint8_t *shared; /* of the thread */
};

/* Sums 4c .. 4c + 3. */
template <class S> DEVICE void four_sums(float (&four)[4], const tile_sums<S> &sums, uint32_t c)
{
    constexpr uint32_t KEPT = tile_sums<S>::KEPT;
    vec16 words = {};
    if (4 * c >= KEPT)
        words = load_16(sums.shared + (c - KEPT / 4) * (S::THREADS * 16));
#pragma unroll
    for (uint32_t i = 0; i < 4; i++)
        four[i] = 4 * c < KEPT ? sums.kept[(4 * c + i) % KEPT] : bits_float(words.w[i]);
}

/* sums += acc, in the order of the chunks; is_first: what lies in shared memory is nothing yet. */
template <class S> DEVICE void add_sums(tile_sums<S> &sums, const float (&acc)[S::SUMS], bool is_first)
{
    constexpr uint32_t KEPT = tile_sums<S>::KEPT;
#pragma unroll
    for (uint32_t i = 0; i < KEPT; i++)
        sums.kept[i] += acc[i];
#pragma unroll
    for (uint32_t c = KEPT / 4; c < S::SUMS / 4; c++) {
        float four[4];
        four_sums<S>(four, sums, c);
        vec16 words;
#pragma unroll
        for (uint32_t i = 0; i < 4; i++)
            words.w[i] = float_bits(is_first ? acc[4 * c + i] : four[i] + acc[4 * c + i]);
        store_16(sums.shared + (c - KEPT / 4) * (S::THREADS * 16), words);
    }
}

template <class S, class F>
DEVICE void for_each_pair(const struct linear_job &job, const struct linear_cursor &at,
                          const tile_sums<S> &sums, F store)
{
#pragma unroll
    for (uint32_t c = 0; c < S::ROWS / 8; c++) {
        float four[4];
        four_sums<S>(four, sums, c);
#pragma unroll
        for (uint32_t i = 0; i < 2; i++) {
            uint32_t row = c * 8 + lane_id() % 4 * 2 + i;
            float pair[2] = {four[i], four[2 + i]};
            if (at.row_tile * S::ROWS + row < job.n_rows)
                store(row, pair);
        }
    }
}

/* Whole outputs in bf16 without a bias. Scales of some rows are read before the first result of these is
 * written: a store could change them for all that the compiler knows, and each would wait for the one before.
 */
template <class S>
DEVICE void store_scaled(const struct linear_tile_args &args, const struct linear_job &job,
                         const struct linear_cursor &at, const tile_sums<S> &sums, uint32_t output)
{
    constexpr uint32_t N = S::ROWS / 8, PART = N < 8 ? N : 8; /* of four sums, of two rows */
    float of_output[2] = {((const float *)args.weight_scale)[output],
                          ((const float *)args.weight_scale)[output + 1]};
    uint32_t first = at.row_tile * S::ROWS + lane_id() % 4 * 2;
    uint16_t *out = (uint16_t *)args.out + (size_t)first * args.out_stride + output;
#pragma unroll
    for (uint32_t part = 0; part < N; part += PART) {
        float of_row[PART][2];
#pragma unroll
        for (uint32_t c = 0; c < PART; c++) {
#pragma unroll
            for (uint32_t i = 0; i < 2; i++) {
                uint32_t row = first + (part + c) * 8 + i;
                of_row[c][i] = row < job.n_rows ? args.x_scale[row] : 0.0f;
            }
        }
#pragma unroll
        for (uint32_t c = 0; c < PART; c++) {
            float four[4];
            four_sums<S>(four, sums, part + c);
#pragma unroll
            for (uint32_t i = 0; i < 2; i++) {
                uint32_t pair = to_bf16x2(four[i] * (of_row[c][i] * of_output[0]),
                                          four[2 + i] * (of_row[c][i] * of_output[1]));
                if (first + (part + c) * 8 + i < job.n_rows)
                    *(uint32_t *)(out + i * args.out_stride) = pair;
            }
            out += 8 * (size_t)args.out_stride;
        }
    }
}

template <class S>
DEVICE void store_sums(const struct linear_tile_args &args, const struct linear_job &job,
                       const struct linear_cursor &at, const tile_sums<S> &sums)
{
    uint32_t output = at.output_tile * LINEAR_TILE_OUTPUTS + wgmma_output<S>();
    if constexpr (!S::IS_WIDE) {
        bool whole = (at.output_tile + 1) * LINEAR_TILE_OUTPUTS <= args.n_out;
        if (whole && args.bias == NULL && args.out_is_f32 == 0) {
            store_scaled<S>(args, job, at, sums, output);
            return;
        }
    }
    for_each_pair<S>(job, at, sums, [&](uint32_t row, const float pair[2]) {
        store_outputs<S, 2>(args, at.row_tile * S::ROWS + row, output, pair);
    });
}

template <class S>
DEVICE void finish_sums(const struct linear_tile_args &args, const struct linear_job &job,
                        const struct linear_cursor &at, const tile_sums<S> &sums, uint32_t *n_arrived)
{
    float *partial = tile_partials<S>(args, job, at) + at.chunk * (S::ROWS * LINEAR_TILE_OUTPUTS);
    for_each_pair<S>(job, at, sums, [&](uint32_t row, const float pair[2]) {
        uint32_t words[2] = {float_bits(pair[0]), float_bits(pair[1])};
        store_words<2>(partial + row * LINEAR_TILE_OUTPUTS + wgmma_output<S>(), words);
    });
    arrive_chunk<S, float>(args, job, at, n_arrived);
}

/* The two warpgroups. multiply(acc, at, n_blocks): the sum of a span, from zero; spans are added in ascending
 * order, and no longer than a unit. */
template <class S, class F>
DEVICE void run_warpgroups(const struct wgmma_pipeline &p, const struct linear_tile_args &args,
                           struct linear_job job, uint32_t *n_arrived, uint32_t span, F multiply)
{
    dependencies_wait();
    job.n_rows = count_rows(&args.rows);
    for (uint32_t unit = block_x(); unit < job.n_units; unit += grid_x()) {
        struct linear_cursor at = {};
        cursor_seek(&at, args, job, unit);
        float acc[S::SUMS];
        tile_sums<S> total;
        total.shared = p.stages + S::STAGES * S::STAGE_BYTES + thread_x() * 16;
        bool is_first = true;
#pragma unroll
        for (uint32_t i = 0; i < tile_sums<S>::KEPT; i++)
            total.kept[i] = NO_SUM;
        for (; at.block < at.block_end; at.block += span) {
            multiply(acc, at, smaller(span, at.block_end - at.block));
            add_sums<S>(total, acc, is_first);
            is_first = false;
        }
        if (args.is_split)
            finish_sums<S>(args, job, at, total, n_arrived);
        else
            store_sums<S>(args, job, at, total);
    }
}

/* The whole block: barriers, and the units: the step is there before the rows are. false: none for this
 * block. */
template <class S>
DEVICE bool start_wgmma(const struct wgmma_pipeline &p, const struct linear_tile_args &args,
                        struct linear_job *job)
{
    if (thread_x() == 0) {
        for (uint32_t i = 0; i < S::STAGES; i++) {
            mbarrier_init(&p.full[i], S::FULL_ARRIVALS);
            mbarrier_init(&p.empty[i], CONSUMER_WARPS);
        }
        fence_mbarrier_init();
    }
    *job = make_job<S>(args);
    if (!units_are_known<S>(args))
        job->n_rows = count_rows(&args.rows);
    count_units<S>(args, job);
    if (block_x() >= job->n_units) {
        dependencies_wait();
        return false;
    }
    barrier();
    return true;
}
