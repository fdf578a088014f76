/* Where engines are: a target of the configuration, and the addresses that its name has. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include "base/error.h"

enum {
    TARGET_HOST_BYTES_MAX = 255,
    REPLICA_ADDRESS_BYTES = 128, /* "[2001:db8::1]:50051", "unix:/run/bantam.sock", and a NUL */
    TARGET_ADDRESSES_MAX = 64,   /* of one name */
};

/* "127.0.0.1:50051", "[::1]:50051", "engines.svc:50051", "dns:///engines.svc:50051", "ipv4:10.0.0.1:50051",
 * "ipv6:[::1]:50051", "unix:/run/bantam.sock". */
struct replica_target {
    bool is_unix;
    bool is_numeric; /* an address already: no name to look up, and none for a certificate */
    char host[TARGET_HOST_BYTES_MAX + 1]; /* without brackets; is_unix: the path */
    char port[6];
};

/* INVALID_ARGUMENT says what is wrong with it, beginning with a quoted piece of the text. */
err_t replica_target_parse(const char *text, struct replica_target *out) ERR_MUST_CHECK;

/* A socket or an address of this machine, or "localhost": what goes there passes no network. */
bool replica_target_is_here(const struct replica_target *target);

struct replica_addresses {
    size_t n;
    char address[TARGET_ADDRESSES_MAX][REPLICA_ADDRESS_BYTES];
};

/* The system's resolver; may block for as long as that does. A name with IPv4 addresses has these alone: an
 * engine that listens on both kinds would be counted twice. Each address once, sorted. NOT_FOUND: there is no
 * such name; UNAVAILABLE: nobody could say. */
err_t replica_target_resolve(const struct replica_target *target,
                             struct replica_addresses *out) ERR_MUST_CHECK;
