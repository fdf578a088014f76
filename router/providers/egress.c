#include "router/providers/egress.h"

#include <sys/eventfd.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "router/providers/egress_internal.h"

enum { STREAMS_PER_CONNECTION = 100 }; /* of HTTP/2 */

struct egress_options egress_options_default(void)
{
    return (struct egress_options){
        .max_calls = 16384, .max_connections_per_host = 1024, .user_agent = "bantam"};
}

static struct flight **place_of(struct egress *egress, uint64_t number)
{
    struct flight **place = &egress->table[number & (FLIGHT_TABLE_SIZE - 1)];
    while (*place && (*place)->number != number)
        place = &(*place)->next_in_table;
    return place;
}

static void wake(struct egress *egress)
{
    ssize_t written = write(egress->wake_fd, &(uint64_t){1}, sizeof(uint64_t));
    (void)written; /* full: it is awake already */
}

/* Under the lock. */
static void command(struct egress *egress, struct flight *flight, enum flight_command what)
{
    if (flight->commands == 0) {
        flight->next_in_inbox = egress->inbox;
        egress->inbox = flight;
    }
    flight->commands |= what;
}

err_t egress_start(struct egress *egress, const struct egress_call *call,
                   const struct egress_handler *handler, void *context, uint64_t *number)
{
    struct flight *flight;
    TRY(flight_make(egress, call, handler, context, &flight));
    pthread_mutex_lock(&egress->lock);
    bool has_room = egress->n_active < egress->options.max_calls && !egress->is_closing;
    if (has_room) {
        *number = flight->number = ++egress->last_number;
        *place_of(egress, flight->number) = flight;
        egress->n_active++;
        command(egress, flight, FLIGHT_START);
    }
    pthread_mutex_unlock(&egress->lock);
    if (has_room) {
        wake(egress);
        return err_ok();
    }
    flight_free(flight);
    return err_new(ERR_RESOURCE_EXHAUSTED, "%u calls to providers are under way, which is the limit",
                   egress->options.max_calls);
}

static void tell(struct egress *egress, uint64_t number, enum flight_command what)
{
    pthread_mutex_lock(&egress->lock);
    struct flight *flight = *place_of(egress, number);
    if (flight)
        command(egress, flight, what);
    pthread_mutex_unlock(&egress->lock);
    if (flight)
        wake(egress);
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
    pthread_mutex_lock(&egress->lock);
    uint32_t n = egress->n_active;
    pthread_mutex_unlock(&egress->lock);
    return n;
}

void egress_forget(struct egress *egress, struct flight *flight)
{
    pthread_mutex_lock(&egress->lock);
    struct flight **place = place_of(egress, flight->number);
    ASSERT(*place == flight);
    *place = flight->next_in_table;
    if (flight->commands != 0) {
        place = &egress->inbox;
        while (*place != flight)
            place = &(*place)->next_in_inbox;
        *place = flight->next_in_inbox;
    }
    egress->n_active--;
    pthread_mutex_unlock(&egress->lock);
}

/* The next flight that was told something; NULL = none. */
static struct flight *next_told(struct egress *egress, unsigned *commands)
{
    pthread_mutex_lock(&egress->lock);
    struct flight *flight = egress->inbox;
    if (flight) {
        egress->inbox = flight->next_in_inbox;
        *commands = flight->commands;
        flight->commands = 0;
    }
    pthread_mutex_unlock(&egress->lock);
    return flight;
}

struct flight *egress_find(struct egress *egress,
                           bool (*is_so)(const struct flight *flight, const void *context),
                           const void *context)
{
    struct flight *flight = NULL;
    pthread_mutex_lock(&egress->lock);
    for (size_t i = 0; i < FLIGHT_TABLE_SIZE && flight == NULL; i++) {
        flight = egress->table[i];
        while (flight && !is_so(flight, context))
            flight = flight->next_in_table;
    }
    pthread_mutex_unlock(&egress->lock);
    return flight;
}

static bool is_any(const struct flight *flight, const void *context)
{
    return flight && context == NULL;
}

static void on_wake(evutil_socket_t fd, short events, void *context)
{
    struct egress *egress = context;
    uint64_t count;
    ssize_t got = read(fd, &count, sizeof count);
    (void)got;
    (void)events;
    unsigned commands;
    struct flight *flight;
    while ((flight = next_told(egress, &commands)) != NULL) {
        if (commands & FLIGHT_CANCEL) {
            flight_cut(flight, err_new(ERR_CANCELLED, "the call to the provider was cancelled"));
            continue;
        }
        if (commands & FLIGHT_START)
            flight_start(flight);
        else if (commands & FLIGHT_RESUME)
            flight_resume(flight);
    }
    egress_turn(egress, CURL_SOCKET_TIMEOUT, 0);
    pthread_mutex_lock(&egress->lock);
    bool is_closing = egress->is_closing;
    pthread_mutex_unlock(&egress->lock);
    if (is_closing)
        event_base_loopbreak(egress->base);
}

void egress_turn(struct egress *egress, curl_socket_t socket, int events)
{
    int n_running, n_left;
    ASSERT(curl_multi_socket_action(egress->multi, socket, events, &n_running) == CURLM_OK);
    CURLMsg *message;
    while ((message = curl_multi_info_read(egress->multi, &n_left)) != NULL) {
        if (message->msg != CURLMSG_DONE)
            continue;
        struct flight *flight;
        CURLcode code = message->data.result;
        ASSERT(curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&flight) == CURLE_OK);
        flight_done(flight, code);
    }
}

static void on_socket(evutil_socket_t fd, short events, void *context)
{
    int what = (events & EV_READ ? CURL_CSELECT_IN : 0) | (events & EV_WRITE ? CURL_CSELECT_OUT : 0);
    egress_turn(context, fd, what);
}

static void on_multi_timer(evutil_socket_t fd, short events, void *context)
{
    (void)fd;
    (void)events;
    egress_turn(context, CURL_SOCKET_TIMEOUT, 0);
}

/* curl says what it waits for at a socket; the event is kept with the socket. */
static int watch_socket(CURL *easy, curl_socket_t fd, int what, void *context, void *of_socket)
{
    (void)easy;
    struct egress *egress = context;
    struct event *event = of_socket;
    if (event)
        event_free(event);
    event = NULL;
    if (what != CURL_POLL_REMOVE) {
        int events = (what & CURL_POLL_IN ? EV_READ : 0) | (what & CURL_POLL_OUT ? EV_WRITE : 0) | EV_PERSIST;
        event = event_new(egress->base, fd, (short)events, on_socket, egress);
        if (event == NULL || event_add(event, NULL) != 0) {
            if (event)
                event_free(event);
            return -1;
        }
    }
    curl_multi_assign(egress->multi, fd, event);
    return 0;
}

static int set_multi_timer(CURLM *multi, long timeout_ms, void *context)
{
    (void)multi;
    struct egress *egress = context;
    if (timeout_ms < 0)
        return event_del(egress->multi_timer);
    struct timeval wait = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
    return event_add(egress->multi_timer, &wait);
}

static void *run(void *context)
{
    struct egress *egress = context;
    (void)event_base_loop(egress->base, EVLOOP_NO_EXIT_ON_EMPTY);
    struct flight *flight;
    while ((flight = egress_find(egress, is_any, NULL)) != NULL)
        flight_end(flight, err_new(ERR_CANCELLED, "the router is closing"));
    return NULL;
}

static bool set_up(struct egress *egress)
{
    egress->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    egress->base = event_base_new();
    egress->multi = curl_multi_init();
    if (egress->wake_fd < 0 || egress->base == NULL || egress->multi == NULL)
        return false;
    egress->wake = event_new(egress->base, egress->wake_fd, EV_READ | EV_PERSIST, on_wake, egress);
    egress->multi_timer = evtimer_new(egress->base, on_multi_timer, egress);
    if (egress->wake == NULL || egress->multi_timer == NULL || event_add(egress->wake, NULL) != 0)
        return false;
    CURLM *multi = egress->multi;
    return curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, watch_socket) == CURLM_OK &&
           curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, egress) == CURLM_OK &&
           curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, set_multi_timer) == CURLM_OK &&
           curl_multi_setopt(multi, CURLMOPT_TIMERDATA, egress) == CURLM_OK &&
           curl_multi_setopt(multi, CURLMOPT_MAX_CONCURRENT_STREAMS, (long)STREAMS_PER_CONNECTION) ==
               CURLM_OK &&
           curl_multi_setopt(multi, CURLMOPT_MAX_HOST_CONNECTIONS,
                             (long)egress->options.max_connections_per_host) == CURLM_OK;
}

static void tear_down(struct egress *egress)
{
    if (egress->multi)
        curl_multi_cleanup(egress->multi); /* closes idle connections, and gives back their events */
    if (egress->multi_timer)
        event_free(egress->multi_timer);
    if (egress->wake)
        event_free(egress->wake);
    if (egress->base)
        event_base_free(egress->base);
    if (egress->wake_fd >= 0)
        close(egress->wake_fd);
    pthread_mutex_destroy(&egress->lock);
    mem_free(egress);
}

static void init_curl(void)
{
    ASSERT(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
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
    if (!set_up(egress) || pthread_create(&egress->thread, NULL, run, egress) != 0) {
        tear_down(egress);
        return err_new(ERR_RESOURCE_EXHAUSTED, "no descriptors, thread or memory for calls to providers");
    }
    *out = egress;
    return err_ok();
}

void egress_close(struct egress *egress)
{
    if (egress == NULL)
        return;
    pthread_mutex_lock(&egress->lock);
    egress->is_closing = true;
    pthread_mutex_unlock(&egress->lock);
    wake(egress);
    pthread_join(egress->thread, NULL);
    tear_down(egress);
}
