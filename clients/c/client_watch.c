/* A server's loads, kept up to date over streams that are begun anew. */
#include <string.h>
#include "base/alloc.h"
#include "clients/c/client_internal.h"

struct bantam_watch {
    _Atomic uint32_t references; /* the caller's and the stream's */
    const struct clock *clock;
    struct bantam_call *call; /* a reference; the caller's half */
    pthread_mutex_t mutex;
    struct bantam_loads_view view; /* age_ns is not in it */
    int64_t received_ns;
};

static void drop_watch(struct bantam_watch *watch)
{
    if (atomic_fetch_sub(&watch->references, 1) != 1)
        return;
    pthread_mutex_destroy(&watch->mutex);
    mem_free(watch);
}

static void on_loads(void *context, const struct bantam_answer *answer)
{
    struct bantam_watch *watch = context;
    int64_t now_ns = clock_now_ns(watch->clock);
    pthread_mutex_lock(&watch->mutex);
    watch->view.loads = answer->loads;
    watch->view.connected = true;
    watch->view.n_messages++;
    watch->received_ns = now_ns;
    pthread_mutex_unlock(&watch->mutex);
}

static void note_end(struct bantam_watch *watch, enum err_code code)
{
    pthread_mutex_lock(&watch->mutex);
    watch->view.connected = false;
    watch->view.n_failures++;
    watch->view.failure = code;
    pthread_mutex_unlock(&watch->mutex);
}

/* A stream that ends with OK has ended all the same. */
static void on_lost(void *context, enum err_code code)
{
    note_end(context, code == ERR_OK ? ERR_UNAVAILABLE : code);
}

static void on_closed(void *context, const struct bantam_outcome *outcome)
{
    note_end(context, outcome->error.code);
    drop_watch(context);
}

static err_t make_stream(struct bantam_client *client, uint32_t interval_ms, struct bantam_call **out)
{
    struct codec_bytes bytes = codec_encode_watch_loads(interval_ms);
    uint8_t *message = bytes.data ? mem_alloc(bytes.size) : NULL;
    if (!message)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a request");
    memcpy(message, bytes.data, bytes.size);
    return call_make(client, "/bantam.Bantam/WatchLoads", message, bytes.size, NULL, NULL, out);
}

err_t bantam_client_watch(struct bantam_client *client, uint32_t interval_ms, struct bantam_watch **out)
{
    TRY(codec_check_watch_interval(interval_ms));
    struct bantam_watch *watch = mem_alloc(sizeof *watch);
    if (!watch)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a watch");
    err_t e = make_stream(client, interval_ms, &watch->call);
    if (e.code != ERR_OK) {
        mem_free(watch);
        return e;
    }
    struct bantam_call *call = watch->call;
    watch->references = 2;
    watch->clock = client->clock;
    pthread_mutex_init(&watch->mutex, NULL);
    call->method = BANTAM_LOADS;
    call->keeps_up = true;
    call->handler = (struct bantam_handler){.on_answer = on_loads, .on_done = on_closed};
    call->on_lost = on_lost;
    call->context = watch;
    atomic_fetch_add(&call->references, 1);
    call_ask(call, ASKED_START);
    *out = watch;
    return err_ok();
}

void bantam_watch_read(struct bantam_watch *watch, struct bantam_loads_view *out)
{
    pthread_mutex_lock(&watch->mutex);
    *out = watch->view;
    int64_t received_ns = watch->received_ns;
    pthread_mutex_unlock(&watch->mutex);
    out->age_ns = out->n_messages > 0 ? clock_now_ns(watch->clock) - received_ns : -1;
}

void bantam_watch_close(struct bantam_watch *watch)
{
    if (!watch)
        return;
    bantam_call_cancel(watch->call);
    bantam_call_release(watch->call);
    drop_watch(watch);
}
