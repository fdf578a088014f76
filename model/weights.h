/* The weights that one rank of a model needs, in one list: which tensors they come from, which part of them,
 * their shapes and formats, and the rows that a backend packs. The list is made and checked before anything
 * large is allocated: the memory plan adds it up, loading walks it. */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "kernels/kernels.h"
#include "model/checkpoint.h"
#include "model/model_config.h"
#include "model/quant_tensors.h"
#include "model/shard.h"

enum {
    WEIGHT_PARTS_MAX = 3, /* q, k and v stacked */
    WEIGHT_NAME_MAX = 96, /* bytes incl. NUL; every name is made of the family's table and a layer number */
};

struct packed_entry;

/* Why a row could not be delivered: weight_row_fn has no error of its own. The first one is kept. */
struct weight_fault {
    pthread_mutex_t lock;
    bool raised;
    err_t error;
};

struct weight_part {
    char name[WEIGHT_NAME_MAX];             /* of the tensor, with ".weight" or ".bias" */
    const struct checkpoint_tensor *tensor; /* NULL = dummy values, or quantised */
    struct quant_tensors *quantized;        /* owned; NULL = plain */
    uint32_t group;           /* of a tensor whose blocks are kept as codes: inputs that share a scale */
    size_t first_row, n_rows; /* this rank's; of a bias or norm: its values */
    uint32_t
        interleaved_dim; /* of the heads whose rows i and i + dim / 2 are side by side in the tensor; 0 */
};

/* What stands for the part in messages and hints; NULL = dummy values. */
static inline const struct checkpoint_tensor *weight_part_tensor(const struct weight_part *part)
{
    return part->quantized ? part->quantized->codes : part->tensor;
}

/* One matrix: its parts' rows stacked, [n_out, n_in]. */
struct weight_source {
    char name[WEIGHT_NAME_MAX]; /* for people: that of the first part */
    size_t n_out, n_in;
    size_t first_column, n_columns; /* n_in of the tensors' n_columns, from first_column on */
    enum weight_format format;
    bool is_table;          /* the embedding */
    uint32_t group;         /* quantised formats: inputs that share a scale */
    bool has_codes;         /* they come from the checkpoint, or are drawn as such */
    uint32_t group_repeats; /* has_codes: groups that share one scale of the checkpoint */
    /* Parts of a GGUF file as they are there, one section for neighbours of one format; 0: all of `format`.
     */
    uint32_t n_sections;
    struct weight_section sections[WEIGHT_PARTS_MAX];
    bool one_plus;              /* of a vector: values are 1 + what the checkpoint holds */
    uint32_t n_parts, n_biases; /* n_biases: 0 or n_parts */
    struct weight_part parts[WEIGHT_PARTS_MAX], biases[WEIGHT_PARTS_MAX];
    const struct checkpoint *checkpoint; /* NULL = dummy values from seed, or packed */
    const struct packed_entry *packed;   /* it has been packed before and lies in a file; borrowed, or NULL */
    uint64_t dummy_seed;
    struct weight_fault *fault; /* of the list */
};

/* Order of the matrices: LAYER_MATRICES of layer 0, of layer 1, ..., the embedding, the LM head (absent when
 * tied). Order of the vectors: LAYER_VECTORS of each layer, those that the family lacks with n_parts = 0; the
 * final norm. */
enum layer_matrix { LAYER_QKV, LAYER_O, LAYER_GATE_UP, LAYER_DOWN, LAYER_MATRICES };
enum layer_vector {
    LAYER_ATTENTION_NORM,
    LAYER_ATTENTION_POST_NORM,
    LAYER_MLP_NORM,
    LAYER_MLP_POST_NORM,
    LAYER_Q_NORM,
    LAYER_K_NORM,
    LAYER_VECTORS
};

struct weight_list {
    struct weight_source *matrices; /* [n_matrices] */
    struct weight_source *vectors;  /* [n_vectors]; n_out = 1 row of n_in values */
    size_t n_matrices, n_vectors;
    bool tied;
    size_t n_of_blocks;      /* matrices that keep the codes of a GGUF file */
    size_t n_widened;        /* matrices of codes that are computed in plain numbers all the same */
    const char *widened_why; /* the last one's reason, static */
    uint64_t n_parameters;   /* of the whole model */
    enum model_dtype dtype;  /* as computed: never AUTO */
    struct weight_fault fault;
};

/* The type that weights are computed in: what AUTO means is config.json's dtype, else that of the embedding.
 * checkpoint may be NULL. */
enum model_dtype weight_list_dtype(const struct model_config *config, struct checkpoint *checkpoint,
                                   const struct model_options *options);
/* Inputs per scale of what is quantised while loading. */
uint32_t weight_list_group(const struct model_options *options);

/* Finds and checks every tensor. backend: who will pack it. checkpoint NULL: dummy weights. NOT_FOUND for a
 * missing tensor, INVALID_ARGUMENT for a wrong shape or dtype or a width that cannot be quantised; the
 * message names file and tensor. The list borrows the checkpoint and must not move. Release with
 * weight_list_free. */
err_t weight_list_create(const struct model_config *config, const struct shard *shard,
                         struct checkpoint *checkpoint, const struct model_options *options,
                         const struct backend *backend, struct weight_list *out) ERR_MUST_CHECK;
void weight_list_free(struct weight_list *list); /* idempotent; zeroed memory is fine */

/* Memory that a source takes while its rows are read. */
uint64_t weight_source_stage_bytes(const struct weight_source *source);
/* Around the reading of rows. DATA_LOSS, IO, RESOURCE_EXHAUSTED. */
err_t weight_source_open(struct weight_source *source) ERR_MUST_CHECK;
void weight_source_close(struct weight_source *source); /* also after a failed open */

/* The description that a backend packs; without bias. Its row function borrows the source. */
struct weight_desc weight_source_desc(const struct weight_source *source);
/* Reads biases and rows and has the backend pack them. The list's fault, once more, is the caller's to ask
 * for. */
err_t weight_source_pack(struct weight_source *source, struct backend *backend,
                         struct weight **out) ERR_MUST_CHECK;
/* The values of the biases, [n_out], to out. */
err_t weight_source_read_bias(const struct weight_source *source, float *out) ERR_MUST_CHECK;
/* The values of a vector source, [n_in], to out. */
err_t weight_source_read_vector(const struct weight_source *source, float *out) ERR_MUST_CHECK;
/* The fault that rows have raised so far. */
err_t weight_list_fault(struct weight_list *list) ERR_MUST_CHECK;
