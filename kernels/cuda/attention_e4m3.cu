/* Paged attention over e4m3 keys and values, which become bf16 in registers. */
#include "kernels/cuda/attention_kernel.h"

ATTENTION_FORMS_E4M3(ATTENTION_KERNEL, )
