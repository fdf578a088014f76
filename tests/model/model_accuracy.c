#include "tests/model/model_accuracy.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>
#include "kernels/cpu_backend.h"
#include "model/model_internal.h"

enum { ALONE_MAX = 20 };

/* ---- The same weights in f32 ---- */

static void f32_row(const void *context, size_t row, float *out)
{
    cpu_weight_read_row(context, row, 1.0f, out);
}

static void widen_weight(struct backend *backend, struct weight **weight)
{
    struct weight *narrow = *weight;
    struct weight_desc desc = {.name = "f32",
                               .n_out = narrow->n_out,
                               .n_in = narrow->n_in,
                               .format = WEIGHT_F32,
                               .row = f32_row,
                               .row_context = narrow,
                               .bias = narrow->sections[0].bias};
    err_t e = backend->vtable->weight_pack(backend, &desc, weight);
    assert_int_equal(e.code, ERR_OK);
    backend->vtable->weight_destroy(narrow);
}

void model_widen(struct model *model)
{
    struct model_rank *rank = &model->ranks[0];
    bool is_tied = rank->lm_head == rank->embedding;
    for (uint32_t i = 0; i < rank->config.n_layers; i++) {
        struct layer *layer = &rank->layers[i];
        widen_weight(rank->backend, &layer->qkv);
        widen_weight(rank->backend, &layer->o);
        widen_weight(rank->backend, &layer->gate_up);
        widen_weight(rank->backend, &layer->down);
    }
    widen_weight(rank->backend, &rank->lm_head);
    if (is_tied)
        rank->embedding = rank->lm_head;
    cpu_of(rank->backend)->table.arithmetic = ARITHMETIC_PLAIN; /* attention */
}

/* ---- Logits ---- */

static uint32_t token_at(const struct driver *driver, uint32_t i)
{
    return (i * 37 + i * i * 11 + 5) % driver->model->config.vocab_size;
}

/* After the last of n_tokens, which come `chunk` at a time. Returns their number. */
static uint32_t run_prompt(struct driver *driver, uint32_t n_tokens, uint32_t chunk,
                           float logits[ACCURACY_VOCAB_MAX])
{
    struct model *model = driver->model;
    struct model_rank *rank = &model->ranks[0];
    const struct backend_vtable *op = rank->backend->vtable;
    uint32_t tokens[ACCURACY_PROMPT_MAX];
    assert_true(n_tokens <= ACCURACY_PROMPT_MAX && model->config.vocab_size <= ACCURACY_VOCAB_MAX);
    for (uint32_t i = 0; i < n_tokens; i++)
        tokens[i] = token_at(driver, i);
    for (uint32_t first = 0, n; first < n_tokens; first += n) {
        n = n_tokens - first < chunk ? n_tokens - first : chunk;
        driver_begin(driver);
        uint32_t row = driver_add(driver, 0, tokens, first, n);
        driver_want(driver, row + n - 1, STEP_OUTPUT_SAMPLE, 0, 0);
        assert_int_equal(model_forward(model, driver->step).code, ERR_OK);
        rank_gather_hidden(rank, driver->step, 0, 1);
        op->logits(rank->backend, driver->step, 0, 1, rank->acts.output_hidden, rank->lm_head,
                   rank->config.final_soft_cap, rank->acts.logits);
        op->act_read(rank->acts.logits, 0, 1, logits);
        assert_int_equal(model_collect(model, driver->step).code, ERR_OK);
    }
    return model->config.vocab_size;
}

double accuracy_of_logits(struct driver *driver, struct driver *wide)
{
    static float want[ACCURACY_VOCAB_MAX], got[ACCURACY_VOCAB_MAX], alone[ACCURACY_VOCAB_MAX];
    double error = 0, size = 0; /* sums of squares: of what logits are off by, of the logits */
    for (uint32_t n = 5; n <= ACCURACY_PROMPT_MAX; n += 11) {
        run_prompt(wide, n, ACCURACY_PROMPT_MAX, want);
        uint32_t n_logits = run_prompt(driver, n, ACCURACY_PROMPT_MAX, got);
        for (uint32_t i = 0; i < n_logits; i++) {
            error += ((double)got[i] - (double)want[i]) * ((double)got[i] - (double)want[i]);
            size += (double)want[i] * (double)want[i];
        }
        if (n > ALONE_MAX)
            continue;
        run_prompt(driver, n, 1, alone);
        assert_memory_equal(alone, got, n_logits * sizeof *got);
    }
    return sqrt(error / size);
}

/* ---- Text ---- */

double accuracy_of_text(struct driver *driver, const uint32_t *ids, uint32_t n)
{
    enum { CHUNK = 128 }; /* driver_options: tokens of a step */
    double sum = 0;
    driver_reset_slot(driver, 0);
    for (uint32_t first = 0; first < n; first += CHUNK) {
        uint32_t outputs[CHUNK], n_rows = n - first < CHUNK ? n - first : CHUNK;
        uint32_t n_wanted = first + n_rows == n ? n_rows - 1 : n_rows;
        driver_begin(driver);
        uint32_t row = driver_add(driver, 0, ids, first, n_rows);
        for (uint32_t i = 0; i < n_wanted; i++)
            outputs[i] = driver_want(driver, row + i, STEP_OUTPUT_LOGPROBS, ids[first + i + 1], 0);
        driver_run(driver);
        for (uint32_t i = 0; i < n_wanted; i++)
            sum -= (double)driver_result(driver, outputs[i])->chosen.logprob;
    }
    return sum;
}
