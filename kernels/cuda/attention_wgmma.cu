/* Paged attention of many rows by wgmma, over bf16 and e4m3 keys and values (sm_90a). */
#include "kernels/cuda/attention_wgmma_load.h"

/* Barriers, and the ones behind every tile of values. */
template <class FORM> DEVICE void attention_wgmma_start(attention_barriers<FORM> *barriers)
{
    if (thread_x() == 0) {
        for (uint32_t i = 0; i < FORM::STAGES; i++) {
            mbarrier_init(&barriers->keys[i].full, 1);
            mbarrier_init(&barriers->keys[i].empty, FORM::CONSUMER_WARPS);
            mbarrier_init(&barriers->values[i].full, 1);
            mbarrier_init(&barriers->values[i].empty, FORM::CONSUMER_WARPS);
        }
        mbarrier_init(&barriers->q.full, FORM::LOADER_WARPS);
        mbarrier_init(&barriers->q.empty, FORM::CONSUMER_WARPS);
        fence_mbarrier_init();
    }
    const uint32_t ones = 0x3f803f80u; /* twice 1 in bf16 */
    for (uint32_t stage = 0; stage < FORM::STAGES; stage++) {
        uint8_t *to =
            attention_shared<FORM>() + FORM::VALUES_AT + stage * FORM::VALUES_BYTES + FORM::KEYS_BYTES;
        for (uint32_t i = thread_x() * 16; i < FORM::PART_BYTES; i += FORM::BLOCK_THREADS * 16)
            store_16(to + i, {{ones, ones, ones, ones}});
    }
    fence_async_proxy();
    barrier();
}

template <class FORM> DEVICE void attention_by_wgmma(const struct attention_tile_args &args)
{
    SHARED(attention_barriers<FORM>, barriers, );
    attention_wgmma_start<FORM>(&barriers);
    uint32_t warp = shuffle(warp_id(), 0); /* the compiler sees that it is one for the warp */
    if (warp >= FORM::CONSUMER_WARPS) {
        registers_lower<FORM::LOADER_REGISTERS>();
        attention_load<FORM>(args, &barriers, warp - FORM::CONSUMER_WARPS);
    } else {
        registers_raise<FORM::CONSUMER_REGISTERS>();
        attention_consume<FORM>(args, &barriers, warp);
    }
}

#if PTX_HAS_WGMMA
#define WGMMA_BODY(form) attention_by_wgmma<form>(args)
#else
#define WGMMA_BODY(form) trap()
#endif
#define WGMMA_KERNEL(x, type, dim, kv_bytes, threads, shared_bytes)                                          \
    KERNEL_BOUNDS(attention_m128_##type##_d##dim, struct attention_tile_args, threads, 1)                    \
    {                                                                                                        \
        typedef attention_wgmma_form<dim, kv_bytes> form;                                                    \
        static_assert(form::SHARED_BYTES == shared_bytes && form::BLOCK_THREADS == threads,                  \
                      "the list says otherwise");                                                            \
        WGMMA_BODY(form);                                                                                    \
    }

ATTENTION_FORMS_WGMMA(WGMMA_KERNEL, )
