/* Requests to the mock provider as bytes. The first byte says in which form, the second which fault its
 * answer has. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "base/assert.h"
#include "benchmarks/mock_answer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { STEPS_MAX = 100000, STREAM_BYTES_MAX = 64 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct mock_options options = mock_options_default();
    struct mock_fault fault = {.course = COURSE_WHOLE};
    struct mock_answer *answer;
    const char *what, *name = mock_fault_name(data[1] % 64, &what);
    options.huge_bytes = 1000;
    if (name)
        ASSERT(mock_fault_parse(name, strlen(name), &fault).code == ERR_OK);
    err_t e = mock_answer_make(&options, data[0] % 2 ? MOCK_ANTHROPIC : MOCK_OPENAI, (const char *)data + 2,
                               size - 2, &fault, data[0], &answer);
    if (e.code != ERR_OK)
        return 0;
    struct buffer out = {.limit_bytes = STREAM_BYTES_MAX};
    size_t told_bytes;
    for (int i = 0; i < STEPS_MAX && mock_answer_next(answer, &out, &told_bytes) == MOCK_MORE; i++)
        buffer_clear(&out);
    buffer_free(&out);
    mock_answer_free(answer);
    return 0;
}
