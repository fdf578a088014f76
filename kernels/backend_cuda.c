/* Loads the CUDA backend from libbantam_cuda.so. The library is never unloaded. */
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "kernels/cuda/cuda_library.h"

#define LIBRARY_NAME "libbantam_cuda.so"

bool backend_cuda_parse(const char *name, int *device)
{
    *device = 0;
    if (strcmp(name, "cuda") == 0)
        return true;
    if (strncmp(name, "cuda:", 5) != 0)
        return false;
    const char *digits = name + 5;
    size_t n = strspn(digits, "0123456789");
    if (n == 0 || n > 3 || digits[n] != '\0')
        return false;
    *device = (int)strtol(digits, NULL, 10);
    return true;
}

/* The program's folder, with the slash; empty when the system does not say. */
static void program_folder(char folder[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", folder, PATH_MAX - 1);
    folder[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(folder, '/');
    folder[slash != NULL ? slash + 1 - folder : 0] = '\0';
}

static err_t load_failed(const char *path)
{
    const char *why = dlerror();
    return err_new(ERR_UNAVAILABLE, "%s cannot be loaded: %.300s; --device cpu works without it", path,
                   why ? why : "unknown error");
}

/* Where a file is there, it must load: a broken library is not passed over in silence. */
static err_t open_library(void **out)
{
    const char *named = getenv("BANTAM_CUDA_LIBRARY");
    if (named != NULL && *named != '\0') {
        *out = dlopen(named, RTLD_NOW | RTLD_LOCAL);
        return *out != NULL ? err_ok() : load_failed(named);
    }
    static const char *const places[] = {"", "../lib/", "../lib/bantam/"};
    char folder[PATH_MAX], path[2 * PATH_MAX];
    program_folder(folder);
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        snprintf(path, sizeof path, "%s%s" LIBRARY_NAME, folder, places[i]);
        if (*folder == '\0' || access(path, R_OK) != 0)
            continue;
        *out = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        return *out != NULL ? err_ok() : load_failed(path);
    }
    *out = dlopen(LIBRARY_NAME, RTLD_NOW | RTLD_LOCAL);
    if (*out != NULL)
        return err_ok();
    const char *why = dlerror(); /* that none is there, or what is wrong with one that is */
    return err_new(
        ERR_NOT_FOUND,
        LIBRARY_NAME
        " is neither beside the program (%.150s) nor in a library folder (%.150s): this build has no "
        "CUDA, or it was not installed; BANTAM_CUDA_LIBRARY names it elsewhere, --device cpu works "
        "without it",
        folder, why ? why : "unknown error");
}

err_t backend_cuda_create(const struct backend_cuda_options *options, struct backend **out)
{
    *out = NULL;
    void *handle;
    TRY(open_library(&handle));
    const struct cuda_library *library = dlsym(handle, CUDA_LIBRARY_SYMBOL);
    if (library == NULL)
        return err_new(ERR_UNAVAILABLE,
                       LIBRARY_NAME " has no " CUDA_LIBRARY_SYMBOL ": it is no library of Bantam; "
                                    "--device cpu works without it");
    if (library->abi != CUDA_LIBRARY_ABI || library->vtable_bytes != sizeof(struct backend_vtable))
        return err_new(ERR_UNAVAILABLE,
                       LIBRARY_NAME
                       " is of another build (interface %08x with %u bytes, this program has %08x with %zu): "
                       "build or install both together; --device cpu works without it",
                       library->abi, library->vtable_bytes, (unsigned)CUDA_LIBRARY_ABI,
                       sizeof(struct backend_vtable));
    err_t e = library->create(options, out);
    if (e.code == ERR_UNAVAILABLE)
        return err_prefix(e, "--device cuda does not work here (--device cpu does)");
    return e;
}
