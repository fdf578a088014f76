#include "cli/client_flags.h"

#include <stdlib.h>
#include <string.h>
#include "base/assert.h"
#include "base/log.h"

size_t client_flags_fill(struct client_flag_values *v, struct flag *flags)
{
    const struct flag rows[] = {
        {.help = "Where the server is, and who asks"},
        {.name = "target",
         .kind = FLAG_STRING,
         .target = &v->target,
         .default_text = "127.0.0.1:50051",
         .metavar = "HOST:PORT",
         .help = "the server; or whatever gRPC resolves, such as dns:///models.example:50051"},
        {.name = "balancing",
         .kind = FLAG_CHOICE,
         .target = &v->balancing,
         .default_text = "pick-first",
         .choices = "pick-first|round-robin",
         .help = "over the addresses that the target's name has"},
        {.name = "ssl",
         .kind = FLAG_BOOL,
         .target = &v->ssl,
         .default_text = "false",
         .help = "TLS; the other --ssl-* switch it on as well"},
        {.name = "ssl-ca-certs",
         .kind = FLAG_STRING,
         .target = &v->ca_certs,
         .metavar = "FILE",
         .help = "PEM of who may sign the server's certificate; without it the system's authorities"},
        {.name = "ssl-certfile",
         .kind = FLAG_STRING,
         .target = &v->certfile,
         .metavar = "FILE",
         .help = "PEM of the certificate to show, for a server that asks clients for one"},
        {.name = "ssl-keyfile",
         .kind = FLAG_STRING,
         .target = &v->keyfile,
         .metavar = "FILE",
         .help = "its key"},
        {.name = "ssl-server-name",
         .kind = FLAG_STRING,
         .target = &v->server_name,
         .metavar = "NAME",
         .help = "the name in the server's certificate (default: the target's)"},
        {.name = "api-key",
         .kind = FLAG_STRING,
         .target = &v->api_key,
         .metavar = "KEY",
         .help = "sent as a bearer key; BANTAM_API_KEY does not show in the list of processes"},
        {.name = "api-key-file",
         .kind = FLAG_STRING,
         .target = &v->api_key_file,
         .metavar = "FILE",
         .help = "the same, the first line of a file"},
        {.name = "header",
         .kind = FLAG_LIST,
         .target = &v->headers,
         .metavar = "NAME=VALUE",
         .help = "gRPC metadata of each request, such as x-bantam-tenant=acme for a proxy; may be repeated"},
        {.name = "retries",
         .kind = FLAG_INT,
         .target = &v->retries,
         .default_text = "0",
         .max = BANTAM_ATTEMPTS_MAX - 1,
         .help = "times that a refused request is sent again, as the server's pushback says"},
    };
    size_t n = sizeof rows / sizeof *rows;
    ASSERT(n <= CLIENT_FLAGS_MAX);
    memcpy(flags, rows, sizeof rows);
    return n;
}

static err_t split_headers(const struct flag_list *list, struct client_header_room *room)
{
    if (list->count > BANTAM_HEADERS_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "--header: %zu of them; %d are allowed", list->count,
                       BANTAM_HEADERS_MAX);
    for (size_t i = 0; i < list->count; i++) {
        const char *item = list->item[i], *equals = strchr(item, '=');
        size_t name_bytes = equals ? (size_t)(equals - item) : 0;
        if (name_bytes == 0 || name_bytes >= CLIENT_HEADER_NAME_BYTES)
            return err_new(ERR_INVALID_ARGUMENT,
                           "--header: \"%s\" is not like name=value, with a name of at most %d bytes", item,
                           CLIENT_HEADER_NAME_BYTES - 1);
        memcpy(room->names[i], item, name_bytes);
        room->names[i][name_bytes] = '\0';
        room->headers[i] = (struct bantam_header){room->names[i], equals + 1, strlen(equals + 1)};
    }
    return err_ok();
}

err_t client_flags_options(const struct client_flag_values *v, struct client_header_room *room,
                           struct bantam_client_options *out)
{
    TRY(split_headers(&v->headers, room));
    if (v->api_key && v->api_key != getenv("BANTAM_API_KEY"))
        log_warn("client", "--api-key can be read by every user of this machine in the list of processes; "
                           "BANTAM_API_KEY or --api-key-file cannot");
    *out = bantam_client_options_default();
    out->target = v->target;
    out->balancing = strcmp(v->balancing, "round-robin") == 0 ? BANTAM_ROUND_ROBIN : BANTAM_PICK_FIRST;
    out->tls = v->ssl;
    out->ca_file = v->ca_certs;
    out->cert_file = v->certfile;
    out->key_file = v->keyfile;
    out->server_name = v->server_name;
    out->api_key = v->api_key;
    out->api_key_file = v->api_key_file;
    out->headers = room->headers;
    out->n_headers = v->headers.count;
    out->retry.max_attempts = 1 + (uint32_t)v->retries;
    out->retry.budget = 0; /* a load is a load: every request may be sent so many times */
    return err_ok();
}
