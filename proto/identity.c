#include "proto/identity.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/file_stamp.h"
#include "base/log.h"
#include "base/mapped_file.h"

struct tenant {
    char name[REQUEST_TENANT_BYTES_MAX + 1];
    _Atomic uint32_t references; /* the table's and one a grant */
    pthread_mutex_t mutex;       /* of what follows */
    struct tenant_settings settings;
    struct tenant_quota quota;
};

/* Everything that a reload replaces. */
struct tenant_table {
    struct tenant **tenants; /* [n_tenants] a reference each */
    uint32_t n_tenants;
    struct tenant_file file; /* its keys and names; indices into tenants */
};

struct identity {
    const struct clock *clock;
    char *keys_file; /* owned; NULL = none */
    struct file_stamp stamp;
    pthread_mutex_t refresh_mutex;
    struct api_key_hash *keys; /* [n_keys] given as flags */
    size_t n_keys;
    struct peer_name_text *client_names; /* [n_client_names] */
    size_t n_client_names;
    pthread_rwlock_t lock; /* of table */
    struct tenant_table table;
};

/* --- tenants */

static struct tenant *tenant_create(const char *name)
{
    struct tenant *tenant = mem_alloc(sizeof *tenant);
    if (!tenant)
        return NULL;
    (void)snprintf(tenant->name, sizeof tenant->name, "%s", name);
    atomic_init(&tenant->references, 1);
    pthread_mutex_init(&tenant->mutex, NULL);
    return tenant;
}

static void tenant_unref(struct tenant *tenant)
{
    if (atomic_fetch_sub(&tenant->references, 1) > 1)
        return;
    pthread_mutex_destroy(&tenant->mutex);
    mem_free(tenant);
}

static void table_free(struct tenant_table *table)
{
    for (uint32_t i = 0; i < table->n_tenants; i++)
        if (table->tenants[i])
            tenant_unref(table->tenants[i]);
    mem_free(table->tenants);
    tenant_file_free(&table->file);
    *table = (struct tenant_table){0};
}

static struct tenant *table_find(const struct tenant_table *table, const char *name)
{
    for (uint32_t i = 0; i < table->n_tenants; i++)
        if (strcmp(table->tenants[i]->name, name) == 0)
            return table->tenants[i];
    return NULL;
}

/* Tenants that were there before keep what they have used; `file` becomes the table's. The settings are
 * applied by table_apply, once nothing can fail any more. */
static err_t table_make(const struct tenant_table *old, struct tenant_file *file, struct tenant_table *out)
{
    struct tenant_table table = {.n_tenants = file->n_tenants + 1, .file = *file};
    *file = (struct tenant_file){0};
    bool has_default = false;
    table.tenants = mem_alloc_array(table.n_tenants, sizeof(struct tenant *));
    if (!table.tenants)
        table.n_tenants = 0;
    for (uint32_t i = 0; i < table.n_tenants; i++) {
        bool is_listed = i < table.file.n_tenants;
        const char *name = is_listed ? table.file.tenants[i].name : IDENTITY_DEFAULT_TENANT;
        has_default = has_default || (is_listed && strcmp(name, IDENTITY_DEFAULT_TENANT) == 0);
        if (!is_listed && has_default) { /* the file says how it is */
            table.n_tenants--;
            break;
        }
        struct tenant *known = table_find(old, name);
        if (known)
            atomic_fetch_add(&known->references, 1);
        table.tenants[i] = known ? known : tenant_create(name);
        if (!table.tenants[i])
            break;
    }
    if (table.n_tenants == 0 || !table.tenants[table.n_tenants - 1]) {
        table_free(&table);
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for tenants");
    }
    *out = table;
    return err_ok();
}

static void table_apply(const struct tenant_table *table)
{
    static const struct tenant_settings open = {.name = IDENTITY_DEFAULT_TENANT, .is_admin = true};
    for (uint32_t i = 0; i < table->n_tenants; i++) {
        struct tenant *tenant = table->tenants[i];
        pthread_mutex_lock(&tenant->mutex);
        tenant->settings = i < table->file.n_tenants ? table->file.tenants[i] : open;
        pthread_mutex_unlock(&tenant->mutex);
    }
}

/* --- reading */

static err_t read_file(const char *path, struct tenant_file *out)
{
    char *text = NULL;
    size_t size_bytes;
    err_t e = file_read(path, TENANT_FILE_BYTES_MAX, &text, &size_bytes);
    if (e.code != ERR_OK)
        return e;
    e = tenant_file_parse(text, size_bytes, out);
    mem_free(text);
    return e.code == ERR_OK ? e : err_prefix(e, "%s", path);
}

static err_t load(struct identity *identity)
{
    struct tenant_file file = {0};
    struct tenant_table table;
    if (identity->keys_file) {
        identity->stamp = file_stamp_read(identity->keys_file);
        TRY(read_file(identity->keys_file, &file));
    }
    TRY(table_make(&identity->table, &file, &table));
    pthread_rwlock_wrlock(&identity->lock);
    struct tenant_table old = identity->table;
    identity->table = table;
    table_apply(&identity->table);
    pthread_rwlock_unlock(&identity->lock);
    table_free(&old);
    return err_ok();
}

void identity_refresh(struct identity *identity, bool in_any_case)
{
    if (!identity->keys_file)
        return;
    pthread_mutex_lock(&identity->refresh_mutex);
    struct file_stamp now = file_stamp_read(identity->keys_file);
    if (in_any_case || !file_stamp_equal(&now, &identity->stamp)) {
        err_t e = load(identity);
        if (e.code != ERR_OK)
            log_error("identity", "the keys in use stay as they were: %s", e.message);
        else
            log_info("identity", "read %s again: %u tenants, %u keys, %u certificates' names",
                     identity->keys_file, identity->table.file.n_tenants, identity->table.file.n_keys,
                     identity->table.file.n_names);
    }
    pthread_mutex_unlock(&identity->refresh_mutex);
}

static err_t keep_flags(const struct identity_options *options, struct identity *identity)
{
    identity->keys = mem_alloc_array(options->n_keys + 1, sizeof *identity->keys);
    identity->client_names = mem_alloc_array(options->n_client_names + 1, sizeof *identity->client_names);
    if (!identity->keys || !identity->client_names)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for keys");
    for (; identity->n_keys < options->n_keys; identity->n_keys++) {
        const char *key = options->keys[identity->n_keys];
        if (!api_key_is_well_formed(key, strlen(key)))
            return err_new(ERR_INVALID_ARGUMENT,
                           "API key %zu must be 1 to %d visible ASCII characters without blanks",
                           identity->n_keys + 1, API_KEY_BYTES_MAX);
        identity->keys[identity->n_keys] = api_key_hash_of(key, strlen(key));
    }
    for (; identity->n_client_names < options->n_client_names; identity->n_client_names++)
        TRY(peer_name_parse(options->client_names[identity->n_client_names],
                            &identity->client_names[identity->n_client_names]));
    if (options->keys_file) {
        identity->keys_file = mem_strdup(options->keys_file);
        if (!identity->keys_file)
            return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for keys");
    }
    return err_ok();
}

err_t identity_open(const struct identity_options *options, struct identity **out)
{
    struct identity *identity = mem_alloc(sizeof *identity);
    if (!identity)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for keys");
    identity->clock = options->clock;
    pthread_mutex_init(&identity->refresh_mutex, NULL);
    pthread_rwlock_init(&identity->lock, NULL);
    err_t e = keep_flags(options, identity);
    if (e.code == ERR_OK)
        e = load(identity);
    if (e.code != ERR_OK) {
        identity_close(identity);
        return e;
    }
    *out = identity;
    return e;
}

void identity_close(struct identity *identity)
{
    if (!identity)
        return;
    for (uint32_t i = 0; i < identity->table.n_tenants; i++)
        ASSERT(atomic_load(&identity->table.tenants[i]->references) == 1);
    table_free(&identity->table);
    pthread_rwlock_destroy(&identity->lock);
    pthread_mutex_destroy(&identity->refresh_mutex);
    mem_free(identity->keys_file);
    mem_free(identity->keys);
    mem_free(identity->client_names);
    mem_free(identity);
}

/* --- authenticating */

static bool peer_has_name(const struct peer_names *peer, const struct peer_name_text *expected)
{
    for (size_t i = 0; i < peer->n; i++)
        if (peer_name_matches(expected, &peer->names[i]))
            return true;
    return false;
}

/* Of the first name in the file that the certificate has. */
static struct tenant *tenant_of_peer(const struct identity *identity, const struct peer_names *peer)
{
    const struct tenant_table *table = &identity->table;
    for (uint32_t i = 0; i < table->file.n_names; i++)
        if (peer_has_name(peer, &table->file.names[i].name))
            return table->tenants[table->file.names[i].tenant];
    return NULL;
}

static bool is_allowed_peer(const struct identity *identity, const struct peer_names *peer)
{
    for (size_t i = 0; i < identity->n_client_names; i++)
        if (peer_has_name(peer, &identity->client_names[i]))
            return true;
    return identity->n_client_names == 0 || tenant_of_peer(identity, peer) != NULL;
}

/* Every hash is looked at, whichever matches. */
static struct tenant *tenant_of_key(const struct identity *identity, const char *key, size_t size_bytes)
{
    const struct tenant_table *table = &identity->table;
    struct api_key_hash hash = api_key_hash_of(key, size_bytes);
    struct tenant *found = NULL;
    for (size_t i = 0; i < identity->n_keys; i++)
        if (api_key_hash_equal(&identity->keys[i], &hash))
            found = table_find(table, IDENTITY_DEFAULT_TENANT);
    for (uint32_t i = 0; i < table->file.n_keys; i++)
        if (api_key_hash_equal(&table->file.keys[i].hash, &hash))
            found = table->tenants[table->file.keys[i].tenant];
    return found;
}

/* The key in "Bearer KEY"; false when the header is none of that kind. */
static bool find_key(const struct credentials *credentials, const char **key, size_t *size_bytes)
{
    static const char scheme[] = "bearer ";
    size_t skip = sizeof scheme - 1, size = credentials->authorization_bytes;
    const char *text = credentials->authorization;
    if (size <= skip || strncasecmp(text, scheme, skip) != 0)
        return false;
    while (skip < size && text[skip] == ' ')
        skip++;
    *key = text + skip;
    *size_bytes = size - skip;
    return api_key_is_well_formed(*key, *size_bytes);
}

static err_t no_key(const struct identity *identity, const struct peer_names *peer)
{
    bool has_keys = identity->n_keys > 0 || identity->table.file.n_keys > 0;
    if (peer)
        return err_new(ERR_UNAUTHENTICATED, "no API key was sent, and the names in the client's certificate "
                                            "belong to no tenant");
    return err_new(ERR_UNAUTHENTICATED, "%s",
                   has_keys ? "no API key was sent; send the header \"Authorization: Bearer KEY\""
                            : "a client certificate is needed here");
}

static err_t find_caller(const struct identity *identity, const struct credentials *credentials,
                         struct tenant **out)
{
    const struct peer_names *peer =
        credentials->peer && credentials->peer->has_certificate ? credentials->peer : NULL;
    const char *key;
    size_t size_bytes;
    if (peer && !is_allowed_peer(identity, peer))
        return err_new(ERR_PERMISSION_DENIED, "none of the names in the client's certificate is let in here");
    if (credentials->n_authorizations > 1)
        return err_new(ERR_UNAUTHENTICATED, "there are %zu Authorization headers; one is wanted",
                       credentials->n_authorizations);
    if (credentials->authorization) {
        *out = find_key(credentials, &key, &size_bytes) ? tenant_of_key(identity, key, size_bytes) : NULL;
        return *out ? err_ok() : err_new(ERR_UNAUTHENTICATED, "the API key that was sent is not known here");
    }
    *out = peer ? tenant_of_peer(identity, peer) : NULL;
    /* With neither keys nor tenants' names a certificate is all that is asked for. */
    bool by_certificate = identity->n_keys == 0 && !identity->keys_file;
    if (!*out && peer && by_certificate)
        *out = table_find(&identity->table, IDENTITY_DEFAULT_TENANT);
    return *out ? err_ok() : no_key(identity, peer);
}

err_t identity_authenticate(struct identity *identity, const struct credentials *credentials,
                            struct caller *out)
{
    struct tenant *tenant = NULL;
    pthread_rwlock_rdlock(&identity->lock);
    err_t e = find_caller(identity, credentials, &tenant);
    if (e.code == ERR_OK) {
        memcpy(out->tenant, tenant->name, sizeof out->tenant);
        pthread_mutex_lock(&tenant->mutex);
        out->is_admin = tenant->settings.is_admin;
        pthread_mutex_unlock(&tenant->mutex);
    }
    pthread_rwlock_unlock(&identity->lock);
    return e;
}

/* --- quotas */

/* With a reference; NULL when there is none. */
static struct tenant *take_tenant(struct identity *identity, const char *name)
{
    pthread_rwlock_rdlock(&identity->lock);
    struct tenant *tenant = table_find(&identity->table, name);
    if (tenant)
        atomic_fetch_add(&tenant->references, 1);
    pthread_rwlock_unlock(&identity->lock);
    return tenant;
}

static err_t over_quota(const struct tenant *tenant, const struct quota_refusal *refusal)
{
    const struct tenant_limits *limits = &tenant->settings.limits;
    err_t e;
    double seconds = (double)refusal->retry_after_ns * 1e-9;
    if (refusal->kind == QUOTA_CONCURRENT)
        return err_new(ERR_QUOTA_EXCEEDED, "tenant %s has %u requests under way and may have no more at once",
                       tenant->name, limits->max_concurrent);
    if (refusal->kind == QUOTA_REQUESTS)
        e = err_new(ERR_QUOTA_EXCEEDED,
                    "tenant %s has reached its limit of %u requests a minute; try again in %.3f s",
                    tenant->name, limits->requests_per_minute, seconds);
    else
        e = err_new(ERR_QUOTA_EXCEEDED,
                    "tenant %s has reached its limit of %u tokens a minute; try again in %.3f s",
                    tenant->name, limits->tokens_per_minute, seconds);
    e.retry_after_ms = refusal->retry_after_ns / 1000000 + 1;
    return e;
}

/* The tenant's mutex is held. out: [IDENTITY_SALT_BYTES_MAX + 1]. */
static void write_salt(const struct tenant *tenant, char *out)
{
    const char *group = tenant->settings.cache_group;
    /* Neither can be the other: a tenant may be named like a group. */
    if (group[0])
        (void)snprintf(out, IDENTITY_SALT_BYTES_MAX + 1, "group %s", group);
    else
        (void)snprintf(out, IDENTITY_SALT_BYTES_MAX + 1, "tenant %s", tenant->name);
}

/* The tenant's mutex is held. */
static void fill_grant(struct tenant *tenant, uint64_t n_tokens, struct tenant_grant *out)
{
    const struct tenant_settings *settings = &tenant->settings;
    *out = (struct tenant_grant){
        .tenant = tenant,
        .n_tokens = n_tokens,
        .priority = settings->priority,
        .best_priority = settings->best_priority,
    };
    write_salt(tenant, out->cache_salt);
}

err_t identity_admit(struct identity *identity, const char *name, uint64_t n_tokens, struct tenant_grant *out)
{
    struct tenant *tenant = take_tenant(identity, name);
    if (!tenant)
        return err_new(ERR_UNAUTHENTICATED, "tenant %.64s is not known here any more", name);
    struct quota_refusal refusal;
    err_t e = err_ok();
    pthread_mutex_lock(&tenant->mutex);
    if (quota_admit(&tenant->quota, &tenant->settings.limits, n_tokens, clock_now_ns(identity->clock),
                    &refusal))
        fill_grant(tenant, n_tokens, out);
    else
        e = over_quota(tenant, &refusal);
    pthread_mutex_unlock(&tenant->mutex);
    if (e.code != ERR_OK)
        tenant_unref(tenant);
    return e;
}

err_t identity_admit_call(struct identity *identity, const char *name)
{
    struct tenant *tenant = take_tenant(identity, name);
    if (!tenant)
        return err_new(ERR_UNAUTHENTICATED, "tenant %.64s is not known here any more", name);
    struct quota_refusal refusal;
    err_t e = err_ok();
    pthread_mutex_lock(&tenant->mutex);
    if (!quota_admit_call(&tenant->quota, &tenant->settings.limits, clock_now_ns(identity->clock), &refusal))
        e = over_quota(tenant, &refusal);
    pthread_mutex_unlock(&tenant->mutex);
    tenant_unref(tenant);
    return e;
}

void identity_charge(struct identity *identity, struct tenant_grant *grant, int64_t n_tokens)
{
    struct tenant *tenant = grant->tenant;
    grant->n_tokens += (uint64_t)n_tokens;
    pthread_mutex_lock(&tenant->mutex);
    quota_charge(&tenant->quota, &tenant->settings.limits, n_tokens, clock_now_ns(identity->clock));
    pthread_mutex_unlock(&tenant->mutex);
}

void identity_leave(struct identity *identity, struct tenant_grant *grant)
{
    (void)identity;
    pthread_mutex_lock(&grant->tenant->mutex);
    quota_leave(&grant->tenant->quota);
    pthread_mutex_unlock(&grant->tenant->mutex);
    tenant_unref(grant->tenant);
    grant->tenant = NULL;
}

void identity_withdraw(struct identity *identity, struct tenant_grant *grant)
{
    struct tenant *tenant = grant->tenant;
    pthread_mutex_lock(&tenant->mutex);
    quota_withdraw(&tenant->quota, &tenant->settings.limits, grant->n_tokens, clock_now_ns(identity->clock));
    pthread_mutex_unlock(&tenant->mutex);
    tenant_unref(tenant);
    grant->tenant = NULL;
}

bool identity_cache_salt(struct identity *identity, const char *name, char *out)
{
    struct tenant *tenant = take_tenant(identity, name);
    if (!tenant)
        return false;
    pthread_mutex_lock(&tenant->mutex);
    write_salt(tenant, out);
    pthread_mutex_unlock(&tenant->mutex);
    tenant_unref(tenant);
    return true;
}

bool identity_rates(struct identity *identity, const char *name, struct tenant_rates *out)
{
    struct tenant *tenant = take_tenant(identity, name);
    if (!tenant)
        return false;
    int64_t now_ns = clock_now_ns(identity->clock);
    pthread_mutex_lock(&tenant->mutex);
    out->requests = quota_view_requests(&tenant->quota, &tenant->settings.limits, now_ns);
    out->tokens = quota_view_tokens(&tenant->quota, &tenant->settings.limits, now_ns);
    pthread_mutex_unlock(&tenant->mutex);
    tenant_unref(tenant);
    return true;
}
