/* Packing of the linear layers' weights: linear_layout.h says where things lie. */
#include <string.h>
#include "base/assert.h"
#include "base/checked.h"
#include "base/float16.h"
#include "kernels/cuda/linear_pack.h"

enum { NO_GROUP_SHIFT = 31, BLOCK_INPUTS_MAX = 128 };

enum linear_e4m3_kind linear_e4m3_kind(uint32_t compute_capability)
{
    if (compute_capability == 90)
        return LINEAR_E4M3_BY_WGMMA;
    /* 10.x runs the PTX of plain compute_90, which has neither wgmma nor an mma of e4m3. */
    if (compute_capability == 89 || compute_capability / 10 == 12)
        return LINEAR_E4M3_MMA;
    return LINEAR_E4M3_AS_BF16;
}

static bool is_power_of_two(uint32_t x)
{
    return x != 0 && (x & (x - 1)) == 0;
}

bool linear_packed_describe(enum weight_format format, uint32_t n_out, uint32_t n_in, uint32_t group,
                            struct linear_packed *out)
{
    ASSERT(n_out > 0 && n_in > 0);
    *out = (struct linear_packed){.n_out = n_out, .n_in = n_in, .group = n_in};
    switch (format) {
    case WEIGHT_BF16:
    case WEIGHT_F16:
        out->layout = LINEAR_BF16;
        out->row_bytes = (uint32_t)round_up((size_t)n_in * 2, 16);
        return true;
    case WEIGHT_INT8:
        out->layout = group == n_in ? LINEAR_S8 : LINEAR_INT8;
        break;
    case WEIGHT_INT4:
        out->layout = LINEAR_INT4;
        break;
    case WEIGHT_UINT4:
        out->layout = LINEAR_UINT4;
        break;
    default:
        return false;
    }
    out->group = group;
    return group == n_in || (is_power_of_two(group) && group >= 32);
}

void linear_packed_describe_e4m3(uint32_t n_out, uint32_t n_in, uint32_t compute_capability,
                                 struct linear_packed *out)
{
    ASSERT(n_out > 0 && n_in > 0);
    bool by_wgmma = linear_e4m3_kind(compute_capability) == LINEAR_E4M3_BY_WGMMA;
    *out = (struct linear_packed){
        .layout = by_wgmma ? LINEAR_E4M3_WGMMA : LINEAR_E4M3, .n_out = n_out, .n_in = n_in, .group = n_in};
}

size_t linear_packed_codes_bytes(const struct linear_packed *packed)
{
    if (packed->layout == LINEAR_BF16)
        return (size_t)packed->n_out * packed->row_bytes;
    return linear_codes_bytes(packed->layout, packed->n_out, packed->n_in);
}

static size_t count_groups(const struct linear_packed *packed)
{
    if (packed->group == packed->n_in)
        return 1;
    return linear_groups(packed->layout, packed->n_in, packed->group);
}

size_t linear_packed_scales_bytes(const struct linear_packed *packed)
{
    size_t panels = linear_panels(packed->n_out);
    if (packed->layout == LINEAR_BF16)
        return 0;
    if (!linear_has_groups(packed->layout))
        return panels * LINEAR_PANEL * sizeof(float);
    return panels * count_groups(packed) * linear_group_bytes(packed->layout);
}

uint32_t linear_group_shift(uint32_t n_in, uint32_t group)
{
    /* A group of n_in stays one even where its last block is padded. */
    return group == n_in ? (uint32_t)NO_GROUP_SHIFT : (uint32_t)__builtin_ctz(group);
}

/* What the panel of output o has for its group g. */
static uint16_t *group_of(const struct linear_packed *packed, uint32_t o, uint32_t g)
{
    size_t group = o / LINEAR_PANEL * count_groups(packed) + g;
    return (uint16_t *)packed->scales + group * linear_group_bytes(packed->layout) / sizeof(uint16_t);
}

void linear_pack_scale(const struct linear_packed *packed, uint32_t o, uint32_t g, float scale)
{
    ASSERT(o < packed->n_out && g < packed->n_in / packed->group && packed->scales != NULL);
    float unit = packed->layout == LINEAR_INT4    ? linear_int4_scale_unit(o)
                 : packed->layout == LINEAR_UINT4 ? linear_uint4_unit(o)
                                                  : 1.0f;
    if (linear_has_groups(packed->layout))
        group_of(packed, o, g)[o % LINEAR_PANEL] = bf16_from_f32(scale * unit);
    else
        ((float *)packed->scales)[o] = scale;
}

void linear_pack_zero(const struct linear_packed *packed, uint32_t o, uint32_t g, uint8_t zero)
{
    ASSERT(o < packed->n_out && g < packed->n_in / packed->group && packed->layout == LINEAR_UINT4 &&
           zero < 128);
    group_of(packed, o, g)[LINEAR_PANEL + o % LINEAR_PANEL] =
        bf16_from_f32(-(float)zero / linear_uint4_unit(o));
}

/* Bytes side by side: a0 b0 a1 b1. */
static uint32_t interleave(uint32_t a, uint32_t b)
{
    return (a & 0xff) | (b & 0xff) << 8 | (a & 0xff00) << 8 | (b & 0xff00) << 16;
}

/* 64 codes of an output, of a nibble each, to the 64 bytes that its tile has for it: linear_code_offset. */
static void pack_nibbles(const uint8_t *codes, uint8_t offset, uint32_t shift, uint8_t *out)
{
    uint8_t nibbles[64];
    for (uint32_t k = 0; k < 64; k++)
        nibbles[k] = (uint8_t)(((codes[k] + offset) & 15) << shift);
    for (uint32_t step = 0; step < 4; step++) {
        uint64_t low, high; /* a lane's inputs: two of each */
        memcpy(&low, nibbles + step * 16, sizeof low);
        memcpy(&high, nibbles + step * 16 + 8, sizeof high);
        for (uint32_t lane = 0; lane < 4; lane++) {
            uint32_t word;
            memcpy(&word, out + lane * 16 + step * 4, sizeof word);
            word |= interleave((uint32_t)(low >> 16 * lane), (uint32_t)(high >> 16 * lane));
            memcpy(out + lane * 16 + step * 4, &word, sizeof word);
        }
    }
}

/* n codes to where `at` has each of them; those of `run` neighbours lie side by side. */
static void move_codes(const uint8_t *codes, uint32_t n, const uint32_t *at, uint32_t run, uint8_t *block)
{
    uint32_t k = 0;
    for (; run == 16 && k + 16 <= n; k += 16)
        memcpy(block + at[k], codes + k, 16);
    for (; run == 4 && k + 4 <= n; k += 4)
        memcpy(block + at[k], codes + k, 4);
    for (; k < n; k++)
        block[at[k]] = codes[k];
}

static void pack_codes(const struct linear_packed *packed, uint32_t o, const uint8_t *codes)
{
    const enum linear_layout layout = packed->layout;
    const uint32_t inputs = linear_block_inputs(layout), n_blocks = linear_blocks(layout, packed->n_in),
                   run = layout == LINEAR_E4M3_WGMMA ? 16
                         : layout == LINEAR_INT8     ? 1
                                                     : 4,
                   shift = linear_int4_shift(o);
    const uint8_t offset = layout == LINEAR_INT4 ? 8 : 0;
    uint32_t at[BLOCK_INPUTS_MAX];
    for (uint32_t k = 0; k < inputs; k++)
        at[k] = linear_code_offset(layout, o % LINEAR_PANEL, k);
    for (uint32_t b = 0; b < n_blocks; b++, codes += inputs) {
        uint8_t *block = packed->codes + linear_block_offset(layout, n_blocks, o / LINEAR_PANEL, b);
        uint32_t n = packed->n_in - b * inputs < inputs ? packed->n_in - b * inputs : inputs;
        if (!linear_is_int4(layout))
            move_codes(codes, n, at, run, block);
        else if (n == inputs)
            pack_nibbles(codes, offset, shift, block + at[0]);
        else
            for (uint32_t k = 0; k < n; k++)
                block[at[k]] |= (uint8_t)(((codes[k] + offset) & 15) << shift);
    }
}

void linear_pack_codes(const struct linear_packed *packed, uint32_t o, const void *codes)
{
    ASSERT(o < packed->n_out && packed->codes != NULL);
    if (packed->layout == LINEAR_BF16)
        memcpy(packed->codes + (size_t)o * packed->row_bytes, codes, (size_t)packed->n_in * 2);
    else
        pack_codes(packed, o, codes);
}
