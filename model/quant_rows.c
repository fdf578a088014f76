/* compressed-tensors and FP8: a row of the matrix is a row of the tensors. */
#include <stdio.h>
#include <string.h>
#include "base/assert.h"
#include "model/quant_storage.h"

enum { CHUNK_WORDS = 1024 };

/* ---- Packed into int32 ---- */

static uint32_t codes_a_word(const struct quant_tensors *tensors)
{
    return 32 / tensors->format.bits;
}

/* "weight_shape" says again what the matrix is. */
static err_t check_weight_shape(struct quant_tensors *tensors, const struct quant_binder *binder)
{
    char name[160];
    snprintf(name, sizeof name, "%s.weight_shape", binder->module);
    const struct checkpoint_tensor *tensor = checkpoint_find(tensors->checkpoint, name);
    if (!tensor)
        return err_ok();
    const struct tensor_info *info = tensor->info;
    int64_t shape[2];
    if ((info->dtype != TENSOR_I64 && info->dtype != TENSOR_I32) || info->n_dims != 1 || info->shape[0] != 2)
        return quant_wrong_tensor(tensors, tensor, "must be two integers");
    if (info->dtype == TENSOR_I64) {
        TRY(checkpoint_read_bytes(tensors->checkpoint, tensor, 0, sizeof shape, shape));
    } else {
        int32_t narrow[2];
        TRY(checkpoint_read_bytes(tensors->checkpoint, tensor, 0, sizeof narrow, narrow));
        shape[0] = narrow[0], shape[1] = narrow[1];
    }
    if (shape[0] == (int64_t)tensors->n_out && shape[1] == (int64_t)tensors->n_in)
        return err_ok();
    char text[160];
    snprintf(text, sizeof text, "says [%lld, %lld], config.json makes the matrix [%llu, %llu]",
             (long long)shape[0], (long long)shape[1], (unsigned long long)tensors->n_out,
             (unsigned long long)tensors->n_in);
    return quant_wrong_tensor(tensors, tensor, text);
}

static err_t bind_packed(struct quant_tensors *t, const struct quant_binder *binder)
{
    uint64_t in_word = codes_a_word(t);
    TRY(quant_find(t, binder, ".weight_packed", QUANT_DTYPE_INTEGER, t->n_out,
                   (t->n_in + in_word - 1) / in_word, &t->codes));
    TRY(quant_find(t, binder, ".weight_scale", QUANT_DTYPE_FLOAT, t->n_out, t->n_groups, &t->scales));
    if (t->format.offset == QUANT_ZERO_POINT)
        TRY(quant_find(t, binder, ".weight_zero_point", QUANT_DTYPE_INTEGER,
                       (t->n_out + in_word - 1) / in_word, t->n_groups, &t->zeros));
    return check_weight_shape(t, binder);
}

/* Codes are stored with half the range added. */
static int packed_bias(const struct quant_format *format)
{
    return format->bits == 8 || format->offset == QUANT_SYMMETRIC ? 1 << (format->bits - 1) : 0;
}

static err_t read_row_packed(const struct quant_tensors *tensors, uint64_t row, uint64_t first, size_t n,
                             int8_t *codes)
{
    uint32_t in_word = codes_a_word(tensors), bits = tensors->format.bits, mask = (1u << bits) - 1;
    int bias = packed_bias(&tensors->format);
    uint64_t row_words = (tensors->n_in + in_word - 1) / in_word;
    uint32_t words[CHUNK_WORDS];
    uint64_t first_word = 0, n_words = 0;
    for (size_t k = 0; k < n; k++) {
        uint64_t word = (first + k) / in_word;
        if (k == 0 || word >= first_word + n_words) {
            uint64_t left = (first + n - 1) / in_word + 1 - word;
            first_word = word;
            n_words = left < CHUNK_WORDS ? left : CHUNK_WORDS;
            TRY(checkpoint_read_bytes(tensors->checkpoint, tensors->codes, (row * row_words + word) * 4,
                                      (size_t)n_words * 4, words));
        }
        if (bits == 4 && (first + k) % in_word == 0 && n - k >= in_word) {
            quant_unpack_nibbles(words[word - first_word], bias, codes + k);
            k += in_word - 1;
            continue;
        }
        codes[k] = (int8_t)((int)(words[word - first_word] >> (first + k) % in_word * bits & mask) - bias);
    }
    return err_ok();
}

static err_t read_codes_packed(const struct quant_tensors *tensors, uint64_t row, size_t n_rows,
                               uint64_t first, size_t n, const struct quant_row *out)
{
    for (size_t i = 0; i < n_rows; i++)
        TRY(read_row_packed(tensors, row + i, first, n, out[i].codes));
    return err_ok();
}

static err_t read_groups_packed(const struct quant_tensors *tensors, uint64_t row, uint64_t first, size_t n,
                                struct quant_row *out)
{
    TRY(checkpoint_read_f32(tensors->checkpoint, tensors->scales, row * tensors->n_groups + first, n,
                            out->scales));
    if (!tensors->zeros)
        return err_ok();
    uint32_t in_word = codes_a_word(tensors), bits = tensors->format.bits, mask = (1u << bits) - 1;
    uint32_t words[CHUNK_WORDS];
    for (size_t done = 0; done < n;) {
        size_t now = n - done < CHUNK_WORDS ? n - done : CHUNK_WORDS;
        TRY(checkpoint_read_bytes(tensors->checkpoint, tensors->zeros,
                                  (row / in_word * tensors->n_groups + first + done) * 4, now * 4, words));
        for (size_t g = 0; g < now; g++)
            out->zeros[done + g] =
                (int16_t)((int)(words[g] >> row % in_word * bits & mask) - packed_bias(&tensors->format));
        done += now;
    }
    return err_ok();
}

/* ---- A byte a code ---- */

static err_t find_codes(struct quant_tensors *t, const struct quant_binder *binder)
{
    char name[160], text[200], got[96];
    snprintf(name, sizeof name, "%s.weight", binder->module);
    t->codes = checkpoint_find(t->checkpoint, name);
    if (!t->codes)
        return err_new(ERR_NOT_FOUND, "%s: tensor \"%s\" is missing from the checkpoint", binder->directory,
                       name);
    const struct tensor_info *info = t->codes->info;
    enum tensor_dtype wanted = t->format.code == QUANT_CODE_E4M3 ? TENSOR_F8_E4M3 : TENSOR_I8;
    if (info->n_dims != 2 || info->shape[0] != t->n_out || info->shape[1] != t->n_in) {
        snprintf(text, sizeof text, "has shape %s, config.json makes it [%llu, %llu]",
                 tensor_shape_text(info->shape, info->n_dims, got, sizeof got), (unsigned long long)t->n_out,
                 (unsigned long long)t->n_in);
        return quant_wrong_tensor(t, t->codes, text);
    }
    if (info->dtype == wanted)
        return err_ok();
    snprintf(text, sizeof text, "has dtype %s, \"quantization_config\" of config.json makes it %s",
             tensor_dtype_name(info->dtype), tensor_dtype_name(wanted));
    return quant_wrong_tensor(t, t->codes, text);
}

static err_t bind_bytes(struct quant_tensors *t, const struct quant_binder *binder)
{
    TRY(find_codes(t, binder));
    uint64_t block = t->config->block_outputs;
    /* compressed-tensors calls the scales of blocks as it calls all others. */
    bool is_compressed = strcmp(t->config->method, "compressed-tensors") == 0;
    if (block > 0)
        return quant_find(t, binder, is_compressed ? ".weight_scale" : ".weight_scale_inv", QUANT_DTYPE_FLOAT,
                          (t->n_out + block - 1) / block, t->n_groups, &t->scales);
    char name[160];
    snprintf(name, sizeof name, "%s.weight_scale", binder->module);
    const struct checkpoint_tensor *scales = checkpoint_find(t->checkpoint, name);
    bool is_scalar =
        scales && (scales->info->n_dims == 0 || (scales->info->n_dims == 1 && scales->info->shape[0] == 1));
    uint64_t columns = scales && scales->info->n_dims == 1 ? 0 : 1;
    t->scale_is_whole = is_scalar;
    /* A static scale of the rows: not needed where every row has its own. */
    snprintf(name, sizeof name, "%s.input_scale", binder->module);
    (void)checkpoint_find(t->checkpoint, name);
    if (!is_scalar)
        return quant_find(t, binder, ".weight_scale", QUANT_DTYPE_FLOAT, t->n_out, columns, &t->scales);
    t->scales = scales;
    bool is_float = scales->info->dtype == TENSOR_F32 || scales->info->dtype == TENSOR_F16 ||
                    scales->info->dtype == TENSOR_BF16;
    return is_float ? err_ok() : quant_wrong_tensor(t, scales, "must be F32, F16 or BF16");
}

static err_t read_codes_bytes(const struct quant_tensors *tensors, uint64_t row, size_t n_rows,
                              uint64_t first, size_t n, const struct quant_row *out)
{
    for (size_t i = 0; i < n_rows; i++)
        TRY(checkpoint_read_bytes(tensors->checkpoint, tensors->codes, (row + i) * tensors->n_in + first, n,
                                  out[i].codes));
    return err_ok();
}

static err_t read_groups_bytes(const struct quant_tensors *tensors, uint64_t row, uint64_t first, size_t n,
                               struct quant_row *out)
{
    uint64_t block = tensors->config->block_outputs;
    uint64_t scale_row = block > 0 ? row / block : tensors->scale_is_whole ? 0 : row;
    return checkpoint_read_f32(tensors->checkpoint, tensors->scales, scale_row * tensors->n_groups + first, n,
                               out->scales);
}

const struct quant_storage_ops quant_storage_packed = {bind_packed, NULL, read_codes_packed,
                                                       read_groups_packed};
const struct quant_storage_ops quant_storage_bytes = {bind_bytes, NULL, read_codes_bytes, read_groups_bytes};
