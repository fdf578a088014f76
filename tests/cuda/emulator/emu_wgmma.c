/* wgmma: products of a warpgroup on tiles in shared memory. They run as late as they may, at the wait; until
 * then the accumulators hold poison, so that whoever touches them, or waits for too little, is found.
 * Layouts: PTX ISA, "Asynchronous warpgroup level matrix operations", shared memory matrix layout. */
#include <stdlib.h>
#include <string.h>
#include "base/assert.h"
#include "tests/cuda/emulator/emu_internal.h"
#include "tests/cuda/emulator/emu_numbers.h"
#include "tests/cuda/emulator/emu_product.h"
#include "tests/cuda/emulator/emu_race.h"

enum {
    GROUP_THREADS = EMU_WARPGROUP_WARPS * EMU_LANES,
    ROWS = EMU_WGMMA_ROWS,
    N_MAX = EMU_WGMMA_COLUMNS_MAX,
    ROW_BYTES = EMU_WGMMA_K_MAX,
    OPS_MAX = 256
};
enum { ACCUMULATORS_MAX = 8, GROUPS_MAX = EMU_WARPS_MAX / EMU_WARPGROUP_WARPS };
enum { FORM_FENCE, FORM_COMMIT, FORM_WAIT, FORM_PRODUCT };

/* Registers of the warpgroup that products under way add to. */
struct accumulator {
    float *d[GROUP_THREADS];
    uint32_t n, n_under_way;   /* columns; products */
    float values[ROWS][N_MAX]; /* what the registers would hold */
};

struct product {
    enum emu_mma kind;
    uint32_t n, group;
    uint64_t a_descriptor, b_descriptor;
    bool a_in_registers, accumulate, a_by_k, b_by_k;
    uint32_t accumulator;
    uint32_t a[GROUP_THREADS][4];
};

struct emu_wgmma {
    uint32_t warps_posted; /* mask of its four warps that wait for the others */
    uint32_t form;
    bool fenced;
    uint32_t n_groups, n_products; /* committed; under way */
    struct product *products;      /* [OPS_MAX] */
    struct accumulator *accumulators;
    float a[ROW_BYTES][N_MAX], b[ROW_BYTES][N_MAX]; /* of the product that lands */
};

struct product_post {
    float *d;
    const uint32_t *a;
    enum emu_mma kind;
    uint32_t n;
    uint64_t a_descriptor, b_descriptor;
    bool accumulate, a_by_k, b_by_k;
};

void emu_wgmma_create(struct emu_worker *worker)
{
    worker->wgmma = calloc(GROUPS_MAX, sizeof *worker->wgmma);
    ASSERT(worker->wgmma != NULL);
}

void emu_wgmma_destroy(struct emu_worker *worker)
{
    for (uint32_t i = 0; i < GROUPS_MAX; i++) {
        free(worker->wgmma[i].products);
        free(worker->wgmma[i].accumulators);
    }
    free(worker->wgmma);
}

void emu_wgmma_begin(struct emu_worker *worker)
{
    for (uint32_t i = 0; i < GROUPS_MAX; i++) {
        struct emu_wgmma *group = &worker->wgmma[i];
        group->warps_posted = 0;
        group->fenced = false;
        group->n_groups = group->n_products = 0;
    }
}

void emu_wgmma_end(struct emu_worker *worker)
{
    for (uint32_t i = 0; i < GROUPS_MAX; i++)
        if (worker->wgmma[i].n_products > 0)
            emu_fail("the block ended while %u wgmma of warpgroup %u were under way: no wgmma_commit or "
                     "wgmma_wait",
                     worker->wgmma[i].n_products, i);
}

static struct emu_wgmma *group_now(void)
{
    return &emu_worker->wgmma[emu_now->warp / EMU_WARPGROUP_WARPS];
}

static struct emu_thread *group_threads(void)
{
    return &emu_worker->threads[emu_now->warp / EMU_WARPGROUP_WARPS * GROUP_THREADS];
}

/* As emu_warp_join, for the four warps; true for the last thread of the last warp. */
static bool group_join(uint32_t form, uint32_t detail, const void *post)
{
    struct emu_worker *worker = emu_worker;
    struct emu_thread *thread = emu_thread_now();
    if (worker->options.target != 90)
        emu_fail("wgmma on sm_%u: sm_90a alone has it", worker->options.target);
    if (!emu_warp_join(EMU_IN_WGMMA, form + 4 * detail, post))
        return false;
    struct emu_wgmma *group = group_now();
    if (group->warps_posted == 0)
        group->form = form + 4 * detail;
    else if (group->form != form + 4 * detail)
        emu_fail("divergent warpgroup: wgmma form %u, but its warps %#x wait in form %u", form + 4 * detail,
                 group->warps_posted, group->form);
    group->warps_posted |= 1u << thread->view.warp % EMU_WARPGROUP_WARPS;
    if (group->warps_posted == (1u << EMU_WARPGROUP_WARPS) - 1)
        return true;
    emu_suspend(thread, EMU_IN_WGMMA);
    return false;
}

static void group_release(void)
{
    struct emu_wgmma *group = group_now();
    uint32_t first = emu_now->warp / EMU_WARPGROUP_WARPS * EMU_WARPGROUP_WARPS;
    group->warps_posted = 0;
    for (uint32_t i = 0; i < EMU_WARPGROUP_WARPS; i++)
        emu_warp_release(&emu_worker->warps[first + i]);
}

void emu_wgmma_fence(void)
{
    if (group_join(FORM_FENCE, 0, NULL)) {
        group_now()->fenced = true;
        group_release();
    }
}

void emu_wgmma_commit(void)
{
    if (group_join(FORM_COMMIT, 0, NULL)) {
        group_now()->n_groups++;
        group_release();
    }
}

/* ---- Registers ---- */

static float *register_of(const struct accumulator *accumulator, uint32_t thread, uint32_t i)
{
    return &accumulator->d[thread][i];
}

/* Register i of a thread is an element of d: see ptx_wgmma.h. */
static float *element_of(struct accumulator *accumulator, uint32_t thread, uint32_t i)
{
    uint32_t row = thread / 32 * 16 + thread % 32 / 4 + i / 2 % 2 * 8;
    return &accumulator->values[row][i / 4 * 8 + thread % 4 * 2 + i % 2];
}

/* A signalling NaN: arithmetic on it gives another one, so that even a product with 1 is seen. */
static uint32_t poison_word(uint32_t i)
{
    return 0x7fa5a500u + i;
}

static struct accumulator *accumulator_find(struct emu_wgmma *group, const float *d0, uint32_t n)
{
    for (uint32_t i = 0; i < ACCUMULATORS_MAX; i++) {
        struct accumulator *accumulator = &group->accumulators[i];
        if (accumulator->n_under_way > 0 && accumulator->d[0] == d0) {
            if (accumulator->n != n)
                emu_fail("wgmma of n = %u to registers that one of n = %u is under way to", n,
                         accumulator->n);
            return accumulator;
        }
    }
    return NULL;
}

static void check_untouched(const struct accumulator *accumulator)
{
    for (uint32_t t = 0; t < GROUP_THREADS; t++)
        for (uint32_t i = 0; i < accumulator->n / 2; i++)
            if (f32_to_bits(*register_of(accumulator, t, i)) != poison_word(i))
                emu_fail(
                    "accumulator %u of a wgmma that is under way was written by thread %u of the warpgroup",
                    i, t);
}

static struct accumulator *accumulator_take(struct emu_wgmma *group, uint32_t n)
{
    const struct emu_thread *threads = group_threads();
    uint32_t i = 0;
    while (i < ACCUMULATORS_MAX && group->accumulators[i].n_under_way > 0)
        i++;
    if (i == ACCUMULATORS_MAX)
        emu_fail("wgmma to more than %u arrays of accumulators at once", ACCUMULATORS_MAX);
    struct accumulator *accumulator = &group->accumulators[i];
    accumulator->n = n;
    for (uint32_t t = 0; t < GROUP_THREADS; t++) {
        accumulator->d[t] = ((const struct product_post *)threads[t].post)->d;
        for (uint32_t j = 0; j < n / 2; j++) {
            float *at = register_of(accumulator, t, j);
            *element_of(accumulator, t, j) = *at;
            *at = f32_from_bits(poison_word(j));
        }
    }
    return accumulator;
}

/* ---- Shared memory ---- */

struct tile {
    uint32_t start, leading, stride; /* bytes */
    enum { NONE, SWIZZLE_128, SWIZZLE_64, SWIZZLE_32 } swizzle;
    uint32_t row_bytes; /* of the swizzle; 16 without */
    bool by_k;
    const char *name;
};

static struct tile tile_of(uint64_t descriptor, bool by_k, const char *name)
{
    static const uint32_t row_bytes[] = {16, 128, 64, 32};
    struct tile tile = {.start = (uint32_t)(descriptor & 0x3fffu) << 4,
                        .leading = (uint32_t)(descriptor >> 16 & 0x3fffu) << 4,
                        .stride = (uint32_t)(descriptor >> 32 & 0x3fffu) << 4,
                        .swizzle = descriptor >> 62,
                        .by_k = by_k,
                        .name = name};
    if ((descriptor & 0x3fffc000c000c000u) != 0)
        emu_fail(
            "wgmma: descriptor %#llx of %s: bits that are not addresses or the swizzle (base offset 0 alone)",
            (unsigned long long)descriptor, name);
    tile.row_bytes = row_bytes[tile.swizzle];
    if (tile.swizzle == NONE)
        return tile;
    uint32_t in_pattern = tile.start % (8 * tile.row_bytes);
    if (in_pattern >= tile.row_bytes)
        emu_fail("wgmma: %s begins at shared address %u, which is not in the first row of a swizzled pattern "
                 "of 8 rows "
                 "of %u bytes",
                 name, tile.start, tile.row_bytes);
    if (!by_k && in_pattern + ROW_BYTES > tile.row_bytes)
        emu_fail("wgmma: %s begins at byte %u of a swizzled row of %u bytes: 32 do not fit", name, in_pattern,
                 tile.row_bytes);
    return tile;
}

/* 16 bytes at an address as if nothing was swizzled. */
static const uint8_t *piece_at(const struct tile *tile, uint32_t address)
{
    static const uint32_t mask[] = {0, 7, 3, 1};
    address ^= (address >> 7 & mask[tile->swizzle]) << 4;
    const uint8_t *at = emu_worker->arena + address;
    if (address + 16 > EMU_ARENA_BYTES)
        emu_fail("wgmma: %s reads shared address %u", tile->name, address);
    emu_shared_check(at, 16, "wgmma");
    if (emu_is_poison_8(at) || emu_is_poison_8(at + 8))
        emu_fail(
            "wgmma: %s reads shared address %u, which has never been written, or whose copy is under way",
            tile->name, address);
    emu_race_read_async(at, 16);
    return at;
}

/* Piece 0 or 1 (16 bytes along k) of a row of an operand that lies by rows. */
static const uint8_t *piece_of_row(const struct tile *tile, uint32_t row, uint32_t piece)
{
    uint32_t step = tile->swizzle == NONE ? tile->leading : 16;
    return piece_at(tile, tile->start + row / 8 * tile->stride + row % 8 * tile->row_bytes + piece * step);
}

/* 8 rows' 16-bit values at one k of an operand that lies by k. */
static const uint8_t *piece_of_k(const struct tile *tile, uint32_t k, uint32_t eight)
{
    if (tile->swizzle == NONE)
        return piece_at(tile, tile->start + eight * tile->stride + k / 8 * tile->leading + k % 8 * 16);
    uint32_t width = tile->row_bytes / 16;
    return piece_at(tile, tile->start + eight / width * tile->leading + eight % width * 16 +
                              k / 8 * tile->stride + k % 8 * tile->row_bytes);
}

/* The operand [n_rows][k] from shared memory, as f32 [k][n_rows]. */
static void read_tile(const struct tile *tile, enum emu_mma kind, uint32_t n_rows,
                      float out[ROW_BYTES][N_MAX])
{
    uint32_t per_piece = kind == EMU_MMA_E4M3 ? 16 : 8, per_word = per_piece / 4;
    for (uint32_t row = 0; row < n_rows; row++) {
        for (uint32_t piece = 0; piece < 2; piece++) {
            uint32_t words[4];
            if (tile->by_k)
                break;
            memcpy(words, piece_of_row(tile, row, piece), 16);
            float values[16] = {0};
            for (uint32_t i = 0; i < 4; i++)
                emu_unpack(values + i * per_word, words[i], kind);
            for (uint32_t i = 0; i < per_piece; i++)
                out[piece * per_piece + i][row] = values[i];
        }
    }
    for (uint32_t k = 0; tile->by_k && k < 16; k++) {
        for (uint32_t eight = 0; eight < n_rows / 8; eight++) {
            uint32_t words[4];
            memcpy(words, piece_of_k(tile, k, eight), 16);
            for (uint32_t i = 0; i < 4; i++)
                emu_unpack(&out[k][eight * 8 + i * 2], words[i], kind);
        }
    }
}

static void read_registers(const struct product *product, float out[ROW_BYTES][N_MAX])
{
    uint32_t n = product->kind == EMU_MMA_E4M3 ? 4 : 2;
    for (uint32_t t = 0; t < GROUP_THREADS; t++) {
        for (uint32_t r = 0; r < 4; r++) {
            float values[4] = {0};
            emu_unpack(values, product->a[t][r], product->kind);
            uint32_t row = t / 32 * 16 + t % 32 / 4 + r % 2 * 8, k = t % 4 * n + r / 2 * n * 4;
            for (uint32_t i = 0; i < n; i++)
                out[k + i][row] = values[i];
        }
    }
}

/* ---- Products ---- */

static void product_land(struct emu_wgmma *group, const struct product *product)
{
    float(*a)[N_MAX] = group->a, (*b)[N_MAX] = group->b;
    struct accumulator *accumulator = &group->accumulators[product->accumulator];
    struct tile b_tile = tile_of(product->b_descriptor, product->b_by_k, "b");
    read_tile(&b_tile, product->kind, product->n, b);
    if (product->a_in_registers) {
        read_registers(product, a);
    } else {
        struct tile a_tile = tile_of(product->a_descriptor, product->a_by_k, "a");
        read_tile(&a_tile, product->kind, ROWS, a);
    }
    for (uint32_t i = 0; i < ROWS && !product->accumulate; i++)
        memset(accumulator->values[i], 0, product->n * sizeof accumulator->values[i][0]);
    if (product->kind == EMU_MMA_E4M3)
        emu_multiply_e4m3(accumulator->values, a, b, product->n);
    else
        emu_multiply_bf16(accumulator->values, a, b, product->n);
    if (--accumulator->n_under_way > 0)
        return;
    check_untouched(accumulator);
    for (uint32_t t = 0; t < GROUP_THREADS; t++)
        for (uint32_t i = 0; i < accumulator->n / 2; i++)
            *register_of(accumulator, t, i) = *element_of(accumulator, t, i);
}

void emu_wgmma_wait(uint32_t n_pending)
{
    if (!group_join(FORM_WAIT, n_pending, NULL))
        return;
    struct emu_wgmma *group = group_now();
    uint32_t n_landed = 0;
    while (n_landed < group->n_products && group->products[n_landed].group + n_pending < group->n_groups)
        product_land(group, &group->products[n_landed++]);
    group->n_products -= n_landed;
    if (n_landed > 0) /* before the first product there is no list */
        memmove(group->products, group->products + n_landed, group->n_products * sizeof *group->products);
    group->fenced = false; /* registers may be used now */
    for (uint32_t warp = 0; warp < EMU_WARPGROUP_WARPS;
         warp++) /* .sync.aligned: of a warp, not of the group */
        emu_race_warp_sync(emu_warp_of(&group_threads()[warp * EMU_LANES]));
    group_release();
}

static void product_check(const struct product_post *first)
{
    const struct emu_thread *threads = group_threads();
    for (uint32_t t = 0; t < GROUP_THREADS; t++) {
        const struct product_post *post = threads[t].post;
        if (post->kind != first->kind || post->n != first->n || post->a_descriptor != first->a_descriptor ||
            post->b_descriptor != first->b_descriptor || post->accumulate != first->accumulate ||
            post->a_by_k != first->a_by_k || post->b_by_k != first->b_by_k ||
            (post->a == NULL) != (first->a == NULL))
            emu_fail(
                "wgmma: thread %u of the warpgroup gives other descriptors or another shape than thread 0",
                t);
    }
}

static void product_issue(struct emu_wgmma *group)
{
    const struct emu_thread *threads = group_threads();
    const struct product_post *first = threads[0].post;
    product_check(first);
    if (group->products == NULL) {
        group->products = calloc(OPS_MAX, sizeof *group->products);
        group->accumulators = calloc(ACCUMULATORS_MAX, sizeof *group->accumulators);
        ASSERT(group->products != NULL && group->accumulators != NULL);
    }
    if (group->n_products == OPS_MAX)
        emu_fail("more than %u wgmma under way", OPS_MAX);
    struct accumulator *accumulator = accumulator_find(group, first->d, first->n);
    if (!group->fenced && (accumulator == NULL || first->a != NULL))
        emu_fail("wgmma without wgmma_fence: registers may have been written since the last wgmma_wait");
    if (accumulator != NULL)
        check_untouched(accumulator);
    else
        accumulator = accumulator_take(group, first->n);
    accumulator->n_under_way++;
    struct product *product = &group->products[group->n_products++];
    *product = (struct product){.kind = first->kind,
                                .n = first->n,
                                .group = group->n_groups,
                                .a_descriptor = first->a_descriptor,
                                .b_descriptor = first->b_descriptor,
                                .a_in_registers = first->a != NULL,
                                .accumulate = first->accumulate,
                                .a_by_k = first->a_by_k,
                                .b_by_k = first->b_by_k,
                                .accumulator = (uint32_t)(accumulator - group->accumulators)};
    for (uint32_t t = 0; t < GROUP_THREADS && product->a_in_registers; t++)
        memcpy(product->a[t], ((const struct product_post *)threads[t].post)->a, sizeof product->a[t]);
}

void emu_wgmma(enum emu_mma kind, uint32_t n, float *d, const uint32_t *a, uint64_t a_descriptor,
               uint64_t b_descriptor, bool accumulate, bool a_by_k, bool b_by_k)
{
    struct product_post post = {d, a, kind, n, a_descriptor, b_descriptor, accumulate, a_by_k, b_by_k};
    ASSERT(n % 8 == 0 && n >= 8 && n <= N_MAX && (kind == EMU_MMA_BF16 || kind == EMU_MMA_E4M3));
    if (group_join(FORM_PRODUCT, n, &post)) {
        product_issue(group_now());
        group_release();
    }
}
