/* What the router says of itself to doors: models, loads, token ids. */
#include <string.h>
#include "base/alloc.h"
#include "router/service/route_internal.h"

#define ASK_TIMEOUT_NS INT64_C(10000000000)

/* What was told once lives on: doors keep the pointer. A new one is made when engines say something new. */
struct info_node {
    struct info_node *next;
    struct model_info info;
};

static const struct model_info UNKNOWN = {
    .model = "auto",
    .architecture = MODEL_ARCHITECTURE_ROUTER,
    .dtype = "",
    .quantization = "none",
    .vocab_size = UINT32_MAX,
    .max_model_len = UINT32_MAX,
    .has_tokenizer = true,
    .has_chat_template = true,
    .bos_token_id = -1,
    .fingerprint = "",
    .weights_fingerprint = "",
    .tokenizer_fingerprint = "",
    .template_fingerprint = "",
    .arithmetic_fingerprint = "",
};

/* The first engine's, as far as it is the router's business: whose token ids its clients may send. */
static struct model_info info_of(const struct local_view *view)
{
    struct model_info info = UNKNOWN;
    if (!view->has_info)
        return info;
    info.vocab_size = view->info.vocab_size;
    info.max_model_len = view->info.max_model_len;
    info.bos_token_id = view->info.bos_token_id;
    return info;
}

static bool says_the_same(const struct model_info *a, const struct model_info *b)
{
    return a->vocab_size == b->vocab_size && a->max_model_len == b->max_model_len &&
           a->bos_token_id == b->bos_token_id;
}

struct route_snapshot *route_snapshot_of(struct route_service *service)
{
    pthread_mutex_lock(&service->lock);
    struct route_snapshot *snapshot = route_snapshot_ref(service->snapshot);
    pthread_mutex_unlock(&service->lock);
    return snapshot;
}

const struct model_info *route_model_info(struct service *service)
{
    struct route_service *own = (struct route_service *)service;
    struct local_view view = {0};
    const struct model_info *out = &UNKNOWN;
    pthread_mutex_lock(&own->lock);
    const struct route_upstream *first = &own->snapshot->tiers[0].upstreams[0];
    if (!local_fleet_view(snapshot_fleet(own->snapshot), first->local, &view))
        view.has_info = false;
    struct model_info info = info_of(&view);
    struct info_node *node = own->infos;
    while (node && !says_the_same(&node->info, &info))
        node = node->next;
    if (node == NULL && (node = mem_alloc(sizeof *node)) != NULL) {
        node->info = info;
        node->next = own->infos;
        own->infos = node;
    }
    if (node)
        out = &node->info;
    pthread_mutex_unlock(&own->lock);
    return out;
}

void route_models_free(struct route_service *service)
{
    for (struct info_node *node = service->infos, *next; node; node = next) {
        next = node->next;
        mem_free(node);
    }
    for (struct card_node *card = service->cards, *next; card; card = next) {
        next = card->next;
        mem_free(card);
    }
}

/* Names outlive the configuration that they stand in. */
static const char *kept_name(struct route_service *service, const char *name)
{
    struct card_node *card = service->cards;
    while (card && strcmp(card->name, name) != 0)
        card = card->next;
    size_t size = strlen(name) + 1;
    if (card == NULL && (card = mem_alloc(sizeof *card + size)) != NULL) {
        memcpy(card->name, name, size);
        card->next = service->cards;
        service->cards = card;
    }
    return card ? card->name : "auto";
}

/* "auto", then the models of the tiers in their order, then the tiers. */
bool route_model_card(struct service *service, size_t i, struct model_card *out)
{
    struct route_service *own = (struct route_service *)service;
    bool found = i == 0;
    size_t at = 1;
    *out = (struct model_card){.name = "auto", .owner = "bantam"};
    pthread_mutex_lock(&own->lock);
    const struct route_snapshot *snapshot = own->snapshot;
    for (size_t t = 0; t < snapshot->n_tiers && !found; t++) {
        const struct route_tier *tier = &snapshot->tiers[t];
        for (size_t j = 0; j < tier->tier->n_models && !found; j++, at++) {
            const struct route_upstream *upstream = &tier->upstreams[j];
            struct local_view view;
            found = at == i;
            if (!found)
                continue;
            out->name = kept_name(own, tier->tier->models[j]);
            out->owner = upstream->is_local ? "bantam" : kept_name(own, upstream->provider_name);
            if (!upstream->is_local)
                out->context_tokens = upstream->model->context_tokens;
            else if (local_fleet_view(snapshot_fleet(snapshot), upstream->local, &view) && view.has_info)
                out->context_tokens = view.info.max_model_len;
        }
    }
    for (size_t t = 0; t < snapshot->n_tiers && !found; t++, at++) {
        found = at == i;
        if (found)
            out->name = kept_name(own, snapshot->tiers[t].tier->name);
    }
    pthread_mutex_unlock(&own->lock);
    return found;
}

static void add_loads(struct loads *sum, const struct local_view *view)
{
    const struct loads *one = &view->loads;
    sum->requests_waiting += one->requests_waiting;
    sum->requests_paused += one->requests_paused;
    sum->max_num_seqs += one->max_num_seqs;
    sum->kv_blocks_total += one->kv_blocks_total;
    sum->kv_blocks_used += one->kv_blocks_used;
    sum->kv_blocks_cached += one->kv_blocks_cached;
    sum->kv_block_tokens = one->kv_block_tokens;
    sum->prefix_queries_tokens += one->prefix_queries_tokens;
    sum->prefix_hit_tokens += one->prefix_hit_tokens;
    sum->prompt_tokens_total += one->prompt_tokens_total;
    sum->generation_tokens_total += one->generation_tokens_total;
    sum->preemptions_total += one->preemptions_total;
    sum->steps_total += one->steps_total;
    sum->tokens_per_s += one->tokens_per_s;
    if (view->n_up > 0 && view->predicted_ttft_ns >= 0 &&
        (sum->predicted_ttft_ns < 0 || view->predicted_ttft_ns < sum->predicted_ttft_ns))
        sum->predicted_ttft_ns = view->predicted_ttft_ns;
}

/* Engines' loads in sum, and the router's own requests. It is down when nobody of any tier can be asked. */
void route_loads(struct service *service, struct loads *out)
{
    struct route_service *own = (struct route_service *)service;
    int64_t now_ns = clock_now_ns(own->clock);
    bool can_answer = false;
    *out = (struct loads){.predicted_ttft_ns = -1};
    struct route_snapshot *snapshot = route_snapshot_of(own);
    const struct route_config *config = snapshot_config(snapshot);
    for (size_t i = 0; i < config->n_local; i++) {
        struct local_view view;
        if (local_fleet_view(snapshot_fleet(snapshot), i, &view))
            add_loads(out, &view);
    }
    for (size_t t = 0; t < snapshot->n_tiers && !can_answer; t++) {
        const struct route_tier *tier = &snapshot->tiers[t];
        for (size_t i = 0; i < tier->tier->n_models && !can_answer; i++) {
            const struct route_upstream *upstream = &tier->upstreams[i];
            struct local_view view;
            if (upstream->is_local)
                can_answer =
                    local_fleet_view(snapshot_fleet(snapshot), upstream->local, &view) && view.n_up > 0;
            else
                can_answer = !own->is_offline &&
                             upstream_breaker(&own->upstreams, upstream->state, now_ns) != BREAKER_OPEN;
        }
    }
    pthread_mutex_lock(&own->lock);
    out->requests_running = own->n_streams;
    pthread_mutex_unlock(&own->lock);
    out->requests_total = atomic_load(&own->n_submitted);
    out->requests_finished =
        out->requests_total > out->requests_running ? out->requests_total - out->requests_running : 0;
    out->failed = !can_answer;
    route_snapshot_unref(snapshot);
}

err_t route_tokenize(struct service *service, const struct request *request, uint32_t **ids, size_t *n_ids)
{
    struct route_service *own = (struct route_service *)service;
    struct route_snapshot *snapshot = route_snapshot_of(own);
    struct request nameless = *request;
    nameless.model = NULL;
    err_t e = local_fleet_tokenize(snapshot_fleet(snapshot), snapshot->tiers[0].upstreams[0].local, &nameless,
                                   ASK_TIMEOUT_NS, ids, n_ids);
    route_snapshot_unref(snapshot);
    return e;
}

err_t route_detokenize(struct service *service, const uint32_t *ids, size_t n_ids, bool skip_special_tokens,
                       struct buffer *text)
{
    struct route_service *own = (struct route_service *)service;
    struct route_snapshot *snapshot = route_snapshot_of(own);
    err_t e = local_fleet_detokenize(snapshot_fleet(snapshot), snapshot->tiers[0].upstreams[0].local, ids,
                                     n_ids, skip_special_tokens, ASK_TIMEOUT_NS, text);
    route_snapshot_unref(snapshot);
    return e;
}
