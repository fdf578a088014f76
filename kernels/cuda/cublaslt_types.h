/* Of cuBLASLt's headers, which are not needed to build: the types, numbers and functions that are used.
 * Source: cublasLt.h, cublas_api.h and library_types.h of CUDA 13.0; where the headers are found, the tests
 * hold the numbers against them. */
#pragma once

#include <stddef.h>
#include <stdint.h>

typedef struct cublaslt_context *cublaslt_handle;
typedef struct cublaslt_operation *cublaslt_operation;
typedef struct cublaslt_layout *cublaslt_layout;
typedef struct cublaslt_preference *cublaslt_preference;

struct cublaslt_algorithm {
    uint64_t data[8];
};

struct cublaslt_heuristic {
    struct cublaslt_algorithm algorithm;
    size_t workspace_bytes;
    int status;
    float waves;
    int reserved[4];
};

enum cublaslt_numbers {
    CUBLASLT_OK = 0,
    CUBLASLT_NOT_SUPPORTED = 15,
    CUBLASLT_OP_T = 1,
    CUBLASLT_COMPUTE_32F = 68,
    CUBLASLT_TYPE_F32 = 0,
    CUBLASLT_TYPE_BF16 = 14,
    CUBLASLT_TYPE_E4M3 = 28,
    CUBLASLT_LAYOUT_COLUMNS = 3,
    CUBLASLT_OPERATION_TRANSPOSE_A = 3,
    CUBLASLT_OPERATION_A_SCALE = 17,
    CUBLASLT_OPERATION_B_SCALE = 18,
    CUBLASLT_OPERATION_A_SCALE_MODE = 31,
    CUBLASLT_OPERATION_B_SCALE_MODE = 32,
    CUBLASLT_SCALE_OUTER_VECTOR = 3, /* a scale per row of A, one per column of B */
    CUBLASLT_PREFERENCE_WORKSPACE = 1,
};

/* M(member, symbol, return type, parameters) */
#define CUBLASLT_FUNCTIONS(M)                                                                                \
    M(version, cublasLtGetVersion, size_t, (void))                                                           \
    M(status_string, cublasLtGetStatusString, const char *, (int))                                           \
    M(create, cublasLtCreate, int, (cublaslt_handle *))                                                      \
    M(destroy, cublasLtDestroy, int, (cublaslt_handle))                                                      \
    M(operation_create, cublasLtMatmulDescCreate, int, (cublaslt_operation *, int compute, int scale_type))  \
    M(operation_destroy, cublasLtMatmulDescDestroy, int, (cublaslt_operation))                               \
    M(operation_set, cublasLtMatmulDescSetAttribute, int, (cublaslt_operation, int, const void *, size_t))   \
    M(layout_create, cublasLtMatrixLayoutCreate, int,                                                        \
      (cublaslt_layout *, int type, uint64_t rows, uint64_t columns, int64_t stride))                        \
    M(layout_destroy, cublasLtMatrixLayoutDestroy, int, (cublaslt_layout))                                   \
    M(layout_set, cublasLtMatrixLayoutSetAttribute, int, (cublaslt_layout, int, const void *, size_t))       \
    M(preference_create, cublasLtMatmulPreferenceCreate, int, (cublaslt_preference *))                       \
    M(preference_destroy, cublasLtMatmulPreferenceDestroy, int, (cublaslt_preference))                       \
    M(preference_set, cublasLtMatmulPreferenceSetAttribute, int,                                             \
      (cublaslt_preference, int, const void *, size_t))                                                      \
    M(choose, cublasLtMatmulAlgoGetHeuristic, int,                                                           \
      (cublaslt_handle, cublaslt_operation, cublaslt_layout a, cublaslt_layout b, cublaslt_layout c,         \
       cublaslt_layout d, cublaslt_preference, int n_wanted, struct cublaslt_heuristic *, int *n_found))     \
    M(check, cublasLtMatmulAlgoCheck, int,                                                                   \
      (cublaslt_handle, cublaslt_operation, cublaslt_layout a, cublaslt_layout b, cublaslt_layout c,         \
       cublaslt_layout d, const struct cublaslt_algorithm *, struct cublaslt_heuristic *))                   \
    M(multiply, cublasLtMatmul, int,                                                                         \
      (cublaslt_handle, cublaslt_operation, const void *alpha, const void *a, cublaslt_layout,               \
       const void *b, cublaslt_layout, const void *beta, const void *c, cublaslt_layout, void *d,            \
       cublaslt_layout, const struct cublaslt_algorithm *, void *workspace, size_t workspace_bytes,          \
       void *stream))

struct cublaslt_functions {
#define M(member, symbol, type, parameters) type(*member) parameters;
    CUBLASLT_FUNCTIONS(M)
#undef M
};
