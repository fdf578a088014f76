/* Packed weights back to plain rows, byte for byte. A case's rows are the weight's outputs. */
#include <stdio.h>
#include <string.h>
#include "kernels/cuda/linear_pack.h"
#include "tests/cuda/check_cuda.h"

struct unpack_case {
    uint32_t n_in, row_bytes;
    uint8_t *codes; /* [outputs][n_in] */
};

static void unpack_make(struct cuda_case *c)
{
    struct unpack_case *e = c->context = check_alloc(c, sizeof *e);
    e->n_in = 16 * rng_between(&c->rng, 1, 40);
    e->row_bytes = e->n_in + 16 * rng_below(&c->rng, 2);
    e->codes = check_alloc(c, (size_t)c->n_rows * e->n_in);
    for (size_t i = 0; i < (size_t)c->n_rows * e->n_in; i++)
        e->codes[i] = (uint8_t)rng_below(&c->rng, 256);
    c->type = CHECK_BYTES;
    c->row_values = e->n_in;
    snprintf(c->note, sizeof c->note, "%u inputs, %u bytes a row", e->n_in, e->row_bytes);
}

static void unpack_reference(const struct cuda_case *c, uint32_t row, void *out, float *scale)
{
    const struct unpack_case *e = c->context;
    (void)scale;
    memcpy(out, e->codes + (size_t)row * e->n_in, e->n_in);
}

static void unpack_run(struct cuda_case *c, uint32_t first, uint32_t n, void *out)
{
    const struct unpack_case *e = c->context;
    struct linear_packed packed;
    linear_packed_describe_e4m3(n, e->n_in, 90, &packed);
    packed.codes = check_alloc(c, linear_packed_codes_bytes(&packed));
    for (uint32_t o = 0; o < n; o++)
        linear_pack_codes(&packed, o, e->codes + (size_t)(first + o) * e->n_in);
    struct unpack_weight_args args = {
        .codes = device_upload(packed.codes, linear_packed_codes_bytes(&packed)),
        .rows = device_alloc((size_t)n * e->row_bytes),
        .n_out = n,
        .n_in = e->n_in,
        .row_bytes = e->row_bytes,
    };
    LAUNCH(c, c->kernel, linear_blocks(LINEAR_E4M3_WGMMA, e->n_in), linear_panels(n), UNPACK_THREADS, args);
    device_read_rows(args.rows, n, e->n_in, e->row_bytes, out);
}

const struct cuda_check check_unpack_weight = {unpack_make, unpack_reference, unpack_run};
