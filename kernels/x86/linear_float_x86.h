/* Linear kernels of the float formats; see rows_x86.h for how it is included, with HALVES (of a panel that
 * one tile covers) and FLOAT_ROWS_MAX (of a tile) defined. A tile keeps its sums in registers over all
 * inputs. */
#include "kernels/kernel_table.h"
#include "kernels/x86/linear_store_x86.h"

static inline __attribute__((always_inline)) vf load_weights(const void *panel, size_t index,
                                                             enum weight_format format)
{
    if (format == WEIGHT_F32)
        return vf_load((const float *)panel + index);
    if (format == WEIGHT_BF16)
        return vf_load_bf16((const uint16_t *)panel + index);
    return vf_load_f16((const uint16_t *)panel + index);
}

/* ROWS rows by N_HALVES halves of the panel. */
static inline __attribute__((always_inline)) void float_tile(const struct linear_args *a, size_t row,
                                                             const int ROWS, size_t first_half,
                                                             const int N_HALVES, enum weight_format format)
{
    vf sums[FLOAT_ROWS_MAX][2];
    const float *x = a->x + row * a->x_stride;
    const size_t k_bytes = PANEL_OUTPUTS * float_format_bytes(format);
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++) {
#pragma GCC unroll 2
        for (int h = 0; h < N_HALVES; h++)
            sums[r][h] = vf_zero();
    }
    for (size_t k = 0; k < a->n_in; k++) {
        vf w[2];
        prefetch_weights((const uint8_t *)a->panel + k * k_bytes, k_bytes);
#pragma GCC unroll 2
        for (int h = 0; h < N_HALVES; h++)
            w[h] =
                load_weights(a->panel, k * PANEL_OUTPUTS + (first_half + (size_t)h) * HALF_OUTPUTS, format);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++) {
            vf value = vf_set1(x[(size_t)r * a->x_stride + k]);
#pragma GCC unroll 2
            for (int h = 0; h < N_HALVES; h++)
                sums[r][h] = vf_fma(w[h], value, sums[r][h]);
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; r++)
        store_outputs(a, row + (size_t)r, first_half, N_HALVES, sums[r]);
}

static inline __attribute__((always_inline)) void linear_float(const struct linear_args *a,
                                                               enum weight_format format)
{
    size_t row = 0;
    for (size_t left = a->n_rows; left > 0; left = a->n_rows - row) {
        if (left == 1) { /* one pass over the panel, whatever the width of the registers */
            float_tile(a, row, 1, 0, 2, format);
            row += 1;
            continue;
        }
        size_t rows = left >= FLOAT_ROWS_MAX ? FLOAT_ROWS_MAX : left >= 4 ? 4 : 2;
        for (size_t half = 0; half < 2; half += HALVES) {
            if (rows == FLOAT_ROWS_MAX)
                float_tile(a, row, FLOAT_ROWS_MAX, half, HALVES, format);
            else if (rows == 4)
                float_tile(a, row, 4, half, HALVES, format);
            else
                float_tile(a, row, 2, half, HALVES, format);
        }
        row += rows;
    }
}

void KERNEL(linear_f32)(const struct linear_args *a)
{
    linear_float(a, WEIGHT_F32);
}

void KERNEL(linear_bf16)(const struct linear_args *a)
{
    linear_float(a, WEIGHT_BF16);
}

void KERNEL(linear_f16)(const struct linear_args *a)
{
    linear_float(a, WEIGHT_F16);
}
