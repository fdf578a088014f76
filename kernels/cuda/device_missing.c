#include "kernels/cuda/device_missing.h"

#include <stdio.h>
#include <string.h>

err_t device_missing(const struct device_missing *missing)
{
    int driver = missing->driver, runtime = missing->runtime;
    if (driver == 0)
        return err_new(
            ERR_UNAVAILABLE,
            "no NVIDIA driver is loaded, this program needs one for CUDA %d.%d (nvidia-smi shows it)",
            runtime / 1000, runtime % 1000 / 10);
    if (missing->is_too_old)
        return err_new(ERR_UNAVAILABLE,
                       "the NVIDIA driver is for CUDA %d.%d, this program needs %d.%d: update the driver",
                       driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    char visible[96] = "";
    if (missing->visible != NULL)
        (void)snprintf(visible, sizeof visible, "; CUDA_VISIBLE_DEVICES is \"%.48s\"", missing->visible);
    return err_new(ERR_UNAVAILABLE, "the NVIDIA driver shows no GPU: %s%s", missing->says, visible);
}

bool device_lacks_code(const char *error_name)
{
    static const char *const names[] = {
        "cudaErrorNoKernelImageForDevice", "cudaErrorInvalidDeviceFunction",
        "cudaErrorUnsupportedPtxVersion",  "cudaErrorInvalidPtx",
        "cudaErrorJitCompilerNotFound",    "cudaErrorJitCompilationDisabled",
        "cudaErrorSymbolNotFound",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(error_name, names[i]) == 0)
            return true;
    return false;
}
