/* ptx.h for nvcc: inline PTX. Included by ptx.h alone. */
#pragma once

/* What the target has; a kernel for some targets only keeps its body between #if PTX_HAS_... and #endif, and
 * the host side never launches it elsewhere. */
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define PTX_HAS_WGMMA 1
#else
#define PTX_HAS_WGMMA 0
#endif
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define PTX_HAS_BULK_COPY 1 /* bulk copies, mbarriers that sleep, griddepcontrol */
#else
#define PTX_HAS_BULK_COPY 0
#endif
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890
#define PTX_HAS_E4M3 1 /* conversions */
#else
#define PTX_HAS_E4M3 0
#endif
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890 && __CUDA_ARCH__ != 900
#define PTX_HAS_MMA_E4M3 1 /* on sm_90 nvcc would turn it into conversions and f16 products */
#else
#define PTX_HAS_MMA_E4M3 0
#endif

/* With PTX_WITHOUT_E4M3 the PTX of sm_80 is sm_89's too, as it is where nothing is converted to e4m3; a
 * kernel that does it all the same calls a function that is nowhere, and whose name says what to do
 * (cmake/cuda.cmake). */
#ifdef PTX_WITHOUT_E4M3
extern "C" __device__ void file_is_missing_in_BANTAM_CUDA_E4M3(void);
#define PTX_NEEDS_E4M3 file_is_missing_in_BANTAM_CUDA_E4M3()
#else
#define PTX_NEEDS_E4M3 ((void)0)
#endif

#define DEVICE static __device__ __forceinline__
#define KERNEL(name, args_type)                                                                              \
    extern "C" __global__ void __launch_bounds__(1024) name(const __grid_constant__ args_type args)
#define KERNEL_BOUNDS(name, args_type, max_threads, min_blocks)                                              \
    extern "C" __global__ void __launch_bounds__(max_threads, min_blocks)                                    \
        name(const __grid_constant__ args_type args)

/* SHARED(float, tile, [16][32]); 16-byte aligned. */
#define SHARED(type, name, ...) __shared__ __align__(16) type name __VA_ARGS__

extern __shared__ __align__(1024) uint8_t ptx_shared_dynamic[];

/* Dynamic shared memory of the launch, aligned to 1024 bytes. */
DEVICE uint8_t *shared_dynamic(void)
{
    return ptx_shared_dynamic;
}

DEVICE uint32_t shared_address(const void *pointer)
{
    return (uint32_t)__cvta_generic_to_shared(pointer);
}

/* ---- Where a thread is ---- */

DEVICE uint32_t thread_x(void)
{
    return threadIdx.x;
}
DEVICE uint32_t block_threads(void)
{
    return blockDim.x;
}
DEVICE uint32_t block_x(void)
{
    return blockIdx.x;
}
DEVICE uint32_t block_y(void)
{
    return blockIdx.y;
}
DEVICE uint32_t block_z(void)
{
    return blockIdx.z;
}
DEVICE uint32_t grid_x(void)
{
    return gridDim.x;
}
DEVICE uint32_t grid_y(void)
{
    return gridDim.y;
}
DEVICE uint32_t grid_z(void)
{
    return gridDim.z;
}
DEVICE uint32_t lane_id(void)
{
    return threadIdx.x & 31u;
}
DEVICE uint32_t warp_id(void)
{
    return threadIdx.x >> 5;
}

/* A bug of ours, or a kernel on a target that it was not built for. */
DEVICE void trap(void)
{
    __trap();
}

/* Bits of a where the mask has them, of b elsewhere. In one instruction, which the compiler does not take
 * apart. */
DEVICE uint32_t select_bits(uint32_t mask, uint32_t a, uint32_t b)
{
    uint32_t out;
    asm("lop3.b32 %0, %1, %2, %3, 0xca;" : "=r"(out) : "r"(mask), "r"(a), "r"(b));
    return out;
}

/* ---- Barriers and fences ---- */

DEVICE void barrier(void)
{
    __syncthreads();
}

/* id: 1..15 (0 is barrier()); n_threads: a multiple of 32. */
DEVICE void barrier_named(uint32_t id, uint32_t n_threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(n_threads) : "memory");
}

/* Arrives without waiting: the producers' half of a barrier_named that others wait at. */
DEVICE void barrier_arrive(uint32_t id, uint32_t n_threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(n_threads) : "memory");
}

DEVICE void warp_sync(void)
{
    __syncwarp();
}

DEVICE void fence_block(void)
{
    __threadfence_block();
}

DEVICE void fence_device(void)
{
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
}

/* Makes this thread's writes to shared memory visible to the asynchronous copies and to wgmma; a barrier
 * follows. */
DEVICE void fence_async_proxy(void)
{
#if PTX_HAS_BULK_COPY
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

/* ---- Warp collectives, full mask ---- */

DEVICE uint32_t shuffle(uint32_t value, uint32_t lane)
{
    return __shfl_sync(0xffffffffu, value, (int)lane);
}
DEVICE int32_t shuffle(int32_t value, uint32_t lane)
{
    return __shfl_sync(0xffffffffu, value, (int)lane);
}
DEVICE float shuffle(float value, uint32_t lane)
{
    return __shfl_sync(0xffffffffu, value, (int)lane);
}
DEVICE uint32_t shuffle_xor(uint32_t value, uint32_t mask)
{
    return __shfl_xor_sync(0xffffffffu, value, (int)mask);
}
DEVICE int32_t shuffle_xor(int32_t value, uint32_t mask)
{
    return __shfl_xor_sync(0xffffffffu, value, (int)mask);
}
DEVICE float shuffle_xor(float value, uint32_t mask)
{
    return __shfl_xor_sync(0xffffffffu, value, (int)mask);
}
/* The value of lane - n; lanes below n keep theirs. */
DEVICE uint32_t shuffle_up(uint32_t value, uint32_t n)
{
    return __shfl_up_sync(0xffffffffu, value, n);
}
DEVICE int32_t shuffle_up(int32_t value, uint32_t n)
{
    return __shfl_up_sync(0xffffffffu, value, n);
}
DEVICE float shuffle_up(float value, uint32_t n)
{
    return __shfl_up_sync(0xffffffffu, value, n);
}
/* The value of lane + n; the last n lanes keep theirs. */
DEVICE uint32_t shuffle_down(uint32_t value, uint32_t n)
{
    return __shfl_down_sync(0xffffffffu, value, n);
}
DEVICE int32_t shuffle_down(int32_t value, uint32_t n)
{
    return __shfl_down_sync(0xffffffffu, value, n);
}
DEVICE float shuffle_down(float value, uint32_t n)
{
    return __shfl_down_sync(0xffffffffu, value, n);
}

/* The greatest of the warp. */
DEVICE uint32_t warp_max_u32(uint32_t value)
{
    return __reduce_max_sync(0xffffffffu, value);
}

DEVICE uint64_t shuffle_xor_u64(uint64_t value, uint32_t mask)
{
    uint32_t low = shuffle_xor((uint32_t)value, mask), high = shuffle_xor((uint32_t)(value >> 32), mask);
    return (uint64_t)high << 32 | low;
}

/* Across the warp; the trees are fixed, so all lanes get the same bits. */
DEVICE float warp_sum(float x)
{
    for (int step = 16; step > 0; step /= 2)
        x += shuffle_xor(x, step);
    return x;
}
DEVICE float warp_max(float x)
{
    for (int step = 16; step > 0; step /= 2)
        x = fmaxf(x, shuffle_xor(x, step));
    return x;
}
DEVICE uint64_t warp_sum_u64(uint64_t x)
{
    for (int step = 16; step > 0; step /= 2)
        x += shuffle_xor_u64(x, step);
    return x;
}
DEVICE uint64_t warp_max_u64(uint64_t x)
{
    for (int step = 16; step > 0; step /= 2) {
        uint64_t other = shuffle_xor_u64(x, step);
        x = other > x ? other : x;
    }
    return x;
}

/* CUDA's headers have a ballot() of old of the same type. */
DEVICE uint32_t ptx_ballot(bool predicate)
{
    return __ballot_sync(0xffffffffu, predicate);
}
#define ballot(predicate) ptx_ballot(predicate)

/* ---- Atomics, global and shared; they return the value before ---- */

DEVICE uint32_t atomic_add_u32(uint32_t *at, uint32_t value)
{
    return atomicAdd(at, value);
}
DEVICE uint32_t atomic_max_u32(uint32_t *at, uint32_t value)
{
    return atomicMax(at, value);
}
DEVICE uint32_t atomic_or_u32(uint32_t *at, uint32_t value)
{
    return atomicOr(at, value);
}
DEVICE uint32_t atomic_exch_u32(uint32_t *at, uint32_t value)
{
    return atomicExch(at, value);
}
DEVICE uint32_t atomic_cas_u32(uint32_t *at, uint32_t expected, uint32_t value)
{
    return atomicCAS(at, expected, value);
}
DEVICE uint64_t atomic_add_u64(uint64_t *at, uint64_t value)
{
    return atomicAdd((unsigned long long *)at, (unsigned long long)value);
}
DEVICE uint64_t atomic_max_u64(uint64_t *at, uint64_t value)
{
    return atomicMax((unsigned long long *)at, (unsigned long long)value);
}
/* The order of additions is not fixed: never for values that must be the same bits. */
DEVICE float atomic_add_f32(float *at, float value)
{
    return atomicAdd(at, value);
}

/* Global memory, device scope. */
DEVICE uint32_t load_acquire_u32(const uint32_t *at)
{
    uint32_t value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                 : "=r"(value)
                 : "l"(__cvta_generic_to_global(at))
                 : "memory");
    return value;
}
DEVICE void store_release_u32(uint32_t *at, uint32_t value)
{
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(__cvta_generic_to_global(at)), "r"(value)
                 : "memory");
}

/* ---- Global memory; addresses are aligned to the size ---- */

/* Read once, by nobody else: not kept in L1, first to leave L2. Memory that no thread of the kernel writes.
 */
DEVICE vec16 load_streaming_16(const void *at)
{
    vec16 v;
    asm volatile("{\n"
                 ".reg .b64 policy;\n"
                 "createpolicy.fractional.L2::evict_first.b64 policy, 1.0;\n"
                 "ld.global.nc.L1::no_allocate.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], policy;\n"
                 "}\n"
                 : "=r"(v.w[0]), "=r"(v.w[1]), "=r"(v.w[2]), "=r"(v.w[3])
                 : "l"(__cvta_generic_to_global(at)));
    return v;
}
/* The same, with the compiler's addressing: for loads at constant distances. */
DEVICE vec16 load_once_16(const void *at)
{
    uint4 v = __ldcs((const uint4 *)at);
    return vec16{{v.x, v.y, v.z, v.w}};
}
/* Through the read-only path. Memory that no thread of the kernel writes. */
DEVICE vec16 load_cached_16(const void *at)
{
    vec16 v;
    asm volatile("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.w[0]), "=r"(v.w[1]), "=r"(v.w[2]), "=r"(v.w[3])
                 : "l"(__cvta_generic_to_global(at)));
    return v;
}
DEVICE vec8 load_cached_8(const void *at)
{
    uint2 v = __ldg((const uint2 *)at);
    return vec8{{v.x, v.y}};
}
DEVICE uint32_t load_cached_4(const void *at)
{
    return __ldg((const uint32_t *)at);
}
/* Any memory, shared too. */
DEVICE vec16 load_16(const void *at)
{
    return *(const vec16 *)at;
}
DEVICE vec8 load_8(const void *at)
{
    return *(const vec8 *)at;
}
DEVICE void store_16(void *at, vec16 v)
{
    *(vec16 *)at = v;
}
DEVICE void store_8(void *at, vec8 v)
{
    *(vec8 *)at = v;
}
DEVICE void prefetch_l2(const void *at)
{
    asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(at)));
}

/* ---- Asynchronous copies of a thread: global to shared ---- */

/* 16 bytes; both addresses aligned to 16. Only the first n_valid (0..16) are read, the rest become zeros. */
DEVICE void copy_async_16(void *to, const void *from, uint32_t n_valid = 16)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)),
                 "l"(__cvta_generic_to_global(from)), "r"(n_valid)
                 : "memory");
}
/* The same of all 16, or, where not is_there, zeros: `from` is not read then. L2 fetches the 256 bytes
 * around. */
DEVICE void copy_async_16_if(void *to, const void *from, bool is_there)
{
    asm volatile("{\n.reg .pred p;\nsetp.eq.b32 p, %2, 0;\n"
                 "cp.async.cg.shared.global.L2::256B [%0], [%1], 16, p;\n}" ::"r"(shared_address(to)),
                 "l"(__cvta_generic_to_global(from)), "r"((uint32_t)is_there)
                 : "memory");
}
/* The copies so far that no group has become one. */
DEVICE void copy_async_commit(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}
/* Until at most n_pending of this thread's groups are under way; a barrier makes them visible to others. */
#define copy_async_wait(n_pending) asm volatile("cp.async.wait_group %0;" ::"n"(n_pending) : "memory")

/* ---- mbarriers and bulk copies ---- */

/* count: arrivals that end a phase. By one thread; fence_mbarrier_init() and a barrier follow. */
DEVICE void mbarrier_init(uint64_t *bar, uint32_t count)
{
    asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(shared_address(bar)), "r"(count) : "memory");
}
DEVICE void fence_mbarrier_init(void)
{
#if PTX_HAS_BULK_COPY
    asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" ::: "memory");
#endif
}
DEVICE void mbarrier_arrive(uint64_t *bar)
{
    asm volatile("{\n.reg .b64 state;\nmbarrier.arrive.shared.b64 state, [%0];\n}" ::"r"(shared_address(bar))
                 : "memory");
}
/* Arrives, and the phase ends only when `bytes` more have landed. */
DEVICE void mbarrier_expect(uint64_t *bar, uint32_t bytes)
{
#if PTX_HAS_BULK_COPY
    asm volatile("{\n.reg .b64 state;\nmbarrier.arrive.expect_tx.shared.b64 state, [%0], %1;\n}" ::"r"(
                     shared_address(bar)),
                 "r"(bytes)
                 : "memory");
#else
    trap();
#endif
}
/* Until the phase of that parity (0 for the first) has ended. */
DEVICE void mbarrier_wait(uint64_t *bar, uint32_t parity)
{
#if PTX_HAS_BULK_COPY
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}" ::"r"(shared_address(bar)),
                 "r"(parity)
                 : "memory");
#else
    uint32_t done = 0;
    while (done == 0) {
        asm volatile(
            "{\n.reg .pred p;\nmbarrier.test_wait.parity.shared.b64 p, [%1], %2;\nselp.u32 %0, 1, 0, p;\n}"
            : "=r"(done)
            : "r"(shared_address(bar)), "r"(parity)
            : "memory");
    }
#endif
}
/* bytes: a multiple of 16, as both addresses; one thread issues it, after mbarrier_expect of the same bytes.
 */
DEVICE void bulk_copy(void *to, const void *from, uint32_t bytes, uint64_t *bar)
{
#if PTX_HAS_BULK_COPY
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
            shared_address(to)),
        "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(bar))
        : "memory");
#else
    trap();
#endif
}
/* The same, first to leave L2: data that is read once. */
DEVICE void bulk_copy_streaming(void *to, const void *from, uint32_t bytes, uint64_t *bar)
{
#if PTX_HAS_BULK_COPY
    asm volatile(
        "{\n"
        ".reg .b64 policy;\n"
        "createpolicy.fractional.L2::evict_first.b64 policy, 1.0;\n"
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, "
        "[%3], policy;\n"
        "}" ::"r"(shared_address(to)),
        "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(bar))
        : "memory");
#else
    trap();
#endif
}

/* ---- Programmatic dependent launch ---- */

/* The next kernel of the stream may start. */
DEVICE void dependents_launch(void)
{
#if PTX_HAS_BULK_COPY
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}
/* Before the first access to what an earlier kernel of the stream wrote or reads. */
DEVICE void dependencies_wait(void)
{
#if PTX_HAS_BULK_COPY
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* ---- ldmatrix: 8 x 8 matrices of 16-bit values ---- */

/* Lane i gives the address (16-byte aligned) of row i % 8 of matrix i / 8; lane l gets columns 2 (l % 4) and
 * + 1 of row l / 4 of each. _trans: of the transposed matrices. Of x2 the addresses of lanes 0..15 count, of
 * x1 of 0..7. */
DEVICE void ldmatrix_x4(uint32_t r[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
DEVICE void ldmatrix_x2(uint32_t r[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}
DEVICE void ldmatrix_x1(uint32_t r[1], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                 : "=r"(r[0])
                 : "r"(shared_address(row))
                 : "memory");
}
DEVICE void ldmatrix_x4_trans(uint32_t r[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
DEVICE void ldmatrix_x2_trans(uint32_t r[2], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}
DEVICE void ldmatrix_x1_trans(uint32_t r[1], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(r[0])
                 : "r"(shared_address(row))
                 : "memory");
}

/* The 8 x 8 matrix of 16-bit values of which lane l has columns 2 (l % 4) and + 1 of row l / 4, transposed.
 */
DEVICE uint32_t matrix_transpose(uint32_t two)
{
    uint32_t out;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(two));
    return out;
}

/* ---- mma.sync: d += a . b, a [16][k] by rows, b [k][8] by columns. With g = lane / 4, t = lane % 4:
 * d[0], d[1]: row g, columns 2t, 2t + 1; d[2], d[3]: row g + 8.
 * 16-bit: a[0], a[1]: rows g, g + 8, k 2t, 2t + 1; a[2], a[3]: k + 8; b[0]: column g, k 2t, 2t + 1; b[1]: k
 * + 8. 8-bit: the same with four values a register: k 4t .. 4t + 3, and k + 16. ---- */

DEVICE void mma_bf16_16816(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
DEVICE void mma_f16_16816(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
DEVICE void mma_s8_16832(int32_t d[4], const uint32_t a[4], const uint32_t b[2])
{
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/* sm_89 and sm_120. */
DEVICE void mma_e4m3_16832(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    PTX_NEEDS_E4M3;
#if PTX_HAS_MMA_E4M3
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
    trap();
#endif
}

/* ---- Arithmetic ---- */

/* 2^x and 1 / x to about 2 units in the last place. The emulator's bits differ: never where tokens must
 * equal. */
DEVICE float fast_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEVICE float fast_rcp(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* a / b as IEEE rounds it, without a branch: for 2^-60 <= |a| <= 2^60 and 1 <= b <= 2^60. The steps are those
 * that nvcc takes for a / b where nothing overflows or vanishes. */
DEVICE float divide_in_range(float a, float b)
{
    float r = fast_rcp(b);
    r = fmaf(r, fmaf(-b, r, 1.0f), r);
    float q = a * r;
    return fmaf(r, fmaf(-b, q, a), q);
}

/* (value & mask) | bits in one instruction. */
DEVICE uint32_t bits_select_or(uint32_t value, uint32_t mask, uint32_t bits)
{
    uint32_t out;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(out) : "r"(value), "r"(mask), "r"(bits));
    return out;
}

/* a * b + c per bf16 half, rounded once. */
DEVICE uint32_t bf16x2_fma(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t d;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

/* Round to nearest even; NaN becomes 0x7fff. */
DEVICE uint16_t to_bf16(float x)
{
    uint16_t code;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(code) : "f"(x));
    return code;
}
DEVICE uint32_t to_bf16x2(float low, float high)
{
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}
DEVICE uint16_t to_f16(float x)
{
    uint16_t code;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(code) : "f"(x));
    return code;
}
DEVICE float from_f16(uint16_t code)
{
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(code));
    return x;
}

DEVICE uint8_t e4m3_encode(float x);
DEVICE float e4m3_decode(uint8_t code);

/* Two values to e4m3 codes, the lower in the lower byte: round to nearest even, saturated at +-448. */
DEVICE uint16_t to_e4m3x2(float low, float high)
{
    PTX_NEEDS_E4M3;
#if PTX_HAS_E4M3
    uint16_t codes;
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(codes) : "f"(high), "f"(low));
    return codes;
#else
    return (uint16_t)(e4m3_encode(low) | e4m3_encode(high) << 8);
#endif
}
DEVICE uint8_t to_e4m3(float x)
{
    return (uint8_t)to_e4m3x2(x, 0.0f);
}
DEVICE float from_e4m3(uint8_t code)
{
    return e4m3_decode(code);
}
