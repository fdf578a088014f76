/* Requests in. */
#include <string.h>
#include <pb_decode.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "bantam_v1.pb.h"
#include "proto/codec_protobuf.h"
#include "vllm_engine.pb.h"

#define INVALID(...)  err_new(ERR_INVALID_ARGUMENT, __VA_ARGS__)
#define LACKING(...)  err_new(ERR_UNIMPLEMENTED, __VA_ARGS__)
#define NEEDS_GRAMMAR "it needs constrained decoding, which this server does not have yet"
#define NEEDS_MEDIA   "this model takes and gives text only"
#define NEEDS_PEER    "prefill and decode are not split between servers"

/* A message that is read. */
struct source {
    const uint8_t *at, *end;
};

static bool read_source(pb_istream_t *stream, pb_byte_t *to, size_t n_bytes)
{
    struct source *source = stream->state;
    if (n_bytes > (size_t)(source->end - source->at))
        return false;
    if (to)
        memcpy(to, source->at, n_bytes);
    source->at += n_bytes;
    return true;
}

static pb_istream_t open_source(struct source *source)
{
    return (pb_istream_t){
        .callback = read_source, .state = source, .bytes_left = (size_t)(source->end - source->at)};
}

static err_t malformed(const char *type, const pb_istream_t *stream)
{
    return INVALID("the message is not a well-formed protobuf message %s: %s", type, PB_GET_ERROR(stream));
}

/* The lists of a request. With `counting` they are only counted; then they are laid out in one block and
 * filled. */
struct lists {
    bool counting;
    size_t n_ids, n_stop_ids, n_bias, n_names, name_bytes;
    uint32_t *ids, *stop_ids;
    struct logit_bias *bias;
    const char **names; /* stop strings, or Abort's ids */
    char *name_at;
    const char *request_id; /* NULL = not there or empty */
    const char *text;       /* in the message */
    size_t text_bytes;
    const char *lacking, *why; /* the first field that was there and is refused */
    err_t error;               /* of a value; the bytes are well-formed */
};

/* nanopb hands a callback a length-delimited field where it lies, and anything else as a copy of its own. */
static bool is_delimited(const pb_istream_t *stream)
{
    return stream->callback == read_source;
}

/* The bytes of a string field, where they lie; NULL for another kind of field. */
static const char *take_bytes(pb_istream_t *stream, size_t *n_bytes)
{
    if (!is_delimited(stream)) {
        PB_SET_ERROR(stream, "wrong wire type");
        return NULL;
    }
    const struct source *source = stream->state;
    const char *bytes = (const char *)source->at;
    *n_bytes = stream->bytes_left;
    return pb_read(stream, NULL, *n_bytes) ? bytes : NULL;
}

/* A copy with a NUL; NULL ends the reading. */
static const char *take_name(struct lists *lists, pb_istream_t *stream, const char *field)
{
    size_t n_bytes;
    const char *bytes = take_bytes(stream, &n_bytes);
    if (!bytes)
        return NULL;
    if (memchr(bytes, 0, n_bytes)) {
        lists->error = INVALID("%s contains a NUL character", field);
        return NULL;
    }
    if (lists->counting) {
        lists->name_bytes += n_bytes + 1;
        return "";
    }
    char *name = lists->name_at;
    memcpy(name, bytes, n_bytes);
    name[n_bytes] = '\0';
    lists->name_at += n_bytes + 1;
    return name;
}

static bool on_request_id(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
    (void)field;
    struct lists *lists = *arg;
    const char *name = take_name(lists, stream, "request_id");
    lists->request_id = name && name[0] != '\0' ? name : NULL;
    return name != NULL;
}

static bool on_name(struct lists *lists, pb_istream_t *stream, const char *field)
{
    const char *name = take_name(lists, stream, field);
    if (!name)
        return false;
    if (!lists->counting)
        lists->names[lists->n_names] = name;
    lists->n_names++;
    return true;
}

static bool on_stop(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
    (void)field;
    return on_name(*arg, stream, "stop");
}

static bool on_abort_id(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
    (void)field;
    return on_name(*arg, stream, "request_ids");
}

static bool on_text(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
    (void)field;
    struct lists *lists = *arg;
    lists->text = take_bytes(stream, &lists->text_bytes);
    return lists->text != NULL;
}

/* Numbers in a packed run: each ends with a byte that has no continuation bit, and so does the run. */
static bool count_packed(pb_istream_t *stream, size_t *n)
{
    const struct source *source = stream->state;
    size_t n_bytes = stream->bytes_left;
    for (size_t i = 0; i < n_bytes; i++)
        *n += (source->at[i] & 0x80) == 0;
    if (n_bytes > 0 && (source->at[n_bytes - 1] & 0x80) != 0)
        PB_RETURN_ERROR(stream, "a number has no end");
    return pb_read(stream, NULL, n_bytes);
}

/* A packed run, or one number where it is not packed. */
static bool take_ids(bool counting, pb_istream_t *stream, uint32_t *ids, size_t *n_ids)
{
    uint32_t counted;
    if (!is_delimited(stream)) {
        size_t i = (*n_ids)++;
        return pb_decode_varint32(stream, counting ? &counted : &ids[i]) && stream->bytes_left == 0;
    }
    if (counting)
        return count_packed(stream, n_ids);
    while (stream->bytes_left > 0)
        if (!pb_decode_varint32(stream, &ids[(*n_ids)++]))
            return false;
    return true;
}

static bool on_ids(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
    (void)field;
    struct lists *lists = *arg;
    return take_ids(lists->counting, stream, lists->ids, &lists->n_ids);
}

static bool on_stop_ids(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
    (void)field;
    struct lists *lists = *arg;
    return take_ids(lists->counting, stream, lists->stop_ids, &lists->n_stop_ids);
}

static bool on_logit_bias(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
    (void)field;
    struct lists *lists = *arg;
    vllm_grpc_engine_SamplingParams_LogitBiasEntry entry =
        vllm_grpc_engine_SamplingParams_LogitBiasEntry_init_zero;
    if (!is_delimited(stream) ||
        !pb_decode(stream, &vllm_grpc_engine_SamplingParams_LogitBiasEntry_msg, &entry))
        return false;
    if (entry.key < 0) {
        lists->error = INVALID("logit_bias names %d, which is not a token id", (int)entry.key);
        return false;
    }
    if (!lists->counting)
        lists->bias[lists->n_bias] = (struct logit_bias){(uint32_t)entry.key, entry.value};
    lists->n_bias++;
    return true;
}

/* --- what this server does not do */

struct lacking_field {
    struct lists *lists;
    const char *name, *why;
    bool unless_empty; /* a string that asks for nothing when it is empty */
};

static bool on_lacking(pb_istream_t *stream, const pb_field_t *field, void **arg)
{
    (void)field;
    const struct lacking_field *lacking = *arg;
    if (!lacking->lists->lacking && (stream->bytes_left > 0 || !lacking->unless_empty)) {
        lacking->lists->lacking = lacking->name;
        lacking->lists->why = lacking->why;
    }
    return pb_read(stream, NULL, stream->bytes_left);
}

/* --- Generate */

enum { N_LACKING = 10 };

static void listen(pb_callback_t *callback, bool (*decode)(pb_istream_t *, const pb_field_t *, void **),
                   void *arg)
{
    callback->funcs.decode = decode;
    callback->arg = arg;
}

static err_t read_generate(const uint8_t *bytes, size_t size_bytes, struct lists *lists,
                           vllm_grpc_engine_GenerateRequest *out)
{
    *out = (vllm_grpc_engine_GenerateRequest)vllm_grpc_engine_GenerateRequest_init_zero;
    vllm_grpc_engine_SamplingParams *sampling = &out->sampling_params;
    struct lacking_field lacking[] = {
        {lists, "kv_transfer_params", NEEDS_PEER, false},
        {lists, "kv_transfer_params_json", NEEDS_PEER, true},
        {lists, "mm_inputs", NEEDS_MEDIA, false},
        {lists, "extra_mm_inputs", NEEDS_MEDIA, false},
        {lists, "media_refs", NEEDS_MEDIA, false},
        {lists, "json_schema", NEEDS_GRAMMAR, false},
        {lists, "regex", NEEDS_GRAMMAR, false},
        {lists, "grammar", NEEDS_GRAMMAR, false},
        {lists, "structural_tag", NEEDS_GRAMMAR, false},
        {lists, "choice", NEEDS_GRAMMAR, false},
    };
    pb_callback_t *refused[] = {&out->kv_transfer_params,  &out->kv_transfer_params_json,
                                &out->mm_inputs,           &out->extra_mm_inputs,
                                &out->media_refs,          &sampling->json_schema,
                                &sampling->regex,          &sampling->grammar,
                                &sampling->structural_tag, &sampling->choice};
    _Static_assert(sizeof refused / sizeof refused[0] == N_LACKING, "a callback for each");
    _Static_assert(sizeof lacking / sizeof lacking[0] == N_LACKING, "a reason for each");
    for (size_t i = 0; i < N_LACKING; i++)
        listen(refused[i], on_lacking, &lacking[i]);
    listen(&out->request_id, on_request_id, lists);
    listen(&out->text, on_text, lists);
    listen(&out->tokenized.input_ids, on_ids, lists);
    listen(&sampling->stop, on_stop, lists);
    listen(&sampling->stop_token_ids, on_stop_ids, lists);
    listen(&sampling->logit_bias, on_logit_bias, lists);
    struct source source = {bytes, bytes + size_bytes};
    pb_istream_t stream = open_source(&source);
    if (pb_decode(&stream, &vllm_grpc_engine_GenerateRequest_msg, out))
        return err_ok();
    return lists->error.code != ERR_OK ? lists->error
                                       : malformed("vllm.grpc.engine.GenerateRequest", &stream);
}

/* One block for all lists that were counted, and zero counts again. */
static err_t lay_out(struct lists *lists, size_t size_bytes, struct codec_scratch *scratch)
{
    size_t names = lists->n_names * sizeof *lists->names, bias = lists->n_bias * sizeof *lists->bias;
    size_t ids = lists->n_ids * sizeof *lists->ids, stop_ids = lists->n_stop_ids * sizeof *lists->stop_ids;
    size_t all = names + bias + ids + stop_ids + lists->name_bytes;
    lists->counting = false;
    lists->request_id = NULL;
    lists->n_names = lists->n_bias = lists->n_ids = lists->n_stop_ids = 0;
    ASSERT(all <= PROTOBUF_GROWTH_MAX * size_bytes);
    if (all == 0)
        return err_ok();
    mem_free(scratch->arrays);
    char *at = mem_alloc(all);
    scratch->arrays = at;
    if (!at)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a message's lists (%zu bytes)", all);
    lists->names = (const char **)at;
    lists->bias = (struct logit_bias *)(at + names);
    lists->ids = (uint32_t *)(at + names + bias);
    lists->stop_ids = (uint32_t *)(at + names + bias + ids);
    lists->name_at = at + names + bias + ids + stop_ids;
    return err_ok();
}

static err_t refuse_lacking(const vllm_grpc_engine_GenerateRequest *from, const struct lists *lists)
{
    const vllm_grpc_engine_SamplingParams *sampling = &from->sampling_params;
    if (lists->lacking)
        return LACKING("%s is not supported: %s", lists->lacking, lists->why);
    if (sampling->json_object)
        return LACKING("json_object is not supported: " NEEDS_GRAMMAR);
    if (from->has_data_parallel_rank && from->data_parallel_rank != 0)
        return INVALID("data_parallel_rank is %d; rank 0 is the only one", (int)from->data_parallel_rank);
    return err_ok();
}

static err_t read_prompt(const vllm_grpc_engine_GenerateRequest *from, const struct lists *lists,
                         struct request *out)
{
    if (from->has_tokenized && lists->text)
        return INVALID("the request has several prompts; set one of text and tokenized");
    if (from->has_tokenized) {
        out->prompt_kind = PROMPT_TOKEN_IDS;
        out->token_ids = lists->n_ids > 0 ? lists->ids : NULL;
        out->n_token_ids = lists->n_ids;
    } else if (lists->text) {
        out->prompt_kind = PROMPT_TEXT;
        out->text = lists->text;
        out->text_bytes = lists->text_bytes;
    }
    return err_ok();
}

static err_t read_logprobs(bool has, const char *field, int32_t value, uint32_t bit, int32_t *to,
                           struct sampling_params *out)
{
    if (!has)
        return err_ok();
    if (value < 0)
        return INVALID("%s is %d; it must be 0 to %d", field, (int)value, SAMPLING_LOGPROBS_MAX);
    *to = value;
    out->set |= bit;
    return err_ok();
}

static void read_float(float value, uint32_t bit, float *to, struct sampling_params *out)
{
    if (value == 0)
        return;
    *to = value;
    out->set |= bit;
}

static void read_count(uint32_t value, uint32_t bit, uint32_t *to, struct sampling_params *out)
{
    if (value == 0)
        return;
    *to = value;
    out->set |= bit;
}

static err_t read_sampling(const vllm_grpc_engine_SamplingParams *from, const struct lists *lists,
                           struct sampling_params *out)
{
    if (from->has_temperature) {
        out->temperature = from->temperature;
        out->set |= SAMPLING_TEMPERATURE;
    }
    read_float(from->top_p, SAMPLING_TOP_P, &out->top_p, out);
    read_float(from->min_p, SAMPLING_MIN_P, &out->min_p, out);
    read_float(from->frequency_penalty, SAMPLING_FREQUENCY_PENALTY, &out->frequency_penalty, out);
    read_float(from->presence_penalty, SAMPLING_PRESENCE_PENALTY, &out->presence_penalty, out);
    read_float(from->repetition_penalty, SAMPLING_REPETITION_PENALTY, &out->repetition_penalty, out);
    read_count(from->min_tokens, SAMPLING_MIN_TOKENS, &out->min_tokens, out);
    read_count(from->n, SAMPLING_N, &out->n, out);
    if (from->top_k > INT32_MAX)
        return INVALID("top_k is %u; it must be 0 to %d", (unsigned)from->top_k, INT32_MAX);
    if (from->top_k != 0) {
        out->top_k = (int32_t)from->top_k;
        out->set |= SAMPLING_TOP_K;
    }
    if (from->has_seed) {
        out->seed = (uint64_t)(int64_t)from->seed;
        out->set |= SAMPLING_SEED;
    }
    if (from->has_truncate_prompt_tokens) {
        out->truncate_prompt_tokens = from->truncate_prompt_tokens;
        out->set |= SAMPLING_TRUNCATE_PROMPT_TOKENS;
    }
    TRY(read_logprobs(from->has_logprobs, "logprobs", from->logprobs, SAMPLING_LOGPROBS, &out->logprobs,
                      out));
    TRY(read_logprobs(from->has_prompt_logprobs, "prompt_logprobs", from->prompt_logprobs,
                      SAMPLING_PROMPT_LOGPROBS, &out->prompt_logprobs, out));
    out->ignore_eos = from->ignore_eos;
    out->skip_special_tokens = from->skip_special_tokens;
    out->include_stop_str_in_output = from->include_stop_str_in_output;
    out->set |= SAMPLING_IGNORE_EOS | SAMPLING_SKIP_SPECIAL_TOKENS | SAMPLING_INCLUDE_STOP;
    out->n_stop = lists->n_names;
    out->stop = lists->n_names > 0 ? lists->names : NULL;
    out->n_stop_token_ids = lists->n_stop_ids;
    out->stop_token_ids = lists->n_stop_ids > 0 ? lists->stop_ids : NULL;
    out->n_logit_bias = lists->n_bias;
    out->logit_bias = lists->n_bias > 0 ? lists->bias : NULL;
    return err_ok();
}

err_t protobuf_decode_generate(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                               struct request *out, struct generate_options *options)
{
    *out = (struct request){.tenant = "", .deadline_ns = REQUEST_NO_DEADLINE};
    *options = (struct generate_options){0};
    struct lists lists = {.counting = true, .error = err_ok()};
    vllm_grpc_engine_GenerateRequest message;
    TRY(read_generate(bytes, size_bytes, &lists, &message));
    TRY(refuse_lacking(&message, &lists));
    TRY(lay_out(&lists, size_bytes, scratch));
    TRY(read_generate(bytes, size_bytes, &lists, &message));
    out->request_id = lists.request_id;
    TRY(read_prompt(&message, &lists, out));
    /* These clients mean "as many as fit" by saying nothing. */
    out->sampling.max_tokens =
        message.sampling_params.has_max_tokens ? message.sampling_params.max_tokens : 0;
    out->sampling.set |= SAMPLING_MAX_TOKENS;
    if (message.has_sampling_params)
        TRY(read_sampling(&message.sampling_params, &lists, &out->sampling));
    options->whole = !message.stream;
    return err_ok();
}

/* --- the others */

static err_t read_abort(const uint8_t *bytes, size_t size_bytes, struct lists *lists)
{
    vllm_grpc_engine_AbortRequest message = vllm_grpc_engine_AbortRequest_init_zero;
    listen(&message.request_ids, on_abort_id, lists);
    struct source source = {bytes, bytes + size_bytes};
    pb_istream_t stream = open_source(&source);
    if (pb_decode(&stream, &vllm_grpc_engine_AbortRequest_msg, &message))
        return err_ok();
    return lists->error.code != ERR_OK ? lists->error : malformed("vllm.grpc.engine.AbortRequest", &stream);
}

err_t protobuf_decode_abort(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                            struct abort_request *out)
{
    *out = (struct abort_request){0};
    struct lists lists = {.counting = true, .error = err_ok()};
    TRY(read_abort(bytes, size_bytes, &lists));
    TRY(codec_check_abort_ids(lists.n_names));
    TRY(lay_out(&lists, size_bytes, scratch));
    TRY(read_abort(bytes, size_bytes, &lists));
    out->request_ids = lists.names;
    out->n_request_ids = lists.n_names;
    return err_ok();
}

err_t protobuf_decode_watch_loads(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                                  uint32_t *interval_ms)
{
    (void)scratch;
    bantam_v1_WatchLoadsRequest message = bantam_v1_WatchLoadsRequest_init_zero;
    struct source source = {bytes, bytes + size_bytes};
    pb_istream_t stream = open_source(&source);
    if (!pb_decode(&stream, &bantam_v1_WatchLoadsRequest_msg, &message))
        return malformed("bantam.v1.WatchLoadsRequest", &stream);
    *interval_ms = message.has_interval_ms ? message.interval_ms : CODEC_WATCH_INTERVAL_DEFAULT_MS;
    return codec_check_watch_interval(*interval_ms);
}

err_t protobuf_decode_kv_subscribe(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                                   uint64_t *start_sequence_number)
{
    (void)scratch;
    smg_grpc_common_SubscribeKvEventsRequest message = smg_grpc_common_SubscribeKvEventsRequest_init_zero;
    struct source source = {bytes, bytes + size_bytes};
    pb_istream_t stream = open_source(&source);
    if (!pb_decode(&stream, &smg_grpc_common_SubscribeKvEventsRequest_msg, &message))
        return malformed("smg.grpc.common.SubscribeKvEventsRequest", &stream);
    *start_sequence_number = message.start_sequence_number;
    return err_ok();
}

err_t protobuf_decode_empty(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch)
{
    (void)scratch;
    vllm_grpc_engine_HealthCheckRequest message = vllm_grpc_engine_HealthCheckRequest_init_zero;
    struct source source = {bytes, bytes + size_bytes};
    pb_istream_t stream = open_source(&source);
    if (!pb_decode(&stream, &vllm_grpc_engine_HealthCheckRequest_msg, &message))
        return INVALID("the message is not well-formed protobuf: %s", PB_GET_ERROR(&stream));
    return err_ok();
}
