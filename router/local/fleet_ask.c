/* Questions with one answer, from any thread that can wait. */
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "router/local/fleet_internal.h"

enum { ASK_ATTEMPTS_MAX = 3 };

/* On the asking thread's stack, which waits until it is done. */
struct fleet_ask {
    struct fleet_errand errand; /* first: the errand is the ask */
    struct fleet_model *model;
    struct bantam_query query;
    int64_t deadline_ns; /* fleet's clock */
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool is_done; /* under the mutex */
    err_t error;
    /* The answer: one of these. */
    uint32_t *ids; /* owned */
    size_t n_ids;
    struct buffer *text;
    err_t failure; /* of taking the answer */
    /* The fleet's thread's. */
    struct replica *replica;
    uint64_t excluded;
    uint32_t n_attempts;
};

static void finish(struct fleet_ask *ask, err_t error)
{
    pthread_mutex_lock(&ask->mutex);
    ask->error = error;
    ask->is_done = true;
    pthread_cond_signal(&ask->changed);
    pthread_mutex_unlock(&ask->mutex);
}

static void on_answer(void *context, const struct bantam_answer *answer)
{
    struct fleet_ask *ask = context;
    if (answer->method == BANTAM_DETOKENIZE) {
        if (!buffer_append(ask->text, answer->text.text, answer->text.text_bytes))
            ask->failure =
                err_new(ERR_RESOURCE_EXHAUSTED, "a text of %zu bytes has no room", answer->text.text_bytes);
        return;
    }
    ask->n_ids = answer->tokens.n_ids;
    ask->ids = mem_alloc_array(ask->n_ids + 1, sizeof *ask->ids);
    if (!ask->ids)
        ask->failure = err_new(ERR_RESOURCE_EXHAUSTED, "no memory for %zu token ids", ask->n_ids);
    else if (ask->n_ids > 0)
        memcpy(ask->ids, answer->tokens.ids, ask->n_ids * sizeof *ask->ids);
}

static void attempt(struct fleet_ask *ask, err_t reason);

static void on_done(void *context, const struct bantam_outcome *outcome)
{
    struct fleet_ask *ask = context;
    struct local_fleet *fleet = ask->model->fleet;
    ask->replica->n_calls--;
    fleet->n_asks--;
    ask->excluded |= UINT64_C(1) << ask->replica->slot;
    bool goes_on = outcome->error.code == ERR_UNAVAILABLE && ask->n_attempts < ASK_ATTEMPTS_MAX &&
                   !atomic_load(&fleet->is_closing);
    if (goes_on)
        attempt(ask, outcome->error);
    else
        finish(ask, outcome->error.code == ERR_OK ? ask->failure : outcome->error);
}

/* reason: why it has no answer so far. */
static void attempt(struct fleet_ask *ask, err_t reason)
{
    static const struct bantam_handler HANDLER = {.on_answer = on_answer, .on_done = on_done};
    struct local_fleet *fleet = ask->model->fleet;
    struct bantam_call_options options = {.timeout_ns = ask->deadline_ns - fleet_now_ns(fleet),
                                          .no_retries = true};
    if (options.timeout_ns <= 0) {
        finish(ask, err_new(ERR_DEADLINE_EXCEEDED, "no engine of \"%s\" has answered in time",
                            ask->model->options->name));
        return;
    }
    ask->replica = replica_any(ask->model, ask->excluded);
    if (!ask->replica) {
        finish(ask, reason);
        return;
    }
    ask->n_attempts++;
    err_t e = bantam_client_start(ask->replica->client, &ask->query, &options, &HANDLER, ask, NULL);
    if (e.code == ERR_OK) {
        fleet->n_asks++;
        return;
    }
    ask->replica->n_calls--;
    finish(ask, e);
}

static void run_ask(struct fleet_errand *errand)
{
    struct fleet_ask *ask = (struct fleet_ask *)errand;
    if (atomic_load(&ask->model->fleet->is_closing))
        finish(ask, err_new(ERR_CANCELLED, "the router is closing"));
    else
        attempt(ask, err_new(ERR_UNAVAILABLE, "no engine of \"%s\" is up", ask->model->options->name));
}

static err_t ask_and_wait(struct local_fleet *fleet, size_t model, int64_t timeout_ns, struct fleet_ask *ask)
{
    ASSERT(!pthread_equal(pthread_self(), fleet->thread)); /* which it would wait for */
    TRY(fleet_check_up(fleet, model));
    ask->errand.run = run_ask;
    ask->model = &fleet->models[model];
    ask->failure = err_ok();
    if (__builtin_add_overflow(fleet_now_ns(fleet), timeout_ns, &ask->deadline_ns))
        ask->deadline_ns = INT64_MAX;
    pthread_mutex_init(&ask->mutex, NULL);
    pthread_cond_init(&ask->changed, NULL);
    err_t e = err_new(ERR_UNAVAILABLE, "the router is closing");
    if (fleet_send(fleet, &ask->errand) == ERRAND_SENT) {
        pthread_mutex_lock(&ask->mutex);
        while (!ask->is_done)
            pthread_cond_wait(&ask->changed, &ask->mutex);
        e = ask->error;
        pthread_mutex_unlock(&ask->mutex);
    }
    pthread_cond_destroy(&ask->changed);
    pthread_mutex_destroy(&ask->mutex);
    if (e.code != ERR_OK)
        mem_free(ask->ids);
    return e;
}

err_t local_fleet_tokenize(struct local_fleet *fleet, size_t model, const struct request *request,
                           int64_t timeout_ns, uint32_t **ids, size_t *n_ids)
{
    struct request asked = *request;
    struct fleet_ask ask = {.query = {.method = BANTAM_TOKENIZE, .request = &asked}};
    asked.model = model < fleet->options.n_models ? fleet->options.models[model].model : NULL;
    TRY(ask_and_wait(fleet, model, timeout_ns, &ask));
    *ids = ask.ids;
    *n_ids = ask.n_ids;
    return err_ok();
}

err_t local_fleet_detokenize(struct local_fleet *fleet, size_t model, const uint32_t *ids, size_t n_ids,
                             bool skip_special_tokens, int64_t timeout_ns, struct buffer *text)
{
    struct fleet_ask ask = {.query = {.method = BANTAM_DETOKENIZE,
                                      .token_ids = ids,
                                      .n_token_ids = n_ids,
                                      .keep_special_tokens = !skip_special_tokens},
                            .text = text};
    return ask_and_wait(fleet, model, timeout_ns, &ask);
}
