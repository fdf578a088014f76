/* Answers out. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <pb_encode.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "bantam_v1.pb.h"
#include "proto/codec_protobuf.h"
#include "smg_common.pb.h"
#include "vllm_engine.pb.h"

/* --- a thread's bytes */

enum {
    FIRST_BYTES = 1024,   /* most messages of a stream fit */
    KEEP_BYTES = 1 << 20, /* of a thread's memory between two messages */
};

struct thread_bytes {
    size_t capacity;
    uint8_t data[];
};

static pthread_key_t thread_key;
static pthread_once_t thread_key_once = PTHREAD_ONCE_INIT;

static void create_thread_key(void)
{
    int failed = pthread_key_create(&thread_key, mem_free);
    ASSERT(failed == 0);
}

/* At least size_bytes; NULL without memory. */
static struct thread_bytes *thread_room(size_t size_bytes)
{
    pthread_once(&thread_key_once, create_thread_key);
    struct thread_bytes *bytes = pthread_getspecific(thread_key);
    if (bytes && bytes->capacity >= size_bytes && (bytes->capacity <= KEEP_BYTES || size_bytes > KEEP_BYTES))
        return bytes;
    mem_free(bytes);
    bytes = mem_alloc(sizeof *bytes + size_bytes);
    if (bytes)
        bytes->capacity = size_bytes;
    if (pthread_setspecific(thread_key, bytes) != 0) {
        mem_free(bytes);
        return NULL;
    }
    return bytes;
}

static bool encode_into(struct thread_bytes *room, const pb_msgdesc_t *type, const void *message,
                        struct codec_bytes *out)
{
    pb_ostream_t stream = pb_ostream_from_buffer(room->data, room->capacity);
    bool encoded = pb_encode(&stream, type, message);
    *out = (struct codec_bytes){room->data, stream.bytes_written};
    return encoded;
}

/* Asking for the size takes as long as encoding: only what does not fit is measured. */
static struct codec_bytes encode(const pb_msgdesc_t *type, const void *message)
{
    struct codec_bytes bytes = {0};
    struct thread_bytes *room = thread_room(FIRST_BYTES);
    if (!room || encode_into(room, type, message, &bytes))
        return bytes;
    size_t size;
    bool sized = pb_get_encoded_size(&size, type, message);
    ASSERT(sized);
    room = thread_room(size);
    if (!room)
        return (struct codec_bytes){0};
    bool encoded = encode_into(room, type, message, &bytes);
    ASSERT(encoded && bytes.size == size);
    return bytes;
}

/* --- fields */

static bool put_string(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    const char *text = *arg;
    if (!text || text[0] == '\0')
        return true;
    return pb_encode_tag_for_field(stream, field) &&
           pb_encode_string(stream, (const pb_byte_t *)text, strlen(text));
}

static pb_callback_t string_field(const char *text)
{
    return (pb_callback_t){{.encode = put_string}, (void *)text};
}

/* The numbers of a list, each `stride` bytes after the other. */
struct column {
    const void *first;
    size_t n, stride;
};

static const void *column_at(const struct column *column, size_t i)
{
    return (const char *)column->first + i * column->stride;
}

static size_t varint_bytes(uint32_t value)
{
    size_t n = 1;
    for (; value >= 0x80; value >>= 7)
        n++;
    return n;
}

static bool put_packed(pb_ostream_t *stream, const pb_field_t *field, size_t size_bytes)
{
    return pb_encode_tag(stream, PB_WT_STRING, field->tag) && pb_encode_varint(stream, size_bytes);
}

static bool put_ids(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    const struct column *column = *arg;
    size_t size_bytes = 0;
    for (size_t i = 0; i < column->n; i++)
        size_bytes += varint_bytes(*(const uint32_t *)column_at(column, i));
    if (size_bytes == 0)
        return true;
    if (!put_packed(stream, field, size_bytes))
        return false;
    if (!stream->callback) /* only the size is asked for */
        return pb_write(stream, NULL, size_bytes);
    for (size_t i = 0; i < column->n; i++)
        if (!pb_encode_varint(stream, *(const uint32_t *)column_at(column, i)))
            return false;
    return true;
}

static bool put_floats(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    const struct column *column = *arg;
    if (column->n == 0)
        return true;
    if (!put_packed(stream, field, column->n * sizeof(float)))
        return false;
    if (!stream->callback)
        return pb_write(stream, NULL, column->n * sizeof(float));
    for (size_t i = 0; i < column->n; i++)
        if (!pb_encode_fixed32(stream, column_at(column, i)))
            return false;
    return true;
}

static pb_callback_t column_field(bool (*put)(pb_ostream_t *, const pb_field_t *, void *const *),
                                  const struct column *column)
{
    return (pb_callback_t){{.encode = put}, (void *)column};
}

/* --- logprobs */

struct positions {
    const struct position_logprobs *at; /* [n] */
    size_t n;
    bool any_top;
    struct column logprobs, ids;
};

static struct positions positions_of(const struct position_logprobs *at, size_t n)
{
    struct positions positions = {.at = at, .n = n};
    for (size_t i = 0; i < n && !positions.any_top; i++)
        positions.any_top = at[i].n_top > 0;
    if (n > 0) {
        positions.logprobs = (struct column){&at->chosen.logprob, n, sizeof *at};
        positions.ids = (struct column){&at->chosen.token_id, n, sizeof *at};
    }
    return positions;
}

static bool put_top(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    const struct positions *positions = *arg;
    for (size_t i = 0; positions->any_top && i < positions->n; i++) {
        const struct position_logprobs *at = &positions->at[i];
        struct column values = {&at->top[0].logprob, at->n_top, sizeof at->top[0]};
        struct column ids = {&at->top[0].token_id, at->n_top, sizeof at->top[0]};
        vllm_grpc_engine_TopLogProbs top = {.values = column_field(put_floats, &values),
                                            .token_ids = column_field(put_ids, &ids)};
        if (!pb_encode_tag_for_field(stream, field) ||
            !pb_encode_submessage(stream, &vllm_grpc_engine_TopLogProbs_msg, &top))
            return false;
    }
    return true;
}

/* The first token of a prompt has none: its entry is empty. */
static bool put_input_logprobs(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    const struct positions *positions = *arg;
    for (size_t i = 0; i < positions->n; i++) {
        float value = positions->at[i].chosen.logprob;
        vllm_grpc_engine_InputTokenLogProb entry = {.has_value = !isnan(value), .value = value};
        if (!pb_encode_tag_for_field(stream, field) ||
            !pb_encode_submessage(stream, &vllm_grpc_engine_InputTokenLogProb_msg, &entry))
            return false;
    }
    return true;
}

static pb_callback_t positions_field(bool (*put)(pb_ostream_t *, const pb_field_t *, void *const *),
                                     const struct positions *positions)
{
    return (pb_callback_t){{.encode = put}, (void *)positions};
}

static vllm_grpc_engine_OutputLogProbs output_logprobs(const struct positions *positions)
{
    return (vllm_grpc_engine_OutputLogProbs){.token_logprobs = column_field(put_floats, &positions->logprobs),
                                             .token_ids = column_field(put_ids, &positions->ids),
                                             .top_logprobs = positions_field(put_top, positions)};
}

static vllm_grpc_engine_InputLogProbs input_logprobs(const struct positions *positions)
{
    return (vllm_grpc_engine_InputLogProbs){.token_logprobs = positions_field(put_input_logprobs, positions),
                                            .token_ids = column_field(put_ids, &positions->ids),
                                            .top_logprobs = positions_field(put_top, positions)};
}

/* --- Generate */

static void set_matched_stop(const struct event *event, vllm_grpc_engine_GenerateComplete *out)
{
    if (event->stop_string) {
        out->which_matched_stop = vllm_grpc_engine_GenerateComplete_matched_stop_str_tag;
        out->matched_stop.matched_stop_str = string_field(event->stop_string);
    } else if (event->stop_token_id >= 0) {
        out->which_matched_stop = vllm_grpc_engine_GenerateComplete_matched_token_id_tag;
        out->matched_stop.matched_token_id = (uint32_t)event->stop_token_id;
    }
}

struct codec_bytes protobuf_encode_event(const struct codec_answer *answer, const struct event *event,
                                         uint32_t completion_tokens)
{
    (void)completion_tokens;
    struct column ids = {event->token_ids, event->n_token_ids, sizeof *event->token_ids};
    struct positions output = positions_of(event->logprobs, event->n_logprobs);
    struct positions input = positions_of(event->prompt_logprobs, event->n_prompt_logprobs);
    vllm_grpc_engine_GenerateResponse message = vllm_grpc_engine_GenerateResponse_init_zero;
    if (event->kind == EVENT_TOKENS) {
        message.has_chunk = true;
        message.chunk = (vllm_grpc_engine_GenerateStreamChunk){
            .token_ids = column_field(put_ids, &ids),
            .prompt_tokens = answer->prompt_tokens,
            .completion_tokens = (uint32_t)event->n_token_ids,
            .has_output_logprobs = output.n > 0,
            .output_logprobs = output_logprobs(&output),
            .has_input_logprobs = input.n > 0,
            .input_logprobs = input_logprobs(&input),
            .index = event->choice_index,
        };
    } else {
        message.has_complete = true;
        message.complete = (vllm_grpc_engine_GenerateComplete){
            .output_ids = column_field(put_ids, &ids),
            .finish_reason = string_field(finish_reason_name(event->finish_reason)),
            .prompt_tokens = event->usage.prompt_tokens,
            .completion_tokens = event->usage.completion_tokens,
            .cached_tokens = event->usage.cached_tokens,
            .has_output_logprobs = output.n > 0,
            .output_logprobs = output_logprobs(&output),
            .has_input_logprobs = input.n > 0,
            .input_logprobs = input_logprobs(&input),
            .index = event->choice_index,
        };
        set_matched_stop(event, &message.complete);
    }
    return encode(&vllm_grpc_engine_GenerateResponse_msg, &message);
}

struct codec_bytes protobuf_encode_aborted(const bool *aborted, size_t n_aborted)
{
    (void)aborted, (void)n_aborted;
    vllm_grpc_engine_AbortResponse message = vllm_grpc_engine_AbortResponse_init_zero;
    return encode(&vllm_grpc_engine_AbortResponse_msg, &message);
}

/* --- the model and the server */

/* What generation_config.json says of parameters that a request leaves out, in the names of requests. */
static void write_defaults(const struct sampling_params *defaults, char *out, size_t out_bytes)
{
    const struct {
        uint32_t bit;
        const char *name;
        double value;
    } rows[] = {
        {SAMPLING_TEMPERATURE, "temperature", (double)defaults->temperature},
        {SAMPLING_TOP_P, "top_p", (double)defaults->top_p},
        {SAMPLING_TOP_K, "top_k", defaults->top_k},
        {SAMPLING_MIN_P, "min_p", (double)defaults->min_p},
        {SAMPLING_REPETITION_PENALTY, "repetition_penalty", (double)defaults->repetition_penalty},
    };
    size_t size = 0;
    out[0] = '\0';
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (!(defaults->set & rows[i].bit))
            continue;
        size += (size_t)snprintf(out + size, out_bytes - size, "%s\"%s\":%.7g", size == 0 ? "{" : ",",
                                 rows[i].name, rows[i].value);
        ASSERT(size + 2 <= out_bytes);
    }
    if (size > 0)
        (void)snprintf(out + size, out_bytes - size, "}");
}

struct codec_bytes protobuf_encode_model_info(const struct model_info *info)
{
    char defaults[256] = "";
    if (info->sampling_defaults)
        write_defaults(info->sampling_defaults, defaults, sizeof defaults);
    struct column eos = {info->eos_token_ids, info->n_eos_token_ids, sizeof(uint32_t)};
    vllm_grpc_engine_GetModelInfoResponse message = {
        .model_path = string_field(info->model_path ? info->model_path : info->model),
        .is_generation = true,
        .max_context_length = info->max_model_len,
        .vocab_size = info->vocab_size,
        .served_model_name = string_field(info->model),
        .tokenizer_path = string_field(info->has_tokenizer ? info->model_path : NULL),
        .model_type = string_field(info->architecture),
        .architectures = string_field(info->architecture),
        .eos_token_ids = column_field(put_ids, &eos),
        .bos_token_id = info->bos_token_id >= 0 ? (int32_t)info->bos_token_id : 0,
        .max_req_input_len = info->max_model_len > 0 ? (int32_t)info->max_model_len - 1 : 0,
        .default_sampling_params_json = string_field(defaults),
    };
    return encode(&vllm_grpc_engine_GetModelInfoResponse_msg, &message);
}

struct codec_bytes protobuf_encode_server_info(const struct server_info *info)
{
    char dtype[64];
    (void)snprintf(dtype, sizeof dtype, "torch.%s", info->model->dtype ? info->model->dtype : "");
    vllm_grpc_engine_GetServerInfoResponse message = {
        .active_requests = info->active_requests,
        .is_paused = info->draining,
        .last_receive_timestamp = (double)info->last_generate_unix_s,
        .uptime_seconds = info->uptime_seconds,
        .server_type = string_field("bantam"),
        .data_parallel_size = 1,
        .kv_cache_dtype = string_field(info->model->kv_dtype),
        .block_size = (int32_t)info->loads.kv_block_tokens,
        .model_dtype = string_field(dtype),
        .max_num_seqs = (int32_t)info->loads.max_num_seqs,
    };
    return encode(&vllm_grpc_engine_GetServerInfoResponse_msg, &message);
}

struct codec_bytes protobuf_encode_health(bool healthy, const char *message_text)
{
    vllm_grpc_engine_HealthCheckResponse message = {.healthy = healthy,
                                                    .message = string_field(message_text)};
    return encode(&vllm_grpc_engine_HealthCheckResponse_msg, &message);
}

/* --- loads */

static int32_t capped(uint64_t n)
{
    return n > INT32_MAX ? INT32_MAX : (int32_t)n;
}

static bool put_scheduler_load(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    const struct loads *loads = *arg;
    struct load_ratios ratios = codec_load_ratios(loads);
    vllm_grpc_engine_SchedulerLoad message = {
        .num_running_reqs = capped(loads->requests_running),
        .num_waiting_reqs = capped(loads->requests_waiting),
        .num_total_reqs = capped((uint64_t)loads->requests_running + loads->requests_waiting),
        .num_used_tokens = capped((uint64_t)loads->kv_blocks_used * loads->kv_block_tokens),
        .max_total_num_tokens = capped((uint64_t)loads->kv_blocks_total * loads->kv_block_tokens),
        .token_usage = ratios.kv_usage,
        .gen_throughput = loads->tokens_per_s,
        .cache_hit_rate = ratios.hit_rate,
        .utilization = ratios.utilization,
        .max_running_requests = capped(loads->max_num_seqs),
    };
    return pb_encode_tag_for_field(stream, field) &&
           pb_encode_submessage(stream, &vllm_grpc_engine_SchedulerLoad_msg, &message);
}

struct codec_bytes protobuf_encode_loads(const struct server_info *info)
{
    char timestamp[32] = "";
    struct tm utc;
    time_t now = (time_t)info->unix_time_s;
    if (gmtime_r(&now, &utc))
        (void)strftime(timestamp, sizeof timestamp, "%Y-%m-%dT%H:%M:%SZ", &utc);
    vllm_grpc_engine_GetLoadsResponse message = {
        .timestamp = string_field(timestamp),
        .version = string_field(info->version),
        .dp_rank_count = 1,
        .loads = {{.encode = put_scheduler_load}, (void *)&info->loads},
    };
    return encode(&vllm_grpc_engine_GetLoadsResponse_msg, &message);
}

struct codec_bytes protobuf_encode_watched_loads(const struct loads *loads)
{
    struct load_ratios ratios = codec_load_ratios(loads);
    bantam_v1_LoadsResponse message = {
        .num_waiting_reqs = loads->requests_waiting,
        .num_running_reqs = loads->requests_running,
        .num_paused_reqs = loads->requests_paused,
        .max_running_requests = loads->max_num_seqs,
        .kv_blocks_total = loads->kv_blocks_total,
        .kv_blocks_used = loads->kv_blocks_used,
        .kv_blocks_cached = loads->kv_blocks_cached,
        .kv_block_tokens = loads->kv_block_tokens,
        .token_usage = ratios.kv_usage,
        .utilization = ratios.utilization,
        .cache_hit_rate = ratios.hit_rate,
        .prefix_queries_tokens = loads->prefix_queries_tokens,
        .prefix_hit_tokens = loads->prefix_hit_tokens,
        .prompt_tokens_total = loads->prompt_tokens_total,
        .generation_tokens_total = loads->generation_tokens_total,
        .requests_total = loads->requests_total,
        .requests_finished = loads->requests_finished,
        .preemptions_total = loads->preemptions_total,
        .steps_total = loads->steps_total,
        .gen_throughput = loads->tokens_per_s,
        .predicted_ttft_ns = loads->predicted_ttft_ns,
        .heartbeat_age_ns = loads->heartbeat_age_ns,
        .step_running = loads->step_running,
        .failed = loads->failed,
    };
    return encode(&bantam_v1_LoadsResponse_msg, &message);
}

/* --- GetTokenizer */

struct bytes_field {
    const uint8_t *data;
    size_t size;
};

static bool put_bytes(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    const struct bytes_field *bytes = *arg;
    return pb_encode_tag_for_field(stream, field) && pb_encode_string(stream, bytes->data, bytes->size);
}

struct codec_bytes protobuf_encode_tokenizer_chunk(const uint8_t *data, size_t size_bytes, const char *sha256)
{
    struct bytes_field bytes = {data, size_bytes};
    smg_grpc_common_GetTokenizerChunk message = {.data = {{.encode = put_bytes}, &bytes},
                                                 .sha256 = string_field(sha256)};
    return encode(&smg_grpc_common_GetTokenizerChunk_msg, &message);
}

/* --- SubscribeKvEvents */

/* Events of a batch that are one on the wire. */
struct kv_run {
    const struct kv_event *events; /* [n] */
    size_t n;
    uint32_t block_tokens;
};

static bool put_blocks(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    const struct kv_run *run = *arg;
    for (size_t i = 0; i < run->n; i++) {
        struct column ids = {run->events[i].token_ids, run->block_tokens, sizeof(uint32_t)};
        smg_grpc_common_KvBlock message = {
            .block_hash = run->events[i].block_hash,
            .token_ids = column_field(put_ids, &ids),
            .block_size = (int32_t)run->block_tokens,
        };
        if (!pb_encode_tag_for_field(stream, field) ||
            !pb_encode_submessage(stream, &smg_grpc_common_KvBlock_msg, &message))
            return false;
    }
    return true;
}

static bool put_stored(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    const struct kv_run *run = *arg;
    smg_grpc_common_KvBlocksStored message = {
        .blocks = {{.encode = put_blocks}, (void *)run},
        .has_parent_block_hash = run->events[0].has_parent,
        .parent_block_hash = run->events[0].parent_block_hash,
        .cache_salt = string_field(run->events[0].cache_salt),
    };
    return pb_encode_tag_for_field(stream, field) &&
           pb_encode_submessage(stream, &smg_grpc_common_KvBlocksStored_msg, &message);
}

static bool put_hashes(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    const struct kv_run *run = *arg;
    size_t size_bytes = 0;
    for (size_t i = 0; i < run->n; i++) {
        size_t n = 1;
        for (uint64_t left = (uint64_t)run->events[i].block_hash >> 7; left > 0; left >>= 7)
            n++;
        size_bytes += n;
    }
    if (!put_packed(stream, field, size_bytes))
        return false;
    if (!stream->callback)
        return pb_write(stream, NULL, size_bytes);
    for (size_t i = 0; i < run->n; i++)
        if (!pb_encode_varint(stream, (uint64_t)run->events[i].block_hash))
            return false;
    return true;
}

static bool put_removed(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    smg_grpc_common_KvBlocksRemoved message = {.block_hashes = {{.encode = put_hashes}, *arg}};
    return pb_encode_tag_for_field(stream, field) &&
           pb_encode_submessage(stream, &smg_grpc_common_KvBlocksRemoved_msg, &message);
}

static bool put_cleared(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    (void)arg;
    return pb_encode_tag_for_field(stream, field) && pb_encode_string(stream, NULL, 0);
}

struct kv_events_field {
    const struct kv_event_batch *batch;
    uint64_t last_event_id; /* before it */
};

static bool put_kv_events(pb_ostream_t *stream, const pb_field_t *field, void *const *arg)
{
    const struct kv_events_field *events = *arg;
    const struct kv_event_batch *batch = events->batch;
    uint64_t event_id = events->last_event_id;
    for (size_t i = 0; i < batch->n_events;) {
        struct kv_run run = {&batch->events[i], codec_kv_run(batch, i), batch->block_tokens};
        smg_grpc_common_KvCacheEvent message = {.event_id = batch->is_snapshot ? 0 : ++event_id};
        if (run.events->kind == KV_BLOCK_STORED)
            message.stored = (pb_callback_t){{.encode = put_stored}, &run};
        else if (run.events->kind == KV_BLOCK_REMOVED)
            message.removed = (pb_callback_t){{.encode = put_removed}, &run};
        else
            message.cleared = (pb_callback_t){{.encode = put_cleared}, &run};
        if (!pb_encode_tag_for_field(stream, field) ||
            !pb_encode_submessage(stream, &smg_grpc_common_KvCacheEvent_msg, &message))
            return false;
        i += run.n;
    }
    return true;
}

struct codec_bytes protobuf_encode_kv_events(const struct kv_event_batch *batch, uint64_t *last_event_id)
{
    struct kv_events_field events = {batch, *last_event_id};
    smg_grpc_common_KvEventBatch message = {
        .sequence_number = batch->sequence_number,
        .timestamp = (double)batch->unix_ns * 1e-9,
        .events = {{.encode = put_kv_events}, &events},
        .has_snapshot = batch->is_snapshot,
        .snapshot = {.index = batch->snapshot_index,
                     .count = batch->snapshot_count,
                     .blocks = batch->snapshot_blocks},
    };
    if (!batch->is_snapshot)
        *last_event_id += codec_kv_runs(batch);
    return encode(&smg_grpc_common_KvEventBatch_msg, &message);
}
