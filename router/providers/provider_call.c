#include "router/providers/provider_call.h"

#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "router/providers/provider_error.h"
#include "router/providers/sse_reader.h"

enum { HEADERS_MAX = 32, URL_BYTES_MAX = 2048, KEY_HEADER_BYTES_MAX = 4096 };

static const char ANTHROPIC_VERSION[] = "anthropic-version: 2023-06-01";

/* Lives from the start to the end of its call. */
struct call {
    const struct provider_handler *handler;
    void *context;
    struct answer_reader *answer;
    struct sse_reader events;
    struct buffer body; /* of an error, or of an answer that is not streamed */
    struct egress_head head;
    bool is_event_stream, wants_pause, has_pieces, reached;
    bool is_refused; /* by our own handler */
    bool has_enough; /* of an error's body */
};

static err_t take_piece(void *context, const struct answer_piece *piece)
{
    struct call *call = context;
    call->has_pieces = true;
    err_t e = call->handler->piece(call->context, piece, &call->wants_pause);
    call->is_refused = e.code != ERR_OK;
    return e;
}

static bool is_success(const struct call *call)
{
    return call->head.status >= 200 && call->head.status < 300;
}

static err_t on_head(void *context, const struct egress_head *head)
{
    struct call *call = context;
    call->head = *head;
    call->reached = true;
    call->is_event_stream = is_success(call) && head->is_event_stream;
    call->body.limit_bytes = is_success(call) ? PROVIDER_BODY_BYTES_MAX : PROVIDER_FAULT_BYTES_MAX;
    if (call->handler->head)
        call->handler->head(call->context, head);
    return err_ok();
}

static err_t take_events(struct call *call, const char *bytes, size_t size)
{
    struct sse_event event;
    bool found;
    for (size_t at = 0, consumed; at < size; at += consumed) {
        err_t e = sse_reader_next(&call->events, bytes + at, size - at, &consumed, &event, &found);
        if (e.code != ERR_OK)
            e.code = ERR_DATA_LOSS;
        TRY(e);
        if (found)
            TRY(answer_reader_event(call->answer, event.data, event.data_bytes));
    }
    return err_ok();
}

static err_t on_bytes(void *context, const char *bytes, size_t size, bool *pause)
{
    struct call *call = context;
    if (!call->is_event_stream) {
        if (buffer_append(&call->body, bytes, size))
            return err_ok();
        call->has_enough = !is_success(call);
        return err_new(ERR_DATA_LOSS, "the provider's answer is longer than %zu bytes",
                       call->body.limit_bytes);
    }
    call->wants_pause = false;
    err_t e = take_events(call, bytes, size);
    *pause = call->wants_pause;
    return e;
}

/* The connection has come to its end as it should. */
static err_t finish(struct call *call)
{
    if (!is_success(call))
        return provider_error_of_response(call->head.status, call->body.data, call->body.size,
                                          call->head.retry_after_ms);
    if (call->is_event_stream) {
        struct sse_event event;
        bool found;
        TRY(sse_reader_end(&call->events, &event, &found));
        if (found)
            TRY(answer_reader_event(call->answer, event.data, event.data_bytes));
    } else {
        TRY(answer_reader_body(call->answer, call->body.data ? call->body.data : "", call->body.size));
    }
    return answer_reader_end(call->answer);
}

/* What comes after the format's own end, or after enough of an error, need not come. */
static bool is_over_already(const struct call *call, err_t error)
{
    bool is_cut = error.code == ERR_UNAVAILABLE || error.code == ERR_DEADLINE_EXCEEDED;
    return call->has_enough || (is_cut && call->is_event_stream && answer_reader_is_done(call->answer));
}

static void on_end(void *context, err_t error, const struct egress_times *times)
{
    struct call *call = context;
    if (error.code == ERR_OK || is_over_already(call, error))
        error = finish(call);
    bool is_its_fault = !call->is_refused && (provider_error_may_retry(error) || error.code == ERR_DATA_LOSS);
    struct provider_result result = {
        .error = error,
        .may_retry = is_its_fault && !call->head.should_not_retry,
        .has_pieces = call->has_pieces,
        .reached = call->reached,
        .is_its_fault = is_its_fault,
        .usage = answer_reader_usage(call->answer),
        .told_cost = answer_reader_cost(call->answer),
        .model = answer_reader_model(call->answer),
        .id = answer_reader_id(call->answer),
        .fingerprint = answer_reader_fingerprint(call->answer),
        .head = call->head,
        .times = *times,
    };
    call->handler->end(call->context, &result);
    answer_reader_close(call->answer);
    sse_reader_free(&call->events);
    buffer_free(&call->body);
    mem_free(call);
}

static const struct egress_handler HANDLER = {on_head, on_bytes, on_end};

/* Address and headers; key: room for the header that holds it. */
static err_t address(const struct provider *provider, struct egress_call *out, char url[URL_BYTES_MAX],
                     char key[KEY_HEADER_BYTES_MAX], const char *headers[HEADERS_MAX])
{
    bool is_anthropic = provider->kind == PROVIDER_ANTHROPIC;
    int length =
        snprintf(url, URL_BYTES_MAX, "%s%s", provider->url, is_anthropic ? "/messages" : "/chat/completions");
    size_t n = 0;
    if (length >= URL_BYTES_MAX || provider->n_headers > HEADERS_MAX - 2)
        return err_new(ERR_INVALID_ARGUMENT, "provider %s: its url or headers are too long", provider->name);
    if (provider->key) {
        length = snprintf(key, KEY_HEADER_BYTES_MAX, "%s%s",
                          is_anthropic ? "x-api-key: " : "Authorization: Bearer ", provider->key);
        if (length >= KEY_HEADER_BYTES_MAX)
            return err_new(ERR_INVALID_ARGUMENT, "provider %s: its key is too long", provider->name);
        headers[n++] = key;
    }
    if (is_anthropic)
        headers[n++] = ANTHROPIC_VERSION;
    for (size_t i = 0; i < provider->n_headers; i++)
        headers[n++] = provider->headers[i];
    out->url = url;
    out->headers = headers;
    out->n_headers = n;
    return err_ok();
}

/* A whole answer's first byte comes when it has been thought of: it has the time of all of it. */
static err_t send_call(struct egress *egress, const struct provider *provider, bool is_stream,
                       const struct buffer *body, struct call *call, uint64_t *number)
{
    char url[URL_BYTES_MAX], key[KEY_HEADER_BYTES_MAX];
    const char *headers[HEADERS_MAX];
    struct egress_call out = {
        .ca_file = provider->ca_file,
        .body = body->data,
        .body_bytes = body->size,
        .connect_timeout_ms = provider->connect_timeout_ms,
        .first_byte_timeout_ms = is_stream || provider->total_timeout_ms == 0
                                     ? provider->first_byte_timeout_ms
                                     : provider->total_timeout_ms,
        .chunk_timeout_ms = provider->chunk_timeout_ms,
        .total_timeout_ms = provider->total_timeout_ms,
    };
    TRY(address(provider, &out, url, key, headers));
    err_t e = egress_start(egress, &out, &HANDLER, call, number);
    explicit_bzero(key, sizeof key);
    return e;
}

err_t provider_call_start(struct egress *egress, const struct provider *provider,
                          const struct provider_model *model, const struct shareable *shareable,
                          bool is_stream, const struct provider_handler *handler, void *context,
                          struct provider_dropped *dropped, uint64_t *number)
{
    const json_t *request = shareable_request(shareable);
    if (request == NULL)
        return err_new(ERR_PERMISSION_DENIED, "this request must not leave the machine");
    struct call *call = mem_alloc(sizeof *call);
    if (call == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a call to a provider");
    *call = (struct call){
        .handler = handler, .context = context, .events = {.event_bytes_max = PROVIDER_EVENT_BYTES_MAX}};
    struct answer_sink sink = {.take = take_piece, .context = call};
    struct buffer body = {.limit_bytes = PROVIDER_REQUEST_BYTES_MAX};
    err_t e = answer_reader_open(model->kind, &sink, &call->answer);
    if (e.code == ERR_OK)
        e = provider_request_write(model, request, is_stream, dropped, &body);
    if (e.code == ERR_OK)
        e = send_call(egress, provider, is_stream, &body, call,
                      number); /* from here on the call is the egress thread's */
    buffer_free(&body);
    if (e.code != ERR_OK) {
        answer_reader_close(call->answer);
        mem_free(call);
    }
    return e;
}
