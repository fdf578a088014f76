#include "kernels/ref/tile_block_ref.h"

#include "kernels/kernel_types.h"
#include "kernels/ref/flush_ref.h"

/* fmaf is an instruction where the machine has it: the same bits. */
FLUSH_INLINE void add_block_body(const float *w, const uint16_t *x, float *sums)
{
    float chains[2][TILE_BLOCK_OUTPUTS] = {{0}};
    for (size_t i = 0; i < TILE_INPUTS; i++)
        fma_flush_row_ref(flush_ref(bf16_to_f32(x[i])), w + i * TILE_BLOCK_OUTPUTS, chains[i % 2],
                          TILE_BLOCK_OUTPUTS);
    for (size_t o = 0; o < TILE_BLOCK_OUTPUTS; o++)
        sums[o] = add_flush_ref(sums[o], add_flush_ref(chains[0][o], chains[1][o]));
}

static void add_block_portable(const float *w, const uint16_t *x, float *sums)
{
    add_block_body(w, x, sums);
}

#if BANTAM_X86
__attribute__((target("avx2,fma"))) static void add_block_fma(const float *w, const uint16_t *x, float *sums)
{
    add_block_body(w, x, sums);
}

void tile_block_ref(const float *w, const uint16_t *x, float *sums)
{
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        add_block_fma(w, x, sums);
    else
        add_block_portable(w, x, sums);
}
#else
void tile_block_ref(const float *w, const uint16_t *x, float *sums)
{
    add_block_portable(w, x, sums);
}
#endif
