/* What a warp does together, and barriers. */
#include <math.h>
#include <string.h>
#include "tests/cuda/emulator/emu_internal.h"
#include "tests/cuda/emulator/emu_numbers.h"
#include "tests/cuda/emulator/emu_race.h"

_Noreturn void emu_warp_join_fail(enum emu_wait kind, uint32_t detail)
{
    const struct emu_warp *warp = emu_warp_of(emu_thread_now());
    if (warp->lanes != 0xffffffffu)
        emu_fail("%s, but the block's last warp has only the lanes %#x: blocks are multiples of 32 threads",
                 emu_wait_name(kind), warp->lanes);
    if (warp->exited != 0)
        emu_fail("%s, but the lanes %#x of the warp have ended", emu_wait_name(kind), warp->exited);
    emu_fail("divergent warp: %s (form %u), but the lanes %#x wait in %s (form %u)", emu_wait_name(kind),
             detail, warp->posted, emu_wait_name(warp->kind), warp->detail);
}

static struct emu_warp *warp_now(void)
{
    return emu_warp_of(emu_thread_now());
}

void emu_warp_sync(void)
{
    if (emu_warp_join(EMU_WARP_SYNC, 0, NULL)) {
        emu_race_warp_sync(warp_now());
        emu_warp_release(warp_now());
    }
}

/* ---- Shuffle and ballot ---- */

struct shuffle_post {
    uint32_t value, operand;
    uint32_t *result;
};

static uint32_t shuffle_source(enum emu_shuffle how, uint32_t lane, uint32_t operand)
{
    uint32_t source = lane;
    switch (how) {
    case EMU_SHUFFLE_LANE:
        return operand % EMU_LANES;
    case EMU_SHUFFLE_XOR:
        source = lane ^ operand;
        break;
    case EMU_SHUFFLE_UP:
        source = lane - operand;
        break;
    case EMU_SHUFFLE_DOWN:
        source = lane + operand;
        break;
    }
    return source < EMU_LANES ? source : lane;
}

uint32_t emu_shuffle(enum emu_shuffle how, uint32_t value, uint32_t operand)
{
    uint32_t result;
    struct shuffle_post post = {value, operand, &result};
    if (emu_warp_join(EMU_IN_SHUFFLE, how, &post)) {
        struct emu_warp *warp = warp_now();
        for (uint32_t lane = 0; lane < EMU_LANES; lane++) {
            const struct shuffle_post *own = warp->threads[lane].post;
            const struct shuffle_post *other = warp->threads[shuffle_source(how, lane, own->operand)].post;
            *own->result = other->value;
        }
        emu_warp_release(warp);
    }
    return result;
}

struct reduce_post {
    uint64_t value, *result;
};

static uint64_t combine(enum emu_reduction how, uint64_t a, uint64_t b)
{
    float x = f32_from_bits((uint32_t)a), y = f32_from_bits((uint32_t)b);
    switch (how) {
    case EMU_SUM_F32:
        return f32_to_bits(x + y);
    case EMU_MAX_F32:
        return f32_to_bits(fmaxf(x, y));
    case EMU_SUM_U64:
        return a + b;
    case EMU_MAX_U64:
        return b > a ? b : a;
    }
    return a;
}

/* As five shuffles by every lane, each of which must see the others' values of the step before. */
uint64_t emu_warp_reduce(enum emu_reduction how, uint64_t value)
{
    enum { FORMS = EMU_SHUFFLE_DOWN + 1 };
    uint64_t result;
    struct reduce_post post = {value, &result};
    if (emu_warp_join(EMU_IN_SHUFFLE, FORMS + how, &post)) {
        struct emu_warp *warp = warp_now();
        uint64_t values[2][EMU_LANES], *x = values[0], *y = values[1];
        for (uint32_t lane = 0; lane < EMU_LANES; lane++)
            x[lane] = ((const struct reduce_post *)warp->threads[lane].post)->value;
        for (uint32_t step = EMU_LANES / 2; step > 0; step /= 2) {
            for (uint32_t lane = 0; lane < EMU_LANES; lane++)
                y[lane] = combine(how, x[lane], x[lane ^ step]);
            uint64_t *swapped = x;
            x = y;
            y = swapped;
        }
        for (uint32_t lane = 0; lane < EMU_LANES; lane++)
            *((const struct reduce_post *)warp->threads[lane].post)->result = x[lane];
        emu_warp_release(warp);
    }
    return result;
}

struct ballot_post {
    bool predicate;
    uint32_t *result;
};

uint32_t emu_ballot(bool predicate)
{
    uint32_t result;
    struct ballot_post post = {predicate, &result};
    if (emu_warp_join(EMU_IN_BALLOT, 0, &post)) {
        struct emu_warp *warp = warp_now();
        uint32_t votes = 0;
        for (uint32_t lane = 0; lane < EMU_LANES; lane++)
            votes |= (uint32_t)((const struct ballot_post *)warp->threads[lane].post)->predicate << lane;
        for (uint32_t lane = 0; lane < EMU_LANES; lane++)
            *((const struct ballot_post *)warp->threads[lane].post)->result = votes;
        emu_warp_release(warp);
    }
    return result;
}

/* ---- ldmatrix ---- */

struct ldmatrix_post {
    uint32_t *r;
    const void *row;
};

static const uint16_t *ldmatrix_row(struct emu_warp *warp, uint32_t lane)
{
    struct emu_thread_view *now = emu_now;
    const struct ldmatrix_post *post = warp->threads[lane].post;
    if ((uintptr_t)post->row % 16 != 0)
        emu_fail("ldmatrix: the row address of lane %u is not aligned to 16 bytes", lane);
    emu_shared_check(post->row, 16, "ldmatrix");
    if (emu_is_poison_8(post->row) || emu_is_poison_8((const uint8_t *)post->row + 8))
        emu_fail("ldmatrix: the row of lane %u (shared address %u) has never been written, or a copy to it "
                 "is under way",
                 lane, emu_shared_address(post->row));
    emu_now = &warp->threads[lane].view; /* who reads */
    emu_race_access(post->row, 16, EMU_READ);
    emu_now = now;
    return post->row;
}

void emu_ldmatrix(uint32_t *r, const void *row, uint32_t n_matrices, bool transposed)
{
    struct ldmatrix_post post = {r, row};
    if (!emu_warp_join(EMU_IN_LDMATRIX, n_matrices * 2 + transposed, &post))
        return;
    struct emu_warp *warp = warp_now();
    for (uint32_t m = 0; m < n_matrices; m++) {
        uint16_t matrix[8][8];
        for (uint32_t i = 0; i < 8; i++)
            memcpy(matrix[i], ldmatrix_row(warp, m * 8 + i), 16);
        for (uint32_t lane = 0; lane < EMU_LANES; lane++) {
            uint32_t i = lane / 4, j = lane % 4 * 2;
            uint32_t low = transposed ? matrix[j][i] : matrix[i][j];
            uint32_t high = transposed ? matrix[j + 1][i] : matrix[i][j + 1];
            ((const struct ldmatrix_post *)warp->threads[lane].post)->r[m] = low | high << 16;
        }
    }
    emu_warp_release(warp);
}

/* ---- Barriers ---- */

static void barrier_count(struct emu_worker *worker, uint32_t id, uint32_t n_wanted, uint32_t n_arriving)
{
    struct emu_barrier_state *barrier = &worker->barriers[id];
    if (barrier->n_arrived > 0 && barrier->n_wanted != n_wanted)
        emu_fail("barrier %u of %u threads, but %u threads came to it as one of %u threads", id, n_wanted,
                 barrier->n_arrived, barrier->n_wanted);
    barrier->n_wanted = n_wanted;
    barrier->n_arrived += n_arriving;
    if (barrier->n_arrived > n_wanted)
        emu_fail("barrier %u of %u threads: %u came", id, n_wanted, barrier->n_arrived);
}

static bool barrier_complete(struct emu_worker *worker, uint32_t id)
{
    struct emu_barrier_state *barrier = &worker->barriers[id];
    if (barrier->n_arrived < barrier->n_wanted)
        return false;
    if (barrier->n_wanted == worker->view.n_threads && !barrier->some_go_on)
        emu_race_acquire_all(EMU_CLOCK_BARRIER + id);
    for (uint32_t rest = barrier->warps_waiting; rest != 0; rest &= rest - 1) {
        struct emu_warp *warp = &worker->warps[__builtin_ctz(rest)];
        for (uint32_t lanes = warp->at_barrier; worker->checks_races && lanes != 0; lanes &= lanes - 1)
            emu_race_acquire(warp->threads[__builtin_ctz(lanes)].view.index, EMU_CLOCK_BARRIER + id);
        warp->runnable |= warp->at_barrier;
        warp->at_barrier = 0;
    }
    *barrier = (struct emu_barrier_state){0};
    return true;
}

void emu_barrier(uint32_t id, uint32_t n_threads, bool waits)
{
    struct emu_worker *worker = emu_worker;
    struct emu_thread *thread = emu_thread_now();
    struct emu_warp *warp = emu_warp_of(thread);
    uint32_t n_wanted = n_threads == 0 ? worker->view.n_threads : n_threads;
    if ((n_threads != 0 && (id < 1 || id >= EMU_BARRIERS)) || (n_threads % EMU_LANES) != 0 ||
        n_wanted > worker->view.n_threads)
        emu_fail("barrier %u of %u threads: ids are 1..15, threads a multiple of 32 and no more than the "
                 "block's %u",
                 id, n_threads, worker->view.n_threads);
    if (id == 0 && worker->n_live < n_wanted)
        emu_fail("barrier() of the whole block, but %u of its threads have ended", n_wanted - worker->n_live);
    if (warp->at_barrier != 0 && warp->barrier_id != id)
        emu_fail("mixed barriers: barrier %u, but the lanes %#x of the warp wait at barrier %u", id,
                 warp->at_barrier, warp->barrier_id);
    if (!waits) {
        emu_race_release(EMU_CLOCK_BARRIER + id);
        if (emu_warp_join(EMU_IN_BARRIER_ARRIVE, id, NULL)) {
            barrier_count(worker, id, n_wanted, EMU_LANES);
            worker->barriers[id].some_go_on = true;
            if (barrier_complete(worker, id))
                emu_race_clear(EMU_CLOCK_BARRIER + id);
            emu_warp_release(warp);
        }
        return;
    }
    barrier_count(worker, id, n_wanted, 1);
    emu_race_release(EMU_CLOCK_BARRIER + id);
    if (barrier_complete(worker, id)) {
        emu_race_acquire(thread->view.index, EMU_CLOCK_BARRIER + id);
        emu_race_clear(EMU_CLOCK_BARRIER + id);
        return;
    }
    worker->barriers[id].warps_waiting |= 1u << thread->view.warp;
    warp->at_barrier |= 1u << thread->view.lane;
    warp->barrier_id = id;
    thread->barrier_id = id;
    emu_suspend(thread, EMU_IN_BARRIER);
}

void emu_thread_ended(struct emu_thread *thread)
{
    struct emu_worker *worker = emu_worker;
    struct emu_warp *warp = emu_warp_of(thread);
    emu_async_thread_end(thread);
    warp->exited |= 1u << thread->view.lane;
    warp->runnable &= ~(1u << thread->view.lane);
    worker->n_live--;
    if (warp->posted != 0)
        emu_fail("ended, but the lanes %#x of its warp wait in %s", warp->posted, emu_wait_name(warp->kind));
    const struct emu_barrier_state *barrier = &worker->barriers[0];
    if (barrier->n_arrived > 0)
        emu_fail("ended, but %u threads wait at barrier() for the whole block", barrier->n_arrived);
}

/* ---- Dependent launches ---- */

void emu_dependents_launch(void)
{
}

void emu_dependencies_wait(void)
{
    struct emu_thread *thread = emu_thread_now();
    thread->waited_dependencies = true;
    if (emu_worker->front_is_hidden)
        emu_suspend(thread, EMU_IN_DEPENDENCIES_WAIT);
    emu_race_waited();
}

bool emu_front_end(struct emu_worker *worker)
{
    if (!worker->front_is_hidden)
        return false;
    worker->front_is_hidden = false;
    emu_async_read_early(worker);
    worker->launch->front->show(worker->launch->front->context);
    for (uint32_t i = 0; i < worker->view.n_threads; i++) {
        const struct emu_thread *thread = &worker->threads[i];
        if (thread->wait == EMU_IN_DEPENDENCIES_WAIT)
            worker->warps[thread->view.warp].runnable |= 1u << thread->view.lane;
    }
    return true;
}
