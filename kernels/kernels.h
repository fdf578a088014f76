/* The contract of every op, and of a backend: the kind of device that runs them. What a step does is said
 * here; how (layouts, tiles, threads, fusion) is the backend's. Ops are the largest fusion that any backend
 * does; one that cannot fuse runs the parts inside.
 *
 * The same bits (but for backend_cuda_options.batch_variant): row r of an op's result depends on row r of its
 * inputs (and, for attention, on that sequence's KV) and on nothing else: not on the number of rows, the
 * neighbours, the threads. Each weight has one arithmetic per device.
 *
 * Handles are made at start, owned by the caller, destroyed by the matching function, and never shared
 * between backends. Ops are called by one thread (the executor), in order; each sees the results of those
 * before it. Shapes that do not fit the handles are bugs and abort. Creation fails with
 * ERR_RESOURCE_EXHAUSTED when memory is short. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "kernels/sampler.h"
#include "kernels/step.h"

struct weight;  /* a linear layer's weight [n_out, n_in] and bias, packed */
struct vector;  /* [n] f32: norm weights */
struct act;     /* activations [rows, width], and whatever quantised form the backend keeps beside them */
struct rope;    /* rotary tables */
struct kv;      /* paged keys and values of one layer */
struct sampler; /* sampling state of every slot */

/* ---- Weights ---- */

enum weight_format {
    WEIGHT_F32,
    WEIGHT_BF16,
    WEIGHT_F16,
    WEIGHT_INT8,  /* symmetric, one scale per `group` inputs, codes -127..127 */
    WEIGHT_INT4,  /* symmetric, one scale per `group` inputs, codes -8..7 */
    WEIGHT_UINT4, /* codes 0..15, a scale and an integer zero point 0..15 per `group` inputs: only by `codes`
                   */
    WEIGHT_FP8,   /* e4m3, one scale per output (amax / 448); `group` is n_in */
    /* Those of GGUF's blocks: only by `codes`, and where backend_vtable.has_block_formats. */
    WEIGHT_INT5, /* symmetric, one scale per `group` inputs, codes -16..15 */
    WEIGHT_K4,   /* codes 0..15; per `group` inputs a scale and a minimum, and integers 0..63 per WEIGHT_GROUP
                    inputs that multiply them: code * (scale * block_scale) - minimum * block_minimum */
    WEIGHT_K5,   /* likewise, codes 0..31 */
    WEIGHT_K6,   /* codes -32..31; per `group` inputs a scale, and an integer -128..127 per
                    WEIGHT_HALF_GROUP inputs that multiplies it */
    WEIGHT_FORMATS,
};
enum {
    WEIGHT_GROUP = 32, /* default inputs per scale of the quantised formats; n_in must be a multiple */
    WEIGHT_HALF_GROUP = WEIGHT_GROUP / 2,
};

/* Writes row `row` of the matrix, [n_in] f32, to out. Called from several threads at once. Row-by-row access
 * to whatever the checkpoint holds; stacked matrices (q, k, v) are one description. */
typedef void weight_row_fn(const void *context, size_t row, float *out);

enum { WEIGHT_BLOCK_BYTES = 2 + WEIGHT_GROUP / 2 }; /* of weight_codes.blocks */

/* Codes of a row that a checkpoint brings: value k is (codes[k] - zeros[k / group]) * scales[k / group], in
 * the formats K4 to K6 what they say. They are computed with as they are; a backend may round the scales to
 * its own type (f16 on the CPU). */
struct weight_codes {
    int8_t *codes;           /* [n_in], in the range of the format; FP8 as bytes that are no NaN */
    float *scales;           /* [n_in / group], finite */
    uint8_t *zeros;          /* [n_in / group]; UINT4 */
    float *minimums;         /* [n_in / group], finite; K4, K5 */
    int8_t *block_scales;    /* K4, K5: [n_in / WEIGHT_GROUP]; K6: [n_in / WEIGHT_HALF_GROUP] */
    uint8_t *block_minimums; /* [n_in / WEIGHT_GROUP]; K4, K5 */
    /* INT4 of a section with has_blocks, and then alone: [n_in / WEIGHT_GROUP][WEIGHT_BLOCK_BYTES]: an f16
     * scale, finite, and bytes that hold code j + 8 in the low half and code j + 16 + 8 in the high one: the
     * blocks of GGUF's Q4_0. Neighbours' stand side by side. */
    uint8_t *blocks;
};
/* Fills the buffers of out[i], i < n_rows, for row first_row + i; neighbours are read together. Called from
 * several threads at once. */
typedef void weight_codes_fn(const void *context, size_t first_row, size_t n_rows,
                             const struct weight_codes *out);

/* Outputs of one format. A matrix may have several of them, one after the other: a file that has v in
 * another format than q and k. */
struct weight_section {
    size_t n_out;
    enum weight_format format;
    uint32_t group;
    bool has_codes;  /* `codes` gives its rows, and not `row` */
    bool has_blocks; /* has_codes, INT4 in groups of WEIGHT_GROUP: it gives them as blocks */
};
enum { WEIGHT_SECTIONS_MAX = 3 };

struct weight_desc {
    const char *name; /* for messages */
    size_t n_out, n_in;
    enum weight_format format;
    uint32_t group; /* quantised formats */
    weight_row_fn *row;
    const void *row_context; /* of row and codes */
    const float *bias;       /* [n_out] copied, or NULL */
    bool is_table;           /* embed reads its rows */
    weight_codes_fn *codes;  /* quantised formats: ready codes in place of what `row` gives; NULL = none */
    /* NULL: one section, as format, group and codes say. Else these in their place; their outputs add up to
     * n_out. Borrowed. Only where backend_vtable.has_block_formats. */
    const struct weight_section *sections;
    uint32_t n_sections; /* 1..WEIGHT_SECTIONS_MAX, or 0 */
};

/* Takes the packed bytes of a weight, piece by piece, in their order. */
typedef err_t packed_write_fn(void *context, const void *data, size_t size_bytes);
enum { PACKED_ALIGN = 64 }; /* of packed bytes that a weight is made over */

/* ---- Activations ---- */

/* What an act is for; a backend chooses its type by it. ACT_HIDDEN: inputs and outputs of linear layers. On
 * the CPU all are f32. */
enum act_role { ACT_RESIDUAL, ACT_HIDDEN, ACT_LOGITS };

/* ---- KV ---- */

enum kv_dtype {
    KV_F32,
    KV_BF16,
    KV_FP8,  /* e4m3, scale 1 */
    KV_INT8, /* codes -127..127, a bf16 scale per token and KV head, of K and of V */
};

struct kv_desc { /* of one layer */
    enum kv_dtype dtype;
    uint32_t n_blocks, block_tokens; /* block_tokens: 16 */
    uint32_t n_kv_heads, head_dim;
    uint32_t group; /* index of the step's block table that addresses it */
};

/* ---- Ops' parameters ---- */

enum activation_kind { ACTIVATION_SILU, ACTIVATION_GELU_TANH };
enum rope_kind { ROPE_HALVES }; /* pairs (i, i + rotary_dim / 2), as Hugging Face's Llama */

struct qkv_shape {
    uint32_t n_heads, n_kv_heads,
        head_dim; /* a row of qkv: q [n_heads][head_dim], k [n_kv_heads][..], v [..] */
};

struct attention_params {
    struct qkv_shape shape;
    float scale;     /* of q . k */
    uint32_t window; /* keys that a row sees at most, itself included; 0 = all */
    float soft_cap;  /* cap * tanh(score / cap); 0 = off */
};

/* What a backend must know to take its memory in one piece. */
struct backend_needs {
    struct step_capacity step;
    struct qkv_shape qkv;
    size_t widest_in, widest_out; /* of the linear layers, in values; logits apart */
    size_t largest_weight;        /* likewise: n_out * n_in */
    size_t vocab_size;
    uint32_t logits_rows; /* outputs that one pass through LM head and sampling takes */
};

/* Ranks of one model: backends of one kind that compute it together, each its part. */
enum { BACKEND_RANKS_MAX = 8 };

struct backend;

/* Owned by the backend. */
struct backend_library {
    const char *note; /* one line for people: whether a row's bits may hang on how many rows its step has */
    const char *card; /* as its driver names it; NULL = no card */
    uint32_t version; /* 130100 for 13.1.0; 0 = no library is used */
};

/* What a flag asked for and a backend lacks, such as a format of weights or KV: ERR_INVALID_ARGUMENT at
 * creation, with a message that names the flag and says which device has it. A shape of the model that is
 * beyond a backend: ERR_UNIMPLEMENTED.
 *
 * Ops run between forward_begin and forward_end, those of sampling between sample_begin and sample_end. A
 * device may return from them before they have run: collect waits for the step, act_read for what was asked
 * before it. At most steps_in_flight steps are submitted and not collected; they run in the order of
 * submission.
 *
 * A device can be lost while steps run: a kernel that went wrong, memory beyond correction, a card off the
 * bus, a rank of its group that is gone. Ops return no errors, since a device reports them late and for work
 * that was submitted long before: whoever submits a step asks `fault` afterwards. From the call that notices
 * on, nothing of a step does anything or waits for anything, forward_begin and sample_begin return false, and
 * results and act_read hold anything. Nothing brings the device back; what was made on it can be destroyed as
 * ever. The CPU is never lost, and what fails before the first step is an error of the call that failed. */
struct backend_vtable {
    const char *name; /* "cpu" */
    /* Of the memory available, what a plan takes where nothing else is said, in percent. */
    uint32_t memory_share_percent;
    bool is_host_memory;      /* of the same memory as all else of the process: a plan counts both */
    uint32_t logits_rows_max; /* outputs that one pass through LM head and sampling takes at most */
    bool has_block_formats;   /* packs WEIGHT_INT5 and WEIGHT_K4 to K6, and weights of several sections */
    void (*destroy)(struct backend *backend);
    /* One line for people: instruction set, threads. Static or owned by the backend. */
    const char *(*description)(const struct backend *backend);
    /* Names the arithmetic: equal names give equal bits. */
    const char *(*arithmetic)(const struct backend *backend);
    /* Which linear layers are not the backend's own. */
    const struct backend_library *(*library)(const struct backend *backend);
    /* Whether a library's product serves the weight at so many rows of a step. */
    bool (*library_serves)(const struct weight *weight, uint32_t rows);
    /* Memory for this rank of a model that is free now; UINT64_MAX when nobody says. */
    uint64_t (*memory_available)(const struct backend *backend);
    /* Steps that may be submitted before the first is collected, for the best speed. */
    uint32_t (*steps_in_flight)(const struct backend *backend);
    /* ERR_UNAVAILABLE with what the device said when it was lost, the same for every rank of a group; no call
     * of another rank is under way. */
    err_t (*fault)(const struct backend *backend);

    /* A piece of work that was put off at start until nobody waits: some milliseconds. False: there is none
     * left. What is computed stays the same. Between steps; NULL: a backend that puts nothing off. */
    bool (*tend)(struct backend *backend);

    /* Bytes that a creation will take: the memory plan is computed, not measured. */
    size_t (*weight_bytes)(const struct backend *backend, const struct weight_desc *desc);
    size_t (*vector_bytes)(const struct backend *backend, size_t n);
    size_t (*act_bytes)(const struct backend *backend, enum act_role role, size_t max_rows, size_t width);
    size_t (*rope_bytes)(const struct backend *backend, size_t n_freq, size_t max_positions);
    size_t (*kv_bytes)(const struct backend *backend, const struct kv_desc *desc);
    size_t (*sampler_bytes)(const struct backend *backend, uint32_t n_slots, size_t vocab_size,
                            size_t max_history);
    /* Of what no handle owns: steps, uploads, the kernels' scratch. */
    size_t (*scratch_bytes)(const struct backend *backend, const struct backend_needs *needs);
    /* Takes total_bytes, the sum of the above, before the first handle is made; a backend whose memory grows
     * as it is asked for does nothing. Once. */
    err_t (*reserve)(struct backend *backend, const struct backend_needs *needs, uint64_t total_bytes);

    err_t (*weight_pack)(struct backend *backend, const struct weight_desc *desc, struct weight **out);
    void (*weight_destroy)(struct weight *weight);

    /* Packed weights that are kept in files. The name of their layout changes with any change of the bytes.
     * NULL: the backend has none that a file could hold, and the three below are NULL too. */
    const char *packed_layout;
    /* desc->bias: only whether there is one. SIZE_MAX beyond the address space. */
    size_t (*packed_bytes)(const struct backend *backend, const struct weight_desc *desc);
    /* Of a weight that weight_pack made: packed_bytes in all. The first error of write. */
    err_t (*weight_export)(const struct weight *weight, packed_write_fn *write, void *context);
    /* The weight over such bytes, [packed_bytes], aligned to PACKED_ALIGN, which it reads where they are and
     * which live longer; computes what the exported one did. Neither rows nor bias of desc are read. Bytes
     * that nobody exported give useless numbers and no fault. */
    err_t (*weight_import)(struct backend *backend, const struct weight_desc *desc, const void *packed,
                           struct weight **out);

    err_t (*vector_create)(struct backend *backend, const float *values, size_t n, struct vector **out);
    void (*vector_destroy)(struct vector *vector);
    err_t (*act_create)(struct backend *backend, enum act_role role, size_t max_rows, size_t width,
                        struct act **out);
    void (*act_destroy)(struct act *act);
    /* inv_freq: [n_freq] radians per position (scaling already applied), n_freq = rotary_dim / 2; magnitude
     * multiplies cos and sin (1 but for some scalings). Angles are f32(position * inv_freq). */
    err_t (*rope_create)(struct backend *backend, const float *inv_freq, size_t n_freq, float magnitude,
                         size_t max_positions, struct rope **out);
    void (*rope_destroy)(struct rope *rope);
    err_t (*kv_create)(struct backend *backend, const struct kv_desc *desc, struct kv **out);
    void (*kv_destroy)(struct kv *kv);
    err_t (*sampler_create)(struct backend *backend, uint32_t n_slots, size_t vocab_size, size_t max_history,
                            struct sampler **out);
    void (*sampler_destroy)(struct sampler *sampler);
    /* A step whose inputs the device can be given and whose results it can write. */
    err_t (*step_create)(struct backend *backend, const struct step_capacity *capacity, struct step **out);
    void (*step_destroy)(struct backend *backend, struct step *step);

    /* The step is filled and may be read from here on until it is collected. False: everything that the
     * forward pass does was submitted by this call; the ops and forward_end are left out. */
    bool (*forward_begin)(struct backend *backend, struct step *step);
    /* False: nothing of the ops was done; they follow once more, and forward_end again. */
    bool (*forward_end)(struct backend *backend, struct step *step);
    /* The same for sampling; masks as in sample, for the step's outputs. */
    bool (*sample_begin)(struct backend *backend, struct step *step, const uint32_t *const *masks);
    bool (*sample_end)(struct backend *backend, struct step *step);
    /* Waits until the step has run; its results are then readable. Steps are collected in the order of their
     * submission. Of a lost device it returns at once. */
    void (*collect)(struct backend *backend, struct step *step);

    /* Joins backends that have made nothing yet: ranks[i] is rank i. From here on each is driven by a thread
     * of its own, all through the same ops in the same order. A rank that is destroyed leaves. */
    err_t (*join)(struct backend *const *ranks, uint32_t n_ranks);
    /* act[r] = the sum of all ranks' act[r], added in rank order whatever the number of rows: the same bits
     * on every rank. Rows: step_row_count(step, rows), as of all ops that have this argument. */
    void (*all_reduce)(struct backend *backend, const struct step *step, enum step_rows rows,
                       struct act *act);
    /* whole[i] = all ranks' part[i] side by side, in rank order, for i in [0, n): the step's outputs
     * [first_output, first_output + n). */
    void (*all_gather)(struct backend *backend, const struct step *step, uint32_t first_output, uint32_t n,
                       struct act *part, struct act *whole);

    /* out[r] = table[token of row r - first_token] * scale, zeros where the table lacks the token (another
     * rank has it). Tokens named by slot are read from the sampler. Rows: step->n_rows. */
    void (*embed)(struct backend *backend, const struct step *step, const struct sampler *sampler,
                  const struct weight *table, uint32_t first_token, float scale, struct act *out);
    /* residual[r] += add[r] (add may be NULL), or its RMS norm * add_weight where that is given; out[r] = RMS
     * norm of residual[r] * weight. */
    void (*add_norm)(struct backend *backend, const struct step *step, enum step_rows rows,
                     struct act *residual, const struct act *add, const struct vector *add_weight,
                     const struct vector *weight, float eps, struct act *out);
    /* out[r] = weight . in[r] + bias. */
    void (*linear)(struct backend *backend, const struct step *step, enum step_rows rows, struct act *in,
                   const struct weight *weight, struct act *out);
    /* For every row: RMS norm per head of q and k where q_norm, k_norm are given ([head_dim]); rotate q and k
     * at the row's position, q in place; write k and v into the row's KV block. Copies of blocks
     * (step->copies) come first, in kv_copy. */
    void (*rope_kv_write)(struct backend *backend, const struct step *step, struct act *qkv,
                          const struct qkv_shape *shape, const struct vector *q_norm,
                          const struct vector *k_norm, float eps, const struct rope *rope,
                          enum rope_kind kind, struct kv *kv);
    void (*kv_copy)(struct backend *backend, const struct step *step, struct kv *kv);
    /* Causal attention of every row over its sequence's blocks; out: [rows, n_heads * head_dim]. KV is walked
     * in chunks of whole blocks at fixed positions, so prefill and decode give the same bits. */
    void (*attention)(struct backend *backend, const struct step *step, const struct act *qkv,
                      const struct attention_params *params, const struct kv *kv, struct act *out);
    /* gate_up: [rows, 2 * width], gate first; out[r] = activation(gate) * up. */
    void (*activation_mul)(struct backend *backend, const struct step *step, enum step_rows rows,
                           const struct act *gate_up, enum activation_kind kind, struct act *out);
    /* Gathers the rows of outputs [first_output, first_output + n): out[i] = in[row of output first_output +
     * i]. */
    void (*gather_outputs)(struct backend *backend, const struct step *step, uint32_t first_output,
                           uint32_t n, const struct act *in, struct act *out);
    /* logits[i] = soft_cap(weight . hidden[i] + bias) for i in [0, n), the step's outputs [first_output,
     * first_output + n); logits: act of width vocab. */
    void (*logits)(struct backend *backend, const struct step *step, uint32_t first_output, uint32_t n,
                   struct act *hidden, const struct weight *weight, float soft_cap, struct act *logits);
    /* Results of outputs [first_output, first_output + n) from logits[0, n), which it may overwrite. masks:
     * NULL, or per output NULL or a bit per token (1 = allowed), [ceil(vocab / 32)] words. Appends drawn
     * tokens to the slots. */
    void (*sample)(struct backend *backend, struct step *step, uint32_t first_output, uint32_t n,
                   struct act *logits, const uint32_t *const *masks, struct sampler *sampler);

    /* Fills a slot for the steps submitted from now on: parameters and history (copied); clears whatever it
     * held. Every step that names the slot has been collected. */
    void (*slot_set)(struct sampler *sampler, uint32_t slot, const struct sampler_params *params,
                     const struct sampler_history *history);

    /* Host access for tests, checks and pooled outputs: rows [first, first + n) as f32 [n, width]. */
    void (*act_write)(struct act *act, size_t first_row, size_t n_rows, const float *values);
    void (*act_read)(const struct act *act, size_t first_row, size_t n_rows, float *values);
};

/* The first member of every implementation. */
struct backend {
    const struct backend_vtable *vtable;
};

/* The CPU backend on n_threads (0 = one per usable CPU). isa: "auto", or the highest level to use: "scalar",
 * "avx2", "avxvnni", "avx512", "avx512vnni", "amx" (of at most that, the best that the machine has); all
 * levels but "amx" give the same bits. ERR_INVALID_ARGUMENT for an unknown level. */
err_t backend_cpu_create(int n_threads, const char *isa, struct backend **out) ERR_MUST_CHECK;

struct backend_cuda_options {
    int device;    /* ordinal, as CUDA counts the GPUs that it may use */
    bool f32;      /* every act in f32 and plain FMA kernels; else bf16 activations and tensor cores */
    bool eager;    /* no captured graphs */
    int n_threads; /* that pack weights; 0 = one per usable CPU */
    /* Large products by cuBLASLt, whatever it makes of a row's bits in other company; without the library as
     * if unset. */
    bool batch_variant;
    uint32_t library_rows_min; /* with it: rows from which on; 0 = PRODUCT_ROWS_MIN_* of product_policy.h */
};

/* "cuda" (GPU 0) or "cuda:N", N of at most three digits; false: it names no GPU. */
bool backend_cuda_parse(const char *name, int *device);

/* The CUDA backend of libbantam_cuda.so: from the file that BANTAM_CUDA_LIBRARY names, else beside the
 * program, in
 * ../lib/bantam of it, or where the system's loader looks. ERR_NOT_FOUND without the library, ERR_UNAVAILABLE
 * without a driver, a GPU, or with a driver or library that is too old; messages name --device cpu. */
err_t backend_cuda_create(const struct backend_cuda_options *options, struct backend **out) ERR_MUST_CHECK;
