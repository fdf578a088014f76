/* Any bytes as a safetensors file: an error, or a layout that lies within the file. */
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "model/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void parse(const uint8_t *data, size_t size, uint64_t header_bytes)
{
    ASSERT(header_bytes <= size - 8);
    /* The header exactly as long as it says, so that a sanitizer sees a read past it. */
    char *header = mem_alloc((size_t)header_bytes + (header_bytes == 0));
    ASSERT(header);
    memcpy(header, data + 8, (size_t)header_bytes);
    struct safetensors file;
    err_t e = safetensors_parse("input", header, (size_t)header_bytes, size, &file);
    mem_free(header);
    if (e.code != ERR_OK) {
        ASSERT(e.message[0] != '\0' && strlen(e.message) < ERR_MESSAGE_MAX);
        return;
    }
    uint64_t expected = 0;
    for (size_t i = 0; i < file.n_tensors; i++) {
        const struct tensor_info *tensor = &file.tensors[i];
        uint64_t bytes = tensor_dtype_bytes(tensor->dtype);
        for (uint32_t d = 0; d < tensor->n_dims; d++)
            bytes *= tensor->shape[d];
        ASSERT(tensor->begin == expected && tensor->end - tensor->begin == bytes);
        expected = tensor->end;
    }
    ASSERT(file.data_offset + expected == size);
    safetensors_free(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 8)
        return 0;
    uint64_t header_bytes;
    if (safetensors_header_bytes("input", data, size, &header_bytes).code == ERR_OK)
        parse(data, size, header_bytes);
    /* Most mutations change the length: go on with the header that the text itself suggests. */
    size_t end = size;
    while (end > 8 && data[end - 1] != '}')
        end--;
    parse(data, size, end - 8);
    return 0;
}
