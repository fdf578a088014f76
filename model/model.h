/* A model in memory: weights, KV store, sampling state, and the forward pass written once for every family.
 *
 * Two submits per step: model_forward(step) runs the rows, model_sample(step) draws from the wanted ones;
 * model_collect makes step->results readable. On the CPU they run at once; a device enqueues them. Steps are
 * executed in the order of submission. One thread (the engine's loop) calls everything but model_load, which
 * runs before it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "kernels/step.h"
#include "kernels/sampler.h"
#include "model/generation_config.h"

struct model;

enum model_dtype { MODEL_DTYPE_AUTO, MODEL_DTYPE_F32, MODEL_DTYPE_BF16, MODEL_DTYPE_F16 };
/* INT8 and INT4: a scale per group of inputs. W8A8: int8, a scale per output; FP8: e4m3, likewise. */
enum model_quantization {
    MODEL_QUANT_NONE,
    MODEL_QUANT_INT8,
    MODEL_QUANT_INT4,
    MODEL_QUANT_W8A8,
    MODEL_QUANT_FP8
};
enum { MODEL_DTYPES = MODEL_DTYPE_F16 + 1, MODEL_QUANTIZATIONS = MODEL_QUANT_FP8 + 1 };
/* "bfloat16", of AUTO NULL; "int4", "none". */
extern const char *const MODEL_DTYPE_NAMES[MODEL_DTYPES];
extern const char *const MODEL_QUANTIZATION_NAMES[MODEL_QUANTIZATIONS];
enum model_kv_cache { MODEL_KV_AUTO, MODEL_KV_BF16, MODEL_KV_FP8, MODEL_KV_INT8 };

enum { MODEL_BLOCK_TOKENS = 16 };

struct memory_plan;

struct model_options {
    const char *directory; /* config.json, *.safetensors; or a GGUF file; or what model_pack wrote */
    enum model_dtype
        dtype; /* of weights as computed and of KV; AUTO = the checkpoint's. F32: KV in f32 too */
    enum model_quantization quantization; /* of the linear layers; the embedding and LM head become int8 at
                                             most, and stay as they are with FP8 */
    uint32_t quantization_group;  /* inputs per scale of INT8 and INT4: 32, 64 or 128; 0 = WEIGHT_GROUP */
    enum model_kv_cache kv_cache; /* AUTO: float32 with dtype float32, else bfloat16 */
    bool dummy_weights;           /* --load-format dummy: random weights from config.json alone, seeded */
    uint64_t dummy_seed;
    uint32_t max_model_len;          /* tokens; 0 = the model's, lowered to what memory holds */
    uint32_t max_num_seqs;           /* sequences running together */
    uint32_t max_num_batched_tokens; /* rows of a step */
    uint32_t num_kv_blocks;          /* 0 = as many as memory_limit_bytes leaves */
    uint64_t memory_limit_bytes;     /* of everything planned; 0 = a share of the device's available memory */
    uint64_t program_bytes;          /* what the process holds besides: counted in the plan of host memory */
    /* What the caller will allocate for a plan that has its counts and lengths: counted too. NULL = nothing.
     * Monotonic in them; called many times. */
    uint64_t (*engine_bytes)(const void *context, const struct memory_plan *plan);
    const void *engine_context;
    /* "cpu" (also NULL), "cuda", "cuda:N", "auto": cuda where there is a GPU for each rank, and the plan fits
     * them, else cpu. */
    const char *device;
    const char *isa;    /* backend_cpu_create */
    bool enforce_eager; /* on a GPU: kernels one by one instead of captured graphs */
    /* On a GPU: products of many rows by a library, at which a row's bits may hang on its neighbours. */
    bool batch_variant;
    uint32_t library_rows_min; /* rows from which on the library takes them; 0 = the backend's own choice */
    int n_threads;             /* 0 = all */
    uint32_t n_ranks;   /* --tensor-parallel-size: GPUs, one after the other, or parts of the CPU; 0 = 1 */
    bool show_progress; /* a bar on a terminal */
};

/* Computed before anything is allocated; bytes. Under tensor parallelism all are of one rank, and so is the
 * limit. */
struct memory_plan {
    uint32_t n_ranks;
    uint64_t weights_bytes, activations_bytes, sampler_bytes, kv_bytes;
    uint64_t engine_bytes;  /* scheduler, rings, and requests running at their longest */
    uint64_t program_bytes; /* program, libraries, tokenizer */
    uint64_t loading_bytes; /* while weights are read, when engine_bytes are not there yet */
    uint64_t total_bytes, available_bytes;
    uint64_t kv_bytes_per_token;
    uint32_t num_kv_blocks, block_tokens;
    uint32_t max_model_len; /* longest request */
    double max_concurrency; /* requests of max_model_len that fit together */
    uint32_t max_num_seqs, max_num_batched_tokens;
    uint32_t logits_rows; /* outputs that one pass through LM head and sampling takes */
};

/* What a loaded model is. Strings live as long as the model. */
struct model_description {
    const char *architecture; /* "LlamaForCausalLM" */
    const char *dtype;        /* "bfloat16" | "float16" | "float32" */
    const char *kv_dtype;     /* "bfloat16" | "float32" | "fp8" | "int8" */
    const char *quantization; /* "none" | "int8" | "int4" | "w8a8" | "fp8", a checkpoint's "quant_method", or
                                 "gguf": codes of such a file */
    const char *backend;      /* for people: device, instruction set, threads */
    uint32_t vocab_size, n_layers, hidden_size;
    uint32_t max_model_len;
    uint32_t n_ranks;
    uint64_t n_parameters;
    uint64_t weights_fingerprint; /* hash over config and tensors (names, dtypes, shapes, sampled contents) */
    uint64_t arithmetic_fingerprint; /* hash of dtype, quantization, KV dtype, ranks and the backend's
                                        arithmetic */
};

/* Reads config.json and the tensors' headers only, and says what loading would take. RESOURCE_EXHAUSTED when
 * it cannot fit: the message says what would. INVALID_ARGUMENT / NOT_FOUND / DATA_LOSS / UNIMPLEMENTED name
 * file and field or tensor. */
err_t model_plan_memory(const struct model_options *options, struct memory_plan *out) ERR_MUST_CHECK;
/* A few lines for people: the printed plan. */
void memory_plan_print(const struct memory_plan *plan, char *text, size_t text_bytes);

/* Plans and loads; *plan_out (may be NULL) is what was planned, on_plan (may be NULL) is called with it
 * before anything large is allocated. */
err_t model_load(const struct model_options *options, void (*on_plan)(const struct memory_plan *plan),
                 struct model **out) ERR_MUST_CHECK;
void model_destroy(struct model *model);

struct model_packed {
    uint64_t n_weights, size_bytes; /* of the file */
};
/* Writes what else the directory needs. */
typedef err_t model_pack_beside_fn(void *context);
/* Packs the weights for the backend of the options (of which limits, lengths and ranks are not used) and
 * writes them to DIRECTORY/model.bantam (packed_file.h), which is there whole or not at all; with it, a
 * directory that has the files about the configuration is a model for model_load. `beside` is called when the
 * weights are written and before they take their place. One matrix is in memory at a time. Errors as of
 * model_load; INVALID_ARGUMENT for a device that packs only when it loads and for a model that is packed
 * already, RESOURCE_EXHAUSTED for a full disk. */
err_t model_pack(const struct model_options *options, const char *directory, model_pack_beside_fn *beside,
                 void *context, struct model_packed *out) ERR_MUST_CHECK;

const struct memory_plan *model_memory_plan(const struct model *model);
const struct model_description *model_describe(const struct model *model);
const struct generation_config *model_generation_config(const struct model *model);
/* Tensors that the checkpoint had and the family did not use are named in a warning at load. */

/* Steps that may be submitted before the first is collected, for the best speed. */
uint32_t model_steps_in_flight(const struct model *model);
/* A step with the capacities of this model; the caller destroys it before the model. */
err_t model_step_create(struct model *model, struct step **out) ERR_MUST_CHECK;
void model_step_destroy(struct model *model, struct step *step);

void model_slot_set(struct model *model, uint32_t slot, const struct sampler_params *params,
                    const struct sampler_history *history);
/* These three: ERR_UNAVAILABLE when a device was lost, which they notice late (kernels.h). Results then hold
 * anything, every later call says the same and waits for nothing, and the model can only be destroyed. */
err_t model_forward(struct model *model, struct step *step) ERR_MUST_CHECK;
/* masks: NULL, or per output NULL or a bit per token (kernels.h, sample). */
err_t model_sample(struct model *model, struct step *step, const uint32_t *const *masks) ERR_MUST_CHECK;
/* A piece of work that loading put off until nobody waits: some milliseconds, between steps. False: none is
 * left. */
bool model_tend(struct model *model);
/* Waits for the step; its results are then readable. */
err_t model_collect(struct model *model, struct step *step) ERR_MUST_CHECK;
