/* Flags of commands that are clients of a server: where it is, TLS, keys, retries. */
#pragma once

#include "base/flags.h"
#include "benchmarks/serve_bench.h"

enum { CLIENT_FLAGS_MAX = 12, CLIENT_HEADER_NAME_BYTES = 64 };

struct client_flag_values {
    const char *target, *ca_certs, *certfile, *keyfile, *server_name, *balancing, *api_key, *api_key_file;
    bool ssl;
    int64_t retries;
    struct flag_list headers;
};

/* What the headers of the options borrow. */
struct client_header_room {
    struct bantam_header headers[BANTAM_HEADERS_MAX];
    char names[BANTAM_HEADERS_MAX][CLIENT_HEADER_NAME_BYTES];
};

/* Writes the rows to flags[0..CLIENT_FLAGS_MAX) with targets in *values; returns how many. */
size_t client_flags_fill(struct client_flag_values *values, struct flag *flags);
/* The options that they say, which borrow from *values and *room. INVALID_ARGUMENT names a bad one; a key
 * among the arguments is warned of. */
err_t client_flags_options(const struct client_flag_values *values, struct client_header_room *room,
                           struct bantam_client_options *out) ERR_MUST_CHECK;
