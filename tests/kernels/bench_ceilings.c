/* What this machine can do at most, on the threads of a backend: the ceilings that the kernels are held
 * against. The best of several samples counts, for whatever else the machine does only makes it slower. */
#include "tests/kernels/bench_ceilings.h"

#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "kernels/cpu_memory.h"

#if BANTAM_X86
#include <immintrin.h>
#include "kernels/x86/amx.h"
#endif

enum {
    CEILING_SAMPLES = 5,
    READ_BYTES = 768 << 20, /* more than a cache holds */
    QUICK_SHARE = 4096,     /* of all that, what a quick look takes */
    OPS_LOOPS = 1 << 20,    /* of a sample of an arithmetic ceiling: some milliseconds */
    TILE_LOOPS = 1 << 18,   /* of four products of tiles */
    CHAINS = 12,            /* independent accumulators: latency times throughput, within 16 registers */
    READ_AHEAD = 2048,      /* bytes; what is asked for before it is read */
    READ_STREAMS = 4,       /* of one thread, side by side */
};

/* One thread's part of a sample; returns what keeps the compiler from leaving it out. */
typedef uint64_t ceiling_fn(const uint8_t *data, size_t n);
/* Reads n bytes and writes n bytes, to `to` or where it read. */
typedef void copy_fn(uint8_t *data, uint8_t *to, size_t n);

struct ceiling_job {
    ceiling_fn *fn; /* or copy, of the first half of data to the second */
    copy_fn *copy;
    uint8_t *data; /* NULL: every thread does n loops; else the threads share n bytes */
    size_t n;
    volatile uint64_t sink[THREAD_POOL_MAX];
};

static void run_part(void *context, int thread_index, int n_threads)
{
    struct ceiling_job *job = context;
    size_t begin = 0, end = job->n;
    if (job->data != NULL)
        thread_split(job->n, 4096, thread_index, n_threads, &begin, &end);
    if (job->copy != NULL)
        job->copy(job->data + begin, job->data + job->n + begin, end - begin);
    else
        job->sink[thread_index] = job->fn(job->data == NULL ? NULL : job->data + begin, end - begin);
}

static double best_seconds(struct cpu_backend *cpu, struct ceiling_job *job)
{
    double best = 1e30;
    for (int i = 0; i < CEILING_SAMPLES + 1; i++) { /* the first one warms up */
        uint64_t start_ns = clock_now_ns(clock_monotonic());
        cpu_run(cpu, true, run_part, job);
        double seconds = (double)(clock_now_ns(clock_monotonic()) - start_ns) * 1e-9;
        if (i > 0 && seconds < best)
            best = seconds;
    }
    return best;
}

static uint64_t read_plain(const uint8_t *data, size_t n)
{
    uint64_t sum[4] = {0};
    for (size_t i = 0; i + 32 <= n; i += 32) {
        for (size_t j = 0; j < 4; j++)
            sum[j] ^= *(const uint64_t *)(data + i + 8 * j);
    }
    return sum[0] ^ sum[1] ^ sum[2] ^ sum[3];
}

static void copy_plain(uint8_t *data, uint8_t *to, size_t n)
{
    memcpy(to, data, n);
}

#if BANTAM_X86
/* Past the caches, so that what is overwritten is not read first. */
__attribute__((target("avx2"))) static void copy_streaming_avx2(uint8_t *data, uint8_t *to, size_t n)
{
    for (size_t i = 0; i + 64 <= n; i += 64) {
        _mm256_stream_si256((__m256i *)(to + i), _mm256_load_si256((const __m256i *)(data + i)));
        _mm256_stream_si256((__m256i *)(to + i + 32), _mm256_load_si256((const __m256i *)(data + i + 32)));
    }
    _mm_sfence();
}

__attribute__((target("avx2"))) static void change_avx2(uint8_t *data, uint8_t *to, size_t n)
{
    (void)to;
    const __m256i ones = _mm256_set1_epi8(1);
    for (size_t i = 0; i + 32 <= n; i += 32) {
        __m256i *at = (__m256i *)(data + i);
        _mm256_store_si256(at, _mm256_xor_si256(_mm256_load_si256(at), ones));
    }
}

__attribute__((target("avx2"), always_inline)) static inline uint64_t fold_avx2(const __m256i sum[4])
{
    uint64_t words[4];
    _mm256_storeu_si256((__m256i *)words,
                        _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]), _mm256_xor_si256(sum[2], sum[3])));
    return words[0] ^ words[1] ^ words[2] ^ words[3];
}

__attribute__((target("avx2"))) static uint64_t read_avx2(const uint8_t *data, size_t n)
{
    __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                      _mm256_setzero_si256()};
    for (size_t i = 0; i + 128 <= n; i += 128) {
        for (size_t j = 0; j < 4; j++)
            sum[j] = _mm256_xor_si256(sum[j], _mm256_load_si256((const __m256i *)(data + i + 32 * j)));
    }
    return fold_avx2(sum);
}

__attribute__((target("avx2"))) static uint64_t read_ahead_avx2(const uint8_t *data, size_t n)
{
    __m256i sum[4] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                      _mm256_setzero_si256()};
    for (size_t i = 0; i + 128 <= n; i += 128) {
        _mm_prefetch((const char *)(data + i + READ_AHEAD), _MM_HINT_T0);
        _mm_prefetch((const char *)(data + i + READ_AHEAD + 64), _MM_HINT_T0);
        for (size_t j = 0; j < 4; j++)
            sum[j] = _mm256_xor_si256(sum[j], _mm256_load_si256((const __m256i *)(data + i + 32 * j)));
    }
    return fold_avx2(sum);
}

__attribute__((target("avx2"))) static uint64_t read_streams_avx2(const uint8_t *data, size_t n)
{
    __m256i sum[READ_STREAMS] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                                 _mm256_setzero_si256()};
    size_t stride = n / READ_STREAMS / 4096 * 4096; /* what is left over is read by nobody: under 16 KB */
    for (size_t i = 0; i < stride; i += 64) {
        for (size_t j = 0; j < READ_STREAMS; j++) {
            const uint8_t *at = data + j * stride + i;
            _mm_prefetch((const char *)(at + READ_AHEAD), _MM_HINT_T0);
            sum[j] = _mm256_xor_si256(sum[j], _mm256_load_si256((const __m256i *)at));
            sum[j] = _mm256_xor_si256(sum[j], _mm256_load_si256((const __m256i *)(at + 32)));
        }
    }
    return fold_avx2(sum);
}

/* 32 multiply-adds of 8 bits an instruction; the sums of 16 bits are the next one's operand. */
__attribute__((target("avx2"))) static uint64_t dots_avx2(const uint8_t *data, size_t n)
{
    (void)data;
    __m256i x[CHAINS], w = _mm256_set1_epi8(1);
    for (int c = 0; c < CHAINS; c++)
        x[c] = _mm256_set1_epi8((char)c);
    for (size_t i = 0; i < n; i++) {
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++)
            x[c] = _mm256_maddubs_epi16(x[c], w);
    }
    for (int c = 1; c < CHAINS; c++)
        x[0] = _mm256_xor_si256(x[0], x[c]);
    return (uint64_t)_mm256_extract_epi64(x[0], 0);
}

/* 64 multiply-adds of 8 bits an instruction. */
__attribute__((target("avx512f,avx512vnni"))) static uint64_t dots_avx512vnni(const uint8_t *data, size_t n)
{
    (void)data;
    __m512i sums[CHAINS], x = _mm512_set1_epi8(3), w = _mm512_set1_epi8(1);
    for (int c = 0; c < CHAINS; c++)
        sums[c] = _mm512_set1_epi32(c);
    for (size_t i = 0; i < n; i++) {
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++)
            sums[c] = _mm512_dpbusd_epi32(sums[c], x, w);
    }
    for (int c = 1; c < CHAINS; c++)
        sums[0] = _mm512_xor_si512(sums[0], sums[c]);
    return (uint64_t)_mm512_reduce_add_epi32(sums[0]);
}

/* 32 of them an instruction. */
__attribute__((target("avx2,avxvnni"))) static uint64_t dots_avxvnni(const uint8_t *data, size_t n)
{
    (void)data;
    __m256i sums[CHAINS], x = _mm256_set1_epi8(3), w = _mm256_set1_epi8(1);
    for (int c = 0; c < CHAINS; c++)
        sums[c] = _mm256_set1_epi32(c);
    for (size_t i = 0; i < n; i++) {
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++)
            sums[c] = _mm256_dpbusd_avx_epi32(sums[c], x, w);
    }
    for (int c = 1; c < CHAINS; c++)
        sums[0] = _mm256_xor_si256(sums[0], sums[c]);
    return (uint64_t)_mm256_extract_epi64(sums[0], 0);
}

__attribute__((target("avx2,fma"))) static uint64_t fmas_avx2(const uint8_t *data, size_t n)
{
    (void)data;
    __m256 sums[CHAINS], x = _mm256_set1_ps(0.5f), w = _mm256_set1_ps(0.25f);
    for (int c = 0; c < CHAINS; c++)
        sums[c] = _mm256_set1_ps((float)c);
    for (size_t i = 0; i < n; i++) {
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++)
            sums[c] = _mm256_fmadd_ps(sums[c], x, w);
    }
    for (int c = 1; c < CHAINS; c++)
        sums[0] = _mm256_add_ps(sums[0], sums[c]);
    return (uint64_t)_mm256_cvtss_f32(sums[0]);
}

__attribute__((target("avx512f"))) static uint64_t fmas_avx512(const uint8_t *data, size_t n)
{
    (void)data;
    __m512 sums[CHAINS], x = _mm512_set1_ps(0.5f), w = _mm512_set1_ps(0.25f);
    for (int c = 0; c < CHAINS; c++)
        sums[c] = _mm512_set1_ps((float)c);
    for (size_t i = 0; i < n; i++) {
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++)
            sums[c] = _mm512_fmadd_ps(sums[c], x, w);
    }
    for (int c = 1; c < CHAINS; c++)
        sums[0] = _mm512_add_ps(sums[0], sums[c]);
    return (uint64_t)_mm512_reduce_add_ps(sums[0]);
}

/* Two tiles of rows by two of outputs, as the kernels have them; all tiles whole. */
static void configure_tiles(void)
{
    static const uint8_t ones[TILE_ROWS * TILE_ROW_BYTES] = {1};
    struct tile_config config = {.palette = 1};
    for (int i = 0; i < TILE_COUNT; i++) {
        config.rows[i] = TILE_ROWS;
        config.row_bytes[i] = TILE_ROW_BYTES;
    }
    AMX_LOAD_CONFIG(&config);
    AMX_LOAD(4, ones, TILE_ROW_BYTES);
    AMX_LOAD(5, ones, TILE_ROW_BYTES);
    AMX_LOAD(6, ones, TILE_ROW_BYTES);
    AMX_LOAD(7, ones, TILE_ROW_BYTES);
}

static uint64_t tiles_int8(const uint8_t *data, size_t n)
{
    (void)data;
    configure_tiles();
    for (size_t i = 0; i < n; i++) {
        AMX_DOT_INT8(0, 4, 6);
        AMX_DOT_INT8(1, 4, 7);
        AMX_DOT_INT8(2, 5, 6);
        AMX_DOT_INT8(3, 5, 7);
    }
    AMX_RELEASE();
    return n;
}

static uint64_t tiles_bf16(const uint8_t *data, size_t n)
{
    (void)data;
    configure_tiles();
    for (size_t i = 0; i < n; i++) {
        AMX_DOT_BF16(0, 4, 6);
        AMX_DOT_BF16(1, 4, 7);
        AMX_DOT_BF16(2, 5, 6);
        AMX_DOT_BF16(3, 5, 7);
    }
    AMX_RELEASE();
    return n;
}
#endif

/* 1e9 bytes a second. Which way of reading or of copying is the fastest is the machine's business: the best
 * of them counts. */
static void measure_memory(struct cpu_backend *cpu, enum isa_level isa, size_t size_bytes,
                           struct ceilings *found)
{
    uint8_t *data = cpu_memory_alloc(size_bytes);
    ASSERT(data != NULL);
    memset(data, 1, size_bytes);
    ceiling_fn *reads[3] = {read_plain};
    copy_fn *copies[3] = {copy_plain};
    size_t n_ways = 1;
#if BANTAM_X86
    if (isa >= ISA_AVX2) {
        reads[0] = read_avx2;
        reads[1] = read_ahead_avx2;
        reads[2] = read_streams_avx2;
        copies[1] = copy_streaming_avx2;
        copies[2] = change_avx2;
        n_ways = 3;
    }
#else
    (void)isa;
#endif
    for (size_t i = 0; i < n_ways; i++) {
        struct ceiling_job read = {.fn = reads[i], .data = data, .n = size_bytes};
        struct ceiling_job copy = {.copy = copies[i], .data = data, .n = size_bytes / 2};
        double read_gb_s = (double)size_bytes / best_seconds(cpu, &read) * 1e-9;
        double copy_gb_s = (double)size_bytes / best_seconds(cpu, &copy) * 1e-9;
        found->read_gb_s = read_gb_s > found->read_gb_s ? read_gb_s : found->read_gb_s;
        found->copy_gb_s = copy_gb_s > found->copy_gb_s ? copy_gb_s : found->copy_gb_s;
    }
    cpu_memory_free(data);
}

/* 1e9 operations a second of all threads, of a function that does macs_a_loop multiply-adds a loop. */
static double measure_macs(struct cpu_backend *cpu, ceiling_fn *fn, size_t n_loops, double macs_a_loop)
{
    struct ceiling_job job = {.fn = fn, .n = n_loops};
    return 2 * macs_a_loop * (double)n_loops * cpu->n_threads / best_seconds(cpu, &job) * 1e-9;
}

double ceilings_int8_gop_s(struct backend *backend, enum isa_level isa, bool quick)
{
#if BANTAM_X86
    struct cpu_backend *cpu = cpu_of(backend);
    size_t n_loops = quick ? OPS_LOOPS / QUICK_SHARE : OPS_LOOPS;
    if (isa >= ISA_AVX512VNNI)
        return measure_macs(cpu, dots_avx512vnni, n_loops, 64.0 * CHAINS);
    if (isa == ISA_AVXVNNI)
        return measure_macs(cpu, dots_avxvnni, n_loops, 32.0 * CHAINS);
    if (isa >= ISA_AVX2)
        return measure_macs(cpu, dots_avx2, n_loops, 32.0 * CHAINS);
#else
    (void)backend, (void)isa, (void)quick;
#endif
    return 0;
}

struct ceilings ceilings_measure(struct backend *backend, enum isa_level isa, bool quick)
{
    struct cpu_backend *cpu = cpu_of(backend);
    struct ceilings found = {0};
    size_t share = quick ? QUICK_SHARE : 1;
    measure_memory(cpu, isa, READ_BYTES / share, &found);
    found.int8_gop_s = ceilings_int8_gop_s(backend, isa, quick);
#if BANTAM_X86
    if (isa >= ISA_AMX) {
        const double macs = 4.0 * TILE_ROWS * TILE_ROWS * TILE_ROW_BYTES; /* of bytes; bf16 half as many */
        found.tile_int8_gop_s = measure_macs(cpu, tiles_int8, TILE_LOOPS / share, macs);
        found.tile_bf16_gflop_s = measure_macs(cpu, tiles_bf16, TILE_LOOPS / share, macs / 2);
    }
    if (isa >= ISA_AVX512)
        found.f32_gflop_s = measure_macs(cpu, fmas_avx512, OPS_LOOPS / share, 16.0 * CHAINS);
    else if (isa >= ISA_AVX2)
        found.f32_gflop_s = measure_macs(cpu, fmas_avx2, OPS_LOOPS / share, 8.0 * CHAINS);
#endif
    return found;
}
