/* activation(gate) * up, alone and with the row in 8 bits. */
#include "kernels/cuda/quantize_device.h"
#include "kernels/ref/math_ref.h"

/* exp(x) + 1 is what the gate is divided by. */
template <bool IS_SILU> DEVICE float activation_exponent(float gate)
{
    if (IS_SILU)
        return -gate;
    return fmaf(GELU_CUBIC * (gate * gate), gate, gate) * GELU_SLOPE;
}

/* exp_ref where |x| is at most PLAIN_EXPONENT_MAX: 2^n is one factor, and the product exact. */
DEVICE float exp_plain(float x)
{
    float shifted, y = exp_mantissa_ref(x, &shifted);
    return y * bits_float((float_bits(shifted) << 23) + 0x3f800000u);
}

#define PLAIN_EXPONENT_MAX 40.0f
#define PLAIN_GATE_MIN     0x1p-20f /* nearer to 0 the divisor can be 2 - 2^-23, whose inverse is the hardest */

enum { ACTIVATION_GROUP = 4 };

/* The quotients of gates that are not plain, one at a time: chosen, for what is indexed lies in memory. */
template <bool IS_SILU>
DEVICE void activate_any(float y[ACTIVATION_GROUP], const float gate[ACTIVATION_GROUP])
{
#pragma unroll 1
    for (uint32_t i = 0; i < ACTIVATION_GROUP; i++) {
        float chosen = gate[0];
#pragma unroll
        for (uint32_t j = 1; j < ACTIVATION_GROUP; j++)
            chosen = i == j ? gate[j] : chosen;
        chosen = chosen / (1.0f + exp_ref(activation_exponent<IS_SILU>(chosen)));
#pragma unroll
        for (uint32_t j = 0; j < ACTIVATION_GROUP; j++)
            y[j] = i == j ? chosen : y[j];
    }
}

/* gate = activation(gate) * up. What gates mostly are takes no branch, so that they overlap. */
template <bool IS_SILU> DEVICE void activate(float gate[ACTIVATION_GROUP], const float up[ACTIVATION_GROUP])
{
    float y[ACTIVATION_GROUP];
    bool plain = true;
#pragma unroll
    for (uint32_t i = 0; i < ACTIVATION_GROUP; i++) {
        float x = activation_exponent<IS_SILU>(gate[i]);
        plain = plain && fabsf(x) <= PLAIN_EXPONENT_MAX && fabsf(gate[i]) >= PLAIN_GATE_MIN;
        y[i] = divide_in_range(gate[i], 1.0f + exp_plain(x));
    }
    if (!plain)
        activate_any<IS_SILU>(y, gate);
#pragma unroll
    for (uint32_t i = 0; i < ACTIVATION_GROUP; i++)
        gate[i] = y[i] * up[i];
}

/* Four elements of row r from k on. */
template <typename type, bool IS_SILU>
DEVICE void activate_four(const struct activation_mul_args &args, uint32_t r, uint32_t k)
{
    const type *gates = (const type *)args.gate_up + (size_t)r * args.gate_up_stride;
    bool whole = (args.width | args.gate_up_stride | args.out_stride) % 4 == 0;
    float x[4], up[4];
    load_group(x, gates, k, args.width, whole);
    load_group(up, gates + args.width, k, args.width, whole);
    activate<IS_SILU>(x, up);
    store_group((type *)args.out + (size_t)r * args.out_stride, x, k, args.width, whole);
}

/* Two pairs: gate = activation(gate) * up, rounded to bf16. */
template <bool IS_SILU> DEVICE void activate_pairs(uint32_t gate[2], const uint32_t up[2])
{
    float x[4] = {from_bf16_low(gate[0]), from_bf16_high(gate[0]), from_bf16_low(gate[1]),
                  from_bf16_high(gate[1])};
    float y[4] = {from_bf16_low(up[0]), from_bf16_high(up[0]), from_bf16_low(up[1]), from_bf16_high(up[1])};
    activate<IS_SILU>(x, y);
    gate[0] = to_bf16x2(x[0], x[1]);
    gate[1] = to_bf16x2(x[2], x[3]);
}

/* Eight elements of a bf16 row. */
template <bool IS_SILU> DEVICE void activate_eight(vec16 *gate, const vec16 &up)
{
    activate_pairs<IS_SILU>(gate->w, up.w);
    activate_pairs<IS_SILU>(gate->w + 2, up.w + 2);
}

/* Whether rows of bf16 are read by eights. */
DEVICE bool is_by_eights(const struct activation_mul_args &args)
{
    return (args.width | args.gate_up_stride | args.out_stride) % 8 == 0;
}

/* The thread's elements of the rows first, first + step, ..: the next row's are on their way while these are
 * computed. By eights. */
template <bool IS_SILU>
DEVICE void activate_rows(const struct activation_mul_args &args, uint32_t first, uint32_t step,
                          uint32_t n_rows)
{
    uint32_t k = 8 * (block_y() * block_threads() + thread_x());
    const uint16_t *gates = (const uint16_t *)args.gate_up + (size_t)first * args.gate_up_stride + k;
    uint16_t *out = (uint16_t *)args.out + (size_t)first * args.out_stride + k;
    if (k >= args.width || first >= n_rows)
        return;
    vec16 gate = load_16(gates), up = load_16(gates + args.width);
    for (uint32_t r = first; r < n_rows; r += step) {
        vec16 next_gate = {}, next_up = {};
        gates += (size_t)step * args.gate_up_stride;
        if (r + step < n_rows) {
            next_gate = load_16(gates);
            next_up = load_16(gates + args.width);
        }
        activate_eight<IS_SILU>(&gate, up);
        store_16(out, gate);
        out += (size_t)step * args.out_stride;
        gate = next_gate;
        up = next_up;
    }
}

/* Eight elements of any row r from k on, by fours. */
template <typename type>
DEVICE void activate_any_eight(const struct activation_mul_args &args, uint32_t r, uint32_t k)
{
#pragma unroll 1
    for (uint32_t end = k + 8; k < end && k < args.width; k += 4) {
        if (args.kind == ACTIVATION_SILU)
            activate_four<type, true>(args, r, k);
        else
            activate_four<type, false>(args, r, k);
    }
}

/* Pieces of rows first, first + step, .. */
template <typename type>
DEVICE void activate_pieces(const struct activation_mul_args &args, uint32_t first, uint32_t step,
                            uint32_t n_rows)
{
    if (sizeof(type) != 2 || !is_by_eights(args))
        for (uint32_t r = first; r < n_rows; r += step)
            activate_any_eight<type>(args, r, 8 * (block_y() * block_threads() + thread_x()));
    else if (args.kind == ACTIVATION_SILU)
        activate_rows<true>(args, first, step, n_rows);
    else
        activate_rows<false>(args, first, step, n_rows);
}

template <typename type> DEVICE void activation_mul(const struct activation_mul_args &args)
{
    uint32_t n_rows = count_rows(&args.rows);
    dependents_launch();
    dependencies_wait();
    activate_pieces<type>(args, block_x(), grid_x(), n_rows);
}

KERNEL_BOUNDS(activation_mul_f32, struct activation_mul_args, ACTIVATION_THREADS, 1)
{
    activation_mul<float>(args);
}

KERNEL_BOUNDS(activation_mul_bf16, struct activation_mul_args, ACTIVATION_THREADS, 1)
{
    activation_mul<uint16_t>(args);
}

/* ---- With the row in 8 bits, whose scale wants all of it ---- */

enum { ACTIVATION_KEPT = ACTIVATION_WHOLE_WIDTH_MAX / (8 * ACTIVATION_WHOLE_THREADS) };

/* A row by one block, which keeps it. */
template <bool IS_E4M3, bool IS_SILU>
DEVICE void quantize_whole(const struct activation_mul_args &args, uint32_t r, uint32_t *parts)
{
    const uint16_t *gates = (const uint16_t *)args.gate_up + (size_t)r * args.gate_up_stride;
    uint16_t *out = (uint16_t *)args.out + (size_t)r * args.out_stride;
    uint32_t n_padded = quantized_width(args.width), step = 8 * block_threads(), amax = 0;
    vec16 gate[ACTIVATION_KEPT] = {}, up[ACTIVATION_KEPT];
    if (args.width > ACTIVATION_KEPT * step || args.width % 8 != 0)
        trap();
#pragma unroll
    for (uint32_t g = 0; g < ACTIVATION_KEPT; g++) {
        uint32_t k = 8 * thread_x() + g * step;
        if (k >= args.width)
            break;
        gate[g] = load_16(gates + k);
        up[g] = load_16(gates + args.width + k);
    }
#pragma unroll
    for (uint32_t g = 0; g < ACTIVATION_KEPT; g++) {
        uint32_t k = 8 * thread_x() + g * step;
        if (k >= args.width)
            break;
        activate_eight<IS_SILU>(&gate[g], up[g]);
        amax = amax_add_piece(amax, gate[g]);
        store_16(out + k, gate[g]);
    }
    struct row_scale scale = row_scale_of<IS_E4M3>(block_amax(amax, parts));
#pragma unroll
    for (uint32_t g = 0; g < ACTIVATION_KEPT; g++)
        store_piece<IS_E4M3>(&args.quantized, r, 8 * thread_x() + g * step, n_padded, gate[g], scale.inverse);
    if (thread_x() == 0)
        args.quantized.scale[r] = scale.scale;
}

/* The thread's eight elements of row r alone. */
DEVICE void activate_piece(const struct activation_mul_args &args, uint32_t r)
{
    uint32_t k = 8 * (block_y() * block_threads() + thread_x());
    if (!is_by_eights(args)) {
        activate_any_eight<uint16_t>(args, r, k);
        return;
    }
    if (k >= args.width)
        return;
    const uint16_t *gates = (const uint16_t *)args.gate_up + (size_t)r * args.gate_up_stride + k;
    vec16 gate = load_16(gates), up = load_16(gates + args.width);
    if (args.kind == ACTIVATION_SILU)
        activate_eight<true>(&gate, up);
    else
        activate_eight<false>(&gate, up);
    store_16((uint16_t *)args.out + (size_t)r * args.out_stride + k, gate);
}

/* A row by a block for each piece; the last one to be done reads the row again and quantises it. */
template <bool IS_E4M3>
DEVICE void quantize_pieces(const struct activation_mul_args &args, uint32_t r, uint32_t *parts,
                            uint32_t *n_arrived)
{
    uint32_t *arrivals = args.arrivals + r;
    activate_piece(args, r);
    barrier();
    if (thread_x() == 0) {
        fence_device(); /* one thread's, behind the barrier, counts for all: causality is transitive */
        *n_arrived = atomic_add_u32(arrivals, 1);
        fence_device();
    }
    barrier();
    if (*n_arrived + 1 < grid_y())
        return;
    if (thread_x() == 0)
        *arrivals = 0;
    quantize_row<IS_E4M3>(&args.quantized, r, (const uint16_t *)args.out + (size_t)r * args.out_stride,
                          args.width, parts);
}

template <bool IS_E4M3> DEVICE void activation_mul_quantize(const struct activation_mul_args &args)
{
    SHARED(uint32_t, parts, [BLOCK_WARPS_MAX]);
    SHARED(uint32_t, n_arrived, [1]);
    uint32_t r = block_x(), n_rows = count_rows(&args.rows);
    dependents_launch();
    dependencies_wait();
    if (r >= n_rows)
        return;
    if (args.arrivals != NULL)
        quantize_pieces<IS_E4M3>(args, r, parts, n_arrived);
    else if (args.kind == ACTIVATION_SILU)
        quantize_whole<IS_E4M3, true>(args, r, parts);
    else
        quantize_whole<IS_E4M3, false>(args, r, parts);
}

KERNEL_BOUNDS(activation_mul_s8, struct activation_mul_args, ACTIVATION_WHOLE_THREADS, 2)
{
    activation_mul_quantize<false>(args);
}

KERNEL_BOUNDS(activation_mul_e4m3, struct activation_mul_args, ACTIVATION_WHOLE_THREADS, 2)
{
    activation_mul_quantize<true>(args);
}
