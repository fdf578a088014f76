#include "clients/c/bantam_client.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "clients/c/client_internal.h"

err_t bantam_client_open(const struct bantam_client_options *options, struct bantam_client **out)
{
    struct bantam_client *client = mem_alloc(sizeof *client);
    if (!client)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a client");
    err_t e = client_options_apply(options, &client->headers, &client->transport);
    if (e.code != ERR_OK) {
        mem_free(client);
        return e;
    }
    client->clock = options->clock ? options->clock : clock_monotonic();
    client->rng = rng_make(options->seed ? options->seed : random_seed_u64());
    client->retry = options->retry;
    client->budget = retry_budget_make(&options->retry);
    client->max_calls = options->max_calls;
    pthread_mutex_init(&client->mutex, NULL);
    *out = client;
    return err_ok();
}

void bantam_client_close(struct bantam_client *client)
{
    if (!client)
        return;
    ASSERT(!client->driving);
    client->driving = true;
    atomic_store(&client->closing, true);
    calls_end_all(client);
    ASSERT(atomic_load(&client->n_calls) == 0 && !client->timers.first);
    grpc_client_close(client->transport);
    header_list_free(&client->headers);
    pthread_mutex_destroy(&client->mutex);
    mem_free(client);
}

/* The choices that a stream must end: what the request says, else at least one. */
static uint32_t choices_of(const struct bantam_query *query)
{
    const struct sampling_params *sampling = &query->request->sampling;
    return sampling->set & SAMPLING_N ? sampling->n : 1;
}

static err_t start_call(struct bantam_client *client, const struct bantam_query *query,
                        const struct bantam_call_options *options, const struct bantam_handler *handler,
                        void *context, struct bantam_reply *reply, struct bantam_call **out)
{
    uint8_t *message;
    size_t message_bytes;
    struct bantam_call *call;
    ASSERT(handler->on_done);
    TRY(query_encode(query, &message, &message_bytes));
    TRY(call_make(client, method_path(query->method), message, message_bytes, options, &call));
    call->method = query->method;
    call->handler = *handler;
    call->context = context;
    call->reply = reply;
    if (query->method == BANTAM_GENERATE)
        call->n_choices = choices_of(query);
    if (out) {
        atomic_fetch_add(&call->references, 1);
        *out = call;
    }
    call_ask(call, ASKED_START);
    return err_ok();
}

err_t bantam_client_start(struct bantam_client *client, const struct bantam_query *query,
                          const struct bantam_call_options *options, const struct bantam_handler *handler,
                          void *context, struct bantam_call **out)
{
    return start_call(client, query, options, handler, context, NULL, out);
}

/* --- the driver */

static bool inbox_is_empty(struct bantam_client *client)
{
    pthread_mutex_lock(&client->mutex);
    bool empty = !client->inbox_first;
    pthread_mutex_unlock(&client->mutex);
    return empty;
}

static int64_t shorter_wait(const struct bantam_client *client, int64_t timeout_ns)
{
    if (!client->timers.first)
        return timeout_ns;
    int64_t due_in_ns = client->timers.first->due_ns - clock_now_ns(client->clock);
    if (due_in_ns < 0)
        due_in_ns = 0;
    return timeout_ns < 0 || due_in_ns < timeout_ns ? due_in_ns : timeout_ns;
}

static bool wait_for_event(struct bantam_client *client, int64_t timeout_ns)
{
    /* Who asks for something either is seen below or sees that it has to wake. */
    atomic_store(&client->waiting, true);
    if (!inbox_is_empty(client))
        timeout_ns = 0;
    bool any = grpc_client_poll(client->transport, timeout_ns);
    atomic_store(&client->waiting, false);
    return any;
}

bool bantam_client_poll(struct bantam_client *client, int64_t timeout_ns)
{
    ASSERT(!client->driving);
    client->driving = true;
    bool any = calls_run_inbox(client);
    any |= calls_run_timers(client);
    any |= wait_for_event(client, any ? 0 : shorter_wait(client, timeout_ns));
    any |= calls_run_inbox(client);
    any |= calls_run_timers(client);
    client->driving = false;
    return any;
}

void bantam_client_wake(struct bantam_client *client)
{
    grpc_client_wake(client->transport);
}

void bantam_client_wait(struct bantam_client *client, const struct bantam_call *call)
{
    while (!atomic_load(&call->done))
        (void)bantam_client_poll(client, -1);
}

struct bantam_client_stats bantam_client_stats(const struct bantam_client *client)
{
    struct bantam_client_stats stats = client->stats;
    stats.calls = atomic_load(&((struct bantam_client *)client)->n_calls);
    return stats;
}

/* --- one answer */

struct ask {
    bool done;
    err_t error;
};

static void on_asked(void *context, const struct bantam_outcome *outcome)
{
    struct ask *ask = context;
    ask->done = true;
    ask->error = outcome->error;
}

err_t bantam_client_ask(struct bantam_client *client, const struct bantam_query *query,
                        const struct bantam_call_options *options, struct bantam_reply **out)
{
    static const struct bantam_handler handler = {.on_done = on_asked};
    ASSERT(query->method != BANTAM_GENERATE && !client->driving);
    struct ask ask = {.done = false};
    struct bantam_reply *reply = reply_make();
    if (!reply)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for an answer");
    err_t e = start_call(client, query, options, &handler, &ask, reply, NULL);
    if (e.code == ERR_OK) {
        while (!ask.done)
            (void)bantam_client_poll(client, -1);
        e = ask.error;
    }
    if (e.code != ERR_OK) {
        bantam_reply_free(reply);
        return e;
    }
    *out = reply;
    return err_ok();
}
