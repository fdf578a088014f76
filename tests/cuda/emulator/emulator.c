#include "tests/cuda/emulator/emu_internal.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include "base/assert.h"
#include "tests/cuda/emulator/emu_global.h"
#include "tests/cuda/emulator/emu_product.h"
#include "tests/cuda/emulator/emu_race.h"

__thread struct emu_thread_view *emu_now __attribute__((tls_model("initial-exec")));
__thread struct emu_worker *emu_worker __attribute__((tls_model("initial-exec")));

static struct emu_options options_now;
static pthread_once_t options_once = PTHREAD_ONCE_INIT;
static pthread_mutex_t options_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_key_t worker_key;
static _Atomic uint64_t n_blocks_begun;

static uint64_t number_of(const char *variable, uint64_t otherwise)
{
    const char *text = getenv(variable);
    return text == NULL || *text == '\0' ? otherwise : strtoull(text, NULL, 0);
}

static void worker_destroy(void *worker);

static void options_begin(void)
{
    options_now.seed = number_of("BANTAM_EMULATOR_SEED", 0);
    options_now.n_threads = (uint32_t)number_of("BANTAM_EMULATOR_THREADS", 1);
    options_now.target = (uint32_t)number_of("BANTAM_EMULATOR_TARGET", 90);
    ASSERT(pthread_key_create(&worker_key, worker_destroy) == 0);
}

struct emu_options emu_get_options(void)
{
    pthread_once(&options_once, options_begin);
    pthread_mutex_lock(&options_mutex);
    struct emu_options options = options_now;
    pthread_mutex_unlock(&options_mutex);
    return options;
}

void emu_set_options(const struct emu_options *options)
{
    ASSERT(options->n_threads >= 1 && options->target >= 80);
    pthread_once(&options_once, options_begin);
    pthread_mutex_lock(&options_mutex);
    options_now = *options;
    pthread_mutex_unlock(&options_mutex);
}

uint32_t emu_shared_limit(uint32_t target)
{
    return target == 90 ? 227 * 1024 : 99 * 1024;
}

uint32_t emu_random(struct emu_worker *worker)
{
    worker->random ^= worker->random << 13; /* xorshift64 */
    worker->random ^= worker->random >> 7;
    worker->random ^= worker->random << 17;
    return (uint32_t)(worker->random >> 32);
}

static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u; /* splitmix64's finaliser */
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* ---- One OS thread's room for a block ---- */

static struct emu_worker *worker_of_this_thread(void)
{
    if (emu_worker != NULL)
        return emu_worker;
    struct emu_worker *worker = calloc(1, sizeof *worker);
    ASSERT(worker != NULL);
    emu_shared_create(worker);
    emu_async_create(worker);
    emu_wgmma_create(worker);
    worker->fragments = calloc(1, sizeof *worker->fragments);
    ASSERT(worker->fragments != NULL);
    for (uint32_t i = 0; i < EMU_BLOCK_THREADS_MAX; i++) {
        struct emu_thread *thread = &worker->threads[i];
        thread->view = (struct emu_thread_view){
            .index = i, .lane = i % EMU_LANES, .warp = i / EMU_LANES, .block = &worker->view};
    }
    for (uint32_t i = 0; i < EMU_WARPS_MAX; i++)
        worker->warps[i].threads = &worker->threads[i * EMU_LANES];
    emu_worker = worker;
    pthread_setspecific(worker_key, worker);
    return worker;
}

static void worker_destroy(void *at)
{
    struct emu_worker *worker = at;
    while (worker->free_fibers != NULL) {
        struct emu_fiber *fiber = worker->free_fibers;
        worker->free_fibers = fiber->next_free;
        emu_fiber_destroy(fiber);
    }
    emu_fiber_leave(&worker->scheduler);
    emu_race_destroy(worker);
    emu_global_destroy(worker);
    emu_wgmma_destroy(worker);
    free(worker->fragments);
    emu_async_destroy(worker);
    emu_shared_destroy(worker);
    free(worker);
    emu_worker = NULL;
}

/* ---- Fibers of a block ---- */

static void fiber_main(void);

struct emu_fiber *emu_fiber_take(struct emu_worker *worker)
{
    struct emu_fiber *fiber = worker->free_fibers;
    if (fiber != NULL)
        worker->free_fibers = fiber->next_free;
    else
        fiber = emu_fiber_create(worker->n_fibers++);
    emu_fiber_start(fiber, fiber_main);
    return fiber;
}

static void fiber_give(struct emu_worker *worker, struct emu_fiber *fiber)
{
    fiber->next_free = worker->free_fibers;
    worker->free_fibers = fiber;
}

/* Runs threads one after the other on this stack, as long as the next one to run has not begun: where nothing
 * waits, no stack is ever switched. */
static void fiber_main(void)
{
    struct emu_worker *worker = emu_worker;
    struct emu_thread *thread = emu_thread_now();
    struct emu_fiber *fiber = thread->fiber;
    for (;;) {
        worker->launch->kernel->run(worker->launch->args);
        thread->wait = EMU_EXITED;
        thread->fiber = NULL;
        emu_thread_ended(thread);
        struct emu_thread *next = emu_next_lane(emu_warp_of(thread), thread->view.lane);
        if (next != NULL && next->fiber == NULL) {
            next->fiber = fiber;
            thread = next;
            emu_now = &thread->view;
            continue;
        }
        fiber_give(worker, fiber);
        emu_fiber_switch(fiber, next != NULL ? emu_fiber_of(worker, next) : &worker->scheduler);
        ASSERT(!"a fiber that ended runs");
    }
}

/* ---- One block ---- */

/* Registers of a thread as nvcc gives them to a kernel with such bounds, if it has use for all of them. */
static uint32_t registers_of(const struct emu_kernel *kernel)
{
    enum { REGISTERS = 65536, UNIT = 8, THREAD_MAX = 256 };
    uint32_t n = REGISTERS / (kernel->max_threads * kernel->min_blocks) / UNIT * UNIT;
    return n < THREAD_MAX ? n : THREAD_MAX;
}

void emu_set_registers(uint32_t n)
{
    emu_thread_now()->registers = n;
}

static void check_registers(const struct emu_worker *worker)
{
    uint32_t n = 0, launched = worker->view.n_threads * registers_of(worker->launch->kernel);
    for (uint32_t i = 0; i < worker->view.n_threads; i++)
        n += worker->threads[i].registers;
    if (n > launched)
        emu_fail("the block was launched with %u registers and asked for %u: setmaxnreg would never return",
                 launched, n);
}

static void block_begin(struct emu_worker *worker, const struct emu_launch *launch, uint64_t block,
                        const struct emu_options *options)
{
    worker->launch = launch;
    worker->options = *options;
    worker->block_serial = 1 + atomic_fetch_add(&n_blocks_begun, 1);
    worker->random = mix(options->seed * 0x9e3779b97f4a7c15u + block) | 1;
    struct emu_block_view *view = &worker->view;
    memcpy(view->grid, launch->grid, sizeof view->grid);
    view->block[0] = (uint32_t)(block % launch->grid[0]);
    view->block[1] = (uint32_t)(block / launch->grid[0] % launch->grid[1]);
    view->block[2] = (uint32_t)(block / launch->grid[0] / launch->grid[1]);
    view->n_threads = launch->block_threads;
    worker->n_live = launch->block_threads;
    worker->n_warps = (launch->block_threads + EMU_LANES - 1) / EMU_LANES;
    memset(worker->barriers, 0, sizeof worker->barriers);
    for (uint32_t i = 0; i < worker->n_warps; i++) {
        struct emu_warp *warp = &worker->warps[i];
        uint32_t n = launch->block_threads - i * EMU_LANES;
        warp->lanes = n >= EMU_LANES ? 0xffffffffu : (1u << n) - 1u;
        warp->runnable = warp->lanes;
        warp->posted = warp->exited = warp->at_barrier = warp->at_mbarrier = 0;
    }
    for (uint32_t i = 0; i < launch->block_threads; i++) {
        worker->threads[i].fiber = NULL;
        worker->threads[i].wait = EMU_RUNS;
        worker->threads[i].waited_dependencies = false;
        worker->threads[i].registers = registers_of(launch->kernel);
    }
    worker->front_is_hidden = launch->front != NULL;
    if (launch->front != NULL)
        launch->front->hide(launch->front->context);
    emu_shared_begin(worker);
    emu_async_begin(worker);
    emu_wgmma_begin(worker);
    emu_race_begin(worker);
}

static struct emu_warp *warp_to_run(struct emu_worker *worker, uint32_t last)
{
    bool random = worker->options.seed != 0;
    uint32_t first = random ? emu_random(worker) % worker->n_warps : last;
    for (uint32_t i = 0; i < worker->n_warps; i++) {
        struct emu_warp *warp = &worker->warps[(first + i) % worker->n_warps];
        if (warp->runnable != 0)
            return warp;
    }
    return NULL;
}

static void block_end(struct emu_worker *worker)
{
    if (worker->launch->dependent) {
        uint32_t n_waited = 0;
        for (uint32_t i = 0; i < worker->view.n_threads; i++)
            n_waited += worker->threads[i].waited_dependencies;
        if (n_waited == 0)
            emu_fail(
                "launched as a dependent of the kernel before, but no thread called dependencies_wait()");
    }
    check_registers(worker);
    emu_wgmma_end(worker);
    emu_async_end(worker);
    emu_shared_end(worker);
}

static void block_run(struct emu_worker *worker, const struct emu_launch *launch, uint64_t block,
                      const struct emu_options *options)
{
    block_begin(worker, launch, block, options);
    uint32_t last = 0;
    while (worker->n_live > 0) {
        struct emu_warp *warp = warp_to_run(worker, last);
        if (warp == NULL) {
            if (!emu_front_end(worker) && !emu_async_progress(worker))
                emu_fail_stuck("no thread can go on");
            continue;
        }
        last = (uint32_t)(warp - worker->warps);
        uint32_t lane = options->seed != 0 ? emu_random(worker) % EMU_LANES : EMU_LANES - 1;
        struct emu_thread *thread = emu_next_lane(warp, lane);
        emu_fiber_switch(&worker->scheduler, emu_fiber_of(worker, thread));
    }
    block_end(worker);
}

/* ---- A grid ---- */

struct grid {
    const struct emu_launch *launch;
    struct emu_options options;
    uint64_t n_blocks, step, first; /* block i is number (first + i * step) % n_blocks: a permutation */
    _Atomic uint64_t n_taken;
};

static void *grid_run(void *at)
{
    struct grid *grid = at;
    struct emu_worker *worker = worker_of_this_thread();
    ASSERT(emu_now == NULL); /* a kernel cannot launch */
    if (grid->launch->kernel->checked)
        emu_global_begin(worker);
    for (;;) {
        uint64_t i = atomic_fetch_add(&grid->n_taken, 1);
        if (i >= grid->n_blocks)
            break;
        uint64_t block = (uint64_t)(((unsigned __int128)i * grid->step + grid->first) % grid->n_blocks);
        block_run(worker, grid->launch, block, &grid->options);
    }
    emu_now = NULL;
    return NULL;
}

static uint64_t greatest_common_divisor(uint64_t a, uint64_t b)
{
    while (b != 0) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static void grid_shuffle(struct grid *grid)
{
    static _Atomic uint64_t n_launches;
    grid->step = 1;
    grid->first = 0;
    if (grid->options.seed == 0)
        return;
    uint64_t random = mix(grid->options.seed + mix(atomic_fetch_add(&n_launches, 1)));
    grid->options.seed = random | 1;
    grid->first = random % grid->n_blocks;
    grid->step = 1 + (random >> 20) % grid->n_blocks;
    while (greatest_common_divisor(grid->step, grid->n_blocks) != 1)
        grid->step++;
}

static void launch_check(const struct emu_launch *launch, const struct emu_options *options)
{
    const struct emu_kernel *kernel = launch->kernel;
    if (launch->args_bytes != kernel->args_bytes)
        emu_launch_fail(launch, "%zu bytes of arguments, its struct has %zu", launch->args_bytes,
                        kernel->args_bytes);
    if (launch->block_threads == 0 || launch->block_threads > kernel->max_threads)
        emu_launch_fail(launch, "%u threads a block, at most %u (KERNEL_BOUNDS)", launch->block_threads,
                        kernel->max_threads);
    uint32_t limit = launch->shared_not_asked ? EMU_NOT_ASKED_MAX : emu_shared_limit(options->target);
    if (launch->shared_bytes > limit)
        emu_launch_fail(launch, "%u bytes of shared memory, a block of sm_%u has %u%s", launch->shared_bytes,
                        options->target, limit, launch->shared_not_asked ? " unless more is asked for" : "");
    if (launch->grid[0] == 0 || launch->grid[1] == 0 || launch->grid[2] == 0 ||
        launch->grid[0] > 0x7fffffffu || launch->grid[1] > 65535 || launch->grid[2] > 65535)
        emu_launch_fail(launch, "a grid of %u x %u x %u: at least 1, at most 2^31 - 1 x 65535 x 65535",
                        launch->grid[0], launch->grid[1], launch->grid[2]);
}

void emu_launch(const struct emu_launch *launch)
{
    struct grid grid = {.launch = launch, .options = emu_get_options()};
    launch_check(launch, &grid.options);
    grid.n_blocks = (uint64_t)launch->grid[0] * launch->grid[1] * launch->grid[2];
    grid_shuffle(&grid);
    enum { HELPERS_MAX = 63 };
    pthread_t helpers[HELPERS_MAX];
    uint64_t n_helpers = grid.options.n_threads - 1;
    n_helpers = n_helpers > HELPERS_MAX ? HELPERS_MAX : n_helpers;
    n_helpers = n_helpers > grid.n_blocks - 1 ? grid.n_blocks - 1 : n_helpers;
    for (uint64_t i = 0; i < n_helpers; i++)
        ASSERT(pthread_create(&helpers[i], NULL, grid_run, &grid) == 0);
    grid_run(&grid);
    for (uint64_t i = 0; i < n_helpers; i++)
        pthread_join(helpers[i], NULL);
}
