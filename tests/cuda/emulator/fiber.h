/* Stacks that one OS thread switches between. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct emu_fiber {
    void *sp; /* while it does not run */
    uint8_t *stack;
    size_t stack_bytes;
    struct emu_fiber *next_free;
};

/* Makes a stack on which `entry` runs at the first switch; entry never returns. index spreads the stacks over
 * the sets of the caches. */
struct emu_fiber *emu_fiber_create(uint32_t index);
void emu_fiber_destroy(struct emu_fiber *fiber);
/* Of the OS thread's own stack, which was not created. */
void emu_fiber_leave(struct emu_fiber *fiber);
void emu_fiber_start(struct emu_fiber *fiber, void (*entry)(void));

/* AddressSanitizer is not told: what it checks is marked in memory wherever a stack lies. It would need to
 * know for its own stacks of use after return, which are off, and for exceptions. */
#if defined(__x86_64__) && !defined(EMU_UCONTEXT)
/* Saves what a function call must preserve on the old stack and takes it from the new one. */
void emu_swap(void **from_sp, void *to_sp);

static inline void emu_fiber_switch(struct emu_fiber *from, struct emu_fiber *to)
{
    emu_swap(&from->sp, to->sp);
}
#else
void emu_fiber_switch(struct emu_fiber *from, struct emu_fiber *to);
#endif
