#include "proto/grpc_channel.h"

#include <grpc/grpc_security.h>
#include "base/assert.h"

enum {
    CLIENT_MESSAGE_BYTES_DEFAULT = 64 << 20,
    CLIENT_KEEPALIVE_TIME_MS = 30000,
    CLIENT_KEEPALIVE_TIMEOUT_MS = 20000,
    CLIENT_WINDOW_BYTES_DEFAULT = 65536, /* where gRPC starts from as well */
    CHANNEL_ARGS_MAX = 16,
};

struct channel_args {
    grpc_arg args[CHANNEL_ARGS_MAX];
    size_t n;
};

static void add_int(struct channel_args *args, const char *key, int64_t value)
{
    ASSERT(args->n < CHANNEL_ARGS_MAX);
    grpc_arg arg = {.type = GRPC_ARG_INTEGER, .key = (char *)key};
    arg.value.integer = value > INT32_MAX ? INT32_MAX : (int)value;
    args->args[args->n++] = arg;
}

/* 0: what gRPC does by itself. */
static void add_ms(struct channel_args *args, const char *key, int64_t ms)
{
    if (ms > 0)
        add_int(args, key, ms);
}

static void add_text(struct channel_args *args, const char *key, const char *value)
{
    ASSERT(args->n < CHANNEL_ARGS_MAX);
    if (!value)
        return;
    grpc_arg arg = {.type = GRPC_ARG_STRING, .key = (char *)key};
    arg.value.string = (char *)value;
    args->args[args->n++] = arg;
}

static void fill_args(const struct grpc_client_options *options, struct channel_args *args)
{
    size_t max_bytes = options->max_message_bytes ? options->max_message_bytes : CLIENT_MESSAGE_BYTES_DEFAULT;
    size_t window_bytes = options->window_bytes ? options->window_bytes : CLIENT_WINDOW_BYTES_DEFAULT;
    int64_t time_ms = options->keepalive_time_ms, timeout_ms = options->keepalive_timeout_ms;
    add_int(args, GRPC_ARG_MAX_RECEIVE_MESSAGE_LENGTH, (int64_t)max_bytes);
    add_int(args, GRPC_ARG_ENABLE_RETRIES, 0); /* whoever knows what a request means tries again */
    add_int(args, GRPC_ARG_KEEPALIVE_TIME_MS, time_ms > 0 ? time_ms : CLIENT_KEEPALIVE_TIME_MS);
    add_int(args, GRPC_ARG_KEEPALIVE_TIMEOUT_MS, timeout_ms > 0 ? timeout_ms : CLIENT_KEEPALIVE_TIMEOUT_MS);
    add_int(args, GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    add_int(args, GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, options->own_connection);
    add_int(args, GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, (int64_t)window_bytes);
    add_int(args, GRPC_ARG_HTTP2_BDP_PROBE, options->window_bytes == 0); /* it would widen the window */
    add_ms(args, GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, options->connect_timeout_ms);
    add_ms(args, GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, options->reconnect_min_ms);
    add_ms(args, GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, options->reconnect_max_ms);
    add_text(args, GRPC_ARG_LB_POLICY_NAME, options->balancing);
    add_text(args, GRPC_ARG_PRIMARY_USER_AGENT_STRING, options->user_agent);
    if (options->tls)
        add_text(args, GRPC_SSL_TARGET_NAME_OVERRIDE_ARG, options->tls->server_name);
}

static grpc_channel_credentials *make_credentials(const struct grpc_client_tls *tls)
{
    if (!tls)
        return grpc_insecure_credentials_create();
    grpc_ssl_pem_key_cert_pair pair = {tls->key_pem, tls->cert_pem};
    return grpc_ssl_credentials_create_ex(tls->ca_pem, tls->cert_pem ? &pair : NULL, NULL, NULL);
}

err_t grpc_channel_open(const char *target, const struct grpc_client_options *options, grpc_channel **out)
{
    struct channel_args args = {.n = 0};
    fill_args(options, &args);
    grpc_channel_credentials *credentials = make_credentials(options->tls);
    if (!credentials)
        return err_new(ERR_INVALID_ARGUMENT, "gRPC cannot use these authorities or this certificate and key");
    grpc_channel_args channel_args = {.num_args = args.n, .args = args.args};
    *out = grpc_channel_create(target, credentials, &channel_args);
    grpc_channel_credentials_release(credentials);
    return err_ok();
}
