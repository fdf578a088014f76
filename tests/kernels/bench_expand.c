#include "tests/kernels/bench_expand.h"

#include "base/assert.h"

#if BANTAM_X86
#define BANTAM_AMX_NOTHING
#include "kernels/x86/attention_amx.h"

bool expand_is_available(void)
{
    return isa_detect() >= ISA_AVX512VNNI && __builtin_cpu_supports("avx512bf16");
}

static inline __attribute__((always_inline)) void expand_all(const struct tile_args *a,
                                                             const enum weight_format FORMAT)
{
    for (size_t k = 0, n; k < a->n_in; k += n) {
        n = a->n_in - k < EXPAND_INPUTS_FEW ? a->n_in - k : EXPAND_INPUTS_FEW;
        expand_codes_to_bf16(a, FORMAT, is_of_nibbles(FORMAT), k, n, a->scratch); /* as for few rows */
    }
}

void expand_panel(enum weight_format format, const struct tile_args *args)
{
    switch (format) {
    case WEIGHT_INT8:
        expand_all(args, WEIGHT_INT8);
        return;
    case WEIGHT_INT4:
        expand_all(args, WEIGHT_INT4);
        return;
    case WEIGHT_UINT4:
        expand_all(args, WEIGHT_UINT4);
        return;
    case WEIGHT_INT5:
        expand_all(args, WEIGHT_INT5);
        return;
    case WEIGHT_K4:
        expand_all(args, WEIGHT_K4);
        return;
    case WEIGHT_K5:
        expand_all(args, WEIGHT_K5);
        return;
    case WEIGHT_K6:
        expand_all(args, WEIGHT_K6);
        return;
    default:
        ASSERT(false && "no format of codes");
    }
}

static void attention_to_tiles_bf16(const struct attention_args *args)
{
    attend_tiles(args, KV_BF16);
}

static void attention_to_tiles_int8(const struct attention_args *args)
{
    attend_tiles(args, KV_INT8);
}

void expand_attention(struct kernel_table *table)
{
    table->attention_tile_bf16 = attention_to_tiles_bf16;
    table->attention_tile_int8 = attention_to_tiles_int8;
}
#else
bool expand_is_available(void)
{
    return false;
}

void expand_panel(enum weight_format format, const struct tile_args *args)
{
    (void)format, (void)args;
    ASSERT(false);
}

void expand_attention(struct kernel_table *table)
{
    (void)table;
    ASSERT(false);
}
#endif
