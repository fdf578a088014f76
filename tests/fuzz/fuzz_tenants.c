/* The file of tenants as bytes. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "proto/tenant_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_file(const struct tenant_file *file)
{
    ASSERT(file->n_tenants <= TENANTS_MAX && file->n_keys <= TENANT_KEYS_MAX &&
           file->n_names <= TENANT_NAMES_MAX);
    for (uint32_t i = 0; i < file->n_tenants; i++) {
        const struct tenant_settings *tenant = &file->tenants[i];
        ASSERT(tenant_name_is_well_formed(tenant->name));
        ASSERT(tenant->best_priority <= tenant->priority && tenant->priority <= REQUEST_PRIORITY_LIMIT);
        ASSERT(tenant->limits.tokens_per_minute <= QUOTA_TOKENS_MAX);
        ASSERT(!tenant->cache_group[0] || tenant_name_is_well_formed(tenant->cache_group));
    }
    for (uint32_t i = 0; i < file->n_keys; i++)
        ASSERT(file->keys[i].tenant < file->n_tenants);
    for (uint32_t i = 0; i < file->n_names; i++) {
        const struct peer_name_text *name = &file->names[i].name;
        ASSERT(file->names[i].tenant < file->n_tenants && !strchr(name->text, '*'));
        ASSERT(peer_name_matches(name, &(struct peer_name){name->kind, name->text, strlen(name->text)}));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    /* Of the exact size, so that reading past the end is seen. */
    char *text = mem_alloc(size + (size == 0));
    ASSERT(text);
    memcpy(text, data, size);
    struct tenant_file file;
    err_t e = tenant_file_parse(text, size, &file);
    ASSERT(e.code == ERR_OK || e.code == ERR_INVALID_ARGUMENT);
    if (e.code == ERR_OK) {
        check_file(&file);
        tenant_file_free(&file);
    } else {
        ASSERT(strncmp(e.message, "line ", 5) == 0);
    }
    mem_free(text);
    return 0;
}
