/* From what a user says to what the transport takes: files, keys, headers, limits. */
#include <string.h>
#include "base/alloc.h"
#include "base/mapped_file.h"
#include "clients/c/client_internal.h"

struct bantam_client_options bantam_client_options_default(void)
{
    return (struct bantam_client_options){
        .target = "127.0.0.1:50051",
        .max_calls = BANTAM_CALLS_MAX_DEFAULT,
        .connect_timeout_ms = 5000,
        .reconnect_min_ms = 100,
        .reconnect_max_ms = 2000,
        .keepalive_time_ms = 30000,
        .keepalive_timeout_ms = 20000,
        .retry = {.max_attempts = 5,
                  .backoff_ns = 50000000,
                  .backoff_max_ns = 2000000000,
                  .budget = 100,
                  .budget_ratio = 0.1},
    };
}

/* --- headers */

err_t header_list_add(struct header_list *list, const struct bantam_header *header)
{
    struct client_metadata metadata = {header->key, header->value, header->value_bytes};
    TRY(client_metadata_check(&metadata));
    if (list->n == CLIENT_METADATA_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "more than %d headers", CLIENT_METADATA_MAX);
    size_t key_bytes = strlen(header->key) + 1;
    char *text = mem_alloc(key_bytes + header->value_bytes);
    if (!text)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a header");
    memcpy(text, header->key, key_bytes);
    if (header->value_bytes > 0)
        memcpy(text + key_bytes, header->value, header->value_bytes);
    list->text[list->n] = text;
    list->metadata[list->n++] = (struct client_metadata){text, text + key_bytes, header->value_bytes};
    return err_ok();
}

void header_list_free(struct header_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        const struct client_metadata *metadata = &list->metadata[i];
        explicit_bzero(list->text[i], strlen(metadata->key) + 1 + metadata->value_bytes);
        mem_free(list->text[i]);
    }
    list->n = 0;
}

static void wipe(char *secret)
{
    if (secret)
        explicit_bzero(secret, strlen(secret));
    mem_free(secret);
}

static err_t add_key(struct header_list *list, const char *key, const char *where)
{
    static const char scheme[] = "Bearer ";
    size_t key_bytes = strlen(key), value_bytes = sizeof scheme - 1 + key_bytes;
    if (key_bytes == 0 || strcspn(key, " \t\r\n") != key_bytes)
        return err_new(ERR_INVALID_ARGUMENT, "%s: a key is visible characters without blanks", where);
    char *value = mem_alloc(value_bytes + 1);
    if (!value)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a key");
    memcpy(value, scheme, sizeof scheme - 1);
    memcpy(value + sizeof scheme - 1, key, key_bytes);
    struct bantam_header header = {"authorization", value, value_bytes};
    err_t e = header_list_add(list, &header);
    wipe(value);
    return e.code == ERR_OK ? e : err_prefix(e, "%s", where);
}

static err_t add_key_file(struct header_list *list, const char *path)
{
    char *text;
    size_t size_bytes;
    TRY(file_read(path, BANTAM_KEY_FILE_BYTES_MAX, &text, &size_bytes));
    text[strcspn(text, "\r\n")] = '\0';
    err_t e = add_key(list, text, path);
    explicit_bzero(text, size_bytes);
    mem_free(text);
    return e;
}

static err_t fill_headers(const struct bantam_client_options *options, struct header_list *list)
{
    if (options->api_key && options->api_key_file)
        return err_new(ERR_INVALID_ARGUMENT, "a key and the file of a key: one of them");
    if (options->n_headers > BANTAM_HEADERS_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "%zu headers; %d are allowed", options->n_headers,
                       BANTAM_HEADERS_MAX);
    if (options->api_key)
        TRY(add_key(list, options->api_key, "the key"));
    if (options->api_key_file)
        TRY(add_key_file(list, options->api_key_file));
    for (size_t i = 0; i < options->n_headers; i++)
        TRY(header_list_add(list, &options->headers[i]));
    return err_ok();
}

/* --- TLS */

/* gRPC tells of what it cannot read only when it connects, and then not which file it was. */
static err_t read_pem(const char *path, const char *label, char **out)
{
    size_t size_bytes;
    if (!path)
        return err_ok();
    TRY(file_read(path, BANTAM_PEM_BYTES_MAX, out, &size_bytes));
    const char *begin = strstr(*out, "-----BEGIN ");
    if (!begin || !strstr(begin, label) || strlen(*out) != size_bytes)
        return err_new(ERR_INVALID_ARGUMENT, "%s: there is no %s in PEM in it", path, label);
    return err_ok();
}

struct pem_texts {
    char *ca, *cert, *key;
};

static err_t read_pems(const struct bantam_client_options *options, struct pem_texts *out)
{
    if (!options->cert_file != !options->key_file)
        return err_new(ERR_INVALID_ARGUMENT, "a client's certificate needs its key, and the other way round");
    TRY(read_pem(options->ca_file, "CERTIFICATE", &out->ca));
    TRY(read_pem(options->cert_file, "CERTIFICATE", &out->cert));
    return read_pem(options->key_file, "PRIVATE KEY", &out->key);
}

static err_t open_transport(const struct bantam_client_options *options, struct grpc_client_queue *queue,
                            struct grpc_client **out)
{
    struct pem_texts pem = {NULL, NULL, NULL};
    err_t e = read_pems(options, &pem);
    if (e.code == ERR_OK) {
        bool tls = options->tls || options->ca_file || options->cert_file || options->server_name;
        struct grpc_client_tls tls_options = {pem.ca, pem.cert, pem.key, options->server_name};
        struct grpc_client_options transport = {
            .queue = queue,
            .max_message_bytes = options->max_message_bytes,
            .window_bytes = options->window_bytes,
            .own_connection = options->own_connection,
            .tls = tls ? &tls_options : NULL,
            .balancing = options->balancing == BANTAM_ROUND_ROBIN ? "round_robin" : NULL,
            .user_agent = "bantam-c-client",
            .keepalive_time_ms = options->keepalive_time_ms,
            .keepalive_timeout_ms = options->keepalive_timeout_ms,
            .connect_timeout_ms = options->connect_timeout_ms,
            .reconnect_min_ms = options->reconnect_min_ms,
            .reconnect_max_ms = options->reconnect_max_ms,
        };
        e = grpc_client_open(options->target, &transport, out);
    }
    mem_free(pem.ca);
    mem_free(pem.cert);
    wipe(pem.key);
    return e;
}

err_t client_options_apply(const struct bantam_client_options *options, struct grpc_client_queue *queue,
                           struct header_list *headers, struct grpc_client **transport)
{
    if (!options->target || !options->target[0])
        return err_new(ERR_INVALID_ARGUMENT, "a client needs a target, such as 127.0.0.1:50051");
    if (options->max_calls < 1)
        return err_new(ERR_INVALID_ARGUMENT, "max_calls is 0; it must be at least 1");
    TRY(retry_options_check(&options->retry));
    err_t e = fill_headers(options, headers);
    if (e.code == ERR_OK)
        e = open_transport(options, queue, transport);
    if (e.code != ERR_OK)
        header_list_free(headers);
    return e;
}
