/* Inside of the CUDA backend: its handles and what its files share. All device work of a step goes to one
 * stream, in order; only results leave by another. Nothing here calls CUDA but through device_api.h.
 *
 * An error of the device while a step runs (a lost GPU, a kernel that went wrong) cannot be undone:
 * cuda_fault.c keeps it, and nothing is asked of the device any more. Errors of creation are returned. */
#pragma once

#include "base/assert.h"
#include "base/checked.h"
#include "base/thread_pool.h"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/device_api.h"
#include "kernels/kernel_table.h"
#include "kernels/kernels.h"

enum {
    CUDA_ALIGN = 256, /* of everything in device memory */
    CUDA_FLIGHTS_MAX = 2,
    CUDA_LOGITS_ROWS_MAX = 256,
    CUDA_BUCKETS_MAX = 160,
    CUDA_STAGES = 2,
    CUDA_PANEL_ROWS_MAX = 64, /* of a layout */
    CUDA_STAGE_BYTES_MIN = 8 << 20,
    ACT_STRIDE_ELEMENTS = 8, /* rows of activations begin at multiples of 16 bytes */
};

/* ---- Memory: one allocation, handed out from its beginning and given back as a whole ---- */

struct cuda_arena {
    uint8_t *base; /* device */
    size_t size_bytes, used_bytes;
};

/* Pinned buffers that uploads of weights and tables go through in turn. */
struct cuda_stage {
    uint8_t *memory;
    struct device_event *uploaded;
};

/* ---- Steps ---- */

enum cuda_flight_state { FLIGHT_IDLE, FLIGHT_FORWARD, FLIGHT_SAMPLED };

/* A step, what it uploads and what comes back. */
struct cuda_flight {
    struct step *step; /* NULL = none; its results are pinned */
    enum cuda_flight_state state;
    uint8_t *upload;           /* pinned: what the device's step becomes */
    uint8_t *attention_upload; /* pinned: the attention's work list */
    uint32_t *masks;           /* pinned: [seqs][mask_words] */
    int32_t *mask_of_output;   /* pinned: [outputs] */
    void *pinned;              /* the block that holds these and the results */
    struct step_result *device_results;
    struct device_event *computed, *done;
};

/* Captured graphs of steps whose sequences have one row each, by the number of rows or outputs that they
 * cover. The first step of a bucket runs without: kernels are then loaded, and libraries have their memory.
 */
struct cuda_graph {
    struct device_graph *graph;
    bool warm;
    bool lacks_memory; /* there is none for it: its passes run kernel by kernel, over the bucket all the same
                        */
};

enum cuda_pass {
    PASS_FORWARD,
    PASS_FORWARD_LARGE, /* with the attention kernel of prefixes that many sequences share */
    PASS_SAMPLE,
    PASS_SAMPLE_MASKED,
    CUDA_PASSES
};

struct cuda_graphs {
    bool is_told; /* that one lacks memory */
    uint32_t n_buckets;
    uint32_t buckets[CUDA_BUCKETS_MAX]; /* ascending */
    struct cuda_graph graphs[CUDA_PASSES][CUDA_BUCKETS_MAX];
};

/* Device memory of no handle. */
struct cuda_scratch {
    struct cuda_step *step;
    struct step_result *results[CUDA_FLIGHTS_MAX]; /* [outputs] */
    uint32_t *masks;                               /* [seqs][mask_words] */
    int32_t *mask_of_output;                       /* [outputs] */
    uint32_t *history;                             /* token ids of a slot being set */
    void *attention_work;                          /* cuda_attention_work_bytes */
    void *attention, *linear;                      /* cuda_attention_scratch_bytes, .. */
    void *products;                                /* cuda_products_scratch_bytes */
    void *ranks;                                   /* cuda_ranks_scratch_bytes */
    float *sample_work;                            /* [logits_rows][logits stride] */
    uint64_t *sample_candidates;
    struct sample_row *sample_rows; /* [logits_rows] */
    size_t total_bytes;
};

struct cuda_group;

/* A rope_kv_write that the attention behind it may do along with its own work. Whatever else is launched is
 * behind it. */
struct cuda_turn {
    const struct kv *kv; /* NULL = none */
    const struct act *qkv;
    struct rope_kv_write_args args;
};

/* ---- Products by the library ---- */

enum { CUDA_PRODUCTS_MAX = 64, CUDA_PRODUCT_WORKSPACE_BYTES = 32 << 20 };

/* Of a shape, whatever number of weights has it. */
struct cuda_product {
    struct product_shape shape;
    struct device_product *product;
};

struct cuda_products {
    struct product_policy policy;
    bool is_open; /* the library is there, and the policy has use for it */
    struct backend_library about;
    char note[256];
    uint32_t n;
    struct cuda_product list[CUDA_PRODUCTS_MAX];
};

struct cuda_backend {
    struct backend base;
    struct cuda_group *group; /* NULL = the only rank */
    uint32_t n_ranks;         /* 0 or 1 = no group */
    const struct device_api *api;
    struct device *device;
    int ordinal; /* of the device, as CUDA counts */
    const struct device_properties *properties;
    bool f32;   /* precision: every act in f32 */
    bool eager; /* no graphs */
    struct thread_pool *pool;
    struct kernel_table table; /* the CPU's: quantisation of weights */
    char description[192], arithmetic[64];
    bool is_lost; /* the device, or another of the group; `fault` says why */
    err_t fault;

    struct device_stream *stream, *results_stream;
    struct cuda_stage stages[CUDA_STAGES];
    size_t stage_bytes;
    uint32_t next_stage;

    struct backend_needs needs;
    bool is_reserved;
    struct cuda_arena arena;
    struct cuda_scratch scratch;
    struct cuda_flight flights[CUDA_FLIGHTS_MAX];
    struct cuda_graphs graphs;
    struct cuda_products products;

    /* What was enqueued last is another library's, a product or a gathering: no programmatic launch behind
     * it. */
    bool behind_library;

    /* Of the pass being submitted. */
    struct cuda_graph *capturing; /* NULL = launches run as they come */
    bool by_bucket;               /* covers as many rows or outputs as its bucket */
    uint32_t rows_max;            /* rows that grids cover */
    uint32_t outputs_max;
    bool with_masks;
    bool attention_small, attention_large; /* which kernels the step's attention has work for */
    struct cuda_turn turn;                 /* waits for the attention */
    /* The act whose rows the launch before left in 8 bits too, for the linear layer behind it; NULL = none.
     */
    const struct act *quantized;
    uint32_t quantized_plain_bytes; /* in which form: struct quantized_rows */
};

/* ---- Handles ---- */

/* How a packed weight lies in memory: panels of whole rows, each packed by one thread. Codes of all panels
 * stand one after the other, likewise scales. */
struct cuda_layout {
    const char *name;
    uint32_t panel_rows;
    uint32_t packed; /* of the matrix: cuda_matrix.h */
    /* Of one panel; scales 0 = none. */
    void (*panel_bytes)(const struct weight_desc *desc, size_t *codes, size_t *scales);
    /* One row into its panel, which was zeroed: of the values, or where they are NULL of the codes in row,
     * whose buffers are else the thread's own. quantize: of the CPU, so that both have the same codes. */
    void (*pack_row)(const struct kernel_table *quantize, const struct weight_desc *desc, const float *values,
                     const struct weight_codes *row, uint32_t row_in_panel, uint8_t *codes, uint8_t *scales);
};

struct weight {
    const struct cuda_layout *layout;
    struct cuda_matrix matrix;
    const struct cuda_product *product; /* NULL = our kernels at every number of rows */
};

struct vector {
    size_t n;
    float *values; /* device */
};

struct act {
    struct cuda_backend *cuda;
    enum act_role role;
    bool f32; /* else bf16 */
    size_t max_rows, width;
    uint32_t stride; /* elements between rows, a multiple of 8 */
    void *data;      /* device: [max_rows][stride] */
    /* How the last linear layer wanted its rows, LINEAR_S8 or later, plus 1; 0 = in bf16. What makes the
     * act's rows then makes those in 8 bits as well: one launch less, the same bits. */
    uint32_t wanted;
    const struct cuda_product *wanted_by; /* of that layer's weight */
};

struct rope {
    size_t n_freq, max_positions;
    float *cosines, *sines; /* device: [max_positions][n_freq] */
};

struct kv {
    struct kv_desc desc;
    struct cuda_kv_cache cache;
    size_t block_bytes;
};

struct sampler {
    struct cuda_backend *cuda;
    struct cuda_slots slots; /* device */
    size_t max_history;
    bool *is_set;           /* [n_slots] */
    uint8_t *pinned;        /* [n_slots] of struct cuda_slot, allowed, ids: what slot_set uploads */
    size_t pinned_per_slot; /* bytes */
};

/* ---- Shared ---- */

static inline struct cuda_backend *cuda_of(struct backend *backend)
{
    return (struct cuda_backend *)backend;
}

static inline const struct cuda_backend *cuda_of_const(const struct backend *backend)
{
    return (const struct cuda_backend *)backend;
}

/* Bytes that an array takes of the arena. */
static inline size_t cuda_bytes(size_t n, size_t element_bytes)
{
    return round_up(n * element_bytes, CUDA_ALIGN);
}

static inline size_t act_element_bytes(const struct act *act)
{
    return act->f32 ? sizeof(float) : sizeof(uint16_t);
}

/* The device table's create, called by the library with its own table. */
err_t cuda_backend_create(const struct device_api *api, const struct backend_cuda_options *options,
                          struct backend **out) ERR_MUST_CHECK;

/* cuda_code.c: ERR_UNAVAILABLE where the library has no kernels for the card. */
err_t cuda_code_check(struct cuda_backend *cuda) ERR_MUST_CHECK;

/* cuda_fault.c: whether the device can still be asked for anything; of a group, whether all of them can. */
bool cuda_is_alive(struct cuda_backend *cuda);
/* e: what the device answered. An error means that it is lost; true without one. */
bool cuda_worked(struct cuda_backend *cuda, err_t e);
/* cuda_worked of a call, which is not made when the device is lost. */
#define CUDA_STEP(cuda, call) (cuda_is_alive(cuda) && cuda_worked((cuda), (call)))
err_t cuda_fault(const struct backend *backend);

/* cuda_backend.c: enqueues a kernel on the backend's stream. args: the kernel's args struct. */
void cuda_launch(struct cuda_backend *cuda, enum cuda_kernel_id kernel, const uint32_t grid[3],
                 uint32_t block_threads, uint32_t shared_bytes, const void *args, size_t args_bytes);
#define CUDA_LAUNCH(cuda, name, x, y, threads, args)                                                         \
    cuda_launch((cuda), CUDA_KERNEL_##name, (const uint32_t[3]){(uint32_t)(x), (uint32_t)(y), 1}, (threads), \
                0, &(args), sizeof(args))

/* cuda_kv.c: launches the rope_kv_write that waits. Before anything but a launch goes to the stream within a
 * pass. */
void cuda_turn_flush(struct cuda_backend *cuda);

/* cuda_memory.c */
err_t cuda_memory_reserve(struct cuda_backend *cuda, uint64_t total_bytes) ERR_MUST_CHECK;
void cuda_memory_release(struct cuda_backend *cuda);
/* ERR_RESOURCE_EXHAUSTED past what was reserved; what: for the message. */
err_t cuda_take(struct cuda_backend *cuda, size_t n, size_t element_bytes, const char *what,
                void **out) ERR_MUST_CHECK;
/* The next stage, free to be written. Then any number of copies out of it, then stage_end. */
err_t cuda_stage_begin(struct cuda_backend *cuda, uint8_t **memory) ERR_MUST_CHECK;
err_t cuda_stage_end(struct cuda_backend *cuda) ERR_MUST_CHECK;
/* Plain host memory to the device, through stages. */
err_t cuda_upload(struct cuda_backend *cuda, void *to, const void *from, size_t size_bytes) ERR_MUST_CHECK;

/* cuda_weight.c */
size_t cuda_weight_bytes(const struct backend *backend, const struct weight_desc *desc);
err_t cuda_weight_pack(struct backend *backend, const struct weight_desc *desc, struct weight **out);
void cuda_weight_destroy(struct weight *weight);
/* Rows as they are, for every format: cuda_matrix.h. */
extern const struct cuda_layout cuda_layout_rows;

/* cuda_linear.c: which layout and kernels serve a weight. */
const struct cuda_layout *cuda_linear_layout(const struct cuda_backend *cuda, const struct weight_desc *desc);
size_t cuda_linear_scratch_bytes(const struct cuda_backend *cuda, const struct backend_needs *needs);
/* Where the rows of an act go in 8 bits, if its next linear layer is likely to want them so. */
bool cuda_linear_wants(const struct cuda_backend *cuda, const struct act *act, uint32_t n_rows,
                       struct quantized_rows *rows);
/* A counter for each row of a step, zero, of kernels that make a row by several blocks. */
uint32_t *cuda_linear_row_arrivals(const struct cuda_backend *cuda);
void cuda_linear(struct backend *backend, const struct step *step, enum step_rows rows, struct act *in,
                 const struct weight *weight, struct act *out);
void cuda_logits(struct backend *backend, const struct step *step, uint32_t first_output, uint32_t n,
                 struct act *hidden, const struct weight *weight, float soft_cap, struct act *logits);

/* cuda_product.c: linear layers by a library. Which: product_policy.h. */
err_t cuda_products_open(struct cuda_backend *cuda,
                         const struct backend_cuda_options *options) ERR_MUST_CHECK;
void cuda_products_close(struct cuda_backend *cuda);
size_t cuda_products_scratch_bytes(const struct cuda_backend *cuda, const struct backend_needs *needs);
/* At start, of a packed weight: the product of its shape in *out, NULL where the library does not serve it.
 */
err_t cuda_product_plan(struct cuda_backend *cuda, const struct cuda_matrix *matrix,
                        const struct cuda_product **out) ERR_MUST_CHECK;
const struct backend_library *cuda_library(const struct backend *backend);
bool cuda_library_serves(const struct weight *weight, uint32_t rows);
/* product may be NULL. */
bool cuda_product_serves(const struct cuda_product *product, uint32_t rows);
/* x: the act's rows, or e4m3 codes in plain rows with their scales. */
void cuda_product_run(struct cuda_backend *cuda, const struct weight *weight, uint32_t rows, const void *x,
                      const float *x_scale, struct act *out);

/* cuda_attention.c */
size_t cuda_attention_scratch_bytes(const struct cuda_backend *cuda, const struct backend_needs *needs);
/* What a step's attention is given beside the step: at most this many bytes, and the filling of them for the
 * step being submitted, which returns how many are in use. */
size_t cuda_attention_work_bytes(const struct cuda_backend *cuda, const struct backend_needs *needs);
size_t cuda_attention_work_fill(struct cuda_backend *cuda, const struct step *step, void *work);
void cuda_attention(struct backend *backend, const struct step *step, const struct act *qkv,
                    const struct attention_params *params, const struct kv *kv, struct act *out);

/* Whether the attention of the step over such a cache turns q and writes the new keys and values itself. */
bool cuda_attention_turns(const struct cuda_backend *cuda, const struct step *step, const struct kv *kv);

/* cuda_act.c: activations, vectors, and the ops that treat rows one by one. */
size_t cuda_vector_bytes(const struct backend *backend, size_t n);
err_t cuda_vector_create(struct backend *backend, const float *values, size_t n, struct vector **out);
void cuda_vector_destroy(struct vector *vector);
size_t cuda_act_bytes(const struct backend *backend, enum act_role role, size_t max_rows, size_t width);
err_t cuda_act_create(struct backend *backend, enum act_role role, size_t max_rows, size_t width,
                      struct act **out);
void cuda_act_destroy(struct act *act);
void cuda_act_write(struct act *act, size_t first_row, size_t n_rows, const float *values);
void cuda_act_read(const struct act *act, size_t first_row, size_t n_rows, float *values);
void cuda_embed(struct backend *backend, const struct step *step, const struct sampler *sampler,
                const struct weight *table, uint32_t first_token, float scale, struct act *out);
void cuda_add_norm(struct backend *backend, const struct step *step, enum step_rows rows,
                   struct act *residual, const struct act *add, const struct vector *add_weight,
                   const struct vector *weight, float eps, struct act *out);
void cuda_activation_mul(struct backend *backend, const struct step *step, enum step_rows rows,
                         const struct act *gate_up, enum activation_kind kind, struct act *out);
void cuda_gather_outputs(struct backend *backend, const struct step *step, uint32_t first_output, uint32_t n,
                         const struct act *in, struct act *out);

/* cuda_kv.c */
size_t cuda_rope_bytes(const struct backend *backend, size_t n_freq, size_t max_positions);
err_t cuda_rope_create(struct backend *backend, const float *inv_freq, size_t n_freq, float magnitude,
                       size_t max_positions, struct rope **out);
void cuda_rope_destroy(struct rope *rope);
size_t cuda_kv_bytes(const struct backend *backend, const struct kv_desc *desc);
err_t cuda_kv_create(struct backend *backend, const struct kv_desc *desc, struct kv **out);
void cuda_kv_destroy(struct kv *kv);
void cuda_rope_kv_write(struct backend *backend, const struct step *step, struct act *qkv,
                        const struct qkv_shape *shape, const struct vector *q_norm,
                        const struct vector *k_norm, float eps, const struct rope *rope, enum rope_kind kind,
                        struct kv *kv);
void cuda_kv_copy(struct backend *backend, const struct step *step, struct kv *kv);

/* cuda_sampler.c */
size_t cuda_sampler_bytes(const struct backend *backend, uint32_t n_slots, size_t vocab_size,
                          size_t max_history);
err_t cuda_sampler_create(struct backend *backend, uint32_t n_slots, size_t vocab_size, size_t max_history,
                          struct sampler **out);
void cuda_sampler_destroy(struct sampler *sampler);
void cuda_slot_set(struct sampler *sampler, uint32_t slot, const struct sampler_params *params,
                   const struct sampler_history *history);
void cuda_sample(struct backend *backend, struct step *step, uint32_t first_output, uint32_t n,
                 struct act *logits, const uint32_t *const *masks, struct sampler *sampler);

/* cuda_ranks.c */
err_t cuda_join(struct backend *const *ranks, uint32_t n_ranks);
void cuda_leave(struct cuda_backend *cuda);
/* The first of its ranks that is lost says why; every one that hears of it ends its own part. */
void cuda_group_lose(struct cuda_backend *cuda, const err_t *fault);
/* NULL: no rank is lost, or there is no group. */
const err_t *cuda_group_fault(const struct cuda_backend *cuda);
/* Set when a rank is lost; NULL without a group. */
const _Atomic bool *cuda_group_given_up(const struct cuda_backend *cuda);
size_t cuda_ranks_scratch_bytes(const struct cuda_backend *cuda, const struct backend_needs *needs);
/* Whether these ranks can share a model of such needs. */
err_t cuda_ranks_check(const struct cuda_backend *cuda, const struct backend_needs *needs) ERR_MUST_CHECK;
void cuda_all_reduce(struct backend *backend, const struct step *step, enum step_rows rows, struct act *act);
void cuda_all_gather(struct backend *backend, const struct step *step, uint32_t first_output, uint32_t n,
                     struct act *part, struct act *whole);

/* cuda_step.c */
size_t cuda_scratch_bytes(const struct backend *backend, const struct backend_needs *needs);
/* Tokens of a slot's history at most. */
size_t cuda_history_max(const struct backend_needs *needs);
err_t cuda_scratch_create(struct cuda_backend *cuda) ERR_MUST_CHECK;
err_t cuda_step_create(struct backend *backend, const struct step_capacity *capacity, struct step **out);
void cuda_step_destroy(struct backend *backend, struct step *step);
bool cuda_forward_begin(struct backend *backend, struct step *step);
bool cuda_forward_end(struct backend *backend, struct step *step);
bool cuda_sample_begin(struct backend *backend, struct step *step, const uint32_t *const *masks);
bool cuda_sample_end(struct backend *backend, struct step *step);
void cuda_collect(struct backend *backend, struct step *step);
/* The rows of an op in the pass being submitted. */
struct cuda_rows cuda_step_rows(const struct cuda_backend *cuda, const struct step *step,
                                enum step_rows rows);
struct cuda_rows cuda_output_rows(const struct cuda_backend *cuda, uint32_t first_output, uint32_t n);

/* cuda_graph.c */
void cuda_graphs_plan(struct cuda_graphs *graphs, uint32_t max_rows);
/* How a pass over n rows or outputs goes. *covers: what grids are made for. PASS_IS_DONE: it was replayed, or
 * the device is lost. */
enum cuda_pass_plan { PASS_RUNS, PASS_IS_CAPTURED, PASS_IS_DONE };
enum cuda_pass_plan cuda_pass_begin(struct cuda_backend *cuda, enum cuda_pass pass, uint32_t n,
                                    uint32_t *covers);
/* False: there was no memory for the graph, and the pass is to be made once more, kernel by kernel. */
bool cuda_pass_end(struct cuda_backend *cuda);
void cuda_graphs_destroy(struct cuda_backend *cuda);
