#include <hiredis/hiredis.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/event_count.h"
#include "base/log.h"
#include "router/cache/response_store.h"

/* Ours among other keys of the same server, and the version of what lies there. */
#define KEY_PREFIX "bantam:1:"
enum {
    PREFIX_BYTES = sizeof KEY_PREFIX - 1,
    KEY_BYTES = PREFIX_BYTES + RESPONSE_KEY_BYTES,
    SCAN_KEYS = 256, /* of one step of a clear */
};

struct redis_store {
    struct response_store base;
    char *host; /* or a socket's path */
    int port;   /* 0: host is a path */
    char *password;
    size_t max_entry_bytes;
    int timeout_ms;
    pthread_t connector;
    struct event_count wake; /* a connection was lost, or the store closes */
    _Atomic bool is_closing;
    pthread_mutex_t lock;
    redisContext *connection; /* NULL = there is none now; under the lock, as is the next */
    bool is_proven;           /* it has done something since it was made */
};

/* ---- The connection ---- */

static struct timeval timeout_of(int ms)
{
    return (struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
}

static err_t failed(const struct redis_store *store, const redisContext *connection, const redisReply *reply)
{
    const char *why = reply ? reply->str : connection && connection->err ? connection->errstr : "no memory";
    return err_new(ERR_UNAVAILABLE, "the cache in Redis at %s: %s", store->host, why ? why : "no answer");
}

/* An answer that is no error. */
static err_t expect(const struct redis_store *store, const redisContext *connection, redisReply *reply)
{
    bool is_good = reply && reply->type != REDIS_REPLY_ERROR;
    err_t e = is_good ? err_ok() : failed(store, connection, reply);
    freeReplyObject(reply);
    return e;
}

static err_t connect_and_ask(const struct redis_store *store, redisContext **out)
{
    struct timeval timeout = timeout_of(REDIS_CONNECT_TIMEOUT_MS);
    redisContext *connection = store->port == 0 ? redisConnectUnixWithTimeout(store->host, timeout)
                                                : redisConnectWithTimeout(store->host, store->port, timeout);
    err_t e = connection && connection->err == 0 &&
                      redisSetTimeout(connection, timeout_of(store->timeout_ms)) == REDIS_OK
                  ? err_ok()
                  : failed(store, connection, NULL);
    if (e.code == ERR_OK && store->password)
        e = expect(store, connection, redisCommand(connection, "AUTH %s", store->password));
    if (e.code == ERR_OK)
        e = expect(store, connection, redisCommand(connection, "PING"));
    if (e.code == ERR_OK)
        *out = connection;
    else if (connection)
        redisFree(connection);
    return e;
}

static void offer(struct redis_store *store, redisContext *connection)
{
    pthread_mutex_lock(&store->lock);
    store->connection = connection;
    store->is_proven = false;
    pthread_mutex_unlock(&store->lock);
}

/* Whether there is one, and whether it has been of use. */
static bool is_connected(struct redis_store *store, bool *is_proven)
{
    pthread_mutex_lock(&store->lock);
    bool is = store->connection != NULL;
    *is_proven = store->is_proven;
    pthread_mutex_unlock(&store->lock);
    return is;
}

/* A server that can be reached and then fails is left alone for longer each time, as one that cannot. */
static void *keep_connected(void *context)
{
    struct redis_store *store = context;
    int backoff_ms = REDIS_BACKOFF_MS;
    bool has_complained = false, is_proven;
    while (!atomic_load(&store->is_closing)) {
        uint32_t seen = event_count_read(&store->wake);
        if (is_connected(store, &is_proven)) {
            event_count_wait(&store->wake, seen, -1);
            continue;
        }
        if (is_proven)
            backoff_ms = REDIS_BACKOFF_MS;
        event_count_wait(&store->wake, seen, backoff_ms * INT64_C(1000000));
        if (atomic_load(&store->is_closing))
            break;
        backoff_ms = backoff_ms * 2 < REDIS_BACKOFF_MAX_MS ? backoff_ms * 2 : REDIS_BACKOFF_MAX_MS;
        redisContext *connection;
        err_t e = connect_and_ask(store, &connection);
        if (e.code == ERR_OK) {
            log_info("cache", "Redis at %s is there again", store->host);
            has_complained = false;
            offer(store, connection);
        } else if (!has_complained) {
            log_warn("cache", "%s; nothing is kept until it is there", e.message);
            has_complained = true;
        }
    }
    return NULL;
}

/* One command; *reply NULL without an error: there is no connection now. */
static err_t ask(struct redis_store *store, int n, const char **parts, const size_t *sizes,
                 redisReply **reply)
{
    err_t e = err_ok();
    *reply = NULL;
    pthread_mutex_lock(&store->lock);
    if (store->connection) {
        *reply = redisCommandArgv(store->connection, n, parts, sizes);
        store->is_proven = *reply != NULL || store->is_proven;
        if (*reply == NULL) {
            e = failed(store, store->connection, NULL);
            redisFree(store->connection);
            store->connection = NULL;
            event_count_bump(&store->wake);
        }
    }
    pthread_mutex_unlock(&store->lock);
    if (*reply && (*reply)->type == REDIS_REPLY_ERROR) {
        e = failed(store, NULL, *reply);
        freeReplyObject(*reply);
        *reply = NULL;
    }
    return e;
}

/* ---- Entries ---- */

static void write_key(const struct response_key *key, char out[KEY_BYTES])
{
    memcpy(out, KEY_PREFIX, PREFIX_BYTES);
    memcpy(out + PREFIX_BYTES, key->bytes, RESPONSE_KEY_BYTES);
}

static err_t get(struct response_store *base, const struct response_key *key, struct buffer *out, bool *found)
{
    struct redis_store *store = (struct redis_store *)base;
    char name[KEY_BYTES];
    write_key(key, name);
    redisReply *reply;
    *found = false;
    TRY(ask(store, 2, (const char *[]){"GET", name}, (const size_t[]){3, KEY_BYTES}, &reply));
    err_t e = err_ok();
    if (reply && reply->type == REDIS_REPLY_STRING) {
        *found = buffer_append(out, reply->str, (size_t)reply->len);
        if (!*found)
            e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory for an answer of %zu bytes out of Redis",
                        (size_t)reply->len);
    }
    freeReplyObject(reply);
    return e;
}

static err_t put(struct response_store *base, const struct response_key *key, const char *bytes, size_t size,
                 int64_t ttl_ns)
{
    struct redis_store *store = (struct redis_store *)base;
    if (size > store->max_entry_bytes || ttl_ns <= 0)
        return err_ok();
    char name[KEY_BYTES], ttl_ms[24];
    write_key(key, name);
    int n = snprintf(ttl_ms, sizeof ttl_ms, "%lld", (long long)(ttl_ns / 1000000 + (ttl_ns % 1000000 != 0)));
    redisReply *reply;
    err_t e = ask(store, 5, (const char *[]){"SET", name, bytes, "PX", ttl_ms},
                  (const size_t[]){3, KEY_BYTES, size, 2, (size_t)n}, &reply);
    freeReplyObject(reply);
    return e;
}

static err_t delete_keys(struct redis_store *store, const redisReply *keys)
{
    if (keys->elements == 0)
        return err_ok();
    const char **parts = mem_alloc_array(keys->elements + 1, sizeof *parts);
    size_t *sizes = mem_alloc_array(keys->elements + 1, sizeof *sizes);
    err_t e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory to empty the cache in Redis");
    if (parts && sizes) {
        parts[0] = "UNLINK";
        sizes[0] = 6;
        for (size_t i = 0; i < keys->elements; i++) {
            parts[i + 1] = keys->element[i]->str;
            sizes[i + 1] = (size_t)keys->element[i]->len;
        }
        redisReply *reply;
        e = ask(store, (int)keys->elements + 1, parts, sizes, &reply);
        freeReplyObject(reply);
    }
    mem_free(parts);
    mem_free(sizes);
    return e;
}

static bool is_page(const redisReply *reply)
{
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
        reply->element[0]->type != REDIS_REPLY_STRING || reply->element[1]->type != REDIS_REPLY_ARRAY)
        return false;
    for (size_t i = 0; i < reply->element[1]->elements; i++) {
        if (reply->element[1]->element[i]->type != REDIS_REPLY_STRING)
            return false;
    }
    return true;
}

/* Step by step, so that others get their turn between. */
static err_t clear(struct response_store *base)
{
    struct redis_store *store = (struct redis_store *)base;
    char cursor[32] = "0", count[16];
    int n = snprintf(count, sizeof count, "%d", SCAN_KEYS);
    do {
        redisReply *page;
        TRY(ask(store, 6, (const char *[]){"SCAN", cursor, "MATCH", KEY_PREFIX "*", "COUNT", count},
                (const size_t[]){4, strlen(cursor), 5, PREFIX_BYTES + 1, 5, (size_t)n}, &page));
        if (page == NULL)
            return err_new(ERR_UNAVAILABLE, "Redis at %s cannot be reached: its cache is not emptied",
                           store->host);
        err_t e = is_page(page)
                      ? delete_keys(store, page->element[1])
                      : err_new(ERR_DATA_LOSS, "Redis at %s answers SCAN as none does", store->host);
        if (e.code == ERR_OK)
            snprintf(cursor, sizeof cursor, "%s", page->element[0]->str);
        freeReplyObject(page);
        TRY(e);
    } while (strcmp(cursor, "0") != 0);
    return err_ok();
}

/* ---- Opening and closing ---- */

static void free_store(struct redis_store *store)
{
    if (store->connection)
        redisFree(store->connection);
    if (store->password)
        explicit_bzero(store->password, strlen(store->password));
    pthread_mutex_destroy(&store->lock);
    mem_free(store->password);
    mem_free(store->host);
    mem_free(store);
}

static void close_store(struct response_store *base)
{
    struct redis_store *store = (struct redis_store *)base;
    atomic_store(&store->is_closing, true);
    event_count_bump(&store->wake);
    pthread_join(store->connector, NULL);
    free_store(store);
}

static const struct response_store_vtable VTABLE = {get, put, clear, close_store, .is_outside = true};

/* "HOST:PORT", "[ADDRESS]:PORT" or "/PATH". */
static err_t read_address(struct redis_store *store, const char *address)
{
    const char *colon = strrchr(address, ':'), *first = address, *last = colon;
    if (address[0] == '/') {
        store->host = mem_strdup(address);
    } else {
        char *end = NULL;
        long port = colon && colon[1] >= '0' && colon[1] <= '9' ? strtol(colon + 1, &end, 10) : 0;
        bool is_bracketed = address[0] == '[' && colon && colon > address + 1 && colon[-1] == ']';
        if (is_bracketed) {
            first++;
            last--;
        }
        if (port < 1 || port > 65535 || *end != '\0' || first == last ||
            (!is_bracketed && memchr(first, ':', (size_t)(last - first))))
            return err_new(ERR_INVALID_ARGUMENT,
                           "\"%.80s\" must be Redis's HOST:PORT, [ADDRESS]:PORT or the /PATH of its socket",
                           address);
        store->port = (int)port;
        store->host = mem_strndup(first, (size_t)(last - first));
    }
    return store->host ? err_ok() : err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a cache in Redis");
}

static err_t start(struct redis_store *store)
{
    redisContext *connection;
    err_t e = connect_and_ask(store, &connection);
    if (e.code == ERR_OK)
        offer(store, connection);
    else
        log_warn("cache", "%s; nothing is kept until it is there", e.message);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&store->connector, NULL, keep_connected, store);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc == 0 ? err_ok() : err_new(ERR_RESOURCE_EXHAUSTED, "no thread for a cache in Redis");
}

err_t redis_store_open(const struct redis_store_options *options, struct response_store **out)
{
    struct redis_store *store = mem_alloc(sizeof *store);
    if (store == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a cache in Redis");
    store->base.vtable = &VTABLE;
    store->max_entry_bytes = options->max_entry_bytes;
    store->timeout_ms = options->timeout_ms > 0 ? options->timeout_ms : REDIS_TIMEOUT_MS;
    store->password = options->password ? mem_strdup(options->password) : NULL;
    ASSERT(pthread_mutex_init(&store->lock, NULL) == 0);
    err_t e = options->password && store->password == NULL
                  ? err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a cache in Redis")
                  : read_address(store, options->address);
    if (e.code == ERR_OK)
        e = start(store);
    if (e.code != ERR_OK)
        free_store(store);
    else
        *out = &store->base;
    return e;
}
