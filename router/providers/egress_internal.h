/* Between the threads of egress.c and the calls of egress_call.c. */
#pragma once

#include <curl/curl.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <pthread.h>
#include <stdatomic.h>
#include "router/providers/egress.h"

enum {
    FLIGHT_TABLE_SIZE = 4096, /* a power of 2 */
    LANE_BITS = 5,            /* of a call's number: whose it is */
    LANES_MAX = 1 << LANE_BITS,
    IDLE_FLIGHTS_MAX = 64, /* of a lane: to be made a call again without telling curl everything anew */
};

enum flight_command { FLIGHT_START = 1, FLIGHT_CANCEL = 2, FLIGHT_RESUME = 4 };

/* Where a call goes and what goes along with every one that goes there: what curl has been told of it stays.
 */
struct flight_target {
    CURL *easy;
    struct curl_slist *headers;
    char *url, *ca_file; /* ca_file: NULL = the system's */
    int64_t connect_timeout_ms;
    bool is_tls;
};

/* One call under way. Made by any thread, then its lane's, but for what the lock guards. */
struct flight {
    struct flight_target target;
    struct lane *lane;
    uint64_t number;
    struct flight *next_in_table, *next_in_inbox; /* under the lock */
    unsigned commands;                            /* under the lock: not 0 = in the inbox */

    const struct egress_handler *handler;
    void *context;
    int64_t first_byte_timeout_ms, chunk_timeout_ms, total_timeout_ms;
    char *body; /* curl reads it until the end */
    struct event timer;
    struct egress_head head;
    struct egress_times times;
    size_t head_bytes;
    int64_t last_byte_ns;
    uint64_t added_turn;                        /* of the lane */
    bool has_head, is_paused, is_added, is_cut; /* is_cut: not read to its end */
    err_t stop;                                 /* why we end it; OK while we do not */
    char fault[CURL_ERROR_SIZE];
};

/* What is watched at a descriptor. */
struct lane_socket {
    struct event *event; /* owned */
    short events;        /* that are watched; 0 = none */
    bool is_wanted;      /* by curl, now */
    bool is_connection;  /* opened and closed by the lane */
};

/* A thread that has calls, with its own connections: the first is the egress's own, for whoever has none. */
struct lane {
    struct egress *egress;
    uint32_t index;
    struct event_base *base;
    struct event *wake, *told, *multi_timer; /* told: as wake, by the lane's own thread */
    int wake_fd; /* lives as long as the egress: others may be about to write it */
    CURLM *multi;
    uint64_t n_turns;            /* of curl, begun */
    struct lane_socket *sockets; /* [n_sockets] owned; by descriptor */
    size_t n_sockets;

    pthread_mutex_t lock; /* of what follows */
    struct flight *table[FLIGHT_TABLE_SIZE], *inbox;
    struct flight *idle; /* the last that ended first; by next_in_inbox */
    uint32_t n_idle;
    uint64_t last_number;
    _Atomic bool is_closing;
};

struct egress {
    struct egress_options options;
    pthread_t thread; /* of the first lane */
    _Atomic uint32_t n_active;
    pthread_mutex_t lock; /* of making lanes */
    _Atomic uint32_t n_lanes;
    struct lane *lanes[LANES_MAX]; /* those below n_lanes are there until the end */
};

bool url_is_tls(const char *url);
err_t flight_make(struct lane *lane, const struct egress_call *call, const struct egress_handler *handler,
                  void *context, struct flight **out) ERR_MUST_CHECK;
/* Keeps what was made for another call, or frees it; tells nobody. */
void flight_free(struct flight *flight);
void lane_free_idle(struct lane *lane);
/* On the lane's thread. */
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
struct flight *lane_find(struct lane *lane, bool (*is_so)(const struct flight *flight, const void *context),
                         const void *context);
/* For curl: connections that it may keep. */
curl_socket_t lane_open_socket(void *context, curlsocktype purpose, struct curl_sockaddr *address);
int lane_close_socket(void *context, curl_socket_t fd);
/* Forgets the number and whatever it was told meanwhile. */
void lane_forget(struct lane *lane, struct flight *flight);
/* Lets curl look at its sockets and timers, and ends what is done. */
void lane_turn(struct lane *lane, curl_socket_t socket, int events);
