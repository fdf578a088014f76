/* Our own declarations of cuBLASLt against its headers, where they are: compiled and never called. */
#include <cublasLt.h>
#include "kernels/cuda/cublaslt_types.h"

#define SAME(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #theirs)

SAME(CUBLASLT_OK, CUBLAS_STATUS_SUCCESS);
SAME(CUBLASLT_NOT_SUPPORTED, CUBLAS_STATUS_NOT_SUPPORTED);
SAME(CUBLASLT_OP_T, CUBLAS_OP_T);
SAME(CUBLASLT_COMPUTE_32F, CUBLAS_COMPUTE_32F);
SAME(CUBLASLT_TYPE_F32, CUDA_R_32F);
SAME(CUBLASLT_TYPE_BF16, CUDA_R_16BF);
SAME(CUBLASLT_TYPE_E4M3, CUDA_R_8F_E4M3);
SAME(CUBLASLT_LAYOUT_COLUMNS, CUBLASLT_MATRIX_LAYOUT_COLS);
SAME(CUBLASLT_OPERATION_TRANSPOSE_A, CUBLASLT_MATMUL_DESC_TRANSA);
SAME(CUBLASLT_OPERATION_A_SCALE, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER);
SAME(CUBLASLT_OPERATION_B_SCALE, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER);
SAME(CUBLASLT_OPERATION_A_SCALE_MODE, CUBLASLT_MATMUL_DESC_A_SCALE_MODE);
SAME(CUBLASLT_OPERATION_B_SCALE_MODE, CUBLASLT_MATMUL_DESC_B_SCALE_MODE);
SAME(CUBLASLT_SCALE_OUTER_VECTOR, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
SAME(CUBLASLT_PREFERENCE_WORKSPACE, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
SAME(sizeof(struct cublaslt_algorithm), sizeof(cublasLtMatmulAlgo_t));
SAME(sizeof(struct cublaslt_heuristic), sizeof(cublasLtMatmulHeuristicResult_t));
SAME(offsetof(struct cublaslt_heuristic, workspace_bytes),
     offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize));
SAME(offsetof(struct cublaslt_heuristic, status), offsetof(cublasLtMatmulHeuristicResult_t, state));
