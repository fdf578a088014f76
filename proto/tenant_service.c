#include "proto/tenant_service.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "proto/route_headers.h"

enum { BYTES_PER_TOKEN = 4 }; /* a guess until it is told: with the first event, or at the end */
enum { SALT_BYTES_MAX = IDENTITY_SALT_BYTES_MAX + sizeof " salt " - 1 + ROUTE_CACHE_SALT_BYTES_MAX };

struct tenant_service {
    struct service service;
    struct service_vtable vtable; /* what the inner one has, too */
    struct service *inner;
    struct identity *identity;
    _Atomic uint32_t n_streams;
};

/* What doors take for a struct stream. */
struct tenant_stream {
    struct tenant_service *owner;
    struct stream *inner;
    struct tenant_grant grant;
    int64_t n_prompt, n_output;           /* tokens charged so far */
    int64_t n_prompt_told, n_output_told; /* by the ends of choices that others answered */
    bool is_passed_on;                    /* others answer */
    bool is_unknown;                      /* one of them did not tell */
};

static struct tenant_service *of(struct service *service)
{
    return (struct tenant_service *)service;
}

static const struct service_vtable *inner_of(struct service *service, struct service **inner)
{
    *inner = of(service)->inner;
    return (*inner)->vtable;
}

static const struct service_vtable *stream_vtable(const struct stream *stream, struct stream **inner)
{
    const struct tenant_stream *own = (const struct tenant_stream *)stream;
    *inner = own->inner;
    return own->owner->inner->vtable;
}

/* --- submitting */

static uint64_t guess_prompt_tokens(const struct request *request)
{
    uint64_t bytes = request->text_bytes;
    if (request->prompt_kind == PROMPT_TOKEN_IDS)
        return request->n_token_ids;
    if (request->prompt_kind == PROMPT_MESSAGES && request->messages) {
        bytes = request->template_json_bytes;
        for (size_t i = 0; i < request->n_messages; i++)
            bytes += request->messages[i].content_bytes;
    }
    return bytes / BYTES_PER_TOKEN + 1;
}

/* Lower runs earlier; 0 is what a request has that asks for nothing. */
static int32_t priority_of(const struct tenant_grant *grant, int32_t asked)
{
    int32_t wanted = asked == 0 ? grant->priority : asked;
    return wanted < grant->best_priority ? grant->best_priority : wanted;
}

/* Behind the tenant's own, in which the names have no blanks: whatever is asked for, it is nobody else's. */
static err_t write_salt(const struct tenant_grant *grant, const char *asked, char *out)
{
    size_t n_asked = asked ? strlen(asked) : 0;
    (void)snprintf(out, SALT_BYTES_MAX + 1, "%s%s%s", grant->cache_salt, asked ? " salt " : "",
                   asked ? asked : "");
    if (n_asked <= ROUTE_CACHE_SALT_BYTES_MAX)
        return err_ok();
    return err_new(ERR_INVALID_ARGUMENT, "the cache salt has %zu bytes; at most %d are allowed", n_asked,
                   ROUTE_CACHE_SALT_BYTES_MAX);
}

static err_t submit_granted(struct tenant_service *tenants, const struct request *request,
                            struct tenant_stream *stream)
{
    char cache_salt[SALT_BYTES_MAX + 1];
    struct request own = *request;
    TRY(write_salt(&stream->grant, request->cache_salt, cache_salt));
    own.priority = priority_of(&stream->grant, request->priority);
    own.cache_salt = cache_salt;
    return tenants->inner->vtable->submit(tenants->inner, &own, &stream->inner);
}

static err_t submit(struct service *service, const struct request *request, struct stream **out)
{
    struct tenant_service *tenants = of(service);
    if (!request->tenant || !request->tenant[0])
        return err_new(ERR_UNAUTHENTICATED, "nobody was asked who sends this request");
    struct tenant_stream *stream = mem_alloc(sizeof *stream);
    if (!stream)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a request");
    stream->owner = tenants;
    uint64_t n_prompt = guess_prompt_tokens(request);
    stream->n_prompt = (int64_t)n_prompt;
    err_t e = identity_admit(tenants->identity, request->tenant, n_prompt, &stream->grant);
    if (e.code == ERR_OK) {
        e = submit_granted(tenants, request, stream);
        if (e.code != ERR_OK)
            identity_withdraw(tenants->identity, &stream->grant);
    }
    if (e.code != ERR_OK) {
        mem_free(stream);
        return e;
    }
    atomic_fetch_add(&tenants->n_streams, 1);
    *out = (struct stream *)stream;
    return e;
}

/* --- streams */

/* Output without ids is guessed as it passes, so that a client who leaves early has paid for it. */
static int64_t count_output(const struct tenant_stream *own, const struct event *event)
{
    if (event->n_token_ids > 0 || !own->is_passed_on)
        return (int64_t)event->n_token_ids;
    size_t bytes = event->text_bytes + event->refusal_bytes + event->reasoning_bytes;
    for (size_t i = 0; i < event->n_tool_calls; i++)
        bytes += event->tool_calls[i].arguments_bytes;
    return (int64_t)((bytes + BYTES_PER_TOKEN - 1) / BYTES_PER_TOKEN);
}

/* What is to be charged for the event besides what was; may be negative. */
static int64_t count_event(struct tenant_stream *own, const struct event *event)
{
    int64_t before = own->n_prompt + own->n_output;
    own->is_passed_on = own->is_passed_on || event->source;
    own->n_output += count_output(own, event);
    if (event->n_prompt_token_ids > 0)
        own->n_prompt = (int64_t)event->n_prompt_token_ids;
    if (event->kind == EVENT_FINISHED && event->source) {
        own->is_unknown = own->is_unknown || event->usage.is_unknown;
        own->n_output_told += event->usage.completion_tokens;
        if (own->n_prompt_told < event->usage.prompt_tokens)
            own->n_prompt_told = event->usage.prompt_tokens;
        if (event->last && !own->is_unknown) {
            own->n_prompt = own->n_prompt_told;
            own->n_output = own->n_output_told;
        }
    }
    return own->n_prompt + own->n_output - before;
}

static bool stream_next(struct stream *stream, struct event *out)
{
    struct tenant_stream *own = (struct tenant_stream *)stream;
    if (!own->owner->inner->vtable->stream_next(own->inner, out))
        return false;
    int64_t n_tokens = count_event(own, out);
    if (n_tokens != 0)
        identity_charge(own->owner->identity, &own->grant, n_tokens);
    return true;
}

static void stream_cancel(struct stream *stream)
{
    struct stream *inner;
    stream_vtable(stream, &inner)->stream_cancel(inner);
}

static void stream_release(struct stream *stream)
{
    struct tenant_stream *own = (struct tenant_stream *)stream;
    struct tenant_service *tenants = own->owner;
    tenants->inner->vtable->stream_release(own->inner);
    identity_leave(tenants->identity, &own->grant);
    mem_free(own);
    atomic_fetch_sub(&tenants->n_streams, 1);
}

static const char *stream_request_id(const struct stream *stream)
{
    struct stream *inner;
    const struct service_vtable *vtable = stream_vtable(stream, &inner);
    return vtable->stream_request_id(inner);
}

/* --- passed on */

static bool abort_request(struct service *service, const char *tenant, const char *request_id)
{
    struct service *inner;
    const struct service_vtable *vtable = inner_of(service, &inner);
    return tenant && tenant[0] && vtable->abort(inner, tenant, request_id);
}

static struct event_count *progress(struct service *service)
{
    struct service *inner;
    const struct service_vtable *vtable = inner_of(service, &inner);
    return vtable->progress(inner);
}

static struct metrics *metrics(struct service *service)
{
    struct service *inner;
    const struct service_vtable *vtable = inner_of(service, &inner);
    return vtable->metrics(inner);
}

static bool metrics_text(struct service *service, struct buffer *out)
{
    struct service *inner;
    const struct service_vtable *vtable = inner_of(service, &inner);
    return vtable->metrics_text == NULL || vtable->metrics_text(inner, out);
}

static const struct model_info *model_info(struct service *service)
{
    struct service *inner;
    const struct service_vtable *vtable = inner_of(service, &inner);
    return vtable->model_info(inner);
}

static void loads(struct service *service, struct loads *out)
{
    struct service *inner;
    const struct service_vtable *vtable = inner_of(service, &inner);
    vtable->loads(inner, out);
}

static int64_t now_ns(struct service *service)
{
    struct service *inner;
    const struct service_vtable *vtable = inner_of(service, &inner);
    return vtable->now_ns(inner);
}

static bool model_card(struct service *service, size_t i, struct model_card *out)
{
    struct service *inner;
    const struct service_vtable *vtable = inner_of(service, &inner);
    return vtable->model_card(inner, i, out);
}

static err_t admit_call(struct service *service, const char *tenant)
{
    if (!tenant || !tenant[0])
        return err_new(ERR_UNAUTHENTICATED, "nobody was asked who sends this request");
    return identity_admit_call(of(service)->identity, tenant);
}

static err_t tokenize(struct service *service, const struct request *request, uint32_t **ids, size_t *n_ids)
{
    struct service *inner;
    const struct service_vtable *vtable = inner_of(service, &inner);
    return vtable->tokenize(inner, request, ids, n_ids);
}

static err_t detokenize(struct service *service, const uint32_t *ids, size_t n_ids, bool skip_special_tokens,
                        struct buffer *text)
{
    struct service *inner;
    const struct service_vtable *vtable = inner_of(service, &inner);
    return vtable->detokenize(inner, ids, n_ids, skip_special_tokens, text);
}

/* A tenant hears of the blocks that its own requests find. */
static err_t kv_subscribe(struct service *service, const struct kv_subscribe *request,
                          struct kv_subscription **out)
{
    struct service *inner;
    const struct service_vtable *vtable = inner_of(service, &inner);
    if (!vtable->kv_subscribe)
        return err_new(ERR_UNIMPLEMENTED, "this service does not tell what its prefix cache holds");
    if (!request->tenant || !request->tenant[0])
        return err_new(ERR_UNAUTHENTICATED, "nobody was asked who subscribes");
    char cache_salt[IDENTITY_SALT_BYTES_MAX + 1];
    struct kv_subscribe own = *request;
    own.cache_salt = cache_salt;
    if (!identity_cache_salt(of(service)->identity, request->tenant, cache_salt))
        return err_new(ERR_UNAUTHENTICATED, "tenant %.64s is not known here any more", request->tenant);
    return vtable->kv_subscribe(inner, &own, out);
}

static err_t kv_next(struct service *service, struct kv_subscription *subscription,
                     const struct kv_event_batch **out)
{
    struct service *inner;
    const struct service_vtable *vtable = inner_of(service, &inner);
    return vtable->kv_next(inner, subscription, out);
}

static void kv_unsubscribe(struct service *service, struct kv_subscription *subscription)
{
    struct service *inner;
    const struct service_vtable *vtable = inner_of(service, &inner);
    vtable->kv_unsubscribe(inner, subscription);
}

static void drain(struct service *service)
{
    struct service *inner;
    const struct service_vtable *vtable = inner_of(service, &inner);
    vtable->drain(inner);
}

static uint32_t in_flight(struct service *service)
{
    struct service *inner;
    const struct service_vtable *vtable = inner_of(service, &inner);
    return vtable->in_flight(inner);
}

static const struct service_vtable TENANT_SERVICE = {
    .submit = submit,
    .stream_next = stream_next,
    .stream_cancel = stream_cancel,
    .stream_release = stream_release,
    .stream_request_id = stream_request_id,
    .abort = abort_request,
    .progress = progress,
    .metrics = metrics,
    .metrics_text = metrics_text,
    .model_info = model_info,
    .loads = loads,
    .now_ns = now_ns,
    .admit_call = admit_call,
    .tokenize = tokenize,
    .detokenize = detokenize,
    .drain = drain,
    .in_flight = in_flight,
    .kv_subscribe = kv_subscribe,
    .kv_next = kv_next,
    .kv_unsubscribe = kv_unsubscribe,
};

err_t tenant_service_open(struct service *inner, struct identity *identity, struct tenant_service **out)
{
    struct tenant_service *service = mem_alloc(sizeof *service);
    if (!service)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the tenants' service");
    service->vtable = TENANT_SERVICE;
    service->vtable.model_card = inner->vtable->model_card ? model_card : NULL;
    service->vtable.passes_on = inner->vtable->passes_on;
    service->service.vtable = &service->vtable;
    service->inner = inner;
    service->identity = identity;
    *out = service;
    return err_ok();
}

void tenant_service_close(struct tenant_service *service)
{
    if (!service)
        return;
    ASSERT(atomic_load(&service->n_streams) == 0);
    mem_free(service);
}

struct service *tenant_service_of(struct tenant_service *service)
{
    return &service->service;
}
