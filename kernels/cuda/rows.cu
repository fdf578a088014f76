/* Ops that treat each row by itself: embedding, norm, activation, gathering of outputs, soft cap. A block (or
 * several) for a row, so that neighbours change nothing. */
#include "kernels/cuda/device_rows.h"
#include "kernels/ref/math_ref.h"

KERNEL_BOUNDS(embed, struct embed_args, EMBED_THREADS, 1)
{
    dependencies_wait();
    dependents_launch();
    uint32_t r = block_x();
    if (r >= args.step->n_rows)
        return;
    struct step_row row = args.step->rows[r];
    uint32_t token = row.token;
    if (row.flags & STEP_ROW_TOKEN_FROM_SLOT)
        token = args.slots.slots[args.step->seqs[row.seq].sampling_slot].last_token;
    bool is_here = token >= args.first_token && token - args.first_token < args.table.n_out;
    if (!is_here && args.one_rank)
        trap();
    token = is_here ? token - args.first_token : 0;
    for (uint32_t k = thread_x(); k < args.table.n_in; k += EMBED_THREADS)
        args.out[(size_t)r * args.out_stride + k] =
            is_here ? matrix_value(&args.table, token, k) * args.scale : 0.0f;
}

/* ---- add_norm ---- */

/* Groups of four elements that a thread holds. */
enum { NORM_GROUPS = ADD_NORM_WIDTH_MAX / (4 * ADD_NORM_THREADS_MAX) };

/* Up to four elements of a row from k; none past n. */
template <typename type>
DEVICE void load_group(float out[4], const type *row, uint32_t k, uint32_t n, bool whole)
{
    if (whole) {
        act_load_4(out, row + k);
        return;
    }
    for (uint32_t i = 0; i < 4; i++)
        out[i] = k + i < n ? act_load(row + k + i) : 0.0f;
}

template <typename type>
DEVICE void store_group(type *row, const float in[4], uint32_t k, uint32_t n, bool whole)
{
    if (whole) {
        act_store_4(row + k, in);
        return;
    }
    for (uint32_t i = 0; i < 4 && k + i < n; i++)
        act_store(row + k + i, in[i]);
}

/* Group g of a thread is the elements from 4 * (thread + g * threads); it adds its squares in that order,
 * then the warp's tree, then the tree over the warps. */
template <typename type> DEVICE void add_norm(const struct add_norm_args &args)
{
    SHARED(float, parts, [BLOCK_WARPS_MAX]);
    dependencies_wait();
    dependents_launch();
    uint32_t r = block_x(), n = args.n;
    if (r >= args.step->n_rows)
        return;
    if (n > ADD_NORM_WIDTH_MAX)
        trap();
    float *residual = args.residual + (size_t)r * args.residual_stride;
    const type *add = args.add == NULL ? NULL : (const type *)args.add + (size_t)r * args.add_stride;
    type *out = (type *)args.out + (size_t)r * args.out_stride;
    bool whole = (n | args.residual_stride | args.add_stride | args.out_stride) % 4 == 0;
    float x[NORM_GROUPS][4], sum = 0;
#pragma unroll
    for (uint32_t g = 0; g < NORM_GROUPS; g++) {
        uint32_t k = 4 * (thread_x() + g * block_threads());
        if (k >= n)
            break;
        load_group(x[g], residual, k, n, whole);
        if (add != NULL) {
            float delta[4];
            load_group(delta, add, k, n, whole);
            for (int i = 0; i < 4; i++)
                x[g][i] += delta[i];
            store_group(residual, x[g], k, n, whole);
        }
        for (int i = 0; i < 4; i++)
            sum = fmaf(x[g][i], x[g][i], sum);
    }
    float scale = 1.0f / sqrtf(block_sum(sum, parts) / (float)n + args.eps);
#pragma unroll
    for (uint32_t g = 0; g < NORM_GROUPS; g++) {
        uint32_t k = 4 * (thread_x() + g * block_threads());
        if (k >= n)
            break;
        float weight[4];
        load_group(weight, args.weight, k, n, whole);
        for (int i = 0; i < 4; i++)
            x[g][i] = x[g][i] * scale * (args.one_plus ? 1.0f + weight[i] : weight[i]);
        store_group(out, x[g], k, n, whole);
    }
}

KERNEL(add_norm_f32, struct add_norm_args)
{
    add_norm<float>(args);
}

KERNEL(add_norm_bf16, struct add_norm_args)
{
    add_norm<uint16_t>(args);
}

/* ---- activation_mul ---- */

DEVICE float activate(float gate, uint32_t kind)
{
    if (kind == ACTIVATION_SILU)
        return gate / (1.0f + exp_ref(-gate));
    float inner = fmaf(GELU_CUBIC * (gate * gate), gate, gate);
    return gate / (1.0f + exp_ref(inner * GELU_SLOPE));
}

template <typename type> DEVICE void activation_mul(const struct activation_mul_args &args)
{
    dependencies_wait();
    dependents_launch();
    uint32_t r = block_x(), begin = block_y() * ACTIVATION_PIECE;
    if (r >= args.step->n_rows)
        return;
    const type *gate = (const type *)args.gate_up + (size_t)r * args.gate_up_stride, *up = gate + args.width;
    type *out = (type *)args.out + (size_t)r * args.out_stride;
    uint32_t end = begin + ACTIVATION_PIECE < args.width ? begin + ACTIVATION_PIECE : args.width;
    bool whole = (args.width | args.gate_up_stride | args.out_stride) % 4 == 0;
    for (uint32_t k = begin + 4 * thread_x(); k < end; k += 4 * ACTIVATION_THREADS) {
        float g[4], u[4];
        load_group(g, gate, k, args.width, whole);
        load_group(u, up, k, args.width, whole);
        for (int i = 0; i < 4; i++)
            g[i] = activate(g[i], args.kind) * u[i];
        store_group(out, g, k, args.width, whole);
    }
}

KERNEL_BOUNDS(activation_mul_f32, struct activation_mul_args, ACTIVATION_THREADS, 1)
{
    activation_mul<float>(args);
}

KERNEL_BOUNDS(activation_mul_bf16, struct activation_mul_args, ACTIVATION_THREADS, 1)
{
    activation_mul<uint16_t>(args);
}

/* ---- Outputs ---- */

KERNEL_BOUNDS(gather_outputs, struct gather_outputs_args, GATHER_THREADS, 1)
{
    dependencies_wait();
    dependents_launch();
    uint32_t i = block_x();
    if (i >= count_rows(&args.rows))
        return;
    uint32_t row = args.rows.step->outputs[args.rows.first + i].row;
    const uint8_t *in = (const uint8_t *)args.in + (size_t)row * args.in_stride_bytes;
    uint8_t *out = (uint8_t *)args.out + (size_t)i * args.out_stride_bytes;
    uint32_t done = 0;
    if ((args.in_stride_bytes | args.out_stride_bytes) % 16 == 0) {
        done = args.row_bytes / 16 * 16;
        for (uint32_t at = 16 * thread_x(); at < done; at += 16 * GATHER_THREADS)
            store_16(out + at, load_16(in + at));
    }
    for (uint32_t at = done + 2 * thread_x(); at < args.row_bytes; at += 2 * GATHER_THREADS)
        *(uint16_t *)(out + at) = *(const uint16_t *)(in + at);
}

KERNEL_BOUNDS(soft_cap_f32, struct soft_cap_args, ACTIVATION_THREADS, 1)
{
    dependencies_wait();
    dependents_launch();
    uint32_t r = block_x(), begin = block_y() * ACTIVATION_PIECE;
    if (r >= count_rows(&args.rows))
        return;
    uint32_t end = begin + ACTIVATION_PIECE < args.width ? begin + ACTIVATION_PIECE : args.width;
    float *x = args.x + (size_t)r * args.stride;
    for (uint32_t k = begin + thread_x(); k < end; k += ACTIVATION_THREADS)
        x[k] = args.cap * tanh_ref(x[k] / args.cap);
}
