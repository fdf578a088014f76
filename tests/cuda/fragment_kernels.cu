#include "tests/cuda/fragment_kernels.h"
#include "kernels/cuda/ptx.h"
#include "kernels/cuda/ptx_wgmma.h"

enum element { BF16, F16, S8, E4M3 };

template <enum element element> DEVICE uint32_t code_of(uint32_t value)
{
    if (element == BF16)
        return to_bf16((float)value);
    if (element == F16)
        return to_f16((float)value);
    return element == S8 ? value : to_e4m3((float)value);
}

/* Registers [first, first + n) of a numbering of elements, all but one zero. */
template <enum element element> DEVICE void one_hot(uint32_t *r, uint32_t n, uint32_t which)
{
    constexpr uint32_t per = element == BF16 || element == F16 ? 2 : 4;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t first = (thread_x() * n + i) * per;
        r[i] = which >= first && which < first + per ? code_of<element>(1) << 32 / per * (which - first) : 0;
    }
}

/* Digit `digit` to base 16, plus 1, of an element's number: exact in every format. */
DEVICE uint32_t digit_of(uint32_t number, uint32_t digit)
{
    return (number >> 4 * digit & 15u) + 1;
}

/* Puts a digit that an accumulator shows into what is known; 0: no element of b met this accumulator. */
DEVICE void digit_add(uint32_t &known, uint32_t shown, uint32_t digit)
{
    if (shown != 0)
        known = (digit == 0 ? 1 : known) + ((shown - 1) << 4 * digit);
}

template <enum element element, class T, void (*mma)(T *, const uint32_t *, const uint32_t *)>
DEVICE void mma_probe(const struct fragment_args &args)
{
    constexpr uint32_t per = element == BF16 || element == F16 ? 2 : 4;
    uint32_t a[4], b[2], known[4] = {0, 0, 0, 0};
    one_hot<element>(a, 4, block_x());
    for (uint32_t digit = 0; digit < 2; digit++) {
        T d[4] = {0, 0, 0, 0};
        for (uint32_t r = 0; r < 2; r++) {
            b[r] = 0;
            for (uint32_t e = 0; e < per; e++)
                b[r] |= code_of<element>(digit_of((lane_id() * 2 + r) * per + e, digit)) << 32 / per * e;
        }
        mma(d, a, b);
        for (uint32_t r = 0; r < 4; r++)
            digit_add(known[r], (uint32_t)d[r], digit);
    }
    for (uint32_t r = 0; r < 4; r++)
        args.out[(block_x() * 32 + lane_id()) * 4 + r] = known[r];
}

KERNEL(probe_mma_bf16, struct fragment_args)
{
    mma_probe<BF16, float, mma_bf16_16816>(args);
}
KERNEL(probe_mma_f16, struct fragment_args)
{
    mma_probe<F16, float, mma_f16_16816>(args);
}
KERNEL(probe_mma_s8, struct fragment_args)
{
    mma_probe<S8, int32_t, mma_s8_16832>(args);
}
KERNEL(probe_mma_e4m3, struct fragment_args)
{
#if PTX_HAS_MMA_E4M3
    mma_probe<E4M3, float, mma_e4m3_16832>(args);
#endif
}

/* Row i of matrix m holds 64 m + 8 i + column. */
template <bool transposed> DEVICE void ldmatrix_probe(const struct fragment_args &args)
{
    SHARED(uint16_t, rows, [32][8]);
    for (uint32_t i = 0; i < 8; i++)
        rows[lane_id()][i] = (uint16_t)(lane_id() * 8 + i);
    warp_sync();
    uint32_t r[4];
    if (transposed)
        ldmatrix_x4_trans(r, rows[lane_id()]);
    else
        ldmatrix_x4(r, rows[lane_id()]);
    for (uint32_t i = 0; i < 4; i++)
        args.out[lane_id() * 4 + i] = r[i];
}

KERNEL(probe_ldmatrix, struct fragment_args)
{
    ldmatrix_probe<false>(args);
}
KERNEL(probe_ldmatrix_trans, struct fragment_args)
{
    ldmatrix_probe<true>(args);
}

enum { A_BYTES = 8192, B_BYTES = 2048 };
enum source { SHARED_BY_ROW, SHARED_BY_K, REGISTERS };

/* Shared memory of a: zero but for one element; of b: a digit of each element's number. */
template <enum element element> DEVICE void tiles_write(uint8_t *tiles, uint32_t which, uint32_t digit)
{
    constexpr uint32_t size = element == BF16 ? 2 : 1;
    for (uint32_t i = thread_x() * 4; i < A_BYTES + B_BYTES; i += block_threads() * 4) {
        uint32_t word = 0;
        for (uint32_t e = 0; e < 4 / size; e++) {
            uint32_t number = i / size + e;
            uint32_t value = i < A_BYTES ? number == which : digit_of(number - A_BYTES / size, digit);
            word |= code_of<element>(value) << 8 * size * e;
        }
        *(uint32_t *)(tiles + i) = word;
    }
}

/* n = 8. */
template <enum element element, enum wgmma_swizzle swizzle, enum source source>
DEVICE void wgmma_probe(const struct fragment_args &args)
{
#if PTX_HAS_WGMMA
    constexpr uint32_t width = swizzle == SWIZZLE_128  ? 128
                               : swizzle == SWIZZLE_64 ? 64
                               : swizzle == SWIZZLE_32 ? 32
                                                       : 16;
    uint8_t *tiles = shared_dynamic();
    uint32_t known[4] = {0, 0, 0, 0}, a[4];
    one_hot<element>(a, 4, block_x());
    uint64_t a_at = shared_descriptor(tiles, swizzle == SWIZZLE_NONE ? 1024 : 0, 8 * width, swizzle);
    uint64_t b_at = shared_descriptor(tiles + A_BYTES, swizzle == SWIZZLE_NONE ? 128 : 0, 8 * width, swizzle);
    for (uint32_t digit = 0; digit < 3; digit++) {
        float d[4] = {0, 0, 0, 0};
        barrier();
        tiles_write<element>(tiles, source == REGISTERS ? 0xffffffffu : block_x(), digit);
        fence_async_proxy();
        barrier();
        wgmma_fence();
        if constexpr (element == E4M3 && source == REGISTERS)
            wgmma_e4m3_m64k32<8>(d, a, b_at, false);
        else if constexpr (element == E4M3)
            wgmma_e4m3_m64k32<8>(d, a_at, b_at, false);
        else if constexpr (source == REGISTERS)
            wgmma_bf16_m64k16<8>(d, a, b_at, false);
        else if constexpr (source == SHARED_BY_K)
            wgmma_bf16_m64k16<8, 1, 1>(d, a_at, b_at, false);
        else
            wgmma_bf16_m64k16<8>(d, a_at, b_at, false);
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_hold(d);
        for (uint32_t r = 0; r < 4; r++)
            digit_add(known[r], (uint32_t)d[r], digit);
    }
    for (uint32_t r = 0; r < 4; r++)
        args.out[(block_x() * 128 + thread_x()) * 4 + r] = known[r];
#endif
}

#define WGMMA_PROBE(name, ...)                                                                               \
    KERNEL_BOUNDS(probe_##name, struct fragment_args, 128, 1)                                                \
    {                                                                                                        \
        wgmma_probe<__VA_ARGS__>(args);                                                                      \
    }
WGMMA_PROBE(wgmma_bf16_none, BF16, SWIZZLE_NONE, SHARED_BY_ROW)
WGMMA_PROBE(wgmma_bf16_32, BF16, SWIZZLE_32, SHARED_BY_ROW)
WGMMA_PROBE(wgmma_bf16_64, BF16, SWIZZLE_64, SHARED_BY_ROW)
WGMMA_PROBE(wgmma_bf16_128, BF16, SWIZZLE_128, SHARED_BY_ROW)
WGMMA_PROBE(wgmma_bf16_by_k, BF16, SWIZZLE_128, SHARED_BY_K)
WGMMA_PROBE(wgmma_bf16_registers, BF16, SWIZZLE_128, REGISTERS)
WGMMA_PROBE(wgmma_e4m3_128, E4M3, SWIZZLE_128, SHARED_BY_ROW)
WGMMA_PROBE(wgmma_e4m3_registers, E4M3, SWIZZLE_128, REGISTERS)
