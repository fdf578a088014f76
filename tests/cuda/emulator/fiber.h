/* Stacks that one OS thread switches between. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct emu_fiber {
    void *sp; /* while it does not run */
    uint8_t *stack;
    size_t stack_bytes;
    void *fake_stack; /* AddressSanitizer's */
    struct emu_fiber *next_free;
};

/* Makes a stack on which `entry` runs at the first switch; entry never returns. index spreads the stacks over
 * the sets of the caches. */
struct emu_fiber *emu_fiber_create(uint32_t index);
void emu_fiber_destroy(struct emu_fiber *fiber);
/* Of the OS thread's own stack, which was not created. */
void emu_fiber_leave(struct emu_fiber *fiber);
void emu_fiber_start(struct emu_fiber *fiber, void (*entry)(void));
void emu_fiber_switch(struct emu_fiber *from, struct emu_fiber *to);
/* First thing on a new stack. */
void emu_fiber_entered(void);
