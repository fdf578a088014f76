#include "clients/c/bantam_client.h"

#include "base/alloc.h"
#include "base/assert.h"
#include "clients/c/client_internal.h"

static err_t join_group(struct bantam_client *client, struct bantam_group *group)
{
    client->owns_group = group == NULL;
    if (client->owns_group)
        TRY(bantam_group_open(&group));
    client->group = group;
    client->group_next = group->clients;
    if (group->clients)
        group->clients->group_previous = client;
    group->clients = client;
    return err_ok();
}

static void leave_group(struct bantam_client *client)
{
    if (client->group_previous)
        client->group_previous->group_next = client->group_next;
    else
        client->group->clients = client->group_next;
    if (client->group_next)
        client->group_next->group_previous = client->group_previous;
    if (client->owns_group)
        bantam_group_close(client->group);
}

err_t bantam_client_open(const struct bantam_client_options *options, struct bantam_client **out)
{
    struct bantam_client *client = mem_alloc(sizeof *client);
    if (!client)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a client");
    err_t e = join_group(client, options->group);
    if (e.code != ERR_OK) {
        mem_free(client);
        return e;
    }
    e = client_options_apply(options, client->group->queue, &client->headers, &client->transport);
    if (e.code != ERR_OK) {
        leave_group(client);
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
    ASSERT(!client->group->driving);
    client->group->driving = true;
    atomic_store(&client->closing, true);
    calls_end_all(client);
    ASSERT(atomic_load(&client->n_calls) == 0 && !client->timers.first);
    client->group->driving = false;
    grpc_client_close(client->transport);
    leave_group(client);
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
    bool has_request = query->method == BANTAM_GENERATE || query->method == BANTAM_GENERATE_WHOLE ||
                       query->method == BANTAM_TOKENIZE;
    TRY(call_make(client, method_path(query->method), message, message_bytes, options,
                  has_request ? query->request : NULL, &call));
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

bool bantam_client_poll(struct bantam_client *client, int64_t timeout_ns)
{
    return bantam_group_poll(client->group, timeout_ns);
}

void bantam_client_wake(struct bantam_client *client)
{
    bantam_group_wake(client->group);
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
    ASSERT(query->method != BANTAM_GENERATE && !client->group->driving);
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
