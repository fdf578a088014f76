/* What a card gives to anybody, by CUDA's own functions: a large copy (bytes read and written) and, built
 * where cuBLASLt is, large products of random matrices. One JSON object a line. */
#if CEILINGS_HAS_PRODUCTS
#include <cublasLt.h>
#endif
#include <cuda_runtime_api.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include "base/alloc.h"
#include "base/error.h"

enum { REPEATS = 9 };
static const size_t COPY_BYTES_MAX = (size_t)4 << 30;

static err_t cuda_result(cudaError_t code, const char *what)
{
    return code == cudaSuccess ? err_ok() : err_new(ERR_INTERNAL, "%s: %s", what, cudaGetErrorString(code));
}

/* ---- Time ---- */

struct timer {
    cudaEvent_t begin, end;
};

static int compare(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Median seconds of a call that enqueues work on the default stream. */
static err_t median_seconds(err_t (*enqueue)(void *context), void *context, double *out)
{
    struct timer timer;
    float samples[REPEATS];
    TRY(cuda_result(cudaEventCreate(&timer.begin), "an event"));
    TRY(cuda_result(cudaEventCreate(&timer.end), "an event"));
    TRY(enqueue(context));
    TRY(enqueue(context));
    for (int i = 0; i < REPEATS; i++) {
        TRY(cuda_result(cudaEventRecord(timer.begin, NULL), "an event"));
        TRY(enqueue(context));
        TRY(cuda_result(cudaEventRecord(timer.end, NULL), "an event"));
        TRY(cuda_result(cudaEventSynchronize(timer.end), "the work"));
        TRY(cuda_result(cudaEventElapsedTime(&samples[i], timer.begin, timer.end), "its time"));
    }
    qsort(samples, REPEATS, sizeof *samples, compare);
    *out = (double)samples[REPEATS / 2] / 1e3;
    return err_ok();
}

static void report(const char *what, double value, const char *unit)
{
    (void)printf("{\"what\":\"%s\",\"value\":%.3f,\"unit\":\"%s\"}\n", what, value, unit);
    (void)fflush(stdout);
}

/* ---- Copy ---- */

struct copy {
    void *to, *from;
    size_t size_bytes;
};

static err_t enqueue_copy(void *context)
{
    const struct copy *copy = context;
    return cuda_result(
        cudaMemcpyAsync(copy->to, copy->from, copy->size_bytes, cudaMemcpyDeviceToDevice, NULL), "a copy");
}

/* Random bytes on the device, without the exponents that are infinite or not numbers. */
static err_t fill_random(void *to, size_t size_bytes, uint32_t mask)
{
    uint32_t *values = mem_alloc(size_bytes);
    if (!values)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %zu bytes", size_bytes);
    uint32_t state = 1;
    for (size_t i = 0; i < size_bytes / sizeof *values; i++) {
        state = state * 1664525u + 1013904223u;
        values[i] = (state ^ state >> 15) & mask;
    }
    err_t e = cuda_result(cudaMemcpy(to, values, size_bytes, cudaMemcpyHostToDevice), "random values");
    mem_free(values);
    return e;
}

static err_t measure_copy(void)
{
    size_t free_bytes, total_bytes;
    TRY(cuda_result(cudaMemGetInfo(&free_bytes, &total_bytes), "free memory"));
    struct copy copy = {.size_bytes =
                            free_bytes / 4 < COPY_BYTES_MAX ? free_bytes / 4 & ~(size_t)255 : COPY_BYTES_MAX};
    TRY(cuda_result(cudaMalloc(&copy.from, copy.size_bytes), "memory"));
    TRY(cuda_result(cudaMalloc(&copy.to, copy.size_bytes), "memory"));
    static const size_t CHUNK_BYTES = (size_t)64 << 20;
    for (size_t at = 0; at + CHUNK_BYTES <= copy.size_bytes; at += CHUNK_BYTES)
        if (at == 0)
            TRY(fill_random(copy.from, CHUNK_BYTES, UINT32_MAX));
        else
            TRY(cuda_result(
                cudaMemcpy((char *)copy.from + at, copy.from, CHUNK_BYTES, cudaMemcpyDeviceToDevice),
                "a copy"));
    double seconds;
    TRY(median_seconds(enqueue_copy, &copy, &seconds));
    report("copy", 2 * (double)copy.size_bytes / seconds / 1e9, "GB/s");
    TRY(cuda_result(cudaFree(copy.from), "memory"));
    return cuda_result(cudaFree(copy.to), "memory");
}

/* ---- Products ---- */

#if CEILINGS_HAS_PRODUCTS
enum { GEMM_SIZE = 8192, FP8_CAPABILITY = 89 };
static const size_t WORKSPACE_BYTES = (size_t)64 << 20;

static err_t blas_result(cublasStatus_t status, const char *what)
{
    return status == CUBLAS_STATUS_SUCCESS
               ? err_ok()
               : err_new(ERR_INTERNAL, "%s: cuBLASLt status %d", what, (int)status);
}

struct gemm {
    cublasLtHandle_t handle;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t in, out;
    cublasLtMatmulHeuristicResult_t algorithm;
    void *a, *b, *c, *workspace;
};

static err_t enqueue_gemm(void *context)
{
    struct gemm *g = context;
    const float one = 1, zero = 0;
    return blas_result(cublasLtMatmul(g->handle, g->operation, &one, g->a, g->in, g->b, g->in, &zero, g->c,
                                      g->out, g->c, g->out, &g->algorithm.algo, g->workspace, WORKSPACE_BYTES,
                                      NULL),
                       "a product");
}

/* C = A^T B, all of GEMM_SIZE squared: the form that FP8 has. */
static err_t plan_gemm(struct gemm *g, cudaDataType_t type)
{
    const cublasOperation_t transposed = CUBLAS_OP_T;
    TRY(blas_result(cublasLtCreate(&g->handle), "cuBLASLt"));
    TRY(blas_result(cublasLtMatmulDescCreate(&g->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F), "a product"));
    TRY(blas_result(cublasLtMatmulDescSetAttribute(g->operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed,
                                                   sizeof transposed),
                    "a product"));
    TRY(blas_result(cublasLtMatrixLayoutCreate(&g->in, type, GEMM_SIZE, GEMM_SIZE, GEMM_SIZE), "a layout"));
    TRY(blas_result(cublasLtMatrixLayoutCreate(&g->out, CUDA_R_16BF, GEMM_SIZE, GEMM_SIZE, GEMM_SIZE),
                    "a layout"));
    cublasLtMatmulPreference_t preference;
    TRY(blas_result(cublasLtMatmulPreferenceCreate(&preference), "a preference"));
    TRY(blas_result(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                                         &WORKSPACE_BYTES, sizeof WORKSPACE_BYTES),
                    "a preference"));
    int n_found = 0;
    TRY(blas_result(cublasLtMatmulAlgoGetHeuristic(g->handle, g->operation, g->in, g->in, g->out, g->out,
                                                   preference, 1, &g->algorithm, &n_found),
                    "an algorithm"));
    return n_found > 0 ? err_ok() : err_new(ERR_UNIMPLEMENTED, "cuBLASLt has no algorithm for this product");
}

/* mask: of two bf16 or four e4m3 values, the bits that may be set. */
static err_t measure_gemm(const char *what, cudaDataType_t type, size_t value_bytes, uint32_t mask)
{
    size_t n = (size_t)GEMM_SIZE * GEMM_SIZE;
    struct gemm g = {0};
    TRY(plan_gemm(&g, type));
    TRY(cuda_result(cudaMalloc(&g.a, n * value_bytes), "memory"));
    TRY(cuda_result(cudaMalloc(&g.b, n * value_bytes), "memory"));
    TRY(cuda_result(cudaMalloc(&g.c, n * 2), "memory"));
    TRY(cuda_result(cudaMalloc(&g.workspace, WORKSPACE_BYTES), "memory"));
    TRY(fill_random(g.a, n * value_bytes, mask));
    TRY(fill_random(g.b, n * value_bytes, mask));
    double seconds;
    TRY(median_seconds(enqueue_gemm, &g, &seconds));
    report(what, 2.0 * GEMM_SIZE * GEMM_SIZE * GEMM_SIZE / seconds / 1e12, "TFLOP/s");
    return err_ok();
}

static err_t measure_products(void)
{
    struct cudaDeviceProp properties;
    TRY(cuda_result(cudaGetDeviceProperties(&properties, 0), "the GPU"));
    TRY(measure_gemm("GEMM bf16", CUDA_R_16BF, 2, 0xbfffbfff)); /* magnitudes below 2 */
    if (properties.major * 10 + properties.minor < FP8_CAPABILITY)
        return err_ok();
    return measure_gemm("GEMM FP8", CUDA_R_8F_E4M3, 1, 0xbfbfbfbf);
}
#else
static err_t measure_products(void)
{
    return err_ok();
}
#endif

int main(void)
{
    err_t e = measure_copy();
    if (e.code == ERR_OK)
        e = measure_products();
    if (e.code != ERR_OK)
        (void)fprintf(stderr, "ceilings: %s\n", e.message);
    return e.code == ERR_OK ? 0 : 1;
}
