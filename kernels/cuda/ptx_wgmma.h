/* wgmma, the tensor cores of sm_90a: a warpgroup (four warps that begin at a multiple of four) multiplies
 * tiles that lie in shared memory, while its threads go on. Both bodies; a kernel that uses it includes this
 * beside ptx.h and keeps its body between #if PTX_HAS_WGMMA and #endif.
 *
 *     wgmma_fence();                                     registers and shared memory are as the products
 * shall see them wgmma_e4m3_m64k32<N>(d, a, b, accumulate); ...     d [64][N] = (accumulate ? d : 0) + a
 * [64][32] . b [N][32]^T wgmma_commit();                                    the products so far are a group
 *     wgmma_wait<n_pending>();                           until at most that many groups are under way
 *     wgmma_hold(d);                                     the compiler may not move uses of d before the wait
 *
 * N: 8, 16, 32, 64, 72, 96, 128, 136, 192, 256. a: a descriptor (shared_descriptor) or four registers; b: a
 * descriptor. d[N / 2]: of thread t, d[4c + 2h + i] is row 16 (t / 32) + (t % 32) / 4 + 8h, column 8c + 2 (t
 * % 4) + i; registers of a are a fragment of mma_bf16_16816 or mma_e4m3_16832 for each warp's 16 rows.
 * wgmma_bf16_m64k16<N, a_by_k, b_by_k>: by_k 1: the operand lies [k][64] or [k][N], not [64][k] or [N][k].
 * Source: PTX ISA, "Asynchronous warpgroup level matrix instructions". */
#pragma once

#include "kernels/cuda/ptx.h"

#ifdef __CUDACC__
#ifdef PTX_WITHOUT_WGMMA
#error "a file with wgmma is in BANTAM_CUDA_WGMMA (cmake/cuda.cmake)"
#endif

DEVICE void wgmma_fence(void)
{
#if PTX_HAS_WGMMA
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#endif
}
DEVICE void wgmma_commit(void)
{
#if PTX_HAS_WGMMA
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#endif
}
template <int n_pending> DEVICE void wgmma_wait(void)
{
#if PTX_HAS_WGMMA
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(n_pending) : "memory");
#endif
}
/* Registers a thread of this warpgroup: fewer, or, once others gave theirs, more. A multiple of 8. All of the
 * block never have more than it was launched with: who asks for more waits for ever. */
template <int n> DEVICE void registers_lower(void)
{
#if PTX_HAS_WGMMA
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(n));
#endif
}
template <int n> DEVICE void registers_raise(void)
{
#if PTX_HAS_WGMMA
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(n));
#endif
}
template <int n> DEVICE void wgmma_hold(float (&d)[n])
{
#pragma unroll
    for (int i = 0; i < n; i++)
        asm volatile("" : "+f"(d[i])::"memory");
}
template <int n> DEVICE void wgmma_hold(uint32_t (&a)[n][4])
{
#pragma unroll
    for (int i = 0; i < 4 * n; i++)
        asm volatile("" : "+r"(a[i / 4][i % 4])::"memory");
}

/* One struct an N: the instructions name every register, which a template cannot. */
template <int N> struct wgmma_products;

/* clang-format off */
#define WGMMA_D8 "%0, %1, %2, %3"
#define WGMMA_D16 WGMMA_D8 ", " "%4, %5, %6, %7"
#define WGMMA_D32 WGMMA_D16 ", " "%8, %9, %10, %11, %12, %13, %14, %15"
#define WGMMA_D64 WGMMA_D32 ", " "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define WGMMA_D72 WGMMA_D64 ", " "%32, %33, %34, %35"
#define WGMMA_D96 WGMMA_D64 ", " "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define WGMMA_D128 WGMMA_D96 ", " "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define WGMMA_D136 WGMMA_D128 ", " "%64, %65, %66, %67"
#define WGMMA_D192 WGMMA_D128 ", " "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define WGMMA_D256 WGMMA_D192 ", " "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
#define WGMMA_R4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define WGMMA_R8(i) WGMMA_R4(i), WGMMA_R4(i + 4)
#define WGMMA_R16(i) WGMMA_R8(i), WGMMA_R8(i + 8)
#define WGMMA_R32(i) WGMMA_R16(i), WGMMA_R16(i + 16)
#define WGMMA_R36(i) WGMMA_R32(i), WGMMA_R4(i + 32)
#define WGMMA_R48(i) WGMMA_R32(i), WGMMA_R16(i + 32)
#define WGMMA_R64(i) WGMMA_R32(i), WGMMA_R32(i + 32)
#define WGMMA_R68(i) WGMMA_R64(i), WGMMA_R4(i + 64)
#define WGMMA_R96(i) WGMMA_R64(i), WGMMA_R32(i + 64)
#define WGMMA_R128(i) WGMMA_R64(i), WGMMA_R64(i + 64)
/* clang-format on */

/* p0..p6: the numbers of the operands after d. */
#define WGMMA_PRODUCTS(N, n_registers, p0, p1, p2, p3, p4, p5, p6)                                           \
    template <> struct wgmma_products<N> {                                                                   \
        static __device__ __forceinline__ void e4m3(float (&d)[N / 2], uint64_t a, uint64_t b,               \
                                                    int accumulate)                                          \
        {                                                                                                    \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #p2 ", 0;\n"                                   \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k32.f32.e4m3.e4m3 {" WGMMA_D##N             \
                         "}, %" #p0 ", %" #p1 ", p, 1, 1;\n}"                                                \
                         : WGMMA_R##n_registers(0)                                                           \
                         : "l"(a), "l"(b), "r"(accumulate));                                                 \
        }                                                                                                    \
        static __device__ __forceinline__ void e4m3(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b,   \
                                                    int accumulate)                                          \
        {                                                                                                    \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #p5 ", 0;\n"                                   \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k32.f32.e4m3.e4m3 {" WGMMA_D##N             \
                         "}, {%" #p0 ", %" #p1 ", %" #p2 ", %" #p3 "}, %" #p4 ", p, 1, 1;\n}"                \
                         : WGMMA_R##n_registers(0)                                                           \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate));             \
        }                                                                                                    \
        template <int a_by_k, int b_by_k>                                                                    \
        static __device__ __forceinline__ void bf16(float (&d)[N / 2], uint64_t a, uint64_t b,               \
                                                    int accumulate)                                          \
        {                                                                                                    \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #p2 ", 0;\n"                                   \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" WGMMA_D##N             \
                         "}, %" #p0 ", %" #p1 ", p, 1, 1, %" #p3 ", %" #p4 ";\n}"                            \
                         : WGMMA_R##n_registers(0)                                                           \
                         : "l"(a), "l"(b), "r"(accumulate), "n"(a_by_k), "n"(b_by_k));                       \
        }                                                                                                    \
        template <int b_by_k>                                                                                \
        static __device__ __forceinline__ void bf16(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b,   \
                                                    int accumulate)                                          \
        {                                                                                                    \
            asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #p5 ", 0;\n"                                   \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" WGMMA_D##N             \
                         "}, {%" #p0 ", %" #p1 ", %" #p2 ", %" #p3 "}, %" #p4 ", p, 1, 1, %" #p6 ";\n}"      \
                         : WGMMA_R##n_registers(0)                                                           \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(accumulate),              \
                           "n"(b_by_k));                                                                     \
        }                                                                                                    \
    };

#if PTX_HAS_WGMMA
WGMMA_PRODUCTS(8, 4, 4, 5, 6, 7, 8, 9, 10)
WGMMA_PRODUCTS(16, 8, 8, 9, 10, 11, 12, 13, 14)
WGMMA_PRODUCTS(32, 16, 16, 17, 18, 19, 20, 21, 22)
WGMMA_PRODUCTS(64, 32, 32, 33, 34, 35, 36, 37, 38)
WGMMA_PRODUCTS(72, 36, 36, 37, 38, 39, 40, 41, 42)
WGMMA_PRODUCTS(96, 48, 48, 49, 50, 51, 52, 53, 54)
WGMMA_PRODUCTS(128, 64, 64, 65, 66, 67, 68, 69, 70)
WGMMA_PRODUCTS(136, 68, 68, 69, 70, 71, 72, 73, 74)
WGMMA_PRODUCTS(192, 96, 96, 97, 98, 99, 100, 101, 102)
WGMMA_PRODUCTS(256, 128, 128, 129, 130, 131, 132, 133, 134)
#endif

#else

template <int N> struct wgmma_products {
    static void e4m3(float (&d)[N / 2], uint64_t a, uint64_t b, int accumulate)
    {
        emu_wgmma(EMU_MMA_E4M3, N, d, NULL, a, b, accumulate, 0, 0);
    }
    static void e4m3(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int accumulate)
    {
        emu_wgmma(EMU_MMA_E4M3, N, d, a, 0, b, accumulate, 0, 0);
    }
    template <int a_by_k, int b_by_k>
    static void bf16(float (&d)[N / 2], uint64_t a, uint64_t b, int accumulate)
    {
        emu_wgmma(EMU_MMA_BF16, N, d, NULL, a, b, accumulate, a_by_k, b_by_k);
    }
    template <int b_by_k>
    static void bf16(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, int accumulate)
    {
        emu_wgmma(EMU_MMA_BF16, N, d, a, 0, b, accumulate, 0, b_by_k);
    }
};

DEVICE void wgmma_fence(void)
{
    emu_wgmma_fence();
}
DEVICE void wgmma_commit(void)
{
    emu_wgmma_commit();
}
template <int n_pending> DEVICE void wgmma_wait(void)
{
    emu_wgmma_wait(n_pending);
}
template <int n> DEVICE void registers_lower(void)
{
    static_assert(n % 8 == 0 && n >= 24 && n <= 256);
    emu_set_registers(n);
}
template <int n> DEVICE void registers_raise(void)
{
    static_assert(n % 8 == 0 && n >= 24 && n <= 256);
    emu_set_registers(n);
}
template <int n> DEVICE void wgmma_hold(float (&d)[n])
{
    (void)d;
}
template <int n> DEVICE void wgmma_hold(uint32_t (&a)[n][4])
{
    (void)a;
}

#endif

template <int N> DEVICE void wgmma_e4m3_m64k32(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate)
{
    wgmma_products<N>::e4m3(d, a, b, accumulate);
}
template <int N>
DEVICE void wgmma_e4m3_m64k32(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate)
{
    wgmma_products<N>::e4m3(d, a, b, accumulate);
}
template <int N, int a_by_k = 0, int b_by_k = 0>
DEVICE void wgmma_bf16_m64k16(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate)
{
    wgmma_products<N>::template bf16<a_by_k, b_by_k>(d, a, b, accumulate);
}
template <int N, int b_by_k = 0>
DEVICE void wgmma_bf16_m64k16(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate)
{
    wgmma_products<N>::template bf16<b_by_k>(d, a, b, accumulate);
}
