/* How hard a request is and what it wants, asked of a model before the policy has its last word; only
 * where a verdict can change that. No thread waits: the request stands until the verdict comes, or the
 * classifier's time is over, and is then decided with what is known. */
#include <stddef.h>
#include "base/alloc.h"
#include "base/log.h"
#include "router/policy/classifier.h"
#include "router/policy/remote_classifier.h"
#include "router/service/route_internal.h"

#define PREPARE_TIMEOUT_NS    INT64_C(2000000000) /* for each label */
#define PREPARE_AGAIN_NS      INT64_C(1000000000)
#define WAIT_UNTIL_IT_CHANGES INT64_C(-1)

/* --- is it worth asking? */

/* Of the verdicts that there can be, the easiest and the hardest. A caller's complexity is not overruled. */
static void find_extremes(const struct classifier_config *config, const struct route_hints *hints,
                          double *least, double *most)
{
    *least = *most = -1;
    for (size_t i = 0; i < config->n_labels && hints->complexity == 0; i++) {
        double difficulty = config->labels[i].difficulty;
        if (difficulty < 0)
            continue;
        *least = *least < 0 || difficulty < *least ? difficulty : *least;
        *most = difficulty > *most ? difficulty : *most;
    }
}

static bool is_another(const struct policy *policy, const struct policy_input *input,
                       const struct policy_decision *than)
{
    struct policy_decision decision = policy_decide(policy, input, NULL);
    return decision.tier != than->tier || decision.is_refused != than->is_refused ||
           decision.local_only != than->local_only;
}

/* A policy compares the difficulty with one number, so that the extremes stand for all between them. */
bool route_classify_matters(const struct route_snapshot *snapshot, const struct route_question *question)
{
    const struct route_config *config = snapshot_config(snapshot);
    const struct classifier_config *classifier = &config->classifier;
    struct policy_input input = question->input;
    double least, most;
    if (classifier->model == NULL)
        return false;
    input.verdict = VERDICT_GIVEN;
    find_extremes(classifier, &question->hints, &least, &most);
    for (size_t i = 0; i < classifier->n_labels; i++) {
        input.intent = classifier->labels[i].intent ? classifier->labels[i].intent : "";
        input.difficulty = least;
        bool differs = is_another(config->policy, &input, &question->decision);
        input.difficulty = most;
        if (differs || is_another(config->policy, &input, &question->decision))
            return true;
    }
    return false;
}

/* --- asking */

static void count(const struct stream *stream, enum route_classified_count outcome)
{
    metric_add(&route_metrics_counts(stream->service->route_metrics)->classified[outcome], 1);
}

/* On the worker: kept answers, budgets and the first call are nothing for the fleet's thread. */
static void go_on(struct worker_job *job)
{
    struct stream *stream = (struct stream *)((char *)job - offsetof(struct stream, classify_job));
    pthread_mutex_lock(&stream->lock);
    if (stream->phase == STREAM_CLASSIFYING)
        route_decide_locked(stream);
    pthread_mutex_unlock(&stream->lock);
    stream_unref(stream);
}

/* verdict: NULL = there is none. */
static void take_verdict(struct stream *stream, const struct classifier_verdict *verdict)
{
    struct policy_input *input = &stream->question.input;
    input->verdict = verdict ? VERDICT_GIVEN : VERDICT_MISSING;
    if (verdict) {
        input->intent = verdict->intent;
        input->difficulty = stream->question.hints.complexity > 0 ? -1 : verdict->difficulty;
    }
    count(stream, verdict ? ROUTE_CLASSIFIED_KNOWN : ROUTE_CLASSIFIED_UNKNOWN);
}

static void on_verdict(void *context, const struct classifier_verdict *verdict)
{
    struct stream *stream = context;
    pthread_mutex_lock(&stream->lock);
    struct local_call *call = stream->classify_call;
    stream->classify_call = NULL;
    if (stream->phase == STREAM_CLASSIFYING)
        take_verdict(stream, verdict->error.code == ERR_OK ? verdict : NULL);
    pthread_mutex_unlock(&stream->lock);
    local_call_release(call);
    stream->classify_job.run = go_on;
    route_worker_post(stream->service->worker, &stream->classify_job);
}

static err_t ask_engine(struct stream *stream)
{
    stream_ref(stream);
    err_t e = classifier_ask(stream->snapshot->classifier, stream->request, on_verdict, stream,
                             &stream->classify_call);
    if (e.code != ERR_OK)
        atomic_fetch_sub(&stream->n_refs, 1); /* never the last: the caller has one */
    return e;
}

/* --- asking a provider: a call like any other, with money, a breaker and a place in the ledger */

static void tell_upstream(struct route_attempt *attempt, const err_t *error, bool is_its_fault)
{
    struct route_service *service = attempt->stream->service;
    bool is_good = error->code == ERR_OK; /* and then has nothing but the code */
    struct upstream_report report = {.ticket = attempt->ticket,
                                     .code = attempt->is_dropped && !is_good ? ERR_CANCELLED : error->code,
                                     .is_its_fault = is_its_fault && !attempt->is_dropped,
                                     .first_token_ns = -1, /* that of an answer is another */
                                     .whole_ns = -1,
                                     .retry_after_ns = is_good ? 0 : error->retry_after_ms * ROUTE_NS_PER_MS};
    attempt->is_live = false;
    upstream_called(&service->upstreams, attempt->upstream->state, &report, clock_now_ns(service->clock));
}

static void on_remote_verdict(void *context, const struct classifier_verdict *verdict,
                              const struct provider_result *result)
{
    struct route_attempt *attempt = context;
    struct stream *stream = attempt->stream;
    pthread_mutex_lock(&stream->lock);
    attempt->egress_number = 0;
    route_take_result(attempt, result);
    if (result->head.status != 0)
        upstream_told(&stream->service->upstreams, attempt->upstream->state, &result->head,
                      clock_now_ns(stream->service->clock));
    tell_upstream(attempt, &result->error, result->is_its_fault);
    route_count_spent(attempt);
    if (stream->phase == STREAM_CLASSIFYING)
        take_verdict(stream, verdict->error.code == ERR_OK ? verdict : NULL);
    pthread_mutex_unlock(&stream->lock);
    route_settle(attempt);
    stream->classify_job.run = go_on;
    route_worker_post(stream->service->worker, &stream->classify_job);
}

static err_t reserve_and_ask(struct route_attempt *attempt, const struct shareable *shareable)
{
    struct stream *stream = attempt->stream;
    const struct classifier_config *config = &snapshot_config(stream->snapshot)->classifier;
    int64_t left_ms = config->timeout_ms, deadline_ns = stream->request->deadline_ns;
    if (deadline_ns != REQUEST_NO_DEADLINE)
        left_ms = (deadline_ns - attempt->started_ns) / ROUTE_NS_PER_MS;
    attempt->estimate = remote_classifier_estimate(config);
    TRY(route_reserve(attempt));
    err_t e = remote_classifier_ask(config, stream->service->egress, shareable, left_ms, on_remote_verdict,
                                    attempt, &attempt->egress_number);
    if (e.code != ERR_OK)
        route_unreserve(attempt);
    return e;
}

static err_t start_remote(struct stream *stream, const struct shareable *shareable)
{
    struct route_service *service = stream->service;
    const struct route_upstream *upstream = &stream->snapshot->classifies;
    struct route_attempt *attempt = mem_alloc(sizeof *attempt);
    if (attempt == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory to classify a request");
    int64_t now_ns = clock_now_ns(service->clock);
    *attempt = (struct route_attempt){.next = stream->attempts,
                                      .stream = stream,
                                      .upstream = upstream,
                                      .tier = stream->question.decision.tier,
                                      .is_live = true,
                                      .reason = "classifier",
                                      .ticket = upstream_ask(&service->upstreams, upstream->state, now_ns),
                                      .started_ns = now_ns,
                                      .outcome = LEDGER_RELEASED};
    if (attempt->ticket == 0) {
        mem_free(attempt);
        return route_left_alone(service, upstream);
    }
    stream->attempts = attempt;
    atomic_fetch_add(&stream->n_refs, 2); /* the settling's and the deciding's */
    err_t e = reserve_and_ask(attempt, shareable);
    stream->n_unsettled += e.code == ERR_OK;
    if (e.code == ERR_OK)
        return e;
    tell_upstream(attempt, &e, false);
    atomic_fetch_sub(&stream->n_refs, 2); /* never the last: the caller has one */
    return e;
}

static err_t ask_provider(struct stream *stream)
{
    struct shareable shareable;
    if (!privacy_release(&stream->question.decision, stream->service->is_offline, stream->question.json,
                         &shareable))
        return err_new(ERR_PERMISSION_DENIED, "this request must not leave the machine");
    err_t e = start_remote(stream, &shareable);
    shareable_free(&shareable);
    return e;
}

bool route_classify_locked(struct stream *stream)
{
    if (!route_classify_matters(stream->snapshot, &stream->question))
        return false;
    stream->phase = STREAM_CLASSIFYING;
    err_t e = stream->snapshot->classifier ? ask_engine(stream) : ask_provider(stream);
    if (e.code == ERR_OK)
        return true;
    struct question_context context = stream_context(stream);
    stream->phase = STREAM_WAITING;
    take_verdict(stream, NULL);
    route_question_decide(&stream->question, &context, NULL);
    return false;
}

void route_classify_drop_locked(struct stream *stream)
{
    if (stream->classify_call)
        local_call_cancel(stream->classify_call);
}

/* --- learning the labels */

/* How long nothing is to be done unless something changes. */
static int64_t prepare(struct route_service *service)
{
    int64_t wait_ns = WAIT_UNTIL_IT_CHANGES;
    struct route_snapshot *snapshot = route_snapshot_of(service);
    struct classifier *classifier = snapshot->classifier;
    if (classifier && !classifier_is_ready(classifier)) {
        err_t e = classifier_prepare(classifier, PREPARE_TIMEOUT_NS);
        if (e.code != ERR_OK && e.code != ERR_UNAVAILABLE)
            log_warn("route", "the classifier is not asked: %s", e.message);
        if (e.code == ERR_OK)
            log_info("route", "the classifier is ready: %s", snapshot_config(snapshot)->classifier.model);
        if (e.code != ERR_OK && e.code != ERR_INVALID_ARGUMENT)
            wait_ns = PREPARE_AGAIN_NS;
        event_count_bump(&service->progress);
    }
    route_snapshot_unref(snapshot);
    return wait_ns;
}

static void *watch(void *argument)
{
    struct route_service *service = argument;
    for (;;) {
        uint32_t seen = event_count_read(&service->classify_wake);
        if (atomic_load(&service->classify_ends))
            return NULL;
        event_count_wait(&service->classify_wake, seen, prepare(service));
    }
}

void route_classify_watch(struct route_service *service)
{
    bool fits = true;
    pthread_mutex_lock(&service->lock);
    if (service->snapshot->classifier && !service->classify_runs) {
        fits = pthread_create(&service->classify_thread, NULL, watch, service) == 0;
        service->classify_runs = fits;
    }
    pthread_mutex_unlock(&service->lock);
    event_count_bump(&service->classify_wake);
    if (!fits)
        log_warn("route", "the classifier is not asked: its thread cannot be started");
}

void route_classify_stop(struct route_service *service)
{
    atomic_store(&service->classify_ends, true);
    event_count_bump(&service->classify_wake);
    if (service->classify_runs)
        (void)pthread_join(service->classify_thread, NULL);
}
