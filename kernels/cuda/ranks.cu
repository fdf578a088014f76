/* Tensor parallel: sums over the ranks' rows, and the joining of their logits. */
#include "kernels/cuda/device_rows.h"

/* Rank 0's value plus rank 1's and so on, whatever the number of rows: every rank gets the same bits. */
template <typename type> DEVICE void sum_ranks(const struct sum_ranks_args &args)
{
    dependents_launch();
    dependencies_wait();
    uint32_t r = block_x(), begin = block_y() * RANK_PIECE;
    if (r >= count_rows(&args.rows))
        return;
    uint32_t end = begin + RANK_PIECE < args.width ? begin + RANK_PIECE : args.width;
    size_t rank_stride = (size_t)args.rows.max * args.stride;
    const type *gathered = (const type *)args.gathered + (size_t)r * args.stride;
    type *out = (type *)args.out + (size_t)r * args.stride;
    for (uint32_t i = begin + thread_x(); i < end; i += RANK_THREADS) {
        float sum = act_load(gathered + i);
        for (uint32_t k = 1; k < args.n_ranks; k++)
            sum += act_load(gathered + k * rank_stride + i);
        act_store(out + i, sum);
    }
}

KERNEL_BOUNDS(sum_ranks_f32, struct sum_ranks_args, RANK_THREADS, 1)
{
    sum_ranks<float>(args);
}

KERNEL_BOUNDS(sum_ranks_bf16, struct sum_ranks_args, RANK_THREADS, 1)
{
    sum_ranks<uint16_t>(args);
}

KERNEL_BOUNDS(join_ranks, struct join_ranks_args, RANK_THREADS, 1)
{
    dependents_launch();
    dependencies_wait();
    uint32_t r = block_x(), begin = block_y() * RANK_PIECE, rank = block_z();
    if (r >= count_rows(&args.rows))
        return;
    uint32_t end = begin + RANK_PIECE < args.part_width ? begin + RANK_PIECE : args.part_width;
    const float *part = args.gathered + ((size_t)rank * args.rows.max + r) * args.part_stride;
    float *whole = args.whole + (size_t)r * args.whole_stride + (size_t)rank * args.part_width;
    for (uint32_t i = begin + thread_x(); i < end; i += RANK_THREADS)
        whole[i] = part[i];
}
