/* What stands between the methods of the gRPC door and the bytes of their messages: one table a wire format.
 * The door is the same code over each of them.
 *
 * Decoding never crashes on bad bytes: ERR_INVALID_ARGUMENT; ranges of values are api/validate.h's business.
 * Pure but for memory; any thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "api/event.h"
#include "api/request.h"
#include "api/service.h"
#include "base/error.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    CODEC_ABORT_IDS_MAX = 1024, /* request ids of one Abort */
    CODEC_WATCH_INTERVAL_MIN_MS = 10,
    CODEC_WATCH_INTERVAL_MAX_MS = 60000,
    CODEC_WATCH_INTERVAL_DEFAULT_MS = 1000,
};

/* What a decoded message needs besides its bytes. Zero-initialise; codec_scratch_free when the decoded
 * message is no longer needed (idempotent). */
struct codec_scratch {
    void *aligned_copy; /* of bytes that were not 8-byte aligned */
    void *arrays;       /* pointer arrays and the like */
};
void codec_scratch_free(struct codec_scratch *scratch);

/* What a client asks of the door alone. */
struct generate_options {
    bool return_prompt_token_ids;
    bool whole; /* nothing before the end of all choices */
    const char
        *openai_json; /* openai_json_bytes: the prompt and its parameters in OpenAI's form; NULL = none */
    size_t openai_json_bytes;
};

struct abort_request {
    const char *const *request_ids; /* [n_request_ids] NUL-terminated */
    size_t n_request_ids;           /* 1..CODEC_ABORT_IDS_MAX */
};

/* Encoded bytes belong to the calling thread and live until its next encoding. data is NULL when there was no
 * memory for them. */
struct codec_bytes {
    const uint8_t *data;
    size_t size;
};

/* What is the same for all messages of a stream. */
struct codec_answer {
    const char *request_id;
    const struct model_info *model;
    uint32_t prompt_tokens; /* for chunks, whose events have no usage; 0 = not known yet */
    bool with_prompt_token_ids;
};

struct server_info {
    const char *version, *grpc_version;
    double uptime_seconds;
    int64_t unix_time_s, last_generate_unix_s; /* now; of the last request, 0 = none yet */
    uint32_t active_requests;
    uint64_t max_message_bytes;
    bool draining;
    const struct model_info *model;
    struct loads loads;
};

/* Ratios of a moment's loads; 0 where there is nothing to divide by. */
struct load_ratios {
    double kv_usage;    /* used / total blocks */
    double utilization; /* the larger of kv_usage and running / max_num_seqs */
    double hit_rate;    /* of prompt tokens in the prefix cache, since start */
};
struct load_ratios codec_load_ratios(const struct loads *loads);

struct door_codec {
    /* Pointers in the result live as long as both `bytes` and `scratch`; errors leave scratch freeable.
     * deadline_ns and tenant are not on the wire: REQUEST_NO_DEADLINE and "". */
    err_t (*decode_generate)(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                             struct request *out, struct generate_options *options);
    err_t (*decode_abort)(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                          struct abort_request *out);
    err_t (*decode_watch_loads)(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                                uint32_t *interval_ms);
    /* Zero bytes are a request for the present. */
    err_t (*decode_kv_subscribe)(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                                 uint64_t *start_sequence_number);
    /* A request without fields that matter; zero bytes are one too. */
    err_t (*decode_empty)(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch);

    /* One message of a stream. completion_tokens: of this choice so far. */
    struct codec_bytes (*encode_event)(const struct codec_answer *answer, const struct event *event,
                                       uint32_t completion_tokens);
    /* events: one EVENT_FINISHED a choice, with all of its output, by index. NULL: encode_event for each. */
    struct codec_bytes (*encode_whole)(const struct codec_answer *answer, const struct event *events,
                                       size_t n_events);
    /* In a stream the last tokens of a choice go as an EVENT_TOKENS of their own before its end. */
    bool finish_is_bare;
    /* Its messages have token ids and nothing else: not a text, nor a call of a tool. */
    bool has_ids_only;
    /* What its messages have no fields for goes into trailers (answer_trailers.h). */
    bool describes_in_trailers;
    struct codec_bytes (*encode_aborted)(const bool *aborted, size_t n_aborted);
    struct codec_bytes (*encode_model_info)(const struct model_info *info);
    struct codec_bytes (*encode_server_info)(const struct server_info *info);
    struct codec_bytes (*encode_loads)(const struct server_info *info); /* of GetLoads */
    struct codec_bytes (*encode_watched_loads)(const struct loads *loads);
    /* *last_event_id: of the stream; moves on, except in a snapshot. */
    struct codec_bytes (*encode_kv_events)(const struct kv_event_batch *batch, uint64_t *last_event_id);
};

extern const struct door_codec door_codec_flatbuffers, door_codec_protobuf;

/* How many of a batch's events from events[first] on are one on the wire: blocks stored each behind the one
 * before, or blocks removed. At least 1. */
size_t codec_kv_run(const struct kv_event_batch *batch, size_t first);
size_t codec_kv_runs(const struct kv_event_batch *batch); /* of the whole batch */

/* What both wire formats refuse in the same words. */
err_t codec_check_abort_ids(size_t n_ids) ERR_MUST_CHECK;
err_t codec_check_watch_interval(uint32_t interval_ms) ERR_MUST_CHECK;

#ifdef __cplusplus
}
#endif
