#include "tests/router/fake_fleet.h"

#include <math.h>
#include <pthread.h>
#include <string.h>
#include "api/validate.h"
#include "base/alloc.h"
#include "base/assert.h"
#include "base/buffer.h"
#include "base/event_count.h"
#include "router/local/local_fleet.h"

struct local_call {
    struct local_call *next;
    struct local_fleet *fleet;
    const struct local_handler *handler;
    void *context;
    const char *at;
    uint32_t n_choices, n_tokens;
    int64_t deadline_ns; /* kept for a classifier's calls alone */
    uint32_t gone;       /* value of `go` when it began to wait */
    bool wants_logprobs, is_waiting, is_paused, is_cancelled, is_ended, is_released;
    int64_t started_ns, first_ns;
};

struct local_fleet {
    struct local_fleet_options options;
    pthread_t thread;
    struct local_call *calls;
    bool ends;
};

static struct {
    pthread_mutex_t lock;
    struct event_count changed;
    const char *script, *classify_script;
    uint32_t n_up, n_waiting, go;
    bool holds_cancelled;
    int64_t ttft_ns;
    struct fake_fleet_counts counts;
} fake = {
    .lock = PTHREAD_MUTEX_INITIALIZER, .script = "ok", .classify_script = "#", .n_up = 1, .ttft_ns = -1};

#define CHANGE(statement)                                                                                    \
    do {                                                                                                     \
        pthread_mutex_lock(&fake.lock);                                                                      \
        statement;                                                                                           \
        pthread_mutex_unlock(&fake.lock);                                                                    \
        event_count_bump(&fake.changed);                                                                     \
    } while (0)

void fake_fleet_script(const char *script)
{
    CHANGE(fake.script = script);
}

void fake_fleet_classify_script(const char *script)
{
    CHANGE(fake.classify_script = script);
}

void fake_fleet_up(uint32_t n_up)
{
    CHANGE(fake.n_up = n_up);
}

void fake_fleet_ttft_ns(int64_t ttft_ns)
{
    CHANGE(fake.ttft_ns = ttft_ns);
}

void fake_fleet_waiting(uint32_t n)
{
    CHANGE(fake.n_waiting = n);
}

void fake_fleet_go(void)
{
    CHANGE(fake.go++);
}

void fake_fleet_hold_cancelled(bool holds)
{
    CHANGE(fake.holds_cancelled = holds);
}

struct fake_fleet_counts fake_fleet_counts(void)
{
    pthread_mutex_lock(&fake.lock);
    struct fake_fleet_counts counts = fake.counts;
    pthread_mutex_unlock(&fake.lock);
    return counts;
}

void fake_fleet_wait_started(uint32_t n)
{
    for (;;) {
        uint32_t seen = event_count_read(&fake.changed);
        if (fake_fleet_counts().started >= n)
            return;
        event_count_wait(&fake.changed, seen, -1);
    }
}

void fake_fleet_wait_cancelled(uint32_t n)
{
    for (;;) {
        uint32_t seen = event_count_read(&fake.changed);
        if (fake_fleet_counts().cancelled >= n)
            return;
        event_count_wait(&fake.changed, seen, -1);
    }
}

static void end_call(struct local_call *call, err_t error)
{
    struct local_result result = {
        .error = error,
        .may_retry = error.code == ERR_UNAVAILABLE && call->n_tokens == 0,
        .has_events = call->n_tokens > 0,
        .is_its_fault = error.code == ERR_UNAVAILABLE,
        .replica = "fake",
        .fingerprint = "0123456789abcdef",
        .attempts = 1,
        .started_ns = call->started_ns,
        .first_token_ns = call->first_ns,
        .ended_ns = clock_now_ns(clock_monotonic()),
    };
    CHANGE({
        call->is_ended = true;
        fake.counts.ended++;
        fake.counts.cancelled += error.code == ERR_CANCELLED;
    });
    call->handler->end(call->context, &result);
}

static void send_event(struct local_call *call, const struct event *event)
{
    if (call->first_ns == 0)
        call->first_ns = clock_now_ns(clock_monotonic());
    call->n_tokens++;
    pthread_mutex_lock(&fake.lock);
    call->is_paused = true; /* a resume that comes meanwhile counts */
    pthread_mutex_unlock(&fake.lock);
    bool goes_on = call->handler->event(call->context, event);
    pthread_mutex_lock(&fake.lock);
    if (goes_on)
        call->is_paused = false;
    else
        fake.counts.pauses++;
    pthread_mutex_unlock(&fake.lock);
}

static struct position_logprobs place_of(uint32_t id, bool is_sure)
{
    float best = logf(is_sure ? 0.99f : 0.5f), second = logf(is_sure ? 0.01f : 0.5f);
    return (struct position_logprobs){
        .chosen = {id, best}, .rank = 1, .n_top = 2, .top = {{id, best}, {id + 1, second}}};
}

static void send_token(struct local_call *call, char letter)
{
    uint32_t id = (uint8_t)letter;
    struct position_logprobs place = place_of(id, letter != '?');
    for (uint32_t i = 0; i < call->n_choices; i++) {
        struct event event = {.kind = EVENT_TOKENS,
                              .choice_index = i,
                              .token_ids = &id,
                              .n_token_ids = 1,
                              .text = &letter,
                              .text_bytes = 1,
                              .logprobs = &place,
                              .n_logprobs = call->wants_logprobs};
        send_event(call, &event);
    }
}

static void send_ends(struct local_call *call)
{
    uint32_t n = call->n_tokens / call->n_choices;
    struct position_logprobs place = place_of(0, false);
    for (uint32_t i = 0; i < call->n_choices; i++) {
        struct event event = {.kind = EVENT_FINISHED,
                              .choice_index = i,
                              .text = "",
                              .finish_reason = FINISH_STOP,
                              .stop_token_id = -1,
                              .logprobs = &place,
                              .n_logprobs = call->wants_logprobs && *call->at == '~',
                              .usage = {.prompt_tokens = 7, .completion_tokens = n}};
        send_event(call, &event);
    }
    end_call(call, err_ok());
}

/* One step of the call; false: it can do none now. */
static bool step(struct local_call *call)
{
    pthread_mutex_lock(&fake.lock);
    bool is_cancelled = call->is_cancelled, is_paused = call->is_paused;
    bool is_held = is_cancelled && fake.holds_cancelled;
    uint32_t go = fake.go;
    pthread_mutex_unlock(&fake.lock);
    if (call->is_ended || is_held)
        return false;
    if (is_cancelled) {
        end_call(call, err_new(ERR_CANCELLED, "cancelled"));
        return true;
    }
    if (clock_now_ns(clock_monotonic()) >= call->deadline_ns) {
        end_call(call, err_new(ERR_DEADLINE_EXCEEDED, "too late"));
        return true;
    }
    if (is_paused || *call->at == '#' || (*call->at == '@' && go == call->gone))
        return false;
    char letter = *call->at;
    if (letter == '\0' || letter == '~') {
        send_ends(call);
    } else if (letter == '!') {
        end_call(call, err_new(ERR_UNAVAILABLE, "the fake engine is gone"));
    } else if (letter == '^') {
        struct sampling_params sampling = sampling_params_builtin();
        end_call(call,
                 validate_resolved(&sampling, 2500, 0, &(struct validate_limits){.max_model_len = 2000}));
    } else if (letter == 'x') {
        end_call(call, err_new(ERR_INVALID_ARGUMENT, "the fake engine does not like this"));
    } else {
        call->at++;
        if (letter == '@')
            call->gone++;
        else
            send_token(call, letter);
    }
    return true;
}

/* Frees what has ended and was released. Under the lock. */
static void sweep(struct local_fleet *fleet)
{
    for (struct local_call **link = &fleet->calls; *link;) {
        struct local_call *call = *link;
        if (call->is_ended && call->is_released) {
            *link = call->next;
            fake.counts.live--;
            mem_free(call);
        } else {
            link = &call->next;
        }
    }
}

static int64_t until_next_deadline(const struct local_call *call)
{
    int64_t next_ns = INT64_MAX, now_ns = clock_now_ns(clock_monotonic());
    for (; call; call = call->next) {
        if (!call->is_ended && call->deadline_ns < next_ns)
            next_ns = call->deadline_ns;
    }
    if (next_ns == INT64_MAX)
        return -1;
    return next_ns > now_ns ? next_ns - now_ns : 0;
}

static void *run(void *argument)
{
    struct local_fleet *fleet = argument;
    for (;;) {
        uint32_t seen = event_count_read(&fake.changed);
        bool any = false;
        pthread_mutex_lock(&fake.lock);
        sweep(fleet);
        struct local_call *first = fleet->calls;
        bool ends = fleet->ends && first == NULL;
        pthread_mutex_unlock(&fake.lock);
        if (ends)
            return NULL;
        for (struct local_call *call = first; call; call = call->next)
            any = step(call) || any;
        if (!any)
            event_count_wait(&fake.changed, seen, until_next_deadline(first));
    }
}

err_t local_fleet_open(const struct local_fleet_options *options, struct local_fleet **out)
{
    struct local_fleet *fleet = mem_alloc(sizeof *fleet);
    ASSERT(fleet);
    fleet->options = *options;
    int failure = pthread_create(&fleet->thread, NULL, run, fleet);
    ASSERT(failure == 0);
    *out = fleet;
    return err_ok();
}

void local_fleet_close(struct local_fleet *fleet)
{
    if (fleet == NULL)
        return;
    CHANGE({
        fleet->ends = true;
        for (struct local_call *call = fleet->calls; call; call = call->next)
            call->is_cancelled = true;
    });
    pthread_join(fleet->thread, NULL);
    mem_free(fleet);
}

bool local_fleet_view(struct local_fleet *fleet, size_t model, struct local_view *out)
{
    pthread_mutex_lock(&fake.lock);
    *out = (struct local_view){
        .n_replicas = 1,
        .n_up = fake.n_up,
        .predicted_ttft_ns = fake.ttft_ns,
        .loads = {.requests_waiting = fake.n_waiting},
        .has_info = true,
        .info = {.model = "fake",
                 .vocab_size = 1000,
                 .max_model_len = 2000,
                 .fingerprint = "0123456789abcdef",
                 .tokenizer_fingerprint = "letters"},
    };
    pthread_mutex_unlock(&fake.lock);
    return model < fleet->options.n_models;
}

int64_t local_fleet_predict_ttft_ns(struct local_fleet *fleet, size_t model, const struct request *request)
{
    (void)fleet;
    (void)model;
    (void)request;
    pthread_mutex_lock(&fake.lock);
    int64_t ttft_ns = fake.ttft_ns;
    pthread_mutex_unlock(&fake.lock);
    return ttft_ns;
}

err_t local_call_start(struct local_fleet *fleet, size_t model, const struct request *request,
                       const struct local_handler *handler, void *context, struct local_call **out)
{
    ASSERT(model < fleet->options.n_models);
    struct local_call *call = mem_alloc(sizeof *call);
    bool is_classifier = request->sampling.n_allowed_token_ids > 0;
    ASSERT(call);
    pthread_mutex_lock(&fake.lock);
    if (fake.n_up == 0) {
        pthread_mutex_unlock(&fake.lock);
        mem_free(call);
        return err_new(ERR_UNAVAILABLE, "no replica is up");
    }
    *call = (struct local_call){
        .next = fleet->calls,
        .fleet = fleet,
        .handler = handler,
        .context = context,
        .at = is_classifier ? fake.classify_script : fake.script,
        .deadline_ns = is_classifier ? request->deadline_ns : INT64_MAX,
        .gone = fake.go,
        .n_choices = request->sampling.set & SAMPLING_N ? request->sampling.n : 1,
        .wants_logprobs = request->sampling.set & SAMPLING_LOGPROBS && request->sampling.logprobs >= 0,
        .started_ns = clock_now_ns(clock_monotonic()),
    };
    fleet->calls = call;
    fake.counts.started++;
    fake.counts.live++;
    fake.counts.classified += is_classifier;
    fake.counts.asked_logprobs = call->wants_logprobs;
    fake.counts.priority = request->priority;
    *out = call;
    pthread_mutex_unlock(&fake.lock);
    event_count_bump(&fake.changed);
    return err_ok();
}

void local_call_cancel(struct local_call *call)
{
    CHANGE(call->is_cancelled = true);
}

void local_call_resume(struct local_call *call)
{
    CHANGE(call->is_paused = false);
}

void local_call_release(struct local_call *call)
{
    if (call)
        CHANGE(call->is_released = true);
}

err_t local_fleet_tokenize(struct local_fleet *fleet, size_t model, const struct request *request,
                           int64_t timeout_ns, uint32_t **ids, size_t *n_ids)
{
    (void)fleet;
    (void)model;
    (void)timeout_ns;
    *ids = mem_alloc_array(1, sizeof **ids);
    ASSERT(*ids);
    if (request->prompt_kind == PROMPT_TEXT)
        (*ids)[0] = (uint8_t)request->text[request->text[0] == ' '];
    *n_ids = 1;
    return err_ok();
}

err_t local_fleet_detokenize(struct local_fleet *fleet, size_t model, const uint32_t *ids, size_t n_ids,
                             bool skip_special_tokens, int64_t timeout_ns, struct buffer *text)
{
    (void)fleet;
    (void)model;
    (void)ids;
    (void)n_ids;
    (void)skip_special_tokens;
    (void)timeout_ns;
    return buffer_append_text(text, "text") ? err_ok() : err_new(ERR_RESOURCE_EXHAUSTED, "full");
}
