#include "proto/route_headers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static err_t apply_priority(const char *text, struct request *request)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    bool is_number = end != text && *end == '\0' && errno == 0 && strchr("-0123456789", text[0]);
    if (!is_number || value < -REQUEST_PRIORITY_LIMIT || value > REQUEST_PRIORITY_LIMIT)
        return err_new(ERR_INVALID_ARGUMENT,
                       "the header %s is \"%.32s\"; it must be an integer from %d to %d", ROUTE_PRIORITY,
                       text, -REQUEST_PRIORITY_LIMIT, REQUEST_PRIORITY_LIMIT);
    if (request->priority != 0 && request->priority != value)
        return err_new(ERR_INVALID_ARGUMENT, "the header %s says %ld and the request %d", ROUTE_PRIORITY,
                       value, request->priority);
    request->priority = (int32_t)value;
    return err_ok();
}

static const char *const HINT_NAMES[] = {"route", "privacy", "complexity", "max-cost", "task"};

/* NULL: the header is none. */
static const char *hint_of_header(const char *name, size_t name_bytes)
{
    size_t skip = sizeof ROUTE_HINT_PREFIX - 1;
    if (name_bytes <= skip || strncasecmp(name, ROUTE_HINT_PREFIX, skip) != 0)
        return NULL;
    for (size_t i = 0; i < sizeof HINT_NAMES / sizeof HINT_NAMES[0]; i++)
        if (strlen(HINT_NAMES[i]) == name_bytes - skip &&
            strncasecmp(HINT_NAMES[i], name + skip, name_bytes - skip) == 0)
            return HINT_NAMES[i];
    return NULL;
}

static err_t too_many_hints(size_t n)
{
    return err_new(ERR_INVALID_ARGUMENT, "the request has %zu hints; at most %d are allowed", n,
                   REQUEST_HINTS_MAX);
}

err_t route_headers_take_hint(struct route_headers *headers, const char *name, size_t name_bytes,
                              const char *value, size_t value_bytes)
{
    const char *hint = hint_of_header(name, name_bytes);
    if (!hint)
        return err_ok();
    if (headers->n_hints == REQUEST_HINTS_MAX)
        return too_many_hints(headers->n_hints + 1);
    if (value_bytes > REQUEST_HINT_BYTES_MAX)
        return err_new(ERR_INVALID_ARGUMENT,
                       "the header " ROUTE_HINT_PREFIX "%s has %zu bytes; at most %d are allowed", hint,
                       value_bytes, REQUEST_HINT_BYTES_MAX);
    char *copy = headers->hint_values[headers->n_hints];
    if (value_bytes > 0)
        memcpy(copy, value, value_bytes);
    copy[value_bytes] = '\0';
    if (strlen(copy) != value_bytes)
        return err_new(ERR_INVALID_ARGUMENT, "the header " ROUTE_HINT_PREFIX "%s contains a NUL character",
                       hint);
    headers->hints[headers->n_hints++] = (struct request_hint){hint, copy};
    return err_ok();
}

static bool is_salt(const char *value, size_t value_bytes)
{
    for (size_t i = 0; i < value_bytes; i++) {
        if (value[i] <= ' ' || value[i] > '~')
            return false;
    }
    return value_bytes > 0 && value_bytes <= ROUTE_CACHE_SALT_BYTES_MAX;
}

err_t route_headers_take_salt(struct route_headers *headers, const struct caller *caller, const char *name,
                              size_t name_bytes, const char *value, size_t value_bytes)
{
    if (name_bytes != sizeof ROUTE_CACHE_SALT - 1 || strncasecmp(name, ROUTE_CACHE_SALT, name_bytes) != 0)
        return err_ok();
    if (caller->tenant[0] && !caller->is_admin)
        return err_new(ERR_PERMISSION_DENIED,
                       "tenant %s may not send the header " ROUTE_CACHE_SALT
                       "; it is for tenants with admin=yes, who speak for others",
                       caller->tenant);
    if (headers->cache_salt[0])
        return err_new(ERR_INVALID_ARGUMENT, "the header " ROUTE_CACHE_SALT " is there twice");
    if (!is_salt(value, value_bytes))
        return err_new(ERR_INVALID_ARGUMENT,
                       "the header " ROUTE_CACHE_SALT
                       " must have 1 to %d printable ASCII characters, and no blanks",
                       ROUTE_CACHE_SALT_BYTES_MAX);
    memcpy(headers->cache_salt, value, value_bytes);
    headers->cache_salt[value_bytes] = '\0';
    return err_ok();
}

/* The body's go to the front: whoever reads them lets the last word count. */
static err_t apply_hints(struct route_headers *headers, struct request *request)
{
    size_t n = request->n_hints + headers->n_hints;
    if (n > REQUEST_HINTS_MAX)
        return too_many_hints(n);
    memmove(headers->hints + request->n_hints, headers->hints, headers->n_hints * sizeof *headers->hints);
    if (request->n_hints > 0)
        memcpy(headers->hints, request->hints, request->n_hints * sizeof *headers->hints);
    headers->n_hints = n;
    request->hints = headers->hints;
    request->n_hints = n;
    return err_ok();
}

err_t route_headers_apply(struct route_headers *headers, const char *priority, struct request *request)
{
    TRY(apply_hints(headers, request));
    bool body_names_model = request->model && request->model[0];
    if (headers->model[0] && body_names_model && strcmp(headers->model, request->model) != 0)
        return err_new(ERR_INVALID_ARGUMENT, "the header %s says \"%.128s\" and the request \"%.128s\"",
                       ROUTE_MODEL, headers->model, request->model);
    if (headers->model[0] && !body_names_model)
        request->model = headers->model;
    if (headers->cache_salt[0])
        request->cache_salt = headers->cache_salt;
    return priority ? apply_priority(priority, request) : err_ok();
}
