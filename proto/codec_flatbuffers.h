/* FlatBuffers bytes <-> api's request and event: the only place that knows proto/bantam.fbs (C++ behind it).
 *
 * Decoding checks the shape of the bytes (verifier with limits, exactly one kind of prompt, no NUL inside
 * names); ranges of values are api/validate.h's business. It never crashes on bad bytes:
 * ERR_INVALID_ARGUMENT. Pure but for memory; any thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "api/event.h"
#include "api/request.h"
#include "api/service.h"
#include "base/error.h"
#include "proto/door_codec.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    CODEC_DEPTH_MAX = 16,              /* of nested tables */
    CODEC_TABLES_MAX = 4608,           /* of one request: REQUEST_MESSAGES_MAX and some */
    CODEC_KV_EVENTS_MAX = 1 << 16,     /* of one batch, read by a client: a small message can name many */
    CODEC_ANSWER_TABLES_MAX = 1 << 18, /* of one answer, read by a client: a table a position with logprobs */
};

/* Requests. Pointers in the result live as long as both `bytes` and `scratch`. Errors leave scratch freeable.
 * deadline_ns and tenant are not on the wire: they come out as REQUEST_NO_DEADLINE and "". */
err_t codec_decode_generate(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                            struct request *out, struct generate_options *options) ERR_MUST_CHECK;
err_t codec_decode_tokenize(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                            struct request *out) ERR_MUST_CHECK;

struct detokenize_request {
    const uint32_t *token_ids; /* [n_token_ids] */
    size_t n_token_ids;
    bool skip_special_tokens;
};
err_t codec_decode_detokenize(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                              struct detokenize_request *out) ERR_MUST_CHECK;

err_t codec_decode_abort(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                         struct abort_request *out) ERR_MUST_CHECK;

/* Zero bytes are a request with everything unset. *interval_ms within the limits of door_codec.h. */
err_t codec_decode_watch_loads(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                               uint32_t *interval_ms) ERR_MUST_CHECK;

err_t codec_decode_kv_subscribe(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                                uint64_t *start_sequence_number) ERR_MUST_CHECK;

/* ModelInfoRequest, ServerInfoRequest, GetLoadsRequest: nothing in them yet; zero bytes are one too. */
err_t codec_decode_empty(const uint8_t *bytes, size_t size_bytes,
                         struct codec_scratch *scratch) ERR_MUST_CHECK;

/* EVENT_TOKENS -> chunk (completion_tokens: of this choice so far), EVENT_FINISHED -> complete. */
struct codec_bytes codec_encode_event(const struct codec_answer *answer, const struct event *event,
                                      uint32_t completion_tokens);
/* events: one EVENT_FINISHED a choice, with all of its output, by index. */
struct codec_bytes codec_encode_whole(const struct codec_answer *answer, const struct event *events,
                                      size_t n_events);
struct codec_bytes codec_encode_token_ids(const uint32_t *token_ids,
                                          size_t n_token_ids);             /* TokenizeResponse */
struct codec_bytes codec_encode_text(const char *text, size_t text_bytes); /* DetokenizeResponse; UTF-8 */
struct codec_bytes codec_encode_aborted(const bool *aborted, size_t n_aborted);
struct codec_bytes codec_encode_model_info(const struct model_info *info);
struct codec_bytes codec_encode_loads(const struct loads *loads);

struct codec_bytes codec_encode_kv_events(const struct kv_event_batch *batch, uint64_t *last_event_id);
struct codec_bytes codec_encode_server_info(const struct server_info *info);

/* The client's side. request -> GenerateRequest. */
struct codec_bytes codec_encode_generate(const struct request *request,
                                         const struct generate_options *options);
struct codec_bytes codec_encode_tokenize(const struct request *request);
struct codec_bytes codec_encode_detokenize(const struct detokenize_request *request);
struct codec_bytes codec_encode_abort(const struct abort_request *request);
struct codec_bytes codec_encode_watch_loads(uint32_t interval_ms);
struct codec_bytes codec_encode_kv_subscribe(uint64_t start_sequence_number);

/* Whose answer it is, and whose: "" where a message does not say. */
struct codec_origin {
    const char *request_id;
    const char *model, *fingerprint; /* with the end of a choice */
};
/* One message of a Generate stream. Logprobs are converted into scratch; `last` is not on the wire and comes
 * out false; *origin and pointers in *out live as long as bytes and scratch. ERR_DATA_LOSS for bad bytes. */
err_t codec_decode_response(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                            struct codec_origin *origin, struct event *out) ERR_MUST_CHECK;
/* GenerateWholeResponse: *events [*n_events] lives in scratch. */
err_t codec_decode_whole(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                         struct codec_origin *origin, const struct event **events,
                         size_t *n_events) ERR_MUST_CHECK;
err_t codec_decode_token_ids(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                             const uint32_t **token_ids, size_t *n_token_ids) ERR_MUST_CHECK;
err_t codec_decode_text(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                        const char **text, size_t *text_bytes) ERR_MUST_CHECK;
/* KvEventBatch: events live in scratch, what they point to in bytes. */
err_t codec_decode_kv_events(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                             struct kv_event_batch *out) ERR_MUST_CHECK;
err_t codec_decode_model_info(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                              struct model_info *out) ERR_MUST_CHECK;
/* Without model, loads and the two times, which are not on this wire. */
err_t codec_decode_server_info(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                               struct server_info *out) ERR_MUST_CHECK;
err_t codec_decode_aborted(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                           const bool **aborted, size_t *n_aborted) ERR_MUST_CHECK;
err_t codec_decode_loads(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                         struct loads *out) ERR_MUST_CHECK;

#ifdef __cplusplus
}
#endif
