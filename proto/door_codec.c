#include "proto/door_codec.h"

#include "proto/codec_flatbuffers.h"
#include "proto/codec_protobuf.h"

static struct codec_bytes encode_loads_alone(const struct server_info *info)
{
    return codec_encode_loads(&info->loads);
}

const struct door_codec door_codec_flatbuffers = {
    .decode_generate = codec_decode_generate,
    .decode_abort = codec_decode_abort,
    .decode_watch_loads = codec_decode_watch_loads,
    .decode_kv_subscribe = codec_decode_kv_subscribe,
    .decode_empty = codec_decode_empty,
    .encode_event = codec_encode_event,
    .encode_whole = codec_encode_whole,
    .encode_aborted = codec_encode_aborted,
    .encode_model_info = codec_encode_model_info,
    .encode_server_info = codec_encode_server_info,
    .encode_loads = encode_loads_alone,
    .encode_watched_loads = codec_encode_loads,
    .encode_kv_events = codec_encode_kv_events,
};

const struct door_codec door_codec_protobuf = {
    .decode_generate = protobuf_decode_generate,
    .decode_abort = protobuf_decode_abort,
    .decode_watch_loads = protobuf_decode_watch_loads,
    .decode_kv_subscribe = protobuf_decode_kv_subscribe,
    .decode_empty = protobuf_decode_empty,
    .encode_event = protobuf_encode_event,
    .finish_is_bare = true,
    .has_ids_only = true,
    .describes_in_trailers = true,
    .encode_aborted = protobuf_encode_aborted,
    .encode_model_info = protobuf_encode_model_info,
    .encode_server_info = protobuf_encode_server_info,
    .encode_loads = protobuf_encode_loads,
    .encode_watched_loads = protobuf_encode_watched_loads,
    .encode_kv_events = protobuf_encode_kv_events,
};
