/* Between the thread of egress.c and the calls of egress_call.c. */
#pragma once

#include <curl/curl.h>
#include <event2/event.h>
#include <pthread.h>
#include "router/providers/egress.h"

enum { FLIGHT_TABLE_SIZE = 4096 }; /* a power of 2 */

enum flight_command { FLIGHT_START = 1, FLIGHT_CANCEL = 2, FLIGHT_RESUME = 4 };

/* One call under way. Made by any thread, then the egress thread's, but for what the lock guards. */
struct flight {
    struct egress *egress;
    uint64_t number;
    struct flight *next_in_table, *next_in_inbox; /* under the lock */
    unsigned commands;                            /* under the lock: not 0 = in the inbox */

    const struct egress_handler *handler;
    void *context;
    int64_t first_byte_timeout_ms, chunk_timeout_ms, total_timeout_ms;
    CURL *easy;
    struct curl_slist *headers;
    struct event *timer;
    struct egress_head head;
    struct egress_times times;
    size_t head_bytes;
    int64_t last_byte_ns;
    bool has_head, is_paused, is_added, is_tls;
    err_t stop; /* why we end it; OK while we do not */
    char fault[CURL_ERROR_SIZE];
};

struct egress {
    struct egress_options options;
    struct event_base *base;
    struct event *wake, *multi_timer;
    int wake_fd;
    CURLM *multi;
    pthread_t thread;

    pthread_mutex_t lock; /* of what follows */
    struct flight *table[FLIGHT_TABLE_SIZE], *inbox;
    uint64_t last_number;
    uint32_t n_active;
    bool is_closing;
};

err_t flight_make(struct egress *egress, const struct egress_call *call, const struct egress_handler *handler,
                  void *context, struct flight **out) ERR_MUST_CHECK;
/* Frees what was made; tells nobody. */
void flight_free(struct flight *flight);
/* On the egress thread. */
void flight_start(struct flight *flight);
void flight_resume(struct flight *flight);
/* Takes it off curl, tells its handler and frees it. */
void flight_end(struct flight *flight, err_t error);
/* The same of one whose answer was not read to its end: the provider hears of it at once. Not from a callback
 * of curl's. */
void flight_cut(struct flight *flight, err_t error);
/* curl is done with it. */
void flight_done(struct flight *flight, CURLcode code);

/* egress.c: a flight that is so; NULL = none. */
struct flight *egress_find(struct egress *egress,
                           bool (*is_so)(const struct flight *flight, const void *context),
                           const void *context);
/* Forgets the number and whatever it was told meanwhile. */
void egress_forget(struct egress *egress, struct flight *flight);
/* Lets curl look at its sockets and timers, and ends what is done. */
void egress_turn(struct egress *egress, curl_socket_t socket, int events);
