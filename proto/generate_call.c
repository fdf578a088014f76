/* Generate and GenerateWhole, of every codec: a request from its bytes to its last event. */
#include <string.h>
#include <time.h>
#include "api/request_log.h"
#include "base/alloc.h"
#include "base/assert.h"
#include "base/event_count.h"
#include "proto/answer_source.h"
#include "proto/answer_trailers.h"
#include "proto/codec_openai.h"
#include "proto/grpc_door_internal.h"
#include "proto/route_headers.h"
#include "proto/service_state.h"
#include "proto/whole_answer.h"

struct generate_call {
    struct door_item item;
    const struct door_codec *codec;
    struct stream *stream;       /* NULL when released */
    struct whole_answer *whole;  /* when nothing is sent before the end */
    const struct event *choices; /* of `whole` when it is complete and goes out choice by choice */
    size_t n_choices, next_choice;
    struct event finish; /* a choice's end whose tokens went ahead; has_finish */
    bool has_finish;
    struct codec_answer answer;
    struct answer_trailers trailers;
    struct answer_source *source; /* owned: what was told last of who answers; NULL = nothing */
    bool has_sent;                /* a message */
    int64_t deadline_ns;
    uint32_t completion_tokens[SAMPLING_N_MAX];
};

static const struct service_vtable *service_of(const struct generate_call *generate)
{
    return generate->item.door->service->vtable;
}

static void leave_active(struct grpc_door *door)
{
    struct event_count *idle = atomic_load(&door->idle);
    metric_subtract(&door->metrics->streams_open[METRIC_DOOR_GRPC], 1);
    if (atomic_fetch_sub(&door->n_active, 1) == 1 && idle)
        event_count_bump(idle);
}

/* Before the client hears of the end: its request's name and its tenant's place are free again when it does.
 * What is told in the end must be encoded. */
static void let_go_of_stream(struct generate_call *generate)
{
    if (generate->stream)
        service_of(generate)->stream_release(generate->stream);
    generate->stream = NULL;
    whole_answer_destroy(generate->whole); /* the call may live on for a while */
    generate->whole = NULL;
}

/* The owner's last deed. */
static enum pump_result end_generation(struct generate_call *generate)
{
    let_go_of_stream(generate);
    leave_active(generate->item.door);
    return PUMP_DONE;
}

/* Where nothing was sent the client may try again, after the time that the error names. */
static enum pump_result fail_generation(struct generate_call *generate, const err_t *error)
{
    bool again = !generate->has_sent && error->retry_after_ms > 0;
    if (generate->source)
        answer_trailers_add_source(generate->source, generate->item.call);
    let_go_of_stream(generate);
    rpc_call_refuse(generate->item.call, error, again ? error->retry_after_ms : RPC_NO_PUSHBACK);
    return end_generation(generate);
}

/* Why an event ends the call without an answer; OK when it does not. An abort by request id is an answer. */
static err_t failure_of(const struct generate_call *generate, const struct event *event)
{
    if (event->kind != EVENT_FINISHED)
        return err_ok();
    if (event->finish_reason == FINISH_ERROR)
        return event->error;
    struct service *service = generate->item.door->service;
    if (event->finish_reason == FINISH_ABORT && service->vtable->now_ns(service) >= generate->deadline_ns)
        return err_new(ERR_DEADLINE_EXCEEDED, "the deadline passed before the answer was complete");
    return err_ok();
}

static enum pump_result send_message(struct generate_call *generate, struct codec_bytes bytes, bool last)
{
    struct rpc_call *call = generate->item.call;
    if (!bytes.data) {
        err_t e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory for an answer");
        return fail_generation(generate, &e);
    }
    if (!last) {
        generate->has_sent = true;
        rpc_call_send(call, bytes.data, bytes.size);
        return PUMP_SENDING;
    }
    if (generate->codec->describes_in_trailers)
        answer_trailers_add(&generate->trailers, &generate->answer, call);
    if (generate->source)
        answer_trailers_add_source(generate->source, call);
    let_go_of_stream(generate);
    rpc_call_finish(call, bytes.data, bytes.size, GRPC_STATUS_OK, NULL, RPC_NO_PUSHBACK);
    return end_generation(generate);
}

static enum pump_result send_event(struct generate_call *generate, const struct event *event)
{
    uint32_t *completion_tokens = &generate->completion_tokens[event->choice_index];
    *completion_tokens += (uint32_t)event->n_token_ids;
    if (event->n_prompt_token_ids > 0)
        generate->answer.prompt_tokens = (uint32_t)event->n_prompt_token_ids;
    struct codec_bytes bytes = generate->codec->encode_event(&generate->answer, event, *completion_tokens);
    return send_message(generate, bytes, event->last);
}

/* The end of a choice, its tokens ahead of it where the codec wants that. What the event points to lives
 * until the next one is taken, which is after both. */
static enum pump_result send_finish(struct generate_call *generate, const struct event *event)
{
    if (!generate->codec->finish_is_bare || event->n_token_ids == 0)
        return send_event(generate, event);
    struct event tokens = *event;
    tokens.kind = EVENT_TOKENS;
    tokens.last = false;
    generate->finish = *event;
    generate->finish.n_token_ids = generate->finish.n_logprobs = 0;
    generate->finish.text_bytes = 0;
    generate->finish.n_prompt_token_ids = generate->finish.n_prompt_logprobs = 0;
    generate->has_finish = true;
    return send_event(generate, &tokens);
}

static enum pump_result send_choice(struct generate_call *generate)
{
    const struct event *event = &generate->choices[generate->next_choice++];
    struct codec_bytes bytes = generate->codec->encode_event(&generate->answer, event, 0);
    return send_message(generate, bytes, generate->next_choice == generate->n_choices);
}

static enum pump_result keep_event(struct generate_call *generate, const struct event *event)
{
    err_t e = whole_answer_add(generate->whole, event, generate->answer.with_prompt_token_ids);
    if (e.code != ERR_OK)
        return fail_generation(generate, &e);
    if (!event->last)
        return PUMP_IDLE;
    generate->choices = whole_answer_events(generate->whole, &generate->n_choices);
    if (!generate->codec->encode_whole)
        return send_choice(generate);
    struct codec_bytes bytes =
        generate->codec->encode_whole(&generate->answer, generate->choices, generate->n_choices);
    return send_message(generate, bytes, true);
}

static err_t note_source(struct generate_call *generate, const struct answer_source *source)
{
    if (!source)
        return err_ok();
    struct answer_source *kept = answer_source_copy(source);
    if (!kept)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for an answer");
    mem_free(generate->source);
    generate->source = kept;
    return err_ok();
}

/* The service was told so (request.takes_ids_only); an answer that lost its content would be none. */
static err_t check_ids(const struct generate_call *generate, const struct event *event)
{
    bool has_content = event->text_bytes > 0 && generate->completion_tokens[event->choice_index] == 0;
    has_content = has_content || event->n_tool_calls > 0 || event->refusal_bytes > 0;
    if (!generate->codec->has_ids_only || !event->source || event->n_token_ids > 0 || !has_content)
        return err_ok();
    return err_new(
        ERR_FAILED_PRECONDITION,
        "%s answered without token ids, and this protocol has nothing else; use /bantam.Bantam/Generate or "
        "HTTP",
        event->source->provider);
}

static enum pump_result take_event(struct generate_call *generate, const struct event *event)
{
    ASSERT(event->choice_index < SAMPLING_N_MAX);
    err_t e = note_source(generate, event->source);
    if (e.code == ERR_OK)
        e = failure_of(generate, event);
    if (e.code == ERR_OK)
        e = check_ids(generate, event);
    if (e.code != ERR_OK)
        return fail_generation(generate, &e);
    answer_trailers_note(&generate->trailers, event);
    if (generate->whole)
        return keep_event(generate, event);
    return event->kind == EVENT_FINISHED ? send_finish(generate, event) : send_event(generate, event);
}

static enum pump_result pump_generation(struct flush_item *flush)
{
    struct generate_call *generate = (struct generate_call *)flush;
    if (rpc_call_ended(generate->item.call)) {
        metric_add(&generate->item.door->metrics->disconnects[METRIC_DOOR_GRPC], 1);
        return end_generation(generate);
    }
    if (atomic_load(&generate->item.door->closing)) {
        err_t e = err_new(ERR_UNAVAILABLE, "the server is shutting down");
        return fail_generation(generate, &e);
    }
    if (generate->choices)
        return send_choice(generate);
    if (generate->has_finish) {
        generate->has_finish = false;
        return send_event(generate, &generate->finish);
    }
    struct event event;
    while (service_of(generate)->stream_next(generate->stream, &event)) {
        enum pump_result result = take_event(generate, &event);
        if (result != PUMP_IDLE)
            return result;
    }
    return PUMP_IDLE;
}

static void wake_generation(void *context)
{
    struct generate_call *generate = context;
    flush_item_wake(&generate->item.flush);
}

static void destroy_generation(struct door_item *item)
{
    struct generate_call *generate = (struct generate_call *)item;
    ASSERT(!generate->stream);
    whole_answer_destroy(generate->whole);
    mem_free(generate->source);
    mem_free(generate);
}

static int64_t deadline_of(struct service *service, const struct rpc_call *call)
{
    int64_t left_ns = rpc_call_remaining_ns(call), now_ns = service->vtable->now_ns(service), deadline_ns;
    if (left_ns == RPC_NO_DEADLINE || __builtin_add_overflow(now_ns, left_ns, &deadline_ns))
        return REQUEST_NO_DEADLINE;
    return deadline_ns;
}

/* *headers must live as long as the request. */
static err_t apply_headers(const struct service *service, const struct rpc_call *call,
                           struct route_headers *headers, struct request *request)
{
    char priority[16];
    struct rpc_header header;
    headers->n_hints = 0;
    headers->cache_salt[0] = '\0';
    for (size_t i = 0; rpc_call_header_at(call, i, &header); i++) {
        TRY(route_headers_take_salt(headers, rpc_call_caller(call), header.key, header.key_bytes,
                                    header.value, header.value_bytes));
        if (service->vtable->passes_on)
            TRY(route_headers_take_hint(headers, header.key, header.key_bytes, header.value,
                                        header.value_bytes));
    }
    bool has_priority = rpc_call_header(call, ROUTE_PRIORITY, priority, sizeof priority);
    if (!rpc_call_header(call, ROUTE_MODEL, headers->model, sizeof headers->model))
        headers->model[0] = '\0';
    return route_headers_apply(headers, has_priority ? priority : NULL, request);
}

static bool has_sampling(const struct sampling_params *params)
{
    return params->set != 0 || params->n_stop + params->n_bad_words + params->n_stop_token_ids +
                                       params->n_allowed_token_ids + params->n_logit_bias >
                                   0;
}

/* A prompt and its parameters in OpenAI's form; what the message around it says besides goes on counting. */
static err_t take_openai(const struct generate_options *options, struct openai_scratch *scratch,
                         struct request *request)
{
    if (!options->openai_json)
        return err_ok();
    if (request->prompt_kind != PROMPT_NONE)
        return err_new(ERR_INVALID_ARGUMENT,
                       "the request has several prompts; set one of text, input_ids, messages "
                       "and openai_json");
    if (has_sampling(&request->sampling))
        return err_new(ERR_INVALID_ARGUMENT,
                       "sampling_params cannot stand beside openai_json, which has them");
    struct openai_request openai;
    TRY(openai_decode_request(OPENAI_CHAT, options->openai_json, options->openai_json_bytes, scratch,
                              &openai));
    struct request own = openai.request;
    if (request->request_id && request->request_id[0])
        own.request_id = request->request_id;
    if (request->model && request->model[0])
        own.model = request->model;
    if (request->priority != 0)
        own.priority = request->priority;
    if (request->n_output_prefix_ids > 0) {
        own.output_prefix_ids = request->output_prefix_ids;
        own.n_output_prefix_ids = request->n_output_prefix_ids;
    }
    *request = own;
    return err_ok();
}

/* Decodes and submits; what the request borrowed is free again afterwards. */
static err_t submit_call(struct grpc_door *door, struct rpc_call *call, bool whole,
                         struct generate_call *generate)
{
    struct codec_scratch scratch = {0};
    struct openai_scratch openai_scratch = {.passes_on = door->service->vtable->passes_on};
    struct generate_options options;
    struct request request = {.tenant = ""}; /* what is refused may not have been read */
    size_t size_bytes;
    const uint8_t *bytes = rpc_call_payload(call, &size_bytes);
    err_t e = generate->codec->decode_generate(bytes, size_bytes, &scratch, &request, &options);
    if (e.code == ERR_OK)
        e = take_openai(&options, &openai_scratch, &request);
    if (e.code == ERR_OK && (whole || options.whole))
        e = whole_answer_create(whole_answer_choices(&request), &generate->whole);
    struct route_headers headers;
    if (e.code == ERR_OK)
        e = apply_headers(door->service, call, &headers, &request);
    if (e.code == ERR_OK) {
        request.deadline_ns = generate->deadline_ns;
        request.tenant = rpc_call_caller(call)->tenant;
        request.door = "grpc";
        request.wants_whole = generate->whole != NULL;
        request.takes_ids_only = generate->codec->has_ids_only;
        generate->answer.with_prompt_token_ids = options.return_prompt_token_ids;
        e = door->service->vtable->submit(door->service, &request, &generate->stream);
    }
    const struct request_log_name name = {
        .id = request.request_id,
        .tenant = rpc_call_caller(call)->tenant,
        .model = request.model,
        .door = "grpc",
    };
    if (e.code != ERR_OK)
        request_log_refused(door->service, &name, &e);
    openai_scratch_free(&openai_scratch);
    codec_scratch_free(&scratch);
    rpc_call_drop_payload(call);
    return e;
}

static err_t open_generation(struct grpc_door *door, struct rpc_call *call, bool whole,
                             struct generate_call **out)
{
    struct generate_call *generate = mem_alloc(sizeof *generate);
    if (!generate)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a request");
    generate->codec = rpc_call_method_data(call);
    generate->deadline_ns = deadline_of(door->service, call);
    err_t e = submit_call(door, call, whole, generate);
    if (e.code != ERR_OK) {
        whole_answer_destroy(generate->whole);
        mem_free(generate);
        return e;
    }
    *out = generate;
    return err_ok();
}

static void handle_generate(struct grpc_door *door, struct rpc_call *call, bool whole)
{
    struct generate_call *generate = NULL;
    atomic_fetch_add(&door->n_active, 1);
    metric_add(&door->metrics->streams_open[METRIC_DOOR_GRPC], 1);
    atomic_store(&door->last_generate_unix_s, (int64_t)time(NULL));
    err_t e = open_generation(door, call, whole, &generate);
    if (e.code != ERR_OK) {
        bool later = e.code == ERR_RESOURCE_EXHAUSTED || e.code == ERR_QUOTA_EXCEEDED || e.retry_after_ms > 0;
        int64_t pushback = later ? refusal_pushback_ms(door->service, &e) : RPC_NO_PUSHBACK;
        metric_add(&door->metrics->refusals[metric_refusal(METRIC_DOOR_GRPC, e.code)], 1);
        rpc_call_refuse(call, &e, pushback);
        leave_active(door);
        return;
    }
    generate->answer.request_id = door->service->vtable->stream_request_id(generate->stream);
    generate->answer.model = door->service->vtable->model_info(door->service);
    door_item_fill(&generate->item, door, call, pump_generation, destroy_generation);
    if (door->service->vtable->stream_watch) {
        flush_item_watch(door->flusher, &generate->item.flush, door_item_hold);
        door->service->vtable->stream_watch(generate->stream, wake_generation, generate);
    }
    door_item_add(&generate->item, 0);
}

void door_generate(void *context, struct rpc_call *call)
{
    handle_generate(context, call, false);
}

void door_generate_whole(void *context, struct rpc_call *call)
{
    handle_generate(context, call, true);
}
