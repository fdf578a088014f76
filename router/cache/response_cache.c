#include "router/cache/response_cache.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/log.h"
#include "router/cache/answer_record.h"
#include "router/providers/json_text.h"
#include "router/providers/provider_parameters.h"

enum { FLIGHT_BUCKETS = 1024, KEY_TEXT_BYTES_MAX = 64 << 20 };

/* A question that somebody is at. */
struct question_flight {
    struct question_flight *next;
    struct response_key key;
    struct response_waiter *waiters; /* the last to come first */
    bool has_failed;
};

struct response_cache {
    struct response_cache_options options;
    pthread_mutex_t lock; /* of what follows */
    struct question_flight *flights[FLIGHT_BUCKETS];
    struct response_cache_counts counts;
};

err_t response_cache_open(const struct response_cache_options *options, struct response_cache **out)
{
    ASSERT(options->store && options->ttl_ns > 0);
    struct response_cache *cache = mem_alloc(sizeof *cache);
    if (cache == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a cache of answers");
    cache->options = *options;
    ASSERT(pthread_mutex_init(&cache->lock, NULL) == 0);
    *out = cache;
    return err_ok();
}

void response_cache_close(struct response_cache *cache)
{
    if (cache == NULL)
        return;
    for (size_t i = 0; i < FLIGHT_BUCKETS; i++)
        ASSERT(cache->flights[i] == NULL);
    cache->options.store->vtable->close(cache->options.store);
    pthread_mutex_destroy(&cache->lock);
    mem_free(cache);
}

/* What changes how an answer comes, or who is told, but not the answer. */
static bool is_beside_the_point(enum provider_parameter parameter)
{
    switch (parameter) {
    case PARAMETER_model: /* who is to answer stands in the question */
    case PARAMETER_stream:
    case PARAMETER_stream_options:
    case PARAMETER_user:
    case PARAMETER_metadata:
    case PARAMETER_store:
    case PARAMETER_service_tier:
    case PARAMETER_priority:
    case PARAMETER_request_id:
    case PARAMETER_cache_salt:
    case PARAMETER_bantam:
        return true;
    default:
        return false;
    }
}

/* Greedy, or with a seed, the same question has one answer. */
static bool is_drawn(const json_t *request)
{
    const json_t *temperature = json_object_get(request, "temperature"),
                 *seed = json_object_get(request, "seed");
    bool is_greedy = json_is_number(temperature) && json_number_value(temperature) == 0;
    return !is_greedy && !json_is_integer(seed);
}

/* The request without what is beside the point, its fields in one order. */
static err_t write_request(const json_t *request, struct buffer *text)
{
    json_t *kept = json_object();
    bool fits = kept != NULL;
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)request, name, value)
    {
        enum provider_parameter parameter;
        bool is_known = provider_parameter_find(name, &parameter),
             asks = is_known ? provider_parameter_asks(parameter, value) : !json_is_null(value);
        if (asks && !(is_known && is_beside_the_point(parameter)))
            fits = fits && json_object_set(kept, name, value) == 0;
    }
    err_t e = fits ? json_text_append_sorted(text, kept)
                   : err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the key of an answer");
    json_decref(kept);
    return e;
}

static bool write_part(struct buffer *text, const char *part)
{
    return buffer_append(text, part, strlen(part) + 1); /* with its NUL: parts cannot run into each other */
}

err_t response_cache_key(const struct response_cache *cache, const struct response_question *question,
                         struct response_key *out, bool *is_kept)
{
    bool may_lie_there = !question->local_only || !cache->options.store->vtable->is_outside;
    *is_kept = may_lie_there && (cache->options.draws_too || !is_drawn(question->request));
    if (!*is_kept)
        return err_ok();
    struct buffer text = {.limit_bytes = KEY_TEXT_BYTES_MAX};
    bool fits = write_part(&text, question->tenant) &&
                write_part(&text, question->cache_salt ? question->cache_salt : "") &&
                write_part(&text, question->model) && write_part(&text, question->fingerprint);
    err_t e = fits ? write_request(question->request, &text)
                   : err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the key of an answer");
    unsigned size = 0;
    if (e.code == ERR_OK && (!EVP_Digest(text.data, text.size, out->bytes, &size, EVP_sha256(), NULL) ||
                             size != RESPONSE_KEY_BYTES))
        e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the key of an answer");
    buffer_free(&text);
    return e;
}

static struct question_flight **flight_of(struct response_cache *cache, const struct response_key *key)
{
    uint64_t word;
    memcpy(&word, key->bytes, sizeof word);
    struct question_flight **place = &cache->flights[word % FLIGHT_BUCKETS];
    while (*place && memcmp(&(*place)->key, key, sizeof *key) != 0)
        place = &(*place)->next;
    return place;
}

static bool look_up(struct response_cache *cache, const struct response_key *key, struct buffer *answer)
{
    bool found = false;
    struct response_store *store = cache->options.store;
    err_t e = store->vtable->get(store, key, answer, &found);
    if (e.code == ERR_OK && found)
        e = answer_record_check(answer->data ? answer->data : "", answer->size);
    if (e.code != ERR_OK) {
        log_warn("cache", "an answer is asked for anew: %s", e.message);
        found = false;
    }
    if (!found)
        buffer_clear(answer);
    return found;
}

/* Under the lock. */
static enum response_turn lead_or_wait(struct response_cache *cache, const struct response_key *key,
                                       struct response_waiter *waiter, bool *is_alone)
{
    struct question_flight **place = flight_of(cache, key), *flight = *place;
    if (flight && waiter) {
        waiter->next = flight->waiters;
        flight->waiters = waiter;
        return RESPONSE_WAIT;
    }
    cache->counts.misses++;
    if (flight == NULL)
        flight = mem_alloc(sizeof *flight);
    *is_alone =
        *place != NULL || flight == NULL; /* somebody is at it, or there is no memory to say that we are */
    if (*is_alone)
        return RESPONSE_LEAD;
    flight->key = *key;
    *place = flight;
    return RESPONSE_LEAD;
}

enum response_turn response_cache_ask(struct response_cache *cache, const struct response_key *key,
                                      struct response_waiter *waiter, struct buffer *answer, bool *is_alone)
{
    *is_alone = false;
    bool is_hit = look_up(cache, key, answer);
    pthread_mutex_lock(&cache->lock);
    enum response_turn turn = RESPONSE_HIT;
    if (is_hit)
        cache->counts.hits++;
    else
        turn = lead_or_wait(cache, key, waiter, is_alone);
    pthread_mutex_unlock(&cache->lock);
    return turn;
}

/* Under the lock: who has waited longest, taken from those who wait; NULL = none. */
static struct response_waiter *take_longest(struct question_flight *flight)
{
    struct response_waiter **place = &flight->waiters;
    while (*place && (*place)->next)
        place = &(*place)->next;
    struct response_waiter *longest = *place;
    *place = NULL;
    return longest;
}

/* Under the lock: the flight goes on with another leader, or NULL. */
static struct response_waiter *next_leader(struct response_cache *cache, struct question_flight *flight,
                                           enum response_end end)
{
    if (end != RESPONSE_LEFT && (end != RESPONSE_FAILED || flight->has_failed))
        return NULL;
    flight->has_failed = flight->has_failed || end == RESPONSE_FAILED;
    struct response_waiter *leader = take_longest(flight);
    if (leader)
        cache->counts.misses++;
    return leader;
}

void response_cache_done(struct response_cache *cache, const struct response_key *key, enum response_end end,
                         const char *bytes, size_t size)
{
    ASSERT((end == RESPONSE_WHOLE) == (bytes != NULL));
    struct response_store *store = cache->options.store;
    if (bytes) {
        err_t e = store->vtable->put(store, key, bytes, size, cache->options.ttl_ns);
        if (e.code != ERR_OK)
            log_warn("cache", "an answer is not kept: %s", e.message);
    }
    pthread_mutex_lock(&cache->lock);
    struct question_flight **place = flight_of(cache, key), *flight = *place;
    ASSERT(flight); /* who leads is done once */
    struct response_waiter *leader = next_leader(cache, flight, end), *waiters = NULL;
    if (leader == NULL) {
        *place = flight->next;
        waiters = flight->waiters;
    }
    for (const struct response_waiter *waiter = waiters; bytes && waiter; waiter = waiter->next)
        cache->counts.shared++;
    pthread_mutex_unlock(&cache->lock);
    if (leader) {
        leader->ready(leader, NULL, 0, true);
        return;
    }
    mem_free(flight);
    for (struct response_waiter *waiter = waiters, *next; waiter; waiter = next) {
        next = waiter->next; /* whose memory is its own again when ready is called */
        waiter->ready(waiter, bytes, size, false);
    }
}

bool response_cache_leave(struct response_cache *cache, const struct response_key *key,
                          struct response_waiter *waiter)
{
    bool was_there = false;
    pthread_mutex_lock(&cache->lock);
    struct question_flight *flight = *flight_of(cache, key);
    for (struct response_waiter **place = flight ? &flight->waiters : NULL; place && *place;
         place = &(*place)->next) {
        if (*place == waiter) {
            *place = waiter->next;
            was_there = true;
            break;
        }
    }
    pthread_mutex_unlock(&cache->lock);
    return was_there;
}

struct response_cache_counts response_cache_counts(struct response_cache *cache)
{
    pthread_mutex_lock(&cache->lock);
    struct response_cache_counts counts = cache->counts;
    pthread_mutex_unlock(&cache->lock);
    return counts;
}
