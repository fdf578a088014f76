/* The server's half of the codec: requests in, answers out. */
#include "proto/codec_internal.h"

#include <cstring>
#include <limits>

namespace
{

constexpr size_t BUILDER_KEEP_BYTES = 1 << 20; /* of a thread's builder between two messages */

struct thread_builder {
    builder_t builder{1024};
    size_t last_bytes = 0;
};
thread_local thread_builder this_thread;

err_t invalid_nul(const char *field)
{
    return err_new(ERR_INVALID_ARGUMENT, "%s contains a NUL character", field);
}

/* A string that goes on as NUL-terminated. */
err_t name_of(const flatbuffers::String *string, const char *field, const char **out)
{
    *out = string ? string->c_str() : nullptr;
    return string && std::strlen(*out) != string->size() ? invalid_nul(field) : err_ok();
}

using strings_t = flatbuffers::Vector<flatbuffers::Offset<flatbuffers::String>>;
using messages_t = flatbuffers::Vector<flatbuffers::Offset<bantam::ChatMessage>>;

/* Fills table[n] and moves it on. */
err_t names_of(const strings_t *strings, const char *field, const char ***table, const char *const **out,
               size_t *n_out)
{
    *n_out = strings ? strings->size() : 0;
    *out = *n_out > 0 ? *table : nullptr;
    for (size_t i = 0; i < *n_out; i++)
        TRY(name_of(strings->Get((flatbuffers::uoffset_t)i), field, (*table)++));
    return err_ok();
}

template <class V> size_t count_of(const V *vector)
{
    return vector ? vector->size() : 0;
}

template <class T, class F>
void read_scalar(const flatbuffers::Optional<T> &from, uint32_t bit, struct sampling_params *params, F *to)
{
    if (!from)
        return;
    *to = *from;
    params->set |= bit;
}

void read_scalars(const bantam::SamplingParams *from, struct sampling_params *out)
{
    read_scalar(from->temperature(), SAMPLING_TEMPERATURE, out, &out->temperature);
    read_scalar(from->top_p(), SAMPLING_TOP_P, out, &out->top_p);
    read_scalar(from->top_k(), SAMPLING_TOP_K, out, &out->top_k);
    read_scalar(from->min_p(), SAMPLING_MIN_P, out, &out->min_p);
    read_scalar(from->frequency_penalty(), SAMPLING_FREQUENCY_PENALTY, out, &out->frequency_penalty);
    read_scalar(from->presence_penalty(), SAMPLING_PRESENCE_PENALTY, out, &out->presence_penalty);
    read_scalar(from->repetition_penalty(), SAMPLING_REPETITION_PENALTY, out, &out->repetition_penalty);
    read_scalar(from->max_tokens(), SAMPLING_MAX_TOKENS, out, &out->max_tokens);
    read_scalar(from->min_tokens(), SAMPLING_MIN_TOKENS, out, &out->min_tokens);
    read_scalar(from->n(), SAMPLING_N, out, &out->n);
    read_scalar(from->seed(), SAMPLING_SEED, out, &out->seed);
    read_scalar(from->logprobs(), SAMPLING_LOGPROBS, out, &out->logprobs);
    read_scalar(from->prompt_logprobs(), SAMPLING_PROMPT_LOGPROBS, out, &out->prompt_logprobs);
    read_scalar(from->ignore_eos(), SAMPLING_IGNORE_EOS, out, &out->ignore_eos);
    read_scalar(from->skip_special_tokens(), SAMPLING_SKIP_SPECIAL_TOKENS, out, &out->skip_special_tokens);
    read_scalar(from->include_stop_str_in_output(), SAMPLING_INCLUDE_STOP, out,
                &out->include_stop_str_in_output);
    read_scalar(from->truncate_prompt_tokens(), SAMPLING_TRUNCATE_PROMPT_TOKENS, out,
                &out->truncate_prompt_tokens);
    read_scalar(from->spaces_between_special_tokens(), SAMPLING_SPACES_BETWEEN_SPECIAL_TOKENS, out,
                &out->spaces_between_special_tokens);
}

err_t read_sampling(const bantam::SamplingParams *from, const char **table, struct sampling_params *out)
{
    read_scalars(from, out);
    codec_ids(from->stop_token_ids(), &out->stop_token_ids, &out->n_stop_token_ids);
    codec_ids(from->allowed_token_ids(), &out->allowed_token_ids, &out->n_allowed_token_ids);
    out->n_logit_bias = count_of(from->logit_bias());
    if (out->n_logit_bias > 0)
        out->logit_bias = reinterpret_cast<const struct logit_bias *>(from->logit_bias()->Data());
    TRY(names_of(from->stop(), "stop", &table, &out->stop, &out->n_stop));
    return names_of(from->bad_words(), "bad_words", &table, &out->bad_words, &out->n_bad_words);
}

err_t read_messages(const messages_t *from, struct chat_message *messages, struct request *out)
{
    for (size_t i = 0; i < from->size(); i++) {
        const bantam::ChatMessage *message = from->Get((flatbuffers::uoffset_t)i);
        TRY(name_of(message->role(), "messages[].role", &messages[i].role));
        messages[i].content = message->content()->c_str();
        messages[i].content_bytes = message->content()->size();
    }
    out->messages = messages;
    out->n_messages = from->size();
    return err_ok();
}

/* Exactly one of the three, or none, which the validator refuses. */
err_t read_prompt(const flatbuffers::String *text, const flatbuffers::Vector<uint32_t> *ids,
                  const messages_t *messages, struct chat_message *message_array, struct request *out)
{
    if (!!text + !!ids + !!messages > 1)
        return err_new(ERR_INVALID_ARGUMENT,
                       "the request has several prompts; set one of text, input_ids and messages");
    if (text) {
        out->prompt_kind = PROMPT_TEXT;
        out->text = text->c_str();
        out->text_bytes = text->size();
    } else if (ids) {
        out->prompt_kind = PROMPT_TOKEN_IDS;
        codec_ids(ids, &out->token_ids, &out->n_token_ids);
    } else if (messages) {
        out->prompt_kind = PROMPT_MESSAGES;
        return read_messages(messages, message_array, out);
    }
    return err_ok();
}

void read_template(const flatbuffers::String *json, struct request *out)
{
    out->template_json = json ? json->c_str() : nullptr;
    out->template_json_bytes = json ? json->size() : 0;
}

struct request empty_request()
{
    struct request request = {};
    request.tenant = "";
    request.deadline_ns = REQUEST_NO_DEADLINE;
    return request;
}

} // namespace

err_t codec_align(const uint8_t **bytes, size_t size_bytes, enum err_code code, struct codec_scratch *scratch)
{
    if (size_bytes < sizeof(flatbuffers::uoffset_t) || size_bytes >= FLATBUFFERS_MAX_BUFFER_SIZE)
        return err_new(code, "a message of %zu bytes is not FlatBuffers", size_bytes);
    if (reinterpret_cast<uintptr_t>(*bytes) % 8 == 0)
        return err_ok();
    mem_free(scratch->aligned_copy);
    scratch->aligned_copy = mem_alloc(size_bytes);
    if (!scratch->aligned_copy)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a message of %zu bytes", size_bytes);
    std::memcpy(scratch->aligned_copy, *bytes, size_bytes);
    *bytes = static_cast<const uint8_t *>(scratch->aligned_copy);
    return err_ok();
}

err_t codec_arrays(struct codec_scratch *scratch, size_t size_bytes)
{
    mem_free(scratch->arrays);
    scratch->arrays = mem_alloc(size_bytes);
    if (!scratch->arrays)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a message's lists (%zu bytes)", size_bytes);
    return err_ok();
}

void codec_scratch_free(struct codec_scratch *scratch)
{
    mem_free(scratch->aligned_copy);
    mem_free(scratch->arrays);
    *scratch = {};
}

err_t codec_decode_generate(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                            struct request *out, struct generate_options *options)
{
    *out = empty_request();
    *options = {};
    const bantam::GenerateRequest *root = nullptr;
    TRY(codec_root(bytes, size_bytes, ERR_INVALID_ARGUMENT, "GenerateRequest", scratch, &root));
    const bantam::SamplingParams *sampling = root->sampling_params();
    size_t messages_bytes = count_of(root->messages()) * sizeof(struct chat_message);
    size_t n_names = sampling ? count_of(sampling->stop()) + count_of(sampling->bad_words()) : 0;
    if (messages_bytes + n_names > 0)
        TRY(codec_arrays(scratch, messages_bytes + n_names * sizeof(char *)));
    char *arrays = static_cast<char *>(scratch->arrays);
    TRY(name_of(root->request_id(), "request_id", &out->request_id));
    TRY(name_of(root->model(), "model", &out->model));
    TRY(read_prompt(root->text(), root->input_ids(), root->messages(),
                    reinterpret_cast<struct chat_message *>(arrays), out));
    if (sampling)
        TRY(read_sampling(sampling, reinterpret_cast<const char **>(arrays + messages_bytes),
                          &out->sampling));
    codec_ids(root->output_prefix_ids(), &out->output_prefix_ids, &out->n_output_prefix_ids);
    out->priority = root->priority().value_or(0);
    out->no_special_tokens = !root->add_special_tokens().value_or(true);
    out->no_generation_prompt = !root->add_generation_prompt().value_or(true);
    read_template(root->template_json(), out);
    if (root->openai_json()) {
        options->openai_json = root->openai_json()->c_str();
        options->openai_json_bytes = root->openai_json()->size();
    }
    options->return_prompt_token_ids = root->return_prompt_token_ids().value_or(false);
    return err_ok();
}

err_t codec_decode_tokenize(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                            struct request *out)
{
    *out = empty_request();
    const bantam::TokenizeRequest *root = nullptr;
    TRY(codec_root(bytes, size_bytes, ERR_INVALID_ARGUMENT, "TokenizeRequest", scratch, &root));
    size_t n_messages = count_of(root->messages());
    if (n_messages > 0)
        TRY(codec_arrays(scratch, n_messages * sizeof(struct chat_message)));
    TRY(name_of(root->model(), "model", &out->model));
    TRY(read_prompt(root->text(), nullptr, root->messages(),
                    static_cast<struct chat_message *>(scratch->arrays), out));
    read_template(root->template_json(), out);
    out->no_special_tokens = !root->add_special_tokens().value_or(true);
    out->no_generation_prompt = !root->add_generation_prompt().value_or(true);
    return err_ok();
}

err_t codec_decode_detokenize(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                              struct detokenize_request *out)
{
    *out = {};
    const bantam::DetokenizeRequest *root = nullptr;
    TRY(codec_root(bytes, size_bytes, ERR_INVALID_ARGUMENT, "DetokenizeRequest", scratch, &root));
    codec_ids(root->input_ids(), &out->token_ids, &out->n_token_ids);
    out->skip_special_tokens = root->skip_special_tokens().value_or(true);
    return err_ok();
}

err_t codec_decode_abort(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                         struct abort_request *out)
{
    *out = {};
    const bantam::AbortRequest *root = nullptr;
    TRY(codec_root(bytes, size_bytes, ERR_INVALID_ARGUMENT, "AbortRequest", scratch, &root));
    size_t n_ids = count_of(root->request_ids());
    TRY(codec_check_abort_ids(n_ids));
    TRY(codec_arrays(scratch, n_ids * sizeof(char *)));
    const char **table = static_cast<const char **>(scratch->arrays);
    return names_of(root->request_ids(), "request_ids", &table, &out->request_ids, &out->n_request_ids);
}

err_t codec_decode_watch_loads(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                               uint32_t *interval_ms)
{
    *interval_ms = CODEC_WATCH_INTERVAL_DEFAULT_MS;
    if (size_bytes == 0)
        return err_ok();
    const bantam::WatchLoadsRequest *root = nullptr;
    TRY(codec_root(bytes, size_bytes, ERR_INVALID_ARGUMENT, "WatchLoadsRequest", scratch, &root));
    *interval_ms = root->interval_ms().value_or(CODEC_WATCH_INTERVAL_DEFAULT_MS);
    return codec_check_watch_interval(*interval_ms);
}

err_t codec_decode_kv_subscribe(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch,
                                uint64_t *start_sequence_number)
{
    *start_sequence_number = 0;
    if (size_bytes == 0)
        return err_ok();
    const bantam::SubscribeKvEventsRequest *root = nullptr;
    TRY(codec_root(bytes, size_bytes, ERR_INVALID_ARGUMENT, "SubscribeKvEventsRequest", scratch, &root));
    *start_sequence_number = root->start_sequence_number();
    return err_ok();
}

err_t codec_decode_empty(const uint8_t *bytes, size_t size_bytes, struct codec_scratch *scratch)
{
    /* All three are tables without fields: to the verifier they are the same. */
    const bantam::GetLoadsRequest *root = nullptr;
    if (size_bytes == 0)
        return err_ok();
    return codec_root(bytes, size_bytes, ERR_INVALID_ARGUMENT, "message", scratch, &root);
}

builder_t &codec_builder()
{
    if (this_thread.last_bytes > BUILDER_KEEP_BYTES)
        this_thread.builder.Reset();
    else
        this_thread.builder.Clear();
    return this_thread.builder;
}

struct codec_bytes codec_finish_root(builder_t &builder)
{
    this_thread.last_bytes = builder.GetSize();
    return {builder.GetBufferPointer(), builder.GetSize()};
}
