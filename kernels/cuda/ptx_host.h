/* ptx.h for the host compiler: the emulator of tests/cuda/emulator implements what is declared here. Included
 * by ptx.h and by the emulator. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a running thread sees of its block; the emulator knows more. */
struct emu_block_view {
    uint32_t block[3], grid[3];
    uint32_t n_threads;
    uint8_t *shared_dynamic;
};
struct emu_thread_view {
    uint32_t index, lane, warp; /* in the block; in the warp; of the block */
    const struct emu_block_view *block;
};
/* Of this OS thread. Initial-exec: a kernel asks for it often, also from within a shared object. */
extern __thread struct emu_thread_view *emu_now __attribute__((tls_model("initial-exec")));

/* A kernel as KERNEL() registers it. */
struct emu_kernel {
    const char *name;
    void (*run)(const void *args);
    size_t args_bytes;
    uint32_t max_threads; /* of a block */
    uint32_t min_blocks;  /* that a multiprocessor's registers must hold */
    bool checked;         /* compiled to report its accesses to the emulator */
};

/* The address of a static shared variable in this block; key: an address of its own. */
void *emu_shared_static(const void *key, size_t size, const char *name);
uint32_t emu_shared_address(const void *pointer);

enum emu_shuffle { EMU_SHUFFLE_LANE, EMU_SHUFFLE_XOR, EMU_SHUFFLE_UP, EMU_SHUFFLE_DOWN };
enum emu_reduction { EMU_SUM_F32, EMU_MAX_F32, EMU_SUM_U64, EMU_MAX_U64 };
enum emu_mma { EMU_MMA_BF16, EMU_MMA_F16, EMU_MMA_S8, EMU_MMA_E4M3 };

void emu_trap(void);
void emu_misaligned(const void *at, size_t size);
void emu_barrier(uint32_t id, uint32_t n_threads, bool waits); /* n_threads 0: the whole block */
void emu_warp_sync(void);
uint32_t emu_shuffle(enum emu_shuffle how, uint32_t value, uint32_t operand);
uint64_t emu_warp_reduce(enum emu_reduction how, uint64_t value);
uint32_t emu_ballot(bool predicate);
void emu_copy_async_16(void *to, const void *from, uint32_t n_valid);
void emu_copy_async_commit(void);
void emu_copy_async_wait(uint32_t n_pending);
void emu_mbarrier_init(uint64_t *bar, uint32_t count);
void emu_fence_mbarrier_init(void);
void emu_mbarrier_arrive(uint64_t *bar, uint32_t expected_bytes);
void emu_mbarrier_wait(uint64_t *bar, uint32_t parity);
void emu_bulk_copy(void *to, const void *from, uint32_t bytes, uint64_t *bar);
void emu_fence_async_proxy(void);
void emu_set_registers(uint32_t n); /* of this thread, by setmaxnreg */
void emu_dependents_launch(void);
void emu_dependencies_wait(void);
void emu_ldmatrix(uint32_t *r, const void *row, uint32_t n_matrices, bool transposed);
void emu_mma(enum emu_mma kind, void *d, const uint32_t *a, const uint32_t *b);
/* a: four registers, or NULL for a_descriptor. */
void emu_wgmma(enum emu_mma kind, uint32_t n, float *d, const uint32_t *a, uint64_t a_descriptor,
               uint64_t b_descriptor, bool accumulate, bool a_by_k, bool b_by_k);
void emu_wgmma_fence(void);
void emu_wgmma_commit(void);
void emu_wgmma_wait(uint32_t n_pending);
uint16_t emu_to_f16(float x);
float emu_from_f16(uint16_t code);
uint32_t emu_bf16x2_fma(uint32_t a, uint32_t b, uint32_t c);

#ifdef __cplusplus
}

#define PTX_HAS_WGMMA     1
#define PTX_HAS_BULK_COPY 1
#define PTX_HAS_E4M3      1
#define PTX_HAS_MMA_E4M3  1

#ifdef __SANITIZE_THREAD__
#define EMU_CHECKED true
#else
#define EMU_CHECKED false
#endif

#define DEVICE                  static inline
#define KERNEL(name, args_type) KERNEL_BOUNDS(name, args_type, 1024, 1)
#define KERNEL_BOUNDS(name, args_type, max_threads, min_blocks)                                              \
    static void name##_thread(const args_type &args);                                                        \
    static void name##_run(const void *args)                                                                 \
    {                                                                                                        \
        name##_thread(*(const args_type *)args);                                                             \
    }                                                                                                        \
    extern "C" const struct emu_kernel emu_kernel_##name;                                                    \
    const struct emu_kernel emu_kernel_##name = {#name,       name##_run, sizeof(args_type),                 \
                                                 max_threads, min_blocks, EMU_CHECKED};                      \
    static void name##_thread(const args_type &args)

#define SHARED(type, name, ...)                                                                              \
    typedef type name##_shared __VA_ARGS__;                                                                  \
    static const char name##_key = 0;                                                                        \
    name##_shared &name = *(name##_shared *)emu_shared_static(&name##_key, sizeof(name##_shared), #name)

DEVICE uint8_t *shared_dynamic(void)
{
    return emu_now->block->shared_dynamic;
}
DEVICE uint32_t shared_address(const void *pointer)
{
    return emu_shared_address(pointer);
}

DEVICE uint32_t thread_x(void)
{
    return emu_now->index;
}
DEVICE uint32_t block_threads(void)
{
    return emu_now->block->n_threads;
}
DEVICE uint32_t block_x(void)
{
    return emu_now->block->block[0];
}
DEVICE uint32_t block_y(void)
{
    return emu_now->block->block[1];
}
DEVICE uint32_t block_z(void)
{
    return emu_now->block->block[2];
}
DEVICE uint32_t grid_x(void)
{
    return emu_now->block->grid[0];
}
DEVICE uint32_t grid_y(void)
{
    return emu_now->block->grid[1];
}
DEVICE uint32_t grid_z(void)
{
    return emu_now->block->grid[2];
}
DEVICE uint32_t lane_id(void)
{
    return emu_now->lane;
}
DEVICE uint32_t warp_id(void)
{
    return emu_now->warp;
}
DEVICE void trap(void)
{
    emu_trap();
}

DEVICE void barrier(void)
{
    emu_barrier(0, 0, true);
}
DEVICE void barrier_named(uint32_t id, uint32_t n_threads)
{
    emu_barrier(id, n_threads, true);
}
DEVICE void barrier_arrive(uint32_t id, uint32_t n_threads)
{
    emu_barrier(id, n_threads, false);
}
DEVICE void warp_sync(void)
{
    emu_warp_sync();
}
DEVICE void fence_block(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
DEVICE void fence_device(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}
DEVICE void fence_async_proxy(void)
{
    emu_fence_async_proxy();
}

DEVICE uint32_t emu_shuffle_bits(enum emu_shuffle how, uint32_t value, uint32_t operand)
{
    return emu_shuffle(how, value, operand);
}
DEVICE int32_t emu_shuffle_bits(enum emu_shuffle how, int32_t value, uint32_t operand)
{
    return (int32_t)emu_shuffle(how, (uint32_t)value, operand);
}
DEVICE float emu_shuffle_bits(enum emu_shuffle how, float value, uint32_t operand)
{
    uint32_t bits;
    __builtin_memcpy(&bits, &value, 4);
    bits = emu_shuffle(how, bits, operand);
    __builtin_memcpy(&value, &bits, 4);
    return value;
}
#define EMU_SHUFFLE_FUNCTIONS(type)                                                                          \
    DEVICE type shuffle(type value, uint32_t lane)                                                           \
    {                                                                                                        \
        return emu_shuffle_bits(EMU_SHUFFLE_LANE, value, lane);                                              \
    }                                                                                                        \
    DEVICE type shuffle_xor(type value, uint32_t mask)                                                       \
    {                                                                                                        \
        return emu_shuffle_bits(EMU_SHUFFLE_XOR, value, mask);                                               \
    }                                                                                                        \
    DEVICE type shuffle_up(type value, uint32_t n)                                                           \
    {                                                                                                        \
        return emu_shuffle_bits(EMU_SHUFFLE_UP, value, n);                                                   \
    }                                                                                                        \
    DEVICE type shuffle_down(type value, uint32_t n)                                                         \
    {                                                                                                        \
        return emu_shuffle_bits(EMU_SHUFFLE_DOWN, value, n);                                                 \
    }
EMU_SHUFFLE_FUNCTIONS(uint32_t)
EMU_SHUFFLE_FUNCTIONS(int32_t)
EMU_SHUFFLE_FUNCTIONS(float)
#undef EMU_SHUFFLE_FUNCTIONS

/* As trees of shuffle_xor() over 16, 8, 4, 2 and 1 lanes, at which a warp need not come together five times.
 */
DEVICE float emu_warp_float(enum emu_reduction how, float x)
{
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    bits = (uint32_t)emu_warp_reduce(how, bits);
    __builtin_memcpy(&x, &bits, 4);
    return x;
}
DEVICE float warp_sum(float x)
{
    return emu_warp_float(EMU_SUM_F32, x);
}
DEVICE float warp_max(float x)
{
    return emu_warp_float(EMU_MAX_F32, x);
}
DEVICE uint32_t warp_max_u32(uint32_t x)
{
    return (uint32_t)emu_warp_reduce(EMU_MAX_U64, x);
}
DEVICE uint64_t warp_max_u64(uint64_t x)
{
    return emu_warp_reduce(EMU_MAX_U64, x);
}
DEVICE uint64_t warp_sum_u64(uint64_t x)
{
    return emu_warp_reduce(EMU_SUM_U64, x);
}

DEVICE uint32_t select_bits(uint32_t mask, uint32_t a, uint32_t b)
{
    return (mask & a) | (~mask & b);
}

DEVICE uint32_t ballot(bool predicate)
{
    return emu_ballot(predicate);
}

DEVICE uint32_t atomic_add_u32(uint32_t *at, uint32_t value)
{
    return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST);
}
DEVICE uint64_t atomic_add_u64(uint64_t *at, uint64_t value)
{
    return __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST);
}
DEVICE uint32_t atomic_or_u32(uint32_t *at, uint32_t value)
{
    return __atomic_fetch_or(at, value, __ATOMIC_SEQ_CST);
}
DEVICE uint32_t atomic_exch_u32(uint32_t *at, uint32_t value)
{
    return __atomic_exchange_n(at, value, __ATOMIC_SEQ_CST);
}
DEVICE uint32_t atomic_cas_u32(uint32_t *at, uint32_t expected, uint32_t value)
{
    __atomic_compare_exchange_n(at, &expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return expected;
}
template <class T> DEVICE T emu_atomic_max(T *at, T value)
{
    T old = __atomic_load_n(at, __ATOMIC_SEQ_CST);
    while (old < value &&
           !__atomic_compare_exchange_n(at, &old, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
    }
    return old;
}
DEVICE uint32_t atomic_max_u32(uint32_t *at, uint32_t value)
{
    return emu_atomic_max(at, value);
}
DEVICE uint64_t atomic_max_u64(uint64_t *at, uint64_t value)
{
    return emu_atomic_max(at, value);
}
DEVICE float atomic_add_f32(float *at, float value)
{
    uint32_t old = __atomic_load_n((uint32_t *)at, __ATOMIC_SEQ_CST), next;
    float before, after;
    do {
        __builtin_memcpy(&before, &old, 4);
        after = before + value;
        __builtin_memcpy(&next, &after, 4);
    } while (
        !__atomic_compare_exchange_n((uint32_t *)at, &old, next, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    return before;
}
DEVICE uint32_t load_acquire_u32(const uint32_t *at)
{
    return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}
DEVICE void store_release_u32(uint32_t *at, uint32_t value)
{
    __atomic_store_n(at, value, __ATOMIC_RELEASE);
}

/* Vector accesses: a misaligned address is a fault on the device. */
DEVICE void emu_check_aligned(const void *at, uintptr_t size)
{
    if (((uintptr_t)at & (size - 1)) != 0)
        emu_misaligned(at, size);
}
DEVICE vec16 load_16(const void *at)
{
    emu_check_aligned(at, 16);
    return *(const vec16 *)at;
}
DEVICE vec8 load_8(const void *at)
{
    emu_check_aligned(at, 8);
    return *(const vec8 *)at;
}
DEVICE vec16 load_streaming_16(const void *at)
{
    return load_16(at);
}
DEVICE vec16 load_once_16(const void *at)
{
    return load_16(at);
}
DEVICE vec16 load_cached_16(const void *at)
{
    return load_16(at);
}
DEVICE vec8 load_cached_8(const void *at)
{
    return load_8(at);
}
DEVICE uint32_t load_cached_4(const void *at)
{
    emu_check_aligned(at, 4);
    return *(const uint32_t *)at;
}
DEVICE void store_16(void *at, vec16 v)
{
    emu_check_aligned(at, 16);
    *(vec16 *)at = v;
}
DEVICE void store_8(void *at, vec8 v)
{
    emu_check_aligned(at, 8);
    *(vec8 *)at = v;
}
DEVICE void prefetch_l2(const void *at)
{
    (void)at;
}

DEVICE void copy_async_16(void *to, const void *from, uint32_t n_valid = 16)
{
    emu_copy_async_16(to, from, n_valid);
}
DEVICE void copy_async_16_if(void *to, const void *from, bool is_there)
{
    copy_async_16(to, from, is_there ? 16 : 0);
}
DEVICE void copy_async_commit(void)
{
    emu_copy_async_commit();
}
DEVICE void copy_async_wait(uint32_t n_pending)
{
    emu_copy_async_wait(n_pending);
}

DEVICE void mbarrier_init(uint64_t *bar, uint32_t count)
{
    emu_mbarrier_init(bar, count);
}
DEVICE void fence_mbarrier_init(void)
{
    emu_fence_mbarrier_init();
}
DEVICE void mbarrier_arrive(uint64_t *bar)
{
    emu_mbarrier_arrive(bar, 0);
}
DEVICE void mbarrier_expect(uint64_t *bar, uint32_t bytes)
{
    emu_mbarrier_arrive(bar, bytes);
}
DEVICE void mbarrier_wait(uint64_t *bar, uint32_t parity)
{
    emu_mbarrier_wait(bar, parity);
}
DEVICE void bulk_copy(void *to, const void *from, uint32_t bytes, uint64_t *bar)
{
    emu_bulk_copy(to, from, bytes, bar);
}
DEVICE void bulk_copy_streaming(void *to, const void *from, uint32_t bytes, uint64_t *bar)
{
    emu_bulk_copy(to, from, bytes, bar);
}

DEVICE void dependents_launch(void)
{
    emu_dependents_launch();
}
DEVICE void dependencies_wait(void)
{
    emu_dependencies_wait();
}

DEVICE uint32_t matrix_transpose(uint32_t two)
{
    uint32_t lane = lane_id(), column = lane / 4, row = 2 * (lane & 3);
    uint32_t low = shuffle(two, row * 4 + column / 2), high = shuffle(two, (row + 1) * 4 + column / 2);
    return (low >> column % 2 * 16 & 0xffffu) | high >> column % 2 * 16 << 16;
}
DEVICE void ldmatrix_x4(uint32_t r[4], const void *row)
{
    emu_ldmatrix(r, row, 4, false);
}
DEVICE void ldmatrix_x2(uint32_t r[2], const void *row)
{
    emu_ldmatrix(r, row, 2, false);
}
DEVICE void ldmatrix_x1(uint32_t r[1], const void *row)
{
    emu_ldmatrix(r, row, 1, false);
}
DEVICE void ldmatrix_x4_trans(uint32_t r[4], const void *row)
{
    emu_ldmatrix(r, row, 4, true);
}
DEVICE void ldmatrix_x2_trans(uint32_t r[2], const void *row)
{
    emu_ldmatrix(r, row, 2, true);
}
DEVICE void ldmatrix_x1_trans(uint32_t r[1], const void *row)
{
    emu_ldmatrix(r, row, 1, true);
}

DEVICE void mma_bf16_16816(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    emu_mma(EMU_MMA_BF16, d, a, b);
}
DEVICE void mma_f16_16816(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    emu_mma(EMU_MMA_F16, d, a, b);
}
DEVICE void mma_s8_16832(int32_t d[4], const uint32_t a[4], const uint32_t b[2])
{
    emu_mma(EMU_MMA_S8, d, a, b);
}
DEVICE void mma_e4m3_16832(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    emu_mma(EMU_MMA_E4M3, d, a, b);
}

DEVICE float fast_exp2(float x)
{
    return exp2f(x);
}
DEVICE float divide_in_range(float a, float b)
{
    return a / b;
}
DEVICE float fast_rcp(float x)
{
    return 1.0f / x;
}
DEVICE uint32_t bits_select_or(uint32_t value, uint32_t mask, uint32_t bits)
{
    return (value & mask) | bits;
}
DEVICE uint32_t bf16x2_fma(uint32_t a, uint32_t b, uint32_t c)
{
    return emu_bf16x2_fma(a, b, c);
}

DEVICE uint16_t to_bf16(float x)
{
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return 0x7fff;
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}
DEVICE uint32_t to_bf16x2(float low, float high)
{
    return to_bf16(low) | (uint32_t)to_bf16(high) << 16;
}
DEVICE uint16_t to_f16(float x)
{
    return emu_to_f16(x);
}
DEVICE float from_f16(uint16_t code)
{
    return emu_from_f16(code);
}

DEVICE uint8_t e4m3_encode(float x);
DEVICE float e4m3_decode(uint8_t code);
DEVICE uint16_t to_e4m3x2(float low, float high)
{
    return (uint16_t)(e4m3_encode(low) | e4m3_encode(high) << 8);
}
DEVICE uint8_t to_e4m3(float x)
{
    return e4m3_encode(x);
}
DEVICE float from_e4m3(uint8_t code)
{
    return e4m3_decode(code);
}

#endif
