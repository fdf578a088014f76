/* A GGUF file of random weights in which every type of blocks occurs, mixed within the stacks. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { BLOCK_MODEL_MLP = 768, BLOCK_MODEL_VOCAB = 320, BLOCK_MODEL_PATH = 64 };

/* What a test changes. */
struct block_model {
    uint32_t mlp;       /* BLOCK_MODEL_MLP */
    uint32_t down_type; /* BLOCK_Q5_K */
    bool broken_scale;  /* of the value projection */
    bool broken_down;   /* likewise of down */
};

/* As it should be, where `changed` is NULL. Its path, in /tmp, to `path`; the caller unlinks it. Returns the
 * bytes of its matrices. */
uint64_t block_model_write(const struct block_model *changed, char path[BLOCK_MODEL_PATH]);
