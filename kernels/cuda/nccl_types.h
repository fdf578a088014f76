/* Of NCCL's header, which is not needed to build: the types, numbers and functions that are used. Source:
 * nccl.h of version 2; these have kept their form since 2.4. Where the header is found, the tests hold the
 * numbers against it. */
#pragma once

#include <stddef.h>

typedef struct ncclComm *nccl_comm;

enum nccl_numbers {
    NCCL_SUCCESS = 0,
    NCCL_SYSTEM_ERROR = 2,
    NCCL_INVALID_ARGUMENT = 4,
    NCCL_REMOTE_ERROR = 6,
    NCCL_IN_PROGRESS = 7,
    NCCL_UINT8 = 1,
};

/* M(member, symbol, return type, parameters) */
#define NCCL_FUNCTIONS(M)                                                                                    \
    M(get_version, ncclGetVersion, int, (int *))                                                             \
    M(error_string, ncclGetErrorString, const char *, (int))                                                 \
    M(comm_init_all, ncclCommInitAll, int, (nccl_comm *, int n_devices, const int *))                        \
    M(comm_destroy, ncclCommDestroy, int, (nccl_comm))                                                       \
    M(comm_abort, ncclCommAbort, int, (nccl_comm))                                                           \
    M(comm_async_error, ncclCommGetAsyncError, int, (nccl_comm, int *))                                      \
    M(all_gather, ncclAllGather, int,                                                                        \
      (const void *send, void *receive, size_t n, int type, nccl_comm, void *stream))

struct nccl_functions {
#define M(member, symbol, type, parameters) type(*member) parameters;
    NCCL_FUNCTIONS(M)
#undef M
};
