/* Paged attention on tensor cores: bf16 activations, KV in bf16 or e4m3.
 *
 * The work of a step is cut into items (cuda_attention_plan.h): some rows of one sequence, or of several
 * sequences that share a prefix, by a range of splits of 256 keys. The query heads of a KV head ride
 * together: the rows of a product are (row, head of the group) pairs, so that a key is read once for the
 * group. The m16 kernels take 16 pairs at a time, the s8 kernels 8 (decode), the m32, m64 and m128 kernels
 * more (prefill, shared prefixes; m128: by wgmma). m16: a block computes an item, for few of them; s8: a warp
 * does, or some warps together, for many.
 *
 * One arithmetic, whatever the item: per split, from nothing, over tiles of 64 keys in ascending order,
 *   s = q . k (one chain of m16n8k16 over head_dim), m' = max so far, p = 2^(s c - m') in bf16, (l, o) = (l,
 * o) * 2^(m - m') + p . (1, v) (the same chain, 16 keys a link; the row sum is a column of ones) then the
 * splits in ascending order by attention_merge. Which of the two is operand A of a product makes no
 * difference. A tile that a row does not see changes nothing of it: p is 0
 * and the factor 1, exactly. So a row has the same bits as decode, in any chunk of a prompt and beside any
 * others. */
#pragma once

#include <stdint.h>
#include "kernels/cuda/cuda_kv.h"
#include "kernels/cuda/cuda_step.h"
#include "kernels/cuda/row_kernels.h"

enum {
    ATTENTION_TILE_KEYS = 64,
    ATTENTION_SMALL_PAIRS = 16, /* of an m16 kernel's item, unless it is one row */
    ATTENTION_STREAM_PAIRS = 8, /* of a warp of an s8 kernel */
    ATTENTION_TEAM = 4,         /* warps of its block, and the most that share an item */
    ATTENTION_NO_PARTIAL = 0xffffffffu,
};

enum attention_item_flags {
    /* first_row counts in the list of rows. */
    ATTENTION_ITEM_LISTED = 1u << 0,
    /* The sums of each split are kept as the rows' partial results; whoever completes a row merges them.
     * Without it the item holds all splits of its rows and writes the output. */
    ATTENTION_ITEM_PARTIAL = 1u << 1,
    /* No row of the step writes keys of these splits: they may be read before the kernel in front has ended.
     */
    ATTENTION_ITEM_OLD_KEYS = 1u << 2,
};

/* Not listed: rows of one sequence, one after the other. Listed: rows of sequences that have these splits in
 * common, whole and behind every row's position. */
struct attention_item {
    uint32_t seq; /* whose block table */
    uint32_t first_row, n_rows;
    uint32_t first_split, n_splits; /* those that no row sees do nothing */
    uint32_t low, high; /* positions of the rows: the first's and the last's; listed: the extremes */
    uint32_t flags;
};

/* The work of the layers of one KV group. Arrays follow struct attention_work; where they begin: in 4-byte
 * words from its beginning. */
struct attention_group {
    uint32_t n_small, n_large;
    uint32_t small_rows, large_rows; /* of an item, the most */
    uint32_t items;                  /* [n_small + n_large] struct attention_item, small ones first */
    uint32_t row_partials; /* [n_rows of the step]: partial result of the row's split 0; others follow */
    uint32_t listed_rows;  /* rows of the step */
    /* By streams: the first n_alone small items are a warp's each, the others shared by `team` warps. */
    uint32_t n_alone, team;
};

/* In device memory, at an address that never changes, as struct cuda_step. */
struct attention_work {
    struct attention_group groups[STEP_KV_GROUPS_MAX];
};

/* Every form: F(x, rows of a product, KV type, head_dim, bytes of a KV element, warps by rows, warps that
 * share rows, slots of K and V tiles, shared memory in bytes, blocks that the registers of a multiprocessor
 * hold). */
#define ATTENTION_FORMS_BF16(F, x)                                                                           \
    F(x, m16, bf16, 64, 2, 1, 4, 4, 37632, 4)                                                                \
    F(x, m16, bf16, 96, 2, 1, 2, 4, 55040, 4)                                                                \
    F(x, m16, bf16, 128, 2, 1, 4, 4, 72704, 3)                                                               \
    F(x, m16, bf16, 256, 2, 1, 4, 2, 77312, 2)                                                               \
    F(x, m64, bf16, 64, 2, 4, 1, 4, 33024, 2)                                                                \
    F(x, m64, bf16, 96, 2, 4, 1, 4, 73984, 2)                                                                \
    F(x, m64, bf16, 128, 2, 4, 1, 3, 82176, 2)                                                               \
    F(x, m32, bf16, 256, 2, 2, 4, 2, 70144, 1)
#define ATTENTION_FORMS_E4M3(F, x)                                                                           \
    F(x, m16, e4m3, 64, 1, 1, 4, 4, 21120, 4)                                                                \
    F(x, m16, e4m3, 96, 1, 1, 2, 4, 30272, 4)                                                                \
    F(x, m16, e4m3, 128, 1, 1, 4, 4, 39680, 3)                                                               \
    F(x, m16, e4m3, 256, 1, 1, 4, 4, 76800, 2)                                                               \
    F(x, m64, e4m3, 64, 1, 4, 1, 4, 16640, 2)                                                                \
    F(x, m64, e4m3, 96, 1, 4, 1, 4, 49408, 2)                                                                \
    F(x, m64, e4m3, 128, 1, 4, 1, 4, 65792, 2)                                                               \
    F(x, m32, e4m3, 256, 1, 2, 4, 4, 70144, 1)

/* By streams: F(x, s8, KV type, head_dim, bytes of a KV element, slots of blocks of K or V, blocks of a tile
 * in a step of the loop, shared memory in bytes, blocks that the registers of a multiprocessor hold). l8:
 * with longer rings, for fewer warps. */
#define ATTENTION_FORMS_STREAMS(F, x)                                                                        \
    F(x, s8, e4m3, 64, 1, 8, 4, 47104, 4)                                                                    \
    F(x, s8, e4m3, 96, 1, 6, 4, 57344, 3)                                                                    \
    F(x, s8, e4m3, 128, 1, 6, 2, 75776, 3)                                                                   \
    F(x, s8, bf16, 64, 2, 6, 4, 63488, 3)                                                                    \
    F(x, s8, bf16, 96, 2, 4, 2, 69632, 3)                                                                    \
    F(x, s8, bf16, 128, 2, 3, 2, 75776, 3)                                                                   \
    F(x, l8, e4m3, 128, 1, 10, 2, 108544, 2)                                                                 \
    F(x, l8, bf16, 128, 2, 5, 4, 108544, 2)

/* Those for sm_90a: F(x, KV type, head_dim, bytes of a KV element, threads, shared memory in bytes). */
#define ATTENTION_FORMS_WGMMA(F, x)                                                                          \
    F(x, bf16, 64, 2, 384, 94960)                                                                            \
    F(x, bf16, 128, 2, 384, 226032)                                                                          \
    F(x, e4m3, 64, 1, 384, 86768)                                                                            \
    F(x, e4m3, 128, 1, 384, 217840)

#define ATTENTION_KERNEL_LINE(K, size, type, dim, ...)                                                       \
    K(attention_##size##_##type##_d##dim, struct attention_tile_args, "paged attention on tensor cores")
#define ATTENTION_WGMMA_LINE(K, type, dim, ...) ATTENTION_KERNEL_LINE(K, m128, type, dim)
#define ATTENTION_TILE_KERNELS(K)                                                                            \
    ATTENTION_FORMS_BF16(ATTENTION_KERNEL_LINE, K)                                                           \
    ATTENTION_FORMS_E4M3(ATTENTION_KERNEL_LINE, K)                                                           \
    ATTENTION_FORMS_STREAMS(ATTENTION_KERNEL_LINE, K)                                                        \
    ATTENTION_FORMS_WGMMA(ATTENTION_WGMMA_LINE, K)

/* Grid: any number of blocks, which take the pieces of the items in turn; threads: 32 a warp. Block tables
 * are read by four entries: rows of them begin at multiples of 16 bytes, and entries behind the last are
 * there. The kernel in front may write q and the keys of this step's rows and nothing else that is read here.
 */
struct attention_tile_args {
    const struct cuda_step *step;
    const struct attention_work *work;
    const uint16_t *qkv; /* bf16 [rows][qkv_stride], as rope_kv_write leaves it, unless there are cosines */
    uint16_t *out;       /* bf16 [rows][out_stride]: [n_heads][head_dim] */
    uint32_t qkv_stride, out_stride; /* multiples of 8 */
    uint32_t n_heads;
    float scale;     /* > 0 */
    uint32_t window; /* 0 = all */
    float soft_cap;  /* 0 = off */
    struct cuda_kv_cache kv;
    /* [positions][head_dim / 2], or NULL: rope_kv_write was there. m16 alone, of a step whose sequences have
     * one row each and where no large kernel has work: q is turned and new keys and values are written here,
     * as rope_kv_write would. */
    const float *cosines, *sines;
    /* Sums of splits, by partial result p and head. */
    float *partial_o;   /* [p][n_heads][head_dim] */
    float *partial_ml;  /* [p][n_heads][2]: maximum in base-2 logarithms, sum */
    uint32_t *arrivals; /* [rows][n_kv_heads] (split, head) pairs that are kept; zeros between launches */
};
