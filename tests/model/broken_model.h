/* A good tiny model directory in a temporary folder, to be broken in one way by a test. */
#pragma once

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "model/model.h"

struct broken_model {
    char directory[256];
    json_t *config; /* config.json */
    json_t *header; /* of model.safetensors */
    uint8_t *data;  /* its data section, [data_bytes] */
    size_t data_bytes;
};

/* Loads tests/parity/checkpoints/llama-gqa; nothing is written yet. */
void broken_model_make(struct broken_model *model);
/* The same of another one of tests/parity: "quantized/awq-g32". */
void broken_model_make_of(struct broken_model *model, const char *checkpoint);
/* Removes the folder. */
void broken_model_remove(struct broken_model *model);

/* Writes config.json, model.safetensors and nothing else. */
void broken_model_write(const struct broken_model *model);
void broken_model_write_file(const struct broken_model *model, const char *name, const void *data,
                             size_t size_bytes);
void broken_model_delete_file(const struct broken_model *model, const char *name);
/* A safetensors file of the given header and data; header_bytes overrides the length prefix unless 0. */
void broken_model_write_safetensors(const struct broken_model *model, const char *name, const char *header,
                                    const void *data, size_t data_bytes, uint64_t header_bytes);
/* Entry of a tensor in the header. */
json_t *broken_model_tensor(const struct broken_model *model, const char *name);

/* Loads with small limits; the model is dropped. */
err_t broken_model_load(const struct broken_model *model, const struct model_options *options);
struct model_options broken_model_options(const struct broken_model *model);

/* Fails the test unless e has this code and its message contains each text up to NULL. */
void expect_error(err_t e, enum err_code code, ...);
