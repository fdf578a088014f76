/* checkkernel's part for CUDA: every kernel of cuda_kernels.h against a plain reference, and each row alone
 * against the same row among others.
 *
 * How to add a kernel: fill a `struct cuda_check` (make a random case, the reference of one row, a run of
 * some rows) and name it in CUDA_CHECKS below. The driver draws shapes, counts launches, and fails when a
 * kernel of the list was never run. */
#pragma once

#include "kernels/cuda/cuda_kernels.h"
#include "tests/kernels/checkkernel.h"

enum { CHECK_ROWS_MAX = 128 };

enum check_type { CHECK_F32, CHECK_BF16, CHECK_BYTES };

/* One case being checked: its random numbers, its memory on the host and on the device. */
struct cuda_case {
    struct rng rng;
    bool quick, sparse;
    bool is_long;   /* each run is */
    uint32_t index; /* of the kernel's cases: some of them have the shapes that are not left to chance */
    enum cuda_kernel_id kernel;
    int variant; /* as in CUDA_CHECKS */
    /* Filled by make: */
    uint32_t n_rows;      /* 1..CHECK_ROWS_MAX, that run can be asked for; make may lower it */
    uint32_t row_values;  /* of a row of the result */
    enum check_type type; /* of them */
    float tolerance;      /* relative to the scale of the row, besides the rounding to type; 0: bit for bit */
    char note[128];       /* the shape, for messages */
    bool refused;         /* the device cannot run it: nothing is compared */
    void *context;        /* the check's own */
    char failure[FAILURE_MAX]; /* "" = none yet */
};

/* What a file fills for a kernel. */
struct cuda_check {
    /* Draws a case for at least c->n_rows rows; memory from check_alloc. */
    void (*make)(struct cuda_case *c);
    /* Row `row` as the reference has it, f32 [row_values] (CHECK_BYTES: bytes); *scale: what the error is
     * relative to, left at 0 = the greatest magnitude in the row. */
    void (*reference)(const struct cuda_case *c, uint32_t row, void *out, float *scale);
    /* Rows [first, first + n) in a step of their own on the device, into out [n][row bytes]. */
    void (*run)(struct cuda_case *c, uint32_t first, uint32_t n, void *out);
};
/* Notes a failure that only run can see; the first one counts. */
void check_fail(struct cuda_case *c, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- Memory and launches: in the emulator (check_device.c), or on a device (check_card.c) ---- */

/* Host memory until the case ends; zeroed. */
void *check_alloc(struct cuda_case *c, size_t bytes);

/* Device memory until the run ends, between canaries; every byte is DEVICE_NOISE. */
enum { DEVICE_NOISE = 0x5a };
void *device_alloc(size_t bytes);
void *device_upload(const void *from, size_t bytes);
/* As if a kernel in front had written what was uploaded: one reads it behind dependencies_wait() alone, as
 * what lies in memory of device_alloc. The finder of races holds kernels to that. */
void device_is_late(const void *at);
void device_write(void *to, const void *from, size_t bytes);
void device_read(void *to, const void *from, size_t bytes);

struct check_launch {
    enum cuda_kernel_id kernel;
    uint32_t grid[3]; /* 0 counts as 1 */
    uint32_t threads, shared_bytes;
    const void *args;
    size_t args_bytes;
    /* Compute capability that the kernel is for: 80 and 0 = any, 86 = none that multiplies e4m3, 89 = mma of
     * e4m3, 90 = wgmma. */
    uint32_t target;
};
/* Runs it, in a random order of blocks and warps that the seed of the case gives. */
void device_launch(struct cuda_case *c, const struct check_launch *launch);
#define LAUNCH(c, id, grid_x_, grid_y_, threads_, args_)                                                     \
    device_launch(c, &(struct check_launch){.kernel = (id),                                                  \
                                            .grid = {(grid_x_), (grid_y_), 1},                               \
                                            .threads = (threads_),                                           \
                                            .args = &(args_),                                                \
                                            .args_bytes = sizeof(args_)})
/* Frees what device_alloc gave; false: a canary is gone. */
bool device_release(void);
uint64_t device_launches(enum cuda_kernel_id kernel);
/* Whether a launch since the last call was left out: the device is not of its target. */
bool device_refused(void);
/* One line: what the kernels run on. */
const char *device_description(void);

/* ---- A step on the device (check_values.c) ---- */

struct check_step {
    struct step_row *rows;
    struct step_seq *seqs;
    struct step_output *outputs;
    struct step_copy *copies;
    uint32_t n_rows, n_seqs, n_outputs, n_copies;
    uint32_t *block_table; /* of group 0: [n_seqs][blocks_per_seq] */
    uint32_t blocks_per_seq;
};
/* results: [n_outputs] on the device, or NULL. */
struct cuda_step *step_upload(const struct check_step *step, struct step_result *results);
/* A step of n rows that belong to no sequence. */
struct cuda_step *step_upload_rows(uint32_t n_rows);

/* ---- Values ---- */

size_t check_type_bytes(enum check_type type);
/* Rounds values to the type in place, and stores them so. */
void values_round(enum check_type type, float *values, size_t n);
void values_store(enum check_type type, const float *values, size_t n, void *out);
void values_load(enum check_type type, const void *in, size_t n, float *out);
/* [n] rows of `width` values to the device, rows `stride` values apart, NaN between them. */
void *device_upload_rows(enum check_type type, const float *values, size_t n, size_t width, size_t stride);
/* [n] rows of `row_bytes` from the device, rows stride_bytes apart. */
void device_read_rows(const void *from, size_t n, size_t row_bytes, size_t stride_bytes, void *out);

float e4m3_to_f32(uint8_t code);
/* Nearest, ties to even, saturated. */
uint8_t e4m3_from_f32(float value);

/* ---- The checks; X(kernel, check, variant) ---- */

/* Variants of check_linear_tile. */
enum linear_check {
    LINEAR_CHECK_BF16,
    LINEAR_CHECK_INT4,
    LINEAR_CHECK_UINT4,
    LINEAR_CHECK_INT8,
    LINEAR_CHECK_INT4_STREAM,
    LINEAR_CHECK_UINT4_STREAM,
    LINEAR_CHECK_INT8_STREAM,
    LINEAR_CHECK_BF16_WGMMA,
    LINEAR_CHECK_INT4_WGMMA,
    LINEAR_CHECK_UINT4_WGMMA,
    LINEAR_CHECK_INT8_WGMMA,
    LINEAR_CHECK_S8,
    LINEAR_CHECK_E4M3,
    LINEAR_CHECK_E4M3_AS_BF16,
    LINEAR_CHECK_E4M3_WGMMA,
};
#define LINEAR_TILE_CHECKS(X, name, variant)                                                                 \
    X(linear_##name##_r8, check_linear_tile, variant)                                                        \
    X(linear_##name##_r16, check_linear_tile, variant)                                                       \
    X(linear_##name##_r32, check_linear_tile, variant)                                                       \
    X(linear_##name##_r64, check_linear_tile, variant)                                                       \
    X(linear_##name##_r128, check_linear_tile, variant)
#define LINEAR_STREAM_CHECKS(X, name, variant)                                                               \
    X(linear_##name##_slab_r8, check_linear_tile, variant)                                                   \
    X(linear_##name##_stream_r16, check_linear_tile, variant)                                                \
    X(linear_##name##_stream_r32, check_linear_tile, variant)
#define LINEAR_RESIDENT_CHECKS(X, name, variant)                                                             \
    X(linear_##name##_resident_r8, check_linear_tile, variant)                                               \
    X(linear_##name##_resident_r16, check_linear_tile, variant)                                              \
    X(linear_##name##_stream_r32, check_linear_tile, variant)
#define LINEAR_WIDE_CHECKS(X, name, variant)                                                                 \
    X(linear_##name##_wgmma_r64, check_linear_tile, variant)                                                 \
    X(linear_##name##_wgmma_r128, check_linear_tile, variant)                                                \
    X(linear_##name##_wgmma_r256, check_linear_tile, variant)

#define CUDA_CHECKS(X)                                                                                       \
    X(embed, check_embed, 0)                                                                                 \
    X(add_norm_f32, check_add_norm, CHECK_F32)                                                               \
    X(add_norm_bf16, check_add_norm, CHECK_BF16)                                                             \
    X(add_norm_s8, check_add_norm, CHECK_BF16)                                                               \
    X(add_norm_e4m3, check_add_norm, CHECK_BF16)                                                             \
    X(rope_kv_write_f32, check_rope_kv_write, CHECK_F32)                                                     \
    X(rope_kv_write_bf16, check_rope_kv_write, CHECK_BF16)                                                   \
    X(kv_copy, check_kv_copy, 0)                                                                             \
    X(attention_simple_f32, check_attention_simple, CHECK_F32)                                               \
    X(attention_simple_bf16, check_attention_simple, CHECK_BF16)                                             \
    X(attention_s8_bf16_d64, check_attention_tile, 0)                                                        \
    X(attention_s8_bf16_d96, check_attention_tile, 0)                                                        \
    X(attention_s8_bf16_d128, check_attention_tile, 0)                                                       \
    X(attention_s8_e4m3_d64, check_attention_tile, 0)                                                        \
    X(attention_s8_e4m3_d96, check_attention_tile, 0)                                                        \
    X(attention_l8_e4m3_d128, check_attention_tile, 0)                                                       \
    X(attention_l8_bf16_d128, check_attention_tile, 0)                                                       \
    X(attention_s8_e4m3_d128, check_attention_tile, 0)                                                       \
    X(attention_m16_bf16_d64, check_attention_tile, 0)                                                       \
    X(attention_m16_bf16_d96, check_attention_tile, 0)                                                       \
    X(attention_m16_bf16_d128, check_attention_tile, 0)                                                      \
    X(attention_m16_bf16_d256, check_attention_tile, 0)                                                      \
    X(attention_m64_bf16_d64, check_attention_tile, 0)                                                       \
    X(attention_m64_bf16_d96, check_attention_tile, 0)                                                       \
    X(attention_m64_bf16_d128, check_attention_tile, 0)                                                      \
    X(attention_m32_bf16_d256, check_attention_tile, 0)                                                      \
    X(attention_m16_e4m3_d64, check_attention_tile, 0)                                                       \
    X(attention_m16_e4m3_d96, check_attention_tile, 0)                                                       \
    X(attention_m16_e4m3_d128, check_attention_tile, 0)                                                      \
    X(attention_m16_e4m3_d256, check_attention_tile, 0)                                                      \
    X(attention_m64_e4m3_d64, check_attention_tile, 0)                                                       \
    X(attention_m64_e4m3_d96, check_attention_tile, 0)                                                       \
    X(attention_m64_e4m3_d128, check_attention_tile, 0)                                                      \
    X(attention_m32_e4m3_d256, check_attention_tile, 0)                                                      \
    X(attention_m128_bf16_d64, check_attention_tile, 0)                                                      \
    X(attention_m128_bf16_d128, check_attention_tile, 0)                                                     \
    X(attention_m128_e4m3_d64, check_attention_tile, 0)                                                      \
    X(attention_m128_e4m3_d128, check_attention_tile, 0)                                                     \
    X(activation_mul_f32, check_activation_mul, CHECK_F32)                                                   \
    X(activation_mul_bf16, check_activation_mul, CHECK_BF16)                                                 \
    X(sum_ranks_f32, check_sum_ranks, CHECK_F32)                                                             \
    X(sum_ranks_bf16, check_sum_ranks, CHECK_BF16)                                                           \
    X(join_ranks, check_join_ranks, 0)                                                                       \
    X(activation_mul_s8, check_activation_mul, CHECK_BF16)                                                   \
    X(activation_mul_e4m3, check_activation_mul, CHECK_BF16)                                                 \
    X(gather_outputs, check_gather_outputs, 0)                                                               \
    X(soft_cap_f32, check_soft_cap, 0)                                                                       \
    X(linear_simple_f32, check_linear_simple, 0)                                                             \
    X(linear_simple_bf16, check_linear_simple, 1)                                                            \
    X(linear_simple_bf16_f32, check_linear_simple, 2)                                                        \
    X(quantize_rows_s8, check_quantize_rows, 0)                                                              \
    X(quantize_rows_e4m3, check_quantize_rows, 1)                                                            \
    X(arrange_rows_bf16, check_quantize_rows, 2)                                                             \
    X(unpack_e4m3_wgmma, check_unpack_weight, 0)                                                             \
    LINEAR_TILE_CHECKS(X, bf16, LINEAR_CHECK_BF16)                                                           \
    LINEAR_TILE_CHECKS(X, int4, LINEAR_CHECK_INT4)                                                           \
    LINEAR_TILE_CHECKS(X, uint4, LINEAR_CHECK_UINT4)                                                         \
    LINEAR_TILE_CHECKS(X, int8, LINEAR_CHECK_INT8)                                                           \
    LINEAR_RESIDENT_CHECKS(X, int4, LINEAR_CHECK_INT4_STREAM)                                                \
    LINEAR_RESIDENT_CHECKS(X, uint4, LINEAR_CHECK_UINT4_STREAM)                                              \
    LINEAR_STREAM_CHECKS(X, int8, LINEAR_CHECK_INT8_STREAM)                                                  \
    LINEAR_WIDE_CHECKS(X, bf16, LINEAR_CHECK_BF16_WGMMA)                                                     \
    LINEAR_WIDE_CHECKS(X, int4, LINEAR_CHECK_INT4_WGMMA)                                                     \
    LINEAR_WIDE_CHECKS(X, uint4, LINEAR_CHECK_UINT4_WGMMA)                                                   \
    LINEAR_WIDE_CHECKS(X, int8, LINEAR_CHECK_INT8_WGMMA)                                                     \
    LINEAR_TILE_CHECKS(X, s8, LINEAR_CHECK_S8)                                                               \
    LINEAR_TILE_CHECKS(X, e4m3, LINEAR_CHECK_E4M3)                                                           \
    LINEAR_TILE_CHECKS(X, e4m3_as_bf16, LINEAR_CHECK_E4M3_AS_BF16)                                           \
    LINEAR_TILE_CHECKS(X, e4m3_wgmma, LINEAR_CHECK_E4M3_WGMMA)                                               \
    X(sample_draw, check_sample, 0) /* and the kernels around it */

#define X(kernel, check, variant) extern const struct cuda_check check;
CUDA_CHECKS(X)
#undef X

/* Number of failures. */
int check_cuda(const struct check_options *options);
/* Prints the names that options->filter takes, one a line. */
void check_cuda_list(void);
