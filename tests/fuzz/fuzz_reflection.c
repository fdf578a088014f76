/* Reflection requests: any bytes are answered or refused. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "proto/reflection.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* Of the exact size, so that reading past the end is seen. */
    uint8_t *bytes = mem_alloc(size > 0 ? size : 1);
    ASSERT(bytes);
    memcpy(bytes, data, size);
    struct buffer answer = {.limit_bytes = REFLECTION_ANSWER_BYTES_MAX + 2 * REFLECTION_REQUEST_BYTES_MAX};
    err_t e = reflection_answer(bytes, size, &answer);
    ASSERT(e.code == ERR_OK || e.code == ERR_INVALID_ARGUMENT);
    ASSERT(e.code != ERR_OK || answer.size >= size + 4); /* the request comes back with an answer */
    buffer_free(&answer);
    mem_free(bytes);
    return 0;
}
