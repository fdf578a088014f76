#include "engine/request_registry.h"

#include <pthread.h>
#include <string.h>
#include "base/alloc.h"
#include "base/hash.h"
#include "engine/stream.h"

enum { REGISTRY_BUCKETS = 4096 };

struct request_registry {
    pthread_mutex_t lock;
    uint32_t count;
    struct stream *bucket[REGISTRY_BUCKETS];
};

size_t request_registry_bytes(void)
{
    return sizeof(struct request_registry);
}

err_t request_registry_create(struct request_registry **out)
{
    struct request_registry *registry = mem_alloc(sizeof *registry);
    if (!registry)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the table of requests");
    pthread_mutex_init(&registry->lock, NULL);
    *out = registry;
    return err_ok();
}

void request_registry_destroy(struct request_registry *registry)
{
    if (!registry)
        return;
    pthread_mutex_destroy(&registry->lock);
    mem_free(registry);
}

static struct stream **bucket_of(struct request_registry *registry, const char *tenant,
                                 const char *request_id)
{
    uint64_t hash = hash64(request_id, strlen(request_id), hash64(tenant, strlen(tenant), 0));
    return &registry->bucket[hash % REGISTRY_BUCKETS];
}

static struct stream *find(struct request_registry *registry, const char *tenant, const char *request_id)
{
    struct stream *stream = *bucket_of(registry, tenant, request_id);
    while (stream && (strcmp(stream->request_id, request_id) != 0 || strcmp(stream->tenant, tenant) != 0))
        stream = stream->registry_next;
    return stream;
}

err_t request_registry_add(struct request_registry *registry, struct stream *stream)
{
    err_t e = err_ok();
    pthread_mutex_lock(&registry->lock);
    if (find(registry, stream->tenant, stream->request_id)) {
        e = err_new(ERR_INVALID_ARGUMENT, "request_id \"%s\" is in use by a running request",
                    stream->request_id);
    } else {
        struct stream **bucket = bucket_of(registry, stream->tenant, stream->request_id);
        stream->registry_next = *bucket;
        *bucket = stream;
        registry->count++;
    }
    pthread_mutex_unlock(&registry->lock);
    return e;
}

void request_registry_remove(struct request_registry *registry, struct stream *stream)
{
    pthread_mutex_lock(&registry->lock);
    struct stream **link = bucket_of(registry, stream->tenant, stream->request_id);
    while (*link && *link != stream)
        link = &(*link)->registry_next;
    if (*link) {
        *link = stream->registry_next;
        registry->count--;
    }
    pthread_mutex_unlock(&registry->lock);
}

bool request_registry_find(struct request_registry *registry, const char *tenant, const char *request_id,
                           void (*fn)(struct stream *stream))
{
    pthread_mutex_lock(&registry->lock);
    struct stream *stream = find(registry, tenant, request_id);
    if (stream)
        fn(stream);
    pthread_mutex_unlock(&registry->lock);
    return stream != NULL;
}

uint32_t request_registry_count(struct request_registry *registry)
{
    pthread_mutex_lock(&registry->lock);
    uint32_t count = registry->count;
    pthread_mutex_unlock(&registry->lock);
    return count;
}
