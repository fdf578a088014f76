#include "kernels/kernel_table.h"

#include <string.h>
#include "base/assert.h"

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

enum isa_level isa_detect(void)
{
    enum { XCR0_YMM = 0x6, XCR0_ZMM = 0xe6 };
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx))
        return ISA_SCALAR;
    const unsigned basics = bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C;
    if ((ecx & basics) != basics)
        return ISA_SCALAR;
    uint64_t saved = read_xcr0();
    if ((saved & XCR0_YMM) != XCR0_YMM || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) ||
        !(ebx & bit_AVX2))
        return ISA_SCALAR;
    const unsigned avx512 = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL;
    if ((saved & XCR0_ZMM) != XCR0_ZMM || (ebx & avx512) != avx512)
        return ISA_AVX2;
    if (!(ecx & bit_AVX512VNNI))
        return ISA_AVX512;
    bool bf16 = __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax & bit_AVX512BF16);
    return bf16 && amx_request() ? ISA_AMX : ISA_AVX512VNNI;
}
#else
enum isa_level isa_detect(void)
{
    return ISA_SCALAR;
}
#endif

static const char *const isa_names[ISA_COUNT] = {"scalar", "avx2", "avx512", "avx512vnni", "amx"};

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
                   "unknown instruction set \"%s\": expected auto, scalar, avx2, avx512, avx512vnni or amx",
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
    ASSERT(highest <= isa_detect());
#define V(kernel, isa, suffix)                                                                               \
    if ((isa) <= highest && (isa) >= table->level[KERNEL_##kernel]) {                                        \
        table->kernel = kernel##_##suffix;                                                                   \
        table->level[KERNEL_##kernel] = (isa);                                                               \
    }
    KERNEL_VARIANTS(V)
#undef V
#else
    (void)highest;
#endif
    table->arithmetic = isa_arithmetic(highest);
}
