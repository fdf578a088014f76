/* The operator's listener, apart from the doors for clients: metrics, liveness, readiness, loads, and the
 * order to drain. HTTP over the same transport. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "api/service.h"
#include "base/error.h"
#include "proto/extra_routes.h"

struct admin_door;

enum { ADMIN_DOOR_BYTES = 1 << 20 }; /* for the memory plan, as HTTP_DOOR_BYTES */

struct admin_door_options {
    const char *host;    /* name or address to listen on */
    uint16_t port;       /* 0 = any free one */
    const char *version; /* of this program; static */
    bool allow_orders;   /* POST paths work; else 403: whoever reaches the listener may only look */
    /* POST /drain: the same as being told to stop by a signal. On a thread of the door; must not block. */
    void (*drain)(void *context);
    void *context;
    struct extra_routes extra; /* beside its own */
};

/* 127.0.0.1, port 8002, orders allowed. */
struct admin_door_options admin_door_options_default(void);

/* Opens the listener. service is borrowed and must outlive it. IO when the address cannot be had. */
err_t admin_door_open(struct service *service, const struct admin_door_options *options,
                      struct admin_door **out) ERR_MUST_CHECK;
uint16_t admin_door_port(const struct admin_door *door);
/* From now on /ready answers 503. */
void admin_door_not_ready(struct admin_door *door);
void admin_door_close(struct admin_door *door); /* NULL is fine */
