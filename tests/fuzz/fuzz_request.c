/* Requests as they come off the wire: decode, then validate. The first byte picks the message, so that one
 * corpus covers all. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "api/validate.h"
#include "base/alloc.h"
#include "base/assert.h"
#include "proto/codec_flatbuffers.h"
#include "proto/grpc_health.h"
#include "tests/fuzz/touch_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_generate(const uint8_t *bytes, size_t size, struct codec_scratch *scratch)
{
    static const struct validate_limits limits = {.vocab_size = 1000,
                                                  .max_model_len = 512,
                                                  .max_n = 8,
                                                  .has_tokenizer = true,
                                                  .has_chat_template = true};
    struct request request;
    struct generate_options options;
    err_t e = codec_decode_generate(bytes, size, scratch, &request, &options);
    if (e.code != ERR_OK)
        return;
    (void)touch_request(&request);
    e = validate_request(&request, &limits);
    if (e.code != ERR_OK)
        return;
    /* What passed both goes out and comes in the same. */
    struct codec_bytes again = codec_encode_generate(&request, &options);
    struct codec_scratch second_scratch = {0};
    struct request second;
    struct generate_options second_options;
    e = codec_decode_generate(again.data, again.size, &second_scratch, &second, &second_options);
    ASSERT(e.code == ERR_OK);
    ASSERT(second.prompt_kind == request.prompt_kind && second.sampling.set == request.sampling.set);
    ASSERT(touch_request(&second) == touch_request(&request));
    codec_scratch_free(&second_scratch);
}

static void fuzz_others(uint8_t kind, const uint8_t *bytes, size_t size, struct codec_scratch *scratch)
{
    struct request request;
    struct detokenize_request detokenize;
    struct abort_request abort_request;
    uint32_t interval_ms;
    uint64_t sequence_number;
    char service[HEALTH_SERVICE_BYTES_MAX];
    err_t e = err_ok();
    if (kind == 1 && codec_decode_tokenize(bytes, size, scratch, &request).code == ERR_OK)
        (void)touch_request(&request);
    else if (kind == 2 && codec_decode_detokenize(bytes, size, scratch, &detokenize).code == ERR_OK)
        (void)touch(detokenize.token_ids, detokenize.n_token_ids * sizeof(uint32_t));
    else if (kind == 3 && codec_decode_abort(bytes, size, scratch, &abort_request).code == ERR_OK)
        (void)touch_names(abort_request.request_ids, abort_request.n_request_ids);
    else if (kind == 4)
        e = codec_decode_watch_loads(bytes, size, scratch, &interval_ms);
    else if (kind == 5)
        e = health_decode_request(bytes, size, service);
    else if (kind == 7)
        e = codec_decode_kv_subscribe(bytes, size, scratch, &sequence_number);
    ASSERT(e.code == ERR_OK || e.code == ERR_INVALID_ARGUMENT);
}

static void fuzz_small_answers(const uint8_t *bytes, size_t size, struct codec_scratch *scratch)
{
    struct model_info model;
    struct server_info server;
    struct loads loads;
    const bool *aborted;
    const uint32_t *ids;
    const char *text;
    size_t n;
    if (codec_decode_model_info(bytes, size, scratch, &model).code == ERR_OK)
        (void)(touch(model.model, strlen(model.model) + 1) +
               touch(model.fingerprint, strlen(model.fingerprint) + 1) +
               touch(model.eos_token_ids, model.n_eos_token_ids * sizeof(uint32_t)));
    if (codec_decode_server_info(bytes, size, scratch, &server).code == ERR_OK)
        (void)(touch(server.version, strlen(server.version) + 1) +
               touch(server.grpc_version, strlen(server.grpc_version) + 1));
    if (codec_decode_aborted(bytes, size, scratch, &aborted, &n).code == ERR_OK)
        (void)touch(aborted, n);
    codec_scratch_free(scratch);
    if (codec_decode_token_ids(bytes, size, scratch, &ids, &n).code == ERR_OK)
        (void)touch(ids, n * sizeof *ids);
    codec_scratch_free(scratch);
    if (codec_decode_text(bytes, size, scratch, &text, &n).code == ERR_OK)
        (void)touch(text, n);
    codec_scratch_free(scratch);
    (void)codec_decode_loads(bytes, size, scratch, &loads).code;
    codec_scratch_free(scratch);
}

static void fuzz_answers(const uint8_t *bytes, size_t size, struct codec_scratch *scratch)
{
    struct event event;
    const struct event *events;
    struct codec_origin origin;
    size_t n_events;
    if (codec_decode_response(bytes, size, scratch, &origin, &event).code == ERR_OK)
        (void)(touch(event.token_ids, event.n_token_ids * sizeof(uint32_t)) +
               touch(event.text, event.text_bytes));
    codec_scratch_free(scratch);
    if (codec_decode_whole(bytes, size, scratch, &origin, &events, &n_events).code == ERR_OK)
        (void)(touch(events[n_events - 1].text, events[n_events - 1].text_bytes) +
               touch(origin.fingerprint, strlen(origin.fingerprint) + 1));
    codec_scratch_free(scratch);
    struct kv_event_batch batch;
    if (codec_decode_kv_events(bytes, size, scratch, &batch).code == ERR_OK)
        for (size_t i = 0; i < batch.n_events; i++)
            (void)touch(batch.events[i].token_ids,
                        batch.events[i].kind == KV_BLOCK_STORED ? batch.block_tokens * sizeof(uint32_t) : 0);
    codec_scratch_free(scratch);
    fuzz_small_answers(bytes, size, scratch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    uint8_t kind = data[0] % 8;
    /* Of the exact size, so that reading past the end is seen. */
    uint8_t *bytes = mem_alloc(size);
    ASSERT(bytes);
    memcpy(bytes, data + 1, size - 1);
    struct codec_scratch scratch = {0};
    if (kind == 0)
        fuzz_generate(bytes, size - 1, &scratch);
    else if (kind == 6)
        fuzz_answers(bytes, size - 1, &scratch);
    else
        fuzz_others(kind, bytes, size - 1, &scratch);
    codec_scratch_free(&scratch);
    mem_free(bytes);
    return 0;
}
