/* A packed weight as kernels see it: by value in their arguments. */
#pragma once

#include <stdint.h>
#include "kernels/kernels.h"

/* [n_out][n_in] codes, row after row, each row a multiple of 16 bytes (see cuda_matrix_row_bytes):
 *   WEIGHT_F32, BF16, F16   elements
 *   WEIGHT_INT8             int8; scales: f16 [n_out][n_in / group], or f32 [n_out] when group == n_in
 *   WEIGHT_INT4             code + 8, input 2i in the low nibble of byte i; scales: f16 [n_out][n_in / group]
 *   WEIGHT_UINT4            likewise, the code as it is; scales: [n_out][n_in / group] pairs of an f16 scale
 * and a 16-bit zero point e4m3                    codes; scales: f32 [n_out] or, where `packed` says so, in a
 * layout of the tensor-core kernels (linear_layout.h). */
struct cuda_matrix {
    const void *codes;
    const void *scales; /* NULL: a float format */
    const float *bias;  /* [n_out] or NULL */
    uint32_t n_out, n_in, group;
    uint32_t format;    /* enum weight_format */
    uint32_t row_bytes; /* between rows of codes */
    uint32_t packed;    /* 0: rows; else 1 + enum linear_layout */
};

enum { CUDA_MATRIX_ROW_ALIGN = 16 };

static inline uint32_t cuda_matrix_row_bytes(enum weight_format format, uint32_t n_in)
{
    uint32_t bits = 8;
    if (format == WEIGHT_F32)
        bits = 32;
    else if (format == WEIGHT_BF16 || format == WEIGHT_F16)
        bits = 16;
    else if (format == WEIGHT_INT4 || format == WEIGHT_UINT4)
        bits = 4;
    uint64_t bytes = ((uint64_t)n_in * bits + 7) / 8;
    return (uint32_t)((bytes + CUDA_MATRIX_ROW_ALIGN - 1) / CUDA_MATRIX_ROW_ALIGN * CUDA_MATRIX_ROW_ALIGN);
}
