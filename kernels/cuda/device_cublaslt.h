/* cuBLASLt, loaded when somebody wants its products: from the file that BANTAM_CUBLASLT_LIBRARY names (that
 * of the nvidia-cublas Python package will do), else where the system's loader finds libcublasLt.so.13 or
 * .12. Calls no function of the CUDA runtime. One thread, with the handle's GPU as its current one. */
#pragma once

#include "base/error.h"
#include "kernels/cuda/device_api.h"

struct cublaslt;
struct cublaslt_product;

/* ERR_UNAVAILABLE without the library or with one that is too old, ERR_INTERNAL when it refuses; messages say
 * what would help. */
err_t cublaslt_create(struct cublaslt **out) ERR_MUST_CHECK;
void cublaslt_destroy(struct cublaslt *blas); /* its products are destroyed */
uint32_t cublaslt_version(const struct cublaslt *blas);

/* As the device table's product_create, .._destroy and product; stream: a cudaStream_t. */
err_t cublaslt_product_create(struct cublaslt *blas, const struct product_shape *shape,
                              struct cublaslt_product **out) ERR_MUST_CHECK;
void cublaslt_product_destroy(struct cublaslt_product *product);
err_t cublaslt_product_run(struct cublaslt_product *product, const struct product_call *call,
                           void *stream) ERR_MUST_CHECK;
