/* A target with a bug, for fuzz_selftest.sh: the runner must find it, save the input, and fail again on that
 * file. */
#include <stdint.h>
#include <string.h>
#include "base/assert.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ASSERT(size < 4 || memcmp(data, "BUG!", 4) != 0);
    return 0;
}
