/* Paged attention over bf16 keys and values. */
#include "kernels/cuda/attention_kernel.h"

ATTENTION_FORMS_BF16(ATTENTION_KERNEL, )
