/* The functions that the compiler calls at each memory access of code built with -fsanitize=thread. Kernels
 * are built so for the race checks alone, and ThreadSanitizer's own library is not linked. */
#include "tests/cuda/emulator/emu_race.h"

void __tsan_init(void);
void __tsan_func_entry(void *caller);
void __tsan_func_exit(void);
void __tsan_read_range(void *at, size_t size);
void __tsan_write_range(void *at, size_t size);

void __tsan_init(void)
{
}
void __tsan_func_entry(void *caller)
{
    (void)caller;
}
void __tsan_func_exit(void)
{
}
void __tsan_read_range(void *at, size_t size)
{
    emu_race_access(at, size, EMU_READ);
}
void __tsan_write_range(void *at, size_t size)
{
    emu_race_access(at, size, EMU_WRITE);
}

#define ACCESS(name, size, access)                                                                           \
    void __tsan_##name(void *at);                                                                            \
    void __tsan_##name(void *at)                                                                             \
    {                                                                                                        \
        emu_race_access(at, size, access);                                                                   \
    }
ACCESS(read1, 1, EMU_READ)
ACCESS(read2, 2, EMU_READ)
ACCESS(read4, 4, EMU_READ)
ACCESS(read8, 8, EMU_READ)
ACCESS(read16, 16, EMU_READ)
ACCESS(write1, 1, EMU_WRITE)
ACCESS(write2, 2, EMU_WRITE)
ACCESS(write4, 4, EMU_WRITE)
ACCESS(write8, 8, EMU_WRITE)
ACCESS(write16, 16, EMU_WRITE)
ACCESS(unaligned_read2, 2, EMU_READ)
ACCESS(unaligned_read4, 4, EMU_READ)
ACCESS(unaligned_read8, 8, EMU_READ)
ACCESS(unaligned_read16, 16, EMU_READ)
ACCESS(unaligned_write2, 2, EMU_WRITE)
ACCESS(unaligned_write4, 4, EMU_WRITE)
ACCESS(unaligned_write8, 8, EMU_WRITE)
ACCESS(unaligned_write16, 16, EMU_WRITE)

#define ATOMICS(type, bits)                                                                                  \
    type __tsan_atomic##bits##_load(const volatile type *at, int order);                                     \
    type __tsan_atomic##bits##_load(const volatile type *at, int order)                                      \
    {                                                                                                        \
        (void)order;                                                                                         \
        emu_race_access((const void *)(uintptr_t)at, sizeof *at, EMU_ATOMIC);                                \
        return __atomic_load_n(at, __ATOMIC_SEQ_CST);                                                        \
    }                                                                                                        \
    void __tsan_atomic##bits##_store(volatile type *at, type value, int order);                              \
    void __tsan_atomic##bits##_store(volatile type *at, type value, int order)                               \
    {                                                                                                        \
        (void)order;                                                                                         \
        emu_race_access((const void *)(uintptr_t)at, sizeof *at, EMU_ATOMIC);                                \
        __atomic_store_n(at, value, __ATOMIC_SEQ_CST);                                                       \
    }                                                                                                        \
    type __tsan_atomic##bits##_exchange(volatile type *at, type value, int order);                           \
    type __tsan_atomic##bits##_exchange(volatile type *at, type value, int order)                            \
    {                                                                                                        \
        (void)order;                                                                                         \
        emu_race_access((const void *)(uintptr_t)at, sizeof *at, EMU_ATOMIC);                                \
        return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST);                                             \
    }                                                                                                        \
    type __tsan_atomic##bits##_fetch_add(volatile type *at, type value, int order);                          \
    type __tsan_atomic##bits##_fetch_add(volatile type *at, type value, int order)                           \
    {                                                                                                        \
        (void)order;                                                                                         \
        emu_race_access((const void *)(uintptr_t)at, sizeof *at, EMU_ATOMIC);                                \
        return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST);                                              \
    }                                                                                                        \
    type __tsan_atomic##bits##_fetch_or(volatile type *at, type value, int order);                           \
    type __tsan_atomic##bits##_fetch_or(volatile type *at, type value, int order)                            \
    {                                                                                                        \
        (void)order;                                                                                         \
        emu_race_access((const void *)(uintptr_t)at, sizeof *at, EMU_ATOMIC);                                \
        return __atomic_fetch_or(at, value, __ATOMIC_SEQ_CST);                                               \
    }                                                                                                        \
    int __tsan_atomic##bits##_compare_exchange_strong(volatile type *at, type *expected, type value,         \
                                                      int order, int failure);                               \
    int __tsan_atomic##bits##_compare_exchange_strong(volatile type *at, type *expected, type value,         \
                                                      int order, int failure)                                \
    {                                                                                                        \
        (void)order;                                                                                         \
        (void)failure;                                                                                       \
        emu_race_access((const void *)(uintptr_t)at, sizeof *at, EMU_ATOMIC);                                \
        return __atomic_compare_exchange_n(at, expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);  \
    }
ATOMICS(uint32_t, 32)
ATOMICS(uint64_t, 64)

void __tsan_atomic_thread_fence(int order);
void __tsan_atomic_thread_fence(int order)
{
    (void)order;
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    emu_race_fence_device();
}
