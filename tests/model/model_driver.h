/* Drives a model step by step without an engine: what a test of the forward pass needs and no more. Blocks
 * are handed out statically: slot s owns blocks s * blocks_per_slot and on, in a scattered order. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "model/model.h"

struct driver {
    struct model *model;
    struct step *step;
    uint32_t blocks_per_slot;
};

/* The device of BANTAM_TEST_DEVICE, NULL = the CPU. */
const char *driver_device(void);
/* Options for a checkpoint of tests/parity/checkpoints; room for n_slots sequences of max_len tokens. */
struct model_options driver_options(const char *directory, uint32_t n_slots, uint32_t max_len);
/* Fails the test on an error. */
struct driver driver_open(const struct model_options *options);
void driver_close(struct driver *driver);

/* Greedy sampling state for a slot, with nothing drawn yet. */
void driver_reset_slot(struct driver *driver, uint32_t slot);

/* A step is begin, any number of adds and wants (in the order of rows), run. */
void driver_begin(struct driver *driver);
/* Adds tokens [first, first + n) of a sequence; tokens NULL: one token, the last that the slot drew. Returns
 * the first row. */
uint32_t driver_add(struct driver *driver, uint32_t slot, const uint32_t *tokens, uint32_t first, uint32_t n);
/* Returns the output's index. */
uint32_t driver_want(struct driver *driver, uint32_t row, enum step_output_kind kind, uint32_t target,
                     int32_t n_logprobs);
void driver_run(struct driver *driver);
void driver_run_masked(struct driver *driver, const uint32_t *const *masks);
const struct step_result *driver_result(const struct driver *driver, uint32_t output);

/* Names of the checkpoints in tests/parity/checkpoints and tests/parity/quantized, NULL at the end. */
extern const char *const driver_checkpoints[], *const driver_quantized_checkpoints[];
