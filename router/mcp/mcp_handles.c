#include "router/mcp/mcp_handles.h"
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include "api/request.h"
#include "base/alloc.h"
#include "base/assert.h"

struct kept {
    char handle[MCP_HANDLE_BYTES];
    char tenant[REQUEST_TENANT_BYTES_MAX + 1];
    json_t *request, *decision;
    size_t bytes;
};

/* A ring: entries[(first + i) % MAX], oldest first. */
struct mcp_handles {
    pthread_mutex_t lock;
    struct kept entries[MCP_HANDLES_MAX];
    size_t first, n, bytes;
};

err_t mcp_handles_create(struct mcp_handles **out)
{
    struct mcp_handles *handles = mem_alloc(sizeof *handles);
    if (!handles)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for handles");
    int failed = pthread_mutex_init(&handles->lock, NULL);
    ASSERT(failed == 0);
    *out = handles;
    return err_ok();
}

static void drop_first(struct mcp_handles *handles)
{
    struct kept *entry = &handles->entries[handles->first];
    json_decref(entry->request);
    json_decref(entry->decision);
    handles->bytes -= entry->bytes;
    *entry = (struct kept){0};
    handles->first = (handles->first + 1) % MCP_HANDLES_MAX;
    handles->n--;
}

void mcp_handles_destroy(struct mcp_handles *handles)
{
    if (!handles)
        return;
    while (handles->n > 0)
        drop_first(handles);
    (void)pthread_mutex_destroy(&handles->lock);
    mem_free(handles);
}

void mcp_handle_make(char out[MCP_HANDLE_BYTES])
{
    uint64_t random = 0;
    ssize_t n = getrandom(&random, sizeof random, 0);
    ASSERT(n == sizeof random);
    (void)snprintf(out, MCP_HANDLE_BYTES, "%016llx", (unsigned long long)random);
}

void mcp_handles_put(struct mcp_handles *handles, const char *handle, const char *tenant, json_t *request,
                     json_t *decision)
{
    size_t bytes = request ? json_dumpb(request, NULL, 0, JSON_COMPACT) : 0;
    if (bytes > MCP_HANDLES_BYTES_MAX)
        return;
    pthread_mutex_lock(&handles->lock);
    while (handles->n == MCP_HANDLES_MAX || handles->bytes + bytes > MCP_HANDLES_BYTES_MAX)
        drop_first(handles);
    struct kept *entry = &handles->entries[(handles->first + handles->n++) % MCP_HANDLES_MAX];
    (void)snprintf(entry->handle, sizeof entry->handle, "%s", handle);
    (void)snprintf(entry->tenant, sizeof entry->tenant, "%s", tenant);
    entry->request = json_incref(request);
    entry->decision = json_incref(decision);
    entry->bytes = bytes;
    handles->bytes += bytes;
    pthread_mutex_unlock(&handles->lock);
}

bool mcp_handles_get(struct mcp_handles *handles, const char *handle, const char *tenant, json_t **request,
                     json_t **decision)
{
    bool found = false;
    pthread_mutex_lock(&handles->lock);
    for (size_t i = 0; i < handles->n && !found; i++) {
        const struct kept *entry = &handles->entries[(handles->first + i) % MCP_HANDLES_MAX];
        if (strcmp(entry->handle, handle) != 0 || strcmp(entry->tenant, tenant) != 0)
            continue;
        *request = json_incref(entry->request);
        *decision = json_incref(entry->decision);
        found = true;
    }
    pthread_mutex_unlock(&handles->lock);
    return found;
}
