/* Linear layers in a simple form, for every format and shape: each output is one chain of fused multiply-adds
 * over ascending inputs in f32, on f32 or bf16 activations. It serves --dtype float32, and what the
 * tensor-core kernels do not take. */
#include "kernels/cuda/device_rows.h"

enum {
    TILE_INPUTS = 32,
    ROW_GROUPS = LINEAR_SIMPLE_THREADS / LINEAR_SIMPLE_OUTPUTS, /* threads of one output */
    ROWS_PER_THREAD = LINEAR_SIMPLE_ROWS / ROW_GROUPS,
    WEIGHT_STRIDE = TILE_INPUTS + 1, /* neighbours in different banks */
};

struct linear_shared {
    float w[LINEAR_SIMPLE_OUTPUTS][WEIGHT_STRIDE];
    float x[LINEAR_SIMPLE_ROWS][TILE_INPUTS];
};

/* Inputs [k0, k0 + TILE_INPUTS) of the block's weights and rows; zeros where there are none. */
template <typename type>
DEVICE void load_tiles(const struct linear_simple_args &args, struct linear_shared *shared, uint32_t o0,
                       uint32_t r0, uint32_t n_rows, uint32_t k0)
{
    const struct cuda_matrix *m = &args.weight;
    for (uint32_t i = thread_x(); i < LINEAR_SIMPLE_OUTPUTS * TILE_INPUTS; i += LINEAR_SIMPLE_THREADS) {
        uint32_t o = i / TILE_INPUTS, k = i % TILE_INPUTS;
        bool exists = o0 + o < m->n_out && k0 + k < m->n_in;
        shared->w[o][k] = exists ? matrix_value(m, o0 + o, k0 + k) : 0.0f;
    }
    for (uint32_t i = thread_x(); i < LINEAR_SIMPLE_ROWS * TILE_INPUTS; i += LINEAR_SIMPLE_THREADS) {
        uint32_t r = i / TILE_INPUTS, k = i % TILE_INPUTS;
        bool exists = r0 + r < n_rows && k0 + k < m->n_in;
        shared->x[r][k] =
            exists ? act_load((const type *)args.x + (size_t)(r0 + r) * args.x_stride + k0 + k) : 0.0f;
    }
}

template <typename in_type, typename out_type>
DEVICE void linear_simple(const struct linear_simple_args &args)
{
    SHARED(struct linear_shared, shared, );
    dependents_launch();
    dependencies_wait();
    uint32_t n_rows = count_rows(&args.rows), n_in = args.weight.n_in;
    uint32_t o0 = block_x() * LINEAR_SIMPLE_OUTPUTS, r0 = block_y() * LINEAR_SIMPLE_ROWS;
    if (r0 >= n_rows)
        return;
    uint32_t o = thread_x() % LINEAR_SIMPLE_OUTPUTS,
             row = thread_x() / LINEAR_SIMPLE_OUTPUTS * ROWS_PER_THREAD;
    float sum[ROWS_PER_THREAD] = {0};
    for (uint32_t k0 = 0; k0 < n_in; k0 += TILE_INPUTS) {
        load_tiles<in_type>(args, &shared, o0, r0, n_rows, k0);
        barrier();
        uint32_t n = n_in - k0 < TILE_INPUTS ? n_in - k0 : (uint32_t)TILE_INPUTS;
        for (uint32_t k = 0; k < n; k++) {
            float w = shared.w[o][k];
#pragma unroll
            for (uint32_t i = 0; i < ROWS_PER_THREAD; i++)
                sum[i] = fmaf(w, shared.x[row + i][k], sum[i]);
        }
        barrier();
    }
    if (o0 + o >= args.weight.n_out)
        return;
    float bias = args.weight.bias == NULL ? 0.0f : args.weight.bias[o0 + o];
#pragma unroll
    for (uint32_t i = 0; i < ROWS_PER_THREAD; i++) {
        if (r0 + row + i < n_rows)
            act_store((out_type *)args.out + (size_t)(r0 + row + i) * args.out_stride + o0 + o,
                      args.weight.bias == NULL ? sum[i] : sum[i] + bias);
    }
}

KERNEL_BOUNDS(linear_simple_f32, struct linear_simple_args, LINEAR_SIMPLE_THREADS, 1)
{
    linear_simple<float, float>(args);
}

KERNEL_BOUNDS(linear_simple_bf16, struct linear_simple_args, LINEAR_SIMPLE_THREADS, 1)
{
    linear_simple<uint16_t, uint16_t>(args);
}

KERNEL_BOUNDS(linear_simple_bf16_f32, struct linear_simple_args, LINEAR_SIMPLE_THREADS, 1)
{
    linear_simple<uint16_t, float>(args);
}
