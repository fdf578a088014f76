#include "cli/door_flags.h"

#include <stdlib.h>
#include <string.h>
#include "base/assert.h"
#include "base/log.h"

size_t door_flags_fill(struct door_flag_values *v, const struct door_ports *ports, struct flag *flags)
{
    const struct flag rows[] = {
        {.name = "host",
         .kind = FLAG_STRING,
         .target = &v->host,
         .default_text = "127.0.0.1",
         .metavar = "ADDRESS",
         .help = "where to listen; an address that other machines reach needs TLS and authentication, or "
                 "--allow-insecure-bind"},
        {.name = "port",
         .kind = FLAG_INT,
         .target = &v->port,
         .default_text = ports->port,
         .max = 65535,
         .help = "TCP port of gRPC; 0 = any free one"},
        {.name = "port-file",
         .kind = FLAG_STRING,
         .target = &v->port_file,
         .metavar = "FILE",
         .help = "write the port here when ready, for programs"},
        {.name = "http",
         .kind = FLAG_BOOL,
         .target = &v->http,
         .default_text = "true",
         .help = "serve OpenAI's HTTP API too"},
        {.name = "http-port",
         .kind = FLAG_INT,
         .target = &v->http_port,
         .default_text = ports->http_port,
         .max = 65535,
         .help = "TCP port of HTTP; 0 = any free one"},
        {.name = "http-port-file",
         .kind = FLAG_STRING,
         .target = &v->http_port_file,
         .metavar = "FILE",
         .help = "write the HTTP port here when ready, for programs"},
        {.name = "metrics",
         .kind = FLAG_BOOL,
         .target = &v->metrics,
         .default_text = "true",
         .help = "open the operator's listener: metrics, health, loads, drain"},
        {.name = "metrics-host",
         .kind = FLAG_STRING,
         .target = &v->metrics_host,
         .default_text = "127.0.0.1",
         .metavar = "ADDRESS",
         .help = "where it listens; elsewhere than on a loopback address it takes no orders"},
        {.name = "metrics-port",
         .kind = FLAG_INT,
         .target = &v->metrics_port,
         .default_text = ports->metrics_port,
         .max = 65535,
         .help = "its TCP port; 0 = any free one"},
        {.name = "metrics-port-file",
         .kind = FLAG_STRING,
         .target = &v->metrics_port_file,
         .metavar = "FILE",
         .help = "write that port here when ready, for programs"},
        {.name = "http-metrics",
         .kind = FLAG_BOOL,
         .target = &v->http_metrics,
         .default_text = "false",
         .help =
             "answer /metrics on the HTTP port too when other machines reach it; on loopback it always does"},
        {.name = "allow-insecure-bind",
         .kind = FLAG_BOOL,
         .target = &v->allow_insecure_bind,
         .default_text = "false",
         .help = "listen on an open address although TLS or authentication is missing"},
        {.name = "ssl-certfile",
         .kind = FLAG_STRING,
         .target = &v->ssl_certfile,
         .metavar = "FILE",
         .help = "the server's certificate and its chain in PEM, for both ports; read again when it changes"},
        {.name = "ssl-keyfile",
         .kind = FLAG_STRING,
         .target = &v->ssl_keyfile,
         .metavar = "FILE",
         .help = "its private key in PEM, without a pass phrase"},
        {.name = "ssl-ca-certs",
         .kind = FLAG_STRING,
         .target = &v->ssl_ca_certs,
         .metavar = "FILE",
         .help = "the authorities that sign clients' certificates, in PEM"},
        {.name = "ssl-cert-reqs",
         .kind = FLAG_CHOICE,
         .target = &v->ssl_cert_reqs,
         .default_text = "auto",
         .choices = "auto|none|optional|required|0|1|2",
         .help =
             "whether clients show a certificate (0, 1, 2: none, optional, required); auto: required with "
             "--ssl-ca-certs"},
        {.name = "ssl-client-san",
         .kind = FLAG_LIST,
         .target = &v->ssl_client_san,
         .metavar = "NAME",
         .help = "let in only client certificates with this name (dns:, uri: or email:); may be repeated"},
        {.name = "api-key",
         .kind = FLAG_LIST,
         .target = &v->api_key,
         .metavar = "KEY",
         .help = "a key that clients may send; may be repeated; better in the environment than here, where "
                 "other users see it"},
        {.name = "api-keys-file",
         .kind = FLAG_STRING,
         .target = &v->api_keys_file,
         .metavar = "FILE",
         .help = "tenants, their limits and the hashes of their keys; read again when it changes"},
        {.name = "shutdown-timeout",
         .kind = FLAG_DOUBLE,
         .target = &v->shutdown_timeout_s,
         .default_text = "30",
         .max = 86400,
         .metavar = "SECONDS",
         .help = "how long a stop waits for requests in flight; a second signal ends the wait"},
        {.name = "drain-delay",
         .kind = FLAG_DOUBLE,
         .target = &v->drain_delay_s,
         .default_text = "0",
         .max = 86400,
         .metavar = "SECONDS",
         .help = "at a stop, say NOT_SERVING and go on serving for so long, until balancers have noticed"},
        {.name = "max-connection-age",
         .kind = FLAG_DOUBLE,
         .target = &v->connection_age_s,
         .default_text = "0",
         .max = 86400,
         .metavar = "SECONDS",
         .help = "end connections after about so long, so that clients spread over new servers; 0 = never"},
        {.name = "max-connection-age-grace",
         .kind = FLAG_DOUBLE,
         .target = &v->connection_age_grace_s,
         .default_text = "0",
         .max = 86400,
         .metavar = "SECONDS",
         .help = "cut gRPC calls that are under way so much later; 0 = never"},
        {.name = "max-grpc-connections",
         .kind = FLAG_INT,
         .target = &v->max_grpc_connections,
         .default_text = "4096",
         .min = 1,
         .max = 1 << 20,
         .help = "gRPC connections at once; both limits are lowered when the limit of open files is too low"},
        {.name = "max-connection-calls",
         .kind = FLAG_INT,
         .target = &v->max_connection_calls,
         .default_text = "1024",
         .min = 1,
         .max = 1 << 20,
         .help = "gRPC calls at once on one connection"},
        {.name = "max-calls",
         .kind = FLAG_INT,
         .target = &v->max_calls,
         .default_text = "4096",
         .min = 1,
         .max = 1 << 20,
         .help = "gRPC calls at once on all connections"},
        {.name = "max-http-connections",
         .kind = FLAG_INT,
         .target = &v->max_http_connections,
         .default_text = "1024",
         .min = 1,
         .max = 1 << 20,
         .help = "HTTP connections at once"},
        {.name = "max-message-bytes",
         .kind = FLAG_INT,
         .target = &v->max_message_bytes,
         .default_text = "4m",
         .min = 1024,
         .max = 1 << 30,
         .help = "largest request"},
        {.name = "log-level",
         .kind = FLAG_CHOICE,
         .target = &v->log_level,
         .default_text = "info",
         .choices = "error|warn|info|debug",
         .help = "what to log"},
        {.name = "log-format",
         .kind = FLAG_CHOICE,
         .target = &v->log_format,
         .default_text = "auto",
         .choices = "auto|text|json",
         .help = "auto: text on a terminal, JSON lines otherwise"},
    };
    size_t n = sizeof rows / sizeof *rows;
    ASSERT(n <= DOOR_FLAGS_MAX);
    memcpy(flags, rows, sizeof rows);
    return n;
}

void door_flags_start_log(const struct door_flag_values *values)
{
    enum log_level level = LOG_INFO;
    (void)log_level_parse(values->log_level, &level); /* a choice: it parses */
    enum log_format format = strcmp(values->log_format, "json") == 0   ? LOG_FORMAT_JSON
                             : strcmp(values->log_format, "text") == 0 ? LOG_FORMAT_TEXT
                                                                       : LOG_FORMAT_AUTO;
    log_init(level, format);
}

static enum access_client_certs client_certs_of(const char *choice)
{
    static const struct {
        const char *name;
        enum access_client_certs certs;
    } choices[] = {
        {"none", ACCESS_CERTS_NONE},         {"0", ACCESS_CERTS_NONE},
        {"optional", ACCESS_CERTS_OPTIONAL}, {"1", ACCESS_CERTS_OPTIONAL},
        {"required", ACCESS_CERTS_REQUIRED}, {"2", ACCESS_CERTS_REQUIRED},
    };
    for (size_t i = 0; i < sizeof choices / sizeof choices[0]; i++)
        if (strcmp(choices[i].name, choice) == 0)
            return choices[i].certs;
    return ACCESS_CERTS_AUTO;
}

static struct access_options access_of(const struct door_flag_values *v)
{
    return (struct access_options){
        .cert_file = v->ssl_certfile,
        .key_file = v->ssl_keyfile,
        .ca_file = v->ssl_ca_certs,
        .client_certs = client_certs_of(v->ssl_cert_reqs),
        .client_names = v->ssl_client_san.item,
        .n_client_names = v->ssl_client_san.count,
        .api_keys = v->api_key.item,
        .n_api_keys = v->api_key.count,
        .api_keys_in_arguments = v->api_key.count > 0 && v->api_key.item[0] != getenv("BANTAM_API_KEY"),
        .keys_file = v->api_keys_file,
        .allow_insecure_bind = v->allow_insecure_bind,
    };
}

struct doors_options door_flags_options(const struct door_flag_values *v)
{
    struct doors_options options = doors_options_default();
    options.host = v->host;
    options.port = (uint16_t)v->port;
    options.port_file = v->port_file;
    options.http = v->http;
    options.http_port = (uint16_t)v->http_port;
    options.http_port_file = v->http_port_file;
    options.metrics = v->metrics;
    options.metrics_host = v->metrics_host;
    options.metrics_port = (uint16_t)v->metrics_port;
    options.metrics_port_file = v->metrics_port_file;
    options.http_metrics = v->http_metrics;
    options.access = access_of(v);
    options.drain_delay_ns = (int64_t)(v->drain_delay_s * 1e9);
    options.max_connection_age_ms = (int64_t)(v->connection_age_s * 1e3);
    options.max_connection_age_grace_ms = (int64_t)(v->connection_age_grace_s * 1e3);
    options.shutdown_timeout_ns = (int64_t)(v->shutdown_timeout_s * 1e9);
    options.max_connection_calls = (uint32_t)v->max_connection_calls;
    options.max_calls = (uint32_t)v->max_calls;
    options.max_grpc_connections = (uint32_t)v->max_grpc_connections;
    options.max_http_connections = (uint32_t)v->max_http_connections;
    options.max_message_bytes = (size_t)v->max_message_bytes;
    options.version = BANTAM_VERSION;
    return options;
}
