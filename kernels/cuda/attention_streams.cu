/* Paged attention of few rows by streams of blocks. */
#include "kernels/cuda/attention_streams.h"

#define ATTENTION_STREAM_KERNEL(x, size, type, dim, kv_bytes, slots, unroll, shared_bytes, blocks)           \
    KERNEL_BOUNDS(attention_##size##_##type##_d##dim, struct attention_tile_args,                            \
                  (ATTENTION_TEAM * WARP_LANES), blocks)                                                     \
    {                                                                                                        \
        typedef attention_stream_form<dim, kv_bytes, slots, unroll> form;                                    \
        static_assert(form::SHARED_BYTES == shared_bytes, "the list says otherwise");                        \
        attention_run_streams<form>(args);                                                                   \
    }

ATTENTION_FORMS_STREAMS(ATTENTION_STREAM_KERNEL, )
