/* Packed codes to plain rows. */
#include "kernels/cuda/device_rows.h"
#include "kernels/cuda/linear_layout.h"

/* A block's 64 outputs by 128 inputs; neighbouring threads take the pieces of one row. */
KERNEL_BOUNDS(unpack_e4m3_wgmma, struct unpack_weight_args, UNPACK_THREADS, 4)
{
    dependencies_wait();
    dependents_launch();
    uint32_t n_blocks = linear_blocks(LINEAR_E4M3_WGMMA, args.n_in);
    const uint8_t *block =
        args.codes + linear_block_offset(LINEAR_E4M3_WGMMA, n_blocks, block_y(), block_x());
    for (uint32_t i = thread_x(); i < LINEAR_PANEL * LINEAR_PIECES; i += UNPACK_THREADS) {
        uint32_t output = i / LINEAR_PIECES, input = i % LINEAR_PIECES * 16;
        uint32_t o = block_y() * LINEAR_PANEL + output, k = block_x() * LINEAR_BLOCK_BYTES + input;
        if (o < args.n_out && k < args.n_in)
            store_16(args.rows + (size_t)o * args.row_bytes + k,
                     load_16(block + linear_code_offset(LINEAR_E4M3_WGMMA, output, input)));
    }
}
