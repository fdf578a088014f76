/* What a kernel did wrong, for people, and the end. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "tests/cuda/emulator/emu_internal.h"

const char *emu_wait_name(enum emu_wait wait)
{
    static const char *const names[] = {
        [EMU_RUNS] = "runs",
        [EMU_WARP_SYNC] = "warp_sync",
        [EMU_IN_SHUFFLE] = "shuffle",
        [EMU_IN_BALLOT] = "ballot",
        [EMU_IN_LDMATRIX] = "ldmatrix",
        [EMU_IN_MMA] = "mma",
        [EMU_IN_WGMMA] = "wgmma",
        [EMU_IN_BARRIER_ARRIVE] = "barrier_arrive",
        [EMU_IN_BARRIER] = "barrier",
        [EMU_IN_MBARRIER] = "mbarrier_wait",
        [EMU_IN_DEPENDENCIES_WAIT] = "dependencies_wait",
        [EMU_EXITED] = "has ended",
    };
    return names[wait];
}

static void print_place(void)
{
    const struct emu_worker *worker = emu_worker;
    if (worker == NULL || worker->launch == NULL)
        return;
    const uint32_t *block = worker->view.block;
    fprintf(stderr, "kernel %s, block (%u, %u, %u)", worker->launch->kernel->name, block[0], block[1],
            block[2]);
    if (emu_now != NULL)
        fprintf(stderr, ", thread %u (warp %u, lane %u)", emu_now->index, emu_now->warp, emu_now->lane);
    fprintf(stderr, ": ");
}

static void print_barrier(const struct emu_worker *worker, uint32_t id)
{
    const struct emu_barrier_state *barrier = &worker->barriers[id];
    fprintf(stderr, " %u (%u of %u threads)", id, barrier->n_arrived, barrier->n_wanted);
}

/* What warps whose lanes do not come together miss. */
static void print_warps(const struct emu_worker *worker)
{
    for (uint32_t i = 0; i < worker->n_warps; i++) {
        const struct emu_warp *warp = &worker->warps[i];
        if (warp->posted != 0 && warp->posted != warp->lanes)
            fprintf(stderr, "  warp %u: the lanes %#x wait in %s for the lanes %#x\n", i, warp->posted,
                    emu_wait_name(warp->kind), warp->lanes & ~warp->posted);
    }
}

/* A line for each range of threads that wait for the same. */
static void print_waits(const struct emu_worker *worker)
{
    uint32_t n = worker->view.n_threads;
    for (uint32_t first = 0, end; first < n; first = end) {
        const struct emu_thread *thread = &worker->threads[first];
        for (end = first + 1; end < n; end++) {
            const struct emu_thread *other = &worker->threads[end];
            if (other->wait != thread->wait ||
                (thread->wait == EMU_IN_BARRIER && other->barrier_id != thread->barrier_id) ||
                (thread->wait == EMU_IN_MBARRIER &&
                 (other->bar != thread->bar || other->bar_parity != thread->bar_parity)))
                break;
        }
        fprintf(stderr, "  threads %u..%u: %s", first, end - 1, emu_wait_name(thread->wait));
        if (thread->wait == EMU_IN_BARRIER)
            print_barrier(worker, thread->barrier_id);
        if (thread->wait == EMU_IN_MBARRIER) {
            char text[160];
            emu_mbarrier_describe(thread->bar, text, sizeof text);
            fprintf(stderr, " parity %u: %s", thread->bar_parity, text);
        }
        fputc('\n', stderr);
    }
}

static _Noreturn void end(void)
{
    if (emu_worker != NULL && emu_worker->options.seed != 0)
        fprintf(stderr, "emulator: with a seed (BANTAM_EMULATOR_SEED); the same seed gives the same order\n");
    fflush(stderr);
    abort();
}

void emu_fail(const char *format, ...)
{
    fputs("emulator: ", stderr);
    print_place();
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    end();
}

void emu_fail_stuck(const char *format, ...)
{
    emu_now = NULL;
    fputs("emulator: ", stderr);
    print_place();
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputs(":\n", stderr);
    print_warps(emu_worker);
    print_waits(emu_worker);
    end();
}

void emu_launch_fail(const struct emu_launch *launch, const char *format, ...)
{
    fprintf(stderr, "emulator: kernel %s cannot be launched: ", launch->kernel->name);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    end();
}

void emu_trap(void)
{
    emu_fail("trap()");
}

void emu_misaligned(const void *at, size_t size)
{
    emu_fail("an access of %zu bytes at %p, which is not aligned to them", size, at);
}
