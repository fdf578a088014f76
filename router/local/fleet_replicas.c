/* The replicas of a model: who is there by name, who is up, and who gets a request. */
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/log.h"
#include "router/local/fleet_internal.h"

static uint64_t bit(uint32_t slot)
{
    return UINT64_C(1) << slot;
}

/* --- by name */

static struct replica *find_replica(const struct fleet_model *model, const char *address)
{
    for (uint32_t i = 0; i < LOCAL_REPLICAS_MAX; i++)
        if (model->replicas[i] && strcmp(model->replicas[i]->address, address) == 0)
            return model->replicas[i];
    return NULL;
}

/* The certificate must have the name that was looked up, not the address. */
static void client_options_for(const struct fleet_model *model, const struct replica_target *target,
                               const struct replica *replica, struct bantam_client_options *out)
{
    const struct local_model_options *options = model->options;
    *out = bantam_client_options_default();
    out->group = model->fleet->group;
    out->target = replica->address;
    out->own_connection = true;
    out->tls = options->tls;
    out->ca_file = options->ca_file;
    out->cert_file = options->cert_file;
    out->key_file = options->key_file;
    out->server_name = options->server_name;
    if (options->tls && !options->server_name && !target->is_unix)
        out->server_name = target->host;
    out->api_key = options->api_key;
    out->retry = (struct bantam_retry_options){
        .max_attempts = 1, .backoff_ns = 50000000, .backoff_max_ns = 1000000000};
    out->clock = model->fleet->options.clock;
    out->seed = rng_u64(&model->fleet->rng) | 1;
}

static err_t open_replica(struct fleet_model *model, const struct replica_target *target,
                          struct replica *replica)
{
    struct bantam_client_options options;
    client_options_for(model, target, replica, &options);
    TRY(bantam_client_open(&options, &replica->client));
    err_t e = bantam_client_watch(replica->client, model->fleet->options.loads_interval_ms, &replica->watch);
    if (e.code != ERR_OK)
        bantam_client_close(replica->client);
    return e;
}

static void join(struct fleet_model *model, const struct replica_target *target, const char *address)
{
    uint32_t slot = 0;
    while (slot < LOCAL_REPLICAS_MAX && model->replicas[slot])
        slot++;
    struct replica *replica = slot < LOCAL_REPLICAS_MAX ? mem_alloc(sizeof *replica) : NULL;
    if (!replica)
        return; /* the limit, or no memory: asked for again at the next look */
    replica->fleet = model->fleet;
    replica->model = model;
    replica->slot = slot;
    (void)snprintf(replica->address, sizeof replica->address, "%s", address);
    err_t e = open_replica(model, target, replica);
    if (e.code != ERR_OK) {
        log_warn("local", "%s: replica %s: %s", model->options->name, address, e.message);
        mem_free(replica);
        return;
    }
    pthread_mutex_lock(&model->fleet->mutex);
    prefix_memory_forget(model->memory, slot);
    model->replicas[slot] = replica;
    pthread_mutex_unlock(&model->fleet->mutex);
}

static void close_replica(struct replica *replica)
{
    struct fleet_model *model = replica->model;
    pthread_mutex_lock(&model->fleet->mutex);
    model->replicas[replica->slot] = NULL;
    pthread_mutex_unlock(&model->fleet->mutex);
    bantam_watch_close(replica->watch);
    bantam_client_close(replica->client);
    mem_free(replica);
}

void replicas_close(struct fleet_model *model)
{
    for (uint32_t i = 0; i < LOCAL_REPLICAS_MAX; i++)
        if (model->replicas[i])
            close_replica(model->replicas[i]);
}

void replicas_follow_names(struct fleet_model *model)
{
    struct local_fleet *fleet = model->fleet;
    uint64_t named = 0;
    bool is_whole = true; /* every target has been looked up */
    for (size_t i = 0; i < model->options->n_targets; i++) {
        struct replica_addresses addresses;
        pthread_mutex_lock(&fleet->resolver_mutex);
        addresses = model->resolved[i];
        pthread_mutex_unlock(&fleet->resolver_mutex);
        is_whole = is_whole && addresses.n > 0;
        for (size_t k = 0; k < addresses.n; k++) {
            if (!find_replica(model, addresses.address[k]))
                join(model, &model->targets[i], addresses.address[k]);
            struct replica *replica = find_replica(model, addresses.address[k]);
            named |= replica ? bit(replica->slot) : 0;
        }
    }
    pthread_mutex_lock(&fleet->mutex);
    for (uint32_t i = 0; i < LOCAL_REPLICAS_MAX; i++)
        if (model->replicas[i])
            model->replicas[i]->is_leaving = is_whole && !(named & bit(i));
    pthread_mutex_unlock(&fleet->mutex);
}

/* --- what it serves */

static char *copy_text(const char *text)
{
    return mem_strdup(text ? text : "");
}

static bool texts_equal(const char *a, const char *b)
{
    return strcmp(a ? a : "", b ? b : "") == 0;
}

static bool infos_equal(const struct model_info *a, const struct model_info *b)
{
    return texts_equal(a->model, b->model) && texts_equal(a->fingerprint, b->fingerprint) &&
           texts_equal(a->architecture, b->architecture) && texts_equal(a->dtype, b->dtype) &&
           texts_equal(a->quantization, b->quantization) && a->vocab_size == b->vocab_size &&
           a->max_model_len == b->max_model_len && a->n_parameters == b->n_parameters &&
           a->has_tokenizer == b->has_tokenizer && a->has_chat_template == b->has_chat_template &&
           a->bos_token_id == b->bos_token_id && a->n_eos_token_ids == b->n_eos_token_ids &&
           (a->n_eos_token_ids == 0 ||
            memcmp(a->eos_token_ids, b->eos_token_ids, a->n_eos_token_ids * sizeof *a->eos_token_ids) == 0);
}

static bool copy_info(const struct model_info *from, struct model_info *out)
{
    *out = *from;
    const char **const TEXTS[] = {&out->model,
                                  &out->architecture,
                                  &out->dtype,
                                  &out->quantization,
                                  &out->fingerprint,
                                  &out->weights_fingerprint,
                                  &out->tokenizer_fingerprint,
                                  &out->template_fingerprint,
                                  &out->arithmetic_fingerprint};
    bool has_all = true;
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++) {
        *TEXTS[i] = copy_text(*TEXTS[i]);
        has_all = has_all && *TEXTS[i];
    }
    uint32_t *ids = mem_alloc_array(from->n_eos_token_ids + 1, sizeof *ids);
    if (ids && from->n_eos_token_ids > 0)
        memcpy(ids, from->eos_token_ids, from->n_eos_token_ids * sizeof *ids);
    out->eos_token_ids = ids;
    out->model_path = NULL;
    out->sampling_defaults = NULL;
    return has_all && ids;
}

/* Its strings live as long as the fleet, so that equal ones are kept once. NULL: no room. */
static const struct info_record *keep_info(struct local_fleet *fleet, const struct model_info *info)
{
    for (const struct info_record *record = fleet->infos; record; record = record->next)
        if (infos_equal(&record->info, info))
            return record;
    if (fleet->n_infos == FLEET_INFOS_MAX)
        return NULL;
    struct info_record *record = mem_alloc(sizeof *record);
    if (!record)
        return NULL;
    record->next = fleet->infos; /* freed with the others, whatever it has */
    fleet->infos = record;
    fleet->n_infos++;
    return copy_info(info, &record->info) ? record : NULL;
}

static bool serves_ours(const struct replica *replica)
{
    const char *wanted = replica->model->options->model;
    return !wanted || !replica->info || strcmp(wanted, replica->info->info.model) == 0;
}

static void on_info(void *context, const struct bantam_answer *answer)
{
    struct replica *replica = context;
    const struct info_record *record = keep_info(replica->fleet, &answer->model_info);
    pthread_mutex_lock(&replica->fleet->mutex);
    if (record) {
        replica->info = record;
        replica->has_fresh_info = true;
        replica->model->info = serves_ours(replica) ? record : replica->model->info;
    }
    pthread_mutex_unlock(&replica->fleet->mutex);
    replica->fleet->has_changed = true;
    if (record && !serves_ours(replica) && !replica->told_wrong_model)
        log_warn("local", "%s: replica %s serves \"%s\", not \"%s\": it gets nothing",
                 replica->model->options->name, replica->address, record->info.model,
                 replica->model->options->model);
    replica->told_wrong_model = record && !serves_ours(replica);
}

static void on_info_done(void *context, const struct bantam_outcome *outcome)
{
    struct replica *replica = context;
    replica->n_calls--;
    replica->is_asking_info = false;
    if (outcome->error.code != ERR_OK)
        replica->ask_info_ns = fleet_now_ns(replica->fleet) + FLEET_INFO_RETRY_NS;
}

static void ask_info(struct replica *replica)
{
    static const struct bantam_handler HANDLER = {.on_answer = on_info, .on_done = on_info_done};
    struct bantam_query query = {.method = BANTAM_MODEL_INFO};
    struct bantam_call_options options = {.timeout_ns = FLEET_INFO_TIMEOUT_NS};
    if (bantam_client_start(replica->client, &query, &options, &HANDLER, replica, NULL).code != ERR_OK)
        return;
    replica->n_calls++;
    replica->is_asking_info = true;
}

/* --- whether it is up */

/* Somebody answers there, though not with loads. */
static bool is_refusal(enum err_code code)
{
    return code == ERR_PERMISSION_DENIED || code == ERR_UNAUTHENTICATED || code == ERR_UNIMPLEMENTED ||
           code == ERR_RESOURCE_EXHAUSTED;
}

static bool is_well(const struct replica *replica, const struct bantam_loads_view *view)
{
    const struct loads *loads = &replica->state.loads;
    int64_t silence_ns = INT64_C(20000000) * replica->fleet->options.loads_interval_ms;
    if (!view->connected)
        return true; /* refused: what is not told is not held against it */
    return view->age_ns < (silence_ns > FLEET_SILENCE_NS ? silence_ns : FLEET_SILENCE_NS) && !loads->failed &&
           (loads->step_running || loads->heartbeat_age_ns < FLEET_HUNG_NS);
}

static void take_report(struct replica *replica, const struct bantam_loads_view *view)
{
    if (replica_state_report(&replica->state, &view->loads))
        prefix_memory_forget(replica->model->memory, replica->slot);
    replica->n_reports = view->n_messages;
}

/* An engine with tenants tells its load to an admin's key alone, and takes salts from none else: with another
 * one it will refuse whatever the router's tenants ask. */
static void tell_of_key(struct replica *replica, const struct bantam_loads_view *view)
{
    bool is_refused =
        !view->connected && (view->failure == ERR_PERMISSION_DENIED || view->failure == ERR_UNAUTHENTICATED);
    const struct local_model_options *options = replica->model->options;
    if (is_refused && !replica->told_wrong_key)
        log_warn("local",
                 "%s: replica %s tells its load to an admin's key alone, and %s: requests of this router's "
                 "tenants "
                 "will be refused there; give local[].key_env or key_file an admin's key",
                 options->name, replica->address, options->api_key ? "ours is none" : "we have no key");
    replica->told_wrong_key = is_refused || (replica->told_wrong_key && !view->connected);
}

static void look(struct replica *replica, int64_t now_ns)
{
    struct local_fleet *fleet = replica->fleet;
    struct bantam_loads_view view;
    bantam_watch_read(replica->watch, &view);
    tell_of_key(replica, &view);
    pthread_mutex_lock(&fleet->mutex);
    if (view.n_messages != replica->n_reports)
        take_report(replica, &view);
    bool was_reachable = replica->is_reachable;
    replica->is_reachable = view.connected || is_refusal(view.failure);
    if (replica->is_reachable &&
        !was_reachable) { /* what failed was the last connection, or another process */
        breaker_forget(&replica->breaker);
        replica->shunned_until_ns = 0;
    }
    if (!replica->is_reachable) {
        replica->has_fresh_info = false;
        replica->ask_info_ns = 0;
    }
    bool was_up = replica->is_up;
    replica->is_up = replica->is_reachable && replica->has_fresh_info && !replica->is_leaving &&
                     is_well(replica, &view) && serves_ours(replica);
    fleet->has_changed = fleet->has_changed || replica->is_up != was_up;
    pthread_mutex_unlock(&fleet->mutex);
    if (replica->is_up != was_up)
        log_info("local", "%s: replica %s is %s", replica->model->options->name, replica->address,
                 replica->is_up        ? "up"
                 : replica->is_leaving ? "leaving"
                                       : "down");
    if (replica->is_reachable && !replica->has_fresh_info && !replica->is_asking_info &&
        now_ns >= replica->ask_info_ns)
        ask_info(replica);
}

void replicas_look(struct fleet_model *model)
{
    int64_t now_ns = fleet_now_ns(model->fleet);
    for (uint32_t i = 0; i < LOCAL_REPLICAS_MAX; i++) {
        struct replica *replica = model->replicas[i];
        if (!replica)
            continue;
        look(replica, now_ns);
        if (replica->is_leaving && replica->n_calls == 0)
            close_replica(replica);
    }
}

/* --- who gets a request */

bool error_is_engines_fault(enum err_code code)
{
    return code == ERR_UNAVAILABLE || code == ERR_INTERNAL || code == ERR_DATA_LOSS || code == ERR_IO ||
           code == ERR_CANCELLED; /* which nobody here asked for */
}

/* Those that do not have the fingerprint; 0 when nobody who can take it has. */
static uint64_t others_than(const struct fleet_model *model, const struct replica_state *states,
                            const char *fingerprint)
{
    uint64_t others = 0;
    bool any_same = false;
    for (uint32_t i = 0; i < LOCAL_REPLICAS_MAX; i++) {
        const struct replica *replica = model->replicas[i];
        bool same = replica && replica->info && strcmp(replica->info->info.fingerprint, fingerprint) == 0;
        others |= same ? 0 : bit(i);
        any_same = any_same || (same && states[i].can_take);
    }
    return any_same ? others : 0;
}

struct replica *replica_take(struct fleet_model *model, const struct request *request, uint64_t excluded,
                             const char *fingerprint, struct replica_ticket *ticket)
{
    struct local_fleet *fleet = model->fleet;
    struct replica_state states[LOCAL_REPLICAS_MAX];
    struct prefix_chain chain;
    prefix_chain_make(request, &chain);
    pthread_mutex_lock(&fleet->mutex);
    fleet_fill_states(model, &chain, excluded, states);
    uint64_t others = fingerprint[0] ? others_than(model, states, fingerprint) : 0;
    for (uint32_t i = 0; i < LOCAL_REPLICAS_MAX; i++)
        states[i].can_take = states[i].can_take && !(others & bit(i));
    size_t slot = replica_pick(states, LOCAL_REPLICAS_MAX, chain.prompt_tokens, &fleet->rng);
    struct replica *replica = slot < LOCAL_REPLICAS_MAX ? model->replicas[slot] : NULL;
    if (replica) {
        uint32_t warm = states[slot].warm_tokens;
        ticket->breaker = breaker_ask(&replica->breaker, fleet_now_ns(fleet));
        ASSERT(ticket->breaker != 0);
        prefix_memory_note(model->memory, &chain, replica->slot);
        replica_state_sent(&replica->state, chain.prompt_tokens > warm ? chain.prompt_tokens - warm : 1,
                           &ticket->sent);
        replica->n_calls++;
    }
    pthread_mutex_unlock(&fleet->mutex);
    return replica;
}

struct replica *replica_any(struct fleet_model *model, uint64_t excluded)
{
    struct replica *best = NULL;
    for (uint32_t i = 0; i < LOCAL_REPLICAS_MAX; i++) {
        struct replica *replica = model->replicas[i];
        bool can = replica && replica->is_up && !(excluded & bit(i));
        if (can && (!best || replica->state.n_under_way < best->state.n_under_way))
            best = replica;
    }
    if (best)
        best->n_calls++;
    return best;
}

void replica_first_token(struct replica *replica, struct replica_ticket *ticket)
{
    if (!ticket->sent.is_waiting)
        return;
    pthread_mutex_lock(&replica->fleet->mutex);
    replica_state_heard(&replica->state, &ticket->sent);
    pthread_mutex_unlock(&replica->fleet->mutex);
}

/* A mean in which the latest eighth counts most. */
static void learn(int64_t *mean_ns, int64_t ns)
{
    if (ns > 0)
        *mean_ns = *mean_ns > 0 ? *mean_ns + (ns - *mean_ns) / 8 : ns;
}

void replica_learn(struct replica *replica, const struct event *finished)
{
    const struct usage *usage = &finished->usage;
    pthread_mutex_lock(&replica->fleet->mutex);
    if (usage->prompt_tokens > usage->cached_tokens)
        learn(&replica->state.token_ns,
              finished->timings.prefill_ns / (int64_t)(usage->prompt_tokens - usage->cached_tokens));
    learn(&replica->state.request_ns, finished->timings.decode_ns);
    pthread_mutex_unlock(&replica->fleet->mutex);
}

void replica_give_back(struct replica *replica, struct replica_ticket *ticket, const err_t *error,
                       bool is_cancelled)
{
    static const struct breaker_options OPTIONS = {
        .failures_to_open = 5, .successes_to_close = 2, .open_ns = INT64_C(10000000000)};
    int64_t now_ns = fleet_now_ns(replica->fleet);
    pthread_mutex_lock(&replica->fleet->mutex);
    replica_state_ended(&replica->state, &ticket->sent);
    replica->n_calls--;
    bool is_fault = !is_cancelled && error_is_engines_fault(error->code);
    if (is_cancelled || error->code == ERR_RESOURCE_EXHAUSTED || error->code == ERR_DEADLINE_EXCEEDED)
        breaker_gave_up(&replica->breaker, ticket->breaker);
    else if (is_fault)
        breaker_failed(&replica->breaker, ticket->breaker, &OPTIONS, now_ns, error->retry_after_ms * 1000000);
    else
        breaker_succeeded(&replica->breaker, ticket->breaker, &OPTIONS);
    if (is_fault && error->code != ERR_INTERNAL)
        replica->shunned_until_ns = now_ns + FLEET_SHUN_NS;
    pthread_mutex_unlock(&replica->fleet->mutex);
}
