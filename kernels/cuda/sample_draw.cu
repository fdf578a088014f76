/* Sampling, the draw: min-p, top-k and top-p without sorting the vocabulary, then Gumbel-max.
 *
 * Tokens are put into bins by their distance from the maximum. Adding up the bins' counts or probabilities
 * from the top says in which bin the cut falls: what lies above it is in, what lies below it is out, and the
 * last block finds the cut among the tokens of that bin by radix selection over their keys, which are all
 * different. Probabilities are added in fixed point, so no sum depends on an order. */
#include "kernels/cuda/sample_device.h"

/* Which filters are on. */
struct filter {
    float lowest; /* of x: log(min_p), or the least finite value */
    float temperature, top_p;
    uint32_t top_k; /* 0 = off */
    bool has_top_p;
    struct gumbel_key key;
};

DEVICE struct filter filter_of(const struct sample_args &args, const struct sample_place *place)
{
    const struct cuda_slot *slot = args.slots.slots + slot_index_of(args, place->output);
    struct filter filter;
    filter.lowest = slot->min_p_log < -3.402823466e38f ? -3.402823466e38f : slot->min_p_log;
    filter.temperature = slot->temperature;
    filter.top_p = slot->top_p;
    filter.top_k = slot->top_k < args.slots.vocab_size ? slot->top_k : 0;
    filter.has_top_p = slot->top_p < 1;
    filter.key.key = slot->key;
    filter.key.position = args.rows.step->rows[place->output->row].position + 1;
    filter.key.purpose = SAMPLER_PURPOSE_DRAW;
    return filter;
}

/* Four logits below their maximum of 0, by temperature. */
DEVICE void load_tempered(float out[4], const struct sample_args &args, const struct sample_place *place,
                          uint32_t token, float temperature)
{
    const float *row =
        (place->row->is_transformed ? args.work : args.logits) + (size_t)place->i * args.stride;
    load_logits(out, row, token, place->end);
    for (int j = 0; j < 4; j++)
        out[j] = (out[j] - place->row->max) / temperature;
}

DEVICE uint32_t bin_of(float x)
{
    float bin = -x * SAMPLE_BINS_PER_NAT;
    return bin < (float)(SAMPLE_BINS - 1) ? (uint32_t)bin : (uint32_t)SAMPLE_BINS - 1;
}

DEVICE uint64_t mass_of(float x)
{
    return (uint64_t)((double)exp_ref(x) * (double)(1ull << SAMPLE_MASS_BITS) + 0.5);
}

KERNEL_BOUNDS(sample_histogram, struct sample_args, SAMPLE_THREADS, 2)
{
    SHARED(uint32_t, counts, [SAMPLE_BINS]);
    SHARED(uint64_t, masses, [SAMPLE_BINS]);
    dependents_launch();
    dependencies_wait();
    struct sample_place place;
    if (!place_find(args, &place) || place.row->state != SAMPLE_DRAW)
        return;
    struct filter filter = filter_of(args, &place);
    if (filter.top_k == 0 && !filter.has_top_p)
        return;
    for (uint32_t b = thread_x(); b < SAMPLE_BINS; b += SAMPLE_THREADS) {
        counts[b] = 0;
        masses[b] = 0;
    }
    barrier();
    for (uint32_t g = 0; g < SLICE_GROUPS; g++) {
        uint32_t token = place.begin + 4 * (g * SAMPLE_THREADS + thread_x());
        float x[4];
        load_tempered(x, args, &place, token, filter.temperature);
        for (int j = 0; j < 4; j++) {
            if (x[j] >= filter.lowest) {
                atomic_add_u32(counts + bin_of(x[j]), 1);
                atomic_add_u64(masses + bin_of(x[j]), mass_of(x[j]));
            }
        }
    }
    barrier();
    for (uint32_t b = thread_x(); b < SAMPLE_BINS; b += SAMPLE_THREADS) {
        if (counts[b] > 0) {
            atomic_add_u32(place.row->counts + b, counts[b]);
            atomic_add_u64(place.row->masses + b, masses[b]);
        }
    }
}

/* ---- Where a running sum reaches a target ---- */

struct cut {
    uint32_t bin;   /* the first with which the sum reaches the target */
    uint64_t above; /* sum of those before it */
};

/* values(b) for b in [0, n_bins) from the top; n_bins: a multiple of 32. One warp; all its lanes get the cut.
 */
template <typename values_fn> DEVICE struct cut find_cut(values_fn values, uint32_t n_bins, uint64_t target)
{
    uint32_t each = n_bins / WARP_LANES, begin = lane_id() * each;
    uint64_t mine = 0;
    for (uint32_t b = begin; b < begin + each; b++)
        mine += values(b);
    uint64_t before = mine; /* inclusive, then exclusive */
    for (uint32_t n = 1; n < WARP_LANES; n *= 2) {
        uint64_t other = shuffle_up_u64(before, n);
        before += lane_id() >= n ? other : 0;
    }
    before -= mine;
    struct cut cut = {n_bins - 1, before};
    bool has_it = before < target && before + mine >= target;
    for (uint32_t b = begin; has_it && b < begin + each; b++) {
        uint64_t value = values(b);
        if (cut.above + value >= target) {
            cut.bin = b;
            break;
        }
        cut.above += value;
    }
    uint32_t votes = ballot(has_it), owner = 0;
    while (owner < WARP_LANES - 1 && (votes >> owner & 1) == 0)
        owner++;
    cut.bin = shuffle(cut.bin, owner);
    cut.above =
        (uint64_t)shuffle((uint32_t)(cut.above >> 32), owner) << 32 | shuffle((uint32_t)cut.above, owner);
    return cut;
}

struct draw_shared {
    uint64_t parts[BLOCK_WARPS_MAX];
    uint32_t digit_counts[256];
    uint64_t digit_masses[256];
    struct cut cut;
    uint32_t is_last;
};

/* ---- Selection among the candidates of a row, by the last block ---- */

/* The greatest key T such that the keys >= T and >= least hold the target: so many of them, or so much
 * probability (by_mass). They hold at least that. */
DEVICE uint64_t select_key(const uint64_t *keys, uint32_t n, uint64_t least, bool by_mass, uint64_t target,
                           struct draw_shared *shared)
{
    uint64_t prefix = 0;
    for (int shift = 56; shift >= 0; shift -= 8) {
        for (uint32_t b = thread_x(); b < 256; b += SAMPLE_THREADS) {
            shared->digit_counts[b] = 0;
            shared->digit_masses[b] = 0;
        }
        barrier();
        for (uint32_t c = thread_x(); c < n; c += SAMPLE_THREADS) {
            uint64_t key = keys[c];
            if (key < least || (shift < 56 && (key ^ prefix) >> (shift + 8) != 0))
                continue;
            uint32_t at = 255 - (uint32_t)(key >> shift & 255); /* the greatest first */
            atomic_add_u32(shared->digit_counts + at, 1);
            if (by_mass)
                atomic_add_u64(shared->digit_masses + at, mass_of(key_value(key)));
        }
        barrier();
        if (warp_id() == 0) {
            const struct draw_shared *s = shared;
            struct cut cut = find_cut(
                [=](uint32_t b) { return by_mass ? s->digit_masses[b] : (uint64_t)s->digit_counts[b]; }, 256,
                target);
            if (lane_id() == 0)
                shared->cut = cut;
        }
        barrier();
        prefix |= (uint64_t)(255 - shared->cut.bin) << shift;
        target -= shared->cut.above;
        bool is_alone = shared->digit_counts[shared->cut.bin] == 1;
        barrier();
        if (is_alone)
            break; /* zeros for the digits below: of those from `least` no other is as great */
    }
    return prefix > least ? prefix : least;
}

DEVICE uint64_t mass_from(const uint64_t *keys, uint32_t n, uint64_t least, struct draw_shared *shared)
{
    uint64_t mass = 0;
    for (uint32_t c = thread_x(); c < n; c += SAMPLE_THREADS)
        mass += keys[c] >= least ? mass_of(key_value(keys[c])) : 0;
    return block_sum_u64(mass, shared->parts);
}

/* The part of a mass that must be reached. */
DEVICE uint64_t top_p_target(float top_p, uint64_t mass)
{
    double target = ceil((double)top_p * (double)mass);
    return target < 1 ? 1 : (uint64_t)target;
}

/* ---- The draw ---- */

/* Bins [0, sure) are in; of [sure, end) the last block decides; the others are out. */
struct bins {
    uint32_t sure, end;
    bool cuts_k, cuts_p;
    uint64_t target; /* among the undecided: how many (cuts_k), how much (cuts_p alone) */
};

/* The same in every block of the row. */
DEVICE struct bins find_bins(const struct sample_row *row, const struct filter *filter,
                             struct draw_shared *shared)
{
    struct bins bins = {SAMPLE_BINS, SAMPLE_BINS, false, false, 0};
    if (filter->top_k == 0 && !filter->has_top_p)
        return bins;
    uint64_t count = 0, mass = 0;
    for (uint32_t b = thread_x(); b < SAMPLE_BINS; b += SAMPLE_THREADS) {
        count += row->counts[b];
        mass += row->masses[b];
    }
    count = block_sum_u64(count, shared->parts);
    mass = block_sum_u64(mass, shared->parts);
    bins.cuts_k = filter->top_k > 0 && filter->top_k < count;
    bins.cuts_p = filter->has_top_p;
    if (!bins.cuts_k && !bins.cuts_p)
        return bins;
    bool by_mass = !bins.cuts_k;
    uint64_t target = by_mass ? top_p_target(filter->top_p, mass) : filter->top_k;
    if (warp_id() == 0) {
        struct cut cut =
            find_cut([=](uint32_t b) { return by_mass ? row->masses[b] : (uint64_t)row->counts[b]; },
                     SAMPLE_BINS, target);
        if (lane_id() == 0)
            shared->cut = cut;
    }
    barrier();
    struct cut cut = shared->cut;
    bins.end = cut.bin + 1;
    bins.sure = cut.bin;
    bins.target = target - cut.above;
    if (bins.cuts_k && bins.cuts_p) { /* what top-p takes of the top k is known when these are */
        bins.sure = 0;
        bins.target = target;
    }
    return bins;
}

DEVICE uint64_t score_key(float x, uint32_t token, struct gumbel_key key)
{
    return key_make(x + gumbel_ref(key, token), token);
}

/* The best score of the slice's sure tokens; the undecided become candidates. */
DEVICE uint64_t draw_slice(const struct sample_args &args, const struct sample_place *place,
                           const struct filter *filter, const struct bins *bins)
{
    uint64_t best = 0, *candidates = args.candidates + (size_t)place->i * args.stride;
    for (uint32_t g = 0; g < SLICE_GROUPS; g++) {
        uint32_t token = place->begin + 4 * (g * SAMPLE_THREADS + thread_x());
        float x[4];
        load_tempered(x, args, place, token, filter->temperature);
#pragma unroll
        for (uint32_t j = 0; j < 4; j++) {
            if (!(x[j] >= filter->lowest))
                continue;
            uint32_t bin = bin_of(x[j]);
            if (bin < bins->sure || bins->sure == SAMPLE_BINS) {
                uint64_t key = score_key(x[j], token + j, filter->key);
                best = key > best ? key : best;
            } else if (bin < bins->end) {
                candidates[atomic_add_u32(&place->row->n_candidates, 1)] = key_make(x[j], token + j);
            }
        }
    }
    return best;
}

/* The best score among the candidates that survive. */
DEVICE uint64_t draw_candidates(const struct sample_args &args, const struct sample_place *place,
                                const struct filter *filter, const struct bins *bins,
                                struct draw_shared *shared)
{
    const uint64_t *keys = args.candidates + (size_t)place->i * args.stride;
    uint32_t n = place->row->n_candidates;
    if (n == 0)
        return 0;
    uint64_t least = select_key(keys, n, 0, !bins->cuts_k, bins->target, shared);
    if (bins->cuts_k && bins->cuts_p) {
        uint64_t target = top_p_target(filter->top_p, mass_from(keys, n, least, shared));
        least = select_key(keys, n, least, true, target, shared);
    }
    uint64_t best = 0;
    for (uint32_t c = thread_x(); c < n; c += SAMPLE_THREADS) {
        if (keys[c] < least)
            continue;
        uint64_t key = score_key(key_value(keys[c]), key_token(keys[c]), filter->key);
        best = key > best ? key : best;
    }
    return best;
}

KERNEL_BOUNDS(sample_draw, struct sample_args, SAMPLE_THREADS, 2)
{
    SHARED(struct draw_shared, shared, );
    dependents_launch();
    dependencies_wait();
    struct sample_place place;
    if (!place_find(args, &place) || place.row->state != SAMPLE_DRAW)
        return;
    struct filter filter = filter_of(args, &place);
    struct bins bins = find_bins(place.row, &filter, &shared);
    uint64_t best = block_max_u64(draw_slice(args, &place, &filter, &bins), shared.parts);
    if (thread_x() == 0)
        place.row->slices[place.slice].best = best;
    if (!arrive(&place, &shared.is_last))
        return;
    best = thread_x() < place.n_slices ? place.row->slices[thread_x()].best : 0;
    uint64_t undecided = draw_candidates(args, &place, &filter, &bins, &shared);
    best = block_max_u64(undecided > best ? undecided : best, shared.parts);
    for (uint32_t b = thread_x(); b < SAMPLE_BINS; b += SAMPLE_THREADS) {
        place.row->counts[b] = 0;
        place.row->masses[b] = 0;
    }
    if (thread_x() == 0) {
        place.row->n_candidates = 0;
        finish_token(args, &place, key_token(best));
    }
}
