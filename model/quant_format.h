/* What the codes of a quantised matrix mean: the one description that every checkpoint format is read into.
 *
 * Value k of a row is (code[k] - zero) * scale + minimum, with the scale, the zero point and the minimum of
 * the input's group; a format has no more than one of zero points and minimums. The product and the sum are
 * rounded to f32 each. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum quant_code {
    QUANT_CODE_INT,  /* integers of `bits` bits */
    QUANT_CODE_E4M3, /* OCP FP8: 8 bits, no infinity */
};

enum quant_offset {
    QUANT_SYMMETRIC,  /* code * scale; integer codes are signed */
    QUANT_ZERO_POINT, /* (code - zero) * scale, zero an integer; codes of fewer than 8 bits are unsigned */
    QUANT_MINIMUM,    /* code * scale + minimum, minimum a float; likewise */
};

struct quant_format {
    enum quant_code code;
    uint32_t bits;  /* of a code, 2..8 */
    uint32_t group; /* neighbouring inputs that share a scale; 0 = all of a row */
    enum quant_offset offset;
    /* The checkpoint was made for rows in 8 bits of the same kind, a scale each, found as they come. */
    bool rows_in_8_bits;
};

/* A piece of one row: n inputs from `first` on, with what belongs to the groups that they lie in. */
struct quant_row {
    int8_t *codes;   /* [n]; 8-bit codes with zero points: less 128, and so are the zeros; E4M3: bytes */
    float *scales;   /* [quant_groups(format, first, n)] */
    int16_t *zeros;  /* likewise, -128..256; QUANT_ZERO_POINT */
    float *minimums; /* likewise; QUANT_MINIMUM */
    /* [first + n]: the group of every input where it is not input / group (GPTQ's act-order); then all
     * groups of the row are there. NULL: it is. */
    const uint32_t *group_of;
};

/* Groups that n > 0 inputs from `first` on lie in. */
static inline size_t quant_groups(const struct quant_format *format, size_t first, size_t n)
{
    return format->group == 0 ? 1 : (first + n - 1) / format->group - first / format->group + 1;
}

/* The values of the piece, [n], to out. */
void quant_row_values(const struct quant_format *format, const struct quant_row *row, size_t first, size_t n,
                      float *out);
