/* Flags of every command that opens doors for clients. */
#pragma once

#include "base/flags.h"
#include "server/doors.h"

enum { DOOR_FLAGS_MAX = 40 };

struct door_flag_values {
    const char *host, *port_file, *http_port_file, *log_level, *log_format, *metrics_host, *metrics_port_file;
    int64_t port, http_port, metrics_port, max_grpc_connections, max_connection_calls, max_calls,
        max_http_connections, max_message_bytes;
    double shutdown_timeout_s, drain_delay_s, connection_age_s, connection_age_grace_s;
    bool http, allow_insecure_bind, metrics, http_metrics;
    const char *ssl_certfile, *ssl_keyfile, *ssl_ca_certs, *ssl_cert_reqs, *api_keys_file;
    struct flag_list ssl_client_san, api_key;
};

/* Where a command listens when nobody says otherwise, as the flags' defaults. */
struct door_ports {
    const char *port, *http_port, *metrics_port;
};

/* Writes the rows to flags[0..DOOR_FLAGS_MAX) with targets in *values; returns how many. */
size_t door_flags_fill(struct door_flag_values *values, const struct door_ports *ports, struct flag *flags);
/* Starts the log as the flags say. Before other threads exist. */
void door_flags_start_log(const struct door_flag_values *values);
/* Parsed values -> options. Borrows the strings. */
struct doors_options door_flags_options(const struct door_flag_values *values);
