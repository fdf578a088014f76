#include "proto/tls_watch.h"

#include <dlfcn.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include "base/alloc.h"
#include "base/clock.h"
#include "proto/connection_watch.h"

/* Of one connection; belongs to the SSL. */
struct tls_watched {
    const struct connection_watch *watch;
    bool is_cut;
    struct frame_count frames;
};

static struct {
    pthread_once_t once;
    int (*read)(SSL *ssl, void *bytes, int n_bytes); /* OpenSSL's */
    int index;                                       /* of SSL's data; -1: not to be had */
} state = {.once = PTHREAD_ONCE_INIT, .index = -1};

static void free_watched(void *parent, void *data, CRYPTO_EX_DATA *all, int index, long argument,
                         void *context)
{
    (void)parent;
    (void)all;
    (void)index;
    (void)argument;
    (void)context;
    mem_free(data);
}

static void prepare(void)
{
    *(void **)&state.read = dlsym(RTLD_NEXT, "SSL_read");
    state.index = SSL_get_ex_new_index(0, NULL, NULL, NULL, free_watched);
}

err_t tls_watch_prepare(void)
{
    (void)pthread_once(&state.once, prepare);
    return state.index >= 0 && state.read
               ? err_ok()
               : err_new(ERR_RESOURCE_EXHAUSTED, "OpenSSL has no room for a server's connections");
}

/* The connection that is read now, when it is a watched server's. Without memory it is not watched. */
static struct tls_watched *watched_of(SSL *ssl)
{
    struct tls_watched *watched = state.index >= 0 ? SSL_get_ex_data(ssl, state.index) : NULL;
    const struct connection_watch *watch = connection_watch_reading();
    if (watched || !watch || state.index < 0 || !SSL_is_server(ssl))
        return watched;
    watched = mem_alloc(sizeof *watched);
    if (watched && SSL_set_ex_data(ssl, state.index, watched) != 1) {
        mem_free(watched);
        watched = NULL;
    }
    if (watched)
        watched->watch = watch;
    return watched;
}

__attribute__((visibility("default"))) int SSL_read(SSL *ssl, void *bytes, int n_most)
{
    (void)pthread_once(&state.once, prepare);
    struct tls_watched *watched = watched_of(ssl);
    int n_bytes = watched && watched->is_cut ? -1 : state.read(ssl, bytes, n_most);
    if (!watched)
        return n_bytes;
    if (n_bytes > 0) {
        enum frame_fault fault = frame_count_add(&watched->frames, &watched->watch->limits, bytes,
                                                 (size_t)n_bytes, clock_now_ns(clock_monotonic()));
        if (fault != FRAME_FINE) {
            watched->is_cut = true;
            connection_watch_count_cut(watched->watch, fault);
        }
    }
    if (!watched->is_cut)
        return n_bytes;
    ERR_raise(ERR_LIB_USER, ERR_R_OPERATION_FAIL); /* else OpenSSL would say that more is to come */
    return -1;
}
