/* checkkernel: every kernel against its reference, every weight through the real dispatcher, and a bench. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/philox.h"
#include "kernels/cpu_backend.h"

struct check_options {
    uint64_t seed;
    int64_t runs;           /* random shapes a kernel and variant */
    enum isa_level highest; /* of the variants to look at */
    const char *filter;     /* part of a name; "" = everything */
    bool quick;             /* fewer rows and shapes through the dispatcher */
    bool sparse;            /* no more than 67 rows of a case; CUDA: some alone */
};

/* Whether --filter lets this name through. */
bool check_selected(const struct check_options *options, const char *name);

/* ---- Memory whose neighbourhood is watched (check_memory.c) ---- */

/* Ends at an inaccessible page, so that reading or writing past the end is a fault; the bytes before it are
 * canaries. */
struct guarded {
    uint8_t *data; /* [size_bytes] zeroed; aligned to 64 when the size is a multiple of 64 */
    size_t size_bytes;
    uint8_t *mapping;
    size_t mapping_bytes;
};
struct guarded guarded_alloc(size_t size_bytes);
/* Whether the canaries are as they were. */
bool guarded_intact(const struct guarded *memory);
void guarded_free(struct guarded *memory);

/* Random floats: normal, times 2^-8..2^8, with some zeros. */
void fill_normal(struct rng *rng, float *values, size_t n);
uint32_t rng_between(struct rng *rng, uint32_t low, uint32_t high); /* both inclusive */

/* ---- The parts ---- */

typedef void generic_fn(void);
struct variant {
    enum kernel_id kernel;
    enum isa_level isa;
    const char *suffix;
    generic_fn *fn;
};
extern const struct variant variants[];
extern const size_t n_variants;
generic_fn *reference_of(enum kernel_id id);

/* Number of failures. */
int check_variants(const struct check_options *options);
int check_dispatch(const struct check_options *options);
int bench_kernels(const struct check_options *options, int n_threads);
/* The machine's products of 8 bits alone, in a second: what shares of it are of. */
int bench_products(const struct check_options *options, int n_threads);

/* One random case of a kernel: true when both functions leave the same bits. failure: why not. */
enum { FAILURE_MAX = 256 };
typedef bool check_fn(enum kernel_id id, generic_fn *reference, generic_fn *variant, struct rng *rng,
                      char failure[FAILURE_MAX]);
check_fn check_linear_fn, check_quantize_row_fn, check_quantize_kv_fn, check_quantize_group_fn,
    check_norm_row_fn, check_rope_head_fn, check_activation_row_fn, check_soft_cap_row_fn, check_attention_fn,
    check_attention_merge_fn, check_logits_stats_fn, check_exp_sum_fn, check_exp_row_fn, check_count_above_fn,
    check_select_from_fn, check_temper_fn, check_gumbel_argmax_fn, check_tile_fn, check_round_row_fn,
    check_quantize_wide_fn;
/* Fills a panel of codes; scales and zero points as a checkpoint may have them. */
void fill_quantized_panel(struct rng *rng, enum weight_format format, struct guarded *panel, size_t group);
/* Compares outputs and canaries. */
bool compare_outputs(const struct guarded *expected, const struct guarded *got, const char *what,
                     char failure[FAILURE_MAX]);
