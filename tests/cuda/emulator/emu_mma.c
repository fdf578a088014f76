/* mma.sync on the fragments as the PTX ISA lays them out ("Matrix multiply-accumulate operation using mma
 * instruction"). Sums run over ascending k in f32: the card's order is its own. */
#include <math.h>
#include <string.h>
#include "tests/cuda/emulator/emu_internal.h"
#include "tests/cuda/emulator/emu_numbers.h"

enum { ROWS = 16, COLUMNS = 8, K_MAX = 32 };

struct mma_post {
    void *d;
    const uint32_t *a, *b;
};

static const struct mma_post *post_of(const struct emu_warp *warp, uint32_t lane)
{
    return warp->threads[lane].post;
}

static void check_operand(uint32_t word, uint32_t lane, char operand)
{
    if (emu_is_poison_word(word))
        emu_fail("mma: operand %c of lane %u comes from shared memory that has never been written, or whose "
                 "copy is "
                 "under way",
                 operand, lane);
}

/* Register r of a fragment: elements k0 .. k0 + n - 1 of row (a) or column (b) g, n values a register. */
static void gather(const struct emu_warp *warp, enum emu_mma kind, float a[ROWS][K_MAX],
                   float b[K_MAX][COLUMNS])
{
    uint32_t n = kind == EMU_MMA_E4M3 ? 4 : 2;
    for (uint32_t lane = 0; lane < EMU_LANES; lane++) {
        const struct mma_post *post = post_of(warp, lane);
        uint32_t g = lane / 4, t = lane % 4;
        for (uint32_t r = 0; r < 4; r++) {
            check_operand(post->a[r], lane, 'a');
            emu_unpack(&a[g + r % 2 * 8][t * n + r / 2 * n * 4], post->a[r], kind);
        }
        for (uint32_t r = 0; r < 2; r++) {
            float column[4] = {0};
            check_operand(post->b[r], lane, 'b');
            emu_unpack(column, post->b[r], kind);
            for (uint32_t i = 0; i < n; i++)
                b[t * n + r * n * 4 + i][g] = column[i];
        }
    }
}

static void product(float d[ROWS][COLUMNS], float a[ROWS][K_MAX], float b[K_MAX][COLUMNS], uint32_t n_k)
{
    for (uint32_t i = 0; i < ROWS; i++) {
        for (uint32_t k = 0; k < n_k; k++) {
            for (uint32_t j = 0; j < COLUMNS; j++)
                d[i][j] += a[i][k] * b[k][j];
        }
    }
}

static void mma_float(const struct emu_warp *warp, enum emu_mma kind)
{
    float a[ROWS][K_MAX], b[K_MAX][COLUMNS], d[ROWS][COLUMNS];
    gather(warp, kind, a, b);
    for (uint32_t lane = 0; lane < EMU_LANES; lane++)
        for (uint32_t r = 0; r < 4; r++)
            d[lane / 4 + r / 2 * 8][lane % 4 * 2 + r % 2] = ((const float *)post_of(warp, lane)->d)[r];
    product(d, a, b, kind == EMU_MMA_E4M3 ? 32 : 16);
    for (uint32_t lane = 0; lane < EMU_LANES; lane++)
        for (uint32_t r = 0; r < 4; r++)
            ((float *)post_of(warp, lane)->d)[r] = d[lane / 4 + r / 2 * 8][lane % 4 * 2 + r % 2];
}

static void mma_s8(const struct emu_warp *warp)
{
    int8_t a[ROWS][K_MAX];
    int32_t b[K_MAX][COLUMNS], sum[ROWS][COLUMNS] = {{0}};
    for (uint32_t lane = 0; lane < EMU_LANES; lane++) {
        const struct mma_post *post = post_of(warp, lane);
        uint32_t g = lane / 4, t = lane % 4;
        for (uint32_t r = 0; r < 4; r++)
            memcpy(&a[g + r % 2 * 8][t * 4 + r / 2 * 16], &post->a[r], 4);
        for (uint32_t i = 0; i < 8; i++)
            b[t * 4 + i / 4 * 16 + i % 4][g] = (int8_t)(post->b[i / 4] >> i % 4 * 8);
    }
    for (uint32_t i = 0; i < ROWS; i++) {
        for (uint32_t k = 0; k < K_MAX; k++) {
            for (uint32_t j = 0; j < COLUMNS; j++)
                sum[i][j] += a[i][k] * b[k][j];
        }
    }
    for (uint32_t lane = 0; lane < EMU_LANES; lane++) {
        uint32_t *d = post_of(warp, lane)->d; /* the sum wraps */
        for (uint32_t r = 0; r < 4; r++)
            d[r] += (uint32_t)sum[lane / 4 + r / 2 * 8][lane % 4 * 2 + r % 2];
    }
}

void emu_mma(enum emu_mma kind, void *d, const uint32_t *a, const uint32_t *b)
{
    uint32_t target = emu_worker->options.target;
    if (kind == EMU_MMA_E4M3 && target != 89 && target != 120)
        emu_fail("mma of e4m3 on sm_%u: sm_89 and sm_120 have it", target);
    struct mma_post post = {d, a, b};
    if (!emu_warp_join(EMU_IN_MMA, kind, &post))
        return;
    struct emu_warp *warp = emu_warp_of(emu_thread_now());
    if (kind == EMU_MMA_S8)
        mma_s8(warp);
    else
        mma_float(warp, kind);
    emu_warp_release(warp);
}
