/* "quantization_config" of config.json: how the matrices of a checkpoint are stored, what their codes mean,
 * and which of them are left as they were. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "base/error.h"
#include "model/family.h"
#include "model/json_fields.h"
#include "model/quant_format.h"

enum {
    QUANT_LAYERS_MAX = 512,
    QUANT_NAMES_MAX = 4096, /* modules and patterns that a configuration lists */
    QUANT_PATTERNS_MAX = 64,
    QUANT_GROUP_MAX = 1 << 17,
};

/* Where the tensors of a module lie; its names end in:
 *   AWQ     .qweight, .qzeros, .scales: codes packed along the outputs, in AutoAWQ's order ("gemm")
 *   GPTQ    .qweight, .qzeros, .scales, .g_idx: codes packed along the inputs
 *   PACKED  .weight_packed, .weight_scale, .weight_zero_point, .weight_g_idx: compressed-tensors, int32
 *   BYTES   .weight, .weight_scale or .weight_scale_inv: a byte a code */
enum quant_storage {
    QUANT_STORED_PLAIN, /* no quantization_config */
    QUANT_STORED_AWQ,
    QUANT_STORED_GPTQ,
    QUANT_STORED_PACKED,
    QUANT_STORED_BYTES,
};

enum quant_module { /* of a layer */
                    QUANT_MODULE_Q,
                    QUANT_MODULE_K,
                    QUANT_MODULE_V,
                    QUANT_MODULE_O,
                    QUANT_MODULE_GATE,
                    QUANT_MODULE_UP,
                    QUANT_MODULE_DOWN,
                    QUANT_MODULES,
};

struct quant_config {
    enum quant_storage storage;
    const char *method; /* "quant_method", static; NULL = none */
    struct quant_format format;
    bool zeros_less_one;    /* GPTQ's first version: a stored zero point is one less than it means */
    bool is_act_order;      /* a tensor of group indices is there */
    uint32_t block_outputs; /* BYTES: outputs that share a group's scale (.weight_scale_inv); 0 = none do */
    bool plain_lm_head;
    uint8_t plain_modules[QUANT_LAYERS_MAX]; /* a bit for every enum quant_module that is not quantised */
};

/* fields: of config.json. UNIMPLEMENTED for a method, version or scheme that is not known: the message names
 * it and those that are; INVALID_ARGUMENT for a field of the wrong kind or range. */
err_t quant_config_parse(const struct json_fields *fields, const struct family_names *names,
                         uint32_t n_layers, struct quant_config *out) ERR_MUST_CHECK;

/* Whether the module `name` of a layer (-1: it stands by itself) is quantised. */
bool quant_config_covers(const struct quant_config *config, const struct family_names *names, int64_t layer,
                         const char *name);
