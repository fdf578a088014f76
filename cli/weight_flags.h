/* Flags about a model's weights: in which numbers they are computed, where, and by what. */
#pragma once

#include "base/flags.h"
#include "engine/engine.h"

enum { WEIGHT_FLAGS_MAX = 8 };

struct weight_flag_values {
    const char *dtype, *quantization, *quantization_group, *load_format, *device, *isa;
    int64_t dummy_seed, threads;
};

/* Writes the rows to flags[0..WEIGHT_FLAGS_MAX) with targets in *values; returns how many. */
size_t weight_flags_fill(struct weight_flag_values *values, struct flag *flags);
/* What they say of the model in `directory`; a bar shows the progress. Borrows the strings. */
struct model_options weight_flags_options(const struct weight_flag_values *values, const char *directory);
