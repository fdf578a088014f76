/* One small layer through the CPU backend, rows together and each alone. */
#pragma once

#include "kernels/cpu_backend.h"

struct layer_result {
    float *rows; /* what each row's attention and activation gave; NULL = not yet known */
    size_t n_rows_floats;
    struct step_result *drawn;
    size_t n_drawn;
};

/* Runs the layer at one level, in one arithmetic, and compares with golden, or fills golden when it is empty.
 * Prints what differs. */
bool check_layer(uint64_t seed, enum isa_level level, enum arithmetic arithmetic, int n_threads,
                 struct layer_result *golden, uint64_t dispatches[KERNEL_COUNT]);
void layer_result_free(struct layer_result *result);
