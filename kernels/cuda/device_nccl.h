/* NCCL, loaded when the first group is made: a machine with one GPU needs none. From the file that
 * BANTAM_NCCL_LIBRARY names (that of the nvidia-nccl Python package will do), else where the system's loader
 * finds libnccl.so.2. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

struct nccl_group;

/* One communicator a rank: ordinals[i] is the GPU of rank i. ERR_UNAVAILABLE without the library or with one
 * that is too old, ERR_INTERNAL when NCCL refuses; messages say what would help. One thread. */
err_t nccl_group_create(const int *ordinals, uint32_t n_ranks, struct nccl_group **out) ERR_MUST_CHECK;
void nccl_group_destroy(struct nccl_group *group);
/* whole[r] = part of rank r, [n_ranks][part_bytes], enqueued on stream (a cudaStream_t) of the rank's GPU.
 * Each rank's own thread. */
err_t nccl_all_gather(struct nccl_group *group, uint32_t rank, void *stream, const void *part, void *whole,
                      size_t part_bytes) ERR_MUST_CHECK;
/* ERR_INTERNAL when NCCL noticed in the background that a peer is gone. The rank's own thread. */
err_t nccl_check(struct nccl_group *group, uint32_t rank) ERR_MUST_CHECK;
/* Ends the rank's communicator and what it has under way on the GPU. The rank's own thread; idempotent. */
void nccl_abort(struct nccl_group *group, uint32_t rank);
