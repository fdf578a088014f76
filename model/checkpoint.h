/* The tensors of a model by name: of a Hugging Face directory (model.safetensors, or the shards that
 * model.safetensors.index.json lists; shard names are plain file names, never paths), or of a GGUF file.
 *
 * Data are read with pread, not mapped: a file that is cut short after its header was read gives an error
 * instead of a SIGBUS, and what was read once does not stay in the process. Reading is safe from several
 * threads at once; opening and closing are not. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "model/safetensors.h"

enum { CHECKPOINT_SHARDS_MAX = 1024 };

struct checkpoint;

struct checkpoint_tensor {
    const struct tensor_info *info;
    uint32_t shard;
    bool used; /* somebody asked for it by checkpoint_find */
};

/* Reads every header. NOT_FOUND for a missing file, DATA_LOSS for a malformed one or for a tensor that two
 * shards hold or that the index puts in a shard that lacks it; the message names file and tensor. */
err_t checkpoint_open(const char *path, struct checkpoint **out) ERR_MUST_CHECK;
void checkpoint_close(struct checkpoint *checkpoint); /* NULL is fine */

/* NULL when there is none of that name; marks it as used. */
const struct checkpoint_tensor *checkpoint_find(struct checkpoint *checkpoint, const char *name);
/* All tensors, ascending by name. */
size_t checkpoint_count(const struct checkpoint *checkpoint);
const struct checkpoint_tensor *checkpoint_at(const struct checkpoint *checkpoint, size_t index);
/* Path of the file that holds a tensor, for messages. */
const char *checkpoint_file(const struct checkpoint *checkpoint, const struct checkpoint_tensor *tensor);

/* Whether checkpoint_read_f32 can: F32, F16, BF16, and the quantised types of block_formats.h. */
bool checkpoint_can_read(const struct checkpoint_tensor *tensor);
/* Values [first, first + n) of such a tensor as f32 to out: [n]. DATA_LOSS when the file has become shorter,
 * IO. */
err_t checkpoint_read_f32(const struct checkpoint *checkpoint, const struct checkpoint_tensor *tensor,
                          uint64_t first, size_t n, float *out) ERR_MUST_CHECK;
/* Raw bytes [first, first + n) of a tensor. */
err_t checkpoint_read_bytes(const struct checkpoint *checkpoint, const struct checkpoint_tensor *tensor,
                            uint64_t first, size_t n, void *out) ERR_MUST_CHECK;
/* Asks the system to read the tensor ahead. */
void checkpoint_prefetch(const struct checkpoint *checkpoint, const struct checkpoint_tensor *tensor);
