/* Ops that treat each row by itself: embedding, norm, activation, gathering of outputs, soft cap. A block (or
 * several) for a row, so that neighbours change nothing. */
#include "kernels/cuda/device_rows.h"
#include "kernels/ref/math_ref.h"

KERNEL_BOUNDS(embed, struct embed_args, EMBED_THREADS, 1)
{
    dependents_launch();
    dependencies_wait();
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

/* ---- Outputs ---- */

KERNEL_BOUNDS(gather_outputs, struct gather_outputs_args, GATHER_THREADS, 1)
{
    dependents_launch();
    dependencies_wait();
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
    dependents_launch();
    dependencies_wait();
    uint32_t r = block_x(), begin = block_y() * ACTIVATION_PIECE;
    if (r >= count_rows(&args.rows))
        return;
    uint32_t end = begin + ACTIVATION_PIECE < args.width ? begin + ACTIVATION_PIECE : args.width;
    float *x = args.x + (size_t)r * args.stride;
    for (uint32_t k = begin + thread_x(); k < end; k += ACTIVATION_THREADS)
        x[k] = args.cap * tanh_ref(x[k] / args.cap);
}
