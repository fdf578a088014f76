/* Conversions of ptx.h on whole ranges of codes, for test_ptx_numbers.c. */
#include "kernels/cuda/ptx.h"
#include "tests/cuda/emulator_kernels.h"

DEVICE const uint32_t *in_of(const struct test_args &args)
{
    return (const uint32_t *)args.in;
}

#define NUMBER_KERNEL(name, expression)                                                                      \
    KERNEL(number_##name, struct test_args)                                                                  \
    {                                                                                                        \
        uint32_t i = block_x() * block_threads() + thread_x();                                               \
        if (i < args.n)                                                                                      \
            ((uint32_t *)args.out)[i] = expression;                                                          \
    }
NUMBER_KERNEL(to_bf16, to_bf16(bits_float(in_of(args)[i])))
NUMBER_KERNEL(to_bf16x2, to_bf16x2(bits_float(in_of(args)[i]), -bits_float(in_of(args)[i])))
NUMBER_KERNEL(from_bf16, float_bits(from_bf16((uint16_t)i)))
NUMBER_KERNEL(from_halves, float_bits(from_bf16_low(in_of(args)[i]) + from_bf16_high(in_of(args)[i])))
NUMBER_KERNEL(to_f16, to_f16(bits_float(in_of(args)[i])))
NUMBER_KERNEL(from_f16, float_bits(from_f16((uint16_t)i)))
NUMBER_KERNEL(to_e4m3, to_e4m3(bits_float(in_of(args)[i])))
NUMBER_KERNEL(encode_e4m3, e4m3_encode(bits_float(in_of(args)[i])))
NUMBER_KERNEL(to_e4m3x2, to_e4m3x2(bits_float(in_of(args)[i]), 2.0f))
NUMBER_KERNEL(from_e4m3, float_bits(from_e4m3((uint8_t)i)))
NUMBER_KERNEL(bf16x2_fma, bf16x2_fma(in_of(args)[3 * i], in_of(args)[3 * i + 1], in_of(args)[3 * i + 2]))
NUMBER_KERNEL(bf16x2_mul, bf16x2_mul(in_of(args)[2 * i], in_of(args)[2 * i + 1]))

/* Four codes a thread: out [n][2]. */
KERNEL(number_e4m3x4_to_bf16, struct test_args)
{
    uint32_t i = block_x() * block_threads() + thread_x();
    if (i < args.n)
        e4m3x4_to_bf16((uint32_t *)args.out + 2 * i, ((const uint32_t *)args.in)[i]);
}

/* Eight codes a thread: out [n][4]. */
KERNEL(number_int4x8_to_bf16, struct test_args)
{
    uint32_t i = block_x() * block_threads() + thread_x();
    if (i < args.n)
        int4x8_to_bf16((uint32_t *)args.out + 4 * i, ((const uint32_t *)args.in)[i]);
}
