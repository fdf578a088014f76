/* Order on global memory within a launch, of kernels that report their accesses: what a thread wrote may be
 * read by its block behind barriers, and by another block, or by warps that no barrier brings together, only
 * behind "the last one does the rest": barrier, one thread's fence_device(), atomic on a counter there;
 * atomic on it, fence_device(), barrier here. Values of 2 bytes and more. */
#pragma once

#include "tests/cuda/emulator/emu_race.h"

/* A worker has its first block of a grid before it. */
void emu_global_begin(struct emu_worker *worker);
void emu_global_destroy(struct emu_worker *worker);
/* The running thread accesses memory that is not shared; own [n]: its clock. */
void emu_global_access(struct emu_worker *worker, const uint32_t *own, uint32_t n, const void *at,
                       size_t size, enum emu_access access);
/* It is in fence_device(). */
void emu_global_fence(struct emu_worker *worker, const uint32_t *own, uint32_t n);
