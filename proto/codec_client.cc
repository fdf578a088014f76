/* The client's half of the codec: requests out, answers in. */
#include "proto/codec_internal.h"

#include <cstring>
#include <vector>

namespace
{

using message_vector = flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<bantam::ChatMessage>>>;
using string_vector = flatbuffers::Offset<flatbuffers::Vector<string_offset>>;

string_vector encode_strings(builder_t &builder, const char *const *strings, size_t n_strings)
{
    if (n_strings == 0)
        return 0;
    std::vector<string_offset> offsets;
    for (size_t i = 0; i < n_strings; i++)
        offsets.push_back(builder.CreateString(strings[i]));
    return builder.CreateVector(offsets);
}

message_vector encode_messages(builder_t &builder, const struct request *request)
{
    if (request->prompt_kind != PROMPT_MESSAGES)
        return 0;
    std::vector<flatbuffers::Offset<bantam::ChatMessage>> messages;
    for (size_t i = 0; i < request->n_messages; i++) {
        const struct chat_message *message = &request->messages[i];
        string_offset role = builder.CreateString(message->role);
        string_offset content = builder.CreateString(message->content, message->content_bytes);
        messages.push_back(bantam::CreateChatMessage(builder, role, content));
    }
    return builder.CreateVector(messages);
}

string_offset encode_prompt_text(builder_t &builder, const struct request *request)
{
    if (request->prompt_kind != PROMPT_TEXT)
        return 0;
    return builder.CreateString(request->text_bytes > 0 ? request->text : "", request->text_bytes);
}

string_offset encode_template(builder_t &builder, const struct request *request)
{
    if (request->prompt_kind != PROMPT_MESSAGES || !request->template_json)
        return 0;
    return builder.CreateString(request->template_json, request->template_json_bytes);
}

void add_scalars(bantam::SamplingParamsBuilder &out, const struct sampling_params *params)
{
    uint32_t set = params->set;
    if (set & SAMPLING_TEMPERATURE)
        out.add_temperature(params->temperature);
    if (set & SAMPLING_TOP_P)
        out.add_top_p(params->top_p);
    if (set & SAMPLING_TOP_K)
        out.add_top_k(params->top_k);
    if (set & SAMPLING_MIN_P)
        out.add_min_p(params->min_p);
    if (set & SAMPLING_FREQUENCY_PENALTY)
        out.add_frequency_penalty(params->frequency_penalty);
    if (set & SAMPLING_PRESENCE_PENALTY)
        out.add_presence_penalty(params->presence_penalty);
    if (set & SAMPLING_REPETITION_PENALTY)
        out.add_repetition_penalty(params->repetition_penalty);
    if (set & SAMPLING_MAX_TOKENS)
        out.add_max_tokens(params->max_tokens);
    if (set & SAMPLING_MIN_TOKENS)
        out.add_min_tokens(params->min_tokens);
    if (set & SAMPLING_N)
        out.add_n(params->n);
    if (set & SAMPLING_SEED)
        out.add_seed(params->seed);
    if (set & SAMPLING_LOGPROBS)
        out.add_logprobs(params->logprobs);
    if (set & SAMPLING_PROMPT_LOGPROBS)
        out.add_prompt_logprobs(params->prompt_logprobs);
    if (set & SAMPLING_IGNORE_EOS)
        out.add_ignore_eos(params->ignore_eos);
    if (set & SAMPLING_SKIP_SPECIAL_TOKENS)
        out.add_skip_special_tokens(params->skip_special_tokens);
    if (set & SAMPLING_INCLUDE_STOP)
        out.add_include_stop_str_in_output(params->include_stop_str_in_output);
    if (set & SAMPLING_TRUNCATE_PROMPT_TOKENS)
        out.add_truncate_prompt_tokens(params->truncate_prompt_tokens);
    if (set & SAMPLING_SPACES_BETWEEN_SPECIAL_TOKENS)
        out.add_spaces_between_special_tokens(params->spaces_between_special_tokens);
}

flatbuffers::Offset<bantam::SamplingParams> encode_sampling(builder_t &builder,
                                                            const struct sampling_params *params)
{
    string_vector stop = encode_strings(builder, params->stop, params->n_stop);
    string_vector bad_words = encode_strings(builder, params->bad_words, params->n_bad_words);
    ids_offset stop_ids = codec_id_vector(builder, params->stop_token_ids, params->n_stop_token_ids);
    ids_offset allowed = codec_id_vector(builder, params->allowed_token_ids, params->n_allowed_token_ids);
    flatbuffers::Offset<flatbuffers::Vector<const bantam::LogitBias *>> bias;
    if (params->n_logit_bias > 0)
        bias = builder.CreateVectorOfStructs(reinterpret_cast<const bantam::LogitBias *>(params->logit_bias),
                                             params->n_logit_bias);
    bantam::SamplingParamsBuilder out(builder);
    add_scalars(out, params);
    out.add_stop(stop);
    out.add_stop_token_ids(stop_ids);
    out.add_logit_bias(bias);
    out.add_allowed_token_ids(allowed);
    out.add_bad_words(bad_words);
    return out.Finish();
}

/* Places for the logprobs of one event. */
void decode_positions(const flatbuffers::Vector<float> *logprobs, const flatbuffers::Vector<uint32_t> *ids,
                      const flatbuffers::Vector<uint32_t> *ranks,
                      const flatbuffers::Vector<flatbuffers::Offset<bantam::TopLogProbs>> *top,
                      struct position_logprobs *out, size_t n)
{
    for (flatbuffers::uoffset_t i = 0; i < n; i++) {
        out[i].chosen.logprob = logprobs->Get(i);
        out[i].chosen.token_id = ids && i < ids->size() ? ids->Get(i) : 0;
        out[i].rank = ranks && i < ranks->size() ? ranks->Get(i) : 0;
        if (!top || i >= top->size() || !top->Get(i)->values() || !top->Get(i)->token_ids())
            continue;
        const bantam::TopLogProbs *best = top->Get(i);
        flatbuffers::uoffset_t n_top = best->values()->size();
        if (n_top > best->token_ids()->size())
            n_top = best->token_ids()->size();
        if (n_top > SAMPLING_LOGPROBS_MAX)
            n_top = SAMPLING_LOGPROBS_MAX;
        out[i].n_top = n_top;
        for (flatbuffers::uoffset_t k = 0; k < n_top; k++)
            out[i].top[k] = {best->token_ids()->Get(k), best->values()->Get(k)};
    }
}

template <class L> size_t count_logprobs(const L *logprobs)
{
    return logprobs && logprobs->token_logprobs() ? logprobs->token_logprobs()->size() : 0;
}

template <class L> const struct position_logprobs *take_logprobs(const L *logprobs, size_t n, char **arrays)
{
    if (n == 0)
        return nullptr;
    struct position_logprobs *positions = reinterpret_cast<struct position_logprobs *>(*arrays);
    *arrays += n * sizeof *positions;
    decode_positions(logprobs->token_logprobs(), logprobs->token_ids(), logprobs->ranks(),
                     logprobs->top_logprobs(), positions, n);
    return positions;
}

enum finish_reason reason_of(const flatbuffers::String *name)
{
    static const enum finish_reason reasons[] = {FINISH_STOP,  FINISH_LENGTH,     FINISH_ABORT,
                                                 FINISH_ERROR, FINISH_TOOL_CALLS, FINISH_CONTENT_FILTER};
    for (enum finish_reason reason : reasons)
        if (name && std::strcmp(name->c_str(), finish_reason_name(reason)) == 0)
            return reason;
    return FINISH_NONE;
}

/* What the schema leaves out when it is empty reads as "". */
const char *text_or_empty(const flatbuffers::String *text)
{
    return text ? text->c_str() : "";
}

const char *text_or_null(const flatbuffers::String *text)
{
    return text ? text->c_str() : nullptr;
}

template <class M> size_t count_tool_calls(const M *from)
{
    return from->tool_calls() ? from->tool_calls()->size() : 0;
}

template <class M> void decode_tool_calls(const M *from, char **arrays, struct event *out)
{
    out->n_tool_calls = count_tool_calls(from);
    if (out->n_tool_calls == 0)
        return;
    struct tool_call *calls = reinterpret_cast<struct tool_call *>(*arrays);
    *arrays += out->n_tool_calls * sizeof *calls;
    for (flatbuffers::uoffset_t i = 0; i < out->n_tool_calls; i++) {
        const bantam::ToolCall *call = from->tool_calls()->Get(i);
        calls[i] = {call->index(), text_or_null(call->id()), text_or_null(call->name()),
                    text_or_empty(call->arguments()), call->arguments() ? call->arguments()->size() : 0};
    }
    out->tool_calls = calls;
}

template <class M> void decode_source(const M *from, char **arrays, struct event *out)
{
    const bantam::AnswerSource *source = from->source();
    if (!source)
        return;
    struct answer_source *decoded = reinterpret_cast<struct answer_source *>(*arrays);
    *arrays += sizeof *decoded;
    *decoded = {text_or_empty(source->provider()),       text_or_empty(source->model()),
                text_or_empty(source->reason()),         text_or_empty(source->rule()),
                text_or_empty(source->cache()),          text_or_empty(source->fingerprint()),
                text_or_empty(source->dropped()),        text_or_empty(source->decision_id()),
                source->cost_nanodollars().value_or(-1), source->attempts()};
    out->source = decoded;
}

/* What no engine of ours answers. */
template <class M> void decode_pieces(const M *from, char **arrays, struct event *out)
{
    decode_tool_calls(from, arrays, out);
    decode_source(from, arrays, out);
    out->refusal = text_or_null(from->refusal());
    out->refusal_bytes = from->refusal() ? from->refusal()->size() : 0;
    out->reasoning = text_or_null(from->reasoning());
    out->reasoning_bytes = from->reasoning() ? from->reasoning()->size() : 0;
}

/* Chunk and complete alike; arrays has room for arrays_bytes_of the message. */
template <class M> void decode_common(const M *from, char **arrays, struct event *out)
{
    out->choice_index = from->index();
    out->text = from->text() ? from->text()->c_str() : "";
    out->text_bytes = from->text() ? from->text()->size() : 0;
    out->n_logprobs = count_logprobs(from->output_logprobs());
    out->logprobs = take_logprobs(from->output_logprobs(), out->n_logprobs, arrays);
    out->n_prompt_logprobs = count_logprobs(from->input_logprobs());
    out->prompt_logprobs = take_logprobs(from->input_logprobs(), out->n_prompt_logprobs, arrays);
    decode_pieces(from, arrays, out);
    codec_ids(from->prompt_token_ids(), &out->prompt_token_ids, &out->n_prompt_token_ids);
    out->usage.prompt_tokens = from->prompt_tokens();
    out->usage.completion_tokens = from->completion_tokens();
    out->stop_token_id = -1;
    out->error.code = ERR_OK;
}

void decode_complete(const bantam::GenerateComplete *from, char **arrays, struct event *out)
{
    decode_common(from, arrays, out);
    out->kind = EVENT_FINISHED;
    codec_ids(from->output_ids(), &out->token_ids, &out->n_token_ids);
    out->finish_reason = reason_of(from->finish_reason());
    out->stop_string = from->matched_stop_str() ? from->matched_stop_str()->c_str() : nullptr;
    if (from->matched_token_id())
        out->stop_token_id = *from->matched_token_id();
    out->usage.cached_tokens = from->cached_tokens();
    out->usage.preemptions = from->preemptions();
    out->usage.is_unknown = from->usage_unknown();
    out->timings = {-1, -1, -1};
    if (from->timings())
        out->timings = {from->timings()->queue_ns(), from->timings()->prefill_ns(),
                        from->timings()->decode_ns()};
}

struct codec_origin origin_of(const flatbuffers::String *request_id, const bantam::GenerateComplete *complete)
{
    return {text_or_empty(request_id), text_or_empty(complete ? complete->model() : nullptr),
            text_or_empty(complete ? complete->fingerprint() : nullptr)};
}

template <class M> size_t arrays_bytes_of(const M *from)
{
    return (count_logprobs(from->output_logprobs()) + count_logprobs(from->input_logprobs())) *
               sizeof(struct position_logprobs) +
           count_tool_calls(from) * sizeof(struct tool_call) +
           (from->source() ? sizeof(struct answer_source) : 0);
}
static_assert(sizeof(struct position_logprobs) % alignof(struct tool_call) == 0, "they stand in one block");
static_assert(sizeof(struct tool_call) % alignof(struct answer_source) == 0, "they stand in one block");
static_assert(sizeof(struct answer_source) % alignof(struct position_logprobs) == 0,
              "they stand in one block");

} // namespace

struct codec_bytes codec_encode_generate(const struct request *request,
                                         const struct generate_options *options)
{
    builder_t &builder = codec_builder();
    string_offset request_id = codec_string(builder, request->request_id);
    string_offset model = codec_string(builder, request->model);
    string_offset text = encode_prompt_text(builder, request);
    message_vector messages = encode_messages(builder, request);
    string_offset template_json = encode_template(builder, request);
    ids_offset ids;
    if (request->prompt_kind == PROMPT_TOKEN_IDS)
        ids = builder.CreateVector(request->token_ids, request->n_token_ids);
    ids_offset prefix = codec_id_vector(builder, request->output_prefix_ids, request->n_output_prefix_ids);
    string_offset openai_json;
    if (options && options->openai_json)
        openai_json = builder.CreateString(options->openai_json, options->openai_json_bytes);
    flatbuffers::Offset<bantam::SamplingParams> sampling = encode_sampling(builder, &request->sampling);
    bantam::GenerateRequestBuilder out(builder);
    out.add_request_id(request_id);
    out.add_text(text);
    out.add_input_ids(ids);
    out.add_messages(messages);
    out.add_sampling_params(sampling);
    out.add_output_prefix_ids(prefix);
    out.add_model(model);
    if (request->priority != 0)
        out.add_priority(request->priority);
    if (request->no_special_tokens)
        out.add_add_special_tokens(false);
    if (request->no_generation_prompt)
        out.add_add_generation_prompt(false);
    if (options && options->return_prompt_token_ids)
        out.add_return_prompt_token_ids(true);
    out.add_openai_json(openai_json);
    out.add_template_json(template_json);
    return codec_finish(builder, out.Finish());
}

struct codec_bytes codec_encode_tokenize(const struct request *request)
{
    builder_t &builder = codec_builder();
    string_offset model = codec_string(builder, request->model);
    string_offset text = encode_prompt_text(builder, request);
    message_vector messages = encode_messages(builder, request);
    string_offset template_json = encode_template(builder, request);
    bantam::TokenizeRequestBuilder out(builder);
    out.add_text(text);
    out.add_messages(messages);
    out.add_model(model);
    out.add_template_json(template_json);
    if (request->no_special_tokens)
        out.add_add_special_tokens(false);
    if (request->no_generation_prompt)
        out.add_add_generation_prompt(false);
    return codec_finish(builder, out.Finish());
}

struct codec_bytes codec_encode_detokenize(const struct detokenize_request *request)
{
    builder_t &builder = codec_builder();
    ids_offset ids = codec_id_vector(builder, request->token_ids, request->n_token_ids);
    return codec_finish(builder, bantam::CreateDetokenizeRequest(builder, ids, request->skip_special_tokens));
}

struct codec_bytes codec_encode_abort(const struct abort_request *request)
{
    builder_t &builder = codec_builder();
    string_vector ids = encode_strings(builder, request->request_ids, request->n_request_ids);
    return codec_finish(builder, bantam::CreateAbortRequest(builder, ids));
}

struct codec_bytes codec_encode_watch_loads(uint32_t interval_ms)
{
    builder_t &builder = codec_builder();
    return codec_finish(builder, bantam::CreateWatchLoadsRequest(builder, interval_ms));
}

err_t codec_decode_response(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                            struct codec_origin *origin, struct event *out)
{
    *out = {};
    const bantam::GenerateResponse *root = nullptr;
    TRY(codec_root(bytes, size_bytes, ERR_DATA_LOSS, "GenerateResponse", scratch, &root));
    *origin = origin_of(root->request_id(), root->complete());
    if (!root->chunk() == !root->complete())
        return err_new(ERR_DATA_LOSS, "an answer must be either a chunk or a complete");
    size_t arrays_bytes = root->chunk() ? arrays_bytes_of(root->chunk()) : arrays_bytes_of(root->complete());
    if (arrays_bytes > 0)
        TRY(codec_arrays(scratch, arrays_bytes));
    char *arrays = static_cast<char *>(scratch->arrays);
    if (root->complete()) {
        decode_complete(root->complete(), &arrays, out);
        return err_ok();
    }
    decode_common(root->chunk(), &arrays, out);
    out->kind = EVENT_TOKENS;
    codec_ids(root->chunk()->token_ids(), &out->token_ids, &out->n_token_ids);
    return err_ok();
}

err_t codec_decode_whole(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                         struct codec_origin *origin, const struct event **events, size_t *n_events)
{
    const bantam::GenerateWholeResponse *root = nullptr;
    TRY(codec_root(bytes, size_bytes, ERR_DATA_LOSS, "GenerateWholeResponse", scratch, &root));
    *n_events = root->choices() ? root->choices()->size() : 0;
    if (*n_events == 0)
        return err_new(ERR_DATA_LOSS, "an answer without choices");
    *origin = origin_of(root->request_id(), root->choices()->Get(0));
    size_t arrays_bytes = *n_events * sizeof(struct event);
    for (const bantam::GenerateComplete *choice : *root->choices())
        arrays_bytes += arrays_bytes_of(choice);
    TRY(codec_arrays(scratch, arrays_bytes));
    struct event *decoded = static_cast<struct event *>(scratch->arrays);
    char *arrays = reinterpret_cast<char *>(decoded + *n_events);
    for (size_t i = 0; i < *n_events; i++)
        decode_complete(root->choices()->Get((flatbuffers::uoffset_t)i), &arrays, &decoded[i]);
    *events = decoded;
    return err_ok();
}

err_t codec_decode_token_ids(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                             const uint32_t **token_ids, size_t *n_token_ids)
{
    const bantam::TokenizeResponse *root = nullptr;
    TRY(codec_root(bytes, size_bytes, ERR_DATA_LOSS, "TokenizeResponse", scratch, &root));
    codec_ids(root->input_ids(), token_ids, n_token_ids);
    return err_ok();
}

err_t codec_decode_text(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                        const char **text, size_t *text_bytes)
{
    const bantam::DetokenizeResponse *root = nullptr;
    TRY(codec_root(bytes, size_bytes, ERR_DATA_LOSS, "DetokenizeResponse", scratch, &root));
    *text = root->text() ? root->text()->c_str() : "";
    *text_bytes = root->text() ? root->text()->size() : 0;
    return err_ok();
}

err_t codec_decode_server_info(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                               struct server_info *out)
{
    *out = {};
    const bantam::ServerInfoResponse *root = nullptr;
    TRY(codec_root(bytes, size_bytes, ERR_DATA_LOSS, "ServerInfoResponse", scratch, &root));
    out->version = text_or_empty(root->version());
    out->grpc_version = text_or_empty(root->grpc_version());
    out->uptime_seconds = root->uptime_seconds();
    out->active_requests = root->active_requests();
    out->max_message_bytes = root->max_message_bytes();
    out->draining = root->draining();
    return err_ok();
}

err_t codec_decode_aborted(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                           const bool **aborted, size_t *n_aborted)
{
    const bantam::AbortResponse *root = nullptr;
    TRY(codec_root(bytes, size_bytes, ERR_DATA_LOSS, "AbortResponse", scratch, &root));
    *aborted = nullptr;
    *n_aborted = root->aborted() ? root->aborted()->size() : 0;
    if (*n_aborted == 0)
        return err_ok();
    TRY(codec_arrays(scratch, *n_aborted * sizeof **aborted));
    bool *out = static_cast<bool *>(scratch->arrays);
    for (size_t i = 0; i < *n_aborted; i++)
        out[i] = root->aborted()->Get((flatbuffers::uoffset_t)i) != 0;
    *aborted = out;
    return err_ok();
}

err_t codec_decode_loads(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                         struct loads *out)
{
    *out = {};
    const bantam::LoadsResponse *root = nullptr;
    TRY(codec_root(bytes, size_bytes, ERR_DATA_LOSS, "LoadsResponse", scratch, &root));
    out->requests_waiting = root->num_waiting_reqs();
    out->requests_running = root->num_running_reqs();
    out->requests_paused = root->num_paused_reqs();
    out->max_num_seqs = root->max_running_requests();
    out->kv_blocks_total = root->kv_blocks_total();
    out->kv_blocks_used = root->kv_blocks_used();
    out->kv_blocks_cached = root->kv_blocks_cached();
    out->kv_block_tokens = root->kv_block_tokens();
    out->prefix_queries_tokens = root->prefix_queries_tokens();
    out->prefix_hit_tokens = root->prefix_hit_tokens();
    out->prompt_tokens_total = root->prompt_tokens_total();
    out->generation_tokens_total = root->generation_tokens_total();
    out->requests_total = root->requests_total();
    out->requests_finished = root->requests_finished();
    out->preemptions_total = root->preemptions_total();
    out->steps_total = root->steps_total();
    out->tokens_per_s = root->gen_throughput();
    out->predicted_ttft_ns = root->predicted_ttft_ns();
    out->heartbeat_age_ns = root->heartbeat_age_ns();
    out->step_running = root->step_running();
    out->failed = root->failed();
    return err_ok();
}

err_t codec_decode_model_info(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                              struct model_info *out)
{
    *out = {};
    const bantam::ModelInfoResponse *root = nullptr;
    TRY(codec_root(bytes, size_bytes, ERR_DATA_LOSS, "ModelInfoResponse", scratch, &root));
    out->model = text_or_empty(root->served_model_name());
    out->architecture = text_or_empty(root->model_type());
    out->dtype = text_or_empty(root->dtype());
    out->quantization = text_or_empty(root->quantization());
    out->vocab_size = root->vocab_size();
    out->max_model_len = root->max_context_length();
    out->n_parameters = root->n_parameters();
    out->has_tokenizer = root->has_tokenizer();
    out->has_chat_template = root->has_chat_template();
    out->eos_token_ids = root->eos_token_ids() ? root->eos_token_ids()->data() : nullptr;
    out->n_eos_token_ids = root->eos_token_ids() ? root->eos_token_ids()->size() : 0;
    out->bos_token_id = root->bos_token_id().has_value() ? (int64_t)*root->bos_token_id() : -1;
    out->fingerprint = text_or_empty(root->fingerprint());
    out->weights_fingerprint = text_or_empty(root->weights_fingerprint());
    out->tokenizer_fingerprint = text_or_empty(root->tokenizer_fingerprint());
    out->template_fingerprint = text_or_empty(root->template_fingerprint());
    out->arithmetic_fingerprint = text_or_empty(root->arithmetic_fingerprint());
    return err_ok();
}
