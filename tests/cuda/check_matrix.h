/* Random packed weights for the checks: cuda_matrix.h's layout, and what it stands for. */
#pragma once

#include "tests/cuda/check_cuda.h"

struct check_matrix {
    enum weight_format format;
    uint32_t n_out, n_in, group, row_bytes;
    uint8_t *codes;
    void *scales; /* or NULL */
    size_t scales_bytes;
    float *bias;   /* [n_out] or NULL */
    float *values; /* [n_out][n_in]: code * scale in f32 */
};

/* n_in: at most max_in, drawn so that it suits the format. */
void matrix_make(struct cuda_case *c, struct check_matrix *matrix, enum weight_format format, uint32_t n_out,
                 uint32_t max_in);
/* To the device, until the run ends. */
struct cuda_matrix matrix_upload(const struct check_matrix *matrix);
