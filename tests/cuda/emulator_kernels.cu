/* Kernels that use one primitive each, for test_emulator.c. */
#include "kernels/cuda/ptx.h"
#include "tests/cuda/emulator_kernels.h"

/* out[i] := i for i < n; any grid of one dimension. */
KERNEL(test_fill, struct test_args)
{
    uint32_t stride = grid_x() * block_threads();
    for (uint32_t i = block_x() * block_threads() + thread_x(); i < args.n; i += stride)
        ((uint32_t *)args.out)[i] = i;
}

/* out[block][thread] := sum of in over the block, by shuffles, shared memory and two barriers. */
KERNEL(test_block_sum, struct test_args)
{
    SHARED(float, sums, [32]);
    float x = warp_sum(((const float *)args.in)[block_x() * block_threads() + thread_x()]);
    if (lane_id() == 0)
        sums[warp_id()] = x;
    barrier();
    float total = 0;
    for (uint32_t i = 0; i < block_threads() / WARP_LANES; i++)
        total += sums[i];
    ((float *)args.out)[block_x() * block_threads() + thread_x()] = total;
}

/* out[i] := in[n - 1 - i] through dynamic shared memory, in pieces of 16 bytes copied ahead in two stages. */
KERNEL(test_copy_async, struct test_args)
{
    uint8_t *buffer = shared_dynamic();
    const uint8_t *in = (const uint8_t *)args.in;
    uint32_t stage_bytes = block_threads() * 16;
    copy_async_16(buffer + thread_x() * 16, in + thread_x() * 16);
    copy_async_commit();
    for (uint32_t i = 0; i < args.n; i++) {
        if (i + 1 < args.n)
            copy_async_16(buffer + (i + 1) % 2 * stage_bytes + thread_x() * 16,
                          in + (i + 1) * stage_bytes + thread_x() * 16);
        copy_async_commit();
        copy_async_wait(1);
        barrier();
        uint32_t other = block_threads() - 1 - thread_x();
        store_16((uint8_t *)args.out + i * stage_bytes + thread_x() * 16,
                 load_16(buffer + i % 2 * stage_bytes + other * 16));
        barrier();
    }
    copy_async_wait(0);
}

/* Counts every thread of the grid once; the last block writes the count. */
KERNEL(test_last_block, struct test_args)
{
    uint32_t *counters = (uint32_t *)args.out;
    SHARED(uint32_t, is_last);
    atomic_add_u32(&counters[0], 1);
    fence_device();
    barrier();
    if (thread_x() == 0)
        is_last = atomic_add_u32(&counters[1], 1) == grid_x() * grid_y() - 1;
    barrier();
    if (is_last != 0 && thread_x() == 0)
        counters[2] = load_acquire_u32(&counters[0]);
}

/* Per element: in[0] floats; a chain of args.n shuffles: how fast collectives are. */
KERNEL(test_shuffle_chain, struct test_args)
{
    uint32_t x = thread_x();
    for (uint32_t i = 0; i < args.n; i++)
        x = shuffle_xor(x, i & 31u) + i;
    ((uint32_t *)args.out)[thread_x()] = x;
}
