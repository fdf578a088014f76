/* One product each on tiles in global memory, by the layouts that ptx.h documents: for test_products.c. */
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/ptx_wgmma.h"
#include "tests/cuda/emulator_kernels.h"

/* Registers of the fragments straight from global memory; row_words: uint32_t a row of a and b. */
DEVICE void load_a(uint32_t a[4], const uint32_t *from, uint32_t row_words)
{
    uint32_t g = lane_id() / 4, t = lane_id() % 4;
    for (uint32_t r = 0; r < 4; r++)
        a[r] = from[(g + r % 2 * 8) * row_words + t + r / 2 * 4];
}

DEVICE void load_b(uint32_t b[2], const uint32_t *from, uint32_t row_words)
{
    uint32_t g = lane_id() / 4, t = lane_id() % 4;
    for (uint32_t r = 0; r < 2; r++)
        b[r] = from[g * row_words + t + r * 4];
}

template <class T> DEVICE void load_d(T d[4], const T *from)
{
    uint32_t g = lane_id() / 4, t = lane_id() % 4;
    for (uint32_t r = 0; r < 4; r++)
        d[r] = from[(g + r / 2 * 8) * 8 + t * 2 + r % 2];
}

template <class T> DEVICE void store_d(const T d[4], T *to)
{
    uint32_t g = lane_id() / 4, t = lane_id() % 4;
    for (uint32_t r = 0; r < 4; r++)
        to[(g + r / 2 * 8) * 8 + t * 2 + r % 2] = d[r];
}

template <class T, void (*mma)(T *, const uint32_t *, const uint32_t *)>
DEVICE void product(const struct product_args &args)
{
    uint32_t a[4], b[2];
    T d[4];
    load_a(a, (const uint32_t *)args.a, 8);
    load_b(b, (const uint32_t *)args.b, 8);
    load_d(d, (const T *)args.d);
    mma(d, a, b);
    store_d(d, (T *)args.d);
}

KERNEL(test_mma_bf16, struct product_args)
{
    product<float, mma_bf16_16816>(args);
}

KERNEL(test_mma_f16, struct product_args)
{
    product<float, mma_f16_16816>(args);
}

KERNEL(test_mma_s8, struct product_args)
{
    product<int32_t, mma_s8_16832>(args);
}

KERNEL(test_mma_e4m3, struct product_args)
{
    product<float, mma_e4m3_16832>(args);
}

/* The same as test_mma_bf16 through shared memory: a by ldmatrix_x4; b, which lies [k][n] (n = 8), by the
 * transposed ldmatrix_x2. */
KERNEL(test_mma_ldmatrix, struct product_args)
{
    SHARED(uint16_t, a_tile, [16][24]); /* rows of 48 bytes */
    SHARED(uint16_t, b_tile, [16][8]);
    for (uint32_t i = lane_id(); i < 16 * 16; i += WARP_LANES)
        a_tile[i / 16][i % 16] = ((const uint16_t *)args.a)[i];
    for (uint32_t i = lane_id(); i < 16 * 8; i += WARP_LANES)
        b_tile[i / 8][i % 8] = ((const uint16_t *)args.b)[i];
    warp_sync();
    uint32_t a[4], b[2], b_again[4];
    float d[4];
    ldmatrix_x4(a, &a_tile[lane_id() % 16][lane_id() / 16 * 8]);
    ldmatrix_x2_trans(b, &b_tile[lane_id() % 16][0]);
    load_d(d, (const float *)args.d);
    mma_bf16_16816(d, a, b);
    store_d(d, (float *)args.d);
    /* The other forms agree with these. */
    ldmatrix_x1_trans(b_again, &b_tile[lane_id() % 8][0]);
    ldmatrix_x1_trans(b_again + 1, &b_tile[8 + lane_id() % 8][0]);
    if (b_again[0] != b[0] || b_again[1] != b[1])
        trap();
    ldmatrix_x4_trans(b_again, &b_tile[lane_id() % 16][0]);
    if (b_again[0] != b[0] || b_again[1] != b[1] || b_again[2] != b[0] || b_again[3] != b[1])
        trap();
    ldmatrix_x2(b_again, &a_tile[lane_id() % 16][0]);
    ldmatrix_x1(b_again + 2, &a_tile[8 + lane_id() % 8][8]);
    if (b_again[0] != a[0] || b_again[1] != a[1] || b_again[2] != a[3])
        trap();
}

/* ---- wgmma: K_STEPS steps of 32 bytes ---- */

enum { K_STEPS = 4, ROW_BYTES = K_STEPS * 32 };

/* Rows of ROW_BYTES from global memory as wgmma wants them: strips of the swizzle's width, each
 * [n_rows][width]. */
template <enum wgmma_swizzle swizzle>
DEVICE void tile_store(uint8_t *tile, const uint8_t *from, uint32_t n_rows)
{
    constexpr uint32_t width = swizzle == SWIZZLE_128  ? 128
                               : swizzle == SWIZZLE_64 ? 64
                               : swizzle == SWIZZLE_32 ? 32
                                                       : 16;
    for (uint32_t i = thread_x(); i < n_rows * ROW_BYTES / 16; i += block_threads()) {
        uint32_t row = i / (ROW_BYTES / 16), column = i % (ROW_BYTES / 16) * 16;
        uint32_t offset =
            swizzle_offset(column / width * n_rows * width + row * width + column % width, swizzle);
        store_16(tile + offset, load_16(from + row * ROW_BYTES + column));
    }
}

template <enum wgmma_swizzle swizzle>
DEVICE uint64_t tile_descriptor(const uint8_t *tile, uint32_t n_rows, uint32_t step)
{
    constexpr uint32_t width = swizzle == SWIZZLE_128  ? 128
                               : swizzle == SWIZZLE_64 ? 64
                               : swizzle == SWIZZLE_32 ? 32
                                                       : 16;
    uint32_t start = step * 32 / width * n_rows * width + step * 32 % width;
    return shared_descriptor(tile + start, swizzle == SWIZZLE_NONE ? n_rows * 16 : 0, 8 * width, swizzle);
}

template <int N> DEVICE void store_accumulators(const float (&d)[N / 2], float *to)
{
    for (int i = 0; i < N / 2; i++) {
        uint32_t row = thread_x() / 32 * 16 + lane_id() / 4 + i / 2 % 2 * 8;
        to[row * N + i / 4 * 8 + lane_id() % 4 * 2 + i % 2] = d[i];
    }
}

/* 128 threads; shared: 64 + N rows. e4m3: k = 128; bf16: k = 64. */
template <int N, enum wgmma_swizzle swizzle, bool e4m3, bool a_in_registers>
DEVICE void warpgroup_product(const struct product_args &args)
{
#if PTX_HAS_WGMMA
    uint8_t *a_tile = shared_dynamic(), *b_tile = a_tile + 64 * ROW_BYTES;
    tile_store<swizzle>(a_tile, (const uint8_t *)args.a, 64);
    tile_store<swizzle>(b_tile, (const uint8_t *)args.b, N);
    fence_async_proxy();
    barrier();
    float d[N / 2];
    for (int i = 0; i < N / 2; i++)
        d[i] = 100.0f; /* not accumulated */
    uint32_t a[K_STEPS][4];
    for (int k = 0; k < K_STEPS; k++)
        load_a(a[k], (const uint32_t *)args.a + warp_id() * 16 * (ROW_BYTES / 4) + k * 8, ROW_BYTES / 4);
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < K_STEPS; k++) {
        uint64_t a_at = tile_descriptor<swizzle>(a_tile, 64, k),
                 b_at = tile_descriptor<swizzle>(b_tile, N, k);
        if constexpr (e4m3 && a_in_registers)
            wgmma_e4m3_m64k32<N>(d, a[k], b_at, k > 0);
        else if constexpr (e4m3)
            wgmma_e4m3_m64k32<N>(d, a_at, b_at, k > 0);
        else if constexpr (a_in_registers)
            wgmma_bf16_m64k16<N>(d, a[k], b_at, k > 0);
        else
            wgmma_bf16_m64k16<N>(d, a_at, b_at, k > 0);
    }
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(d);
    store_accumulators<N>(d, (float *)args.d);
#endif
}

#define WGMMA_TEST(name, ...)                                                                                \
    KERNEL_BOUNDS(name, struct product_args, 128, 1)                                                         \
    {                                                                                                        \
        warpgroup_product<__VA_ARGS__>(args);                                                                \
    }
WGMMA_TEST(test_wgmma_e4m3_8, 8, SWIZZLE_128, true, false)
WGMMA_TEST(test_wgmma_e4m3_64, 64, SWIZZLE_128, true, false)
WGMMA_TEST(test_wgmma_e4m3_128, 128, SWIZZLE_64, true, false)
WGMMA_TEST(test_wgmma_e4m3_256, 256, SWIZZLE_128, true, true)
WGMMA_TEST(test_wgmma_e4m3_16, 16, SWIZZLE_NONE, true, false)
WGMMA_TEST(test_wgmma_bf16_32, 32, SWIZZLE_32, false, false)
WGMMA_TEST(test_wgmma_bf16_64, 64, SWIZZLE_128, false, true)
WGMMA_TEST(test_wgmma_bf16_96, 96, SWIZZLE_64, false, false)
WGMMA_TEST(test_wgmma_bf16_192, 192, SWIZZLE_NONE, false, false)
WGMMA_TEST(test_wgmma_bf16_256, 256, SWIZZLE_128, false, false)

/* bf16 with both operands by k: a [16][64], b [16][64], swizzled rows of 128 bytes; n = 64. */
KERNEL_BOUNDS(test_wgmma_by_k, struct product_args, 128, 1)
{
#if PTX_HAS_WGMMA
    uint8_t *a_tile = shared_dynamic(), *b_tile = a_tile + 16 * 128;
    for (uint32_t i = thread_x(); i < 16 * 8; i += block_threads()) {
        uint32_t offset = swizzle_offset(i * 16, SWIZZLE_128);
        store_16(a_tile + offset, load_16((const uint8_t *)args.a + i * 16));
        store_16(b_tile + offset, load_16((const uint8_t *)args.b + i * 16));
    }
    fence_async_proxy();
    barrier();
    float d[32];
    wgmma_fence();
    wgmma_bf16_m64k16<64, 1, 1>(d, shared_descriptor(a_tile, 0, 1024, SWIZZLE_128),
                                shared_descriptor(b_tile, 0, 1024, SWIZZLE_128), false);
    wgmma_commit();
    wgmma_wait<0>();
    wgmma_hold(d);
    store_accumulators<64>(d, (float *)args.d);
#endif
}
