/* Sampling state of the CPU backend's slots, and the sampling op. The choice itself: cpu_sample_choice.c. */
#include "kernels/cpu_sampler.h"

#include <math.h>
#include <string.h>
#include "base/alloc.h"
#include "kernels/cpu_memory.h"

/* ---- Memory ---- */

struct sampler_layout {
    size_t max_history, max_counts, index_size;
    size_t slots, scratch, per_slot, per_thread, total;
};

/* Bytes of an array, to a whole cache line. */
static size_t array_bytes(size_t n, size_t size_bytes)
{
    return round_up(n * size_bytes, CPU_MEMORY_ALIGN);
}

static bool sampler_layout(int n_threads, uint32_t n_slots, size_t vocab_size, size_t max_history,
                           struct sampler_layout *layout)
{
    if (vocab_size > UINT32_MAX || max_history > UINT32_MAX)
        return false;
    struct sampler_layout l = {.max_history = max_history + STEP_RESULT_TOKENS_MAX};
    l.max_counts = l.max_history < vocab_size ? l.max_history : vocab_size;
    for (l.index_size = 16; l.index_size < 2 * l.max_counts; l.index_size *= 2) {
    }
    l.slots = array_bytes(n_slots, sizeof(struct sampler_slot));
    l.scratch = array_bytes((size_t)n_threads, sizeof(struct sampler_scratch));
    l.per_slot = array_bytes(l.max_history, sizeof(uint32_t)) +
                 array_bytes(l.max_counts, sizeof(struct token_count)) +
                 array_bytes(l.index_size, sizeof(uint32_t));
    l.per_thread = 2 * array_bytes(vocab_size, sizeof(float)) + array_bytes(vocab_size, sizeof(uint32_t)) +
                   2 * array_bytes(vocab_size, sizeof(uint64_t));
    size_t slots_bytes;
    if (!checked_mul(l.per_slot, n_slots, &slots_bytes) ||
        !checked_add(slots_bytes, l.slots + l.scratch + (size_t)n_threads * l.per_thread, &l.total))
        return false;
    *layout = l;
    return true;
}

size_t cpu_sampler_bytes(const struct backend *backend, uint32_t n_slots, size_t vocab_size,
                         size_t max_history)
{
    struct sampler_layout layout;
    int n_threads = ((const struct cpu_backend *)backend)->n_threads;
    if (!sampler_layout(n_threads, n_slots, vocab_size, max_history, &layout))
        return SIZE_MAX;
    return sizeof(struct sampler) + layout.total;
}

static void *take(char **at, size_t n, size_t size_bytes)
{
    void *part = *at;
    *at += array_bytes(n, size_bytes);
    return part;
}

err_t cpu_sampler_create(struct backend *backend, uint32_t n_slots, size_t vocab_size, size_t max_history,
                         struct sampler **out)
{
    ASSERT(n_slots > 0 && vocab_size > 0);
    *out = NULL;
    struct sampler_layout layout;
    int n_threads = cpu_of(backend)->n_threads;
    bool fits = sampler_layout(n_threads, n_slots, vocab_size, max_history, &layout);
    struct sampler *sampler = mem_alloc(sizeof *sampler);
    char *at = fits && sampler != NULL ? cpu_memory_alloc(layout.total) : NULL;
    if (at == NULL) {
        mem_free(sampler);
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for %u sampling slots of %zu tokens", n_slots,
                       max_history);
    }
    *sampler = (struct sampler){.n_slots = n_slots,
                                .vocab_size = vocab_size,
                                .max_history = layout.max_history,
                                .max_counts = layout.max_counts,
                                .index_size = layout.index_size,
                                .n_threads = n_threads,
                                .memory = at};
    sampler->slots = take(&at, n_slots, sizeof(struct sampler_slot));
    sampler->scratch = take(&at, (size_t)n_threads, sizeof(struct sampler_scratch));
    for (uint32_t i = 0; i < n_slots; i++) {
        struct sampler_slot *slot = &sampler->slots[i];
        slot->output_ids = take(&at, layout.max_history, sizeof(uint32_t));
        slot->counts = take(&at, layout.max_counts, sizeof(struct token_count));
        slot->index = take(&at, layout.index_size, sizeof(uint32_t));
    }
    for (int i = 0; i < n_threads; i++) {
        struct sampler_scratch *scratch = &sampler->scratch[i];
        scratch->values = take(&at, vocab_size, sizeof(float));
        scratch->ids = take(&at, vocab_size, sizeof(uint32_t));
        scratch->heap = take(&at, vocab_size, sizeof(uint64_t));
        scratch->popped = take(&at, vocab_size, sizeof(uint64_t));
        scratch->copy = take(&at, vocab_size, sizeof(float));
    }
    ASSERT(at == (char *)sampler->memory + layout.total);
    *out = sampler;
    return err_ok();
}

void cpu_sampler_destroy(struct sampler *sampler)
{
    if (sampler == NULL)
        return;
    cpu_memory_free(sampler->memory);
    mem_free(sampler);
}

/* ---- History ---- */

static struct token_count *count_find(const struct sampler *sampler, struct sampler_slot *slot,
                                      uint32_t token_id)
{
    size_t mask = sampler->index_size - 1;
    size_t at = (token_id * 0x9e3779b1u) & mask;
    while (slot->index[at] != 0) {
        struct token_count *count = &slot->counts[slot->index[at] - 1];
        if (count->token_id == token_id)
            return count;
        at = (at + 1) & mask;
    }
    ASSERT(slot->n_counts < sampler->max_counts);
    struct token_count *count = &slot->counts[slot->n_counts++];
    *count = (struct token_count){.token_id = token_id};
    slot->index[at] = (uint32_t)slot->n_counts;
    return count;
}

void sampler_slot_append(const struct sampler *sampler, struct sampler_slot *slot, uint32_t token_id)
{
    ASSERT(slot->n_output < sampler->max_history);
    slot->output_ids[slot->n_output++] = token_id;
    slot->last_token = token_id;
    if (slot->counts_tokens)
        count_find(sampler, slot, token_id)->n_output++;
}

void cpu_slot_set(struct sampler *sampler, uint32_t slot_index, const struct sampler_params *params,
                  const struct sampler_history *history)
{
    ASSERT(slot_index < sampler->n_slots);
    ASSERT(history->n_prompt + history->n_output <= sampler->max_history);
    struct sampler_slot *slot = &sampler->slots[slot_index];
    if (slot->n_counts > 0)
        memset(slot->index, 0, sampler->index_size * sizeof slot->index[0]);
    slot->params = *params;
    slot->is_set = true;
    slot->counts_tokens =
        params->repetition_penalty != 1 || params->presence_penalty != 0 || params->frequency_penalty != 0;
    slot->n_counts = 0;
    slot->n_output = 0;
    slot->last_token = history->n_prompt > 0 ? history->prompt_ids[history->n_prompt - 1] : 0;
    for (size_t i = 0; slot->counts_tokens && i < history->n_prompt; i++) {
        ASSERT(history->prompt_ids[i] < sampler->vocab_size);
        (void)count_find(sampler, slot, history->prompt_ids[i]);
    }
    for (size_t i = 0; i < history->n_output; i++) {
        ASSERT(history->output_ids[i] < sampler->vocab_size);
        sampler_slot_append(sampler, slot, history->output_ids[i]);
    }
}

uint32_t cpu_slot_last_token(const struct sampler *sampler, uint32_t slot)
{
    ASSERT(sampler != NULL && slot < sampler->n_slots && sampler->slots[slot].is_set);
    return sampler->slots[slot].last_token;
}

/* ---- Transformations, in the order of sampler.h. Ids past the vocabulary name nothing. ---- */

static void apply_mask(float *x, size_t n, const uint32_t *mask)
{
    for (size_t i = 0; i < n; i++) {
        if (!(mask[i / 32] >> i % 32 & 1))
            x[i] = -INFINITY;
    }
}

static void apply_allowed(float *x, size_t n, const uint32_t *ids, size_t n_ids)
{
    size_t next = 0; /* first token not yet decided */
    for (size_t i = 0; i < n_ids && ids[i] < n; i++) {
        for (; next < ids[i]; next++)
            x[next] = -INFINITY;
        next = (size_t)ids[i] + 1;
    }
    for (; next < n; next++)
        x[next] = -INFINITY;
}

static void forbid(float *x, size_t n, uint32_t token_id)
{
    if (token_id < n)
        x[token_id] = -INFINITY;
}

/* As in vLLM, the tokens before the last must be the latest outputs; the prompt does not count. */
static void apply_bad_words(float *x, size_t n, const struct sampler_slot *slot)
{
    for (size_t i = 0; i < slot->params.n_bad_words; i++) {
        const struct sampler_word *word = &slot->params.bad_words[i];
        if (word->n_token_ids == 0 || word->n_token_ids - 1 > slot->n_output)
            continue;
        size_t before = word->n_token_ids - 1;
        if (before == 0 || memcmp(slot->output_ids + slot->n_output - before, word->token_ids,
                                  before * sizeof word->token_ids[0]) == 0)
            forbid(x, n, word->token_ids[before]);
    }
}

static void apply_penalties(float *x, const struct sampler_slot *slot)
{
    const struct sampler_params *p = &slot->params;
    for (size_t i = 0; i < slot->n_counts; i++) {
        const struct token_count *count = &slot->counts[i];
        float logit = x[count->token_id];
        if (p->repetition_penalty != 1)
            logit = logit > 0 ? logit / p->repetition_penalty : logit * p->repetition_penalty;
        if (count->n_output > 0) {
            logit -= p->frequency_penalty * (float)count->n_output;
            logit -= p->presence_penalty;
        }
        x[count->token_id] = logit;
    }
}

static bool has_transformations(const struct sampler_slot *slot, const uint32_t *mask)
{
    const struct sampler_params *p = &slot->params;
    return mask != NULL || p->n_allowed_ids > 0 || p->n_bad_words > 0 ||
           (slot->n_output < p->min_tokens && p->n_stop_ids > 0) || p->n_bias > 0 || slot->counts_tokens;
}

static void transform(float *x, size_t n, const struct sampler_slot *slot, const uint32_t *mask)
{
    const struct sampler_params *p = &slot->params;
    if (mask != NULL)
        apply_mask(x, n, mask);
    if (p->n_allowed_ids > 0)
        apply_allowed(x, n, p->allowed_ids, p->n_allowed_ids);
    apply_bad_words(x, n, slot);
    for (size_t i = 0; slot->n_output < p->min_tokens && i < p->n_stop_ids; i++)
        forbid(x, n, p->stop_ids[i]);
    for (size_t i = 0; i < p->n_bias; i++) {
        if (p->bias[i].token_id < n)
            x[p->bias[i].token_id] += p->bias[i].bias;
    }
    if (slot->counts_tokens)
        apply_penalties(x, slot);
}

/* ---- The op ---- */

struct sample_job {
    const struct kernel_table *table;
    struct step *step;
    uint32_t first_output, n;
    struct act *logits;
    const uint32_t *const *masks;
    struct sampler *sampler;
};

static void sample_token(const struct sample_job *job, struct sampler_scratch *scratch, float *x,
                         const struct step_output *output, const uint32_t *mask, struct logits_stats raw,
                         struct step_result *result)
{
    const struct step_row *row = &job->step->rows[output->row];
    struct sampler *sampler = job->sampler;
    uint32_t slot_index = job->step->seqs[row->seq].sampling_slot;
    ASSERT(slot_index < sampler->n_slots && sampler->slots[slot_index].is_set);
    struct sampler_slot *slot = &sampler->slots[slot_index];
    size_t n = sampler->vocab_size;
    float *work = x;
    struct logits_stats stats = raw;
    bool transforms = has_transformations(slot, mask);
    bool greedy = slot->params.temperature < SAMPLER_GREEDY_BELOW;
    if (output->n_logprobs >= 0 && (transforms || !greedy)) {
        work = scratch->copy;
        memcpy(work, x, n * sizeof(float));
    }
    if (transforms) {
        transform(work, n, slot, mask);
        stats = job->table->logits_stats(work, n);
    }
    if (stats.is_malformed || stats.max == -INFINITY) {
        result->status = stats.is_malformed ? STEP_RESULT_NOT_FINITE : STEP_RESULT_FORBIDDEN;
        return;
    }
    uint32_t token = stats.argmax;
    if (!greedy)
        token = sampler_draw(job->table, scratch, work, n, stats.max, &slot->params, row->position + 1);
    if (output->n_logprobs >= 0)
        sampler_logprobs(job->table, scratch, x, n, raw.max, token, (uint32_t)output->n_logprobs, result);
    result->n_tokens = 1;
    result->token_ids[0] = token;
    sampler_slot_append(sampler, slot, token);
}

static void sample_output(const struct sample_job *job, struct sampler_scratch *scratch, uint32_t i)
{
    const struct step_output *output = &job->step->outputs[job->first_output + i];
    struct step_result *result = &job->step->results[job->first_output + i];
    size_t n = job->sampler->vocab_size;
    float *x = act_row(job->logits, i);
    ASSERT(output->row < job->step->n_rows && output->n_logprobs <= STEP_LOGPROBS_MAX);
    *result = (struct step_result){.status = STEP_RESULT_OK};
    struct logits_stats raw = job->table->logits_stats(x, n);
    scratch->dispatches[KERNEL_logits_stats]++;
    if (raw.is_malformed || raw.max == -INFINITY) {
        result->status = STEP_RESULT_NOT_FINITE;
        return;
    }
    if (output->kind == STEP_OUTPUT_SAMPLE) {
        sample_token(job, scratch, x, output, job->masks == NULL ? NULL : job->masks[i], raw, result);
    } else if (output->n_logprobs >= 0) {
        ASSERT(output->target < n);
        sampler_logprobs(job->table, scratch, x, n, raw.max, output->target, (uint32_t)output->n_logprobs,
                         result);
    }
}

static void sample_outputs(void *context, int thread_index, int n_threads)
{
    const struct sample_job *job = context;
    size_t begin, end;
    thread_split(job->n, 1, thread_index, n_threads, &begin, &end);
    for (size_t i = begin; i < end; i++)
        sample_output(job, &job->sampler->scratch[thread_index], (uint32_t)i);
}

void cpu_sample(struct backend *backend, struct step *step, uint32_t first_output, uint32_t n,
                struct act *logits, const uint32_t *const *masks, struct sampler *sampler)
{
    ASSERT(first_output <= step->n_outputs && n <= step->n_outputs - first_output);
    ASSERT(logits->width == sampler->vocab_size && n <= logits->max_rows);
    struct cpu_backend *cpu = cpu_of(backend);
    ASSERT(cpu->n_threads == sampler->n_threads);
    struct sample_job job = {&cpu->table, step, first_output, n, logits, masks, sampler};
    logits->n_quantized = 0;
    cpu_run(cpu, n > 1, sample_outputs, &job);
    for (int t = 0; t < sampler->n_threads; t++) {
        for (int k = 0; k < KERNEL_COUNT; k++) {
            cpu->dispatches[k] += sampler->scratch[t].dispatches[k];
            sampler->scratch[t].dispatches[k] = 0;
        }
    }
}
