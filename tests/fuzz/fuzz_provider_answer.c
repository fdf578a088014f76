/* Answers of providers as bytes. The first byte says which format, stream or body, and in which pieces they
 * come: the answer must not depend on those. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "tests/router/answer_script.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    enum provider_kind kind = data[0] % 2 ? PROVIDER_ANTHROPIC : PROVIDER_COMPATIBLE;
    bool is_stream = data[0] / 2 % 2 == 0;
    size_t n = size - 1, piece = (size_t)data[0] / 4 % 17 + 1;
    char *bytes = mem_strndup((const char *)data + 1, n);
    ASSERT(bytes);
    char *whole = answer_script(kind, bytes, n, SIZE_MAX, is_stream),
         *cut = answer_script(kind, bytes, n, piece, is_stream);
    ASSERT(strcmp(whole, cut) == 0);
    mem_free(whole);
    mem_free(cut);
    mem_free(bytes);
    return 0;
}
