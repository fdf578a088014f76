/* Chat completions and completions: a request from its bytes to the last byte of its answer. A completion
 * with several prompts is as many requests to the service. */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "api/request_log.h"
#include "base/alloc.h"
#include "base/assert.h"
#include "proto/answer_source.h"
#include "proto/http_door_internal.h"
#include "proto/openai_pieces.h"
#include "proto/route_headers.h"
#include "proto/whole_answer.h"

enum {
    INLINE_ANSWER_BYTES = 64 << 10, /* larger whole answers are written by a worker */
    CHUNK_BYTES_MAX = 32 << 20,     /* of what one pump encodes: an event with a long prompt's logprobs */
    CHUNK_BYTES_ENOUGH = 64 << 10,  /* then it is sent before the next event is taken */
};

/* One prompt. */
struct prompt_part {
    struct stream *stream;         /* NULL when released */
    struct whole_answer *whole;    /* when not streamed */
    struct openai_choice *choices; /* [n_choices] owned */
    struct buffer echo;            /* the prompt's text */
    struct openai_usage usage;     /* by ids; a source's own numbers in their place */
    struct answer_source *source;  /* owned: what was told last; NULL = nothing */
    uint32_t n_finished;           /* choices */
    bool lacks_ids;                /* it had output without ids: only the end tells how much */
};

struct generation {
    struct http_door *door;
    struct http_exchange *exchange;
    struct openai_request request; /* its pointers are gone once submitted */
    struct openai_answer answer;
    struct prompt_part *parts;      /* [n_parts] owned */
    size_t n_parts, n_left;         /* n_left: streams that have not ended */
    size_t next_part;               /* round robin */
    uint32_t n_choices;             /* of each part */
    struct prompt_part *first_told; /* whose source was known first; NULL = none's */
    struct answer_source source;    /* of all parts together, for usage */
    struct buffer chunk;            /* what is sent next */
    size_t whole_bytes;
    char param[OPENAI_PARAM_BYTES_MAX];
    char part_id[REQUEST_ID_BYTES_MAX + 32]; /* of several: whose submission began last */
};

static const struct service_vtable *vtable_of(const struct generation *generation)
{
    return generation->door->service->vtable;
}

static void release_part(struct generation *generation, struct prompt_part *part)
{
    if (!part->stream)
        return;
    vtable_of(generation)->stream_release(part->stream);
    part->stream = NULL;
    generation->n_left--;
}

static void free_generation(struct generation *generation)
{
    for (size_t i = 0; generation->parts && i < generation->n_parts; i++) {
        release_part(generation, &generation->parts[i]);
        whole_answer_destroy(generation->parts[i].whole);
        buffer_free(&generation->parts[i].echo);
        mem_free(generation->parts[i].source);
        mem_free(generation->parts[i].choices);
    }
    mem_free(generation->parts);
    buffer_free(&generation->chunk);
    openai_answer_free(&generation->answer);
    struct http_door *door = generation->door;
    mem_free(generation);
    metric_subtract(&door->metrics->streams_open[METRIC_DOOR_HTTP], 1);
    struct event_count *idle = atomic_load(&door->idle);
    if (atomic_fetch_sub(&door->n_active, 1) == 1 && idle)
        event_count_bump(idle);
}

void http_generate_ended(struct http_door *door, struct http_exchange *exchange)
{
    struct generation *generation = http_exchange_user(exchange);
    if (!generation)
        return;
    if (!http_exchange_complete(exchange))
        metric_add(&door->metrics->disconnects[METRIC_DOOR_HTTP], 1);
    free_generation(generation);
}

/* --- submitting */

static err_t no_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a request");
}

static err_t shutting_down(void)
{
    return err_new(ERR_UNAVAILABLE, "the server is shutting down");
}

/* What echo repeats: a text as it came, ids as the tokenizer writes them. */
static err_t keep_echo(struct generation *generation, const struct request *request, struct prompt_part *part)
{
    struct service *service = generation->door->service;
    part->echo.limit_bytes = WHOLE_ANSWER_BYTES_MAX;
    if (request->prompt_kind == PROMPT_TEXT)
        return buffer_append(&part->echo, request->text, request->text_bytes) ? err_ok() : no_memory();
    if (!generation->answer.model->has_tokenizer)
        return err_ok();
    return vtable_of(generation)
        ->detokenize(service, request->token_ids, request->n_token_ids, false, &part->echo);
}

/* The service's name for part i: the client's, numbered when there are several. Without one the service makes
 * up the first part's, and the other ones' are that one, numbered. */
static const char *name_part(struct generation *generation, size_t i)
{
    const char *id = generation->request.request.request_id;
    if (generation->n_parts == 1 || (!id && i == 0))
        return id;
    if (!id)
        id = vtable_of(generation)->stream_request_id(generation->parts[0].stream);
    (void)snprintf(generation->part_id, sizeof generation->part_id, "%s-%zu", id, i);
    return generation->part_id;
}

static void wake(void *exchange)
{
    http_exchange_wake(exchange);
}

static err_t submit_part(struct generation *generation, size_t index)
{
    struct prompt_part *part = &generation->parts[index];
    struct request request = openai_request_of_prompt(&generation->request, index);
    request.wants_whole = !generation->request.stream;
    request.request_id = name_part(generation, index);
    part->choices = mem_alloc_array(generation->n_choices, sizeof *part->choices);
    if (!part->choices)
        return no_memory();
    if (!generation->request.stream)
        TRY(whole_answer_create(generation->n_choices, &part->whole));
    TRY(vtable_of(generation)->submit(generation->door->service, &request, &part->stream));
    generation->n_left++;
    if (vtable_of(generation)->stream_watch)
        vtable_of(generation)->stream_watch(part->stream, wake, generation->exchange);
    if (generation->request.echo) /* after the validator has seen the ids */
        TRY(keep_echo(generation, &request, part));
    for (uint32_t i = 0; i < generation->n_choices; i++)
        part->choices[i] = (struct openai_choice){
            .index = (uint32_t)index * generation->n_choices + i,
            .echo_text = part->echo.data ? part->echo.data : "",
            .echo_bytes = part->echo.size,
        };
    return err_ok();
}

/* x-request-id, else the body's request_id, else what the service makes up. */
static const char *request_id_of(const struct http_head *head, const char *from_body, char *out,
                                 size_t out_bytes)
{
    struct http_text id = http_head_find(head, "x-request-id");
    if (id.size == 0)
        return from_body && from_body[0] ? from_body : NULL;
    (void)snprintf(out, out_bytes, "%.*s", (int)id.size, id.data);
    return out;
}

static err_t name_answer(struct generation *generation, struct http_exchange *exchange, const char *id)
{
    struct openai_answer *answer = &generation->answer;
    bool named = id != NULL;
    if (!named)
        id = vtable_of(generation)->stream_request_id(generation->parts[0].stream);
    (void)snprintf(answer->id, sizeof answer->id, "%s-%s",
                   generation->request.kind == OPENAI_CHAT ? "chatcmpl" : "cmpl", id);
    if (http_head_find(http_exchange_head(exchange), "x-request-id").size == 0)
        http_exchange_header(exchange, "x-request-id", id);
    return openai_answer_prepare(answer, NULL) ? err_ok() : no_memory();
}

static err_t submit_all(struct generation *generation, struct http_exchange *exchange)
{
    generation->request.request.tenant = http_exchange_caller(exchange)->tenant;
    generation->request.request.door = "http";
    generation->n_choices = whole_answer_choices(&generation->request.request);
    generation->parts = mem_alloc_array(generation->request.n_prompts, sizeof *generation->parts);
    if (!generation->parts)
        return no_memory();
    generation->n_parts = generation->request.n_prompts;
    for (size_t i = 0; i < generation->n_parts; i++) {
        err_t e = submit_part(generation, i);
        if (e.code != ERR_OK)
            return generation->n_parts > 1 ? openai_error_of_prompt(e, i) : e;
    }
    return name_answer(generation, exchange, generation->request.request.request_id);
}

/* false: there is none, or it does not fit. */
static bool copy_header(const struct http_head *head, const char *name, char *out, size_t out_bytes)
{
    struct http_text value = http_head_find(head, name);
    if (!value.data || value.size >= out_bytes || memchr(value.data, 0, value.size))
        return false;
    memcpy(out, value.data, value.size);
    out[value.size] = '\0';
    return true;
}

/* *headers must live as long as the request. */
static err_t apply_headers(struct service *service, const struct http_head *head,
                           struct route_headers *headers, struct request *request)
{
    char priority[16];
    headers->n_hints = 0;
    headers->cache_salt[0] = '\0';
    for (size_t i = 0; service->vtable->passes_on && i < head->n_headers; i++) {
        struct http_text name = head->headers[i].name, value = head->headers[i].value;
        TRY(route_headers_take_hint(headers, name.data, name.size, value.data, value.size));
    }
    bool has_priority = copy_header(head, ROUTE_PRIORITY, priority, sizeof priority);
    if (!copy_header(head, ROUTE_MODEL, headers->model, sizeof headers->model))
        headers->model[0] = '\0';
    return route_headers_apply(headers, has_priority ? priority : NULL, request);
}

static void log_refused(const struct generation *generation, struct http_exchange *exchange,
                        const err_t *error)
{
    const struct request *request = &generation->request.request;
    const struct request_log_name name = {
        .id = generation->part_id[0] ? generation->part_id : request->request_id,
        .tenant = http_exchange_caller(exchange)->tenant,
        .model = request->model,
        .door = "http",
    };
    request_log_refused(generation->door->service, &name, error);
}

static err_t open_generation(struct generation *generation, struct http_exchange *exchange,
                             enum openai_kind kind)
{
    struct service *service = generation->door->service;
    struct openai_scratch scratch = {.passes_on = service->vtable->passes_on};
    size_t size_bytes;
    const char *body = http_exchange_body(exchange, &size_bytes);
    struct request *request = &generation->request.request;
    char id[REQUEST_ID_BYTES_MAX + 2]; /* one past what the validator lets through */
    err_t e = atomic_load(&generation->door->draining)
                  ? shutting_down()
                  : openai_decode_request(kind, body, size_bytes, &scratch, &generation->request);
    request->request_id = request_id_of(http_exchange_head(exchange), request->request_id, id, sizeof id);
    generation->answer.request = &generation->request;
    generation->answer.service = service;
    generation->answer.model = service->vtable->model_info(service);
    generation->answer.created_unix_s = (int64_t)time(NULL);
    struct route_headers headers;
    if (e.code == ERR_OK)
        e = apply_headers(service, http_exchange_head(exchange), &headers, request);
    if (e.code == ERR_OK)
        e = submit_all(generation, exchange);
    if (e.code != ERR_OK) {
        memcpy(generation->param, scratch.param, sizeof scratch.param);
        log_refused(generation, exchange, &e);
    }
    openai_scratch_free(&scratch);
    http_exchange_drop_body(exchange);
    return e;
}

void http_generate(struct http_door *door, struct http_exchange *exchange, enum openai_kind kind)
{
    struct generation *generation = mem_alloc(sizeof *generation);
    err_t e = no_memory();
    if (!generation) {
        http_refuse(door, exchange, &e, kind, NULL);
        return;
    }
    atomic_fetch_add(&door->n_active, 1);
    metric_add(&door->metrics->streams_open[METRIC_DOOR_HTTP], 1);
    generation->door = door;
    generation->exchange = exchange;
    e = open_generation(generation, exchange, kind);
    http_add_rates(door, exchange);
    if (e.code != ERR_OK) {
        metric_add(&door->metrics->refusals[metric_refusal(METRIC_DOOR_HTTP, e.code)], 1);
        http_refuse(door, exchange, &e, kind, generation->param);
        free_generation(generation);
        return;
    }
    http_exchange_set_user(exchange, generation);
}

/* --- answering */

static void add_source(struct generation *generation, struct http_exchange *exchange)
{
    if (generation->first_told)
        http_add_source_headers(generation->first_told->source, exchange);
}

/* Before anything of the event is encoded: messages begin with who answers, and his fingerprint may come with
 * the end alone. */
static err_t note_source(struct generation *generation, struct prompt_part *part, const struct event *event)
{
    if (!event->source)
        return err_ok();
    struct answer_source *kept = answer_source_copy(event->source);
    if (!kept)
        return no_memory();
    bool tells_more = generation->first_told == part && !part->source->fingerprint[0] && kept->fingerprint[0];
    mem_free(part->source);
    part->source = kept;
    if (generation->first_told && !tells_more)
        return err_ok();
    generation->first_told = part;
    return openai_answer_prepare(&generation->answer, kept) ? err_ok() : no_memory();
}

/* What a source says of its own tokens counts, not how many ids have passed. Of n > 1 each end tells what its
 * choice took, or one of them what all took. */
static void count_told(const struct generation *generation, struct prompt_part *part,
                       struct openai_choice *choice, const struct usage *told)
{
    struct openai_usage *usage = &part->usage;
    usage->is_unknown = usage->is_unknown || told->is_unknown;
    if (told->is_unknown)
        return;
    if (told->prompt_tokens > usage->prompt_tokens)
        usage->prompt_tokens = told->prompt_tokens;
    if (told->cached_tokens > usage->cached_tokens)
        usage->cached_tokens = told->cached_tokens;
    if (generation->request.prompt_only)
        return;
    usage->completion_tokens += told->completion_tokens;
    usage->completion_tokens -= choice->completion_tokens;
    choice->completion_tokens = told->completion_tokens;
}

static void count_usage(struct generation *generation, struct prompt_part *part, const struct event *event)
{
    struct openai_usage *usage = &part->usage;
    struct openai_choice *choice = &part->choices[event->choice_index];
    usage->prompt_tokens += event->n_prompt_token_ids;
    if (!generation->request.prompt_only) {
        usage->completion_tokens += event->n_token_ids;
        choice->completion_tokens += (uint32_t)event->n_token_ids;
    }
    part->lacks_ids = part->lacks_ids || (part->source && event->n_token_ids == 0);
    if (event->kind != EVENT_FINISHED)
        return;
    part->n_finished++;
    if (event->source)
        count_told(generation, part, choice, &event->usage);
    else if (event->choice_index == 0)
        usage->cached_tokens += event->usage.cached_tokens;
}

static void merge_text(const char **text, const char *other)
{
    if (strcmp(*text, other) != 0)
        *text = "several";
}

/* Costs and attempts add up; where parts were answered by different ones, no one name is right. */
static void merge_source(struct answer_source *all, const struct answer_source *one)
{
    merge_text(&all->provider, one->provider);
    merge_text(&all->model, one->model);
    merge_text(&all->reason, one->reason);
    merge_text(&all->rule, one->rule);
    merge_text(&all->cache, one->cache);
    merge_text(&all->fingerprint, one->fingerprint);
    merge_text(&all->dropped, one->dropped);
    merge_text(&all->decision_id, one->decision_id);
    all->attempts += one->attempts;
    if (all->cost_nanodollars < 0 || one->cost_nanodollars < 0 ||
        __builtin_add_overflow(all->cost_nanodollars, one->cost_nanodollars, &all->cost_nanodollars))
        all->cost_nanodollars = -1;
}

/* Of all parts, as far as they are. */
static struct openai_usage usage_of(struct generation *generation)
{
    struct openai_usage all = {0};
    for (size_t i = 0; i < generation->n_parts; i++) {
        const struct prompt_part *part = &generation->parts[i];
        all.prompt_tokens += part->usage.prompt_tokens;
        all.completion_tokens += part->usage.completion_tokens;
        all.cached_tokens += part->usage.cached_tokens;
        all.is_unknown = all.is_unknown || part->usage.is_unknown ||
                         (part->lacks_ids && part->n_finished < generation->n_choices);
        if (!part->source)
            continue;
        if (all.source)
            merge_source(&generation->source, part->source);
        else
            generation->source = *part->source;
        all.source = &generation->source;
    }
    return all;
}

/* {"error": {...}, "bantam": {...}}: who answered so far, and what that cost as far as it is known. */
static bool encode_failure(struct generation *generation, const err_t *error, struct buffer *out)
{
    struct openai_usage usage = usage_of(generation);
    if (!openai_encode_error(error, generation->request.kind, NULL, out))
        return false;
    if (!usage.source)
        return true;
    ASSERT(out->data[out->size - 1] == '}');
    out->size--;
    return buffer_append_text(out, ",") && openai_encode_source(usage.source, out) &&
           buffer_append_text(out, "}");
}

/* An error before the answer has begun is one of HTTP, later it is an event of the stream. */
static void fail(struct generation *generation, struct http_exchange *exchange, const err_t *error)
{
    for (size_t i = 0; i < generation->n_parts; i++)
        release_part(generation, &generation->parts[i]);
    if (!http_exchange_begun(exchange)) {
        add_source(generation, exchange);
        http_refuse(generation->door, exchange, error, generation->request.kind, NULL);
        return;
    }
    struct buffer body = {.limit_bytes = CHUNK_BYTES_ENOUGH};
    bool good = buffer_append_text(&body, "data: ") && encode_failure(generation, error, &body) &&
                buffer_append_text(&body, "\n\n");
    if (good)
        http_exchange_send(exchange, body.data, body.size);
    buffer_free(&body);
    http_exchange_close_after(exchange);
    http_exchange_end(exchange);
}

/* Takes one event of any part; false when there is none now. */
static bool next_event(struct generation *generation, struct event *event, struct prompt_part **out)
{
    for (size_t i = 0; i < generation->n_parts; i++) {
        struct prompt_part *part = &generation->parts[(generation->next_part + i) % generation->n_parts];
        if (!part->stream || !vtable_of(generation)->stream_next(part->stream, event))
            continue;
        ASSERT(event->choice_index < generation->n_choices);
        generation->next_part = (size_t)(part - generation->parts) + 1;
        *out = part;
        return true;
    }
    return false;
}

static err_t too_long(void)
{
    return err_new(ERR_INVALID_ARGUMENT,
                   "the answer exceeds %d bytes; stream it, or ask for fewer choices or "
                   "logprobs",
                   WHOLE_ANSWER_BYTES_MAX);
}

/* --- streams */

static void begin_stream(struct generation *generation, struct http_exchange *exchange)
{
    if (http_exchange_begun(exchange))
        return;
    http_add_load_headers(generation->door, exchange);
    add_source(generation, exchange);
    http_exchange_header(exchange, "cache-control", "no-cache");
    http_exchange_header(exchange, "x-accel-buffering", "no"); /* nginx would gather tokens */
    http_exchange_begin(exchange, 200, "text/event-stream; charset=utf-8");
}

static void send_chunk(struct generation *generation, struct http_exchange *exchange)
{
    if (generation->chunk.size == 0)
        return;
    begin_stream(generation, exchange);
    http_exchange_send(exchange, generation->chunk.data, generation->chunk.size);
    if (generation->chunk.capacity > CHUNK_BYTES_ENOUGH)
        buffer_free(&generation->chunk);
    else
        buffer_clear(&generation->chunk);
}

static err_t encode_event(struct generation *generation, struct prompt_part *part, const struct event *event)
{
    TRY(note_source(generation, part, event));
    if (event->kind == EVENT_FINISHED && event->finish_reason == FINISH_ERROR)
        return event->error;
    count_usage(generation, part, event);
    bool with_usage = generation->request.continuous_usage;
    struct openai_usage usage = {0};
    if (with_usage)
        usage = usage_of(generation);
    generation->chunk.limit_bytes = CHUNK_BYTES_MAX;
    if (!openai_encode_chunk(&generation->answer, &part->choices[event->choice_index], event,
                             with_usage ? &usage : NULL, &generation->chunk))
        return too_long();
    return err_ok();
}

static void finish_stream(struct generation *generation, struct http_exchange *exchange)
{
    struct openai_usage usage = usage_of(generation);
    bool good = !generation->request.include_usage ||
                openai_encode_usage_chunk(&generation->answer, &usage, &generation->chunk);
    if (good && openai_encode_done(&generation->chunk))
        send_chunk(generation, exchange);
    http_exchange_end(exchange);
}

static void pump_stream(struct generation *generation, struct http_exchange *exchange)
{
    struct event event;
    struct prompt_part *part;
    while (generation->n_left > 0 && http_exchange_can_send(exchange) &&
           next_event(generation, &event, &part)) {
        err_t e = encode_event(generation, part, &event);
        if (e.code != ERR_OK) {
            send_chunk(generation, exchange);
            fail(generation, exchange, &e);
            return;
        }
        if (event.last)
            release_part(generation, part);
        if (generation->chunk.size >= CHUNK_BYTES_ENOUGH)
            send_chunk(generation, exchange);
    }
    send_chunk(generation, exchange);
    if (generation->n_left == 0)
        finish_stream(generation, exchange);
}

/* --- wholes */

static bool encode_part(struct generation *generation, struct prompt_part *part, struct buffer *out)
{
    size_t n_events;
    const struct event *events = whole_answer_events(part->whole, &n_events);
    bool good = true;
    for (size_t i = 0; good && i < n_events; i++) {
        struct event event = events[i];
        /* The prompt's part belongs to each choice of it. */
        event.prompt_logprobs = events[0].prompt_logprobs;
        event.n_prompt_logprobs = events[0].n_prompt_logprobs;
        event.prompt_token_ids = events[0].prompt_token_ids;
        event.n_prompt_token_ids = events[0].n_prompt_token_ids;
        good = openai_encode_choice(&generation->answer, &part->choices[i], &event, out);
    }
    return good;
}

/* They were written out: the client may take its time with that. */
static void drop_wholes(struct generation *generation)
{
    for (size_t i = 0; i < generation->n_parts; i++) {
        whole_answer_destroy(generation->parts[i].whole);
        generation->parts[i].whole = NULL;
    }
}

static void write_whole(void *context, struct http_exchange *exchange)
{
    (void)context;
    struct generation *generation = http_exchange_user(exchange);
    struct buffer body = {.limit_bytes = WHOLE_ANSWER_BYTES_MAX};
    bool good = openai_encode_begin(&generation->answer, &body);
    for (size_t i = 0; good && i < generation->n_parts; i++)
        good = encode_part(generation, &generation->parts[i], &body);
    size_t n_events;
    const struct event *first = whole_answer_events(generation->parts[0].whole, &n_events);
    struct openai_usage usage = usage_of(generation);
    good = good && openai_encode_end(&generation->answer, first, &usage, &body);
    err_t e = too_long();
    http_add_load_headers(generation->door, exchange);
    add_source(generation, exchange);
    drop_wholes(generation);
    if (good)
        http_exchange_respond(exchange, 200, HTTP_JSON, body.data, body.size);
    else
        http_refuse(generation->door, exchange, &e, generation->request.kind, NULL);
    buffer_free(&body);
}

static err_t keep_event(struct generation *generation, struct prompt_part *part, const struct event *event)
{
    TRY(note_source(generation, part, event));
    if (event->kind == EVENT_FINISHED && event->finish_reason == FINISH_ERROR)
        return event->error;
    count_usage(generation, part, event);
    size_t before = whole_answer_bytes(part->whole);
    err_t e = whole_answer_add(part->whole, event, generation->request.return_token_ids);
    generation->whole_bytes += whole_answer_bytes(part->whole) - before;
    if (e.code == ERR_RESOURCE_EXHAUSTED || generation->whole_bytes > WHOLE_ANSWER_BYTES_MAX)
        return too_long();
    return e;
}

static void pump_whole(struct generation *generation, struct http_exchange *exchange)
{
    struct event event;
    struct prompt_part *part;
    while (generation->n_left > 0 && next_event(generation, &event, &part)) {
        err_t e = keep_event(generation, part, &event);
        if (e.code != ERR_OK) {
            fail(generation, exchange, &e);
            return;
        }
        if (event.last)
            release_part(generation, part);
    }
    if (generation->n_left > 0)
        return;
    if (generation->whole_bytes > INLINE_ANSWER_BYTES)
        http_exchange_offload(exchange, write_whole);
    else
        write_whole(generation->door, exchange);
}

void http_generate_pump(struct http_door *door, struct http_exchange *exchange)
{
    struct generation *generation = http_exchange_user(exchange);
    ASSERT(generation);
    if (atomic_load(&door->closing)) {
        err_t e = shutting_down();
        fail(generation, exchange, &e);
    } else if (generation->request.stream) {
        pump_stream(generation, exchange);
    } else {
        pump_whole(generation, exchange);
    }
}
