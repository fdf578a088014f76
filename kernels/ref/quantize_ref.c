/* Reference of the quantisation of weights. */
#define KERNEL(name) name##_ref
#include "kernels/ref/quantize_body.h"
