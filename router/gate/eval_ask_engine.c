/* Over gRPC, from an engine or a router: handlers run while the client is polled. */
#include <stdio.h>
#include <string.h>
#include "proto/codec_openai.h"
#include "proto/route_headers.h"
#include "router/gate/eval_ask_internal.h"
#include "router/policy/cascade.h"
#include "router/policy/request_signals.h"
#include "router/providers/json_text.h"

enum { TOP_LOGPROBS = 2 };

static void take_margins(struct eval_answer *answer, const struct event *event)
{
    for (size_t i = 0; i < event->n_logprobs && answer->n_margins < EVAL_MARGINS_MAX; i++) {
        double margin;
        if (cascade_margin(&event->logprobs[i], &margin))
            answer->margins[answer->n_margins++] = (float)margin;
    }
}

static bool take_calls(struct eval_slot *slot, const struct event *event)
{
    for (size_t i = 0; i < event->n_tool_calls; i++) {
        const struct tool_call *call = &event->tool_calls[i];
        if (!eval_slot_call(slot, call->index, call->name, call->arguments, call->arguments_bytes))
            return false;
    }
    return true;
}

static void take_source(struct eval_answer *answer, const struct answer_source *source)
{
    (void)snprintf(answer->model, sizeof answer->model, "%s", source->model);
    answer->is_from_strong = source->provider[0] != '\0' && strcmp(source->provider, "local") != 0;
    if (source->cost_nanodollars >= 0)
        answer->cost = source->cost_nanodollars;
}

static bool take_event(void *context, const struct event *event)
{
    struct eval_slot *slot = context;
    struct eval_answer *answer = slot->answer;
    if (event->choice_index != 0)
        return true;
    if (event->text_bytes > 0 || event->n_token_ids > 0 || event->n_tool_calls > 0)
        eval_slot_saw(slot);
    if (!buffer_append(&slot->text, event->text, event->text_bytes) || !take_calls(slot, event))
        slot->error =
            err_new(ERR_RESOURCE_EXHAUSTED, "the answer is longer than %d bytes", EVAL_ANSWER_BYTES_MAX);
    take_margins(answer, event);
    if (event->source != NULL)
        take_source(answer, event->source);
    if (event->kind != EVENT_FINISHED)
        return true;
    if (event->finish_reason == FINISH_ERROR)
        slot->error = event->error;
    if (!event->usage.is_unknown)
        answer->usage = (struct answer_usage){.input_tokens = event->usage.prompt_tokens,
                                              .cached_tokens = event->usage.cached_tokens,
                                              .cache_write_tokens = -1,
                                              .output_tokens = event->usage.completion_tokens,
                                              .reasoning_tokens = -1};
    return true;
}

static void take_done(void *context, const struct bantam_outcome *outcome)
{
    struct eval_slot *slot = context;
    if (slot->answer->model[0] == '\0')
        (void)snprintf(slot->answer->model, sizeof slot->answer->model, "%s", outcome->model);
    if (outcome->fingerprint[0] != '\0')
        (void)snprintf(slot->endpoint->fingerprint, sizeof slot->endpoint->fingerprint, "%s",
                       outcome->fingerprint);
    eval_slot_end(slot, outcome->error.code != ERR_OK ? outcome->error : slot->error);
}

static const struct bantam_handler HANDLER = {.on_event = take_event, .on_done = take_done};

/* The hints of request["bantam"] as metadata: a router reads them there, an engine passes them over. */
struct hint_headers {
    struct bantam_header headers[BANTAM_HEADERS_MAX];
    char keys[BANTAM_HEADERS_MAX][48], numbers[BANTAM_HEADERS_MAX][24];
    size_t n;
};

static err_t take_hints(const json_t *request, struct hint_headers *out)
{
    struct route_hints hints = ROUTE_HINTS_NONE;
    const char *name;
    json_t *value;
    out->n = 0;
    TRY(route_hints_of_body(request, &hints)); /* what nobody understands, a mark of privacy perhaps, is not
                                                  sent at all */
    json_object_foreach(json_object_get(request, "bantam"), name, value)
    {
        if (out->n == BANTAM_HEADERS_MAX)
            return err_new(ERR_INVALID_ARGUMENT, "bantam has more than %d hints", BANTAM_HEADERS_MAX);
        char *key = out->keys[out->n], *number = out->numbers[out->n];
        (void)snprintf(key, sizeof out->keys[0], ROUTE_HINT_PREFIX "%s", name);
        for (char *c = key; *c; c++)
            *c = *c == '_' ? '-' : *c;
        (void)snprintf(number, sizeof out->numbers[0], "%lld", (long long)json_integer_value(value));
        const char *text = json_is_string(value) ? json_string_value(value) : number;
        out->headers[out->n++] =
            (struct bantam_header){.key = key, .value = text, .value_bytes = strlen(text)};
    }
    return err_ok();
}

err_t eval_engine_start(struct eval_slot *slot, const json_t *request)
{
    struct buffer body = {.limit_bytes = PROVIDER_REQUEST_BYTES_MAX};
    struct openai_scratch scratch = {0};
    struct openai_request decoded;
    struct hint_headers hints;
    slot->error = err_ok();
    err_t e = take_hints(request, &hints);
    if (e.code == ERR_OK)
        e = json_text_append(&body, request);
    if (e.code == ERR_OK)
        e = openai_decode_request(OPENAI_CHAT, body.data, body.size, &scratch, &decoded);
    if (e.code == ERR_OK) {
        struct request asked = openai_request_of_prompt(&decoded, 0);
        asked.model = slot->endpoint->model_name; /* who is asked, whatever a recorded request says */
        /* A router keeps what asks for probabilities away from providers. */
        if (!(asked.sampling.set & SAMPLING_LOGPROBS) && !slot->endpoint->is_router) {
            asked.sampling.set |= SAMPLING_LOGPROBS;
            asked.sampling.logprobs = TOP_LOGPROBS;
        }
        struct bantam_query query = {.method = BANTAM_GENERATE, .request = &asked};
        struct bantam_call_options options = {
            .timeout_ns = slot->endpoint->timeout_ns, .headers = hints.headers, .n_headers = hints.n};
        e = bantam_client_start(slot->endpoint->client, &query, &options, &HANDLER, slot, NULL);
    }
    openai_scratch_free(&scratch);
    buffer_free(&body);
    return e;
}
