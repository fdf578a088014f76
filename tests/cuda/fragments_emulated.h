/* The probes of fragment_kernels.h in the emulator. */
#pragma once

#include "tests/cuda/fragment_dump.h"

/* Runs probe i; out: [fragment_words]. */
void fragment_run(size_t i, uint32_t *out);
