/* How weights of the tensor-core linear layers are packed at load. */
#pragma once

#include "kernels/cuda/linear_pack.h"

struct cuda_layout;

/* In bf16 precision; NULL: none takes this format or group (linear_packed_describe). */
const struct cuda_layout *linear_weight_layout(const struct weight_desc *desc, uint32_t capability);
