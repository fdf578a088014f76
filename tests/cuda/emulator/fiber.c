#include "tests/cuda/emulator/fiber.h"

#include <stdlib.h>
#include <sys/mman.h>
#include "base/assert.h"

#if defined(__SANITIZE_ADDRESS__)
#define FIBER_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FIBER_ASAN 1
#endif
#endif
#ifndef FIBER_ASAN
#define FIBER_ASAN 0
#endif

#if FIBER_ASAN
#include <sanitizer/asan_interface.h>
enum { STACK_BYTES = 256 * 1024 }; /* red zones around every array */
#else
enum { STACK_BYTES = 64 * 1024 };
#endif
enum { PAGE_BYTES = 4096, COLOURS = 16, COLOUR_BYTES = 448 };

#if defined(__x86_64__) && !defined(EMU_UCONTEXT)
__asm__(".text\n"
        ".globl emu_swap\n"
        ".hidden emu_swap\n"
        ".type emu_swap, @function\n"
        "emu_swap:\n"
        "endbr64\n"
        "pushq %rbp\n"
        "pushq %rbx\n"
        "pushq %r12\n"
        "pushq %r13\n"
        "pushq %r14\n"
        "pushq %r15\n"
        "movq %rsp, (%rdi)\n"
        "movq %rsi, %rsp\n"
        "popq %r15\n"
        "popq %r14\n"
        "popq %r13\n"
        "popq %r12\n"
        "popq %rbx\n"
        "popq %rbp\n"
        "ret\n"
        ".size emu_swap, .-emu_swap\n");

static void prepare(struct emu_fiber *fiber, uint8_t *top, void (*entry)(void))
{
    uintptr_t *sp = (uintptr_t *)((uintptr_t)top & ~(uintptr_t)63);
    *--sp = 0;                /* where entry would return to: the stack is aligned as after a call */
    *--sp = (uintptr_t)entry; /* what the first swap returns to */
    for (int i = 0; i < 6; i++)
        *--sp = 0;
    fiber->sp = sp;
}

void emu_fiber_leave(struct emu_fiber *fiber)
{
    (void)fiber;
}
#else
#include <ucontext.h>

static void prepare(struct emu_fiber *fiber, uint8_t *top, void (*entry)(void))
{
    ucontext_t *context = fiber->sp != NULL ? fiber->sp : calloc(1, sizeof *context);
    ASSERT(context != NULL && getcontext(context) == 0);
    context->uc_stack.ss_sp = fiber->stack;
    context->uc_stack.ss_size = (size_t)(top - fiber->stack);
    context->uc_link = NULL;
    makecontext(context, entry, 0);
    fiber->sp = context;
}

void emu_fiber_switch(struct emu_fiber *from, struct emu_fiber *to)
{
    if (from->sp == NULL)
        from->sp = calloc(1, sizeof(ucontext_t));
    ASSERT(from->sp != NULL);
    swapcontext(from->sp, to->sp);
}

void emu_fiber_leave(struct emu_fiber *fiber)
{
    free(fiber->sp);
}
#endif

struct emu_fiber *emu_fiber_create(uint32_t index)
{
    struct emu_fiber *fiber = calloc(1, sizeof *fiber);
    ASSERT(fiber != NULL);
    uint8_t *map = mmap(NULL, STACK_BYTES + PAGE_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT(map != MAP_FAILED);
    ASSERT(mprotect(map, PAGE_BYTES, PROT_NONE) == 0); /* the end of the stack */
    fiber->stack = map + PAGE_BYTES;
    fiber->stack_bytes = STACK_BYTES - index % COLOURS * COLOUR_BYTES;
    return fiber;
}

void emu_fiber_destroy(struct emu_fiber *fiber)
{
#if FIBER_ASAN
    /* Frames that never returned are still marked; whoever gets these addresses next must not find them so.
     */
    ASAN_UNPOISON_MEMORY_REGION(fiber->stack, STACK_BYTES);
#endif
    munmap(fiber->stack - PAGE_BYTES, STACK_BYTES + PAGE_BYTES);
    emu_fiber_leave(fiber);
    free(fiber);
}

void emu_fiber_start(struct emu_fiber *fiber, void (*entry)(void))
{
    prepare(fiber, fiber->stack + fiber->stack_bytes, entry);
}
