/* Sampling, first pass: the transformations of sampler.h up to the penalties, the maximum, and the choice of
 * greedy rows; and the counts that penalties need. */
#include "kernels/cuda/sample_device.h"

KERNEL(slot_counts, struct slot_counts_args)
{
    dependents_launch();
    dependencies_wait();
    uint32_t *counts = args.slots.counts + (size_t)args.slot * args.slots.vocab_size;
    for (uint32_t i = thread_x(); i < args.slots.vocab_size; i += block_threads())
        counts[i] = 0;
    barrier();
    for (uint32_t i = thread_x(); i < args.n_prompt + args.n_output; i += block_threads()) {
        uint32_t token = args.ids[i];
        if (token >= args.slots.vocab_size)
            trap();
        if (i < args.n_prompt)
            atomic_or_u32(counts + token, CUDA_COUNT_IN_PROMPT);
        else
            atomic_add_u32(counts + token, 1);
    }
}

struct scan_shared {
    float x[SAMPLE_SLICE];
    uint64_t parts[BLOCK_WARPS_MAX];
    uint32_t is_last;
};

/* What a thread, then a block, knows of some logits. */
struct scan_stats {
    uint64_t best; /* key */
    uint32_t malformed;
};

DEVICE void stats_add(struct scan_stats *stats, float x, uint32_t token)
{
    uint64_t key = key_make(x, token);
    stats->best = key > stats->best ? key : stats->best;
    stats->malformed |= !(x < INFINITY); /* NaN too */
}

DEVICE struct scan_stats stats_of_block(struct scan_stats stats, uint64_t *parts)
{
    struct scan_stats all;
    all.best = block_max_u64(stats.best, parts);
    all.malformed = block_max_u64(stats.malformed, parts) != 0;
    return all;
}

/* ---- Transformations of a slice; ids past the vocabulary name nothing ---- */

/* NULL: the output has none. */
DEVICE const uint32_t *mask_of(const struct sample_args &args, uint32_t i)
{
    if (args.mask_of_output == NULL)
        return NULL;
    int32_t mask = args.mask_of_output[args.rows.first + i];
    return mask < 0 ? NULL : args.masks + (size_t)mask * args.slots.mask_words;
}

DEVICE bool transforms(const struct cuda_slot *slot, const uint32_t *mask)
{
    return mask != NULL || (slot->flags & (CUDA_SLOT_ALLOWED | CUDA_SLOT_COUNTS)) != 0 || slot->n_words > 0 ||
           slot->n_bias > 0 || (slot->n_output < slot->min_tokens && slot->n_stop_ids > 0);
}

DEVICE bool mask_allows(const uint32_t *mask, uint32_t token)
{
    return mask == NULL || (mask[token / 32] >> token % 32 & 1) != 0;
}

DEVICE void forbid(struct scan_shared *shared, const struct sample_place *place, uint32_t token)
{
    if (token >= place->begin && token < place->end)
        shared->x[token - place->begin] = -INFINITY;
}

/* The tokens before a word's last one must be the latest outputs. */
DEVICE void forbid_word(struct scan_shared *shared, const struct sample_place *place,
                        const struct cuda_slot *slot, uint32_t word)
{
    uint32_t begin = word == 0 ? 0 : slot->word_ends[word - 1], end = slot->word_ends[word];
    if (begin == end || end - begin - 1 > slot->n_output)
        return;
    uint32_t before = end - begin - 1;
    for (uint32_t j = 0; j < before; j++) {
        if (slot->tail[(slot->n_output - before + j) % CUDA_SLOT_TAIL] != slot->word_ids[begin + j])
            return;
    }
    forbid(shared, place, slot->word_ids[end - 1]);
}

/* Entries of one token are neighbours: the thread of the first adds them all, in the order given. */
DEVICE void add_bias(struct scan_shared *shared, const struct sample_place *place,
                     const struct cuda_slot *slot, uint32_t entry)
{
    uint32_t token = slot->bias[entry].token_id;
    bool is_first = entry == 0 || slot->bias[entry - 1].token_id != token;
    if (!is_first || token < place->begin || token >= place->end)
        return;
    for (; entry < slot->n_bias && slot->bias[entry].token_id == token; entry++)
        shared->x[token - place->begin] += slot->bias[entry].bias;
}

DEVICE float penalize(const struct cuda_slot *slot, float logit, uint32_t count)
{
    if (count == 0)
        return logit;
    if (slot->repetition_penalty != 1)
        logit = logit > 0 ? logit / slot->repetition_penalty : logit * slot->repetition_penalty;
    uint32_t n_output = count & ~CUDA_COUNT_IN_PROMPT;
    if (n_output > 0) {
        logit -= slot->frequency_penalty * (float)n_output;
        logit -= slot->presence_penalty;
    }
    return logit;
}

/* shared->x holds the raw slice, of which each thread wrote what it reads; leaves the transformed one. */
DEVICE void transform(const struct sample_args &args, struct scan_shared *shared,
                      const struct sample_place *place, uint32_t slot_index, const uint32_t *mask)
{
    const struct cuda_slot *slot = args.slots.slots + slot_index;
    const uint32_t *allowed = NULL;
    if (slot->flags & CUDA_SLOT_ALLOWED)
        allowed = args.slots.allowed + (size_t)slot_index * args.slots.mask_words;
    barrier();
    for (uint32_t t = place->begin + thread_x(); t < place->end; t += SAMPLE_THREADS) {
        if (!mask_allows(mask, t) || !mask_allows(allowed, t))
            shared->x[t - place->begin] = -INFINITY;
    }
    barrier();
    for (uint32_t w = thread_x(); w < slot->n_words; w += SAMPLE_THREADS)
        forbid_word(shared, place, slot, w);
    for (uint32_t s = thread_x(); slot->n_output < slot->min_tokens && s < slot->n_stop_ids;
         s += SAMPLE_THREADS)
        forbid(shared, place, slot->stop_ids[s]);
    barrier();
    for (uint32_t b = thread_x(); b < slot->n_bias; b += SAMPLE_THREADS)
        add_bias(shared, place, slot, b);
    barrier();
    const uint32_t *counts = NULL;
    if (slot->flags & CUDA_SLOT_COUNTS)
        counts = args.slots.counts + (size_t)slot_index * args.slots.vocab_size;
    float *work = args.work + (size_t)place->i * args.stride;
    for (uint32_t t = place->begin + thread_x(); t < place->end; t += SAMPLE_THREADS) {
        float x = shared->x[t - place->begin];
        work[t] = counts == NULL ? x : penalize(slot, x, counts[t]);
        shared->x[t - place->begin] = work[t];
    }
    barrier();
}

/* ---- The pass ---- */

/* Statistics of the slice, raw; keep: the slice goes to shared memory. */
DEVICE struct scan_stats scan_raw(const struct sample_args &args, struct scan_shared *shared,
                                  const struct sample_place *place, bool keep)
{
    const float *logits = args.logits + (size_t)place->i * args.stride;
    struct scan_stats stats = {0, 0};
#pragma unroll
    for (uint32_t g = 0; g < SLICE_GROUPS; g++) {
        uint32_t token = place->begin + 4 * (g * SAMPLE_THREADS + thread_x());
        float x[4];
        load_logits(x, logits, token, place->end);
        for (uint32_t j = 0; j < 4; j++) {
            if (token + j < place->end)
                stats_add(&stats, x[j], token + j);
        }
        if (keep)
            act_store_4(shared->x + (token - place->begin), x);
    }
    return stats_of_block(stats, shared->parts);
}

/* What the slices say together. */
DEVICE void merge_slices(const struct sample_place *place, struct scan_shared *shared, struct scan_stats *raw,
                         struct scan_stats *stats)
{
    struct scan_stats mine[2] = {{0, 0}, {0, 0}};
    if (thread_x() < place->n_slices) {
        const struct sample_slice *slice = place->row->slices + thread_x();
        mine[0].best = slice->raw_best;
        mine[0].malformed = slice->raw_malformed;
        mine[1].best = slice->best;
        mine[1].malformed = slice->malformed;
    }
    *raw = stats_of_block(mine[0], shared->parts);
    *stats = stats_of_block(mine[1], shared->parts);
}

/* By one thread: what is known of the row after the scan. */
DEVICE void settle_row(const struct sample_args &args, const struct sample_place *place,
                       struct scan_stats raw, struct scan_stats stats, uint32_t is_transformed)
{
    struct sample_row *row = place->row;
    struct step_result *result = result_of(args, place->i);
    bool samples = place->output->kind == STEP_OUTPUT_SAMPLE;
    row->raw_max = key_value(raw.best);
    row->max = key_value(stats.best);
    row->is_transformed = is_transformed;
    result->status = STEP_RESULT_OK;
    result->n_tokens = 0;
    result->rank = 0;
    result->n_top = 0;
    if (raw.malformed || row->raw_max == -INFINITY || (samples && stats.malformed)) {
        result->status = STEP_RESULT_NOT_FINITE;
        row->state = SAMPLE_FAILED;
    } else if (samples && row->max == -INFINITY) {
        result->status = STEP_RESULT_FORBIDDEN;
        row->state = SAMPLE_FAILED;
    } else if (!samples) {
        row->token = place->output->target;
        row->state = SAMPLE_DONE;
    } else if (args.slots.slots[slot_index_of(args, place->output)].flags & CUDA_SLOT_GREEDY) {
        finish_token(args, place, key_token(stats.best));
    } else {
        row->state = SAMPLE_DRAW;
    }
}

KERNEL_BOUNDS(sample_scan, struct sample_args, SAMPLE_THREADS, 2)
{
    SHARED(struct scan_shared, shared, );
    dependents_launch();
    dependencies_wait();
    struct sample_place place;
    if (!place_find(args, &place))
        return;
    bool is_transformed = false;
    uint32_t slot_index = 0;
    const uint32_t *mask = NULL;
    if (place.output->kind == STEP_OUTPUT_SAMPLE) {
        slot_index = slot_index_of(args, place.output);
        mask = mask_of(args, place.i);
        is_transformed = transforms(args.slots.slots + slot_index, mask);
    }
    struct scan_stats raw = scan_raw(args, &shared, &place, is_transformed), stats = raw;
    if (is_transformed) {
        transform(args, &shared, &place, slot_index, mask);
        struct scan_stats mine = {0, 0};
        for (uint32_t t = place.begin + thread_x(); t < place.end; t += SAMPLE_THREADS)
            stats_add(&mine, shared.x[t - place.begin], t);
        stats = stats_of_block(mine, shared.parts);
    }
    if (thread_x() == 0) {
        struct sample_slice *slice = place.row->slices + place.slice;
        slice->raw_best = raw.best;
        slice->raw_malformed = raw.malformed;
        slice->best = stats.best;
        slice->malformed = stats.malformed;
    }
    if (!arrive(&place, &shared.is_last))
        return;
    merge_slices(&place, &shared, &raw, &stats);
    if (thread_x() == 0)
        settle_row(args, &place, raw, stats, is_transformed);
}
