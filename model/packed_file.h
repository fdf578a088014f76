/* The file of a packed model: weights in a backend's own layout, as `bantam quantize` writes them, to be
 * mapped and computed with where they are. It stands in a directory as model.bantam, beside what tells of the
 * model (config.json, or the head of a GGUF file) and of its text.
 *
 * All numbers are little-endian; texts are padded with NUL, what is unused is zero.
 *
 *     0     magic "BANTAMPK"
 *     8     u32 version (1), u32 entries
 *     16    u64 bytes of the file, u64 parameters of the model
 *     32    u64 fingerprint of the configuration, u64 of the weights (fingerprint.h)
 *     48    u64 matrices that keep the codes of a GGUF file
 *     56    u32 inputs per scale of --quantization-group, u32 0
 *     64    [32] name of the layout, [16] dtype, [16] quantization
 *     128   u64 hash of the entries, u64 hash of bytes 0 .. 135
 *     4096  entries, 256 bytes each:
 *           0   [96] name of the tensor, of stacked ones the first's
 *           96  u64 outputs, u64 inputs; a vector has one output
 *           112 u32 1 = matrix, 2 = vector; u32 1 = it has biases
 *           120 u32 sections (0 of a vector), u32 0
 *           128 [3] sections: u64 outputs, u32 group, u32 1 = of ready codes, [8] format
 *           200 u64 offset, u64 bytes, u64 hash
 *     then  the data, in the order of the entries, each at the next multiple of 4096 (matrices: the backend's
 *           packed bytes) or 64 (vectors: f32), the last at the file's end
 *
 * Hashes are XXH3-64: of the entries with seed 0, of the header likewise; of data, over the hashes of their
 * chunks of 1 MiB (seed: the chunk's number).
 *
 * A reader takes nothing for granted: counts, names, shapes and places are checked with checked arithmetic
 * before anything is used, data against their hashes before they are computed with. The file must not be
 * changed while it is mapped: it is replaced by another one, never written to. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "base/mapped_file.h"
#include "base/thread_pool.h"
#include "kernels/kernels.h"
#include "model/model.h"
#include "model/weights.h"

#define PACKED_FILE "model.bantam"

enum {
    PACKED_VERSION = 1,
    PACKED_HEADER_BYTES = 144, /* up to the end of its hash */
    PACKED_ENTRIES_AT = 4096,
    PACKED_ENTRY_BYTES = 256,
    PACKED_ENTRIES_MAX = 1 << 16,
    PACKED_MATRIX_ALIGN = 4096,
    PACKED_VECTOR_ALIGN = 64,
    PACKED_CHUNK_BYTES = 1 << 20,
    PACKED_LAYOUT_MAX = 32, /* bytes incl. NUL */
};

struct packed_entry {
    char name[WEIGHT_NAME_MAX];
    size_t n_out, n_in;
    bool is_vector, has_bias;
    uint32_t n_sections; /* 1..WEIGHT_SECTIONS_MAX; of a vector 0 */
    struct weight_section sections[WEIGHT_SECTIONS_MAX];
    uint64_t offset, size_bytes;
    uint64_t hash;
};

struct packed_file {
    char *path; /* owned; for messages */
    struct mapped_file map;
    const uint8_t *data; /* the file */
    char layout[PACKED_LAYOUT_MAX];
    enum model_dtype dtype; /* never AUTO */
    enum model_quantization quantization;
    uint32_t group; /* of --quantization-group */
    uint64_t n_parameters, n_of_blocks;
    uint64_t config_fingerprint, weights_fingerprint;
    struct packed_entry *entries; /* [n_entries] owned */
    uint32_t n_entries;
};

/* PATH/model.bantam, where that is there. */
bool packed_file_is_in(const char *directory);

/* Checks everything but the data. NOT_FOUND, IO; DATA_LOSS for a file that is cut short or broken,
 * UNIMPLEMENTED for another version; the message names the file. */
err_t packed_file_open(const char *directory, struct packed_file *out) ERR_MUST_CHECK;
/* The same of bytes in memory, which must outlive *out. */
err_t packed_file_parse(const char *path, const uint8_t *data, size_t size_bytes,
                        struct packed_file *out) ERR_MUST_CHECK;
void packed_file_close(struct packed_file *file); /* idempotent; zeroed memory is fine */

/* What the weights were packed with, in place of what the options leave open. INVALID_ARGUMENT where they ask
 * for something else. */
err_t packed_file_adopt(const struct packed_file *file, struct model_options *options) ERR_MUST_CHECK;
/* Whether the backend computes with such weights: UNIMPLEMENTED, with what to do, where it does not. */
err_t packed_file_suits(const struct packed_file *file, const struct backend *backend) ERR_MUST_CHECK;

/* Holds the file's weights against a list that has no checkpoint, and gives the list their formats. backend:
 * one that the file suits. DATA_LOSS where they are others, or other in shape. The list borrows the file. */
err_t packed_file_bind(const struct packed_file *file, const struct backend *backend,
                       struct weight_list *list) ERR_MUST_CHECK;

/* Holds the entry's data against its hash, on the threads of the pool: DATA_LOSS. */
err_t packed_file_verify(const struct packed_file *file, const struct packed_entry *entry,
                         struct thread_pool *pool) ERR_MUST_CHECK;
/* Asks the system to read the entry ahead. */
void packed_file_prefetch(const struct packed_file *file, const struct packed_entry *entry);

/* What the file calls a format. */
const char *packed_format_name(enum weight_format format);
/* Where an entry of so many bytes begins behind one that ends at `end`. */
uint64_t packed_entry_offset(uint64_t end, bool is_vector);
/* Of an entry's data: over those of its chunks. */
uint64_t packed_chunks_hash(const uint64_t *hashes, size_t n);
