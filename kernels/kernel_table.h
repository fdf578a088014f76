/* The dispatch table: filled with the references, then overwritten by what the CPU allows up to a level. */
#pragma once

#include "base/error.h"
#include "kernels/kernel_list.h"
#include "kernels/kernel_types.h"
#include "kernels/tiles.h"

/* Each has what those before it want, but for AVX-VNNI, which a machine with AVX-512 may lack. */
enum isa_level { ISA_SCALAR, ISA_AVX2, ISA_AVXVNNI, ISA_AVX512, ISA_AVX512VNNI, ISA_AMX, ISA_COUNT };

/* What linear layers, and attention over bf16 and int8 KV, compute, to the bit. Instruction sets of one
 * arithmetic give the same bits. */
enum arithmetic {
    ARITHMETIC_PLAIN, /* kernel_types.h */
    ARITHMETIC_TILES, /* tiles.h */
};
/* Which of them is that of a level: of ISA_AMX tiles, of all others plain. */
enum arithmetic isa_arithmetic(enum isa_level level);

#define K(name, type, what) KERNEL_##name,
enum kernel_id { KERNEL_LIST(K) KERNEL_COUNT };
#undef K

struct kernel_table {
#define K(name, type, what) type *name;
    KERNEL_LIST(K)
#undef K
    enum isa_level level[KERNEL_COUNT]; /* of the variant chosen */
    enum arithmetic arithmetic;         /* isa_arithmetic of the level that filled it */
    bool kv_ahead_is_near;              /* attention_args.ahead_is_near of this machine */
};

/* What CPU and operating system support (CPUID, XGETBV): "avx2" means AVX2, FMA and F16C; "avxvnni" also
 * AVX-VNNI; "avx512" AVX2's and F, BW, DQ, VL; "avx512vnni" also VNNI; "amx" also AVX-512 BF16, AMX's tiles,
 * INT8 and BF16, and that the kernel lets this process use tiles, which is asked for here. */
enum isa_level isa_detect(void);
/* The highest level that is there, of at most `highest`: isa_detect has no bound. */
enum isa_level isa_at_most(enum isa_level highest);
const char *isa_name(enum isa_level level);
/* "auto" = ISA_COUNT - 1. ERR_INVALID_ARGUMENT names the levels that exist. */
err_t isa_parse(const char *text, enum isa_level *out) ERR_MUST_CHECK;

const char *kernel_name(enum kernel_id id);
const char *kernel_summary(enum kernel_id id);

/* Takes for each kernel its best variant of at most `highest`, which must be there. */
void kernel_table_fill(struct kernel_table *table, enum isa_level highest);

#define K(name, type, what) type name##_ref;
KERNEL_LIST(K)
#undef K

#if BANTAM_X86
#define V(name, isa, suffix) extern __typeof__(name##_ref) name##_##suffix;
KERNEL_VARIANTS(V)
#undef V
#endif
