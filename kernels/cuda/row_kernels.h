/* The kernels that treat rows one by one, and simple forms of attention and of linear layers that take any
 * shape. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/host_device.h"
#include "kernels/cuda/cuda_kv.h"
#include "kernels/cuda/cuda_matrix.h"
#include "kernels/cuda/cuda_slot.h"
#include "kernels/cuda/cuda_step.h"

/* One layer's KV as kernels see it. */
struct cuda_kv_cache {
    uint8_t *blocks; /* cuda_kv.h */
    uint32_t n_blocks, n_kv_heads, head_dim;
    uint32_t group;         /* of the step's block tables */
    uint32_t element_bytes; /* f32 4, bf16 2, e4m3 1 */
    float k_scale, v_scale; /* e4m3: what a code of 1 stands for */
};

/* A suffix _f32 or _bf16 is the type of the activations (ACT_HIDDEN); the residual and the logits are f32. */
#define CUDA_ROW_KERNELS(K)                                                                                  \
    K(embed, struct embed_args, "rows of the embedding table, any format, to the residual")                  \
    K(add_norm_f32, struct add_norm_args, "residual += f32, RMS norm to f32")                                \
    K(add_norm_bf16, struct add_norm_args, "residual += bf16, RMS norm to bf16")                             \
    K(add_norm_s8, struct add_norm_args, "residual += bf16, RMS norm to bf16 and int8 rows")                 \
    K(add_norm_e4m3, struct add_norm_args, "residual += bf16, RMS norm to bf16 and e4m3 rows")               \
    K(rope_kv_write_f32, struct rope_kv_write_args, "q/k norm, rope, KV write; f32 activations")             \
    K(rope_kv_write_bf16, struct rope_kv_write_args, "q/k norm, rope, KV write; bf16 activations")           \
    K(kv_copy, struct kv_copy_args, "copies of whole KV blocks")                                             \
    K(attention_simple_f32, struct attention_simple_args, "paged attention, any shape; f32 activations")     \
    K(attention_simple_bf16, struct attention_simple_args, "paged attention, any shape; bf16 activations")   \
    K(activation_mul_f32, struct activation_mul_args, "activation(gate) * up, f32")                          \
    K(activation_mul_bf16, struct activation_mul_args, "activation(gate) * up, bf16")                        \
    K(activation_mul_s8, struct activation_mul_args, "activation(gate) * up, bf16, and int8 rows")           \
    K(activation_mul_e4m3, struct activation_mul_args, "activation(gate) * up, bf16, and e4m3 rows")         \
    K(gather_outputs, struct gather_outputs_args, "rows of the step's outputs, side by side")                \
    K(soft_cap_f32, struct soft_cap_args, "cap * tanh(logit / cap)")                                         \
    K(linear_simple_f32, struct linear_simple_args, "any weight by f32 rows to f32, FMA chains over k")      \
    K(linear_simple_bf16, struct linear_simple_args, "any weight by bf16 rows to bf16, FMA chains over k")   \
    K(linear_simple_bf16_f32, struct linear_simple_args, "any weight by bf16 rows to f32, FMA chains over k")

/* out[r] = table[token of row r - first_token] * scale; zeros where another rank has the token. Grid (rows),
 * EMBED_THREADS. */
enum { EMBED_THREADS = 128 };
struct embed_args {
    const struct cuda_step *step;
    struct cuda_slots slots; /* tokens named by slot */
    struct cuda_matrix table;
    uint32_t first_token, one_rank; /* one_rank: every token must be there */
    float scale;
    float *out; /* [rows][out_stride] */
    uint32_t out_stride;
};

/* Where a row goes in 8 bits besides, as quantize_rows would make it of the bf16 row. */
struct quantized_rows {
    uint8_t *q;           /* linear_layout.h */
    float *scale;         /* [rows] */
    uint32_t rows_stride; /* of q */
    uint32_t plain_bytes; /* 0, or q is plain rows, so many bytes apart, for a library's product */
};

/* residual[r] += add[r] (NULL: nothing), or add[r] / rms * add_weight where that is given; out[r] =
 * residual[r] / rms * weight. Grid (rows),
 * add_norm_threads: the order of the sum hangs on n alone. */
struct add_norm_args {
    struct cuda_rows rows;
    float *residual;         /* [rows][residual_stride] */
    const void *add;         /* [rows][add_stride] f32 or bf16, or NULL */
    const float *add_weight; /* [n] or NULL */
    const float *weight;     /* [n] */
    void *out;               /* [rows][out_stride] f32 or bf16; f32: may be the residual */
    uint32_t residual_stride, add_stride, out_stride;
    uint32_t n;
    float eps;
    struct quantized_rows quantized;
};

/* Threads of a row, at most four groups of four elements each: one where rows do not occupy the device, four
 * where they do (is_busy). The bits are the same: up to ADD_NORM_OF_WARPS elements the squares of 128
 * neighbours are summed first, by whatever warp has them. */
enum {
    ADD_NORM_THREADS_MAX = 1024,
    ADD_NORM_WIDTH_MAX = 16384, /* n at most */
    ADD_NORM_OF_WARPS = 4096,
    ADD_NORM_BLOCKS = 2, /* of THREADS_MAX that a multiprocessor holds */
};
HOST_DEVICE static inline bool add_norm_is_of_warps(uint32_t n)
{
    return n <= ADD_NORM_OF_WARPS;
}
static inline uint32_t add_norm_threads(uint32_t n, bool is_busy)
{
    uint32_t of_thread = is_busy ? 16 : 4, threads = (n + 32 * of_thread - 1) / (32 * of_thread) * 32;
    return add_norm_is_of_warps(n) ? threads : (uint32_t)ADD_NORM_THREADS_MAX;
}

/* Heads of q and k: RMS norm where a weight is given, rotation; q goes back in place, k and v into the row's
 * KV block. Grid (rows, rope_blocks), ROPE_THREADS: a warp takes a head or, where rope_is_by_quads, a thread
 * four pairs of one. */
enum { ROPE_WARPS = 4, ROPE_THREADS = 32 * ROPE_WARPS };
struct rope_kv_write_args {
    const struct cuda_step *step;
    void *qkv; /* [rows][qkv_stride]: q [n_heads][head_dim], k [n_kv_heads][..], v [..] */
    uint32_t qkv_stride;
    uint32_t n_heads, n_kv_heads, head_dim;
    const float *q_norm, *k_norm; /* [head_dim] or NULL */
    float eps;
    const float *cosines, *sines; /* [positions][n_freq] */
    uint32_t n_freq;              /* pairs (i, i + n_freq) */
    struct cuda_kv_cache kv;
};

/* Heads are turned whole and not normed; the stride of rows that are bf16 or f32 leaves fours aligned. */
HOST_DEVICE static inline bool rope_is_by_quads(const struct rope_kv_write_args *args)
{
    return args->q_norm == NULL && args->k_norm == NULL && args->n_freq * 2 == args->head_dim &&
           args->head_dim % 8 == 0 && args->qkv_stride % 4 == 0;
}

/* Blocks of a row. */
static inline uint32_t rope_blocks(const struct rope_kv_write_args *args)
{
    uint32_t heads = args->n_heads + 2 * args->n_kv_heads;
    uint32_t threads = rope_is_by_quads(args) ? heads * (args->head_dim / 8) : heads * 32;
    return (threads + ROPE_THREADS - 1) / ROPE_THREADS;
}

/* Blocks of one layer. A thread copies its 16 bytes of one block after the other, so that a block copied may
 * be copied on. Grid (block_bytes / (16 * KV_COPY_THREADS) rounded up), KV_COPY_THREADS. */
enum { KV_COPY_THREADS = 256 };
struct kv_copy_args {
    const struct cuda_step *step;
    void *blocks;
    uint64_t block_bytes; /* a multiple of 16 */
};

/* Causal attention of a row over its sequence's blocks, by splits of CUDA_KV_SPLIT_TOKENS. Grid (rows,
 * n_heads), ATTENTION_SIMPLE_THREADS. */
enum { ATTENTION_SIMPLE_THREADS = 128, ATTENTION_SIMPLE_DIM_MAX = 512 };
struct attention_simple_args {
    const struct cuda_step *step;
    const void *qkv; /* [rows][qkv_stride], as rope_kv_write leaves it */
    void *out;       /* [rows][out_stride]: [n_heads][head_dim] */
    uint32_t qkv_stride, out_stride;
    uint32_t n_heads, n_kv_heads, head_dim;
    float scale;
    uint32_t window; /* 0 = all */
    float soft_cap;  /* 0 = off */
    struct cuda_kv_cache kv;
};

/* A thread takes eight elements of a row. Grid (rows or fewer, width / ACTIVATION_PIECE rounded up),
 * ACTIVATION_THREADS. Quantised: grid (rows, width / (8 * ACTIVATION_WHOLE_THREADS) rounded up),
 * ACTIVATION_WHOLE_THREADS, with arrivals, and out_stride a multiple of 8. Whole rows, quantised: grid
 * (rows), ACTIVATION_WHOLE_THREADS, without; width at most ACTIVATION_WHOLE_WIDTH_MAX, and it and the strides
 * multiples of 8. The bits are the same. */
enum {
    ACTIVATION_PIECE = 1024,
    ACTIVATION_THREADS = ACTIVATION_PIECE / 8,
    ACTIVATION_BLOCKS = 10, /* of a multiprocessor */
    ACTIVATION_WHOLE_THREADS = 512,
    ACTIVATION_WHOLE_WIDTH_MAX = 16384,
};
struct activation_mul_args {
    struct cuda_rows rows;
    const void *gate_up; /* [rows][gate_up_stride]: gate [width], up [width] */
    void *out;           /* [rows][out_stride] */
    uint32_t gate_up_stride, out_stride;
    uint32_t width;
    uint32_t kind; /* enum activation_kind */
    struct quantized_rows quantized;
    uint32_t *arrivals; /* by pieces: [rows], zero; zero again when the kernel ends */
};

/* out[i] = in[row of output rows.first + i]. Grid (rows.max), GATHER_THREADS. Bytes: of a row, a multiple
 * of 2. */
enum { GATHER_THREADS = 128 };
struct gather_outputs_args {
    struct cuda_rows rows; /* CUDA_COUNT_OUTPUTS */
    const void *in;
    void *out;
    uint32_t in_stride_bytes, out_stride_bytes;
    uint32_t row_bytes;
};

/* Grid (rows.max, width / ACTIVATION_PIECE rounded up), ACTIVATION_THREADS. */
struct soft_cap_args {
    struct cuda_rows rows;
    float *x; /* [rows][stride] */
    uint32_t stride, width;
    float cap;
};

/* out[r][o] = sum over k, ascending, of w[o][k] * x[r][k], + bias[o]; a weight is code * scale in f32. Grid
 * (n_out / LINEAR_SIMPLE_OUTPUTS, rows.max / LINEAR_SIMPLE_ROWS, both rounded up), LINEAR_SIMPLE_THREADS. */
enum { LINEAR_SIMPLE_OUTPUTS = 64, LINEAR_SIMPLE_ROWS = 16, LINEAR_SIMPLE_THREADS = 256 };
struct linear_simple_args {
    struct cuda_rows rows;
    struct cuda_matrix weight;
    const void *x; /* [rows][x_stride] */
    void *out;     /* [rows][out_stride] */
    uint32_t x_stride, out_stride;
};
