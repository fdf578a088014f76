/* Kernels with one flaw each, and the sound ones that they are copies of: broken_kernels.h says which. */
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/ptx_wgmma.h"
#include "tests/cuda/broken_kernels.h"
#include "tests/cuda/emulator_kernels.h"

enum { STEP_K = 16, TILE_BYTES = 16 * STEP_K * 2, STAGES = 3 };

/* out [16][16] f32 := a [16][k] . b [16][k]^T, bf16, k = 16 n, in: a, then b. Warp 0 copies a, warp 1 b; warp
 * w multiplies columns 8 w and on. */
template <enum flaw flaw> DEVICE void tile_copy(const struct test_args &args, uint8_t *stages, uint32_t step)
{
    uint32_t row = lane_id() / 2, piece = lane_id() % 2;
    const uint8_t *from = (const uint8_t *)args.in + (warp_id() * 16 + row) * args.n * STEP_K * 2;
    uint8_t *stage = stages + step % STAGES * 2 * TILE_BYTES;
    if (step < args.n)
        copy_async_16(stage + warp_id() * TILE_BYTES + row * 32 + piece * 16,
                      from + step * STEP_K * 2 + piece * 16);
    copy_async_commit();
}

template <enum flaw flaw> DEVICE void tile_kernel(const struct test_args &args)
{
    uint8_t *stages = shared_dynamic();
    float d[4] = {0, 0, 0, 0};
    tile_copy<flaw>(args, stages, 0);
    tile_copy<flaw>(args, stages, 1);
    for (uint32_t step = 0; step < args.n; step++) {
        if (flaw == SHORT_COPY_WAIT)
            copy_async_wait(2);
        else if (flaw != NO_COPY_WAIT)
            copy_async_wait(1);
        if (flaw != NO_BARRIER)
            barrier();
        const uint8_t *a_tile = stages + step % STAGES * 2 * TILE_BYTES;
        const uint8_t *b_tile = a_tile + TILE_BYTES + warp_id() * 8 * 32;
        if (flaw == NO_BARRIER_AFTER) /* with the barrier above it would be sound: two stages only */
            a_tile = stages, b_tile = stages + TILE_BYTES + warp_id() * 8 * 32;
        uint32_t a[4], b[2], row = lane_id() % 16, half = lane_id() / 16;
        if (flaw == WRONG_FRAGMENT)
            row = lane_id() / 16 * 8 + lane_id() % 8, half = lane_id() / 8 % 2;
        ldmatrix_x4(a, a_tile + row * 32 + half * 16);
        ldmatrix_x2(b, b_tile + lane_id() % 8 * 32 + lane_id() / 8 % 2 * 16);
        tile_copy<flaw>(args, stages, step + 2);
        mma_bf16_16816(d, a, b);
        if (flaw == NO_BARRIER)
            barrier();
    }
    copy_async_wait(0);
    if (flaw == PAST_THE_END && thread_x() == 0)
        stages[STAGES * 2 * TILE_BYTES + 5] = 1;
    for (uint32_t r = 0; r < 4; r++) {
        uint32_t row = lane_id() / 4 + r / 2 * 8, column = lane_id() % 4 * 2 + r % 2;
        if (flaw == WRONG_COLUMN)
            column = lane_id() / 4, row = lane_id() % 4 * 2 + r % 2 + r / 2 * 8;
        ((float *)args.out)[row * 16 + warp_id() * 8 + column] = d[r];
    }
}

enum { BULK_BYTES = 1024, BULK_STAGES = 2 };

/* out [256] f32 := sums over n pieces of 256 f32. Thread 0 of warp 0 copies, warp 1 adds. */
template <enum flaw flaw> DEVICE void bulk_kernel(const struct test_args &args)
{
    SHARED(uint64_t, full, [BULK_STAGES]);
    SHARED(uint64_t, empty, [BULK_STAGES]);
    float *stages = (float *)shared_dynamic();
    for (uint32_t i = thread_x(); i < BULK_STAGES * BULK_BYTES / 4; i += block_threads())
        stages[i] = 0;
    if (flaw != NO_FENCE_UNDER_COPY)
        fence_async_proxy();
    if (thread_x() == 0) {
        for (uint32_t i = 0; i < BULK_STAGES; i++) {
            if (flaw != NO_INIT || i == 0)
                mbarrier_init(&full[i], 1);
            mbarrier_init(&empty[i], 32);
        }
        if (flaw != NO_INIT_FENCE)
            fence_mbarrier_init();
    }
    barrier();
    if (warp_id() == 0) {
        for (uint32_t i = 0; i < args.n && thread_x() == 0; i++) {
            uint32_t stage = i % BULK_STAGES, round = i / BULK_STAGES;
            if (round > 0)
                mbarrier_wait(&empty[stage], (round - 1) % 2);
            uint32_t bytes = flaw == TOO_FEW_BYTES    ? BULK_BYTES - 16
                             : flaw == TOO_MANY_BYTES ? BULK_BYTES + 16
                                                      : BULK_BYTES;
            mbarrier_expect(&full[stage], BULK_BYTES);
            bulk_copy((uint8_t *)stages + stage * BULK_BYTES + (flaw == MISALIGNED ? 8 : 0),
                      (const uint8_t *)args.in + i * BULK_BYTES, bytes, &full[stage]);
        }
        return;
    }
    float sums[8] = {0, 0, 0, 0, 0, 0, 0, 0};
    for (uint32_t i = 0; i < args.n; i++) {
        uint32_t stage = i % BULK_STAGES, round = i / BULK_STAGES;
        if (flaw != NO_MBARRIER_WAIT)
            mbarrier_wait(&full[stage], (round + (flaw == WRONG_PARITY)) % 2);
        for (uint32_t j = 0; j < 8; j++)
            sums[j] += stages[stage * BULK_BYTES / 4 + j * 32 + lane_id()];
        if (flaw != NOT_FREED)
            mbarrier_arrive(&empty[stage]);
    }
    for (uint32_t j = 0; j < 8; j++)
        ((float *)args.out)[j * 32 + lane_id()] = sums[j];
}

/* out [64][16] f32 := 2 a [64][64] . b [16][64]^T, bf16; in: a, then b. */
template <enum flaw flaw> DEVICE void group_kernel(const struct test_args &args)
{
#if PTX_HAS_WGMMA
    constexpr enum wgmma_swizzle stored = SWIZZLE_128,
                                 read = flaw == WRONG_SWIZZLE ? SWIZZLE_64 : SWIZZLE_128;
    uint8_t *tile = shared_dynamic();
    for (uint32_t i = thread_x(); i < (flaw == UNWRITTEN ? 64 : 80) * 8; i += block_threads())
        store_16(tile + swizzle_offset(i * 16, stored), load_16((const uint8_t *)args.in + i * 16));
    if (flaw != NO_PROXY_FENCE)
        fence_async_proxy();
    barrier();
    if (flaw == ONE_WARP_LESS && warp_id() == 2)
        return;
    if (flaw == TOO_MANY_REGISTERS)
        registers_raise<136>();
    float d[8];
    if (flaw != NO_WGMMA_FENCE)
        wgmma_fence();
    for (int k = 0; k < 4; k++) {
        uint32_t stride = flaw == WRONG_STRIDE ? 512 : 1024;
        wgmma_bf16_m64k16<16>(d, shared_descriptor(tile + k * 32, 0, stride, read),
                              shared_descriptor(tile + 8192 + k * 32, 0, stride, read), k > 0);
    }
    if (flaw != NO_WGMMA_COMMIT)
        wgmma_commit();
    if (flaw == OVERWRITTEN)
        store_16(tile + thread_x() * 16, load_16(args.in));
    if (flaw == TOUCHED)
        for (int i = 0; i < 8; i++)
            d[i] *= 2.0f;
    if (flaw == SHORT_WGMMA_WAIT)
        wgmma_wait<1>();
    else if (flaw != NO_WGMMA_WAIT)
        wgmma_wait<0>();
    wgmma_hold(d);
    for (int i = 0; i < 8; i++) {
        uint32_t row = warp_id() * 16 + lane_id() / 4 + i / 2 % 2 * 8;
        ((float *)args.out)[row * 16 + i / 4 * 8 + lane_id() % 4 * 2 + i % 2] = 2.0f * d[i];
    }
#endif
}

/* out [64] u32 := in [i] of the neighbour in the warp, twice, plus in [i] of the other warp. */
template <enum flaw flaw> DEVICE void warp_kernel(const struct test_args &args)
{
    SHARED(uint32_t, values, [64]);
    uint32_t lane = lane_id(), warp = warp_id();
    if (flaw != NO_DEPENDENCIES_WAIT)
        dependencies_wait();
    uint32_t x = ((const uint32_t *)args.in)[thread_x()], neighbour = 0;
    if (flaw == UNALIGNED)
        x = load_16((const uint32_t *)args.in + 1).w[0];
    if (flaw == ENDED_LANE && lane == 5)
        return;
    if (flaw == DIVERGENT && lane >= 16)
        neighbour = ballot(x != 0);
    else if (flaw != MISSING_LANE || lane != 31)
        neighbour = shuffle_xor(x, 1);
    values[thread_x()] = x;
    if (flaw == ENDED_WARP && warp == 1)
        return;
    if (flaw == MIXED_BARRIERS)
        barrier_named(lane < 16 ? 1 : 2, 64);
    else if (flaw == WRONG_COUNT)
        barrier_named(1, warp == 0 ? 64 : 32);
    else if (flaw != RACE && (flaw != BARRIER_NOT_REACHED || warp == 0))
        barrier();
    uint32_t other = values[thread_x() ^ 32];
    if (flaw == BARRIER_NOT_REACHED && warp == 1)
        barrier_named(3, 64);
    if (flaw != REUSED)
        barrier();
    values[thread_x()] = x + 1;
    if (flaw != NO_WARP_SYNC)
        warp_sync();
    ((uint32_t *)args.out)[thread_x()] = neighbour + other + values[thread_x() ^ 1] - 1;
}

/* out [64] f32 := the sums over blocks of in [blocks][64]; what blocks write lies behind out, and before it
 * all the count. */
template <enum flaw flaw> DEVICE void last_kernel(const struct test_args &args)
{
    SHARED(uint32_t, n_before, );
    float *out = (float *)args.out, *parts = out + 64;
    uint32_t *n_done = (uint32_t *)(parts + grid_x() * 64), seen = 0;
    parts[block_x() * 64 + thread_x()] = ((const float *)args.in)[block_x() * 64 + thread_x()];
    if (flaw != NO_BARRIER_BEFORE_COUNT)
        barrier();
    if (thread_x() == 0) {
        if (flaw != NO_FENCE_BEFORE_COUNT)
            fence_device();
        seen = n_before = atomic_add_u32(n_done, 1);
        if (flaw != NO_FENCE_AFTER_COUNT)
            fence_device();
    }
    if (flaw != NO_BARRIER_AFTER_COUNT) {
        barrier();
        seen = n_before;
    }
    if (flaw == NO_BARRIER_AFTER_COUNT ? block_x() + 1 < grid_x() : seen + 1 < grid_x())
        return;
    float sum = 0;
    for (uint32_t i = 0; i < grid_x(); i++)
        sum += parts[i * 64 + thread_x()];
    out[thread_x()] = sum;
}

/* out [64] f32 := in [i]; what the warps write lies behind out, and before it all the count. */
template <enum flaw flaw> DEVICE void pair_kernel(const struct test_args &args)
{
    float *out = (float *)args.out, *parts = out + 64;
    uint32_t n_before = 0;
    parts[thread_x()] = ((const float *)args.in)[thread_x()];
    warp_sync();
    if (lane_id() == 0) {
        if (flaw != NO_FENCE_IN_PAIR)
            fence_device();
        n_before = atomic_add_u32((uint32_t *)(parts + 64), 1);
        fence_device();
    }
    n_before = shuffle(n_before, 0);
    if (lane_id() == 0 && n_before == 1)
        *(uint32_t *)(parts + 64) = 0;
    warp_sync();
    for (uint32_t i = lane_id(); n_before == 1 && i < 64; i += WARP_LANES)
        out[i] = parts[i];
}

/* out [64] u32 := in [i], which the launch in front writes. */
template <enum flaw flaw> DEVICE void late_kernel(const struct test_args &args)
{
    SHARED(uint32_t, values, [64]);
    uint32_t i = thread_x();
    if (flaw == LATE_READ && i == 40)
        values[i] = ((const uint32_t *)args.in)[i];
    if (flaw == LATE_COPY && i == 40)
        copy_async_16(&values[i], (const uint32_t *)args.in + i);
    if (flaw == LATE_WRITE && i == 40)
        ((uint32_t *)args.out)[i] = 0;
    copy_async_wait(0);
    if (i == 0)
        dependencies_wait();
    if (flaw != NO_BARRIER_AFTER_WAIT)
        barrier();
    ((uint32_t *)args.out)[i] = ((const uint32_t *)args.in)[i];
}

#define BROKEN_KERNEL(flaw, shape, what)                                                                     \
    KERNEL_BOUNDS(broken_##flaw, struct test_args, 128, 4) /* 128 registers a thread */                      \
    {                                                                                                        \
        shape##_kernel<flaw>(args);                                                                          \
    }
FLAW_LIST(BROKEN_KERNEL)
