/* Sampling state of the CUDA backend's slots, which lives on the device, and the sampling op. A slot is
 * filled in pinned memory of its own and uploaded in stream order: nothing waits, since a slot is set again
 * only after every step that named it was collected. */
#include <string.h>
#include "base/alloc.h"
#include "kernels/cuda/cuda_backend.h"

static size_t mask_words(size_t vocab_size)
{
    return div_up(vocab_size, 32);
}

/* Of a slot's pinned memory. */
struct slot_layout {
    size_t allowed, ids, total;
};

static struct slot_layout slot_layout(size_t vocab_size, size_t max_history)
{
    struct slot_layout layout = {.allowed = cuda_bytes(1, sizeof(struct cuda_slot))};
    layout.ids = layout.allowed + cuda_bytes(mask_words(vocab_size), sizeof(uint32_t));
    layout.total = layout.ids + cuda_bytes(max_history, sizeof(uint32_t));
    return layout;
}

size_t cuda_sampler_bytes(const struct backend *backend, uint32_t n_slots, size_t vocab_size,
                          size_t max_history)
{
    (void)backend, (void)max_history;
    if (vocab_size > UINT32_MAX)
        return SIZE_MAX;
    return cuda_bytes(n_slots, sizeof(struct cuda_slot)) +
           cuda_bytes(n_slots * mask_words(vocab_size), sizeof(uint32_t)) +
           cuda_bytes(n_slots * vocab_size, sizeof(uint32_t));
}

static err_t take_memory(struct cuda_backend *cuda, struct sampler *sampler)
{
    struct cuda_slots *slots = &sampler->slots;
    void *memory, *allowed, *counts, *pinned;
    TRY(cuda_take(cuda, slots->n_slots, sizeof(struct cuda_slot), "sampling slots", &memory));
    TRY(cuda_take(cuda, (size_t)slots->n_slots * slots->mask_words, sizeof(uint32_t), "sampling slots",
                  &allowed));
    TRY(cuda_take(cuda, (size_t)slots->n_slots * slots->vocab_size, sizeof(uint32_t), "sampling slots",
                  &counts));
    TRY(cuda->api->host_alloc(cuda->device, slots->n_slots * sampler->pinned_per_slot, &pinned));
    slots->slots = memory;
    slots->allowed = allowed;
    slots->counts = counts;
    sampler->pinned = pinned;
    return err_ok();
}

err_t cuda_sampler_create(struct backend *backend, uint32_t n_slots, size_t vocab_size, size_t max_history,
                          struct sampler **out)
{
    ASSERT(n_slots > 0 && vocab_size > 0);
    struct cuda_backend *cuda = cuda_of(backend);
    *out = NULL;
    if (vocab_size > SAMPLE_VOCAB_MAX)
        return err_new(ERR_UNIMPLEMENTED, "a vocabulary of %zu exceeds the CUDA backend's %d", vocab_size,
                       SAMPLE_VOCAB_MAX);
    struct sampler *sampler = mem_alloc(sizeof *sampler);
    bool *is_set = mem_alloc_array(n_slots, sizeof *is_set);
    err_t e = err_ok();
    if (sampler == NULL || is_set == NULL) {
        mem_free(sampler);
        mem_free(is_set);
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for %u sampling slots", n_slots);
    }
    *sampler = (struct sampler){
        .cuda = cuda,
        .slots = {.n_slots = n_slots,
                  .vocab_size = (uint32_t)vocab_size,
                  .mask_words = (uint32_t)mask_words(vocab_size)},
        .max_history = max_history + STEP_RESULT_TOKENS_MAX,
        .is_set = is_set,
    };
    sampler->pinned_per_slot = slot_layout(vocab_size, sampler->max_history).total;
    e = take_memory(cuda, sampler);
    if (e.code != ERR_OK) {
        cuda_sampler_destroy(sampler);
        return e;
    }
    *out = sampler;
    return e;
}

void cuda_sampler_destroy(struct sampler *sampler)
{
    if (sampler == NULL)
        return;
    if (sampler->pinned != NULL)
        sampler->cuda->api->host_free(sampler->cuda->device, sampler->pinned);
    mem_free(sampler->is_set);
    mem_free(sampler);
}

/* The counts of the slot's tokens, made on the device from the history. */
static void count_history(struct sampler *sampler, uint32_t slot_index, const struct sampler_history *history,
                          uint32_t *pinned_ids)
{
    struct cuda_backend *cuda = sampler->cuda;
    size_t n = history->n_prompt + history->n_output;
    if (history->n_prompt > 0)
        memcpy(pinned_ids, history->prompt_ids, history->n_prompt * sizeof(uint32_t));
    if (history->n_output > 0)
        memcpy(pinned_ids + history->n_prompt, history->output_ids, history->n_output * sizeof(uint32_t));
    if (n > 0 && !CUDA_STEP(cuda, cuda->api->copy_to_device(cuda->device, cuda->stream, cuda->scratch.history,
                                                            pinned_ids, n * sizeof(uint32_t))))
        return;
    struct slot_counts_args args = {
        .slots = sampler->slots,
        .slot = slot_index,
        .ids = cuda->scratch.history,
        .n_prompt = (uint32_t)history->n_prompt,
        .n_output = (uint32_t)history->n_output,
    };
    CUDA_LAUNCH(cuda, slot_counts, 1, 1, SLOT_COUNTS_THREADS, args);
}

void cuda_slot_set(struct sampler *sampler, uint32_t slot_index, const struct sampler_params *params,
                   const struct sampler_history *history)
{
    struct cuda_backend *cuda = sampler->cuda;
    struct cuda_slots *slots = &sampler->slots;
    ASSERT(slot_index < slots->n_slots);
    ASSERT(history->n_prompt + history->n_output <= sampler->max_history);
    ASSERT(cuda_history_max(&cuda->needs) >= history->n_prompt + history->n_output);
    struct slot_layout layout = slot_layout(slots->vocab_size, sampler->max_history);
    uint8_t *pinned = sampler->pinned + slot_index * sampler->pinned_per_slot;
    struct cuda_slot *slot = (struct cuda_slot *)pinned;
    uint32_t *allowed = (uint32_t *)(pinned + layout.allowed);
    size_t bytes = cuda_slot_fill(slot, allowed, slots->vocab_size, params, history);
    sampler->is_set[slot_index] = true;
    if (!CUDA_STEP(cuda, cuda->api->copy_to_device(cuda->device, cuda->stream, &slots->slots[slot_index],
                                                   slot, bytes)))
        return;
    if ((slot->flags & CUDA_SLOT_ALLOWED) &&
        !CUDA_STEP(cuda, cuda->api->copy_to_device(cuda->device, cuda->stream,
                                                   slots->allowed + (size_t)slot_index * slots->mask_words,
                                                   allowed, slots->mask_words * sizeof(uint32_t))))
        return;
    if (slot->flags & CUDA_SLOT_COUNTS)
        count_history(sampler, slot_index, history, (uint32_t *)(pinned + layout.ids));
}

/* The masks went up in sample_begin. */
void cuda_sample(struct backend *backend, struct step *step, uint32_t first_output, uint32_t n,
                 struct act *logits, const uint32_t *const *masks, struct sampler *sampler)
{
    (void)masks;
    struct cuda_backend *cuda = cuda_of(backend);
    ASSERT(first_output <= step->n_outputs && n <= step->n_outputs - first_output);
    ASSERT(logits->width == sampler->slots.vocab_size && n <= logits->max_rows && logits->f32);
    ASSERT(logits->max_rows <= cuda->needs.logits_rows && logits->width <= cuda->needs.vocab_size);
    for (uint32_t i = first_output; i < first_output + n; i++) {
        const struct step_output *output = &step->outputs[i];
        ASSERT(output->row < step->n_rows && output->n_logprobs <= STEP_LOGPROBS_MAX);
        if (output->kind != STEP_OUTPUT_SAMPLE) {
            ASSERT(output->n_logprobs < 0 || output->target < sampler->slots.vocab_size);
            continue;
        }
        uint32_t slot = step->seqs[step->rows[output->row].seq].sampling_slot;
        ASSERT(slot < sampler->slots.n_slots && sampler->is_set[slot]);
    }
    struct sample_args args = {
        .rows = cuda_output_rows(cuda, first_output, n),
        .slots = sampler->slots,
        .logits = logits->data,
        .stride = logits->stride,
        .work = cuda->scratch.sample_work,
        .candidates = cuda->scratch.sample_candidates,
        .scratch = cuda->scratch.sample_rows,
        .masks = cuda->scratch.masks,
        .mask_of_output = cuda->with_masks ? cuda->scratch.mask_of_output : NULL,
    };
    size_t slices = div_up(sampler->slots.vocab_size, SAMPLE_SLICE);
    CUDA_LAUNCH(cuda, sample_scan, slices, args.rows.max, SAMPLE_THREADS, args);
    CUDA_LAUNCH(cuda, sample_histogram, slices, args.rows.max, SAMPLE_THREADS, args);
    CUDA_LAUNCH(cuda, sample_draw, slices, args.rows.max, SAMPLE_THREADS, args);
    CUDA_LAUNCH(cuda, sample_logprobs, slices, args.rows.max, SAMPLE_THREADS, args);
}
