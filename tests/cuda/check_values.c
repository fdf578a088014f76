/* What the checks put on a device and read back: steps, and values of several types. */
#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "base/float16.h"
#include "tests/cuda/check_cuda.h"

/* ---- A step ---- */

struct cuda_step *step_upload(const struct check_step *step, struct step_result *results)
{
    struct cuda_step on_device = {
        .n_rows = step->n_rows,
        .n_seqs = step->n_seqs,
        .n_outputs = step->n_outputs,
        .n_copies = step->n_copies,
        .blocks_per_seq = step->blocks_per_seq,
        .rows = device_upload(step->rows, step->n_rows * sizeof step->rows[0]),
        .seqs = device_upload(step->seqs, step->n_seqs * sizeof step->seqs[0]),
        .outputs = device_upload(step->outputs, step->n_outputs * sizeof step->outputs[0]),
        .copies = device_upload(step->copies, step->n_copies * sizeof step->copies[0]),
        .results = results,
    };
    on_device.block_tables[0] = device_upload(step->block_table, (size_t)step->n_seqs * step->blocks_per_seq *
                                                                     sizeof step->block_table[0]);
    return device_upload(&on_device, sizeof on_device);
}

struct cuda_step *step_upload_rows(uint32_t n_rows)
{
    struct step_row rows[CHECK_ROWS_MAX] = {{0}};
    ASSERT(n_rows <= CHECK_ROWS_MAX);
    return step_upload(&(struct check_step){.rows = rows, .n_rows = n_rows}, NULL);
}

/* ---- Values ---- */

size_t check_type_bytes(enum check_type type)
{
    return type == CHECK_F32 ? 4 : type == CHECK_BF16 ? 2 : 1;
}

void values_round(enum check_type type, float *values, size_t n)
{
    for (size_t i = 0; type == CHECK_BF16 && i < n; i++)
        values[i] = bf16_to_f32(bf16_from_f32(values[i]));
}

void values_store(enum check_type type, const float *values, size_t n, void *out)
{
    ASSERT(type != CHECK_BYTES);
    if (type == CHECK_F32)
        memcpy(out, values, n * sizeof(float));
    for (size_t i = 0; type == CHECK_BF16 && i < n; i++)
        ((uint16_t *)out)[i] = bf16_from_f32(values[i]);
}

void values_load(enum check_type type, const void *in, size_t n, float *out)
{
    ASSERT(type != CHECK_BYTES);
    if (type == CHECK_F32)
        memcpy(out, in, n * sizeof(float));
    for (size_t i = 0; type == CHECK_BF16 && i < n; i++)
        out[i] = bf16_to_f32(((const uint16_t *)in)[i]);
}

void *device_upload_rows(enum check_type type, const float *values, size_t n, size_t width, size_t stride)
{
    size_t element = check_type_bytes(type);
    uint8_t *rows = mem_alloc(n * stride * element + 1);
    ASSERT(rows != NULL && stride >= width);
    memset(rows, 0xff, n * stride * element);
    for (size_t r = 0; r < n; r++)
        values_store(type, values + r * width, width, rows + r * stride * element);
    void *on_device = device_upload(rows, n * stride * element);
    device_is_late(on_device);
    mem_free(rows);
    return on_device;
}

void device_read_rows(const void *from, size_t n, size_t row_bytes, size_t stride_bytes, void *out)
{
    for (size_t r = 0; r < n; r++)
        device_read((uint8_t *)out + r * row_bytes, (const uint8_t *)from + r * stride_bytes, row_bytes);
}

static float e4m3_values[256];

__attribute__((constructor)) static void make_e4m3_values(void)
{
    for (uint32_t code = 0; code < 256; code++) {
        int exponent = (int)(code >> 3 & 15u), mantissa = (int)(code & 7u);
        float magnitude =
            exponent == 0 ? ldexpf((float)mantissa, -9) : ldexpf((float)(8 + mantissa), exponent - 10);
        magnitude = exponent == 15 && mantissa == 7 ? NAN : magnitude;
        e4m3_values[code] = code & 0x80 ? -magnitude : magnitude;
    }
}

float e4m3_to_f32(uint8_t code)
{
    return e4m3_values[code];
}

uint8_t e4m3_from_f32(float value)
{
    if (isnan(value))
        return 0x7f;
    uint8_t best = 0, sign = signbit(value) ? 0x80 : 0, high = 0x7e;
    float magnitude = fabsf(value);
    while (best < high) { /* the last code that is not greater */
        uint8_t middle = (uint8_t)((best + high + 1) / 2);
        if (e4m3_to_f32(middle) <= magnitude)
            best = middle;
        else
            high = middle - 1;
    }
    float below = magnitude - e4m3_to_f32(best),
          above = best < 0x7e ? e4m3_to_f32(best + 1) - magnitude : INFINITY;
    if (above < below || (above == below && best % 2 == 1))
        best++;
    return sign | best;
}
