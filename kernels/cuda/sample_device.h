/* What the sampling kernels share. Included by .cu files alone. */
#pragma once

#include "kernels/cuda/device_rows.h"
#include "kernels/ref/math_ref.h"

enum { SLICE_GROUPS = SAMPLE_SLICE / (4 * SAMPLE_THREADS) }; /* of four neighbouring tokens, a thread */

/* ---- Keys: a float as an integer of the same order in the upper half, the complement of a token below, so
 * that the greatest key is the greatest value, on ties that of the lowest token. As in the CPU's sampler.
 * ---- */

DEVICE uint64_t key_make(float value, uint32_t token)
{
    uint32_t bits = float_bits(value + 0.0f); /* -0 becomes 0: equal values must have equal keys */
    bits ^= bits >> 31 ? 0xffffffffu : 0x80000000u;
    return (uint64_t)bits << 32 | (uint32_t)~token;
}

DEVICE float key_value(uint64_t key)
{
    uint32_t bits = (uint32_t)(key >> 32);
    return bits_float(bits ^ (bits >> 31 ? 0x80000000u : 0xffffffffu));
}

DEVICE uint32_t key_token(uint64_t key)
{
    return ~(uint32_t)key;
}

/* ---- Warp and block, 64 bits wide ---- */

DEVICE uint64_t shuffle_up_u64(uint64_t value, uint32_t n)
{
    uint32_t low = shuffle_up((uint32_t)value, n), high = shuffle_up((uint32_t)(value >> 32), n);
    return (uint64_t)high << 32 | low;
}

/* parts: shared [BLOCK_WARPS_MAX]; free again when it returns. */
DEVICE uint64_t block_max_u64(uint64_t x, uint64_t *parts)
{
    x = warp_max_u64(x);
    if (lane_id() == 0)
        parts[warp_id()] = x;
    barrier();
    for (uint32_t w = 0; w < block_threads() / WARP_LANES; w++)
        x = parts[w] > x ? parts[w] : x;
    barrier();
    return x;
}

DEVICE uint64_t block_sum_u64(uint64_t x, uint64_t *parts)
{
    x = warp_sum_u64(x);
    if (lane_id() == 0)
        parts[warp_id()] = x;
    barrier();
    x = 0;
    for (uint32_t w = 0; w < block_threads() / WARP_LANES; w++)
        x += parts[w];
    barrier();
    return x;
}

/* ---- A row and its slices ---- */

struct sample_place {
    uint32_t i; /* row of logits */
    uint32_t slice, n_slices;
    uint32_t begin, end; /* tokens of the slice */
    struct sample_row *row;
    const struct step_output *output;
};

/* False: this row does not exist in this step. */
DEVICE bool place_find(const struct sample_args &args, struct sample_place *place)
{
    if (block_y() >= count_rows(&args.rows))
        return false;
    uint32_t begin = block_x() * SAMPLE_SLICE, left = args.slots.vocab_size - begin;
    place->i = block_y();
    place->slice = block_x();
    place->n_slices = grid_x();
    place->begin = begin;
    place->end = begin + (left < SAMPLE_SLICE ? left : (uint32_t)SAMPLE_SLICE);
    place->row = args.scratch + place->i;
    place->output = args.rows.step->outputs + args.rows.first + place->i;
    return true;
}

DEVICE struct step_result *result_of(const struct sample_args &args, uint32_t i)
{
    return args.rows.step->results + args.rows.first + i;
}

DEVICE uint32_t slot_index_of(const struct sample_args &args, const struct step_output *output)
{
    const struct cuda_step *step = args.rows.step;
    uint32_t slot = step->seqs[step->rows[output->row].seq].sampling_slot;
    if (slot >= args.slots.n_slots)
        trap();
    return slot;
}

/* Four neighbours of a row of logits; -inf past its end. */
DEVICE void load_logits(float out[4], const float *row, uint32_t token, uint32_t end)
{
    if (token + 4 <= end) {
        act_load_4(out, row + token);
        return;
    }
    for (uint32_t j = 0; j < 4; j++)
        out[j] = token + j < end ? row[token + j] : -INFINITY;
}

/* Whether this block is the last of the row: it then sees what the others wrote before. is_last: shared. */
DEVICE bool arrive(const struct sample_place *place, uint32_t *is_last)
{
    barrier();
    if (thread_x() == 0) {
        fence_device(); /* one thread's, behind the barrier, counts for all: causality is transitive */
        *is_last = atomic_add_u32(&place->row->n_arrived, 1) == place->n_slices - 1;
        if (*is_last)
            place->row->n_arrived = 0;
        fence_device();
    }
    barrier();
    return *is_last != 0;
}

/* The draw is made: into the result and the slot. By one thread. */
DEVICE void finish_token(const struct sample_args &args, const struct sample_place *place, uint32_t token)
{
    struct step_result *result = result_of(args, place->i);
    result->n_tokens = 1;
    result->token_ids[0] = token;
    place->row->token = token;
    place->row->state = SAMPLE_DONE;
    uint32_t index = slot_index_of(args, place->output);
    struct cuda_slot *slot = args.slots.slots + index;
    slot->tail[slot->n_output % CUDA_SLOT_TAIL] = token;
    slot->n_output++;
    slot->last_token = token;
    if (slot->flags & CUDA_SLOT_COUNTS)
        args.slots.counts[(size_t)index * args.slots.vocab_size + token]++;
}
