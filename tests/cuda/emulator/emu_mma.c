/* mma.sync on the fragments as the PTX ISA lays them out ("Matrix multiply-accumulate operation using mma
 * instruction"). Sums run over ascending k in f32: the card's order is its own. */
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

static void check_operand(const uint32_t *words, uint32_t n, uint32_t lane, char operand)
{
    for (uint32_t i = 0; i < n; i++)
        if (emu_is_poison_word(words[i]))
            emu_fail("mma: operand %c of lane %u comes from shared memory that has never been written, or "
                     "whose copy is under way",
                     operand, lane);
}

static void check_operands(const struct emu_warp *warp)
{
    for (uint32_t lane = 0; lane < EMU_LANES; lane++) {
        check_operand(post_of(warp, lane)->a, 4, lane, 'a');
        check_operand(post_of(warp, lane)->b, 2, lane, 'b');
    }
}

/* A vector of the 8 columns: the compiler keeps a row of d in a register. */
typedef float columns __attribute__((vector_size(COLUMNS * sizeof(float))));

/* Registers of a by rows and of b by k, each of two or four values. */
struct words {
    uint32_t a[ROWS][8], b[8][COLUMNS];
};

static inline void gather(const struct emu_warp *warp, bool is_float, struct words *words)
{
    uint32_t n_poisoned = 0;
    for (uint32_t lane = 0; lane < EMU_LANES; lane++) {
        const struct mma_post *post = post_of(warp, lane);
        uint32_t g = lane / 4, t = lane % 4, a[4], b[2];
        memcpy(a, post->a, sizeof a);
        memcpy(b, post->b, sizeof b);
        for (uint32_t r = 0; r < 4; r++) {
            n_poisoned += emu_is_poison_word(a[r]);
            words->a[g + r % 2 * 8][t + r / 2 * 4] = a[r];
        }
        for (uint32_t r = 0; r < 2; r++) {
            n_poisoned += emu_is_poison_word(b[r]);
            words->b[t + r * 4][g] = b[r];
        }
    }
    if (is_float && n_poisoned > 0)
        check_operands(warp);
}

static inline __attribute__((always_inline)) void product(const struct words *words, enum emu_mma kind,
                                                          columns d[ROWS])
{
    uint32_t n = kind == EMU_MMA_E4M3 ? 4 : 2;
    float a[ROWS][K_MAX];
    union {
        columns k[K_MAX];
        float values[K_MAX][COLUMNS];
    } b;
    for (uint32_t i = 0; i < ROWS; i++)
        for (uint32_t w = 0; w < 8; w++)
            for (uint32_t e = 0; e < n; e++)
                a[i][w * n + e] = emu_element(words->a[i][w], e, kind);
    for (uint32_t w = 0; w < 8; w++)
        for (uint32_t e = 0; e < n; e++)
            for (uint32_t j = 0; j < COLUMNS; j++)
                b.values[w * n + e][j] = emu_element(words->b[w][j], e, kind);
    for (uint32_t i = 0; i < ROWS; i++) {
        columns sum = d[i];
        for (uint32_t k = 0; k < 8 * n; k++)
            sum += a[i][k] * b.k[k];
        d[i] = sum;
    }
}

EMU_CLONES static void product_bf16(const struct words *words, columns d[ROWS])
{
    product(words, EMU_MMA_BF16, d);
}

EMU_CLONES static void product_f16(const struct words *words, columns d[ROWS])
{
    product(words, EMU_MMA_F16, d);
}

EMU_CLONES static void product_e4m3(const struct words *words, columns d[ROWS])
{
    product(words, EMU_MMA_E4M3, d);
}

static void mma_float(const struct emu_warp *warp, enum emu_mma kind)
{
    struct words words;
    union {
        columns rows[ROWS];
        float values[ROWS][COLUMNS];
    } d;
    gather(warp, true, &words);
    for (uint32_t lane = 0; lane < EMU_LANES; lane++) {
        const float *values = post_of(warp, lane)->d;
        memcpy(&d.values[lane / 4][lane % 4 * 2], values, 2 * sizeof *values);
        memcpy(&d.values[lane / 4 + 8][lane % 4 * 2], values + 2, 2 * sizeof *values);
    }
    if (kind == EMU_MMA_BF16)
        product_bf16(&words, d.rows);
    else if (kind == EMU_MMA_F16)
        product_f16(&words, d.rows);
    else
        product_e4m3(&words, d.rows);
    for (uint32_t lane = 0; lane < EMU_LANES; lane++) {
        float *values = post_of(warp, lane)->d;
        memcpy(values, &d.values[lane / 4][lane % 4 * 2], 2 * sizeof *values);
        memcpy(values + 2, &d.values[lane / 4 + 8][lane % 4 * 2], 2 * sizeof *values);
    }
}

EMU_CLONES static void product_s8(const struct words *words, int32_t sum[ROWS][COLUMNS])
{
    int32_t b[K_MAX][COLUMNS];
    for (uint32_t k = 0; k < K_MAX; k++)
        for (uint32_t j = 0; j < COLUMNS; j++)
            b[k][j] = (int8_t)(words->b[k / 4][j] >> k % 4 * 8);
    for (uint32_t i = 0; i < ROWS; i++) {
        int32_t row[COLUMNS] = {0};
        for (uint32_t k = 0; k < K_MAX; k++) {
            int32_t a = (int8_t)(words->a[i][k / 4] >> k % 4 * 8);
            for (uint32_t j = 0; j < COLUMNS; j++)
                row[j] += a * b[k][j];
        }
        memcpy(sum[i], row, sizeof row);
    }
}

static void mma_s8(const struct emu_warp *warp)
{
    struct words words;
    int32_t sum[ROWS][COLUMNS];
    gather(warp, false, &words);
    product_s8(&words, sum);
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
