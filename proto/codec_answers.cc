/* The server's answers -> bytes. */
#include "proto/codec_internal.h"

#include <vector>

namespace
{

/* The four columns of a run of positions. */
struct logprob_columns {
    flatbuffers::Offset<flatbuffers::Vector<float>> logprobs;
    ids_offset token_ids;
    flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<bantam::TopLogProbs>>> top;
    ids_offset ranks;
};

flatbuffers::Offset<bantam::TopLogProbs> encode_top(builder_t &builder,
                                                    const struct position_logprobs *position)
{
    float values[SAMPLING_LOGPROBS_MAX];
    uint32_t token_ids[SAMPLING_LOGPROBS_MAX];
    size_t n_top = position->n_top;
    if (n_top > SAMPLING_LOGPROBS_MAX)
        n_top = SAMPLING_LOGPROBS_MAX;
    for (size_t i = 0; i < n_top; i++) {
        values[i] = position->top[i].logprob;
        token_ids[i] = position->top[i].token_id;
    }
    auto value_vector = builder.CreateVector(values, n_top);
    return bantam::CreateTopLogProbs(builder, value_vector, builder.CreateVector(token_ids, n_top));
}

logprob_columns encode_columns(builder_t &builder, const struct position_logprobs *positions, size_t n)
{
    logprob_columns columns = {};
    std::vector<flatbuffers::Offset<bantam::TopLogProbs>> top;
    bool any_top = false;
    for (size_t i = 0; i < n && !any_top; i++)
        any_top = positions[i].n_top > 0;
    if (any_top) {
        top.reserve(n);
        for (size_t i = 0; i < n; i++)
            top.push_back(encode_top(builder, &positions[i]));
        columns.top = builder.CreateVector(top);
    }
    float *logprobs;
    uint32_t *ids, *ranks;
    columns.logprobs = builder.CreateUninitializedVector(n, &logprobs);
    for (size_t i = 0; i < n; i++)
        logprobs[i] = positions[i].chosen.logprob;
    columns.token_ids = builder.CreateUninitializedVector(n, &ids);
    for (size_t i = 0; i < n; i++)
        ids[i] = positions[i].chosen.token_id;
    columns.ranks = builder.CreateUninitializedVector(n, &ranks);
    for (size_t i = 0; i < n; i++)
        ranks[i] = positions[i].rank;
    return columns;
}

flatbuffers::Offset<bantam::OutputLogProbs> encode_output_logprobs(builder_t &builder,
                                                                   const struct event *event)
{
    if (event->n_logprobs == 0)
        return 0;
    logprob_columns columns = encode_columns(builder, event->logprobs, event->n_logprobs);
    return bantam::CreateOutputLogProbs(builder, columns.logprobs, columns.token_ids, columns.top,
                                        columns.ranks);
}

flatbuffers::Offset<bantam::InputLogProbs> encode_input_logprobs(builder_t &builder,
                                                                 const struct event *event)
{
    if (event->n_prompt_logprobs == 0)
        return 0;
    logprob_columns columns = encode_columns(builder, event->prompt_logprobs, event->n_prompt_logprobs);
    return bantam::CreateInputLogProbs(builder, columns.logprobs, columns.token_ids, columns.top,
                                       columns.ranks);
}

using tool_calls_offset = flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<bantam::ToolCall>>>;

string_offset text_of(builder_t &builder, const char *text, size_t text_bytes)
{
    return text_bytes > 0 ? builder.CreateString(text, text_bytes) : string_offset();
}

tool_calls_offset encode_tool_calls(builder_t &builder, const struct event *event)
{
    if (event->n_tool_calls == 0)
        return 0;
    std::vector<flatbuffers::Offset<bantam::ToolCall>> calls;
    for (size_t i = 0; i < event->n_tool_calls; i++) {
        const struct tool_call *call = &event->tool_calls[i];
        string_offset id = codec_string(builder, call->id), name = codec_string(builder, call->name);
        string_offset arguments = text_of(builder, call->arguments, call->arguments_bytes);
        calls.push_back(bantam::CreateToolCall(builder, call->index, id, name, arguments));
    }
    return builder.CreateVector(calls);
}

/* What there is nothing to tell of stays unset. */
string_offset told(builder_t &builder, const char *text)
{
    return text[0] ? builder.CreateString(text) : string_offset();
}

flatbuffers::Offset<bantam::AnswerSource> encode_source(builder_t &builder,
                                                        const struct answer_source *source)
{
    if (!source)
        return 0;
    string_offset provider = told(builder, source->provider), model = told(builder, source->model);
    string_offset reason = told(builder, source->reason), rule = told(builder, source->rule);
    string_offset cache = told(builder, source->cache), print = told(builder, source->fingerprint);
    string_offset dropped = told(builder, source->dropped), decision = told(builder, source->decision_id);
    flatbuffers::Optional<int64_t> cost;
    if (source->cost_nanodollars >= 0)
        cost = source->cost_nanodollars;
    return bantam::CreateAnswerSource(builder, provider, model, reason, rule, cache, print, dropped, decision,
                                      cost, source->attempts);
}

/* What chunk and complete have in common. */
struct common_parts {
    ids_offset token_ids;
    string_offset text;
    flatbuffers::Offset<bantam::OutputLogProbs> output_logprobs;
    flatbuffers::Offset<bantam::InputLogProbs> input_logprobs;
    ids_offset prompt_token_ids;
    tool_calls_offset tool_calls;
    string_offset refusal, reasoning;
    flatbuffers::Offset<bantam::AnswerSource> source;
};

common_parts encode_common(builder_t &builder, const struct codec_answer *answer, const struct event *event)
{
    common_parts parts;
    parts.token_ids = codec_id_vector(builder, event->token_ids, event->n_token_ids);
    parts.text = text_of(builder, event->text, event->text_bytes);
    parts.tool_calls = encode_tool_calls(builder, event);
    parts.refusal = text_of(builder, event->refusal, event->refusal_bytes);
    parts.reasoning = text_of(builder, event->reasoning, event->reasoning_bytes);
    parts.source = encode_source(builder, event->source);
    parts.output_logprobs = encode_output_logprobs(builder, event);
    parts.input_logprobs = encode_input_logprobs(builder, event);
    if (answer->with_prompt_token_ids)
        parts.prompt_token_ids = codec_id_vector(builder, event->prompt_token_ids, event->n_prompt_token_ids);
    return parts;
}

flatbuffers::Offset<bantam::GenerateStreamChunk> encode_chunk(builder_t &builder,
                                                              const struct codec_answer *answer,
                                                              const struct event *event,
                                                              uint32_t completion_tokens)
{
    common_parts parts = encode_common(builder, answer, event);
    return bantam::CreateGenerateStreamChunk(builder, parts.token_ids, parts.text, answer->prompt_tokens,
                                             completion_tokens, parts.output_logprobs, parts.input_logprobs,
                                             event->choice_index, parts.prompt_token_ids, parts.tool_calls,
                                             parts.refusal, parts.reasoning, parts.source);
}

flatbuffers::Offset<bantam::GenerateComplete>
encode_complete(builder_t &builder, const struct codec_answer *answer, const struct event *event)
{
    common_parts parts = encode_common(builder, answer, event);
    string_offset reason = codec_string(builder, finish_reason_name(event->finish_reason));
    string_offset stop_string = codec_string(builder, event->stop_string);
    const struct answer_source *source = event->source;
    const char *name = source && source->model[0] ? source->model : answer->model->model;
    string_offset fingerprint =
        codec_string(builder, source ? source->fingerprint : answer->model->fingerprint);
    string_offset model = codec_string(builder, name);
    bantam::Timings timings(event->timings.queue_ns, event->timings.prefill_ns, event->timings.decode_ns);
    bantam::GenerateCompleteBuilder complete(builder);
    complete.add_output_ids(parts.token_ids);
    complete.add_text(parts.text);
    complete.add_finish_reason(reason);
    complete.add_matched_stop_str(stop_string);
    if (event->stop_token_id >= 0)
        complete.add_matched_token_id((uint32_t)event->stop_token_id);
    complete.add_prompt_tokens(event->usage.prompt_tokens);
    complete.add_completion_tokens(event->usage.completion_tokens);
    complete.add_cached_tokens(event->usage.cached_tokens);
    complete.add_output_logprobs(parts.output_logprobs);
    complete.add_input_logprobs(parts.input_logprobs);
    complete.add_index(event->choice_index);
    complete.add_prompt_token_ids(parts.prompt_token_ids);
    complete.add_preemptions(event->usage.preemptions);
    complete.add_timings(&timings);
    complete.add_fingerprint(fingerprint);
    complete.add_model(model);
    complete.add_tool_calls(parts.tool_calls);
    complete.add_refusal(parts.refusal);
    complete.add_reasoning(parts.reasoning);
    complete.add_source(parts.source);
    complete.add_usage_unknown(event->usage.is_unknown);
    return complete.Finish();
}

} // namespace

struct codec_bytes codec_encode_event(const struct codec_answer *answer, const struct event *event,
                                      uint32_t completion_tokens)
{
    builder_t &builder = codec_builder();
    string_offset request_id = codec_string(builder, answer->request_id);
    flatbuffers::Offset<bantam::GenerateStreamChunk> chunk;
    flatbuffers::Offset<bantam::GenerateComplete> complete;
    if (event->kind == EVENT_TOKENS)
        chunk = encode_chunk(builder, answer, event, completion_tokens);
    else
        complete = encode_complete(builder, answer, event);
    return codec_finish(builder, bantam::CreateGenerateResponse(builder, request_id, chunk, complete));
}

struct codec_bytes codec_encode_whole(const struct codec_answer *answer, const struct event *events,
                                      size_t n_events)
{
    builder_t &builder = codec_builder();
    std::vector<flatbuffers::Offset<bantam::GenerateComplete>> choices;
    for (size_t i = 0; i < n_events; i++)
        choices.push_back(encode_complete(builder, answer, &events[i]));
    auto choice_vector = builder.CreateVector(choices);
    string_offset request_id = codec_string(builder, answer->request_id);
    return codec_finish(builder, bantam::CreateGenerateWholeResponse(builder, request_id, choice_vector));
}

struct codec_bytes codec_encode_token_ids(const uint32_t *token_ids, size_t n_token_ids)
{
    builder_t &builder = codec_builder();
    ids_offset ids = codec_id_vector(builder, token_ids, n_token_ids);
    return codec_finish(builder, bantam::CreateTokenizeResponse(builder, ids));
}

struct codec_bytes codec_encode_text(const char *text, size_t text_bytes)
{
    builder_t &builder = codec_builder();
    string_offset string = builder.CreateString(text_bytes > 0 ? text : "", text_bytes);
    return codec_finish(builder, bantam::CreateDetokenizeResponse(builder, string));
}

struct codec_bytes codec_encode_aborted(const bool *aborted, size_t n_aborted)
{
    builder_t &builder = codec_builder();
    uint8_t *values;
    auto vector = builder.CreateUninitializedVector(n_aborted, &values);
    for (size_t i = 0; i < n_aborted; i++)
        values[i] = aborted[i] ? 1 : 0;
    return codec_finish(builder, bantam::CreateAbortResponse(builder, vector));
}

struct codec_bytes codec_encode_model_info(const struct model_info *info)
{
    builder_t &builder = codec_builder();
    string_offset model = codec_string(builder, info->model);
    string_offset architecture = codec_string(builder, info->architecture);
    ids_offset eos = codec_id_vector(builder, info->eos_token_ids, info->n_eos_token_ids);
    string_offset dtype = codec_string(builder, info->dtype);
    string_offset quantization = codec_string(builder, info->quantization);
    string_offset fingerprints[] = {
        codec_string(builder, info->fingerprint), codec_string(builder, info->weights_fingerprint),
        codec_string(builder, info->tokenizer_fingerprint), codec_string(builder, info->template_fingerprint),
        codec_string(builder, info->arithmetic_fingerprint)};
    bantam::ModelInfoResponseBuilder out(builder);
    out.add_served_model_name(model);
    out.add_model_type(architecture);
    out.add_vocab_size(info->vocab_size);
    out.add_max_context_length(info->max_model_len);
    out.add_eos_token_ids(eos);
    if (info->bos_token_id >= 0)
        out.add_bos_token_id((uint32_t)info->bos_token_id);
    out.add_dtype(dtype);
    out.add_quantization(quantization);
    out.add_n_parameters(info->n_parameters);
    out.add_has_tokenizer(info->has_tokenizer);
    out.add_has_chat_template(info->has_chat_template);
    out.add_fingerprint(fingerprints[0]);
    out.add_weights_fingerprint(fingerprints[1]);
    out.add_tokenizer_fingerprint(fingerprints[2]);
    out.add_template_fingerprint(fingerprints[3]);
    out.add_arithmetic_fingerprint(fingerprints[4]);
    return codec_finish(builder, out.Finish());
}

struct codec_bytes codec_encode_loads(const struct loads *loads)
{
    struct load_ratios ratios = codec_load_ratios(loads);
    builder_t &builder = codec_builder();
    bantam::LoadsResponseBuilder out(builder);
    out.add_num_waiting_reqs(loads->requests_waiting);
    out.add_num_running_reqs(loads->requests_running);
    out.add_num_paused_reqs(loads->requests_paused);
    out.add_max_running_requests(loads->max_num_seqs);
    out.add_kv_blocks_total(loads->kv_blocks_total);
    out.add_kv_blocks_used(loads->kv_blocks_used);
    out.add_kv_blocks_cached(loads->kv_blocks_cached);
    out.add_kv_block_tokens(loads->kv_block_tokens);
    out.add_token_usage(ratios.kv_usage);
    out.add_utilization(ratios.utilization);
    out.add_cache_hit_rate(ratios.hit_rate);
    out.add_prefix_queries_tokens(loads->prefix_queries_tokens);
    out.add_prefix_hit_tokens(loads->prefix_hit_tokens);
    out.add_prompt_tokens_total(loads->prompt_tokens_total);
    out.add_generation_tokens_total(loads->generation_tokens_total);
    out.add_requests_total(loads->requests_total);
    out.add_requests_finished(loads->requests_finished);
    out.add_preemptions_total(loads->preemptions_total);
    out.add_steps_total(loads->steps_total);
    out.add_gen_throughput(loads->tokens_per_s);
    out.add_predicted_ttft_ns(loads->predicted_ttft_ns);
    out.add_heartbeat_age_ns(loads->heartbeat_age_ns);
    out.add_step_running(loads->step_running);
    out.add_failed(loads->failed);
    return codec_finish(builder, out.Finish());
}

struct codec_bytes codec_encode_server_info(const struct server_info *info)
{
    builder_t &builder = codec_builder();
    string_offset type = builder.CreateString("bantam");
    string_offset version = codec_string(builder, info->version);
    string_offset grpc_version = codec_string(builder, info->grpc_version);
    return codec_finish(builder, bantam::CreateServerInfoResponse(builder, type, version, grpc_version,
                                                                  info->uptime_seconds, info->active_requests,
                                                                  info->max_message_bytes, info->draining));
}

namespace
{

flatbuffers::Offset<bantam::KvBlocksStored> encode_stored(builder_t &builder, const struct kv_event *events,
                                                          size_t n_events, uint32_t block_tokens)
{
    std::vector<flatbuffers::Offset<bantam::KvBlock>> blocks;
    for (size_t i = 0; i < n_events; i++) {
        ids_offset ids = codec_id_vector(builder, events[i].token_ids, block_tokens);
        blocks.push_back(
            bantam::CreateKvBlock(builder, events[i].block_hash, ids, static_cast<int32_t>(block_tokens)));
    }
    auto vector = builder.CreateVector(blocks);
    string_offset salt = codec_string(builder, events[0].cache_salt);
    bantam::KvBlocksStoredBuilder out(builder);
    out.add_blocks(vector);
    if (events[0].has_parent)
        out.add_parent_block_hash(events[0].parent_block_hash);
    out.add_cache_salt(salt);
    return out.Finish();
}

flatbuffers::Offset<bantam::KvBlocksRemoved> encode_removed(builder_t &builder, const struct kv_event *events,
                                                            size_t n_events)
{
    int64_t *hashes;
    auto vector = builder.CreateUninitializedVector(n_events, &hashes);
    for (size_t i = 0; i < n_events; i++)
        hashes[i] = events[i].block_hash;
    return bantam::CreateKvBlocksRemoved(builder, vector);
}

flatbuffers::Offset<bantam::KvCacheEvent> encode_kv_run(builder_t &builder, const struct kv_event *events,
                                                        size_t n_events, uint32_t block_tokens,
                                                        uint64_t event_id)
{
    flatbuffers::Offset<bantam::KvBlocksStored> stored;
    flatbuffers::Offset<bantam::KvBlocksRemoved> removed;
    flatbuffers::Offset<bantam::KvCacheCleared> cleared;
    if (events->kind == KV_BLOCK_STORED)
        stored = encode_stored(builder, events, n_events, block_tokens);
    else if (events->kind == KV_BLOCK_REMOVED)
        removed = encode_removed(builder, events, n_events);
    else
        cleared = bantam::CreateKvCacheCleared(builder);
    return bantam::CreateKvCacheEvent(builder, event_id, stored, removed, cleared);
}

} // namespace

struct codec_bytes codec_encode_kv_events(const struct kv_event_batch *batch, uint64_t *last_event_id)
{
    builder_t &builder = codec_builder();
    std::vector<flatbuffers::Offset<bantam::KvCacheEvent>> events;
    for (size_t i = 0; i < batch->n_events;) {
        size_t n = codec_kv_run(batch, i);
        uint64_t event_id = batch->is_snapshot ? 0 : ++*last_event_id;
        events.push_back(encode_kv_run(builder, &batch->events[i], n, batch->block_tokens, event_id));
        i += n;
    }
    auto vector = builder.CreateVector(events);
    flatbuffers::Offset<bantam::KvSnapshotChunk> snapshot;
    if (batch->is_snapshot)
        snapshot = bantam::CreateKvSnapshotChunk(builder, batch->snapshot_index, batch->snapshot_count,
                                                 batch->snapshot_blocks);
    double timestamp = static_cast<double>(batch->unix_ns) * 1e-9;
    return codec_finish(
        builder, bantam::CreateKvEventBatch(builder, batch->sequence_number, timestamp, vector, snapshot));
}
