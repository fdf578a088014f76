/* A calibration's file as bytes. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "base/assert.h"
#include "router/policy/confidence.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct calibration calibration, again;
    err_t e = calibration_parse((const char *)data, size, &calibration);
    ASSERT(e.code == ERR_OK || e.code == ERR_INVALID_ARGUMENT);
    if (e.code != ERR_OK)
        return 0;
    double last = 0;
    for (int i = -1; i <= 11; i++) {
        double p = calibration_estimate(&calibration, i / 10.0);
        ASSERT(p >= last && p <= 1);
        last = p;
    }
    struct buffer text = {.limit_bytes = CALIBRATION_TEXT_BYTES_MAX};
    if (calibration_write(&calibration, &text).code == ERR_OK) {
        ASSERT(calibration_parse(text.data, text.size, &again).code == ERR_OK);
        ASSERT(memcmp(&calibration, &again, sizeof again) == 0);
    }
    buffer_free(&text);
    return 0;
}
