/* An executor that computes nothing, for measuring what is around a model. */
#pragma once

#include <stdint.h>
#include "engine/executor.h"

/* The calls come from the engine's loop thread. */
struct null_executor {
    struct executor_info info;
    void (*forward)(void *context);   /* takes the time of a forward pass; NULL = none */
    uint32_t (*token)(void *context); /* what all sequences of this step draw; NULL = always 1 */
    void *context;
};

/* Greedy, one token a sequence. null_model is borrowed and must outlive the engine. */
struct executor null_executor_of(struct null_executor *null_model);
