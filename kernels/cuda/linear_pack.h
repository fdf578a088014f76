/* Weights into the layouts of linear_layout.h, on the host. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "kernels/cuda/linear_layout.h"
#include "kernels/kernels.h"

/* Which instructions a device has for e4m3. */
enum linear_e4m3_kind { LINEAR_E4M3_AS_BF16, LINEAR_E4M3_MMA, LINEAR_E4M3_BY_WGMMA };

/* compute_capability: 10 * major + minor. */
enum linear_e4m3_kind linear_e4m3_kind(uint32_t compute_capability);

struct linear_packed {
    enum linear_layout layout;
    uint32_t n_out, n_in;
    uint32_t group;     /* inputs per scale; n_in: a scale per output */
    uint32_t row_bytes; /* BF16: between rows, a multiple of 16 */
    uint8_t *codes;     /* [linear_packed_codes_bytes], INT4 and UINT4 zeroed before packing */
    void *scales;       /* [linear_packed_scales_bytes], zeroed before packing */
};

/* The layout of a weight in bf16 precision (bf16 activations); codes and scales stay NULL. WEIGHT_F16 becomes
 * BF16, rounded once. False: no fast kernel takes it: WEIGHT_F32, or a group that is neither n_in nor a power
 * of two of at least 32. */
bool linear_packed_describe(enum weight_format format, uint32_t n_out, uint32_t n_in, uint32_t group,
                            struct linear_packed *out);
/* The same for e4m3, which always has a scale per output. */
void linear_packed_describe_e4m3(uint32_t n_out, uint32_t n_in, uint32_t compute_capability,
                                 struct linear_packed *out);

size_t linear_packed_codes_bytes(const struct linear_packed *packed);
size_t linear_packed_scales_bytes(const struct linear_packed *packed); /* BF16: 0 */

/* log2 of the group for the kernels' arguments: 31 for a scale per output. */
uint32_t linear_group_shift(uint32_t n_in, uint32_t group);

/* Row `o`; several threads may pack rows of different panels (LINEAR_PANEL rows).
 * codes: [n_in] bf16, int8 (INT4: -8..7, UINT4: 0..15), or e4m3. */
void linear_pack_codes(const struct linear_packed *packed, uint32_t o, const void *codes);
/* The scale of its group g (0: of the whole row); where groups share one, it is rounded to bf16. */
void linear_pack_scale(const struct linear_packed *packed, uint32_t o, uint32_t g, float scale);
/* UINT4: the zero point of group g, below 128. */
void linear_pack_zero(const struct linear_packed *packed, uint32_t o, uint32_t g, uint8_t zero);
