/* Every kernel and every variant of it, once. The dispatch table and checkkernel are made from
 * these lists, so that none can be forgotten.
 *
 * KERNEL_LIST(K): K(name, function type, what it does)
 * KERNEL_VARIANTS(V): V(name, isa level, suffix): the function is name_suffix. Every kernel also has
 * name_ref.
 */
#pragma once

#define KERNEL_LIST(K)                                                                                       \
    K(linear_f32, linear_fn, "panel of f32 weights by rows")                                                 \
    K(linear_bf16, linear_fn, "panel of bf16 weights by rows")                                               \
    K(linear_f16, linear_fn, "panel of f16 weights by rows")                                                 \
    K(linear_int8, linear_fn, "panel of int8 weights by int8 rows")                                          \
    K(linear_int4, linear_fn, "panel of int4 weights by int8 rows")                                          \
    K(linear_uint4, linear_fn, "panel of int4 weights with zero points by int8 rows")                        \
    K(linear_int5, linear_fn, "panel of int5 weights by int8 rows")                                          \
    K(linear_k4, linear_fn, "panel of K-quants of 4 bits by int8 rows")                                      \
    K(linear_k5, linear_fn, "panel of K-quants of 5 bits by int8 rows")                                      \
    K(linear_k6, linear_fn, "panel of K-quants of 6 bits by int8 rows")                                      \
    K(linear_tile_bf16, tile_fn, "panel of bf16 weights by bf16 rows")                                       \
    K(linear_tile_int8, tile_fn, "panel of int8 weights by bf16 rows")                                       \
    K(linear_tile_int4, tile_fn, "panel of int4 weights by bf16 rows")                                       \
    K(linear_tile_uint4, tile_fn, "panel of int4 weights with zero points by bf16 rows")                     \
    K(linear_tile_int5, tile_fn, "panel of int5 weights by bf16 rows")                                       \
    K(linear_tile_k4, tile_fn, "panel of K-quants of 4 bits by bf16 rows")                                   \
    K(linear_tile_k5, tile_fn, "panel of K-quants of 5 bits by bf16 rows")                                   \
    K(linear_tile_k6, tile_fn, "panel of K-quants of 6 bits by bf16 rows")                                   \
    K(linear_wide_int8, tile_fn, "panel of int8 weights in wide groups by int8 rows")                        \
    K(linear_wide_int4, tile_fn, "panel of int4 weights in wide groups by int8 rows")                        \
    K(linear_wide_uint4, tile_fn, "the same with zero points")                                               \
    K(round_row, round_row_fn, "activations to bf16")                                                        \
    K(quantize_wide_row, quantize_wide_fn, "activations to int8 in blocks of 128")                           \
    K(quantize_row, quantize_row_fn, "activations to int8 in blocks of 32")                                  \
    K(quantize_kv, quantize_kv_fn, "K or V of a token to int8")                                              \
    K(quantize_group_int8, quantize_group_fn, "weights to int8 codes")                                       \
    K(quantize_group_int4, quantize_group_fn, "weights to int4 codes")                                       \
    K(norm_row, norm_row_fn, "residual add and RMS norm")                                                    \
    K(rope_head, rope_head_fn, "rotation of one head")                                                       \
    K(silu_mul_row, activation_row_fn, "SiLU times up")                                                      \
    K(gelu_mul_row, activation_row_fn, "GELU (tanh) times up")                                               \
    K(soft_cap_row, soft_cap_row_fn, "soft cap of logits")                                                   \
    K(attention_f32, attention_fn, "paged attention, f32 KV")                                                \
    K(attention_bf16, attention_fn, "paged attention, bf16 KV")                                              \
    K(attention_int8, attention_fn, "paged attention, int8 KV")                                              \
    K(attention_tile_bf16, attention_fn, "paged attention in bf16, bf16 KV")                                 \
    K(attention_tile_int8, attention_fn, "paged attention in bf16, int8 KV")                                 \
    K(attention_merge, attention_merge_fn, "chunks of a context together")                                   \
    K(logits_stats, logits_stats_fn, "maximum and finiteness of logits")                                     \
    K(exp_sum, exp_sum_fn, "sum of exponentials of logits")                                                  \
    K(exp_row, exp_row_fn, "probabilities of candidates")                                                    \
    K(count_above, count_above_fn, "rank of a logit")                                                        \
    K(select_from, select_from_fn, "candidates above a threshold")                                           \
    K(temper, temper_fn, "temperature")                                                                      \
    K(gumbel_argmax, gumbel_argmax_fn, "a draw over the whole vocabulary")

#define KERNEL_VARIANTS(V)                                                                                   \
    V(linear_f32, ISA_AVX2, avx2)                                                                            \
    V(linear_f32, ISA_AVX512, avx512)                                                                        \
    V(linear_bf16, ISA_AVX2, avx2)                                                                           \
    V(linear_bf16, ISA_AVX512, avx512)                                                                       \
    V(linear_f16, ISA_AVX2, avx2)                                                                            \
    V(linear_f16, ISA_AVX512, avx512)                                                                        \
    V(linear_int8, ISA_AVX2, avx2)                                                                           \
    V(linear_int8, ISA_AVXVNNI, avxvnni)                                                                     \
    V(linear_int8, ISA_AVX512, avx512)                                                                       \
    V(linear_int8, ISA_AVX512VNNI, avx512vnni)                                                               \
    V(linear_int4, ISA_AVX2, avx2)                                                                           \
    V(linear_int4, ISA_AVXVNNI, avxvnni)                                                                     \
    V(linear_int4, ISA_AVX512, avx512)                                                                       \
    V(linear_int4, ISA_AVX512VNNI, avx512vnni)                                                               \
    V(linear_uint4, ISA_AVX2, avx2)                                                                          \
    V(linear_uint4, ISA_AVXVNNI, avxvnni)                                                                    \
    V(linear_uint4, ISA_AVX512, avx512)                                                                      \
    V(linear_uint4, ISA_AVX512VNNI, avx512vnni)                                                              \
    V(linear_int5, ISA_AVX2, avx2)                                                                           \
    V(linear_int5, ISA_AVXVNNI, avxvnni)                                                                     \
    V(linear_int5, ISA_AVX512, avx512)                                                                       \
    V(linear_int5, ISA_AVX512VNNI, avx512vnni)                                                               \
    V(linear_k4, ISA_AVX2, avx2)                                                                             \
    V(linear_k4, ISA_AVXVNNI, avxvnni)                                                                       \
    V(linear_k4, ISA_AVX512, avx512)                                                                         \
    V(linear_k4, ISA_AVX512VNNI, avx512vnni)                                                                 \
    V(linear_k5, ISA_AVX2, avx2)                                                                             \
    V(linear_k5, ISA_AVXVNNI, avxvnni)                                                                       \
    V(linear_k5, ISA_AVX512, avx512)                                                                         \
    V(linear_k5, ISA_AVX512VNNI, avx512vnni)                                                                 \
    V(linear_k6, ISA_AVX2, avx2)                                                                             \
    V(linear_k6, ISA_AVXVNNI, avxvnni)                                                                       \
    V(linear_k6, ISA_AVX512, avx512)                                                                         \
    V(linear_k6, ISA_AVX512VNNI, avx512vnni)                                                                 \
    V(linear_tile_bf16, ISA_AMX, amx)                                                                        \
    V(linear_tile_int8, ISA_AMX, amx)                                                                        \
    V(linear_tile_int4, ISA_AMX, amx)                                                                        \
    V(linear_tile_uint4, ISA_AMX, amx)                                                                       \
    V(linear_tile_int5, ISA_AMX, amx)                                                                        \
    V(linear_tile_k4, ISA_AMX, amx)                                                                          \
    V(linear_tile_k5, ISA_AMX, amx)                                                                          \
    V(linear_tile_k6, ISA_AMX, amx)                                                                          \
    V(linear_wide_int8, ISA_AMX, amx)                                                                        \
    V(linear_wide_int4, ISA_AMX, amx)                                                                        \
    V(linear_wide_uint4, ISA_AMX, amx)                                                                       \
    V(round_row, ISA_AMX, amx)                                                                               \
    V(quantize_wide_row, ISA_AMX, amx)                                                                       \
    V(quantize_row, ISA_AVX2, avx2)                                                                          \
    V(quantize_row, ISA_AVX512, avx512)                                                                      \
    V(quantize_kv, ISA_AVX2, avx2)                                                                           \
    V(quantize_kv, ISA_AVX512, avx512)                                                                       \
    V(quantize_group_int8, ISA_AVX2, avx2)                                                                   \
    V(quantize_group_int8, ISA_AVX512, avx512)                                                               \
    V(quantize_group_int4, ISA_AVX2, avx2)                                                                   \
    V(quantize_group_int4, ISA_AVX512, avx512)                                                               \
    V(norm_row, ISA_AVX2, avx2)                                                                              \
    V(norm_row, ISA_AVX512, avx512)                                                                          \
    V(rope_head, ISA_AVX2, avx2)                                                                             \
    V(rope_head, ISA_AVX512, avx512)                                                                         \
    V(silu_mul_row, ISA_AVX2, avx2)                                                                          \
    V(silu_mul_row, ISA_AVX512, avx512)                                                                      \
    V(gelu_mul_row, ISA_AVX2, avx2)                                                                          \
    V(gelu_mul_row, ISA_AVX512, avx512)                                                                      \
    V(soft_cap_row, ISA_AVX2, avx2)                                                                          \
    V(soft_cap_row, ISA_AVX512, avx512)                                                                      \
    V(attention_f32, ISA_AVX2, avx2)                                                                         \
    V(attention_f32, ISA_AVX512, avx512)                                                                     \
    V(attention_bf16, ISA_AVX2, avx2)                                                                        \
    V(attention_bf16, ISA_AVX512, avx512)                                                                    \
    V(attention_int8, ISA_AVX2, avx2)                                                                        \
    V(attention_int8, ISA_AVX512, avx512)                                                                    \
    V(attention_tile_bf16, ISA_AMX, amx)                                                                     \
    V(attention_tile_int8, ISA_AMX, amx)                                                                     \
    V(attention_merge, ISA_AVX2, avx2)                                                                       \
    V(attention_merge, ISA_AVX512, avx512)                                                                   \
    V(logits_stats, ISA_AVX2, avx2)                                                                          \
    V(logits_stats, ISA_AVX512, avx512)                                                                      \
    V(exp_sum, ISA_AVX2, avx2)                                                                               \
    V(exp_sum, ISA_AVX512, avx512)                                                                           \
    V(exp_row, ISA_AVX2, avx2)                                                                               \
    V(exp_row, ISA_AVX512, avx512)                                                                           \
    V(count_above, ISA_AVX2, avx2)                                                                           \
    V(count_above, ISA_AVX512, avx512)                                                                       \
    V(select_from, ISA_AVX2, avx2)                                                                           \
    V(select_from, ISA_AVX512, avx512)                                                                       \
    V(temper, ISA_AVX2, avx2)                                                                                \
    V(temper, ISA_AVX512, avx512)                                                                            \
    V(gumbel_argmax, ISA_AVX2, avx2)                                                                         \
    V(gumbel_argmax, ISA_AVX512, avx512)
