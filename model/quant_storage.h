/* Inside of quant_tensors.h: what each way of storing a module does. */
#pragma once

#include <string.h>
#include "model/quant_tensors.h"

/* What binding knows besides the tensors. */
struct quant_binder {
    const char *directory, *module; /* for messages; module: the tensors' names without their endings */
};

struct quant_storage_ops {
    /* Finds and checks codes, scales and zeros; may change the format. n_groups is set. */
    err_t (*bind)(struct quant_tensors *tensors, const struct quant_binder *binder);
    /* Extents of the slabs; NULL: rows are read from the file. */
    void (*slabs)(const struct quant_tensors *tensors, const struct quant_extent *extent,
                  struct quant_slab *codes, struct quant_slab *scales, struct quant_slab *zeros);
    /* Codes [first, first + n) of rows [row, row + n_rows), to out[0], ... */
    err_t (*read_codes)(const struct quant_tensors *tensors, uint64_t row, size_t n_rows, uint64_t first,
                        size_t n, const struct quant_row *out);
    /* Scales and zeros of groups [first, first + n). */
    err_t (*read_groups)(const struct quant_tensors *tensors, uint64_t row, uint64_t first, size_t n,
                         struct quant_row *out);
};

extern const struct quant_storage_ops quant_storage_awq, quant_storage_gptq;     /* quant_columns.c */
extern const struct quant_storage_ops quant_storage_packed, quant_storage_bytes; /* quant_rows.c */

/* Eight codes of four bits, the first in the lowest, each less 0 or 8, to a byte each. */
static inline void quant_unpack_nibbles(uint32_t word, int less, int8_t out[8])
{
    const uint64_t every_byte = 0x0101010101010101u;
    uint64_t codes = word;
    codes = (codes | codes << 16) & 0x0000ffff0000ffffu;
    codes = (codes | codes << 8) & 0x00ff00ff00ff00ffu;
    codes = (codes | codes << 4) & 0x0f0f0f0f0f0f0f0fu;
    if (less == 8) {
        codes ^= 8 * every_byte;
        codes |= (codes & 8 * every_byte) * 0x1e; /* the sign upwards */
    }
    memcpy(out, &codes, sizeof codes);
}

enum { QUANT_DTYPE_INTEGER = 1 << 0, QUANT_DTYPE_FLOAT = 1 << 1 }; /* I32; F32, F16 and BF16 */

/* The tensor module + suffix, [rows, columns], or [rows] where columns is 0. NOT_FOUND, INVALID_ARGUMENT. */
err_t quant_find(const struct quant_tensors *tensors, const struct quant_binder *binder, const char *suffix,
                 int dtype, uint64_t rows, uint64_t columns,
                 const struct checkpoint_tensor **out) ERR_MUST_CHECK;
err_t quant_wrong_tensor(const struct quant_tensors *tensors, const struct checkpoint_tensor *tensor,
                         const char *what) ERR_MUST_CHECK;
