/* Makes GGUF files in memory, for tests: keys and tensors one after the other, right unless a test breaks
 * them. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/gguf.h"

struct gguf_builder {
    struct buffer keys, infos, data;
    uint64_t n_keys, n_tensors;
    uint32_t version;   /* 0 = 3 */
    uint32_t alignment; /* 0 = the format's default; written as a key by builder_finish where it is not */
};

void builder_u32(struct gguf_builder *builder, const char *key, uint32_t value);
void builder_f32(struct gguf_builder *builder, const char *key, float value);
void builder_bool(struct gguf_builder *builder, const char *key, uint8_t value);
void builder_text(struct gguf_builder *builder, const char *key, const char *value);
void builder_texts(struct gguf_builder *builder, const char *key, const char *const *values, size_t n);
/* item: the bytes of one, of n behind one another. */
void builder_array(struct gguf_builder *builder, const char *key, enum gguf_type item_type, const void *items,
                   size_t item_bytes, size_t n);
/* dims: the fastest first. bytes: [size_bytes] of data. */
void builder_tensor(struct gguf_builder *builder, const char *name, uint32_t type, const uint64_t *dims,
                    uint32_t n_dims, const void *bytes, size_t size_bytes);
/* The file, which the caller frees; the builder is empty afterwards. */
struct buffer builder_finish(struct gguf_builder *builder);
enum { BUILDER_PATH = 64 };
/* Writes a file's bytes into a new one in /tmp, whose path the caller unlinks, and frees them. */
void builder_write_temporary(struct buffer *file, char path[BUILDER_PATH]);
