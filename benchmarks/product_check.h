/* A library's product against our own kernel on one shape of a linear layer, as the backend launches both:
 * whether every row has the same bits, and both times. What is equal at every number of rows may go into
 * kernels/cuda/product_table.c. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "kernels/kernels.h"

enum { PRODUCT_CHECK_STEPS_MAX = 100 };

struct product_check_options {
    const char *device; /* "cuda", "cuda:N" */
    int n_threads;      /* 0 = one per usable CPU */
    enum weight_format weights;
    size_t n_out, n_in;
    uint32_t timed_steps; /* 0: each product once, and not warm: the bits count and the times say nothing */
};

struct product_check_result {
    uint32_t n_differing;     /* rows that are not bit-equal */
    uint32_t first_differing; /* with n_differing > 0 */
    /* The greatest difference of a value, relative to the greatest magnitude of its row. */
    double worst_error;
    double ours_us, library_us;
};

/* What was asked, for messages and for a line of the table. */
struct product_check_card {
    char name[96];
    uint32_t library_version;
};

/* Beyond it the two are not one product with other roundings. Both are rounded to 8 bits of fraction, and fp8
 * sums may be kept with 14 bits while they are added. */
#define PRODUCT_CHECK_ERROR_MAX 0.05

/* One result for each of rows[0..n_rows), ascending. Random weights and rows. ERR_UNAVAILABLE without a GPU
 * or the library; ERR_UNIMPLEMENTED where the library does not serve the shape: nothing was compared then. */
err_t product_check_run(const struct product_check_options *options, const uint32_t *rows, size_t n_rows,
                        struct product_check_card *card, struct product_check_result *results) ERR_MUST_CHECK;
