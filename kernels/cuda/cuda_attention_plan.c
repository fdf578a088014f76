/* Planning a step's attention: by KV group, first which rows have partial results, then which sequences share
 * whole splits, then the items. And which kernel takes them. */
#include "kernels/cuda/cuda_attention_plan.h"
#include <string.h>
#include "base/assert.h"
#include "base/checked.h"

/* One group's plan in the making. */
struct plan {
    const struct attention_limits *limits;
    const struct step *step;
    uint32_t group;
    uint32_t *row_partials, *listed_rows;
    struct attention_item *items;
    uint32_t n_items;
    /* By streams: splits that an item has at most, and a whole sequence. */
    uint32_t item_splits, whole_splits;
    /* Decoding sequences with partial results, neighbours where they share the most. */
    uint32_t n_sharers;
    uint32_t *sharers; /* [n_sharers] sequences */
    uint32_t *depths;  /* [n_sharers] whole splits that a sharer has in common with the next one */
    uint32_t *rows_at; /* [n_sharers + 1] where its rows stand in the list */
    uint32_t *spare;   /* [seqs] */
};

enum { PLAN_SEQ_WORDS = 4 }; /* words that the planner itself needs for a sequence */

/* Rows of a large item, at most. */
static uint32_t large_rows(const struct attention_limits *limits)
{
    uint32_t n = limits->large_pairs / limits->heads_per_kv;
    return n > 0 ? n : 1;
}

static size_t max_items(const struct attention_limits *limits, const struct step_capacity *capacity)
{
    /* An item with partial results has some of its own; the others have a sequence or all the rows that one
     * can have. */
    return (size_t)limits->n_partials + 2 * (size_t)capacity->seqs + capacity->rows / large_rows(limits);
}

size_t attention_work_bytes(const struct attention_limits *limits, const struct step_capacity *capacity)
{
    size_t words = max_items(limits, capacity) * (sizeof(struct attention_item) / sizeof(uint32_t));
    words += 2 * (size_t)capacity->rows + PLAN_SEQ_WORDS * (size_t)capacity->seqs + 1;
    return sizeof(struct attention_work) + STEP_KV_GROUPS_MAX * words * sizeof(uint32_t);
}

bool attention_is_small(const struct attention_limits *limits, uint32_t n_rows)
{
    return n_rows == 1 || n_rows * limits->heads_per_kv <= ATTENTION_SMALL_PAIRS;
}

static uint32_t count_splits(const struct step_seq *seq)
{
    return attention_row_splits(seq->n_context - 1);
}

/* Splits that end before the sequence's first row of the step. */
static uint32_t count_whole_splits(const struct step_seq *seq)
{
    return (seq->n_context - seq->n_rows) / CUDA_KV_SPLIT_TOKENS;
}

static const uint32_t *table_of(const struct plan *plan, uint32_t seq)
{
    return step_block_table(plan->step, plan->group, seq);
}

static void add_item(struct plan *plan, struct attention_item item)
{
    plan->items[plan->n_items++] = item;
}

/* ---- Partial results ---- */

/* Gives a sequence's rows their partial results, unless there is but one split or not enough of them are
 * left. */
static bool assign_partials(struct plan *plan, const struct step_seq *seq, uint32_t *n_assigned)
{
    uint32_t n_splits = count_splits(seq);
    size_t n = (size_t)n_splits * seq->n_rows;
    if (n_splits == 1 || n > plan->limits->n_partials - *n_assigned)
        return false;
    for (uint32_t i = 0; i < seq->n_rows; i++)
        plan->row_partials[seq->first_row + i] = *n_assigned + i * n_splits;
    *n_assigned += (uint32_t)n;
    return true;
}

static bool has_partials(const struct plan *plan, const struct step_seq *seq)
{
    return plan->row_partials[seq->first_row] != ATTENTION_NO_PARTIAL;
}

/* Goes to a small kernel: known once the small sequences' partial results are assigned. */
static bool is_small_item(const struct plan *plan, const struct step_seq *seq)
{
    return attention_is_small(plan->limits, seq->n_rows) &&
           (has_partials(plan, seq) || count_splits(seq) == 1 || plan->limits->warps > 0);
}

/* Decode first. Prefill is cut only where whole rows would leave blocks of the card idle, and long ones. */
static void assign_all_partials(struct plan *plan)
{
    const struct step *step = plan->step;
    uint32_t n_assigned = 0;
    size_t n_large_parts = 0;
    for (uint32_t i = 0; i < step->n_rows; i++)
        plan->row_partials[i] = ATTENTION_NO_PARTIAL;
    for (uint32_t s = 0; s < step->n_seqs; s++) {
        const struct step_seq *seq = &step->seqs[s];
        if (attention_is_small(plan->limits, seq->n_rows) && assign_partials(plan, seq, &n_assigned))
            plan->sharers[plan->n_sharers++] = s;
        if (!is_small_item(plan, seq))
            n_large_parts +=
                div_up((size_t)seq->n_rows * plan->limits->heads_per_kv, plan->limits->large_pairs);
    }
    if (n_large_parts * plan->limits->n_kv_heads >= plan->limits->blocks_wanted)
        return;
    for (uint32_t s = 0; s < step->n_seqs; s++) {
        const struct step_seq *seq = &step->seqs[s];
        if (!attention_is_small(plan->limits, seq->n_rows) && count_splits(seq) >= plan->limits->cut_splits)
            assign_partials(plan, seq, &n_assigned);
    }
}

/* ---- Shared prefixes ---- */

/* Order in which sequences that share splits are neighbours: the last block of each split tells whole
 * prefixes apart, since a block that is shared is so together with all before it. */
static bool comes_before(const struct plan *plan, uint32_t a, uint32_t b)
{
    const uint32_t *table_a = table_of(plan, a), *table_b = table_of(plan, b);
    uint32_t n_a = count_whole_splits(&plan->step->seqs[a]), n_b = count_whole_splits(&plan->step->seqs[b]);
    for (uint32_t i = 0; i < n_a && i < n_b; i++) {
        uint32_t last = i * CUDA_KV_SPLIT_BLOCKS + CUDA_KV_SPLIT_BLOCKS - 1;
        if (table_a[last] != table_b[last])
            return table_a[last] < table_b[last];
    }
    return n_a != n_b ? n_a < n_b : a < b;
}

static void sort_sharers(struct plan *plan)
{
    uint32_t n = plan->n_sharers, *from = plan->sharers, *to = plan->spare;
    for (uint32_t width = 1; width < n; width *= 2) {
        for (uint32_t begin = 0; begin < n; begin += 2 * width) {
            uint32_t middle = begin + width < n ? begin + width : n,
                     end = middle + width < n ? middle + width : n;
            uint32_t a = begin, b = middle;
            for (uint32_t i = begin; i < end; i++) {
                bool takes_a = b == end || (a < middle && comes_before(plan, from[a], from[b]));
                to[i] = takes_a ? from[a++] : from[b++];
            }
        }
        uint32_t *swap = from;
        from = to;
        to = swap;
    }
    if (from != plan->sharers)
        memcpy(plan->sharers, from, n * sizeof *from);
}

static uint32_t count_common_splits(const struct plan *plan, uint32_t a, uint32_t b)
{
    uint32_t n = count_whole_splits(&plan->step->seqs[a]), n_b = count_whole_splits(&plan->step->seqs[b]);
    n = n < n_b ? n : n_b;
    const uint32_t *table_a = table_of(plan, a), *table_b = table_of(plan, b);
    uint32_t common = 0;
    while (common < n &&
           memcmp(table_a + common * CUDA_KV_SPLIT_BLOCKS, table_b + common * CUDA_KV_SPLIT_BLOCKS,
                  CUDA_KV_SPLIT_BLOCKS * sizeof *table_a) == 0)
        common++;
    return common;
}

/* Order, depths and the list of rows; returns the rows listed. */
static uint32_t find_shared_splits(struct plan *plan)
{
    uint32_t n_listed = 0;
    if (plan->limits->shares_prefixes)
        sort_sharers(plan);
    for (uint32_t i = 0; i < plan->n_sharers; i++) {
        const struct step_seq *seq = &plan->step->seqs[plan->sharers[i]];
        bool shares = plan->limits->shares_prefixes && i + 1 < plan->n_sharers;
        plan->depths[i] = shares ? count_common_splits(plan, plan->sharers[i], plan->sharers[i + 1]) : 0;
        plan->rows_at[i] = n_listed;
        for (uint32_t r = 0; r < seq->n_rows; r++)
            plan->listed_rows[n_listed++] = seq->first_row + r;
    }
    plan->rows_at[plan->n_sharers] = n_listed;
    return n_listed;
}

/* Listed rows [first_row, first_row + n_rows) by a split that a sequence has in common with all of them. */
static void add_shared_item(struct plan *plan, uint32_t s, uint32_t first_row, uint32_t n_rows,
                            uint32_t split)
{
    struct attention_item item = {
        .seq = s,
        .first_row = first_row,
        .n_rows = n_rows,
        .first_split = split,
        .n_splits = 1,
        .low = UINT32_MAX,
        .flags = ATTENTION_ITEM_LISTED | ATTENTION_ITEM_PARTIAL | ATTENTION_ITEM_OLD_KEYS,
    };
    for (uint32_t i = 0; i < n_rows; i++) {
        uint32_t position = plan->step->rows[plan->listed_rows[first_row + i]].position;
        item.low = position < item.low ? position : item.low;
        item.high = position > item.high ? position : item.high;
    }
    add_item(plan, item);
}

/* Items of the runs of sequences that have split `split` in common, of those for the small kernels or of the
 * others; returns whether there was any run. */
static bool add_shared_split(struct plan *plan, uint32_t split, bool small)
{
    bool found = false;
    for (uint32_t i = 0; i < plan->n_sharers; i++) {
        uint32_t begin = i;
        while (plan->depths[i] > split)
            i++;
        if (i == begin)
            continue;
        found = true;
        uint32_t row = plan->rows_at[begin], end = plan->rows_at[i + 1];
        if (attention_is_small(plan->limits, end - row) != small)
            continue;
        for (uint32_t most = large_rows(plan->limits); row < end; row += most) {
            uint32_t n_rows = end - row < most ? end - row : most;
            add_shared_item(plan, plan->sharers[begin], row, n_rows, split);
        }
    }
    return found;
}

static void add_shared_splits(struct plan *plan, bool small)
{
    for (uint32_t split = 0; add_shared_split(plan, split, small);)
        split++;
}

/* ---- Items of one sequence ---- */

/* Rows [first_row, first_row + n_rows) of the step by all splits that they see. */
static struct attention_item item_of_rows(const struct plan *plan, uint32_t s, uint32_t first_row,
                                          uint32_t n_rows)
{
    const struct step_row *rows = plan->step->rows + first_row;
    return (struct attention_item){.seq = s,
                                   .first_row = first_row,
                                   .n_rows = n_rows,
                                   .n_splits = attention_row_splits(rows[n_rows - 1].position),
                                   .low = rows[0].position,
                                   .high = rows[n_rows - 1].position};
}

/* The item's splits [first, end), so many an item. */
static void add_splits(struct plan *plan, struct attention_item item, uint32_t first, uint32_t end,
                       uint32_t item_splits)
{
    uint32_t n_old = count_whole_splits(&plan->step->seqs[item.seq]);
    for (; first < end; first += item_splits) {
        item.first_split = first;
        item.n_splits = end - first < item_splits ? end - first : item_splits;
        item.flags = ATTENTION_ITEM_PARTIAL | (first + item.n_splits <= n_old ? ATTENTION_ITEM_OLD_KEYS : 0);
        add_item(plan, item);
    }
}

/* Splits of a sequence of the list that other items have already. */
static uint32_t count_shared_splits(const struct plan *plan, uint32_t sharer)
{
    uint32_t before = sharer > 0 ? plan->depths[sharer - 1] : 0;
    return plan->depths[sharer] > before ? plan->depths[sharer] : before;
}

size_t attention_row_pieces(const struct attention_limits *limits)
{
    return limits->n_kv_heads * div_up(limits->heads_per_kv, ATTENTION_STREAM_PAIRS);
}

uint32_t attention_team(size_t n_pieces, size_t warps)
{
    for (uint32_t team = ATTENTION_TEAM; team > 1; team /= 2) {
        if (n_pieces * team <= warps)
            return team;
    }
    return 1;
}

/* How sequences are cut for a kernel by streams: hardly ever, unless one is much longer than what a warp gets
 * on the average. */
static void choose_cut(struct plan *plan)
{
    const struct step *step = plan->step;
    size_t n_splits = 0, n_seqs = 0, n_pieces = attention_row_pieces(plan->limits);
    if (plan->limits->warps == 0)
        return;
    for (uint32_t s = 0; s < step->n_seqs; s++) {
        if (attention_is_small(plan->limits, step->seqs[s].n_rows)) {
            n_splits += count_splits(&step->seqs[s]);
            n_seqs++;
        }
    }
    plan->item_splits = (uint32_t)div_up(n_splits * n_pieces, plan->limits->warps) *
                        attention_team(n_seqs * n_pieces, plan->limits->warps);
    plan->whole_splits = 2 * plan->item_splits;
}

/* Which of the small items are a warp's and which are shared: where they are few, all are shared; where they
 * are many, those that are left when every warp has had as many. */
static void choose_teams(const struct plan *plan, uint32_t n_small, struct attention_group *group)
{
    size_t n_pieces = attention_row_pieces(plan->limits), warps = plan->limits->warps, n = n_small * n_pieces;
    group->team = ATTENTION_TEAM;
    if (warps == 0)
        group->n_alone = n_small;
    else if (n > warps)
        group->n_alone = (uint32_t)(n / warps * warps / n_pieces);
    else
        group->team = attention_team(n, warps);
}

/* A sequence of which no part is shared and that need not be cut. */
static bool is_whole(const struct plan *plan, uint32_t n_splits, uint32_t n_shared)
{
    return plan->limits->warps > 0 && n_shared == 0 && n_splits <= plan->whole_splits;
}

/* The sequence needs no partial results. */
static void drop_partials(struct plan *plan, const struct step_seq *seq)
{
    for (uint32_t i = 0; i < seq->n_rows; i++)
        plan->row_partials[seq->first_row + i] = ATTENTION_NO_PARTIAL;
}

/* The largest first: whole splits, then those at the ends of the sequences, then sequences of one split. */
static void add_small_items(struct plan *plan)
{
    const struct step *step = plan->step;
    add_shared_splits(plan, true);
    for (uint32_t pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < plan->n_sharers; i++) {
            uint32_t s = plan->sharers[i], shared = count_shared_splits(plan, i);
            struct attention_item item = item_of_rows(plan, s, step->seqs[s].first_row, step->seqs[s].n_rows);
            uint32_t last = item.n_splits - 1;
            if (plan->limits->warps > 0) {
                if (pass != 0)
                    continue;
                if (is_whole(plan, item.n_splits, shared))
                    drop_partials(plan, &step->seqs[s]);
                else
                    add_splits(plan, item, shared, item.n_splits, plan->item_splits);
            } else if (pass == 0) {
                add_splits(plan, item, shared, last, 1);
            } else {
                add_splits(plan, item, shared > last ? shared : last, item.n_splits, 1);
            }
        }
    }
    for (uint32_t s = 0; s < step->n_seqs; s++) {
        const struct step_seq *seq = &step->seqs[s];
        if (is_small_item(plan, seq) && !has_partials(plan, seq))
            add_item(plan, item_of_rows(plan, s, seq->first_row, seq->n_rows));
    }
}

/* Last rows first: they see the most. */
static void add_large_items(struct plan *plan)
{
    const struct step *step = plan->step;
    uint32_t most = large_rows(plan->limits);
    add_shared_splits(plan, false);
    for (uint32_t s = 0; s < step->n_seqs; s++) {
        const struct step_seq *seq = &step->seqs[s];
        if (is_small_item(plan, seq))
            continue;
        for (size_t i = div_up(seq->n_rows, most); i > 0; i--) {
            uint32_t begin = (uint32_t)(i - 1) * most, left = seq->n_rows - begin;
            struct attention_item item =
                item_of_rows(plan, s, seq->first_row + begin, left < most ? left : most);
            if (has_partials(plan, seq))
                add_splits(plan, item, 0, item.n_splits, 1);
            else
                add_item(plan, item);
        }
    }
}

static uint32_t max_item_rows(const struct attention_item *items, uint32_t n)
{
    uint32_t most = 0;
    for (uint32_t i = 0; i < n; i++)
        most = items[i].n_rows > most ? items[i].n_rows : most;
    return most;
}

/* Writes one group's arrays from word `at` of the work on; returns the words in use. */
static size_t plan_group(const struct attention_limits *limits, const struct step *step, uint32_t group,
                         struct attention_work *work, size_t at)
{
    uint32_t *words = (uint32_t *)work, n_seqs = step->n_seqs;
    struct plan plan = {.limits = limits, .step = step, .group = group, .row_partials = words + at};
    plan.listed_rows = plan.row_partials + step->n_rows;
    /* The planner's own: behind what the items can take. */
    plan.sharers = plan.listed_rows + step->n_rows +
                   max_items(limits, &step->capacity) * (sizeof(struct attention_item) / sizeof(uint32_t));
    plan.depths = plan.sharers + n_seqs;
    plan.spare = plan.depths + n_seqs;
    plan.rows_at = plan.spare + n_seqs;
    choose_cut(&plan);
    assign_all_partials(&plan);
    uint32_t n_listed = find_shared_splits(&plan);
    plan.items = (struct attention_item *)(plan.listed_rows + n_listed);
    add_small_items(&plan);
    uint32_t n_small = plan.n_items;
    add_large_items(&plan);
    ASSERT(plan.n_items <= max_items(limits, &step->capacity));
    size_t items_at = at + step->n_rows + n_listed;
    work->groups[group] = (struct attention_group){
        .n_small = n_small,
        .n_large = plan.n_items - n_small,
        .small_rows = max_item_rows(plan.items, n_small),
        .large_rows = max_item_rows(plan.items + n_small, plan.n_items - n_small),
        .items = (uint32_t)items_at,
        .row_partials = (uint32_t)at,
        .listed_rows = (uint32_t)(at + step->n_rows),
    };
    choose_teams(&plan, n_small, &work->groups[group]);
    return items_at + plan.n_items * (sizeof(struct attention_item) / sizeof(uint32_t));
}

size_t attention_plan(const struct attention_limits *limits, const struct step *step,
                      struct attention_work *work)
{
    ASSERT(limits->heads_per_kv > 0 && limits->large_pairs > 0 &&
           step->capacity.kv_groups <= STEP_KV_GROUPS_MAX);
    memset(work, 0, sizeof *work);
    size_t words = sizeof *work / sizeof(uint32_t);
    for (uint32_t group = 0; group < step->capacity.kv_groups; group++)
        words = plan_group(limits, step, group, work, words);
    ASSERT(words * sizeof(uint32_t) <= attention_work_bytes(limits, &step->capacity));
    return words * sizeof(uint32_t);
}

const struct attention_kernel *attention_kernel_find(uint32_t head_dim, uint32_t element_bytes,
                                                     enum attention_size size)
{
#define ENTRY(x, rows, type, dim, kv_bytes, warps_m, warps_n, slots, shared, n_blocks)                       \
    {.id = CUDA_KERNEL_attention_##rows##_##type##_d##dim,                                                   \
     .head_dim = dim,                                                                                        \
     .element_bytes = kv_bytes,                                                                              \
     .size = warps_m == 1 ? ATTENTION_SMALL : ATTENTION_LARGE,                                               \
     .threads = 32 * warps_m * warps_n,                                                                      \
     .shared_bytes = shared,                                                                                 \
     .pairs = 16 * warps_m,                                                                                  \
     .units = 1,                                                                                             \
     .blocks = n_blocks},
#define STREAM_SIZE_s8 ATTENTION_STREAMS
#define STREAM_SIZE_l8 ATTENTION_LONG_STREAMS
#define STREAM_ENTRY(x, rows, type, dim, kv_bytes, slots, unroll, shared, n_blocks)                          \
    {.id = CUDA_KERNEL_attention_##rows##_##type##_d##dim,                                                   \
     .head_dim = dim,                                                                                        \
     .element_bytes = kv_bytes,                                                                              \
     .size = STREAM_SIZE_##rows,                                                                             \
     .threads = 32 * ATTENTION_TEAM,                                                                         \
     .shared_bytes = shared,                                                                                 \
     .pairs = ATTENTION_STREAM_PAIRS,                                                                        \
     .units = ATTENTION_TEAM,                                                                                \
     .blocks = n_blocks},
#define WGMMA_ENTRY(x, type, dim, kv_bytes, n_threads, shared)                                               \
    {.id = CUDA_KERNEL_attention_m128_##type##_d##dim,                                                       \
     .head_dim = dim,                                                                                        \
     .element_bytes = kv_bytes,                                                                              \
     .size = ATTENTION_WGMMA,                                                                                \
     .threads = n_threads,                                                                                   \
     .shared_bytes = shared,                                                                                 \
     .pairs = 128,                                                                                           \
     .units = 1,                                                                                             \
     .blocks = 1},
    static const struct attention_kernel kernels[] = {ATTENTION_FORMS_BF16(ENTRY, ) ATTENTION_FORMS_E4M3(
        ENTRY, ) ATTENTION_FORMS_STREAMS(STREAM_ENTRY, ) ATTENTION_FORMS_WGMMA(WGMMA_ENTRY, )};
#undef WGMMA_ENTRY
#undef STREAM_ENTRY
#undef STREAM_SIZE_s8
#undef STREAM_SIZE_l8
#undef ENTRY
    for (size_t i = 0; i < sizeof kernels / sizeof *kernels; i++) {
        const struct attention_kernel *kernel = &kernels[i];
        if (kernel->head_dim == head_dim && kernel->element_bytes == element_bytes && kernel->size == size)
            return kernel;
    }
    return NULL;
}
