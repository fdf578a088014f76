#include "router/gate/eval_ask.h"

#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/stop.h"
#include "router/gate/eval_ask_internal.h"
#include "router/gate/eval_check.h"

enum { STOP_LOOK_MS = 100 }; /* how long a wish to stop may wait while something else is waited for */
enum { CONNECT_TIMEOUT_MS = 10000, BACKOFF_MS = 250, BACKOFF_MAX_MS = 30000, ANTHROPIC_OUTPUT_TOKENS = 4096 };
static const int64_t NS_PER_MS = 1000000;

void eval_answer_free(struct eval_answer *answer)
{
    mem_free(answer->text);
    answer->text = NULL;
}

double eval_answer_doubt(const struct eval_answer *answer, uint32_t n)
{
    if (n > answer->n_margins)
        n = answer->n_margins;
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += (double)answer->margins[i];
    return n == 0 ? 1 : 1 - sum / n;
}

static err_t no_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for an endpoint");
}

/* Connects, and asks who is there. */
static err_t open_client(struct eval_endpoint *endpoint, const struct bantam_client_options *options)
{
    struct bantam_reply *reply;
    struct bantam_query query = {.method = BANTAM_MODEL_INFO};
    struct bantam_call_options call = {.timeout_ns = CONNECT_TIMEOUT_MS * NS_PER_MS};
    TRY(bantam_client_open(options, &endpoint->client));
    TRY(bantam_client_ask(endpoint->client, &query, &call, &reply));
    const char *fingerprint = reply->answer.model_info.fingerprint,
               *architecture = reply->answer.model_info.architecture;
    endpoint->is_router = architecture && strcmp(architecture, MODEL_ARCHITECTURE_ROUTER) == 0;
    (void)snprintf(endpoint->fingerprint, sizeof endpoint->fingerprint, "%s", fingerprint ? fingerprint : "");
    bantam_reply_free(reply);
    return err_ok();
}

/* "127.0.0.1:50051", with or without #ADAPTER */
static err_t open_engine(struct eval_endpoint *endpoint, const char *target, const char *key)
{
    const char *hash = strchr(target, '#');
    endpoint->url = hash ? mem_strndup(target, (size_t)(hash - target)) : mem_strdup(target);
    endpoint->model_name = hash ? mem_strdup(hash + 1) : NULL;
    if (endpoint->url == NULL || (hash != NULL && endpoint->model_name == NULL))
        return no_memory();
    struct bantam_client_options options = bantam_client_options_default();
    options.target = endpoint->url;
    options.api_key = key;
    return open_client(endpoint, &options);
}

static err_t open_local(struct eval_endpoint *endpoint, const struct local_model_options *local)
{
    endpoint->per_hour = local->nanodollars_per_hour;
    endpoint->model_name = local->model ? mem_strdup(local->model) : NULL;
    if (local->model != NULL && endpoint->model_name == NULL)
        return no_memory();
    struct bantam_client_options options = bantam_client_options_default();
    options.target = local->targets[0];
    options.tls = local->tls;
    options.ca_file = local->ca_file;
    options.cert_file = local->cert_file;
    options.key_file = local->key_file;
    options.server_name = local->server_name;
    options.api_key = local->api_key;
    return open_client(endpoint, &options);
}

/* "https://host/v1#model" */
static err_t read_url(struct eval_endpoint *endpoint, const char *target, const char *key)
{
    bool is_anthropic = strncmp(target, "anthropic:", 10) == 0;
    const char *url = is_anthropic ? target + 10 : target, *hash = strchr(url, '#');
    if (hash == NULL || hash[1] == '\0')
        return err_new(ERR_INVALID_ARGUMENT, "\"%.200s\" must end in #MODEL, the model's name there", target);
    size_t bytes = (size_t)(hash - url);
    while (bytes > 0 && url[bytes - 1] == '/')
        bytes--;
    endpoint->url = mem_strndup(url, bytes);
    endpoint->model_name = mem_strdup(hash + 1);
    endpoint->key = key ? mem_strdup(key) : NULL;
    if (endpoint->url == NULL || endpoint->model_name == NULL || (key != NULL && endpoint->key == NULL))
        return no_memory();
    enum provider_kind kind = is_anthropic ? PROVIDER_ANTHROPIC : PROVIDER_COMPATIBLE;
    endpoint->own_model = (struct provider_model){.kind = kind,
                                                  .name = endpoint->model_name,
                                                  .max_output_tokens = ANTHROPIC_OUTPUT_TOKENS,
                                                  .takes_images = true,
                                                  .takes_audio = true,
                                                  .takes_files = true,
                                                  .takes_tools = true,
                                                  .takes_schemas = true};
    endpoint->own_provider = (struct provider){.name = endpoint->name,
                                               .kind = kind,
                                               .url = endpoint->url,
                                               .key = endpoint->key,
                                               .connect_timeout_ms = CONNECT_TIMEOUT_MS,
                                               .total_timeout_ms = endpoint->timeout_ns / NS_PER_MS,
                                               .models = &endpoint->own_model,
                                               .n_models = 1};
    endpoint->provider = &endpoint->own_provider;
    endpoint->model = &endpoint->own_model;
    return err_ok();
}

static err_t open_either(struct eval_endpoint *endpoint, const struct eval_endpoint_options *options)
{
    const char *target = options->target;
    if (options->local != NULL)
        return open_local(endpoint, options->local);
    if (target != NULL && strncmp(target, "grpc://", 7) == 0)
        return open_engine(endpoint, target + 7, options->key);
    if (target != NULL && strstr(target, "://") == NULL)
        return open_engine(endpoint, target, options->key);
    if (target != NULL) {
        TRY(read_url(endpoint, target, options->key));
    } else {
        endpoint->provider = options->provider;
        endpoint->model = options->model;
        endpoint->has_price = true;
        endpoint->price = options->model->price;
    }
    struct egress_options egress = egress_options_default();
    return egress_open(&egress, &endpoint->egress);
}

err_t eval_endpoint_open(const struct eval_endpoint_options *options, struct eval_endpoint **out)
{
    *out = NULL;
    struct eval_endpoint *endpoint = mem_alloc(sizeof *endpoint);
    if (endpoint == NULL)
        return no_memory();
    (void)snprintf(endpoint->name, sizeof endpoint->name, "%s", options->name);
    endpoint->timeout_ns = options->timeout_ms * NS_PER_MS;
    endpoint->stop = options->stop;
    err_t e = open_either(endpoint, options);
    if (e.code != ERR_OK) {
        eval_endpoint_close(endpoint);
        return err_prefix(e, "model %.60s", options->name);
    }
    endpoint->has_price |= endpoint->client != NULL; /* its tokens cost nothing */
    if (options->nanodollars_per_hour > 0)
        endpoint->per_hour = options->nanodollars_per_hour;
    if (options->price != NULL) {
        endpoint->has_price = true;
        endpoint->price = *options->price;
        endpoint->per_hour = 0;
    }
    *out = endpoint;
    return err_ok();
}

void eval_endpoint_close(struct eval_endpoint *endpoint)
{
    if (endpoint == NULL)
        return;
    bantam_client_close(endpoint->client);
    egress_close(endpoint->egress);
    mem_free(endpoint->url);
    if (endpoint->key != NULL)
        explicit_bzero(endpoint->key, strlen(endpoint->key));
    mem_free(endpoint->key);
    mem_free(endpoint->model_name);
    mem_free(endpoint);
}

const char *eval_endpoint_fingerprint(const struct eval_endpoint *endpoint)
{
    return endpoint->fingerprint;
}

void eval_slot_saw(struct eval_slot *slot)
{
    if (slot->first_ns == 0)
        slot->first_ns = clock_now_ns(clock_monotonic());
}

bool eval_slot_call(struct eval_slot *slot, uint32_t index, const char *name, const char *arguments,
                    size_t arguments_bytes)
{
    if (slot->calls == NULL)
        slot->calls = json_array();
    while (slot->calls != NULL && json_array_size(slot->calls) <= index && index < ANSWER_TOOL_CALLS_MAX)
        if (json_array_append_new(slot->calls, json_pack("{s:s, s:s}", "name", "", "arguments", "")) != 0)
            return false;
    json_t *call = json_array_get(slot->calls, index), *before = json_object_get(call, "arguments");
    if (name != NULL && json_object_set_new(call, "name", json_string(name)) != 0)
        return false;
    struct buffer text = {.limit_bytes = EVAL_ANSWER_BYTES_MAX};
    bool fits = call != NULL && buffer_append(&text, json_string_value(before), json_string_length(before)) &&
                buffer_append(&text, arguments, arguments_bytes) && buffer_append_text(&text, "") &&
                json_object_set_new(call, "arguments", json_stringn(text.data, text.size)) == 0;
    buffer_free(&text);
    return fits;
}

void eval_slot_end(struct eval_slot *slot, err_t error)
{
    slot->ended_ns = clock_now_ns(clock_monotonic());
    slot->error = error;
    struct eval_endpoint *endpoint = slot->endpoint;
    atomic_store_explicit(&slot->state, SLOT_ENDED, memory_order_release); /* then the slot is the asker's */
    event_count_bump(&endpoint->ended);
}

/* All that goes on while it asks. */
struct asking {
    struct eval_endpoint *endpoint;
    json_t *const *requests;
    size_t n, next, n_done, n_failed;
    struct eval_answer *answers;
    struct eval_slot *slots; /* [n_slots] */
    uint32_t n_slots;
};

static struct eval_answer not_asked(void)
{
    return (struct eval_answer){.error = "not asked",
                                .usage = {-1, -1, -1, -1, -1},
                                .cost = -1,
                                .first_token_us = -1,
                                .total_us = -1};
}

static void start_slot(struct asking *asking, struct eval_slot *slot)
{
    buffer_clear(&slot->text);
    json_decref(slot->calls);
    slot->calls = NULL;
    slot->attempts++;
    slot->first_ns = slot->ended_ns = 0;
    slot->may_retry = false;
    *slot->answer = not_asked();
    slot->answer->was_asked = true;
    slot->answer->error[0] = '\0';
    slot->started_ns = clock_now_ns(clock_monotonic());
    atomic_store_explicit(&slot->state, SLOT_RUNNING, memory_order_relaxed);
    const json_t *request = asking->requests[slot->index];
    err_t e = asking->endpoint->client ? eval_engine_start(slot, request) : eval_http_start(slot, request);
    if (e.code != ERR_OK)
        eval_slot_end(slot, e);
}

static void finish_answer(struct asking *asking, struct eval_slot *slot)
{
    struct eval_answer *answer = slot->answer;
    const struct eval_endpoint *endpoint = asking->endpoint;
    answer->total_us = (slot->ended_ns - slot->started_ns) / 1000;
    answer->first_token_us = slot->first_ns ? (slot->first_ns - slot->started_ns) / 1000 : -1;
    if (answer->cost < 0 &&
        (!endpoint->has_price || !price_cost(&endpoint->price, &answer->usage, &answer->cost)))
        answer->cost = -1;
    if (slot->error.code == ERR_OK &&
        (!eval_put_calls(&slot->text, slot->calls) || !buffer_append_text(&slot->text, "")))
        slot->error =
            err_new(ERR_RESOURCE_EXHAUSTED, "the answer is longer than %d bytes", EVAL_ANSWER_BYTES_MAX);
    if (slot->error.code == ERR_OK) {
        answer->text = slot->text.data ? mem_strndup(slot->text.data, slot->text.size) : mem_strdup("");
        answer->text_bytes = slot->text.size;
    } else {
        (void)snprintf(answer->error, sizeof answer->error, "%s: %.120s", err_code_name(slot->error.code),
                       slot->error.message);
    }
    if (slot->error.code == ERR_OK && answer->text == NULL)
        (void)snprintf(answer->error, sizeof answer->error, "no memory for the answer");
    asking->n_failed += answer->text == NULL;
    asking->n_done++;
}

/* Or was that its last word? */
static bool is_to_retry(const struct eval_slot *slot)
{
    return slot->may_retry && slot->attempts < EVAL_ATTEMPTS_MAX;
}

static void wait_to_retry(struct eval_slot *slot, int64_t now_ns)
{
    int64_t wait_ms =
        slot->error.retry_after_ms > 0 ? slot->error.retry_after_ms : (int64_t)BACKOFF_MS << slot->attempts;
    slot->due_ns = now_ns + (wait_ms < BACKOFF_MAX_MS ? wait_ms : BACKOFF_MAX_MS) * NS_PER_MS;
    atomic_store_explicit(&slot->state, SLOT_WAITING, memory_order_relaxed);
}

/* What it waits for, or would wait for now, will not be tried. */
static void give_up_waiting(struct asking *asking, struct eval_slot *slot)
{
    *slot->answer = not_asked();
    asking->n_done++;
    atomic_store_explicit(&slot->state, SLOT_FREE, memory_order_relaxed);
}

/* Takes up to one step for each slot; returns when something is due at the latest, 0 = nothing is waited for.
 */
static int64_t step(struct asking *asking, void (*done)(void *context, size_t n_done), void *context)
{
    int64_t now_ns = clock_now_ns(clock_monotonic()), due_ns = 0;
    bool stops = stop_is_wished(asking->endpoint->stop);
    for (uint32_t i = 0; i < asking->n_slots; i++) {
        struct eval_slot *slot = &asking->slots[i];
        int state = atomic_load_explicit(&slot->state, memory_order_acquire);
        bool is_repeated = state == SLOT_WAITING || (state == SLOT_ENDED && is_to_retry(slot));
        if (is_repeated && stops) {
            give_up_waiting(asking, slot);
        } else if (is_repeated && state == SLOT_ENDED) {
            wait_to_retry(slot, now_ns);
        } else if (state == SLOT_ENDED) {
            finish_answer(asking, slot);
            if (done != NULL)
                done(context, asking->n_done);
            atomic_store_explicit(&slot->state, SLOT_FREE, memory_order_relaxed);
        }
        state = atomic_load_explicit(&slot->state, memory_order_relaxed);
        while (state == SLOT_FREE && asking->next < asking->n && asking->requests[asking->next] == NULL) {
            asking->next++;
            asking->n_done++;
        }
        bool gave_up = asking->n_failed == asking->n_done && asking->n_done >= EVAL_FAILURES_MAX;
        if (state == SLOT_FREE && asking->next < asking->n && !gave_up && !stops) {
            slot->index = asking->next++;
            slot->answer = &asking->answers[slot->index];
            slot->attempts = 0;
            start_slot(asking, slot);
        } else if (state == SLOT_WAITING && now_ns >= slot->due_ns) {
            start_slot(asking, slot);
        } else if (state == SLOT_WAITING && (due_ns == 0 || slot->due_ns < due_ns)) {
            due_ns = slot->due_ns;
        }
    }
    return due_ns;
}

static bool any_busy(const struct asking *asking)
{
    for (uint32_t i = 0; i < asking->n_slots; i++)
        if (atomic_load_explicit(&asking->slots[i].state, memory_order_relaxed) != SLOT_FREE)
            return true;
    return false;
}

static void ask_all(struct asking *asking, void (*done)(void *context, size_t n_done), void *context)
{
    struct eval_endpoint *endpoint = asking->endpoint;
    for (;;) {
        uint32_t seen = event_count_read(&endpoint->ended);
        int64_t due_ns = step(asking, done, context);
        if (!any_busy(asking))
            return;
        int64_t wait_ns = due_ns == 0 ? -1 : due_ns - clock_now_ns(clock_monotonic());
        if (wait_ns < 0 && due_ns != 0)
            wait_ns = 0;
        if (wait_ns > STOP_LOOK_MS * NS_PER_MS)
            wait_ns = STOP_LOOK_MS * NS_PER_MS;
        if (event_count_read(&endpoint->ended) != seen)
            continue;
        if (endpoint->client != NULL)
            (void)bantam_client_poll(endpoint->client, wait_ns);
        else
            (void)event_count_wait(&endpoint->ended, seen, wait_ns);
    }
}

/* The machine's time, shared out evenly among what was answered. */
static void share_hours(const struct asking *asking, int64_t elapsed_ns)
{
    static const double NS_PER_HOUR = 3600e9;
    size_t n_answered = asking->n_done - asking->n_failed;
    if (asking->endpoint->per_hour == 0 || n_answered == 0)
        return;
    double each = (double)asking->endpoint->per_hour * (double)elapsed_ns / NS_PER_HOUR / (double)n_answered;
    for (size_t i = 0; i < asking->n; i++)
        if (asking->answers[i].text != NULL && asking->answers[i].cost == 0)
            asking->answers[i].cost = each < (double)MONEY_MAX ? (nanodollars)(each + 1) : MONEY_MAX;
}

err_t eval_ask(struct eval_endpoint *endpoint, json_t *const *requests, size_t n, uint32_t concurrency,
               void (*done)(void *context, size_t n_done), void *context, struct eval_answer *answers)
{
    ASSERT(concurrency >= 1 && concurrency <= EVAL_CONCURRENCY_MAX);
    struct asking asking = {
        .endpoint = endpoint, .requests = requests, .n = n, .answers = answers, .n_slots = concurrency};
    for (size_t i = 0; i < n; i++)
        answers[i] = not_asked();
    asking.slots = mem_alloc_array(concurrency, sizeof *asking.slots);
    if (asking.slots == NULL)
        return no_memory();
    for (uint32_t i = 0; i < concurrency; i++) {
        asking.slots[i].endpoint = endpoint;
        asking.slots[i].text.limit_bytes = EVAL_ANSWER_BYTES_MAX;
    }
    int64_t started_ns = clock_now_ns(clock_monotonic());
    ask_all(&asking, done, context);
    share_hours(&asking, clock_now_ns(clock_monotonic()) - started_ns);
    for (uint32_t i = 0; i < concurrency; i++) {
        buffer_free(&asking.slots[i].text);
        json_decref(asking.slots[i].calls);
    }
    mem_free(asking.slots);
    if (asking.n_failed > 0 && asking.n_failed == asking.n_done && asking.next < n &&
        !stop_is_wished(endpoint->stop))
        return err_new(ERR_UNAVAILABLE,
                       "model %s: %zu requests failed and none was answered; the last one: %s",
                       endpoint->name, asking.n_failed, answers[asking.next - 1].error);
    return err_ok();
}
