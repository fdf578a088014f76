/* Paths that whoever opens a door over HTTP adds to it: a router's page, a protocol for agents. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include "proto/http_parser.h"

struct service;
struct http_exchange; /* proto/http_server.h, whose rules hold for what follows */

/* Strings live as long as the door. */
struct extra_route {
    const char *path;     /* whole; never one that the door has itself */
    bool is_for_everyone; /* no key is asked for; on the operator's listener nobody ever is */
    void *context;
    /* Before the door opens: the service that it serves, quotas included. NULL: it is not asked for. */
    void (*attach)(void *context, struct service *service);
    /* Any method. On the operator's listener it completes its answer, or offloads it. */
    void (*handle)(void *context, struct http_exchange *exchange);
    /* Until the answer is complete; NULL: `handle` completes it. The exchange's user pointer is the route's.
     */
    void (*pump)(void *context, struct http_exchange *exchange);
    /* The last call; NULL: nothing is to be given back. */
    void (*ended)(void *context, struct http_exchange *exchange);
};

/* Borrowed until the door is closed. */
struct extra_routes {
    const struct extra_route *routes; /* [n] */
    size_t n;
};

/* NULL: there is none at that path. */
const struct extra_route *extra_route_find(const struct extra_routes *routes, struct http_text path);
