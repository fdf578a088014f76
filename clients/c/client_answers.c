/* Queries to bytes, and bytes to answers. */
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "clients/c/client_internal.h"
#include "proto/grpc_health.h"

const char *method_path(enum bantam_method method)
{
    static const char *const paths[] = {
        [BANTAM_GENERATE] = "/bantam.Bantam/Generate",
        [BANTAM_GENERATE_WHOLE] = "/bantam.Bantam/GenerateWhole",
        [BANTAM_TOKENIZE] = "/bantam.Bantam/Tokenize",
        [BANTAM_DETOKENIZE] = "/bantam.Bantam/Detokenize",
        [BANTAM_ABORT] = "/bantam.Bantam/Abort",
        [BANTAM_MODEL_INFO] = "/bantam.Bantam/ModelInfo",
        [BANTAM_SERVER_INFO] = "/bantam.Bantam/ServerInfo",
        [BANTAM_LOADS] = "/bantam.Bantam/GetLoads",
        [BANTAM_HEALTH] = "/grpc.health.v1.Health/Check",
    };
    ASSERT(method < sizeof paths / sizeof paths[0]);
    return paths[method];
}

static err_t copy_message(struct codec_bytes bytes, uint8_t **message, size_t *message_bytes)
{
    *message = bytes.data ? mem_alloc(bytes.size + 1) : NULL; /* not empty either */
    if (!*message)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a request");
    if (bytes.size > 0)
        memcpy(*message, bytes.data, bytes.size);
    *message_bytes = bytes.size;
    return err_ok();
}

static err_t encode_abort(const struct bantam_query *query, struct codec_bytes *out)
{
    if (query->n_request_ids < 1 || query->n_request_ids > BANTAM_ABORT_IDS_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "%zu request ids to abort; it must be 1 to %d",
                       query->n_request_ids, BANTAM_ABORT_IDS_MAX);
    struct abort_request request = {query->request_ids, query->n_request_ids};
    *out = codec_encode_abort(&request);
    return err_ok();
}

err_t query_encode(const struct bantam_query *query, uint8_t **message, size_t *message_bytes)
{
    static const uint8_t nothing[1];
    uint8_t health[HEALTH_SERVICE_BYTES_MAX + 3];
    struct codec_bytes bytes = {nothing, 0};
    struct generate_options generate = {.return_prompt_token_ids = query->return_prompt_token_ids,
                                        .openai_json = query->openai_json,
                                        .openai_json_bytes = query->openai_json_bytes};
    struct detokenize_request detokenize = {query->token_ids, query->n_token_ids,
                                            !query->keep_special_tokens};
    switch (query->method) {
    case BANTAM_GENERATE:
    case BANTAM_GENERATE_WHOLE:
        bytes = codec_encode_generate(query->request, &generate);
        break;
    case BANTAM_TOKENIZE:
        bytes = codec_encode_tokenize(query->request);
        break;
    case BANTAM_DETOKENIZE:
        bytes = codec_encode_detokenize(&detokenize);
        break;
    case BANTAM_ABORT:
        TRY(encode_abort(query, &bytes));
        break;
    case BANTAM_HEALTH:
        if (query->health_service && strlen(query->health_service) > BANTAM_HEALTH_SERVICE_BYTES_MAX)
            return err_new(ERR_INVALID_ARGUMENT, "the name of a service has at most %d bytes",
                           BANTAM_HEALTH_SERVICE_BYTES_MAX);
        bytes.size = health_encode_request(query->health_service ? query->health_service : "", health);
        bytes.data = health;
        break;
    case BANTAM_MODEL_INFO:
    case BANTAM_SERVER_INFO:
    case BANTAM_LOADS:
        break;
    }
    return copy_message(bytes, message, message_bytes);
}

static err_t decode_whole(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                          struct bantam_answer *out)
{
    struct codec_origin origin;
    TRY(codec_decode_whole(bytes, size_bytes, scratch, &origin, &out->whole.events, &out->whole.n_events));
    out->whole.request_id = origin.request_id;
    out->whole.model = origin.model;
    out->whole.fingerprint = origin.fingerprint;
    return err_ok();
}

static err_t decode_server_info(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                                struct bantam_answer *out)
{
    struct server_info info;
    TRY(codec_decode_server_info(bytes, size_bytes, scratch, &info));
    out->server_info.version = info.version;
    out->server_info.grpc_version = info.grpc_version;
    out->server_info.uptime_seconds = info.uptime_seconds;
    out->server_info.active_requests = info.active_requests;
    out->server_info.max_message_bytes = info.max_message_bytes;
    out->server_info.draining = info.draining;
    return err_ok();
}

err_t answer_decode(enum bantam_method method, const uint8_t *bytes, size_t size_bytes,
                    struct codec_scratch *scratch, struct bantam_answer *out)
{
    enum health_status health;
    *out = (struct bantam_answer){.method = method};
    switch (method) {
    case BANTAM_GENERATE_WHOLE:
        return decode_whole(bytes, size_bytes, scratch, out);
    case BANTAM_TOKENIZE:
        return codec_decode_token_ids(bytes, size_bytes, scratch, &out->tokens.ids, &out->tokens.n_ids);
    case BANTAM_DETOKENIZE:
        return codec_decode_text(bytes, size_bytes, scratch, &out->text.text, &out->text.text_bytes);
    case BANTAM_ABORT:
        return codec_decode_aborted(bytes, size_bytes, scratch, &out->abort.aborted, &out->abort.n_aborted);
    case BANTAM_MODEL_INFO:
        return codec_decode_model_info(bytes, size_bytes, scratch, &out->model_info);
    case BANTAM_SERVER_INFO:
        return decode_server_info(bytes, size_bytes, scratch, out);
    case BANTAM_LOADS:
        return codec_decode_loads(bytes, size_bytes, scratch, &out->loads);
    case BANTAM_HEALTH:
        TRY(health_decode_response(bytes, size_bytes, &health));
        out->serving = health == HEALTH_SERVING;
        return err_ok();
    case BANTAM_GENERATE:
        break;
    }
    ASSERT(!"a stream has events");
    return err_ok();
}

/* --- replies */

struct reply_private {
    struct bantam_reply reply; /* first: what the caller sees */
    uint8_t *bytes;
    struct codec_scratch scratch;
};

struct bantam_reply *reply_make(void)
{
    struct reply_private *reply = mem_alloc(sizeof *reply);
    return reply ? &reply->reply : NULL;
}

err_t reply_fill(struct bantam_reply *reply, enum bantam_method method, const uint8_t *bytes,
                 size_t size_bytes)
{
    struct reply_private *private = (struct reply_private *)reply;
    if (private->bytes)
        return err_new(ERR_DATA_LOSS, "two answers to one question");
    private->bytes = mem_alloc(size_bytes + 1);
    if (!private->bytes)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for an answer of %zu bytes", size_bytes);
    memcpy(private->bytes, bytes, size_bytes);
    return answer_decode(method, private->bytes, size_bytes, &private->scratch, &reply->answer);
}

void bantam_reply_free(struct bantam_reply *reply)
{
    struct reply_private *private = (struct reply_private *)reply;
    if (!private)
        return;
    codec_scratch_free(&private->scratch);
    mem_free(private->bytes);
    mem_free(private);
}
