/* Names in a client's certificate (subject alternative names), verified by the transport, and lists to hold
 * them against. The subject's common name is never looked at. Pure; any thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include "base/error.h"

enum peer_name_kind { PEER_NAME_DNS, PEER_NAME_URI, PEER_NAME_EMAIL };

enum {
    PEER_NAMES_MAX = 32, /* of one certificate that are looked at */
    PEER_NAME_BYTES_MAX = 255,
};

struct peer_name {
    enum peer_name_kind kind;
    const char *data; /* not NUL-terminated; borrowed */
    size_t size;
};

struct peer_names {
    bool has_certificate;
    size_t n;
    struct peer_name names[PEER_NAMES_MAX];
};
/* More than PEER_NAMES_MAX are left out. */
void peer_names_add(struct peer_names *names, enum peer_name_kind kind, const char *data, size_t size);

/* A name as people write it: "dns:api.example", "uri:spiffe://example/a", "email:ops@example". */
struct peer_name_text {
    enum peer_name_kind kind;
    char text[PEER_NAME_BYTES_MAX + 1];
};
/* Without a prefix: with "://" it is a URI, with '@' an e-mail address, else a DNS name. INVALID_ARGUMENT;
 * '*' is refused, since nothing here is a pattern. */
err_t peer_name_parse(const char *word, struct peer_name_text *out) ERR_MUST_CHECK;
/* The whole name, byte by byte; of DNS names without regard to case. A wildcard in a certificate matches
 * nothing. */
bool peer_name_matches(const struct peer_name_text *expected, const struct peer_name *name);
