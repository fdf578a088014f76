/* A call's life: asked for, attempts, the wait between two of them, the end. Everything but call_make,
 * call_ask and the functions of any thread runs on the driver.
 *
 *   QUEUED -> RUNNING -> DONE
 *               |  ^
 *               v  |
 *             WAITING -> DONE (cancelled)
 */
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "clients/c/client_internal.h"
#include "proto/grpc_runtime.h"
#include "proto/route_headers.h"

#define LOAD_TRAILER "x-bantam-load-bin"

/* A client's headers, its key, a call's own, and what is mirrored. */
_Static_assert(2 * BANTAM_HEADERS_MAX + 3 <= CLIENT_METADATA_MAX, "all of them fit");

/* --- any thread */

static void drop_call(struct bantam_call *call)
{
    if (atomic_fetch_sub(&call->references, 1) != 1)
        return;
    if (call->headers)
        header_list_free(call->headers);
    mem_free(call->headers);
    mem_free(call->message);
    mem_free(call);
}

static bool names(const struct header_list *list, const char *key)
{
    for (size_t i = 0; i < list->n; i++)
        if (strcmp(list->metadata[i].key, key) == 0)
            return true;
    return false;
}

/* A word of the request once more, for proxies that route by it: they read no messages. The caller's own
 * header stands; what a header cannot say is left out. */
static err_t mirror(struct bantam_call *call, const char *key, const char *value)
{
    const struct client_metadata metadata = {key, value, strlen(value)};
    if (names(&call->client->headers, key) || names(call->headers, key) ||
        client_metadata_check(&metadata).code != ERR_OK)
        return err_ok();
    const struct bantam_header header = {key, value, metadata.value_bytes};
    return header_list_add(call->headers, &header);
}

static err_t take_headers(const struct bantam_call_options *options, const struct request *request,
                          struct bantam_call *call)
{
    bool has_model = request && request->model && request->model[0];
    bool has_priority = request && request->priority != 0;
    size_t n_headers = options ? options->n_headers : 0;
    if (n_headers == 0 && !has_model && !has_priority)
        return err_ok();
    if (n_headers > BANTAM_HEADERS_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "%zu headers; %d are allowed", n_headers, BANTAM_HEADERS_MAX);
    call->headers = mem_alloc(sizeof *call->headers);
    if (!call->headers)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for headers");
    for (size_t i = 0; i < n_headers; i++)
        TRY(header_list_add(call->headers, &options->headers[i]));
    if (has_model)
        TRY(mirror(call, ROUTE_MODEL, request->model));
    char priority[16];
    (void)snprintf(priority, sizeof priority, "%d", has_priority ? request->priority : 0);
    return has_priority ? mirror(call, ROUTE_PRIORITY, priority) : err_ok();
}

static int64_t deadline_after(struct bantam_client *client, int64_t timeout_ns)
{
    int64_t deadline_ns;
    if (timeout_ns < 0 || __builtin_add_overflow(clock_now_ns(client->clock), timeout_ns, &deadline_ns))
        return INT64_MAX;
    return deadline_ns;
}

static err_t enter(struct bantam_client *client)
{
    if (atomic_load(&client->closing))
        return err_new(ERR_UNAVAILABLE, "the client is closing");
    if (atomic_fetch_add(&client->n_calls, 1) < client->max_calls)
        return err_ok();
    atomic_fetch_sub(&client->n_calls, 1);
    return err_new(ERR_RESOURCE_EXHAUSTED, "%u calls are under way, which is this client's limit",
                   client->max_calls);
}

err_t call_make(struct bantam_client *client, const char *path, uint8_t *message, size_t message_bytes,
                const struct bantam_call_options *options, const struct request *request,
                struct bantam_call **out)
{
    err_t e = enter(client);
    struct bantam_call *call = e.code == ERR_OK ? mem_alloc(sizeof *call) : NULL;
    if (!call) {
        mem_free(message);
        if (e.code != ERR_OK)
            return e;
        atomic_fetch_sub(&client->n_calls, 1);
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a call");
    }
    call->references = 1;
    call->client = client;
    call->path = path;
    call->message = message;
    call->message_bytes = message_bytes;
    call->deadline_ns = deadline_after(client, options ? options->timeout_ns : BANTAM_NO_TIMEOUT);
    call->no_retries = options && options->no_retries;
    call->failure = err_ok();
    e = take_headers(options, request, call);
    if (e.code != ERR_OK) {
        atomic_fetch_sub(&client->n_calls, 1);
        drop_call(call);
        return e;
    }
    *out = call;
    return err_ok();
}

void call_ask(struct bantam_call *call, uint32_t what)
{
    struct bantam_client *client = call->client;
    pthread_mutex_lock(&client->mutex);
    call->asked |= what;
    bool enters = !call->in_inbox;
    if (enters) {
        call->in_inbox = true;
        call->inbox_next = NULL;
        atomic_fetch_add(&call->references, 1);
        if (client->inbox_last)
            client->inbox_last->inbox_next = call;
        else
            client->inbox_first = call;
        client->inbox_last = call;
        atomic_store(&client->has_inbox, true);
    }
    pthread_mutex_unlock(&client->mutex);
    if (enters && atomic_load(&client->group->waiting))
        grpc_client_wake(client->transport);
}

void bantam_call_cancel(struct bantam_call *call)
{
    if (!atomic_load(&call->done))
        call_ask(call, ASKED_CANCEL);
}

void bantam_call_resume(struct bantam_call *call)
{
    if (!atomic_load(&call->done))
        call_ask(call, ASKED_RESUME);
}

void bantam_call_release(struct bantam_call *call)
{
    if (call)
        drop_call(call);
}

/* --- the end */

static void link_call(struct bantam_call *call)
{
    struct bantam_client *client = call->client;
    call->next = client->calls;
    if (client->calls)
        client->calls->previous = call;
    client->calls = call;
}

static void unlink_call(struct bantam_call *call)
{
    if (call->previous)
        call->previous->next = call->next;
    else
        call->client->calls = call->next;
    if (call->next)
        call->next->previous = call->previous;
}

static void copy_trailer(const struct client_status *status, const char *key, char *out, size_t out_bytes)
{
    const uint8_t *value;
    size_t value_bytes;
    if (client_status_trailer(status, key, &value, &value_bytes))
        (void)snprintf(out, out_bytes, "%.*s", (int)(value_bytes < out_bytes ? value_bytes : out_bytes),
                       (const char *)value);
}

static void read_trailers(const struct client_status *status, struct bantam_call *call,
                          struct bantam_outcome *outcome)
{
    const uint8_t *value;
    size_t value_bytes;
    outcome->trailer_source = status;
    if (!call->model[0])
        copy_trailer(status, "x-bantam-model", call->model, sizeof call->model);
    if (client_status_trailer(status, LOAD_TRAILER, &value, &value_bytes))
        outcome->has_load = orca_report_decode(value, value_bytes, &outcome->load).code == ERR_OK;
}

bool bantam_outcome_trailer(const struct bantam_outcome *outcome, const char *key, const uint8_t **value,
                            size_t *value_bytes)
{
    return outcome->trailer_source && client_status_trailer(outcome->trailer_source, key, value, value_bytes);
}

/* status: of the last attempt, NULL when the call ends between attempts. */
static void end_call(struct bantam_call *call, err_t error, const struct client_status *status)
{
    struct bantam_client *client = call->client;
    struct bantam_outcome outcome = {.error = error,
                                     .grpc_status =
                                         status ? (int)status->code : (int)grpc_status_from_error(error.code),
                                     .attempts = call->n_attempts};
    char *peer = NULL;
    if (status) {
        read_trailers(status, call, &outcome);
        peer = client_status_peer(status);
    }
    outcome.request_id = call->request_id;
    outcome.model = call->model;
    outcome.fingerprint = call->fingerprint;
    outcome.peer = peer ? peer : "";
    unlink_call(call);
    call->state = CALL_DONE;
    atomic_store(&call->done, true);
    atomic_fetch_sub(&client->n_calls, 1);
    call->handler.on_done(call->context, &outcome);
    mem_free(peer);
    drop_call(call);
}

static err_t status_error(const struct client_status *status)
{
    err_t e = err_new(grpc_status_to_error(status->code), "%s", status->message);
    if (status->has_pushback && status->pushback_ms > 0)
        e.retry_after_ms = status->pushback_ms;
    return e;
}

/* --- what comes */

static void note_origin(struct bantam_call *call, const char *request_id, const char *model,
                        const char *fingerprint)
{
    if (request_id[0])
        (void)snprintf(call->request_id, sizeof call->request_id, "%s", request_id);
    if (model[0])
        (void)snprintf(call->model, sizeof call->model, "%s", model);
    if (fingerprint[0])
        (void)snprintf(call->fingerprint, sizeof call->fingerprint, "%s", fingerprint);
}

static err_t take_event(struct bantam_call *call, const uint8_t *bytes, size_t size_bytes)
{
    struct codec_scratch scratch = {0};
    struct codec_origin origin;
    struct event event;
    err_t e = codec_decode_response(bytes, size_bytes, &scratch, &origin, &event);
    if (e.code == ERR_OK) {
        note_origin(call, origin.request_id, origin.model, origin.fingerprint);
        call->n_finished += event.kind == EVENT_FINISHED;
        if (call->handler.on_event)
            call->paused = !call->handler.on_event(call->context, &event);
    }
    codec_scratch_free(&scratch);
    return e;
}

static err_t take_answer(struct bantam_call *call, const uint8_t *bytes, size_t size_bytes)
{
    struct codec_scratch scratch = {0};
    struct bantam_answer answer;
    if (call->reply)
        return reply_fill(call->reply, call->method, bytes, size_bytes);
    err_t e = answer_decode(call->method, bytes, size_bytes, &scratch, &answer);
    if (e.code == ERR_OK && call->method == BANTAM_GENERATE_WHOLE)
        note_origin(call, answer.whole.request_id, answer.whole.model, answer.whole.fingerprint);
    if (e.code == ERR_OK && call->handler.on_answer)
        call->handler.on_answer(call->context, &answer);
    codec_scratch_free(&scratch);
    return e;
}

static bool on_message(void *context, const uint8_t *bytes, size_t size_bytes)
{
    struct bantam_call *call = context;
    atomic_store(&call->client->group->waiting, false); /* what callbacks ask for needs no wake */
    if (call->cancelled || call->failure.code != ERR_OK)
        return true;
    call->any_message = true;
    call->n_failures = 0;
    if (!call->keeps_up) {
        mem_free(call->message);
        call->message = NULL;
    }
    call->failure = call->method == BANTAM_GENERATE ? take_event(call, bytes, size_bytes)
                                                    : take_answer(call, bytes, size_bytes);
    if (call->failure.code != ERR_OK)
        grpc_client_cancel(call->transport_call);
    return !call->paused;
}

/* An OK that brings less than was promised: some proxy cut it. */
static err_t check_complete(const struct bantam_call *call)
{
    if (!call->any_message)
        return err_new(ERR_DATA_LOSS, "the answer ended without a message");
    if (call->method == BANTAM_GENERATE && call->n_finished < call->n_choices)
        return err_new(ERR_DATA_LOSS, "the stream ended after %u of %u choices", call->n_finished,
                       call->n_choices);
    return err_ok();
}

static void wait_for_retry(struct bantam_call *call, int64_t delay_ns)
{
    struct bantam_client *client = call->client;
    call->state = CALL_WAITING;
    timer_heap_add(&client->timers, &call->timer, clock_now_ns(client->clock) + delay_ns);
    client->stats.waiting++;
}

/* True when the attempt that ended so is not the call's last. */
static bool goes_on(struct bantam_call *call, const struct client_status *status)
{
    struct bantam_client *client = call->client;
    int64_t delay_ns;
    if (call->cancelled || atomic_load(&client->closing))
        return false;
    if (call->keeps_up) {
        enum err_code ours = call->failure.code;
        call->n_failures++;
        call->failure = err_ok();
        call->any_message = false;
        call->on_lost(call->context, ours != ERR_OK ? ours : grpc_status_to_error(status->code));
        delay_ns = retry_backoff_ns(&client->retry, &client->rng, call->n_failures);
    } else {
        struct retry_facts facts = {.code = status->code,
                                    .n_attempts =
                                        call->no_retries ? client->retry.max_attempts : call->n_attempts,
                                    .any_message = call->any_message || call->failure.code != ERR_OK,
                                    .has_pushback = status->has_pushback,
                                    .pushback_ms = status->pushback_ms,
                                    .now_ns = clock_now_ns(client->clock),
                                    .deadline_ns = call->deadline_ns};
        delay_ns = retry_delay_ns(&client->retry, &client->budget, &client->rng, &facts);
        client->stats.budget_refusals += delay_ns == RETRY_OVER_BUDGET;
    }
    if (delay_ns < 0)
        return false;
    wait_for_retry(call, delay_ns);
    return true;
}

static void on_done(void *context, const struct client_status *status)
{
    struct bantam_call *call = context;
    atomic_store(&call->client->group->waiting, false);
    call->transport_call = NULL;
    bool good = status->code == GRPC_STATUS_OK && call->failure.code == ERR_OK;
    if (good && !call->keeps_up && !call->cancelled)
        retry_budget_give(&call->client->budget);
    else if (goes_on(call, status))
        return;
    err_t e = call->failure;
    if (call->cancelled)
        e = err_new(ERR_CANCELLED, "cancelled by the caller");
    else if (e.code == ERR_OK)
        e = good ? check_complete(call) : status_error(status);
    end_call(call, e, status);
}

/* --- attempts */

static const struct client_handler TRANSPORT_HANDLER = {.on_message = on_message, .on_done = on_done};

static void begin_attempt(struct bantam_call *call)
{
    struct bantam_client *client = call->client;
    int64_t left_ns = CLIENT_NO_TIMEOUT;
    if (call->deadline_ns != INT64_MAX)
        left_ns = call->deadline_ns - clock_now_ns(client->clock);
    if (call->deadline_ns != INT64_MAX && left_ns <= 0) {
        end_call(call, err_new(ERR_DEADLINE_EXCEEDED, "the deadline passed before the request was sent"),
                 NULL);
        return;
    }
    struct client_metadata metadata[CLIENT_METADATA_MAX];
    size_t n = client->headers.n, n_own = call->headers ? call->headers->n : 0;
    ASSERT(n + n_own <= CLIENT_METADATA_MAX);
    memcpy(metadata, client->headers.metadata, n * sizeof *metadata);
    if (n_own > 0)
        memcpy(metadata + n, call->headers->metadata, n_own * sizeof *metadata);
    call->state = CALL_RUNNING;
    call->paused = false;
    client->stats.attempts++;
    client->stats.retries += call->n_attempts > 0 && !call->keeps_up;
    if (call->n_attempts < UINT32_MAX)
        call->n_attempts++;
    err_t e =
        grpc_client_start_with(client->transport, call->path, call->message, call->message_bytes, left_ns,
                               metadata, n + n_own, &TRANSPORT_HANDLER, call, &call->transport_call);
    if (e.code != ERR_OK)
        end_call(call, e, NULL);
}

static void cancel_call(struct bantam_call *call)
{
    struct bantam_client *client = call->client;
    call->cancelled = true;
    if (call->state == CALL_RUNNING) {
        grpc_client_cancel(call->transport_call);
        return;
    }
    ASSERT(call->state == CALL_WAITING);
    timer_heap_remove(&client->timers, &call->timer);
    client->stats.waiting--;
    end_call(call, err_new(ERR_CANCELLED, "cancelled by the caller"), NULL);
}

static void do_asked(struct bantam_call *call, uint32_t asked)
{
    if (asked & ASKED_START) {
        link_call(call);
        if (asked & ASKED_CANCEL)
            end_call(call, err_new(ERR_CANCELLED, "cancelled by the caller"), NULL);
        else
            begin_attempt(call);
    } else if (call->state == CALL_DONE || call->cancelled) {
        return;
    } else if (asked & ASKED_CANCEL) {
        cancel_call(call);
    } else if (call->state == CALL_RUNNING && call->paused) {
        call->paused = false;
        grpc_client_resume(call->transport_call);
    }
}

bool calls_run_inbox(struct bantam_client *client)
{
    bool any = false;
    while (atomic_load(&client->has_inbox)) {
        pthread_mutex_lock(&client->mutex);
        struct bantam_call *call = client->inbox_first;
        uint32_t asked = 0;
        if (call) {
            client->inbox_first = call->inbox_next;
            if (!client->inbox_first)
                client->inbox_last = NULL;
            atomic_store(&client->has_inbox, client->inbox_first != NULL);
            asked = call->asked;
            call->asked = 0;
            call->in_inbox = false;
        }
        pthread_mutex_unlock(&client->mutex);
        if (!call)
            break;
        do_asked(call, asked);
        drop_call(call);
        any = true;
    }
    return any;
}

bool calls_run_timers(struct bantam_client *client)
{
    bool any = false;
    int64_t now_ns = clock_now_ns(client->clock);
    while (client->timers.first && client->timers.first->due_ns <= now_ns) {
        struct bantam_call *call = (struct bantam_call *)client->timers.first;
        timer_heap_remove(&client->timers, &call->timer);
        client->stats.waiting--;
        begin_attempt(call);
        any = true;
    }
    return any;
}

void calls_end_all(struct bantam_client *client)
{
    (void)calls_run_inbox(client);
    for (struct bantam_call *call = client->calls, *next; call; call = next) {
        next = call->next; /* a callback may release others, which stay linked until they end */
        if (!call->cancelled)
            cancel_call(call);
    }
    while (client->calls)
        (void)grpc_client_poll(client->transport, -1);
    (void)calls_run_inbox(client); /* what callbacks asked of calls that are gone */
}
