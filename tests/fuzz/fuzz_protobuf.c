/* protobuf requests as they come off the wire: decode, then validate. The first byte picks the message. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "api/validate.h"
#include "base/alloc.h"
#include "base/assert.h"
#include "proto/codec_protobuf.h"
#include "tests/fuzz/touch_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static err_t fuzz_generate(const uint8_t *bytes, size_t size, struct codec_scratch *scratch)
{
    static const struct validate_limits limits = {.vocab_size = 1000,
                                                  .max_model_len = 512,
                                                  .max_n = 8,
                                                  .has_tokenizer = true,
                                                  .has_chat_template = true};
    struct request request;
    struct generate_options options;
    TRY(protobuf_decode_generate(bytes, size, scratch, &request, &options));
    (void)touch_request(&request);
    if (request.request_id)
        (void)touch(request.request_id, strlen(request.request_id) + 1);
    return validate_request(&request, &limits);
}

static err_t fuzz_abort(const uint8_t *bytes, size_t size, struct codec_scratch *scratch)
{
    struct abort_request request;
    TRY(protobuf_decode_abort(bytes, size, scratch, &request));
    ASSERT(request.n_request_ids >= 1 && request.n_request_ids <= CODEC_ABORT_IDS_MAX);
    (void)touch_names(request.request_ids, request.n_request_ids);
    return err_ok();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    /* Of the exact size, so that reading past the end is seen. */
    uint8_t *bytes = mem_alloc(size);
    ASSERT(bytes);
    memcpy(bytes, data + 1, size - 1);
    struct codec_scratch scratch = {0};
    uint32_t interval_ms;
    uint64_t sequence_number;
    err_t e = err_ok();
    switch (data[0] % 8) {
    case 1:
        e = fuzz_abort(bytes, size - 1, &scratch);
        break;
    case 2:
        e = protobuf_decode_watch_loads(bytes, size - 1, &scratch, &interval_ms);
        break;
    case 3:
        e = protobuf_decode_empty(bytes, size - 1, &scratch);
        break;
    case 4:
        e = protobuf_decode_kv_subscribe(bytes, size - 1, &scratch, &sequence_number);
        break;
    default:
        e = fuzz_generate(bytes, size - 1, &scratch);
        break;
    }
    ASSERT(e.code == ERR_OK || e.code == ERR_INVALID_ARGUMENT || e.code == ERR_UNIMPLEMENTED);
    codec_scratch_free(&scratch);
    mem_free(bytes);
    return 0;
}
