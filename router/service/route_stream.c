/* The events of a request on their way to its reader, and the request's life. */
#include <string.h>
#include "api/request_log.h"
#include "base/alloc.h"
#include "base/assert.h"
#include "base/hash.h"
#include "router/service/route_internal.h"
#include "router/service/route_shadow.h"

enum { RESUME_AT_EVENTS = STREAM_EVENTS_MAX / 2, RESUME_AT_BYTES = STREAM_QUEUE_BYTES_MAX / 2 };

/* --- references */

static void free_nodes(struct event_node *node)
{
    for (struct event_node *next; node; node = next) {
        next = node->next;
        mem_free(node);
    }
}

/* On the worker: a snapshot's last holder closes engines and caches, which waits for other threads. */
static void free_stream(struct worker_job *job)
{
    struct stream *stream = (struct stream *)((char *)job - offsetof(struct stream, free_job));
    struct route_service *service = stream->service;
    for (struct route_attempt *attempt = stream->attempts, *next; attempt; attempt = next) {
        next = attempt->next;
        mem_free(attempt);
    }
    ASSERT(!stream->is_in_table && !stream->is_leading);
    free_nodes(stream->first);
    free_nodes(stream->finals);
    mem_free(stream->current);
    mem_free(stream->spare);
    mem_free(stream->dropped);
    answer_record_free(&stream->record);
    answer_watch_close(&stream->watch);
    answer_keep_forget(&stream->keep);
    route_shadow_free(stream->shadow);
    route_question_free(&stream->question);
    mem_free(stream->request);
    route_snapshot_unref(stream->snapshot);
    pthread_mutex_destroy(&stream->lock);
    bool is_watched = stream->is_watched;
    uint32_t *n = stream->is_shadow ? &service->n_shadows : &service->n_streams;
    size_t held_bytes = stream->held_bytes;
    mem_free(stream);
    pthread_mutex_lock(&service->lock);
    --*n;
    service->held_bytes -= held_bytes;
    if (service->n_streams + service->n_shadows == 0)
        event_count_bump(&service->emptied);
    if (!is_watched)
        event_count_bump(&service->progress);
    pthread_mutex_unlock(&service->lock);
}

void stream_ref(struct stream *stream)
{
    atomic_fetch_add(&stream->n_refs, 1);
}

void stream_unref(struct stream *stream)
{
    if (atomic_fetch_sub(&stream->n_refs, 1) > 1)
        return;
    stream->free_job.run = free_stream;
    route_worker_post_later(stream->service->worker, &stream->free_job);
}

struct question_context stream_context(const struct stream *stream)
{
    struct route_service *service = stream->service;
    return (struct question_context){
        .snapshot = stream->snapshot,
        .upstreams = &service->upstreams,
        .ledger = service->ledger,
        .is_offline = service->is_offline,
        .now_ns = clock_now_ns(service->clock),
    };
}

/* --- timers */

static void fire(struct worker_timer *timer)
{
    struct stream_timer *own = (struct stream_timer *)timer;
    struct stream *stream = own->stream;
    pthread_mutex_lock(&stream->lock);
    /* One that had begun to fire when it was set anew is too early for what it is set for now. */
    if (own->is_wanted && clock_now_ns(stream->service->clock) >= own->due_ns) {
        own->is_wanted = false;
        own->due(stream);
    }
    pthread_mutex_unlock(&stream->lock);
    stream_unref(stream);
}

void stream_set_timer(struct stream *stream, struct stream_timer *timer, int64_t due_ns,
                      void (*due)(struct stream *stream))
{
    stream_unset_timer(stream, timer);
    timer->stream = stream;
    timer->timer.fire = fire;
    timer->due = due;
    timer->is_wanted = true;
    timer->due_ns = due_ns;
    stream_ref(stream);
    route_worker_set(stream->service->worker, &timer->timer, due_ns);
}

void stream_unset_timer(struct stream *stream, struct stream_timer *timer)
{
    timer->is_wanted = false;
    if (timer->stream && route_worker_unset(stream->service->worker, &timer->timer))
        atomic_fetch_sub(&stream->n_refs, 1); /* never the last: the caller has one */
}

/* --- the queue */

bool stream_is_full_locked(const struct stream *stream)
{
    size_t most = stream->is_hidden || stream->is_shadow ? STREAM_HELD_BYTES_MAX : STREAM_QUEUE_BYTES_MAX;
    bool is_long = !stream->is_hidden && !stream->is_shadow && stream->n_queued >= STREAM_EVENTS_MAX;
    return is_long || stream->queued_bytes >= most;
}

static void tell_reader(struct stream *stream)
{
    if (stream->wake)
        stream->wake(stream->wake_context);
    else
        event_count_bump(&stream->service->progress);
}

static void link_node(struct stream *stream, struct event_node *node)
{
    node->next = NULL;
    if (stream->last)
        stream->last->next = node;
    else
        stream->first = node;
    stream->last = node;
    stream->n_queued++;
    stream->queued_bytes += node->n_bytes;
    if (stream->is_hidden)
        return;
    /* A reader that found nothing waits to be told; one that has not come that far yet will find it. */
    if (atomic_fetch_add(&stream->n_visible, 1) == 0 || node->event.last)
        tell_reader(stream);
}

/* The first event, and each end, tells who answers. */
static void tell_source(struct stream *stream, struct event_node *node)
{
    bool is_end = node->event.kind == EVENT_FINISHED;
    if (stream->has_source && !is_end)
        return;
    node->source = stream->source;
    if (!stream->has_source && !is_end) {
        memcpy(stream->first_fingerprint, stream->fingerprint, sizeof stream->first_fingerprint);
        node->source.fingerprint = stream->first_fingerprint;
    }
    stream->has_source = true;
    node->source.attempts = stream->n_attempts;
    node->source.cost_nanodollars = is_end ? stream->cost : -1;
    node->event.source = &node->source;
}

bool stream_push_locked(struct stream *stream, const struct event *event)
{
    if (stream->is_released)
        return true;
    struct event_node *node = event_copy(event);
    if (node == NULL) {
        stream_fail_locked(stream, err_new(ERR_RESOURCE_EXHAUSTED, "no memory for an answer"), FINISH_ERROR);
        return false;
    }
    node->event.last = false;
    tell_source(stream, node);
    link_node(stream, node);
    return true;
}

void stream_show_locked(struct stream *stream)
{
    if (!stream->is_hidden)
        return;
    stream->is_hidden = false;
    if (stream->n_queued > 0) {
        atomic_store(&stream->n_visible, stream->n_queued);
        tell_reader(stream);
    }
}

void stream_forget_held_locked(struct stream *stream)
{
    ASSERT(stream->is_hidden);
    free_nodes(stream->first);
    free_nodes(stream->finals);
    stream->first = stream->last = stream->finals = stream->last_final = NULL;
    stream->n_queued = 0;
    stream->queued_bytes = 0;
    stream->finished_choices = 0;
    stream->has_source = false;
    answer_watch_forget(&stream->watch);
    answer_keep_forget(&stream->keep);
    route_cache_restart_record_locked(stream);
    route_shadow_forget_locked(stream);
}

/* --- ends */

static void keep_node(struct stream *stream, struct event_node *node)
{
    node->next = NULL;
    if (stream->last_final)
        stream->last_final->next = node;
    else
        stream->finals = node;
    stream->last_final = node;
    stream->finished_choices |= UINT64_C(1) << node->event.choice_index;
}

bool stream_keep_final_locked(struct stream *stream, const struct event *event)
{
    ASSERT(event->kind == EVENT_FINISHED);
    if (event->choice_index >= stream->n_choices ||
        (stream->finished_choices & UINT64_C(1) << event->choice_index))
        return true; /* what nobody asked for, or what ended twice */
    struct event_node *node = event_copy(event);
    if (node == NULL) {
        stream_fail_locked(stream, err_new(ERR_RESOURCE_EXHAUSTED, "no memory for an answer"), FINISH_ERROR);
        return false;
    }
    keep_node(stream, node);
    return true;
}

void stream_forget_finals_locked(struct stream *stream)
{
    free_nodes(stream->finals);
    stream->finals = stream->last_final = NULL;
    stream->finished_choices = 0;
}

static void count_end(struct stream *stream, const struct event *event)
{
    struct metrics *metrics = &stream->service->metrics;
    const struct request_log_name name = {
        .id = stream->request->request_id,
        .tenant = stream->tenant,
        .model = stream->model_name,
        .door = stream->request->door,
        .provider = stream->model_name[0] ? stream->source.provider : NULL,
    };
    request_log_finished(&name, event);
    metric_add(&metrics->request_success[metric_reason(event->finish_reason)], 1);
    metric_record(&metrics->e2e_latency, &METRIC_BUCKETS_REQUEST,
                  (uint64_t)(stream->ended_ns - stream->submitted_ns), 1);
    if (event->usage.is_unknown)
        return;
    metric_record(&metrics->request_prompt_tokens, &METRIC_BUCKETS_TOKENS, event->usage.prompt_tokens, 1);
    metric_record(&metrics->request_generation_tokens, &METRIC_BUCKETS_TOKENS, event->usage.completion_tokens,
                  1);
}

void stream_finish_locked(struct stream *stream)
{
    ASSERT(stream->phase != STREAM_ENDED);
    stream->phase = STREAM_ENDED;
    stream->ended_ns = clock_now_ns(stream->service->clock);
    stream_unset_timer(stream, &stream->deadline);
    stream_unset_timer(stream, &stream->step);
    stream_unset_timer(stream, &stream->hedge);
    stream_show_locked(stream);
    struct event_node *finals = stream->finals;
    stream->finals = stream->last_final = NULL;
    for (struct event_node *node = finals, *next; node; node = next) {
        next = node->next;
        node->event.last = next == NULL;
        if (!stream->is_shadow)
            count_end(stream, &node->event);
        stream->end_reason = node->event.finish_reason;
        if (stream->is_released) {
            mem_free(node);
            continue;
        }
        tell_source(stream, node);
        link_node(stream, node);
    }
    route_post_end_locked(stream);
}

/* One that waits for another's answer waits no more. */
static void leave_waiters(struct stream *stream)
{
    if (stream->is_waiting && response_cache_leave(stream->cache, &stream->key, &stream->waiter)) {
        stream->is_waiting = false;
        atomic_fetch_sub(&stream->n_refs, 1); /* never the last: the caller has one */
    }
}

/* Every choice that has not ended ends with the error. Without memory one of them does, by the node that was
 * kept for that, so that every stream has an end. */
void stream_fail_locked(struct stream *stream, err_t error, enum finish_reason reason)
{
    if (stream->phase == STREAM_ENDED)
        return;
    route_classify_drop_locked(stream);
    route_drop_live_locked(stream, NULL);
    leave_waiters(stream);
    stream->is_recording = false;
    stream->end_error = error;
    stream->cost = route_cost_locked(stream);
    for (uint32_t i = 0; i < stream->n_choices; i++) {
        if (stream->finished_choices & UINT64_C(1) << i)
            continue;
        struct event event = {.kind = EVENT_FINISHED,
                              .choice_index = i,
                              .text = "",
                              .finish_reason = reason,
                              .stop_token_id = -1,
                              .usage = {.is_unknown = true},
                              .timings = {-1, -1, -1},
                              .error = error};
        struct event_node *node = event_copy(&event);
        if (node == NULL && (node = stream->spare) != NULL) {
            node->event.choice_index = i;
            node->event.finish_reason = reason;
            node->event.error = error;
            stream->spare = NULL;
        }
        if (node)
            keep_node(stream, node);
    }
    stream_finish_locked(stream);
}

/* --- the reader */

static void resume_if_room(struct stream *stream)
{
    if (stream->n_queued <= RESUME_AT_EVENTS && stream->queued_bytes <= RESUME_AT_BYTES)
        route_resume_locked(stream);
}

bool stream_next_event(struct stream *stream, struct event *out)
{
    if (atomic_load(&stream->n_visible) == 0)
        return false;
    pthread_mutex_lock(&stream->lock);
    struct event_node *node = stream->first;
    ASSERT(node && !stream->is_hidden);
    stream->first = node->next;
    if (stream->first == NULL)
        stream->last = NULL;
    stream->n_queued--;
    stream->queued_bytes -= node->n_bytes;
    atomic_fetch_sub(&stream->n_visible, 1);
    resume_if_room(stream);
    pthread_mutex_unlock(&stream->lock);
    mem_free(stream->current);
    stream->current = node;
    *out = node->event;
    return true;
}

void stream_watch_events(struct stream *stream, void (*wake)(void *context), void *context)
{
    pthread_mutex_lock(&stream->lock);
    stream->wake = wake;
    stream->wake_context = context;
    stream->is_watched = true;
    pthread_mutex_unlock(&stream->lock);
}

void stream_cancel_request(struct stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    stream_fail_locked(stream, err_new(ERR_CANCELLED, "the request was cancelled"), FINISH_ABORT);
    pthread_mutex_unlock(&stream->lock);
}

void stream_release_request(struct stream *stream)
{
    pthread_mutex_lock(&stream->lock);
    stream->is_released = true;
    stream->wake = NULL;
    stream_fail_locked(stream, err_new(ERR_CANCELLED, "the client has left"), FINISH_ABORT);
    free_nodes(stream->first);
    stream->first = stream->last = NULL;
    stream->n_queued = 0;
    stream->queued_bytes = 0;
    pthread_mutex_unlock(&stream->lock);
    stream_leave_table(stream);
    stream_unref(stream);
}

/* --- by name */

static struct stream **bucket_of(struct route_service *service, const char *tenant, const char *request_id)
{
    uint64_t hash = hash64(request_id, strlen(request_id), hash64(tenant, strlen(tenant), 0));
    return &service->table[hash & (STREAM_TABLE_SIZE - 1)];
}

static const char *text_or_empty(const char *text)
{
    return text ? text : "";
}

static struct stream *find_stream(struct route_service *service, const char *tenant, const char *request_id)
{
    struct stream *stream = *bucket_of(service, tenant, request_id);
    while (stream &&
           (strcmp(stream->request->request_id, request_id) != 0 || strcmp(stream->tenant, tenant) != 0))
        stream = stream->next_in_table;
    return stream;
}

err_t stream_enter_table(struct stream *stream)
{
    struct route_service *service = stream->service;
    const char *tenant = stream->tenant, *id = stream->request->request_id;
    pthread_mutex_lock(&service->lock);
    bool is_there = find_stream(service, tenant, id) != NULL,
         is_too_much = service->held_bytes + stream->weight_bytes > service->max_held_bytes;
    if (!is_there && !is_too_much) {
        struct stream **bucket = bucket_of(service, tenant, id);
        stream->next_in_table = *bucket;
        if (*bucket)
            (*bucket)->previous_in_table = stream;
        *bucket = stream;
        stream->is_in_table = true;
        stream->held_bytes = stream->weight_bytes;
        service->held_bytes += stream->held_bytes;
    }
    pthread_mutex_unlock(&service->lock);
    if (is_there)
        return err_new(ERR_INVALID_ARGUMENT, "request_id \"%s\" is one of a request that is running", id);
    return is_too_much ? err_new(ERR_RESOURCE_EXHAUSTED,
                                 "with this one of about %zu bytes the requests under way would take more "
                                 "than %llu bytes, which is the limit",
                                 stream->weight_bytes, (unsigned long long)service->max_held_bytes)
                       : err_ok();
}

void stream_leave_table(struct stream *stream)
{
    struct route_service *service = stream->service;
    pthread_mutex_lock(&service->lock);
    if (stream->is_in_table) {
        struct stream **bucket = bucket_of(service, stream->tenant, stream->request->request_id);
        if (stream->previous_in_table)
            stream->previous_in_table->next_in_table = stream->next_in_table;
        else
            *bucket = stream->next_in_table;
        if (stream->next_in_table)
            stream->next_in_table->previous_in_table = stream->previous_in_table;
        stream->is_in_table = false;
    }
    pthread_mutex_unlock(&service->lock);
}

const char *stream_id(const struct stream *stream)
{
    return stream->request->request_id;
}

bool route_abort(struct service *service, const char *tenant, const char *request_id)
{
    struct route_service *own = (struct route_service *)service;
    pthread_mutex_lock(&own->lock);
    struct stream *stream = find_stream(own, text_or_empty(tenant), request_id);
    if (stream)
        stream_ref(stream);
    pthread_mutex_unlock(&own->lock);
    if (stream == NULL)
        return false;
    stream_cancel_request(stream);
    stream_unref(stream);
    return true;
}
