/* A small asynchronous gRPC client: many calls over one connection and one completion queue, driven by one
 * thread. It moves bytes; proto/codec_flatbuffers.h says what they mean. Everything of a client belongs to
 * the thread that polls it, but for grpc_client_cancel. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <grpc/status.h>
#include "base/error.h"

struct grpc_client;
struct client_call;

#define CLIENT_NO_TIMEOUT INT64_C(-1)

struct client_status {
    grpc_status_code code;
    const char *message; /* NUL-terminated, valid during on_done */
    bool has_pushback;   /* the server sent grpc-retry-pushback-ms */
    int64_t pushback_ms;
};

/* Called from grpc_client_poll. */
struct client_handler {
    /* One message, valid during the call. False: read no more until grpc_client_resume (flow control then
     * holds the server back). */
    bool (*on_message)(void *context, const uint8_t *bytes, size_t size_bytes);
    /* The end, exactly once; the call is gone afterwards. */
    void (*on_done)(void *context, const struct client_status *status);
};

struct grpc_client_options {
    size_t max_message_bytes; /* of an answer; 0 = 64 MiB */
    size_t window_bytes; /* the server may send so much of a stream before it is read; 0 = gRPC's choice */
    bool own_connection; /* do not share a TCP connection with other clients of this process */
};

/* target: "127.0.0.1:50051". Connects lazily: an unreachable server shows as UNAVAILABLE at the first call.
 */
err_t grpc_client_open(const char *target, const struct grpc_client_options *options,
                       struct grpc_client **out) ERR_MUST_CHECK;
/* Cancels what is under way (their on_done is called) and frees everything. */
void grpc_client_close(struct grpc_client *client);

/* Sends one message to `path` and reads the answers. timeout_ns: CLIENT_NO_TIMEOUT or the call's deadline
 * from now. handler and context must live until on_done. */
err_t grpc_client_start(struct grpc_client *client, const char *path, const uint8_t *bytes, size_t size_bytes,
                        int64_t timeout_ns, const struct client_handler *handler, void *context,
                        struct client_call **out) ERR_MUST_CHECK;
/* Any thread, before on_done. */
void grpc_client_cancel(struct client_call *call);
void grpc_client_resume(struct client_call *call);

/* Runs one event's callbacks; false when there was none within timeout_ns (negative: waits as long as it
 * takes). */
bool grpc_client_poll(struct grpc_client *client, int64_t timeout_ns);
uint32_t grpc_client_calls(const struct grpc_client *client); /* under way */

/* Waits for one answer to one message. *answer (mem_alloc'd, caller mem_free's) when status is OK. Other
 * calls of the client go on meanwhile. */
err_t grpc_client_unary(struct grpc_client *client, const char *path, const uint8_t *bytes, size_t size_bytes,
                        int64_t timeout_ns, uint8_t **answer, size_t *answer_bytes) ERR_MUST_CHECK;
