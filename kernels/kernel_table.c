#include "kernels/kernel_table.h"

#include <string.h>
#include "base/assert.h"

#define LEVEL_BIT(level) (1u << (level))

#if BANTAM_X86
#include <cpuid.h>
#include "kernels/x86/amx_request.h"

/* Register state that the operating system saves: bits of XCR0. */
static uint64_t read_xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* By measurement on a Zen 5 (docs/cpu.md): a query of bf16 KV from memory, 8 KV heads of width 64, read 24
 * GB/s by the second-level cache and 37 by the first. Intel's were not compared. */
static bool kv_ahead_is_near(void)
{
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(0, &eax, &ebx, &ecx, &edx) && ebx == signature_AMD_ebx && ecx == signature_AMD_ecx &&
           edx == signature_AMD_edx;
}

/* The levels that are there, a bit each. */
static uint32_t find_levels(void)
{
    enum { XCR0_YMM = 0x6, XCR0_ZMM = 0xe6 };
    uint32_t found = LEVEL_BIT(ISA_SCALAR);
    unsigned eax, ebx, ecx, edx, more, unused;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx))
        return found;
    const unsigned basics = bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C;
    if ((ecx & basics) != basics)
        return found;
    uint64_t saved = read_xcr0();
    if ((saved & XCR0_YMM) != XCR0_YMM || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) ||
        !(ebx & bit_AVX2))
        return found;
    found |= LEVEL_BIT(ISA_AVX2);
    if (eax < 1 /* the last subleaf */ || !__get_cpuid_count(7, 1, &more, &unused, &unused, &unused))
        more = 0;
    if (more & bit_AVXVNNI)
        found |= LEVEL_BIT(ISA_AVXVNNI);
    const unsigned avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    if ((saved & XCR0_ZMM) != XCR0_ZMM || (ebx & avx512) != avx512)
        return found;
    found |= LEVEL_BIT(ISA_AVX512);
    if (!(ecx & bit_AVX512VNNI))
        return found;
    found |= LEVEL_BIT(ISA_AVX512VNNI);
    if ((more & bit_AVX512BF16) && amx_request())
        found |= LEVEL_BIT(ISA_AMX);
    return found;
}
#else
static bool kv_ahead_is_near(void)
{
    return false;
}

static uint32_t find_levels(void)
{
    return LEVEL_BIT(ISA_SCALAR);
}
#endif

enum isa_level isa_at_most(enum isa_level highest)
{
    uint32_t found = find_levels();
    int level = highest;
    while (!(found & LEVEL_BIT(level)))
        level--;
    return (enum isa_level)level;
}

enum isa_level isa_detect(void)
{
    return isa_at_most(ISA_COUNT - 1);
}

static const char *const isa_names[ISA_COUNT] = {"scalar", "avx2", "avxvnni", "avx512", "avx512vnni", "amx"};

const char *isa_name(enum isa_level level)
{
    ASSERT(level < ISA_COUNT);
    return isa_names[level];
}

err_t isa_parse(const char *text, enum isa_level *out)
{
    if (strcmp(text, "auto") == 0) {
        *out = ISA_COUNT - 1;
        return err_ok();
    }
    for (int level = 0; level < ISA_COUNT; level++) {
        if (strcmp(text, isa_names[level]) == 0) {
            *out = (enum isa_level)level;
            return err_ok();
        }
    }
    return err_new(ERR_INVALID_ARGUMENT,
                   "unknown instruction set \"%s\": expected auto, scalar, avx2, avxvnni, avx512, avx512vnni "
                   "or amx",
                   text);
}

enum arithmetic isa_arithmetic(enum isa_level level)
{
    return level == ISA_AMX ? ARITHMETIC_TILES : ARITHMETIC_PLAIN;
}

const char *kernel_name(enum kernel_id id)
{
#define K(name, type, what) #name,
    static const char *const names[KERNEL_COUNT] = {KERNEL_LIST(K)};
#undef K
    ASSERT(id < KERNEL_COUNT);
    return names[id];
}

const char *kernel_summary(enum kernel_id id)
{
#define K(name, type, what) what,
    static const char *const summaries[KERNEL_COUNT] = {KERNEL_LIST(K)};
#undef K
    ASSERT(id < KERNEL_COUNT);
    return summaries[id];
}

void kernel_table_fill(struct kernel_table *table, enum isa_level highest)
{
    *table = (struct kernel_table){
#define K(kernel, type, what) .kernel = kernel##_ref,
        KERNEL_LIST(K)
#undef K
    };
#if BANTAM_X86
    const uint32_t found = find_levels();
    ASSERT(found & LEVEL_BIT(highest));
#define V(kernel, isa, suffix)                                                                               \
    if ((isa) <= highest && (found & LEVEL_BIT(isa)) && (isa) >= table->level[KERNEL_##kernel]) {            \
        table->kernel = kernel##_##suffix;                                                                   \
        table->level[KERNEL_##kernel] = (isa);                                                               \
    }
    KERNEL_VARIANTS(V)
#undef V
#else
    (void)highest;
#endif
    table->arithmetic = isa_arithmetic(highest);
    table->kv_ahead_is_near = kv_ahead_is_near();
}
