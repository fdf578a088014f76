/* AWQ and GPTQ: codes of eight outputs, or of eight inputs, in a word, inputs along the rows of the tensors.
 * A row of the matrix is a column of the file. */
#include <stdio.h>
#include <string.h>
#include "base/assert.h"
#include "base/float16.h"
#include "model/quant_storage.h"

static uint32_t codes_a_word(const struct quant_tensors *tensors)
{
    return 32 / tensors->format.bits;
}

/* Where element `index` of n rows from `first` on begins; the next row's is slab->row_bytes on. */
static const uint8_t *slab_column(const struct quant_slab *slab, uint64_t first, uint64_t n, uint64_t index,
                                  uint64_t element_bytes)
{
    ASSERT(first >= slab->first_row && first - slab->first_row + n <= slab->n_rows);
    uint64_t byte = index * element_bytes;
    ASSERT(byte >= slab->first_byte && byte - slab->first_byte + element_bytes <= slab->row_bytes);
    return slab->bytes + (first - slab->first_row) * slab->row_bytes + (byte - slab->first_byte);
}

static uint32_t word_at(const uint8_t *at)
{
    uint32_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

static float float_at(const uint8_t *at, enum tensor_dtype dtype)
{
    uint16_t half;
    float value;
    memcpy(&half, at, sizeof half);
    if (dtype != TENSOR_F32)
        return dtype == TENSOR_BF16 ? bf16_to_f32(half) : f16_to_f32(half);
    memcpy(&value, at, sizeof value);
    return value;
}

/* Scales of groups [first, first + n) of an output. */
static void read_scales(const struct quant_tensors *tensors, uint64_t row, uint64_t first, size_t n,
                        float *out)
{
    const struct quant_slab *slab = &tensors->scale_slab;
    enum tensor_dtype dtype = tensors->scales->info->dtype;
    const uint8_t *at = slab_column(slab, first, n, row, tensor_dtype_bytes(dtype));
    for (size_t g = 0; g < n; g++)
        out[g] = float_at(at + g * slab->row_bytes, dtype);
}

static err_t check_multiple(const struct quant_tensors *tensors, const struct quant_binder *binder,
                            uint64_t n, const char *what)
{
    if (n % codes_a_word(tensors) == 0)
        return err_ok();
    return err_new(ERR_INVALID_ARGUMENT,
                   "%s: tensor \"%s.qweight\" has %llu %s, no multiple of the %u in a word",
                   binder->directory, binder->module, (unsigned long long)n, what, codes_a_word(tensors));
}

static err_t bind_columns(struct quant_tensors *t, const struct quant_binder *binder, bool codes_along_inputs)
{
    uint32_t in_word = codes_a_word(t);
    TRY(check_multiple(t, binder, t->n_out, "outputs"));
    if (codes_along_inputs)
        TRY(check_multiple(t, binder, t->n_in, "inputs"));
    TRY(quant_find(t, binder, ".qweight", QUANT_DTYPE_INTEGER,
                   codes_along_inputs ? t->n_in / in_word : t->n_in,
                   codes_along_inputs ? t->n_out : t->n_out / in_word, &t->codes));
    TRY(quant_find(t, binder, ".scales", QUANT_DTYPE_FLOAT, t->n_groups, t->n_out, &t->scales));
    return quant_find(t, binder, ".qzeros", QUANT_DTYPE_INTEGER, t->n_groups, t->n_out / in_word, &t->zeros);
}

static err_t bind_awq(struct quant_tensors *tensors, const struct quant_binder *binder)
{
    return bind_columns(tensors, binder, false);
}

static err_t bind_gptq(struct quant_tensors *tensors, const struct quant_binder *binder)
{
    return bind_columns(tensors, binder, true);
}

static void slabs_of_groups(const struct quant_tensors *t, const struct quant_extent *extent,
                            struct quant_slab *scales, struct quant_slab *zeros)
{
    uint64_t first = 0, end = t->n_groups, in_word = codes_a_word(t);
    if (!t->group_of && t->format.group > 0) {
        first = extent->first_in / t->format.group;
        end = (extent->first_in + extent->n_in - 1) / t->format.group + 1;
    }
    uint64_t element = tensor_dtype_bytes(t->scales->info->dtype);
    uint64_t word = extent->first_out / in_word,
             end_word = (extent->first_out + extent->n_out - 1) / in_word + 1;
    *scales =
        (struct quant_slab){NULL, first, end - first, extent->first_out * element, extent->n_out * element};
    *zeros = (struct quant_slab){NULL, first, end - first, word * 4, (end_word - word) * 4};
}

static void slabs_awq(const struct quant_tensors *tensors, const struct quant_extent *extent,
                      struct quant_slab *codes, struct quant_slab *scales, struct quant_slab *zeros)
{
    slabs_of_groups(tensors, extent, scales, zeros);
    *codes = (struct quant_slab){NULL, extent->first_in, extent->n_in, zeros->first_byte, zeros->row_bytes};
}

static void slabs_gptq(const struct quant_tensors *tensors, const struct quant_extent *extent,
                       struct quant_slab *codes, struct quant_slab *scales, struct quant_slab *zeros)
{
    slabs_of_groups(tensors, extent, scales, zeros);
    uint64_t in_word = codes_a_word(tensors), first = extent->first_in / in_word;
    uint64_t end = (extent->first_in + extent->n_in - 1) / in_word + 1;
    *codes = (struct quant_slab){NULL, first, end - first, extent->first_out * 4, extent->n_out * 4};
}

/* Bits by which output o is shifted in its word: nibble i holds output {0, 2, 4, 6, 1, 3, 5, 7}[i]. */
static uint32_t awq_shift(uint64_t o)
{
    static const uint8_t nibbles[8] = {0, 4, 1, 5, 2, 6, 3, 7};
    return 4u * nibbles[o % 8];
}

/* A word has eight outputs: it is read once for those of them that are wanted. */
static err_t read_codes_awq(const struct quant_tensors *tensors, uint64_t row, size_t n_rows, uint64_t first,
                            size_t n, const struct quant_row *out)
{
    const struct quant_slab *slab = &tensors->code_slab;
    for (size_t done = 0, now; done < n_rows; done += now) {
        uint64_t from = (row + done) % 8;
        now = n_rows - done < 8 - from ? n_rows - done : (size_t)(8 - from);
        const uint8_t *at = slab_column(slab, first, n, (row + done) / 8, sizeof(uint32_t));
        uint32_t shifts[8];
        int8_t *codes[8];
        for (size_t i = 0; i < now; i++) {
            shifts[i] = awq_shift(from + i);
            codes[i] = out[done + i].codes;
        }
        for (size_t k = 0; k < n; k++, at += slab->row_bytes) {
            uint32_t word = word_at(at);
            for (size_t i = 0; i < now; i++)
                codes[i][k] = (int8_t)(word >> shifts[i] & 15);
        }
    }
    return err_ok();
}

static err_t read_groups_awq(const struct quant_tensors *tensors, uint64_t row, uint64_t first, size_t n,
                             struct quant_row *out)
{
    const struct quant_slab *slab = &tensors->zero_slab;
    const uint8_t *at = slab_column(slab, first, n, row / 8, sizeof(uint32_t));
    read_scales(tensors, row, first, n, out->scales);
    for (size_t g = 0; g < n; g++)
        out->zeros[g] = (int16_t)(word_at(at + g * slab->row_bytes) >> awq_shift(row) & 15);
    return err_ok();
}

/* What a stored code is less, for it to be as quant_row has it. */
static int gptq_bias(const struct quant_format *format)
{
    return format->bits == 8 || format->offset == QUANT_SYMMETRIC ? 1 << (format->bits - 1) : 0;
}

/* Codes [first, first + n) of word `word` of a row's column to out. */
static void take_word(uint32_t word, uint32_t bits, int less, size_t first, size_t n, int8_t *out)
{
    uint32_t mask = (1u << bits) - 1;
    if (bits == 4 && n == 8) {
        quant_unpack_nibbles(word, less, out);
        return;
    }
    for (size_t i = 0; i < n; i++)
        out[i] = (int8_t)((int)(word >> (first + i) * bits & mask) - less);
}

/* Words of neighbouring outputs stand side by side: the rows take them one after the other. */
static err_t read_codes_gptq(const struct quant_tensors *tensors, uint64_t row, size_t n_rows, uint64_t first,
                             size_t n, const struct quant_row *out)
{
    uint32_t in_word = codes_a_word(tensors), bits = tensors->format.bits;
    const struct quant_slab *slab = &tensors->code_slab;
    uint64_t first_word = first / in_word, n_words = (first + n - 1) / in_word + 1 - first_word;
    const uint8_t *at = slab_column(slab, first_word, n_words, row, sizeof(uint32_t));
    ASSERT(slab_column(slab, first_word, n_words, row + n_rows - 1, sizeof(uint32_t)) != NULL);
    int less = gptq_bias(&tensors->format);
    for (size_t k = 0, now; k < n; k += now, at += slab->row_bytes) {
        size_t in = (size_t)((first + k) % in_word);
        now = n - k < in_word - in ? n - k : in_word - in;
        for (size_t r = 0; r < n_rows; r++)
            take_word(word_at(at + r * sizeof(uint32_t)), bits, less, in, now, out[r].codes + k);
    }
    return err_ok();
}

/* Symmetric: zeros are all half the range, or all one less, whatever the version says of itself. */
static err_t check_symmetric(const struct quant_tensors *tensors, int stored, bool *less_one)
{
    int half = 1 << (tensors->format.bits - 1);
    *less_one = stored == half - 1;
    if (stored == half || *less_one)
        return err_ok();
    char text[160];
    snprintf(text, sizeof text,
             "holds a zero point of %d where \"sym\" of config.json makes all %d or all %d", stored, half - 1,
             half);
    return quant_wrong_tensor(tensors, tensors->zeros, text);
}

static err_t read_groups_gptq(const struct quant_tensors *tensors, uint64_t row, uint64_t first, size_t n,
                              struct quant_row *out)
{
    uint32_t in_word = codes_a_word(tensors), bits = tensors->format.bits, mask = (1u << bits) - 1;
    const struct quant_slab *slab = &tensors->zero_slab;
    const uint8_t *at = slab_column(slab, first, n, row / in_word, sizeof(uint32_t));
    bool symmetric = tensors->format.offset == QUANT_SYMMETRIC, less_one = false, before = false;
    read_scales(tensors, row, first, n, out->scales);
    for (size_t g = 0; g < n; g++) {
        int stored = (int)(word_at(at + g * slab->row_bytes) >> row % in_word * bits & mask);
        if (symmetric) {
            TRY(check_symmetric(tensors, stored, &less_one));
            if (g > 0 && less_one != before)
                return quant_wrong_tensor(tensors, tensors->zeros, "mixes two kinds of zero points");
            before = less_one;
            continue;
        }
        /* 0 was stored as -1, which is all ones. */
        int zero = tensors->config->zeros_less_one ? (stored + 1) & (int)mask : stored;
        out->zeros[g] = (int16_t)(zero - gptq_bias(&tensors->format));
    }
    return err_ok();
}

const struct quant_storage_ops quant_storage_awq = {bind_awq, slabs_awq, read_codes_awq, read_groups_awq};
const struct quant_storage_ops quant_storage_gptq = {bind_gptq, slabs_gptq, read_codes_gptq,
                                                     read_groups_gptq};
