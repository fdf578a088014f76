/* What the files of `checkkernel --bench` share. Every row is data that come from memory: rotated through
 * more bytes than a cache holds. */
#pragma once

#include "tests/kernels/bench_ceilings.h"
#include "tests/kernels/checkkernel.h"

struct bench {
    const struct check_options *options;
    struct backend *backend;
    const struct backend_vtable *ops;
    enum isa_level isa;
    size_t bytes; /* that the data of a row are rotated through */
    struct ceilings ceilings;
    bool has_row[KERNEL_COUNT];
    bool lacks_products; /* attention by tiles does (bench_expand.h) */
};

/* Of --quick, which asks whether everything runs and is there, the smaller one. */
static inline uint32_t bench_size(const struct bench *bench, uint32_t whole, uint32_t quick)
{
    return bench->options->quick ? quick : whole;
}

/* What a call must do at least. */
struct bench_cost {
    double read_bytes, written_bytes; /* from and to memory */
    double ops;                       /* 0 = not counted */
    double peak_gop_s;                /* 1e9 operations a second at most; 0 = not known */
};

/* One timed call; what it does per call is the caller's business. */
typedef void bench_fn(void *context);

/* Times calls and prints a row. Memory's least time is the bytes that are written at the rate of a copy, with
 * as many that are read, and what else is read at the rate of reading; that of arithmetic the operations at
 * their peak. The larger one is the bound. */
void bench_measure(const struct bench *bench, const char *name, bench_fn *fn, void *context,
                   struct bench_cost cost);
/* Measures the ceilings anew, for the rows that follow. */
void bench_measure_ceilings(struct bench *bench);
/* Of the kernel with this name there is a row now. */
void bench_covers(struct bench *bench, const char *kernel);
/* Values of about -2 to 2, in no order. out: [n] */
void bench_noise(uint32_t seed, size_t n, float *out);
double bench_seconds(void);

/* bench_attention.c, bench_rows.c, bench_sampling.c */
void bench_attention(struct bench *bench);
void bench_rows(struct bench *bench);
void bench_sampling(struct bench *bench);

/* ---- Kernels by themselves (bench_rows.c): a call takes some pieces on all threads, the next call the next
 * ones ---- */

struct piece_bench;
typedef void piece_fn(const struct piece_bench *b, size_t piece);

struct piece_case {
    const char *kernel; /* as in KERNEL_LIST */
    piece_fn *fn;
    size_t n;             /* elements of a piece */
    size_t written_bytes; /* of a piece; 0 = nothing, or in place */
    bool is_in_place;     /* what was read is written */
    double ops;           /* of an element: additions, multiplications, divisions; a fused one is two */
};

struct piece_bench {
    struct bench *bench;
    const struct kernel_table *table;
    const struct piece_case *what;
    float *in;    /* [n_pieces][n] */
    uint8_t *out; /* [n_pieces][written_bytes] */
    size_t n_pieces, pieces_per_call, next;
};

void bench_piece(struct bench *bench, const struct piece_case *what);
static inline float *piece_in(const struct piece_bench *b, size_t piece)
{
    return b->in + piece * b->what->n;
}
static inline void *piece_out(const struct piece_bench *b, size_t piece)
{
    return b->out + piece * b->what->written_bytes;
}

/* Of exp, tanh and a Gumbel draw in kernels/ref/math_ref.h; of the draw also Philox's integer operations. */
enum { BENCH_EXP_OPS = 21, BENCH_TANH_OPS = 37, BENCH_GUMBEL_OPS = 47 + 20 };
