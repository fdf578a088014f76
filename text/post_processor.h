/* What a tokenizer.json's post-processor puts around a text: ids in front and ids behind. Plain data. Source:
 * processors of the tokenizers library. */
#pragma once

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "text/vocab.h"

enum { POST_IDS_MAX = 32 };

struct post_processor {
    uint32_t before[POST_IDS_MAX], after[POST_IDS_MAX];
    size_t n_before, n_after;
};

/* json: the field "post_processor", NULL or null = nothing. Ids must be tokens of vocab. */
err_t post_processor_parse(const json_t *json, const struct vocab *vocab,
                           struct post_processor *out) ERR_MUST_CHECK;
