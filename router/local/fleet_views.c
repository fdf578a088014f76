/* What is known of the fleet at a moment. */
#include <string.h>
#include "router/local/fleet_internal.h"

static bool can_take(const struct replica *replica, int64_t now_ns)
{
    enum breaker_state state = breaker_state_at(&replica->breaker, now_ns);
    return replica->is_up && now_ns >= replica->shunned_until_ns && state != BREAKER_OPEN &&
           !(state == BREAKER_HALF_OPEN && replica->breaker.is_trying);
}

void fleet_fill_states(const struct fleet_model *model, const struct prefix_chain *chain, uint64_t excluded,
                       struct replica_state *states)
{
    int64_t now_ns = fleet_now_ns(model->fleet);
    uint16_t warm[PREFIX_REPLICAS_MAX];
    _Static_assert((int)PREFIX_REPLICAS_MAX == (int)LOCAL_REPLICAS_MAX, "a slot is a bit of a set");
    prefix_memory_find(model->memory, chain, warm);
    for (uint32_t i = 0; i < LOCAL_REPLICAS_MAX; i++) {
        const struct replica *replica = model->replicas[i];
        states[i] = replica ? replica->state : (struct replica_state){.can_take = false};
        states[i].warm_tokens = (uint32_t)warm[i] * PREFIX_CHUNK_TOKENS;
        states[i].can_take = replica && can_take(replica, now_ns) && !(excluded >> i & 1);
    }
}

/* Of those that can take it; -1 = nobody, or nobody has told. */
static int64_t soonest_ns(const struct replica_state *states, uint32_t prompt_tokens)
{
    int64_t best_ns = -1;
    for (uint32_t i = 0; i < LOCAL_REPLICAS_MAX; i++) {
        int64_t ns = states[i].can_take ? replica_predict_ns(&states[i], prompt_tokens) : -1;
        if (ns >= 0 && (best_ns < 0 || ns < best_ns))
            best_ns = ns;
    }
    return best_ns;
}

int64_t local_fleet_predict_ttft_ns(struct local_fleet *fleet, size_t model, const struct request *request)
{
    if (model >= fleet->options.n_models)
        return -1;
    struct replica_state states[LOCAL_REPLICAS_MAX];
    struct prefix_chain chain;
    prefix_chain_make(request, &chain);
    pthread_mutex_lock(&fleet->mutex);
    fleet_fill_states(&fleet->models[model], &chain, 0, states);
    pthread_mutex_unlock(&fleet->mutex);
    return soonest_ns(states, chain.prompt_tokens);
}

static void add_loads(const struct loads *loads, struct loads *sum)
{
    sum->requests_waiting += loads->requests_waiting;
    sum->requests_running += loads->requests_running;
    sum->requests_paused += loads->requests_paused;
    sum->max_num_seqs += loads->max_num_seqs;
    sum->kv_blocks_total += loads->kv_blocks_total;
    sum->kv_blocks_used += loads->kv_blocks_used;
    sum->kv_blocks_cached += loads->kv_blocks_cached;
    sum->kv_block_tokens = loads->kv_block_tokens;
    sum->prefix_queries_tokens += loads->prefix_queries_tokens;
    sum->prefix_hit_tokens += loads->prefix_hit_tokens;
    sum->prompt_tokens_total += loads->prompt_tokens_total;
    sum->generation_tokens_total += loads->generation_tokens_total;
    sum->requests_total += loads->requests_total;
    sum->requests_finished += loads->requests_finished;
    sum->preemptions_total += loads->preemptions_total;
    sum->steps_total += loads->steps_total;
    sum->tokens_per_s += loads->tokens_per_s;
    sum->step_running = sum->step_running || loads->step_running;
    if (loads->heartbeat_age_ns > sum->heartbeat_age_ns)
        sum->heartbeat_age_ns = loads->heartbeat_age_ns;
}

/* Prompts as long as they were so far, of which as much is warm as was. */
static uint32_t mean_prompt(const struct loads *sum)
{
    uint64_t cold = sum->prompt_tokens_total > sum->prefix_hit_tokens
                        ? sum->prompt_tokens_total - sum->prefix_hit_tokens
                        : 0;
    uint64_t mean = sum->requests_total > 0 ? cold / sum->requests_total : 0;
    return mean < UINT32_MAX ? (uint32_t)mean : UINT32_MAX;
}

static void fill_view(const struct fleet_model *model, struct local_view *out)
{
    const char *fingerprint = NULL;
    for (uint32_t i = 0; i < LOCAL_REPLICAS_MAX; i++) {
        const struct replica *replica = model->replicas[i];
        if (!replica)
            continue;
        out->n_replicas++;
        if (!replica->is_up)
            continue;
        out->n_up++;
        add_loads(&replica->state.loads, &out->loads);
        const char *own = replica->info->info.fingerprint;
        out->fingerprints_differ = out->fingerprints_differ || (fingerprint && strcmp(fingerprint, own) != 0);
        fingerprint = own;
    }
    out->has_info = model->info != NULL;
    if (model->info)
        out->info = model->info->info;
}

bool local_fleet_view(struct local_fleet *fleet, size_t model, struct local_view *out)
{
    *out = (struct local_view){.predicted_ttft_ns = -1};
    if (model >= fleet->options.n_models)
        return false;
    struct replica_state states[LOCAL_REPLICAS_MAX];
    struct prefix_chain none = {.n = 0};
    pthread_mutex_lock(&fleet->mutex);
    fill_view(&fleet->models[model], out);
    fleet_fill_states(&fleet->models[model], &none, 0, states);
    pthread_mutex_unlock(&fleet->mutex);
    out->predicted_ttft_ns = soonest_ns(states, mean_prompt(&out->loads));
    out->loads.predicted_ttft_ns = out->predicted_ttft_ns;
    return true;
}

bool local_fleet_find(const struct local_fleet *fleet, const char *name, size_t *model)
{
    for (size_t i = 0; i < fleet->options.n_models; i++) {
        if (strcmp(fleet->options.models[i].name, name) == 0) {
            *model = i;
            return true;
        }
    }
    return false;
}
