/* The tensors of one quantised module of a checkpoint, read row by row in the terms of quant_format.h
 * whatever way they are stored (quant_config.h). Formats that pack along the outputs are staged: what a rank
 * needs of the module is held in memory while its rows are read. */
#pragma once

#include <stdint.h>
#include "base/error.h"
#include "model/checkpoint.h"
#include "model/quant_config.h"

/* Part of a tensor [rows, columns] in memory. */
struct quant_slab {
    uint8_t *bytes; /* [n_rows][row_bytes]; NULL = not staged */
    uint64_t first_row, n_rows;
    uint64_t first_byte, row_bytes; /* of a row of the tensor */
};

struct quant_tensors {
    const struct quant_config *config;
    struct checkpoint *checkpoint;
    struct quant_format format;
    uint64_t n_out, n_in;                                   /* of the whole module */
    uint64_t n_groups;                                      /* of a row */
    const struct checkpoint_tensor *codes, *scales, *zeros; /* zeros NULL: none are needed */
    uint32_t *group_of;  /* [n_in]: act-order; NULL: groups are neighbours */
    bool scale_is_whole; /* one for all outputs */
    struct quant_slab code_slab, scale_slab, zero_slab;
};

/* A module's share of a rank: outputs [first_out, first_out + n_out) of inputs [first_in, first_in + n_in).
 */
struct quant_extent {
    uint64_t first_out, n_out, first_in, n_in;
};

/* Finds the tensors of a module whose matrix is [n_out, n_in] and checks shapes, dtypes and group indices.
 * NOT_FOUND, INVALID_ARGUMENT, DATA_LOSS; messages name file and tensor. directory: for messages. The caller
 * frees *out before the checkpoint is closed. */
err_t quant_tensors_bind(const struct quant_config *config, struct checkpoint *checkpoint,
                         const char *directory, const char *module, uint64_t n_out, uint64_t n_in,
                         struct quant_tensors **out) ERR_MUST_CHECK;
void quant_tensors_free(struct quant_tensors *tensors); /* NULL is fine */

/* Memory that staging takes. */
uint64_t quant_tensors_stage_bytes(const struct quant_tensors *tensors, const struct quant_extent *extent);
/* Before rows of the extent are read; unstage after. DATA_LOSS, IO, RESOURCE_EXHAUSTED. */
err_t quant_tensors_stage(struct quant_tensors *tensors, const struct quant_extent *extent) ERR_MUST_CHECK;
void quant_tensors_unstage(struct quant_tensors *tensors); /* idempotent */

/* Inputs [first, first + n) of outputs [row, row + n_rows), which have been staged, to out[0], ..; their
 * buffers are the caller's, with room for all groups where tensors->group_of is not NULL; group_of is set.
 * Several threads at once. DATA_LOSS also for a scale that is no number. */
err_t quant_tensors_read(const struct quant_tensors *tensors, uint64_t row, size_t n_rows, uint64_t first,
                         size_t n, struct quant_row *out) ERR_MUST_CHECK;
