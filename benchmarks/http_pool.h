/* Exchanges of HTTP/1.1 in clear with one server, as many at once as are started, over connections that are
 * kept and used again. For loads: little work an exchange, nothing but answers of 200 is good. One thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

struct http_pool;

enum { HTTP_POOL_ADDRESS_BYTES_MAX = 255 };

/* `exchange` is what was given to http_pool_send. */
struct http_pool_handler {
    /* A piece of the body, without the frames of chunks. now_ns: clock_monotonic. An error ends the exchange.
     */
    err_t (*on_body)(void *exchange, const char *data, size_t size_bytes, int64_t now_ns);
    /* Exactly once, the last of it. Neither may start exchanges. */
    void (*on_done)(void *exchange, const err_t *error, int64_t now_ns);
};

/* Copies the address, "127.0.0.1:80"; the handler stays the caller's. UNAVAILABLE: no such name. */
err_t http_pool_open(const char *address, const struct http_pool_handler *handler,
                     struct http_pool **out) ERR_MUST_CHECK;
/* Nobody hears of what is under way. NULL is fine. */
void http_pool_close(struct http_pool *pool);
/* A whole request, copied. It is sent again over another connection when the server closes a kept one before
 * it answers. An error: nothing was started. */
err_t http_pool_send(struct http_pool *pool, void *exchange, const char *request,
                     size_t size_bytes) ERR_MUST_CHECK;
/* Handles what has come, or waits for it, not longer than timeout_ns; negative = as long as it takes. */
err_t http_pool_poll(struct http_pool *pool, int64_t timeout_ns) ERR_MUST_CHECK;
