/* bf16, IEEE half and float conversions, round to nearest even. Pure functions without a branch: a compiler
 * makes vectors of loops over them. */
#pragma once

#include <stdint.h>
#include <string.h>
#include "base/host_device.h"

HOST_DEVICE static inline float f32_from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

HOST_DEVICE static inline uint32_t f32_to_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

HOST_DEVICE static inline float bf16_to_f32(uint16_t h)
{
    return f32_from_bits((uint32_t)h << 16);
}

/* NaN stays a quiet NaN. */
HOST_DEVICE static inline uint16_t bf16_from_f32(float f)
{
    uint32_t bits = f32_to_bits(f), rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    return (uint16_t)(((bits & 0x7fffffffu) > 0x7f800000u ? bits | 0x400000u : rounded) >> 16);
}

/* The greatest finite half. */
#define F16_MAX 65504.0f

/* 2^112 moves the exponent's bias of 15 to 127, which is exact, of subnormals too. */
static inline float f16_to_f32(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, magnitude = (uint32_t)(h & 0x7fffu) << 13;
    uint32_t infinite = magnitude >= 0x0f800000u ? 0x7f800000u : 0;
    return f32_from_bits(f32_to_bits(f32_from_bits(magnitude) * 0x1p112f) | infinite | sign);
}

static inline uint16_t f16_from_f32(float f)
{
    uint32_t bits = f32_to_bits(f), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
    uint32_t normal = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - (112u << 23)) >> 13;
    /* Below 2^-14: adding 0.5 leaves the rounded multiple of 2^-24 in the low bits of the sum. */
    uint32_t small = f32_to_bits(f32_from_bits(magnitude) + 0.5f) - 0x3f000000u;
    uint32_t half = magnitude < 0x38800000u ? small : normal;
    half = magnitude >= 0x477ff000u ? 0x7c00u : half; /* from 65520, the midpoint above the largest half */
    half = magnitude > 0x7f800000u ? 0x7e00u | ((magnitude >> 13) & 0x3ffu) : half; /* quiet, payload kept */
    return (uint16_t)(sign | half);
}
