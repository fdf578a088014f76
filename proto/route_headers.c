#include "proto/route_headers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

err_t route_headers_apply(const struct route_headers *headers, const char *priority, struct request *request)
{
    bool body_names_model = request->model && request->model[0];
    if (headers->model[0] && body_names_model && strcmp(headers->model, request->model) != 0)
        return err_new(ERR_INVALID_ARGUMENT, "the header %s says \"%.128s\" and the request \"%.128s\"",
                       ROUTE_MODEL, headers->model, request->model);
    if (headers->model[0] && !body_names_model)
        request->model = headers->model;
    return priority ? apply_priority(priority, request) : err_ok();
}
