/* What a user is told where there is no GPU to open, or no code for it: in words of our own, since CUDA calls
 * a driver that is not there one that is too old. */
#pragma once

#include <stdbool.h>
#include "base/error.h"

/* What cudaDriverGetVersion, cudaRuntimeGetVersion and cudaGetDeviceCount said. */
struct device_missing {
    int driver, runtime; /* versions, 13000 for 13.0; driver 0: none is loaded */
    bool is_too_old;     /* the driver for this runtime */
    const char *says;    /* CUDA's words */
    const char *visible; /* CUDA_VISIBLE_DEVICES, NULL = not set */
};

/* ERR_UNAVAILABLE. */
err_t device_missing(const struct device_missing *missing);

/* Whether an error means that there is neither machine code for the card nor PTX that its driver can compile,
 * and not that the device has failed. By what cudaGetErrorName calls it: not every CUDA has every number. */
bool device_lacks_code(const char *error_name);
