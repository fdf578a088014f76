/* mma.sync on the fragments as the PTX ISA lays them out ("Matrix multiply-accumulate operation using mma
 * instruction"). Sums run over ascending k in f32: the card's order is its own. */
#include <string.h>
#include "tests/cuda/emulator/emu_internal.h"
#include "tests/cuda/emulator/emu_product.h"

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

static void check_operands(const struct emu_fragments *fragments)
{
    for (uint32_t lane = 0; lane < EMU_LANES; lane++) {
        check_operand(fragments->a[lane], 4, lane, 'a');
        check_operand(fragments->b[lane], 2, lane, 'b');
    }
}

static void warp_multiply(const struct emu_warp *warp, enum emu_mma kind)
{
    struct emu_fragments *fragments = emu_worker->fragments;
    for (uint32_t lane = 0; lane < EMU_LANES; lane++) {
        const struct mma_post *post = post_of(warp, lane);
        memcpy(fragments->a[lane], post->a, sizeof fragments->a[lane]);
        memcpy(fragments->b[lane], post->b, sizeof fragments->b[lane]);
        memcpy(fragments->d[lane], post->d, sizeof fragments->d[lane]);
    }
    if (kind != EMU_MMA_S8 && emu_fragments_poisoned(fragments))
        check_operands(fragments);
    emu_fragments_multiply(kind, fragments);
    for (uint32_t lane = 0; lane < EMU_LANES; lane++)
        memcpy(post_of(warp, lane)->d, fragments->d[lane], sizeof fragments->d[lane]);
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
    warp_multiply(warp, kind);
    emu_warp_release(warp);
}
