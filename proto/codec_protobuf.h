/* protobuf bytes <-> api's request and event: the only place that knows proto/vllm_engine.proto and
 * proto/bantam_v1.proto (nanopb behind it, through callbacks over the bytes).
 *
 * A request is read twice: once to count its lists, then into one block of exactly the right size, at most
 * PROTOBUF_GROWTH_MAX times the message. Unknown fields are skipped. What the schema has and this server does
 * not do is refused by the field's name: ERR_UNIMPLEMENTED. See proto/door_codec.h. */
#pragma once

#include "proto/door_codec.h"

enum {
    PROTOBUF_GROWTH_MAX = 5
}; /* a stop string of no bytes takes 2 on the wire: a pointer and a NUL here */

err_t protobuf_decode_generate(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                               struct request *out, struct generate_options *options) ERR_MUST_CHECK;
err_t protobuf_decode_abort(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                            struct abort_request *out) ERR_MUST_CHECK;
err_t protobuf_decode_watch_loads(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                                  uint32_t *interval_ms) ERR_MUST_CHECK;
err_t protobuf_decode_kv_subscribe(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                                   uint64_t *start_sequence_number) ERR_MUST_CHECK;
/* Any well-formed message; its fields do not matter. */
err_t protobuf_decode_empty(const uint8_t *bytes, size_t size_bytes,
                            struct codec_scratch *scratch) ERR_MUST_CHECK;

/* EVENT_TOKENS -> chunk (which counts its own tokens: completion_tokens is not used), EVENT_FINISHED ->
 * complete. */
struct codec_bytes protobuf_encode_event(const struct codec_answer *answer, const struct event *event,
                                         uint32_t completion_tokens);
struct codec_bytes protobuf_encode_aborted(const bool *aborted, size_t n_aborted);
struct codec_bytes protobuf_encode_model_info(const struct model_info *info);
struct codec_bytes protobuf_encode_server_info(const struct server_info *info);
struct codec_bytes protobuf_encode_loads(const struct server_info *info);
struct codec_bytes protobuf_encode_watched_loads(const struct loads *loads);
struct codec_bytes protobuf_encode_kv_events(const struct kv_event_batch *batch, uint64_t *last_event_id);
struct codec_bytes protobuf_encode_health(bool healthy, const char *message);
/* sha256: NULL but with the last chunk. */
struct codec_bytes protobuf_encode_tokenizer_chunk(const uint8_t *data, size_t size_bytes,
                                                   const char *sha256);
