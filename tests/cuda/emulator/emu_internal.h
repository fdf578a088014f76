/* What the emulator's files share. */
#pragma once

#include "tests/cuda/emulator/emulator.h"
#include "tests/cuda/emulator/fiber.h"

enum {
    EMU_BLOCK_THREADS_MAX = 1024,
    EMU_WARPS_MAX = EMU_BLOCK_THREADS_MAX / 32,
    EMU_LANES = 32,
    EMU_WARPGROUP_WARPS = 4,
    EMU_BARRIERS = 16,
    EMU_ARENA_BYTES = 256 * 1024, /* of shared memory's addresses */
    EMU_DYNAMIC_ADDRESS = 1024,   /* where dynamic shared memory begins */
    EMU_STATIC_MAX = 48 * 1024,
    EMU_NOT_ASKED_MAX = 48 * 1024, /* static and dynamic, unless the host asks */
    EMU_RED_ZONE = 256,            /* after dynamic shared memory; 32 after a static variable */
    EMU_STATIC_RED_ZONE = 32,
};

/* What a thread waits in. */
enum emu_wait {
    EMU_RUNS,
    EMU_WARP_SYNC,
    EMU_IN_SHUFFLE,
    EMU_IN_BALLOT,
    EMU_IN_LDMATRIX,
    EMU_IN_MMA,
    EMU_IN_WGMMA, /* and what follows it: joined by the warpgroup */
    EMU_IN_BARRIER_ARRIVE,
    EMU_IN_BARRIER,
    EMU_IN_MBARRIER,
    EMU_IN_DEPENDENCIES_WAIT,
    EMU_EXITED,
};

struct emu_copies; /* asynchronous copies of a thread, emu_copy.c */

struct emu_thread {
    struct emu_thread_view view; /* first: emu_now points at it */
    struct emu_fiber *fiber;     /* NULL until it started */
    enum emu_wait wait;
    const void *post;    /* operands of the collective that it waits in */
    const uint64_t *bar; /* mbarrier that it waits at */
    uint32_t bar_parity;
    uint32_t barrier_id;
    bool waited_dependencies;
    uint32_t registers;
};

struct emu_warp {
    uint32_t lanes;    /* mask of threads that exist */
    uint32_t runnable; /* not started, or may go on */
    uint32_t posted;   /* wait in the warp's collective */
    uint32_t exited;
    enum emu_wait kind;              /* of the collective */
    uint32_t detail;                 /* which shuffle, mma, ldmatrix: must be equal too */
    uint32_t at_barrier, barrier_id; /* mask of lanes that wait at a barrier, and which */
    uint32_t at_mbarrier;            /* mask of lanes that wait at mbarriers */
    struct emu_thread *threads;
};

struct emu_barrier_state {
    uint32_t n_wanted;
    uint32_t n_arrived;     /* 0: nobody there yet */
    uint32_t warps_waiting; /* mask of warps with lanes that wait here */
    bool some_go_on;        /* arrived and do not wait */
};

struct emu_fragments; /* of the warp whose mma is computed, emu_product.h */

/* One OS thread's block under way. */
struct emu_worker {
    struct emu_block_view view;
    const struct emu_launch *launch;
    struct emu_options options;
    uint64_t block_serial; /* never the same twice in a process */
    uint64_t random;
    uint32_t n_warps, n_live; /* threads that have not ended */
    struct emu_thread threads[EMU_BLOCK_THREADS_MAX];
    struct emu_warp warps[EMU_WARPS_MAX];
    struct emu_barrier_state barriers[EMU_BARRIERS];
    struct emu_fiber scheduler; /* the OS thread's own stack */
    struct emu_fiber *free_fibers;
    uint32_t n_fibers;
    uint8_t *arena; /* [EMU_ARENA_BYTES] */
    uint32_t n_static, static_bytes;
    uint32_t static_low; /* static variables lie from here to the arena's end */
    struct emu_static {
        uint32_t address, size;
        const void *key;
        const char *name;
    } statics[64];
    struct emu_async *async;   /* copies and mbarriers, emu_copy.c */
    struct emu_race *race;     /* NULL until a kernel reports its accesses, emu_race.c */
    struct emu_global *global; /* NULL until then, emu_global.c */
    bool checks_races;         /* the kernel under way does */
    bool front_is_hidden;      /* what the launch in front is to write */
    struct emu_fragments *fragments;
    struct emu_wgmma *wgmma; /* [EMU_WARPS_MAX / EMU_WARPGROUP_WARPS], emu_wgmma.c */
};

extern __thread struct emu_worker *emu_worker __attribute__((tls_model("initial-exec")));

static inline struct emu_thread *emu_thread_now(void)
{
    return (struct emu_thread *)emu_now;
}

static inline struct emu_warp *emu_warp_of(const struct emu_thread *thread)
{
    return &emu_worker->warps[thread->view.warp];
}

/* Prints what the running thread did wrong and aborts. */
_Noreturn void emu_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same with what every thread of the block waits for. */
_Noreturn void emu_fail_stuck(const char *format, ...) __attribute__((format(printf, 1, 2)));

uint32_t emu_random(struct emu_worker *worker);

_Noreturn void emu_launch_fail(const struct emu_launch *launch, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* emulator.c: a fiber that begins as a thread of the block. */
struct emu_fiber *emu_fiber_take(struct emu_worker *worker);

/* The lane to run: the next one after `lane` in a circle; NULL when none may. */
static inline struct emu_thread *emu_next_lane(struct emu_warp *warp, uint32_t lane)
{
    uint32_t later = lane < 31 ? warp->runnable & ~((2u << lane) - 1u) : 0;
    uint32_t from = later != 0 ? later : warp->runnable;
    return from == 0 ? NULL : &warp->threads[__builtin_ctz(from)];
}

/* Of the thread that runs next. */
static inline struct emu_fiber *emu_fiber_of(struct emu_worker *worker, struct emu_thread *thread)
{
    if (thread->fiber == NULL)
        thread->fiber = emu_fiber_take(worker);
    emu_now = &thread->view;
    return thread->fiber;
}

/* The running thread cannot go on; returns when it may. Inline, as what leads here is: emulated kernels spend
 * most of their time on the way from lane to lane. */
static inline void emu_suspend(struct emu_thread *thread, enum emu_wait wait)
{
    struct emu_worker *worker = emu_worker;
    struct emu_warp *warp = emu_warp_of(thread);
    thread->wait = wait;
    warp->runnable &= ~(1u << thread->view.lane);
    struct emu_thread *next = emu_next_lane(warp, thread->view.lane);
    emu_fiber_switch(thread->fiber, next != NULL ? emu_fiber_of(worker, next) : &worker->scheduler);
    thread->wait = EMU_RUNS;
}

/* emu_shared.c */
void emu_shared_create(struct emu_worker *worker);
void emu_shared_destroy(struct emu_worker *worker);
void emu_shared_begin(struct emu_worker *worker);
void emu_shared_end(struct emu_worker *worker);
bool emu_is_shared(const void *pointer);
/* [pointer, pointer + size) is within the block's shared memory, or the kernel fails. */
void emu_shared_check(const void *pointer, size_t size, const char *what);
void emu_poison(void *at, size_t size);
/* 8 bytes at a multiple of 8 that nobody has written. */
bool emu_is_poison_8(const void *at);
/* A register of 16- or 8-bit floats as it is in memory that nobody has written. */
static inline bool emu_is_poison_word(uint32_t word)
{
    return word == 0x7fffffffu || word == 0xffff7fffu;
}

/* emu_warp.c: why the running thread may not join its warp's collective. */
_Noreturn void emu_warp_join_fail(enum emu_wait kind, uint32_t detail);

/* Joins the warp's collective; true for the last lane, which computes for all and then calls
 * emu_warp_release. */
static inline bool emu_warp_join(enum emu_wait kind, uint32_t detail, const void *post)
{
    struct emu_thread *thread = emu_thread_now();
    struct emu_warp *warp = emu_warp_of(thread);
    bool is_first = warp->posted == 0;
    if (warp->lanes != 0xffffffffu || warp->exited != 0 ||
        (!is_first && (warp->kind != kind || warp->detail != detail)))
        emu_warp_join_fail(kind, detail);
    warp->kind = kind;
    warp->detail = detail;
    thread->post = post;
    warp->posted |= 1u << thread->view.lane;
    if (warp->posted == warp->lanes)
        return true;
    emu_suspend(thread, kind);
    return false;
}

static inline void emu_warp_release(struct emu_warp *warp)
{
    warp->runnable |= warp->posted;
    warp->posted = 0;
}

const char *emu_wait_name(enum emu_wait wait);
/* A lane ended: the collective or barrier that misses it fails. */
void emu_thread_ended(struct emu_thread *thread);

/* emu_copy.c */
void emu_async_create(struct emu_worker *worker);
void emu_async_destroy(struct emu_worker *worker);
void emu_async_begin(struct emu_worker *worker);
/* The launch in front ends, if it was under way: emulator.h. */
bool emu_front_end(struct emu_worker *worker);
/* The cp.async under way read their sources now, and land when they are waited for. */
void emu_async_read_early(struct emu_worker *worker);
void emu_async_thread_end(struct emu_thread *thread);
void emu_async_end(struct emu_worker *worker);
/* Nobody can go on: lets a bulk copy land. False when none is under way that a thread waits for. */
bool emu_async_progress(struct emu_worker *worker);
/* What a stuck mbarrier misses, for the message. */
void emu_mbarrier_describe(const uint64_t *bar, char *text, size_t size);

/* emu_wgmma.c */
void emu_wgmma_create(struct emu_worker *worker);
void emu_wgmma_destroy(struct emu_worker *worker);
void emu_wgmma_begin(struct emu_worker *worker);
void emu_wgmma_end(struct emu_worker *worker);
