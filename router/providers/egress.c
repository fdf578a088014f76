#include "router/providers/egress.h"

#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/deferred.h"
#include "router/providers/egress_internal.h"

enum { STREAMS_PER_CONNECTION = 100 }; /* of HTTP/2 */

struct egress_options egress_options_default(void)
{
    return (struct egress_options){
        .max_calls = 16384, .max_connections_per_host = 16384, .user_agent = "bantam"};
}

static _Thread_local struct lane *own_lane; /* of this thread; NULL = it has none */

static struct flight **place_of(struct lane *lane, uint64_t number)
{
    struct flight **place = &lane->table[number >> LANE_BITS & (FLIGHT_TABLE_SIZE - 1)];
    while (*place && (*place)->number != number)
        place = &(*place)->next_in_table;
    return place;
}

static void wake(struct lane *lane)
{
    if (lane == own_lane) {
        event_active(lane->told, EV_TIMEOUT, 0);
        return;
    }
    ssize_t written = write(lane->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
    (void)written; /* full: it is awake already */
}

/* Under the lock. True: the lane must be woken; where others wait in the inbox it has been. */
static bool command(struct lane *lane, struct flight *flight, enum flight_command what)
{
    bool is_first = lane->inbox == NULL;
    if (flight->commands == 0) {
        flight->next_in_inbox = lane->inbox;
        lane->inbox = flight;
    }
    flight->commands |= what;
    return is_first;
}

/* Takes a place among the calls. */
static bool take_place(struct egress *egress)
{
    if (atomic_fetch_add(&egress->n_active, 1) < egress->options.max_calls)
        return true;
    atomic_fetch_sub(&egress->n_active, 1);
    return false;
}

/* This thread's own, or the one for everybody: there calls over TLS share connections, whoever started them.
 */
static struct lane *choose_lane(struct egress *egress, const char *url)
{
    bool is_own =
        own_lane && own_lane->egress == egress && !atomic_load(&own_lane->is_closing) && !url_is_tls(url);
    return is_own ? own_lane : egress->lanes[0];
}

err_t egress_start(struct egress *egress, const struct egress_call *call,
                   const struct egress_handler *handler, void *context, uint64_t *number)
{
    struct lane *lane = choose_lane(egress, call->url);
    struct flight *flight;
    TRY(flight_make(lane, call, handler, context, &flight));
    bool has_room = take_place(egress);
    pthread_mutex_lock(&lane->lock);
    bool is_taken = has_room && !atomic_load(&lane->is_closing), is_first = false;
    if (is_taken) {
        *number = flight->number = ++lane->last_number << LANE_BITS | lane->index;
        *place_of(lane, flight->number) = flight;
        is_first = command(lane, flight, FLIGHT_START);
    }
    pthread_mutex_unlock(&lane->lock);
    if (is_taken) {
        if (is_first)
            wake(lane);
        return err_ok();
    }
    if (has_room)
        atomic_fetch_sub(&egress->n_active, 1);
    flight_free(flight);
    return err_new(ERR_RESOURCE_EXHAUSTED, "%u calls to providers are under way, which is the limit",
                   egress->options.max_calls);
}

static void tell(struct egress *egress, uint64_t number, enum flight_command what)
{
    uint32_t index = (uint32_t)number & (LANES_MAX - 1);
    if (index >= atomic_load(&egress->n_lanes))
        return;
    struct lane *lane = egress->lanes[index];
    pthread_mutex_lock(&lane->lock);
    struct flight *flight = *place_of(lane, number);
    bool is_first = flight && command(lane, flight, what);
    pthread_mutex_unlock(&lane->lock);
    if (is_first)
        wake(lane);
}

void egress_cancel(struct egress *egress, uint64_t number)
{
    tell(egress, number, FLIGHT_CANCEL);
}

void egress_resume(struct egress *egress, uint64_t number)
{
    tell(egress, number, FLIGHT_RESUME);
}

uint32_t egress_active(struct egress *egress)
{
    return atomic_load(&egress->n_active);
}

void lane_forget(struct lane *lane, struct flight *flight)
{
    pthread_mutex_lock(&lane->lock);
    struct flight **place = place_of(lane, flight->number);
    ASSERT(*place == flight);
    *place = flight->next_in_table;
    if (flight->commands != 0) {
        place = &lane->inbox;
        while (*place != flight)
            place = &(*place)->next_in_inbox;
        *place = flight->next_in_inbox;
    }
    pthread_mutex_unlock(&lane->lock);
    atomic_fetch_sub(&lane->egress->n_active, 1);
}

/* The next flight that was told something; NULL = none. */
static struct flight *next_told(struct lane *lane, unsigned *commands)
{
    pthread_mutex_lock(&lane->lock);
    struct flight *flight = lane->inbox;
    if (flight) {
        lane->inbox = flight->next_in_inbox;
        *commands = flight->commands;
        flight->commands = 0;
    }
    pthread_mutex_unlock(&lane->lock);
    return flight;
}

struct flight *lane_find(struct lane *lane, bool (*is_so)(const struct flight *flight, const void *context),
                         const void *context)
{
    struct flight *flight = NULL;
    pthread_mutex_lock(&lane->lock);
    for (size_t i = 0; i < FLIGHT_TABLE_SIZE && flight == NULL; i++) {
        flight = lane->table[i];
        while (flight && !is_so(flight, context))
            flight = flight->next_in_table;
    }
    pthread_mutex_unlock(&lane->lock);
    return flight;
}

static bool is_any(const struct flight *flight, const void *context)
{
    return flight && context == NULL;
}

static void hear(struct lane *lane)
{
    unsigned commands;
    struct flight *flight;
    deferred_begin();
    while ((flight = next_told(lane, &commands)) != NULL) {
        if (commands & FLIGHT_CANCEL) {
            flight_cut(flight, err_new(ERR_CANCELLED, "the call to the provider was cancelled"));
            continue;
        }
        if (commands & FLIGHT_START)
            flight_start(flight);
        else if (commands & FLIGHT_RESUME)
            flight_resume(flight);
    }
    lane_turn(lane, CURL_SOCKET_TIMEOUT, 0);
    deferred_end();
}

static void on_told(evutil_socket_t fd, short events, void *context)
{
    (void)fd;
    (void)events;
    hear(context);
}

static void on_wake(evutil_socket_t fd, short events, void *context)
{
    struct lane *lane = context;
    uint64_t count;
    ssize_t got = read(fd, &count, sizeof count);
    (void)got;
    (void)events;
    hear(lane);
    if (atomic_load(&lane->is_closing)) /* of the egress's own thread alone */
        event_base_loopbreak(lane->base);
}

void lane_turn(struct lane *lane, curl_socket_t socket, int events)
{
    int n_running, n_left;
    lane->n_turns++;
    deferred_begin();
    ASSERT(curl_multi_socket_action(lane->multi, socket, events, &n_running) == CURLM_OK);
    CURLMsg *message;
    while ((message = curl_multi_info_read(lane->multi, &n_left)) != NULL) {
        if (message->msg != CURLMSG_DONE)
            continue;
        struct flight *flight;
        CURLcode code = message->data.result;
        ASSERT(curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&flight) == CURLE_OK);
        flight_done(flight, code);
    }
    deferred_end();
}

static void on_multi_timer(evutil_socket_t fd, short events, void *context)
{
    (void)fd;
    (void)events;
    lane_turn(context, CURL_SOCKET_TIMEOUT, 0);
}

/* --- sockets */

static void stop_watching(struct lane_socket *socket)
{
    if (socket->events != 0)
        event_del(socket->event);
    socket->events = 0;
}

static void on_socket(evutil_socket_t fd, short events, void *context)
{
    struct lane *lane = context;
    struct lane_socket *socket = &lane->sockets[fd];
    int what = (events & EV_READ ? CURL_CSELECT_IN : 0) | (events & EV_WRITE ? CURL_CSELECT_OUT : 0);
    if (socket->is_wanted)
        lane_turn(lane, fd, what);
    else
        stop_watching(socket); /* an idle connection: curl finds out when it would use it again */
}

/* NULL without memory. */
static struct lane_socket *socket_of(struct lane *lane, curl_socket_t fd)
{
    size_t n = lane->n_sockets > 0 ? lane->n_sockets : 64;
    while (n <= (size_t)fd)
        n *= 2;
    if (n > lane->n_sockets) {
        struct lane_socket *grown = mem_realloc(lane->sockets, n * sizeof *grown);
        if (grown == NULL)
            return NULL;
        memset(grown + lane->n_sockets, 0, (n - lane->n_sockets) * sizeof *grown);
        lane->sockets = grown;
        lane->n_sockets = n;
    }
    return &lane->sockets[fd];
}

static bool watch(struct lane *lane, struct lane_socket *socket, curl_socket_t fd, short events)
{
    socket->is_wanted = true;
    if (socket->events == events)
        return true;
    stop_watching(socket);
    if (socket->event == NULL)
        socket->event = event_new(lane->base, fd, events, on_socket, lane);
    else
        (void)event_assign(socket->event, lane->base, fd, events, on_socket, lane);
    if (socket->event == NULL || event_add(socket->event, NULL) != 0)
        return false;
    socket->events = events;
    return true;
}

static void forget_socket(struct lane_socket *socket)
{
    if (socket->event) {
        stop_watching(socket);
        event_free(socket->event);
    }
    *socket = (struct lane_socket){0};
}

/* curl says what it waits for at a socket. A connection that it keeps for the next call goes on being
 * watched, or each call would ask the system twice. One that is not made yet does not: where its call is
 * given up, curl 7.88 closes it without telling (cf-socket.c: one that "we did never publish"), and its
 * number may be another socket's. */
static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *context, void *of_socket)
{
    (void)easy;
    (void)of_socket;
    struct lane *lane = context;
    struct lane_socket *socket = socket_of(lane, fd);
    if (socket == NULL)
        return -1;
    if (what != CURL_POLL_REMOVE) {
        int events = (what & CURL_POLL_IN ? EV_READ : 0) | (what & CURL_POLL_OUT ? EV_WRITE : 0);
        return watch(lane, socket, fd, (short)(events | EV_PERSIST)) ? 0 : -1;
    }
    socket->is_wanted = false;
    if (!socket->is_connection || !(socket->events & EV_READ))
        forget_socket(socket);
    return 0;
}

curl_socket_t lane_open_socket(void *context, curlsocktype purpose, struct curl_sockaddr *address)
{
    (void)purpose;
    struct lane *lane = context;
    int fd = socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
    struct lane_socket *place = fd >= 0 ? socket_of(lane, fd) : NULL;
    if (place) {
        forget_socket(place);
        place->is_connection = true;
        return fd;
    }
    if (fd >= 0)
        close(fd);
    return CURL_SOCKET_BAD;
}

int lane_close_socket(void *context, curl_socket_t fd)
{
    struct lane *lane = context;
    forget_socket(&lane->sockets[fd]);
    return close(fd);
}

static int set_multi_timer(CURLM *multi, long timeout_ms, void *context)
{
    (void)multi;
    struct lane *lane = context;
    if (timeout_ms < 0)
        return event_del(lane->multi_timer);
    struct timeval wait = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
    return event_add(lane->multi_timer, &wait);
}

/* Whoever still waits for an answer gets none. */
static void end_flights(struct lane *lane)
{
    struct flight *flight;
    while ((flight = lane_find(lane, is_any, NULL)) != NULL)
        flight_end(flight, err_new(ERR_CANCELLED, "the router is closing"));
}

static void *run(void *context)
{
    struct lane *lane = context;
    own_lane = lane;
    (void)event_base_loop(lane->base, EVLOOP_NO_EXIT_ON_EMPTY);
    end_flights(lane);
    return NULL;
}

static bool set_up(struct lane *lane)
{
    lane->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    lane->multi = curl_multi_init();
    if (lane->wake_fd < 0 || lane->base == NULL || lane->multi == NULL)
        return false;
    lane->wake = event_new(lane->base, lane->wake_fd, EV_READ | EV_PERSIST, on_wake, lane);
    lane->told = evtimer_new(lane->base, on_told, lane);
    lane->multi_timer = evtimer_new(lane->base, on_multi_timer, lane);
    if (lane->wake == NULL || lane->told == NULL || lane->multi_timer == NULL ||
        event_add(lane->wake, NULL) != 0)
        return false;
    CURLM *multi = lane->multi;
    return curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, watch_socket) == CURLM_OK &&
           curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, lane) == CURLM_OK &&
           curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, set_multi_timer) == CURLM_OK &&
           curl_multi_setopt(multi, CURLMOPT_TIMERDATA, lane) == CURLM_OK &&
           curl_multi_setopt(multi, CURLMOPT_MAX_CONCURRENT_STREAMS, (long)STREAMS_PER_CONNECTION) ==
               CURLM_OK &&
           curl_multi_setopt(multi, CURLMOPT_MAX_HOST_CONNECTIONS,
                             (long)lane->egress->options.max_connections_per_host) == CURLM_OK;
}

/* All but what other threads may still look at. */
static void stop_lane(struct lane *lane)
{
    lane_free_idle(lane);
    if (lane->multi)
        curl_multi_cleanup(lane->multi); /* closes idle connections, and gives back their events */
    for (size_t i = 0; i < lane->n_sockets; i++)
        forget_socket(&lane->sockets[i]);
    if (lane->multi_timer)
        event_free(lane->multi_timer);
    if (lane->told)
        event_free(lane->told);
    if (lane->wake)
        event_free(lane->wake);
    lane->multi = NULL;
    lane->multi_timer = lane->told = lane->wake = NULL;
    lane->base = NULL;
}

static void free_lane(struct lane *lane)
{
    mem_free(lane->sockets);
    if (lane->wake_fd >= 0)
        close(lane->wake_fd);
    pthread_mutex_destroy(&lane->lock);
    mem_free(lane);
}

/* On a loop; NULL without memory or descriptors. */
static struct lane *make_lane(struct egress *egress, struct event_base *base)
{
    struct lane *lane = mem_alloc(sizeof *lane);
    if (lane == NULL)
        return NULL;
    lane->egress = egress;
    lane->base = base;
    lane->wake_fd = -1;
    ASSERT(pthread_mutex_init(&lane->lock, NULL) == 0);
    if (set_up(lane))
        return lane;
    stop_lane(lane);
    free_lane(lane);
    return NULL;
}

/* From here on calls have numbers of it. False: there are as many as there may be. */
static bool enter_lane(struct egress *egress, struct lane *lane)
{
    pthread_mutex_lock(&egress->lock);
    uint32_t n = atomic_load(&egress->n_lanes);
    if (n < LANES_MAX) {
        lane->index = n;
        egress->lanes[n] = lane;
        atomic_store(&egress->n_lanes, n + 1);
    }
    pthread_mutex_unlock(&egress->lock);
    return n < LANES_MAX;
}

bool egress_join(struct egress *egress, struct event_base *base)
{
    ASSERT(own_lane == NULL);
    struct lane *lane = make_lane(egress, base);
    if (lane == NULL)
        return false;
    if (!enter_lane(egress, lane)) {
        stop_lane(lane);
        free_lane(lane);
        return false;
    }
    own_lane = lane;
    return true;
}

void egress_leave(struct egress *egress)
{
    struct lane *lane = own_lane;
    if (lane == NULL || lane->egress != egress)
        return;
    atomic_store(&lane->is_closing, true); /* what its ends begin anew is the first one's */
    end_flights(lane);
    own_lane = NULL;
    stop_lane(lane);
}

static void init_curl(void)
{
    ASSERT(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
}

static void free_egress(struct egress *egress)
{
    uint32_t n = atomic_load(&egress->n_lanes);
    if (n > 0) {
        struct event_base *base = egress->lanes[0]->base;
        stop_lane(egress->lanes[0]);
        event_base_free(base);
    }
    for (uint32_t i = 0; i < n; i++)
        free_lane(egress->lanes[i]);
    pthread_mutex_destroy(&egress->lock);
    mem_free(egress);
}

err_t egress_open(const struct egress_options *options, struct egress **out)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    ASSERT(pthread_once(&once, init_curl) == 0);
    struct egress *egress = mem_alloc(sizeof *egress);
    if (egress == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for calls to providers");
    egress->options = *options;
    ASSERT(pthread_mutex_init(&egress->lock, NULL) == 0);
    struct event_base *base = event_base_new();
    struct lane *lane = base ? make_lane(egress, base) : NULL;
    if (lane)
        (void)enter_lane(egress, lane);
    else if (base)
        event_base_free(base);
    if (lane == NULL || pthread_create(&egress->thread, NULL, run, lane) != 0) {
        free_egress(egress);
        return err_new(ERR_RESOURCE_EXHAUSTED, "no descriptors, thread or memory for calls to providers");
    }
    (void)pthread_setname_np(egress->thread, "bantam-egress");
    *out = egress;
    return err_ok();
}

void egress_close(struct egress *egress)
{
    if (egress == NULL)
        return;
    struct lane *first = egress->lanes[0];
    pthread_mutex_lock(&first->lock);
    atomic_store(&first->is_closing, true); /* nothing is started there behind its end */
    pthread_mutex_unlock(&first->lock);
    wake(first);
    pthread_join(egress->thread, NULL);
    for (uint32_t i = 1; i < atomic_load(&egress->n_lanes); i++)
        ASSERT(atomic_load(&egress->lanes[i]->is_closing)); /* its thread has left */
    free_egress(egress);
}
