/* What CUDA kernels are written in: every device primitive, with two bodies. nvcc takes ptx_device.h (inline
 * PTX); the host compiler takes ptx_host.h, whose functions the emulator of the tests implements, so that
 * every kernel runs on a CPU. A .cu file includes this header and uses no CUDA built-in of its own.
 * docs/cuda.md says how.
 *
 * Collectives (barrier, shuffle, ballot, ldmatrix, mma, ...) must be reached by all threads that they name:
 * all 32 lanes of the warp, all 128 of the warpgroup, all threads of the block. The emulator aborts where one
 * is missing.
 *
 * Shapes: registers of a fragment are uint32_t of two 16-bit or four 8-bit values, the lower index in the
 * lower bits.
 */
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* 16 and 8 bytes that move in one instruction. */
struct alignas(16) vec16 {
    uint32_t w[4];
};
struct alignas(8) vec8 {
    uint32_t w[2];
};

/* How rows of a tile lie in shared memory for wgmma: 16-byte pieces of a row of 32, 64 or 128 bytes are
 * exchanged by XOR with address bits 7.. (swizzle_offset below). The values are those of the descriptor. */
enum wgmma_swizzle { SWIZZLE_NONE = 0, SWIZZLE_128 = 1, SWIZZLE_64 = 2, SWIZZLE_32 = 3 };

/* KERNEL(name, struct args) { ... args.x ... }: one parameter, by value; up to 1024 threads a block, so at
 * most 64 registers a thread. KERNEL_BOUNDS(name, struct args, max_threads, min_blocks) says more: at most
 * max_threads a block, and registers such that min_blocks of them fit a multiprocessor. */
#ifdef __CUDACC__
#include "kernels/cuda/ptx_device.h"
#else
#include "kernels/cuda/ptx_host.h"
#endif

enum { WARP_LANES = 32 };

/* ---- Bits ---- */

DEVICE uint32_t float_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

DEVICE float bits_float(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

DEVICE uint32_t ceil_div(uint32_t a, uint32_t b)
{
    return (a + b - 1) / b;
}

/* ---- Votes across the warp ---- */

DEVICE bool any_lane(bool predicate)
{
    return ballot(predicate) != 0;
}

DEVICE bool all_lanes(bool predicate)
{
    return ballot(predicate) == 0xffffffffu;
}

/* ---- 16-bit floats ---- */

DEVICE float from_bf16(uint16_t code)
{
    return bits_float((uint32_t)code << 16);
}

DEVICE float from_bf16_low(uint32_t pair)
{
    return bits_float(pair << 16);
}

DEVICE float from_bf16_high(uint32_t pair)
{
    return bits_float(pair & 0xffff0000u);
}

/* a * b per half, rounded once. */
DEVICE uint32_t bf16x2_mul(uint32_t a, uint32_t b)
{
    return bf16x2_fma(a, b, 0x80008000u); /* plus -0.0 keeps every sign */
}

/* ---- e4m3: sign, 4 bits of exponent (bias 7), 3 of mantissa; no infinity, NaN is 0x7f, the largest is 448
 * ---- */

/* Round to nearest even, beyond +-448 (infinity too) to +-448, NaN to 0x7f: what cvt.rn.satfinite does. */
DEVICE uint8_t e4m3_encode(float x)
{
    uint32_t bits = float_bits(x);
    uint32_t sign = bits >> 24 & 0x80u;
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u)
        return 0x7f;
    if (bits >= 0x43e00000u) /* 448 */
        return (uint8_t)(sign | 0x7eu);
    if (bits < 0x3c800000u) { /* 2^-6: a subnormal, a multiple of 2^-9, which is the last place of 2^14 */
        return (uint8_t)(sign | (float_bits(bits_float(bits) + 16384.0f) - 0x46800000u));
    }
    bits += 0x7ffffu + (bits >> 20 & 1u);
    return (uint8_t)(sign | ((bits >> 20) - (120u << 3)));
}

DEVICE float e4m3_decode(uint8_t code)
{
    if ((code & 0x7fu) == 0x7fu)
        return bits_float(0x7fffffffu);
    uint32_t bits = (code & 0x80u) << 24 | (code & 0x7fu) << 20;
    return bits_float(bits) * 0x1p120f; /* exact, subnormals too */
}

/* Four codes to bf16, exactly: out[0] holds codes 0 and 1, out[1] 2 and 3. Also without instructions for it.
 */
DEVICE void e4m3x4_to_bf16(uint32_t out[2], uint32_t codes)
{
    if ((((codes & 0x7f7f7f7fu) + 0x01010101u) & 0x80808080u) != 0) { /* a NaN */
        for (int i = 0; i < 2; i++) {
            float low = e4m3_decode((uint8_t)(codes >> 16 * i)),
                  high = e4m3_decode((uint8_t)(codes >> (16 * i + 8)));
            out[i] = float_bits(low) >> 16 | (float_bits(high) & 0xffff0000u);
        }
        return;
    }
    /* Sign to bit 15, exponent and mantissa to the lowest of their places; 2^120 moves the bias from 7 to
     * 127. */
    uint32_t even = codes & 0x00ff00ffu, odd = codes >> 8 & 0x00ff00ffu;
    even = (even & 0x00800080u) << 8 | (even & 0x007f007fu) << 4;
    odd = (odd & 0x00800080u) << 8 | (odd & 0x007f007fu) << 4;
    even = bf16x2_mul(even, 0x7b807b80u);
    odd = bf16x2_mul(odd, 0x7b807b80u);
    out[0] = (even & 0xffffu) | odd << 16;
    out[1] = even >> 16 | (odd & 0xffff0000u);
}

/* ---- int4 ---- */

/* Eight codes of 0..15 to bf16, exactly: out[i] holds code i (low) and code i + 4 (high), times 2^-133 or,
 * where i is odd, 2^-129. Up to 2^-125 the bits of a bf16 count in steps of 2^-133, from zero on. */
DEVICE void int4x8_to_bf16(uint32_t out[4], uint32_t codes)
{
    for (int i = 0; i < 4; i++)
        out[i] = (i < 2 ? codes : codes >> 8) & (i % 2 == 0 ? 0x000f000fu : 0x00f000f0u);
}

/* ---- Swizzles of wgmma ---- */

/* Where the byte at `offset` of an unswizzled tile lies; the tile begins at a multiple of 8 rows' bytes
 * (1024, 512 or 256), rows are 128, 64 or 32 bytes long. */
DEVICE uint32_t swizzle_offset(uint32_t offset, enum wgmma_swizzle swizzle)
{
    uint32_t mask = swizzle == SWIZZLE_128  ? 7u
                    : swizzle == SWIZZLE_64 ? 3u
                    : swizzle == SWIZZLE_32 ? 1u
                                            : 0u;
    return offset ^ ((offset >> 7 & mask) << 4);
}

/* The matrix descriptor: start address, leading and stride offsets in bytes (multiples of 16), swizzle.
 * K-major without swizzle: 8 x 16-byte core matrices; leading: the next one in K, stride: the next 8 rows.
 * K-major with swizzle: stride: the next 8 rows; leading unused.
 * Source: PTX ISA, "Asynchronous warpgroup level matrix operations", matrix descriptor. */
DEVICE uint64_t shared_descriptor(const void *start, uint32_t leading_bytes, uint32_t stride_bytes,
                                  enum wgmma_swizzle swizzle)
{
    uint64_t address = shared_address(start);
    return (address & 0x3ffffu) >> 4 | (uint64_t)((leading_bytes & 0x3ffffu) >> 4) << 16 |
           (uint64_t)((stride_bytes & 0x3ffffu) >> 4) << 32 | (uint64_t)swizzle << 62;
}

/* That of a matrix which begins `bytes` (a multiple of 16) behind. */
DEVICE uint64_t descriptor_behind(uint64_t descriptor, uint32_t bytes)
{
    return (descriptor & 0xffffffff00000000u) | ((uint32_t)descriptor + bytes / 16);
}
