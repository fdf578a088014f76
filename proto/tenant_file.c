#include "proto/tenant_file.h"

#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"

#define WRONG(...) err_new(ERR_INVALID_ARGUMENT, __VA_ARGS__)

struct line {
    char text[TENANT_LINE_BYTES_MAX + 1];
    char *words[TENANT_LINE_WORDS_MAX]; /* into text */
    size_t n_words;
};

bool tenant_name_is_well_formed(const char *name)
{
    static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    size_t size = strlen(name);
    return size >= 1 && size <= REQUEST_TENANT_BYTES_MAX && strspn(name, allowed) == size;
}

static err_t check_name(const char *what, const char *name)
{
    if (!tenant_name_is_well_formed(name))
        return WRONG("%s \"%.80s\" must be 1 to %d letters, digits, '.', '_' or '-'", what, name,
                     REQUEST_TENANT_BYTES_MAX);
    return err_ok();
}

/* --- options of a tenant */

static err_t parse_number(const char *name, const char *value, long low, long high, long *out)
{
    char *end;
    *out = strtol(value, &end, 10);
    bool begins_well = (*value >= '0' && *value <= '9') || *value == '-';
    if (!begins_well || *end != '\0' || *out < low || *out > high)
        return WRONG("%s is \"%.32s\"; it must be a whole number from %ld to %ld", name, value, low, high);
    return err_ok();
}

static err_t set_cache(struct tenant_settings *tenant, const char *value)
{
    static const char shared[] = "shared:";
    if (strcmp(value, "own") == 0)
        return err_ok();
    if (strncmp(value, shared, sizeof shared - 1) != 0)
        return WRONG("cache is \"%.80s\"; it must be own, or shared:GROUP", value);
    const char *group = value + sizeof shared - 1;
    TRY(check_name("the cache's group", group));
    memcpy(tenant->cache_group, group, strlen(group) + 1);
    return err_ok();
}

static err_t set_admin(struct tenant_settings *tenant, const char *value)
{
    tenant->is_admin = strcmp(value, "yes") == 0;
    if (!tenant->is_admin && strcmp(value, "no") != 0)
        return WRONG("admin is \"%.32s\"; it must be yes or no", value);
    return err_ok();
}

enum option {
    OPTION_CONCURRENT,
    OPTION_REQUESTS,
    OPTION_TOKENS,
    OPTION_PRIORITY,
    OPTION_BEST,
    OPTION_CACHE,
    OPTION_ADMIN,
    N_OPTIONS
};

static const struct {
    const char *name;
    long low, high; /* of numbers */
} options[N_OPTIONS] = {
    [OPTION_CONCURRENT] = {"max-concurrent", 1, QUOTA_CONCURRENT_MAX},
    [OPTION_REQUESTS] = {"requests-per-minute", 1, QUOTA_REQUESTS_MAX},
    [OPTION_TOKENS] = {"tokens-per-minute", 1, QUOTA_TOKENS_MAX},
    [OPTION_PRIORITY] = {"priority", -REQUEST_PRIORITY_LIMIT, REQUEST_PRIORITY_LIMIT},
    [OPTION_BEST] = {"best-priority", -REQUEST_PRIORITY_LIMIT, REQUEST_PRIORITY_LIMIT},
    [OPTION_CACHE] = {"cache", 0, 0},
    [OPTION_ADMIN] = {"admin", 0, 0},
};

static err_t set_option(struct tenant_settings *tenant, enum option option, const char *value)
{
    long number = 0;
    if (option == OPTION_CACHE)
        return set_cache(tenant, value);
    if (option == OPTION_ADMIN)
        return set_admin(tenant, value);
    TRY(parse_number(options[option].name, value, options[option].low, options[option].high, &number));
    if (option == OPTION_CONCURRENT)
        tenant->limits.max_concurrent = (uint32_t)number;
    else if (option == OPTION_REQUESTS)
        tenant->limits.requests_per_minute = (uint32_t)number;
    else if (option == OPTION_TOKENS)
        tenant->limits.tokens_per_minute = (uint32_t)number;
    else if (option == OPTION_PRIORITY)
        tenant->priority = (int32_t)number;
    else
        tenant->best_priority = (int32_t)number;
    return err_ok();
}

/* "name=value"; `seen`: bits of options that the line had. */
static err_t parse_option(struct tenant_settings *tenant, char *word, unsigned *seen)
{
    char *value = strchr(word, '=');
    if (!value)
        return WRONG("\"%.64s\" is no option: they are NAME=VALUE", word);
    *value++ = '\0';
    for (unsigned i = 0; i < N_OPTIONS; i++) {
        if (strcmp(word, options[i].name) != 0)
            continue;
        if (*seen & 1u << i)
            return WRONG("%s stands here twice", word);
        *seen |= 1u << i;
        return set_option(tenant, (enum option)i, value);
    }
    return WRONG(
        "\"%.64s\" is no option of a tenant: max-concurrent, requests-per-minute, tokens-per-minute, "
        "priority, best-priority, cache or admin",
        word);
}

/* --- statements */

/* Room for one more; grows by doubling. */
static err_t make_room(void **items, uint32_t n, size_t item_bytes, uint32_t max, const char *what)
{
    if (n == max)
        return WRONG("more than %u %s", max, what);
    if (n > 0 && (n < 16 || (n & (n - 1)) != 0))
        return err_ok();
    uint32_t capacity = n < 16 ? 16 : 2 * n;
    void *grown = mem_realloc(*items, capacity * item_bytes);
    if (!grown)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for %s", what);
    *items = grown;
    return err_ok();
}

static bool find_tenant(const struct tenant_file *file, const char *name, uint32_t *index)
{
    for (uint32_t i = 0; i < file->n_tenants; i++)
        if (strcmp(file->tenants[i].name, name) == 0) {
            *index = i;
            return true;
        }
    return false;
}

static err_t add_tenant(struct tenant_file *file, struct line *line)
{
    struct tenant_settings tenant = {0};
    unsigned seen = 0;
    uint32_t index;
    if (line->n_words < 2)
        return WRONG("tenant needs a name");
    TRY(check_name("the tenant's name", line->words[1]));
    if (find_tenant(file, line->words[1], &index))
        return WRONG("tenant \"%s\" stands here twice", line->words[1]);
    memcpy(tenant.name, line->words[1], strlen(line->words[1]) + 1);
    for (size_t i = 2; i < line->n_words; i++)
        TRY(parse_option(&tenant, line->words[i], &seen));
    if (!(seen & 1u << OPTION_BEST))
        tenant.best_priority = tenant.priority;
    if (tenant.best_priority > tenant.priority)
        return WRONG("best-priority %d is worse than the tenant's priority %d (lower runs earlier)",
                     tenant.best_priority, tenant.priority);
    TRY(make_room((void **)&file->tenants, file->n_tenants, sizeof tenant, TENANTS_MAX, "tenants"));
    file->tenants[file->n_tenants++] = tenant;
    return err_ok();
}

/* "key HASH TENANT", "san NAME TENANT" */
static err_t find_owner(const struct tenant_file *file, const struct line *line, uint32_t *tenant)
{
    if (line->n_words != 3)
        return WRONG("san takes a certificate's name and a tenant's name");
    if (!find_tenant(file, line->words[2], tenant))
        return WRONG("there is no tenant \"%.80s\" above: add a line \"tenant %.80s\"", line->words[2],
                     line->words[2]);
    return err_ok();
}

static err_t add_key(struct tenant_file *file, const struct line *line)
{
    struct tenant_key key;
    /* No word is repeated before this holds: somebody may have put the key itself here. */
    if (line->n_words != 3 || !api_key_hash_parse(line->words[1], &key.hash))
        return WRONG("key takes sha256: with 64 hexadecimal digits, and a tenant's name; \"bantam keys\" "
                     "makes such lines");
    TRY(find_owner(file, line, &key.tenant));
    for (uint32_t i = 0; i < file->n_keys; i++)
        if (memcmp(&file->keys[i].hash, &key.hash, sizeof key.hash) == 0)
            return WRONG("this key stands here twice");
    TRY(make_room((void **)&file->keys, file->n_keys, sizeof key, TENANT_KEYS_MAX, "keys"));
    file->keys[file->n_keys++] = key;
    return err_ok();
}

static err_t add_name(struct tenant_file *file, const struct line *line)
{
    struct tenant_name name;
    TRY(find_owner(file, line, &name.tenant));
    TRY(peer_name_parse(line->words[1], &name.name));
    const struct peer_name same = {name.name.kind, name.name.text, strlen(name.name.text)};
    for (uint32_t i = 0; i < file->n_names; i++)
        if (peer_name_matches(&file->names[i].name, &same))
            return WRONG("\"%s\" stands here twice", line->words[1]);
    TRY(make_room((void **)&file->names, file->n_names, sizeof name, TENANT_NAMES_MAX,
                  "certificates' names"));
    file->names[file->n_names++] = name;
    return err_ok();
}

/* --- lines */

static err_t split_words(const char *text, size_t size, struct line *line)
{
    if (size > TENANT_LINE_BYTES_MAX)
        return WRONG("the line has %zu bytes; at most %d are allowed", size, TENANT_LINE_BYTES_MAX);
    if (memchr(text, '\0', size))
        return WRONG("the line has a NUL");
    memcpy(line->text, text, size);
    line->text[size] = '\0';
    line->n_words = 0;
    char *rest = line->text, *word;
    while ((word = strtok_r(rest, " \t\r", &rest)) != NULL) {
        if (line->n_words == 0 && word[0] == '#')
            break;
        if (line->n_words == TENANT_LINE_WORDS_MAX)
            return WRONG("the line has more than %d words", TENANT_LINE_WORDS_MAX);
        line->words[line->n_words++] = word;
    }
    return err_ok();
}

static err_t read_line(struct tenant_file *file, const char *text, size_t size, struct line *line)
{
    TRY(split_words(text, size, line));
    if (line->n_words == 0)
        return err_ok();
    if (strcmp(line->words[0], "tenant") == 0)
        return add_tenant(file, line);
    if (strcmp(line->words[0], "key") == 0)
        return add_key(file, line);
    if (strcmp(line->words[0], "san") == 0)
        return add_name(file, line);
    return WRONG("a line begins with tenant, key, san or #");
}

err_t tenant_file_parse(const char *text, size_t size_bytes, struct tenant_file *out)
{
    struct tenant_file file = {0};
    struct line line;
    size_t number = 0;
    if (size_bytes > TENANT_FILE_BYTES_MAX)
        return WRONG("the file has %zu bytes; at most %d are allowed", size_bytes, TENANT_FILE_BYTES_MAX);
    for (size_t at = 0; at < size_bytes;) {
        const char *end = memchr(text + at, '\n', size_bytes - at);
        size_t size = end ? (size_t)(end - (text + at)) : size_bytes - at;
        number++;
        err_t e = read_line(&file, text + at, size, &line);
        if (e.code != ERR_OK) {
            tenant_file_free(&file);
            return err_prefix(e, "line %zu", number);
        }
        at += size + 1;
    }
    *out = file;
    return err_ok();
}

void tenant_file_free(struct tenant_file *file)
{
    mem_free(file->tenants);
    mem_free(file->keys);
    mem_free(file->names);
    *file = (struct tenant_file){0};
}
