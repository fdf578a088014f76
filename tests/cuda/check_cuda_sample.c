/* CUDA sampling against the CPU's sampler: several steps of one slot each, on the same logits. Tokens, ranks
 * and statuses must be the same; log-probabilities as near as f32 lets them be. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "tests/cuda/check_cuda.h"

enum {
    STEPS = 3,
    SLOTS_MAX = 24, /* one a row */
    HISTORY = 200,
    PROMPT_MAX = 60,
    OUTPUT_MAX = 70,
    LIST_MAX = 12,
    FIXED_VALUES =
        7, /* of a result: status, tokens, token, chosen token and log-probability, rank, alternatives */
    RESULT_VALUES = FIXED_VALUES + 2 * STEP_LOGPROBS_MAX,
};

/* A slot and what is asked of it. */
struct sample_request {
    struct sampler_params params;
    struct sampler_history history;
    uint32_t prompt[PROMPT_MAX], output[OUTPUT_MAX];
    uint32_t stop_ids[LIST_MAX];
    struct sampler_bias bias[LIST_MAX];
    struct sampler_word words[LIST_MAX];
    uint32_t word_ids[LIST_MAX][3];
    uint32_t position;
    struct step_output outputs[STEPS];
    int32_t masks[STEPS]; /* index, -1 = none */
};

struct sample_case {
    uint32_t vocab_size, mask_words, stride;
    float *logits;         /* [rows][STEPS][vocab_size] */
    uint32_t *masks;       /* [rows * STEPS][mask_words] */
    uint32_t *allowed_ids; /* [rows][vocab_size] */
    struct sample_request requests[SLOTS_MAX];
};

static uint32_t draw_vocab(struct cuda_case *c)
{
    static const uint32_t sizes[] = {4096, 8192, 8195, 32000, 128256, 262144};
    switch (rng_below(&c->rng, c->quick ? 4 : 3)) {
    case 0:
        return rng_between(&c->rng, 1, 70);
    case 1:
        return rng_between(&c->rng, 71, 5000);
    case 2:
        return sizes[rng_below(&c->rng, 3)];
    default:
        return sizes[rng_below(&c->rng, 6)];
    }
}

/* Normal, flat, or coarse (with ties); -inf here and there; rarely broken. */
static void draw_logits(struct cuda_case *c, float *x, uint32_t n)
{
    float scale = ldexpf(1.0f, (int)rng_below(&c->rng, 7) - 3);
    bool coarse = rng_below(&c->rng, 3) == 0;
    uint32_t infinite_in = rng_below(&c->rng, 3) == 0 ? 10 : 0;
    for (uint32_t i = 0; i < n; i++) {
        float value = rng_normal(&c->rng) * scale;
        x[i] = infinite_in > 0 && rng_below(&c->rng, infinite_in) == 0 ? -INFINITY
               : coarse                                                ? floorf(value)
                                                                       : value;
    }
    uint32_t spoil = rng_below(&c->rng, 40);
    if (spoil < 3)
        x[rng_below(&c->rng, n)] = spoil == 0 ? NAN : INFINITY;
    for (uint32_t i = 0; spoil == 3 && i < n; i++)
        x[i] = -INFINITY;
}

static void draw_lists(struct cuda_case *c, struct sample_case *e, uint32_t row)
{
    struct sample_request *q = &e->requests[row];
    struct sampler_params *p = &q->params;
    uint32_t vocab = e->vocab_size, beyond = vocab + 2;
    p->n_stop_ids = rng_below(&c->rng, LIST_MAX + 1);
    p->stop_ids = q->stop_ids;
    p->min_tokens = rng_below(&c->rng, 2) ? 0 : (uint32_t)q->history.n_output + rng_below(&c->rng, 3);
    p->n_bias = rng_below(&c->rng, 2) ? 0 : rng_below(&c->rng, LIST_MAX + 1);
    p->bias = q->bias;
    p->n_bad_words = rng_below(&c->rng, 2) ? 0 : rng_below(&c->rng, LIST_MAX + 1);
    p->bad_words = q->words;
    for (uint32_t i = 0; i < LIST_MAX; i++) {
        q->stop_ids[i] = rng_below(&c->rng, beyond);
        q->bias[i] = (struct sampler_bias){rng_below(&c->rng, rng_below(&c->rng, 2) ? 3 : beyond),
                                           4 * rng_normal(&c->rng)};
        uint32_t n = rng_below(&c->rng, 4);
        for (uint32_t j = 0; j < n; j++) {
            size_t back = n - 1 - j; /* often what the history ends in, so that the word is forbidden */
            bool follows = back > 0 && back <= q->history.n_output && rng_below(&c->rng, 4) > 0;
            q->word_ids[i][j] = follows ? q->output[q->history.n_output - back] : rng_below(&c->rng, beyond);
        }
        q->words[i] = (struct sampler_word){q->word_ids[i], n};
    }
    uint32_t *allowed = e->allowed_ids + (size_t)row * vocab;
    uint32_t one_in = rng_below(&c->rng, 4) == 0 ? rng_between(&c->rng, 1, 5) : 0;
    for (uint32_t i = 0; one_in > 0 && i < vocab; i++) {
        if (rng_below(&c->rng, one_in) == 0)
            allowed[p->n_allowed_ids++] = i;
    }
    p->allowed_ids = allowed;
}

static void draw_params(struct cuda_case *c, struct sample_request *q, uint32_t vocab)
{
    static const float temperatures[] = {0.0f, 0.9e-5f, 1e-5f, 0.3f, 1.0f, 1.0f, 2.5f},
                       top_ps[] = {1.0f, 1.0f, 0.9f, 0.5f, 0.999f, 1e-6f},
                       min_ps[] = {0.0f, 0.0f, 0.05f, 0.3f, 1.0f};
    const uint32_t top_ks[] = {0, 0, 1, 5, 40, 3000, vocab - 1, vocab, vocab + 7};
    q->params = (struct sampler_params){
        .temperature = temperatures[rng_below(&c->rng, 7)],
        .top_p = top_ps[rng_below(&c->rng, 6)],
        .min_p = min_ps[rng_below(&c->rng, 5)],
        .top_k = top_ks[rng_below(&c->rng, 9)],
        .repetition_penalty = rng_below(&c->rng, 3) ? 1.0f : 1.3f,
        .presence_penalty = rng_below(&c->rng, 3) ? 0.0f : 0.7f,
        .frequency_penalty = rng_below(&c->rng, 3) ? 0.0f : 0.2f,
        .seed = rng_u64(&c->rng),
        .choice_index = rng_below(&c->rng, 3),
    };
    q->history = (struct sampler_history){q->prompt, rng_below(&c->rng, PROMPT_MAX + 1), q->output,
                                          rng_below(&c->rng, 2) ? rng_below(&c->rng, OUTPUT_MAX + 1) : 0};
    for (uint32_t i = 0; i < PROMPT_MAX; i++)
        q->prompt[i] = rng_below(&c->rng, rng_below(&c->rng, 2) ? vocab : vocab / 50 + 1);
    for (uint32_t i = 0; i < OUTPUT_MAX; i++)
        q->output[i] = rng_below(&c->rng, rng_below(&c->rng, 2) ? vocab : vocab / 50 + 1);
    q->position = rng_below(&c->rng, 5000);
}

static void sample_make(struct cuda_case *c)
{
    struct sample_case *e = c->context = check_alloc(c, sizeof *e);
    e->vocab_size = draw_vocab(c);
    c->n_rows = c->n_rows > SLOTS_MAX ? SLOTS_MAX : c->n_rows;
    c->n_rows = e->vocab_size > 10000 && c->n_rows > 4 ? 4 : c->n_rows;
    e->mask_words = (e->vocab_size + 31) / 32;
    e->stride = (uint32_t)round_up(e->vocab_size, 4) + 4 * rng_below(&c->rng, 2);
    e->logits = check_alloc(c, (size_t)c->n_rows * STEPS * e->vocab_size * 4);
    e->masks = check_alloc(c, (size_t)c->n_rows * STEPS * e->mask_words * 4);
    e->allowed_ids = check_alloc(c, (size_t)c->n_rows * e->vocab_size * 4);
    for (uint32_t r = 0; r < c->n_rows; r++) {
        struct sample_request *q = &e->requests[r];
        draw_params(c, q, e->vocab_size);
        draw_lists(c, e, r);
        for (uint32_t s = 0; s < STEPS; s++) {
            draw_logits(c, e->logits + ((size_t)r * STEPS + s) * e->vocab_size, e->vocab_size);
            q->outputs[s].kind = rng_below(&c->rng, 5) == 0 ? STEP_OUTPUT_LOGPROBS : STEP_OUTPUT_SAMPLE;
            q->outputs[s].target = rng_below(&c->rng, e->vocab_size);
            q->outputs[s].n_logprobs = (int32_t)rng_below(&c->rng, STEP_LOGPROBS_MAX + 2) - 1;
            if (rng_below(&c->rng, 3) == 0)
                q->outputs[s].n_logprobs = -1;
            q->masks[s] = rng_below(&c->rng, 4) == 0 ? (int32_t)(r * STEPS + s) : -1;
            uint32_t *mask = e->masks + ((size_t)r * STEPS + s) * e->mask_words;
            for (uint32_t w = 0; w < e->mask_words; w++)
                mask[w] = rng_u32(&c->rng) | rng_u32(&c->rng);
        }
    }
    c->type = CHECK_F32;
    c->row_values = STEPS * RESULT_VALUES;
    c->tolerance = 1e-5f; /* of 1: tokens and ranks must be the same */
    snprintf(c->note, sizeof c->note, "vocabulary %u", e->vocab_size);
}

/* Numbers that a comparison by value can hold: tokens are below 2^24. */
static void flatten(const struct step_result *result, bool has_logprobs, float *out)
{
    memset(out, 0, RESULT_VALUES * sizeof(float));
    out[0] = (float)result->status;
    if (result->status != STEP_RESULT_OK)
        return;
    out[1] = (float)result->n_tokens;
    out[2] = result->n_tokens > 0 ? (float)result->token_ids[0] : 0;
    if (!has_logprobs)
        return;
    out[3] = (float)result->chosen.token_id;
    out[4] = result->chosen.logprob;
    out[5] = (float)result->rank;
    out[6] = (float)result->n_top;
    for (uint32_t i = 0; i < result->n_top; i++) {
        out[FIXED_VALUES + 2 * i] = (float)result->top[i].token_id;
        out[FIXED_VALUES + 2 * i + 1] = result->top[i].logprob;
    }
    for (int i = 0; i < RESULT_VALUES; i++)
        out[i] = isinf(out[i]) ? -1e30f : out[i]; /* a target of no probability */
}

#define MUST(call)                                                                                           \
    do {                                                                                                     \
        err_t must_ = (call);                                                                                \
        ASSERT(must_.code == ERR_OK);                                                                        \
    } while (0)

static void sample_reference(const struct cuda_case *c, uint32_t row, void *out, float *scale)
{
    const struct sample_case *e = c->context;
    const struct sample_request *q = &e->requests[row];
    *scale = 1;
    struct backend *backend;
    struct sampler *sampler;
    struct act *logits;
    MUST(backend_cpu_create(1, "auto", &backend));
    const struct backend_vtable *ops = backend->vtable;
    MUST(ops->sampler_create(backend, 1, e->vocab_size, HISTORY, &sampler));
    MUST(ops->act_create(backend, ACT_LOGITS, 1, e->vocab_size, &logits));
    ops->slot_set(sampler, 0, &q->params, &q->history);
    for (uint32_t s = 0; s < STEPS; s++) {
        struct step_row step_row = {.position = q->position + s};
        struct step_seq seq = {.n_rows = 1};
        struct step_output output = q->outputs[s];
        struct step_result result = {0};
        struct step step = {.n_rows = 1,
                            .n_seqs = 1,
                            .n_outputs = 1,
                            .rows = &step_row,
                            .seqs = &seq,
                            .outputs = &output,
                            .results = &result};
        const uint32_t *mask = q->masks[s] < 0 ? NULL : e->masks + (size_t)q->masks[s] * e->mask_words;
        ops->act_write(logits, 0, 1, e->logits + ((size_t)row * STEPS + s) * e->vocab_size);
        ops->sample(backend, &step, 0, 1, logits, &mask, sampler);
        flatten(&result, output.n_logprobs >= 0, (float *)out + s * RESULT_VALUES);
    }
    ops->sampler_destroy(sampler);
    ops->act_destroy(logits);
    ops->destroy(backend);
}

/* Slots of the rows, the first row's last: rows and slots must not be taken for each other. */
static struct cuda_slots upload_slots(struct cuda_case *c, uint32_t first, uint32_t n)
{
    struct sample_case *e = c->context;
    struct cuda_slots slots = {.n_slots = n, .vocab_size = e->vocab_size, .mask_words = e->mask_words};
    struct cuda_slot *filled = mem_alloc_array(n, sizeof *filled);
    uint32_t *allowed = mem_alloc_array((size_t)n * e->mask_words, 4);
    ASSERT(filled != NULL && allowed != NULL);
    for (uint32_t i = 0; i < n; i++) {
        const struct sample_request *q = &e->requests[first + n - 1 - i];
        size_t bytes = cuda_slot_fill(&filled[i], allowed + (size_t)i * e->mask_words, e->vocab_size,
                                      &q->params, &q->history);
        memset((uint8_t *)&filled[i] + bytes, 0xff, sizeof filled[i] - bytes);
    }
    slots.slots = device_upload(filled, n * sizeof *filled);
    slots.allowed = device_upload(allowed, (size_t)n * e->mask_words * 4);
    slots.counts = device_alloc((size_t)n * e->vocab_size * 4);
    for (uint32_t i = 0; i < n; i++) {
        if (!(filled[i].flags & CUDA_SLOT_COUNTS))
            continue;
        const struct sampler_history *h = &e->requests[first + n - 1 - i].history;
        uint32_t ids[PROMPT_MAX + OUTPUT_MAX];
        memcpy(ids, h->prompt_ids, h->n_prompt * 4);
        memcpy(ids + h->n_prompt, h->output_ids, h->n_output * 4);
        struct slot_counts_args args = {slots, i, device_upload(ids, sizeof ids), (uint32_t)h->n_prompt,
                                        (uint32_t)h->n_output};
        LAUNCH(c, CUDA_KERNEL_slot_counts, 1, 1, SLOT_COUNTS_THREADS, args);
    }
    mem_free(filled);
    mem_free(allowed);
    return slots;
}

/* Scratch must be as it was before the first step. */
static void check_scratch(struct cuda_case *c, const struct sample_row *on_device, uint32_t n)
{
    struct sample_row row;
    for (uint32_t i = 0; i < n; i++) {
        device_read(&row, on_device + i, sizeof row);
        bool clean = row.n_arrived == 0 && row.n_candidates == 0;
        for (int b = 0; b < SAMPLE_BINS; b++)
            clean = clean && row.counts[b] == 0 && row.masses[b] == 0;
        if (!clean)
            check_fail(c, "row %u of the scratch is not left as the next step needs it", i);
    }
}

static void sample_run(struct cuda_case *c, uint32_t first, uint32_t n, void *out)
{
    static const enum cuda_kernel_id kernels[] = {CUDA_KERNEL_sample_scan, CUDA_KERNEL_sample_histogram,
                                                  CUDA_KERNEL_sample_draw, CUDA_KERNEL_sample_logprobs};
    struct sample_case *e = c->context;
    uint32_t before = rng_below(&c->rng, 3),
             capacity = n + rng_below(&c->rng, 3); /* outputs of an earlier pass */
    struct step_row rows[SLOTS_MAX] = {{0}};
    struct step_seq seqs[SLOTS_MAX] = {{0}};
    struct step_output outputs[SLOTS_MAX + 2] = {{0}};
    int32_t mask_of_output[SLOTS_MAX + 2];
    struct step_result results[SLOTS_MAX + 2];
    struct sample_row *scratch = check_alloc(c, capacity * sizeof *scratch);
    float *logits = check_alloc(c, (size_t)capacity * e->stride * 4);
    struct sample_args args = {
        .rows = {.count = CUDA_COUNT_OUTPUTS, .first = before, .max = capacity},
        .slots = upload_slots(c, first, n),
        .logits = device_alloc((size_t)capacity * e->stride * 4),
        .work = device_alloc((size_t)capacity * e->stride * 4),
        .candidates = device_alloc((size_t)capacity * e->stride * 8),
        .stride = e->stride,
        .scratch = device_upload(scratch, capacity * sizeof *scratch),
        .masks = device_upload(e->masks, (size_t)c->n_rows * STEPS * e->mask_words * 4),
    };
    struct step_result *results_on_device = device_alloc((before + n) * sizeof results[0]);
    device_is_late(args.slots.slots);
    device_is_late(args.scratch);
    for (uint32_t s = 0; s < STEPS; s++) {
        for (uint32_t i = 0; i < n; i++) {
            const struct sample_request *q = &e->requests[first + i];
            rows[i] = (struct step_row){.position = q->position + s, .seq = n - 1 - i};
            seqs[n - 1 - i].sampling_slot = n - 1 - i;
            outputs[before + i] = q->outputs[s];
            outputs[before + i].row = i;
            mask_of_output[before + i] = q->masks[s];
            memcpy(logits + (size_t)i * e->stride,
                   e->logits + ((size_t)(first + i) * STEPS + s) * e->vocab_size, e->vocab_size * 4);
        }
        device_write((void *)(uintptr_t)args.logits, logits, (size_t)capacity * e->stride * 4);
        args.mask_of_output = device_upload(mask_of_output, sizeof mask_of_output);
        args.rows.step = step_upload(&(struct check_step){.rows = rows,
                                                          .seqs = seqs,
                                                          .outputs = outputs,
                                                          .n_rows = n,
                                                          .n_seqs = n,
                                                          .n_outputs = before + n},
                                     results_on_device);
        for (int k = 0; k < 4; k++)
            LAUNCH(c, kernels[k], (uint32_t)div_up(e->vocab_size, SAMPLE_SLICE), capacity, SAMPLE_THREADS,
                   args);
        device_read(results, results_on_device, (before + n) * sizeof results[0]);
        for (uint32_t i = 0; i < n; i++)
            flatten(&results[before + i], outputs[before + i].n_logprobs >= 0,
                    (float *)out + ((size_t)i * STEPS + s) * RESULT_VALUES);
    }
    check_scratch(c, args.scratch, capacity);
}

const struct cuda_check check_sample = {sample_make, sample_reference, sample_run};
