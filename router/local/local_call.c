/* A call's life: the attempts until something of its answer was given, and the replicas that go on after one
 * that died. All but the functions of any thread runs on the fleet's.
 *
 * Handover. What was given last is asked for again: the next replica gets all tokens but those of the last
 * event as output_prefix_ids, and must draw these once more. They are compared and dropped. So the state of
 * stop strings and of half characters is the same as before, an end that was drawn but not told comes again,
 * and a replica that would go on differently is found out before it has said anything. */
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/buffer.h"
#include "proto/route_headers.h"
#include "router/local/fleet_internal.h"
#include "router/local/request_copy.h"

enum call_state { STATE_NEW, STATE_RUNNING, STATE_WAITING, STATE_DONE };
enum { ASKED_START = 1, ASKED_CANCEL = 2, ASKED_RESUME = 4 };
enum { LAST_TEXT_BYTES_MAX = 1 << 20 };
#define NOT_BEFORE_RESUMED INT64_MAX

struct local_call {
    struct fleet_errand errand;  /* first: the errand is the call */
    _Atomic uint32_t references; /* the fleet's until the end, the caller's, the inbox's */
    _Atomic uint32_t asked;
    atomic_bool is_done; /* nothing of the fleet may be touched any more */
    struct local_fleet *fleet;
    struct fleet_model *model;
    struct request *request;         /* owned; cache_salt: whose it is */
    char salt[LOCAL_SALT_BYTES + 1]; /* what engines are told of that; "" = nothing */
    struct local_handler handler;
    void *context;
    /* The fleet's thread's from here on. */
    struct local_call *previous, *next;
    enum call_state state;
    bool is_cancelled, is_paused;
    int64_t due_ns;    /* STATE_WAITING */
    uint64_t excluded; /* slots */
    uint32_t n_choices, n_finished;

    struct bantam_call *attempt; /* STATE_RUNNING, with the two below */
    struct replica *replica;
    struct replica_ticket ticket;
    bool was_aborted; /* the engine ended it, and nobody had asked */
    err_t failure;    /* of ours, in the middle of an attempt */

    bool has_given, can_hand_over;
    uint32_t *ids; /* owned: output_prefix_ids of the request, and what was given since */
    size_t n_ids, ids_capacity, n_own, n_last_ids; /* n_last_ids: of these, by the last event */
    struct buffer last_text;                       /* of the last event with tokens, and of those after it */
    bool is_replaying;
    size_t n_skip_ids, n_skip_text; /* bytes: of the last event, still to come again */
    uint32_t n_waits;               /* for a replica that goes on, in a row */

    uint32_t n_attempts, n_handovers;
    int64_t started_ns, first_token_ns;
    char address[REPLICA_ADDRESS_BYTES], fingerprint[BANTAM_FINGERPRINT_BYTES_MAX];
};

/* --- any thread */

static void drop_call(struct local_call *call)
{
    if (atomic_fetch_sub(&call->references, 1) != 1)
        return;
    mem_free(call->request);
    mem_free(call->ids);
    buffer_free(&call->last_text);
    mem_free(call);
}

static enum fleet_sent ask(struct local_call *call, uint32_t what)
{
    if (atomic_load(&call->is_done))
        return ERRAND_CLOSED;
    atomic_fetch_or(&call->asked, what);
    atomic_fetch_add(&call->references, 1);
    enum fleet_sent sent = fleet_send(call->fleet, &call->errand);
    if (sent != ERRAND_SENT)
        drop_call(call);
    return sent;
}

void local_call_cancel(struct local_call *call)
{
    (void)ask(call, ASKED_CANCEL);
}

void local_call_resume(struct local_call *call)
{
    (void)ask(call, ASKED_RESUME);
}

void local_call_release(struct local_call *call)
{
    if (call)
        drop_call(call);
}

static void run_asked(struct fleet_errand *errand);

static bool copy_own_prefix(struct local_call *call)
{
    const struct request *request = call->request;
    call->n_own = call->n_ids = call->ids_capacity = request->n_output_prefix_ids;
    if (call->n_own == 0)
        return true;
    call->ids = mem_alloc_array(call->n_own, sizeof *call->ids);
    if (call->ids)
        memcpy(call->ids, request->output_prefix_ids, call->n_own * sizeof *call->ids);
    return call->ids != NULL;
}

static err_t copy_request(struct local_call *call, const struct request *request)
{
    struct request own = *request;
    own.cache_salt = local_salt_owner(request);
    TRY(request_copy(&own, &call->request, NULL));
    if (!copy_own_prefix(call))
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a call");
    const char *key = call->model->options->salt_key;
    if (own.cache_salt[0] == '\0')
        return err_ok();
    return key ? local_salt_make(key, strlen(key), own.cache_salt, call->salt)
               : local_salt_make(call->fleet->salt_key, sizeof call->fleet->salt_key, own.cache_salt,
                                 call->salt);
}

static err_t make_call(struct local_fleet *fleet, size_t model, const struct request *request,
                       struct local_call **out)
{
    struct local_call *call = mem_alloc(sizeof *call);
    if (!call)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a call");
    call->errand.run = run_asked;
    call->references = 2; /* the fleet's and the caller's */
    call->fleet = fleet;
    call->model = &fleet->models[model];
    call->failure = err_ok();
    call->last_text.limit_bytes = LAST_TEXT_BYTES_MAX;
    call->started_ns = fleet_now_ns(fleet);
    err_t e = copy_request(call, request);
    if (e.code != ERR_OK) {
        call->references = 1;
        drop_call(call);
        return e;
    }
    const struct sampling_params *sampling = &call->request->sampling;
    call->n_choices = sampling->set & SAMPLING_N ? sampling->n : 1;
    call->can_hand_over =
        call->n_choices == 1 && !(sampling->set & SAMPLING_PROMPT_LOGPROBS && sampling->prompt_logprobs >= 0);
    *out = call;
    return err_ok();
}

err_t local_call_start(struct local_fleet *fleet, size_t model, const struct request *request,
                       const struct local_handler *handler, void *context, struct local_call **out)
{
    struct local_call *call = NULL;
    TRY(fleet_check_up(fleet, model));
    TRY(make_call(fleet, model, request, &call));
    call->handler = *handler;
    call->context = context;
    *out = call; /* before a handler can ask for it */
    if (ask(call, ASKED_START) == ERRAND_SENT)
        return err_ok();
    call->references = 1;
    drop_call(call);
    *out = NULL;
    return err_new(ERR_UNAVAILABLE, "the router is closing");
}

/* --- the end */

static void link_call(struct local_call *call)
{
    struct local_fleet *fleet = call->fleet;
    call->next = fleet->calls;
    if (fleet->calls)
        fleet->calls->previous = call;
    fleet->calls = call;
}

static void unlink_call(struct local_call *call)
{
    *(call->previous ? &call->previous->next : &call->fleet->calls) = call->next;
    if (call->next)
        call->next->previous = call->previous;
}

static void end_call(struct local_call *call, err_t error)
{
    int64_t now_ns = fleet_now_ns(call->fleet);
    bool in_time = now_ns < call->request->deadline_ns;
    bool elsewhere = error.code == ERR_UNAVAILABLE || error.code == ERR_RESOURCE_EXHAUSTED ||
                     error.code == ERR_INTERNAL || error.code == ERR_DATA_LOSS ||
                     error.code == ERR_DEADLINE_EXCEEDED;
    struct local_result result = {.error = error,
                                  .may_retry = !call->has_given && elsewhere && in_time,
                                  .has_events = call->has_given,
                                  .is_its_fault =
                                      error.code != ERR_CANCELLED && error_is_engines_fault(error.code),
                                  .replica = call->address,
                                  .fingerprint = call->fingerprint,
                                  .attempts = call->n_attempts,
                                  .n_handovers = call->n_handovers,
                                  .started_ns = call->started_ns,
                                  .first_token_ns = call->first_token_ns,
                                  .ended_ns = now_ns};
    ASSERT(call->state != STATE_DONE && call->state != STATE_RUNNING);
    if (call->state == STATE_WAITING)
        call->fleet->n_waiting--;
    unlink_call(call);
    call->state = STATE_DONE;
    atomic_store(&call->is_done, true);
    call->handler.end(call->context, &result);
    drop_call(call);
}

static err_t cancelled(void)
{
    return err_new(ERR_CANCELLED, "cancelled by the caller");
}

/* --- what comes */

static bool diverges(struct local_call *call)
{
    call->failure = err_new(ERR_UNAVAILABLE,
                            "the engine that answered is gone, and %s would go on differently: its "
                            "fingerprint is another, or its arithmetic is",
                            call->address);
    bantam_call_cancel(call->attempt);
    return false;
}

/* Takes off what was given before; false when nothing is left, or when it is not the same. */
static bool skip_replayed(struct local_call *call, struct event *event)
{
    size_t n = event->n_token_ids < call->n_skip_ids ? event->n_token_ids : call->n_skip_ids;
    size_t bytes = event->text_bytes < call->n_skip_text ? event->text_bytes : call->n_skip_text;
    if (n > 0 &&
        memcmp(event->token_ids, call->ids + call->n_ids - call->n_skip_ids, n * sizeof *call->ids) != 0)
        return diverges(call);
    if (bytes > 0 &&
        memcmp(event->text, call->last_text.data + call->last_text.size - call->n_skip_text, bytes) != 0)
        return diverges(call);
    call->n_skip_ids -= n;
    call->n_skip_text -= bytes;
    bool goes_on = event->kind == EVENT_FINISHED || event->n_token_ids > n;
    if (goes_on && (call->n_skip_ids > 0 || call->n_skip_text > 0))
        return diverges(call);
    event->token_ids += n;
    event->n_token_ids -= n;
    event->text += bytes;
    event->text_bytes -= bytes;
    if (event->n_logprobs > 0) {
        event->logprobs += n;
        event->n_logprobs -= n;
    }
    return event->kind == EVENT_FINISHED || event->n_token_ids > 0 || event->text_bytes > 0;
}

static bool keep_ids(struct local_call *call, const struct event *event)
{
    enum { FIRST_CAPACITY = 64 };
    size_t wanted = call->n_ids + event->n_token_ids;
    if (wanted > call->ids_capacity) {
        size_t capacity = wanted * 2 > FIRST_CAPACITY ? wanted * 2 : FIRST_CAPACITY;
        uint32_t *ids = mem_realloc(call->ids, capacity * sizeof *ids);
        if (!ids)
            return false;
        call->ids = ids;
        call->ids_capacity = capacity;
    }
    memcpy(call->ids + call->n_ids, event->token_ids, event->n_token_ids * sizeof *call->ids);
    call->n_ids = wanted;
    return true;
}

/* What it takes to go on elsewhere; without memory for it there is no going on. */
static void remember(struct local_call *call, const struct event *event)
{
    if (!call->can_hand_over)
        return;
    if (event->n_token_ids > 0) {
        call->can_hand_over = keep_ids(call, event);
        call->n_last_ids = event->n_token_ids;
        buffer_clear(&call->last_text);
    }
    if (event->text_bytes > 0 && !buffer_append(&call->last_text, event->text, event->text_bytes))
        call->can_hand_over = false;
}

/* The end tells of the whole answer, and not of what its last replica did of it. */
static void complete_finish(struct local_call *call, struct event *event)
{
    call->n_finished++;
    if (call->n_handovers == 0) {
        replica_learn(call->replica, event);
        return;
    }
    event->usage.completion_tokens = (uint32_t)(call->n_ids - call->n_own);
    event->timings = (struct timings){.queue_ns = -1,
                                      .prefill_ns = call->first_token_ns - call->started_ns,
                                      .decode_ns = fleet_now_ns(call->fleet) - call->first_token_ns};
}

static bool on_event(void *context, const struct event *event)
{
    struct local_call *call = context;
    struct event out = *event;
    if (call->is_cancelled || call->failure.code != ERR_OK)
        return true;
    replica_first_token(call->replica, &call->ticket);
    bool is_abort = event->kind == EVENT_FINISHED && event->finish_reason == FINISH_ABORT;
    if (is_abort && call->can_hand_over) {
        call->was_aborted = true; /* its text may be half a stop string that another one goes on with */
        return true;
    }
    if (call->is_replaying && (call->n_skip_ids > 0 || call->n_skip_text > 0) && !skip_replayed(call, &out))
        return true;
    if (call->is_replaying) {
        call->is_replaying = false;
        call->n_handovers++;
        call->n_waits = 0;
    }
    if (call->has_given) {
        out.prompt_token_ids = NULL; /* told once */
        out.n_prompt_token_ids = 0;
    }
    if (!call->has_given)
        call->first_token_ns = fleet_now_ns(call->fleet);
    call->has_given = true;
    remember(call, &out);
    if (out.kind == EVENT_FINISHED)
        complete_finish(call, &out);
    call->is_paused = !call->handler.event(call->context, &out);
    return !call->is_paused;
}

/* --- attempts */

/* Engines know a request by its id as long as they have it: one that goes on elsewhere has another. */
static const char *attempt_id(const struct local_call *call, char *out, size_t size)
{
    const char *id = call->request->request_id;
    if (!id || !id[0] || call->n_attempts == 0)
        return id;
    (void)snprintf(out, size, "%.*s-%u", REQUEST_ID_BYTES_MAX - 12, id, call->n_attempts);
    return out;
}

static void on_done(void *context, const struct bantam_outcome *outcome);

static err_t start_attempt(struct local_call *call)
{
    static const struct bantam_handler HANDLER = {.on_event = on_event, .on_done = on_done};
    char id[REQUEST_ID_BYTES_MAX + 1];
    struct request request = *call->request;
    struct bantam_query query = {
        .method = BANTAM_GENERATE, .request = &request, .return_prompt_token_ids = true};
    const struct bantam_header salt = {ROUTE_CACHE_SALT, call->salt, strlen(call->salt)};
    struct bantam_call_options options = {.timeout_ns = BANTAM_NO_TIMEOUT,
                                          .no_retries = true,
                                          .headers = &salt,
                                          .n_headers = call->salt[0] ? 1 : 0};
    if (request.deadline_ns != REQUEST_NO_DEADLINE)
        options.timeout_ns = request.deadline_ns - fleet_now_ns(call->fleet);
    request.request_id = attempt_id(call, id, sizeof id);
    request.model = call->model->options->model;
    request.output_prefix_ids = call->ids;
    request.n_output_prefix_ids = call->n_ids - (call->has_given ? call->n_last_ids : 0);
    call->is_replaying = call->has_given;
    call->n_skip_ids = call->has_given ? call->n_last_ids : 0;
    call->n_skip_text = call->has_given ? call->last_text.size : 0;
    call->was_aborted = false;
    return bantam_client_start(call->replica->client, &query, &options, &HANDLER, call, &call->attempt);
}

/* Somebody takes it; false when nobody does. */
static bool begin(struct local_call *call)
{
    const char *fingerprint = call->has_given ? call->fingerprint : "";
    struct replica *replica =
        replica_take(call->model, call->request, call->excluded, fingerprint, &call->ticket);
    if (!replica)
        return false;
    call->replica = replica;
    (void)snprintf(call->address, sizeof call->address, "%s", replica->address);
    err_t e = start_attempt(call);
    if (e.code != ERR_OK) {
        replica_give_back(replica, &call->ticket, &e, true);
        call->replica = NULL;
        end_call(call, e);
        return true;
    }
    if (call->state == STATE_WAITING)
        call->fleet->n_waiting--;
    call->state = STATE_RUNNING;
    call->n_attempts++;
    return true;
}

static void wait_until(struct local_call *call, int64_t due_ns)
{
    if (call->state != STATE_WAITING)
        call->fleet->n_waiting++;
    call->state = STATE_WAITING;
    call->due_ns = due_ns;
}

/* reason: why the last attempt ended. */
static void begin_or_end(struct local_call *call, err_t reason)
{
    int64_t now_ns = fleet_now_ns(call->fleet);
    if (now_ns >= call->request->deadline_ns)
        end_call(call, err_new(ERR_DEADLINE_EXCEEDED, "the deadline passed before an engine could go on"));
    else if (call->is_paused)
        wait_until(call, NOT_BEFORE_RESUMED);
    else if (begin(call))
        return;
    else if (!call->has_given || call->n_waits == FLEET_HANDOVER_WAITS_MAX)
        end_call(call, reason);
    else {
        call->excluded = 0; /* whoever is back by then */
        wait_until(call, now_ns + (FLEET_HANDOVER_WAIT_NS << call->n_waits++));
    }
}

static err_t nobody(const struct local_call *call)
{
    return err_new(ERR_UNAVAILABLE, "no engine of \"%s\" takes a request", call->model->options->name);
}

/* --- how an attempt ended */

static err_t cannot_go_on(const struct local_call *call, err_t error)
{
    const char *why = call->n_choices > 1 ? "an answer with several choices cannot go on elsewhere"
                                          : "this answer cannot go on elsewhere";
    return err_new(ERR_UNAVAILABLE, "%s is gone in the middle of its answer, and %s: %s", call->address, why,
                   error.message);
}

static void go_on(struct local_call *call, err_t error, uint32_t slot)
{
    bool is_refusal = error.code == ERR_RESOURCE_EXHAUSTED;
    bool is_loss = error.code == ERR_UNAVAILABLE || error.code == ERR_DATA_LOSS;
    if (!is_refusal && !is_loss) {
        end_call(call, error);
        return;
    }
    if (!call->has_given) {
        call->excluded |= UINT64_C(1) << slot;
        if (call->n_attempts < FLEET_ATTEMPTS_MAX)
            begin_or_end(call, error);
        else
            end_call(call, error);
        return;
    }
    if (!call->can_hand_over || call->n_handovers == FLEET_HANDOVERS_MAX) {
        end_call(call, cannot_go_on(call, error));
        return;
    }
    call->excluded = (call->is_replaying ? call->excluded : 0) | UINT64_C(1) << slot;
    if (error.code == ERR_RESOURCE_EXHAUSTED)
        error.code = ERR_UNAVAILABLE; /* it is too late for a refusal */
    begin_or_end(call, error);
}

/* gRPC's CANCELLED that nobody here asked for: the call crossed a GOAWAY, or a proxy cut it. */
static err_t error_of(const struct local_call *call, const struct bantam_outcome *outcome)
{
    if (call->failure.code != ERR_OK)
        return call->failure;
    if (call->is_cancelled)
        return cancelled();
    if (call->was_aborted)
        return err_new(ERR_UNAVAILABLE, "the engine ended the request");
    err_t e = outcome->error;
    if (e.code == ERR_CANCELLED)
        e = err_new(ERR_UNAVAILABLE, "the engine cut the call");
    return e;
}

static void on_done(void *context, const struct bantam_outcome *outcome)
{
    struct local_call *call = context;
    err_t error = error_of(call, outcome);
    uint32_t slot = call->replica->slot;
    replica_give_back(call->replica, &call->ticket, &error,
                      call->is_cancelled || call->failure.code != ERR_OK);
    call->replica = NULL;
    bantam_call_release(call->attempt);
    call->attempt = NULL;
    if (outcome->fingerprint[0])
        (void)snprintf(call->fingerprint, sizeof call->fingerprint, "%s", outcome->fingerprint);
    call->state = STATE_NEW;
    if (call->n_finished == call->n_choices)
        end_call(call, err_ok()); /* all of it was given, however the stream ended */
    else if (call->is_cancelled || call->failure.code != ERR_OK || error.code == ERR_OK)
        end_call(call, error);
    else
        go_on(call, error, slot);
}

/* --- what is asked */

static void begin_call(struct local_call *call)
{
    struct sampling_params *sampling = &call->request->sampling;
    link_call(call);
    if (!(sampling->set & SAMPLING_SEED)) {
        sampling->seed = rng_u64(&call->fleet->rng);
        sampling->set |= SAMPLING_SEED;
    }
    begin_or_end(call, nobody(call));
}

static void cancel_call(struct local_call *call)
{
    if (call->is_cancelled || call->state == STATE_DONE)
        return;
    call->is_cancelled = true;
    if (call->state == STATE_RUNNING)
        bantam_call_cancel(call->attempt);
    else
        end_call(call, cancelled());
}

static void resume_call(struct local_call *call)
{
    if (!call->is_paused || call->state == STATE_DONE)
        return;
    call->is_paused = false;
    if (call->state == STATE_RUNNING)
        bantam_call_resume(call->attempt);
    else if (call->state == STATE_WAITING)
        begin_or_end(call, nobody(call));
}

static void run_asked(struct fleet_errand *errand)
{
    struct local_call *call = (struct local_call *)errand;
    uint32_t asked = atomic_exchange(&call->asked, 0);
    if (asked & ASKED_START && asked & ASKED_CANCEL) {
        link_call(call);
        cancel_call(call);
    } else if (asked & ASKED_START) {
        begin_call(call);
    } else if (asked & ASKED_CANCEL) {
        cancel_call(call);
    }
    if (asked & ASKED_RESUME)
        resume_call(call);
    drop_call(call);
}

void calls_run_due(struct local_fleet *fleet, int64_t *next_ns)
{
    int64_t now_ns = fleet_now_ns(fleet);
    if (fleet->n_waiting == 0)
        return;
    for (struct local_call *call = fleet->calls, *next; call; call = next) {
        next = call->next;
        if (call->state != STATE_WAITING)
            continue;
        if (call->due_ns <= now_ns)
            begin_or_end(call, nobody(call));
        else if (call->due_ns < *next_ns)
            *next_ns = call->due_ns;
    }
}

void calls_cancel_all(struct local_fleet *fleet)
{
    for (struct local_call *call = fleet->calls, *next; call; call = next) {
        next = call->next;
        cancel_call(call);
    }
}
