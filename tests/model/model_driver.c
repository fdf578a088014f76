#include "tests/model/model_driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "base/checked.h"

const char *const driver_checkpoints[] = {"llama-gqa",         "llama-tied-llama3-rope",
                                          "llama-mha-sharded", "llama-head-dim-linear-rope",
                                          "qwen2-gqa-tied",    "qwen2-window",
                                          "gemma3-windows",    "gemma3-linear-rope",
                                          "gemma2-soft-caps",  NULL};

const char *const driver_quantized_checkpoints[] = {
    "awq-g32",         "awq-g128",          "gptq-sym-g32",      "gptq-sym-stored-half",
    "gptq-asym-g64",   "gptq-v2-act-order", "gptq-int8-channel", "packed-sym-g64",
    "packed-asym-g32", "packed-channel",    "packed-int8-asym",  "w8a8",
    "e4m3-channel",    "e4m3-tensor",       "e4m3-block",        NULL};

const char *driver_device(void)
{
    return getenv("BANTAM_TEST_DEVICE");
}

struct model_options driver_options(const char *directory, uint32_t n_slots, uint32_t max_len)
{
    /* A library's products from so many rows on; unset: none. */
    const char *library_rows = getenv("BANTAM_TEST_LIBRARY_ROWS");
    return (struct model_options){.batch_variant = library_rows != NULL,
                                  .library_rows_min =
                                      library_rows ? (uint32_t)strtoul(library_rows, NULL, 10) : 0,
                                  .directory = directory,
                                  .max_model_len = max_len,
                                  .max_num_seqs = n_slots,
                                  .max_num_batched_tokens = 128,
                                  .num_kv_blocks = n_slots * (uint32_t)div_up(max_len, MODEL_BLOCK_TOKENS),
                                  .device = driver_device(),
                                  .n_threads = 2};
}

struct driver driver_open(const struct model_options *options)
{
    struct driver driver = {0};
    err_t e = model_load(options, NULL, &driver.model);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    e = model_step_create(driver.model, &driver.step);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
    driver.blocks_per_slot = driver.step->capacity.blocks_per_seq;
    return driver;
}

void driver_close(struct driver *driver)
{
    model_step_destroy(driver->model, driver->step);
    model_destroy(driver->model);
}

void driver_reset_slot(struct driver *driver, uint32_t slot)
{
    const struct sampler_params params = {.top_p = 1.0f, .repetition_penalty = 1.0f};
    const struct sampler_history history = {0};
    model_slot_set(driver->model, slot, &params, &history);
}

void driver_begin(struct driver *driver)
{
    driver->step->id++;
    driver->step->n_rows = driver->step->n_seqs = driver->step->n_outputs = driver->step->n_copies = 0;
}

uint32_t driver_add(struct driver *driver, uint32_t slot, const uint32_t *tokens, uint32_t first, uint32_t n)
{
    struct step *step = driver->step;
    assert_true(step->n_rows + n <= step->capacity.rows && step->n_seqs < step->capacity.seqs);
    uint32_t seq = step->n_seqs++, first_row = step->n_rows;
    step->seqs[seq] = (struct step_seq){.first_row = first_row,
                                        .n_rows = n,
                                        .n_context = first + n,
                                        .sampling_slot = slot,
                                        .adapter_slot = STEP_NO_SLOT};
    uint32_t *table = step_block_table(step, 0, seq);
    for (uint32_t b = 0; b < driver->blocks_per_slot; b++) {
        /* Neighbours in the sequence are no neighbours in memory. */
        uint32_t scattered = b % 2 == 0 ? b : driver->blocks_per_slot - driver->blocks_per_slot % 2 - b;
        table[b] = slot * driver->blocks_per_slot + scattered;
    }
    for (uint32_t i = 0; i < n; i++)
        step->rows[step->n_rows++] = (struct step_row){.token = tokens ? tokens[first + i] : 0,
                                                       .position = first + i,
                                                       .seq = seq,
                                                       .flags = tokens ? 0 : STEP_ROW_TOKEN_FROM_SLOT};
    return first_row;
}

uint32_t driver_want(struct driver *driver, uint32_t row, enum step_output_kind kind, uint32_t target,
                     int32_t n_logprobs)
{
    struct step *step = driver->step;
    assert_true(step->n_outputs < step->capacity.outputs);
    step->outputs[step->n_outputs] =
        (struct step_output){.row = row, .kind = kind, .target = target, .n_logprobs = n_logprobs};
    return step->n_outputs++;
}

void driver_run_masked(struct driver *driver, const uint32_t *const *masks)
{
    err_t e = model_forward(driver->model, driver->step);
    if (e.code == ERR_OK)
        e = model_sample(driver->model, driver->step, masks);
    if (e.code == ERR_OK)
        e = model_collect(driver->model, driver->step);
    if (e.code != ERR_OK)
        fail_msg("%s", e.message);
}

void driver_run(struct driver *driver)
{
    driver_run_masked(driver, NULL);
}

const struct step_result *driver_result(const struct driver *driver, uint32_t output)
{
    assert_true(output < driver->step->n_outputs);
    const struct step_result *result = &driver->step->results[output];
    assert_int_equal(result->status, STEP_RESULT_OK);
    return result;
}
