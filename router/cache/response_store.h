/* Where kept answers lie: one interface over memory, a file, or a server that several routers share. A store
 * knows keys and bytes; what they mean is response_cache.h's. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/clock.h"
#include "base/error.h"

enum { RESPONSE_KEY_BYTES = 32 };

/* SHA-256 of everything that an answer depends on, whose it is included. */
struct response_key {
    uint8_t bytes[RESPONSE_KEY_BYTES];
};

struct response_store;

/* Any thread. A store that fails (a disk, a connection) is no failure of a request: get finds nothing, put
 * keeps nothing, and both say why. */
struct response_store_vtable {
    /* Appends what lies under the key. *found false: nothing, or it is too old. */
    err_t (*get)(struct response_store *store, const struct response_key *key, struct buffer *out,
                 bool *found);
    /* Keeps the bytes for ttl_ns, in place of what lay there. What is too large is not kept. */
    err_t (*put)(struct response_store *store, const struct response_key *key, const char *bytes, size_t size,
                 int64_t ttl_ns);
    /* Forgets all of it. */
    err_t (*clear)(struct response_store *store);
    void (*close)(struct response_store *store);
    bool is_outside; /* what is kept leaves this process: a file, a server */
};

/* The first member of every implementation. */
struct response_store {
    const struct response_store_vtable *vtable;
};

struct memory_store_options {
    size_t
        max_bytes; /* of all entries, their bookkeeping included; the one not asked for longest goes first */
    size_t max_entry_bytes; /* of one */
    const struct clock *clock;
};
err_t memory_store_open(const struct memory_store_options *options,
                        struct response_store **out) ERR_MUST_CHECK;

/* Of a memory store: entries, and bytes with their bookkeeping. */
struct memory_store_view {
    size_t n_entries, n_bytes;
    uint64_t n_evicted, n_expired;
};
struct memory_store_view memory_store_look(struct response_store *store);

struct sqlite_store_options {
    const char *path;       /* of the file, made when it is not there; copied */
    size_t max_bytes;       /* of all entries; those not asked for longest, by the minute, go first */
    size_t max_entry_bytes; /* of one */
    int64_t (*unix_ms)(void *clock); /* milliseconds since 1970 */
    void *clock;
};
/* One SQLite file, which several routers may share. A damaged one is renamed PATH.damaged and another begun,
 * now or whenever that shows: answers are lost, no request is. Deleted answers are overwritten.
 * INVALID_ARGUMENT: the file is somebody else's database; IO. */
err_t sqlite_store_open(const struct sqlite_store_options *options,
                        struct response_store **out) ERR_MUST_CHECK;

struct redis_store_options {
    const char *address;    /* "HOST:PORT", "[ADDRESS]:PORT" or "/PATH" of a Unix socket; copied */
    const char *password;   /* copied; NULL = none */
    size_t max_entry_bytes; /* of one; all of them: Redis's own maxmemory */
    int timeout_ms;         /* of a command; 0 = REDIS_TIMEOUT_MS */
};
enum {
    REDIS_CONNECT_TIMEOUT_MS = 500,
    REDIS_TIMEOUT_MS = 100, /* of a command: as long does a Redis that hangs hold up a request, once */
    REDIS_BACKOFF_MS = 100, /* before it is tried again; doubles up to the next */
    REDIS_BACKOFF_MAX_MS = 30000,
};
/* Redis or its like, which several routers may share. Requests never wait for a connection: a thread makes
 * it, and again when it is lost, and offers it once the server has answered; until then nothing is found and
 * nothing kept. Not encrypted: this machine, or a network that is trusted. INVALID_ARGUMENT: the address;
 * RESOURCE_EXHAUSTED. */
err_t redis_store_open(const struct redis_store_options *options, struct response_store **out) ERR_MUST_CHECK;
