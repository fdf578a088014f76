/* The header of a safetensors file: 8 bytes of length, JSON, then the data of the tensors.
 * Format: https://github.com/huggingface/safetensors (README, "Format"). Strict: what the format forbids is
 * an error that names the file and the tensor. Parsing works on bytes in memory and never touches the data.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

enum {
    SAFETENSORS_HEADER_MAX_BYTES = 100000000, /* the format's own limit */
    SAFETENSORS_TENSORS_MAX = 1 << 20,
    SAFETENSORS_DIMS_MAX = 8,
    SAFETENSORS_NAME_MAX = 512, /* bytes */
};

enum tensor_dtype {
    TENSOR_F64,
    TENSOR_F32,
    TENSOR_F16,
    TENSOR_BF16,
    TENSOR_F8_E4M3,
    TENSOR_F8_E5M2,
    TENSOR_I64,
    TENSOR_I32,
    TENSOR_I16,
    TENSOR_I8,
    TENSOR_U64,
    TENSOR_U32,
    TENSOR_U16,
    TENSOR_U8,
    TENSOR_BOOL,
    TENSOR_GGUF = 64, /* of GGUF files only: this + the type's number there */
};

struct tensor_info {
    char *name;
    enum tensor_dtype dtype;
    uint32_t n_dims;
    uint64_t shape[SAFETENSORS_DIMS_MAX];
    uint64_t begin, end; /* bytes, from the start of the data section */
};

struct safetensors {
    struct tensor_info *tensors; /* [n_tensors], ascending by begin: the data section has no hole */
    size_t n_tensors;
    uint64_t data_offset; /* bytes from the start of the file to the data section */
};

const char *tensor_dtype_name(enum tensor_dtype dtype);
size_t tensor_dtype_bytes(enum tensor_dtype dtype); /* of one value; no TENSOR_GGUF */
/* "[4, 64]" into text[text_bytes]; returns text. */
const char *tensor_shape_text(const uint64_t *shape, uint32_t n_dims, char *text, size_t text_bytes);

/* Bytes of the JSON after the 8-byte prefix. DATA_LOSS when it is longer than the format or the file allows.
 */
err_t safetensors_header_bytes(const char *file, const uint8_t prefix[8], uint64_t file_bytes,
                               uint64_t *out) ERR_MUST_CHECK;
/* header: the JSON, [header_bytes]; file_bytes: size of the whole file; file is for messages. DATA_LOSS for a
 * file that breaks the format; RESOURCE_EXHAUSTED past a limit above. Release with safetensors_free. */
err_t safetensors_parse(const char *file, const char *header, size_t header_bytes, uint64_t file_bytes,
                        struct safetensors *out) ERR_MUST_CHECK;
void safetensors_free(struct safetensors *file); /* idempotent */
