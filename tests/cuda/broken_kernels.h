/* What is wrong with a kernel of broken_kernels.cu. Each kernel is sound but for one flaw;
 * test_broken_kernels.c holds that the emulator finds it. */
#pragma once

/* F(flaw, shape of kernel, what is wrong). Shapes: tile (64 threads, copies ahead and mma), bulk (64 threads,
 * bulk copies ahead), group (128 threads, wgmma), warp (64 threads, one exchange), last (blocks of 64
 * threads, of which the last one to be done adds what all have written), pair (the same with the two warps of
 * a block), late (64 threads, of which one waits
 * for the launch in front). */
#define FLAW_LIST(F)                                                                                         \
    F(TILE_SOUND, tile, "nothing")                                                                           \
    F(NO_COPY_WAIT, tile, "no copy_async_wait before the tile is read")                                      \
    F(SHORT_COPY_WAIT, tile, "copy_async_wait(2) where 1 is right")                                          \
    F(NO_BARRIER, tile, "no barrier between the wait and the other warp's reads")                            \
    F(NO_BARRIER_AFTER, tile, "no barrier between reads and the copies that overwrite")                      \
    F(WRONG_FRAGMENT, tile, "row addresses of two ldmatrix matrices exchanged")                              \
    F(WRONG_COLUMN, tile, "accumulators stored as if the columns were lane / 4")                             \
    F(PAST_THE_END, tile, "a store past the end of shared memory")                                           \
    F(BULK_SOUND, bulk, "nothing")                                                                           \
    F(NO_MBARRIER_WAIT, bulk, "the tile is read without waiting for its mbarrier")                           \
    F(WRONG_PARITY, bulk, "mbarrier_wait for the other parity")                                              \
    F(TOO_FEW_BYTES, bulk, "a copy is shorter than what the mbarrier expects")                               \
    F(TOO_MANY_BYTES, bulk, "a copy is longer than what the mbarrier expects")                               \
    F(NO_INIT_FENCE, bulk, "no fence_mbarrier_init")                                                         \
    F(NO_INIT, bulk, "no mbarrier_init of the second barrier")                                               \
    F(MISALIGNED, bulk, "a bulk copy to an address that is no multiple of 16")                               \
    F(NOT_ASKED, bulk, "48 KB of dynamic shared memory beside static ones, which nobody asked for")          \
    F(NO_FENCE_UNDER_COPY, bulk, "no fence_async_proxy between stores and a bulk copy over them")            \
    F(NOT_FREED, bulk, "consumers do not arrive at the barrier that frees a stage")                          \
    F(GROUP_SOUND, group, "nothing")                                                                         \
    F(NO_WGMMA_FENCE, group, "no wgmma_fence")                                                               \
    F(NO_WGMMA_COMMIT, group, "no wgmma_commit")                                                             \
    F(NO_WGMMA_WAIT, group, "no wgmma_wait")                                                                 \
    F(SHORT_WGMMA_WAIT, group, "wgmma_wait<1> where 0 is right")                                             \
    F(TOUCHED, group, "accumulators are scaled while the product runs")                                      \
    F(OVERWRITTEN, group, "the tile is overwritten while the product runs")                                  \
    F(WRONG_STRIDE, group, "the stride of the descriptor is of another swizzle")                             \
    F(WRONG_SWIZZLE, group, "the descriptor names another swizzle than the stores")                          \
    F(UNWRITTEN, group, "half of the tile is never written")                                                 \
    F(NO_PROXY_FENCE, group, "no fence_async_proxy between the stores and wgmma")                            \
    F(ONE_WARP_LESS, group, "three of four warps come to wgmma")                                             \
    F(TOO_MANY_REGISTERS, group, "all warps raise their registers, and none has lowered its own")            \
    F(WARP_SOUND, warp, "nothing")                                                                           \
    F(MISSING_LANE, warp, "lane 31 does not come to the shuffle")                                            \
    F(ENDED_LANE, warp, "lane 5 has returned before the shuffle")                                            \
    F(DIVERGENT, warp, "half of the warp is in a shuffle, half in a ballot")                                 \
    F(MIXED_BARRIERS, warp, "half of the warp at barrier 1, half at barrier 2")                              \
    F(WRONG_COUNT, warp, "a named barrier of 64 threads for one warp, of 32 for the other")                  \
    F(BARRIER_NOT_REACHED, warp, "one warp does not come to barrier()")                                      \
    F(ENDED_WARP, warp, "one warp returns before barrier()")                                                 \
    F(RACE, warp, "a value from the other warp without a barrier")                                           \
    F(NO_WARP_SYNC, warp, "a value from the same warp without warp_sync")                                    \
    F(REUSED, warp, "shared memory is used again without a barrier after its reads")                         \
    F(UNALIGNED, warp, "a vector load from an address that is no multiple of 16")                            \
    F(NO_DEPENDENCIES_WAIT, warp, "launched as a dependent, and no dependencies_wait()")                     \
    F(LAST_SOUND, last, "nothing")                                                                           \
    F(NO_BARRIER_BEFORE_COUNT, last, "the block is counted before all of it has written")                    \
    F(NO_FENCE_BEFORE_COUNT, last, "no fence_device between what was written and the count")                 \
    F(NO_FENCE_AFTER_COUNT, last, "no fence_device between the count and what is read")                      \
    F(NO_BARRIER_AFTER_COUNT, last, "what another thread's count says is read without a barrier")            \
    F(PAIR_SOUND, pair, "nothing")                                                                           \
    F(NO_FENCE_IN_PAIR, pair, "no fence_device between what a warp wrote and its count")                     \
    F(LATE_SOUND, late, "nothing")                                                                           \
    F(LATE_READ, late, "what the launch in front writes is read before dependencies_wait()")                 \
    F(LATE_COPY, late, "a copy reads it before dependencies_wait()")                                         \
    F(LATE_WRITE, late, "the result is written before dependencies_wait()")                                  \
    F(NO_BARRIER_AFTER_WAIT, late, "no barrier between dependencies_wait() and others' reads")

enum flaw {
#define FLAW_ID(flaw, shape, what) flaw,
    FLAW_LIST(FLAW_ID)
#undef FLAW_ID
        FLAWS
};
