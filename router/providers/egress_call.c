/* One call: how it is put to curl, what its head says, and when its time is over. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/deferred.h"
#include "router/providers/egress_internal.h"
#include "router/providers/provider_error.h"

enum {
    ANSWER_HEAD_BYTES_MAX = 256 << 10, /* of all headers of an answer */
    RECEIVE_BUFFER_BYTES = 16 << 10,
    HEADER_VALUE_BYTES_MAX = EGRESS_NAME_BYTES_MAX, /* of those that are read */
    OWN_HEADERS = 2,                                /* of ours, before a call's */
};
#define NS_PER_MS INT64_C(1000000)

const char *const EGRESS_RATE_NAMES[EGRESS_RATES] = {"requests", "tokens", "input_tokens", "output_tokens"};

static int64_t now_ns(void)
{
    return clock_now_ns(clock_monotonic());
}

/* The answer is not read to its end. curl (7.88) resets an HTTP/2 stream, and does not send that before
 * somebody else writes on the connection: so that the provider hears of it, it is closed unless others have
 * streams on it.
 */
static void leave_connection(struct flight *flight)
{
    flight->is_cut = true;
    curl_easy_setopt(flight->target.easy, CURLOPT_FORBID_REUSE, 1L);
}

/* A header's value without its blanks, where the line is that header. */
static bool header_is(const char *line, size_t size, const char *name, char value[HEADER_VALUE_BYTES_MAX + 1])
{
    size_t name_bytes = strlen(name);
    if (size <= name_bytes || line[name_bytes] != ':' || strncasecmp(line, name, name_bytes) != 0)
        return false;
    const char *start = line + name_bytes + 1, *end = line + size;
    while (start < end && strchr(" \t", *start))
        start++;
    while (end > start && strchr(" \t\r\n", end[-1]))
        end--;
    if (end - start > HEADER_VALUE_BYTES_MAX)
        end = start + HEADER_VALUE_BYTES_MAX;
    memcpy(value, start, (size_t)(end - start));
    value[end - start] = '\0';
    return true;
}

/* A count of at least 0; -1 when it is none. */
static int64_t read_count(const char *text)
{
    char *end;
    long long count = strtoll(text, &end, 10);
    return end != text && *end == '\0' && count >= 0 ? count : -1;
}

/* The names of rate limits: OpenAI's, OpenRouter's and Anthropic's. */
static void take_rate(struct egress_head *head, const char *line, size_t size, int64_t now_s)
{
    static const struct {
        const char *remaining, *reset;
        enum egress_rate_kind kind;
    } RATES[] = {
        {"x-ratelimit-remaining-requests", "x-ratelimit-reset-requests", EGRESS_REQUESTS},
        {"x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens", EGRESS_TOKENS},
        {"x-ratelimit-remaining", "x-ratelimit-reset", EGRESS_REQUESTS},
        {"anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset", EGRESS_REQUESTS},
        {"anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset", EGRESS_TOKENS},
        {"anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset",
         EGRESS_INPUT_TOKENS},
        {"anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset",
         EGRESS_OUTPUT_TOKENS},
    };
    char value[HEADER_VALUE_BYTES_MAX + 1];
    for (size_t i = 0; i < sizeof RATES / sizeof *RATES; i++) {
        if (header_is(line, size, RATES[i].remaining, value))
            head->rates[RATES[i].kind].remaining = read_count(value);
        else if (header_is(line, size, RATES[i].reset, value))
            head->rates[RATES[i].kind].reset_ms = provider_rate_reset_ms(value, now_s);
    }
}

static void take_header(struct egress_head *head, const char *line, size_t size)
{
    char value[HEADER_VALUE_BYTES_MAX + 1];
    int64_t now_s = (int64_t)time(NULL);
    if (header_is(line, size, "content-type", value))
        head->is_event_stream = strncasecmp(value, "text/event-stream", 17) == 0;
    else if (header_is(line, size, "retry-after-ms", value) && provider_retry_after_ms_exact(value) >= 0)
        head->retry_after_ms = provider_retry_after_ms_exact(value);
    else if (header_is(line, size, "retry-after", value) && head->retry_after_ms == 0 &&
             provider_retry_after_ms(value, now_s) >= 0)
        head->retry_after_ms = provider_retry_after_ms(value, now_s);
    else if (header_is(line, size, "x-bantam-provider", value))
        memcpy(head->answered_provider, value, sizeof value);
    else if (header_is(line, size, "x-bantam-answered-by", value))
        memcpy(head->answered_by, value, sizeof value);
    else if (header_is(line, size, "x-should-retry", value))
        head->should_not_retry = strcasecmp(value, "false") == 0;
    else
        take_rate(head, line, size, now_s);
}

static void forget_head(struct egress_head *head)
{
    *head = (struct egress_head){0};
    for (int i = 0; i < EGRESS_RATES; i++)
        head->rates[i] = (struct egress_rate){-1, -1};
}

/* Each line of the head; its blank line ends it. An interim answer (100, 103) comes before the real one. */
static size_t on_header(char *line, size_t one, size_t size, void *context)
{
    struct flight *flight = context;
    ASSERT(one == 1);
    if (flight->has_head)
        return size; /* trailers */
    flight->head_bytes += size;
    if (flight->head_bytes > ANSWER_HEAD_BYTES_MAX) {
        flight->stop = err_new(ERR_UNAVAILABLE, "the provider's answer has headers of more than %d bytes",
                               ANSWER_HEAD_BYTES_MAX);
        return 0;
    }
    if (size > 2 && strncmp(line, "HTTP/", 5) == 0)
        forget_head(&flight->head);
    if (size > 2) {
        take_header(&flight->head, line, size);
        return size;
    }
    long status = 0;
    curl_easy_getinfo(flight->target.easy, CURLINFO_RESPONSE_CODE, &status);
    if (status < 200)
        return size;
    flight->head.status = (int)status;
    flight->has_head = true;
    flight->stop = flight->handler->head(flight->context, &flight->head);
    if (flight->stop.code == ERR_OK)
        return size;
    leave_connection(flight);
    return 0;
}

static size_t on_bytes(char *bytes, size_t one, size_t size, void *context)
{
    struct flight *flight = context;
    ASSERT(one == 1);
    flight->last_byte_ns = now_ns();
    if (flight->times.first_byte_ns == 0)
        flight->times.first_byte_ns = flight->last_byte_ns;
    bool pause = false;
    flight->stop = flight->handler->bytes(flight->context, bytes, size, &pause);
    if (flight->stop.code != ERR_OK) {
        leave_connection(flight);
        return size + 1; /* another number than size: curl gives up */
    }
    if (pause) {
        flight->is_paused = true;
        curl_easy_pause(flight->target.easy, CURLPAUSE_RECV);
    }
    return size;
}

/* The earlier of two points of time; 0 = none. */
static int64_t earlier(int64_t a, int64_t start_ns, int64_t timeout_ms)
{
    if (timeout_ms <= 0)
        return a;
    int64_t b = start_ns + timeout_ms * NS_PER_MS;
    return a == 0 || b < a ? b : a;
}

/* When the call's time is over if nothing more happens; 0 = never. */
static int64_t deadline_of(const struct flight *flight)
{
    const struct egress_times *times = &flight->times;
    int64_t deadline = earlier(0, times->started_ns, flight->total_timeout_ms);
    if (times->first_byte_ns == 0)
        return earlier(deadline, times->started_ns, flight->first_byte_timeout_ms);
    return flight->is_paused ? deadline : earlier(deadline, flight->last_byte_ns, flight->chunk_timeout_ms);
}

static err_t overdue(const struct flight *flight)
{
    const struct egress_times *times = &flight->times;
    if (flight->total_timeout_ms > 0 && now_ns() >= times->started_ns + flight->total_timeout_ms * NS_PER_MS)
        return err_new(ERR_DEADLINE_EXCEEDED, "the provider's answer took more than %lld ms",
                       (long long)flight->total_timeout_ms);
    if (times->first_byte_ns == 0)
        return err_new(ERR_DEADLINE_EXCEEDED, "the provider did not begin to answer within %lld ms",
                       (long long)flight->first_byte_timeout_ms);
    return err_new(ERR_DEADLINE_EXCEEDED, "the provider sent nothing more for %lld ms",
                   (long long)flight->chunk_timeout_ms);
}

/* The timer is not moved with each byte: it looks at what has happened when it fires. */
static void set_timer(struct flight *flight)
{
    int64_t deadline = deadline_of(flight), left_ns = deadline - now_ns();
    if (deadline == 0) { /* a time between bytes may come to count later */
        if (flight->chunk_timeout_ms <= 0)
            return;
        left_ns = flight->chunk_timeout_ms * NS_PER_MS;
    }
    if (left_ns < 0)
        left_ns = 0;
    if (flight->chunk_timeout_ms > 0 && left_ns > flight->chunk_timeout_ms * NS_PER_MS)
        left_ns = flight->chunk_timeout_ms * NS_PER_MS;
    struct timeval wait = {left_ns / (1000 * NS_PER_MS), left_ns % (1000 * NS_PER_MS) / 1000 + 1};
    event_add(&flight->timer, &wait);
}

static void on_timer(evutil_socket_t fd, short events, void *context)
{
    (void)fd;
    (void)events;
    struct flight *flight = context;
    int64_t deadline = deadline_of(flight);
    if (deadline == 0 || now_ns() < deadline) {
        set_timer(flight);
        return;
    }
    deferred_begin();
    flight_cut(flight, overdue(flight));
    deferred_end();
}

bool url_is_tls(const char *url)
{
    return strncasecmp(url, "https:", 6) == 0;
}

static err_t check_url(const char *url)
{
    CURLU *parts = curl_url();
    char *scheme = NULL, *user = NULL;
    bool is_good = parts && curl_url_set(parts, CURLUPART_URL, url, 0) == CURLUE_OK &&
                   curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
                   (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0) &&
                   curl_url_get(parts, CURLUPART_USER, &user, 0) == CURLUE_NO_USER;
    curl_free(scheme);
    curl_free(user);
    curl_url_cleanup(parts);
    return is_good
               ? err_ok()
               : err_new(
                     ERR_INVALID_ARGUMENT,
                     "a provider's address must be http://HOST... or https://HOST..., without a user in it");
}

static err_t append_header(struct curl_slist **list, const char *header)
{
    if (strchr(header, ':') == NULL || strpbrk(header, "\r\n"))
        return err_new(ERR_INVALID_ARGUMENT,
                       "a header of a call to a provider must be \"name: value\" on one line");
    struct curl_slist *longer = curl_slist_append(*list, header);
    if (longer == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the headers of a call to a provider");
    *list = longer;
    return err_ok();
}

static err_t make_headers(const struct egress_call *call, struct curl_slist **list)
{
    TRY(append_header(list, "Content-Type: application/json"));
    TRY(append_header(list, "Expect:")); /* an answer to the head alone would cost a round trip */
    for (size_t i = 0; i < call->n_headers; i++)
        TRY(append_header(list, call->headers[i]));
    return err_ok();
}

static const char *ca_file_of(const struct lane *lane, const struct egress_call *call)
{
    return call->ca_file ? call->ca_file : lane->egress->options.ca_file;
}

static bool set_target(struct flight *flight)
{
    const struct flight_target *target = &flight->target;
    const struct egress_options *options = &flight->lane->egress->options;
    CURL *easy = target->easy;
    bool is_set = curl_easy_setopt(easy, CURLOPT_URL, target->url) == CURLE_OK &&
                  curl_easy_setopt(easy, CURLOPT_HTTPHEADER, target->headers) == CURLE_OK &&
                  curl_easy_setopt(easy, CURLOPT_POST, 1L) == CURLE_OK &&
                  curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
                  curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS) == CURLE_OK;
    if (target->ca_file)
        is_set = is_set && curl_easy_setopt(easy, CURLOPT_CAINFO, target->ca_file) == CURLE_OK;
    if (options->user_agent)
        is_set = is_set && curl_easy_setopt(easy, CURLOPT_USERAGENT, options->user_agent) == CURLE_OK;
    /* Until the first connection has told whether it carries many streams, no other one is made. */
    curl_easy_setopt(easy, CURLOPT_PIPEWAIT, target->is_tls ? 1L : 0L);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, (long)RECEIVE_BUFFER_BYTES);
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)target->connect_timeout_ms);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, flight->fault);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, flight);
    curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(easy, CURLOPT_HEADERDATA, flight);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_bytes);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, flight);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, lane_open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, flight->lane);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, lane_close_socket);
    curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, flight->lane);
    return is_set;
}

static bool same_text(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}

static bool has_target(const struct flight *flight, const struct egress_call *call)
{
    const struct flight_target *target = &flight->target;
    if (strcmp(target->url, call->url) != 0 || !same_text(target->ca_file, ca_file_of(flight->lane, call)) ||
        target->connect_timeout_ms != call->connect_timeout_ms)
        return false;
    const struct curl_slist *header = target->headers;
    for (int i = 0; i < OWN_HEADERS; i++)
        header = header->next;
    for (size_t i = 0; i < call->n_headers; i++, header = header->next) {
        if (header == NULL || strcmp(header->data, call->headers[i]) != 0)
            return false;
    }
    return header == NULL;
}

/* One that went there before; NULL = none. */
static struct flight *take_idle(struct lane *lane, const struct egress_call *call)
{
    pthread_mutex_lock(&lane->lock);
    struct flight **place = &lane->idle;
    while (*place && !has_target(*place, call))
        place = &(*place)->next_in_inbox;
    struct flight *flight = *place;
    if (flight) {
        *place = flight->next_in_inbox;
        lane->n_idle--;
    }
    pthread_mutex_unlock(&lane->lock);
    return flight;
}

static void free_all(struct flight *flight)
{
    curl_easy_cleanup(flight->target.easy);
    curl_slist_free_all(flight->target.headers);
    mem_free(flight->target.url);
    mem_free(flight->target.ca_file);
    mem_free(flight);
}

void lane_free_idle(struct lane *lane)
{
    struct flight *flight;
    pthread_mutex_lock(&lane->lock);
    while ((flight = lane->idle) != NULL) {
        lane->idle = flight->next_in_inbox;
        free_all(flight);
    }
    lane->n_idle = 0;
    pthread_mutex_unlock(&lane->lock);
}

/* A call that came to its end as it should leaves nothing behind in curl's handle. Of many the one that was
 * not used for longest gives way. */
static void keep_idle(struct flight *flight)
{
    struct lane *lane = flight->lane;
    pthread_mutex_lock(&lane->lock);
    bool is_kept = !atomic_load(&lane->is_closing);
    struct flight *oldest = is_kept ? NULL : flight;
    if (is_kept) {
        flight->next_in_inbox = lane->idle;
        lane->idle = flight;
    }
    if (is_kept && ++lane->n_idle > IDLE_FLIGHTS_MAX) {
        struct flight **place = &lane->idle;
        while ((*place)->next_in_inbox)
            place = &(*place)->next_in_inbox;
        oldest = *place;
        *place = NULL;
        lane->n_idle--;
    }
    pthread_mutex_unlock(&lane->lock);
    if (oldest)
        free_all(oldest);
}

static err_t no_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a call to a provider");
}

static err_t new_flight(struct lane *lane, const struct egress_call *call, struct flight **out)
{
    const char *ca_file = ca_file_of(lane, call);
    TRY(check_url(call->url));
    struct flight *flight = mem_alloc(sizeof *flight);
    if (flight == NULL)
        return no_memory();
    struct flight_target *target = &flight->target;
    flight->lane = lane;
    target->is_tls = url_is_tls(call->url);
    target->connect_timeout_ms = call->connect_timeout_ms;
    target->url = mem_strdup(call->url);
    target->ca_file = ca_file ? mem_strdup(ca_file) : NULL;
    err_t e = make_headers(call, &target->headers);
    target->easy = curl_easy_init();
    bool has_all = target->url && target->easy && (target->ca_file || ca_file == NULL);
    if (e.code == ERR_OK && (!has_all || !set_target(flight)))
        e = no_memory();
    if (e.code != ERR_OK)
        free_all(flight);
    else
        *out = flight;
    return e;
}

/* What is of this call alone. */
static err_t set_call(struct flight *flight, const struct egress_call *call)
{
    flight->first_byte_timeout_ms = call->first_byte_timeout_ms;
    flight->chunk_timeout_ms = call->chunk_timeout_ms;
    flight->total_timeout_ms = call->total_timeout_ms;
    flight->stop = err_ok();
    forget_head(&flight->head);
    flight->body = mem_strndup(call->body, call->body_bytes);
    bool is_set =
        flight->body && curl_easy_setopt(flight->target.easy, CURLOPT_POSTFIELDS, flight->body) == CURLE_OK &&
        curl_easy_setopt(flight->target.easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body_bytes) ==
            CURLE_OK;
    return is_set ? err_ok() : no_memory();
}

err_t flight_make(struct lane *lane, const struct egress_call *call, const struct egress_handler *handler,
                  void *context, struct flight **out)
{
    ASSERT(handler->head && handler->bytes && handler->end && call->body);
    struct flight *flight = take_idle(lane, call);
    if (flight == NULL)
        TRY(new_flight(lane, call, &flight));
    struct flight_target target = flight->target;
    *flight = (struct flight){.target = target, .lane = lane, .handler = handler, .context = context};
    err_t e = set_call(flight, call);
    if (e.code != ERR_OK)
        flight_free(flight);
    else
        *out = flight;
    return e;
}

void flight_free(struct flight *flight)
{
    curl_easy_setopt(flight->target.easy, CURLOPT_POSTFIELDS, NULL);
    mem_free(flight->body);
    flight->body = NULL;
    if (flight->is_cut || flight->is_paused)
        free_all(flight);
    else
        keep_idle(flight);
}

void flight_start(struct flight *flight)
{
    flight->times.started_ns = now_ns();
    (void)evtimer_assign(&flight->timer, flight->lane->base, on_timer, flight);
    if (curl_multi_add_handle(flight->lane->multi, flight->target.easy) != CURLM_OK) {
        flight_end(flight, err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a call to a provider"));
        return;
    }
    flight->is_added = true;
    flight->added_turn = flight->lane->n_turns;
    set_timer(flight);
}

void flight_resume(struct flight *flight)
{
    if (!flight->is_paused)
        return;
    flight->is_paused = false;
    flight->last_byte_ns = now_ns();
    curl_easy_pause(flight->target.easy, CURLPAUSE_CONT); /* may hand over bytes at once */
}

/* Else what a handle that is used again tells is of its last call. */
static bool has_begun(const struct flight *flight)
{
    return flight->is_added && flight->lane->n_turns != flight->added_turn;
}

void flight_end(struct flight *flight, err_t error)
{
    long n_connects = 1, request_bytes = 0;
    if (has_begun(flight)) {
        curl_easy_getinfo(flight->target.easy, CURLINFO_NUM_CONNECTS, &n_connects);
        curl_easy_getinfo(flight->target.easy, CURLINFO_REQUEST_SIZE, &request_bytes);
    }
    if (flight->is_added) {
        curl_multi_remove_handle(flight->lane->multi, flight->target.easy);
        event_del(&flight->timer);
    }
    flight->times.ended_ns = now_ns();
    flight->times.reused_connection = flight->is_added && n_connects == 0;
    flight->times.was_sent = request_bytes > 0;
    flight->is_cut = flight->is_cut || error.code != ERR_OK;
    lane_forget(flight->lane, flight);
    flight->handler->end(flight->context, error, &flight->times);
    flight_free(flight);
}

/* The local port tells connections apart. */
static bool shares_connection(const struct flight *flight, const void *context)
{
    const long *port = context;
    long own = 0;
    return has_begun(flight) &&
           curl_easy_getinfo(flight->target.easy, CURLINFO_LOCAL_PORT, &own) == CURLE_OK && own == *port;
}

/* The port of a connection that others may have streams on; 0 = it is none of these. */
static long shared_port(const struct flight *flight)
{
    long version = 0, port = 0;
    if (!has_begun(flight) || !flight->target.is_tls)
        return 0;
    curl_easy_getinfo(flight->target.easy, CURLINFO_HTTP_VERSION, &version); /* 0: no answer yet */
    if (version == 0 || version == CURL_HTTP_VERSION_2_0)
        curl_easy_getinfo(flight->target.easy, CURLINFO_LOCAL_PORT, &port);
    return port;
}

void flight_cut(struct flight *flight, err_t error)
{
    struct lane *lane = flight->lane;
    long port = shared_port(flight);
    leave_connection(flight);
    flight_end(flight, error);
    struct flight *other = port > 0 ? lane_find(lane, shares_connection, &port) : NULL;
    if (other && !other->is_paused) {
        curl_easy_pause(other->target.easy,
                        CURLPAUSE_RECV); /* its window changes, which is sent with the reset */
        curl_easy_pause(other->target.easy, CURLPAUSE_CONT);
    } else if (other) {
        flight_resume(other); /* likewise; what comes pauses it again */
    }
}

static err_t error_of(const struct flight *flight, CURLcode code)
{
    const char *fault = flight->fault[0] != '\0' ? flight->fault : curl_easy_strerror(code);
    if (code == CURLE_OPERATION_TIMEDOUT)
        return err_new(ERR_DEADLINE_EXCEEDED, "no connection to the provider in time: %.200s", fault);
    if (code == CURLE_OUT_OF_MEMORY)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a call to a provider");
    return err_new(
        ERR_UNAVAILABLE, "%s: %.200s",
        flight->has_head ? "the connection to the provider broke" : "the provider cannot be reached", fault);
}

void flight_done(struct flight *flight, CURLcode code)
{
    err_t e = flight->stop;
    if (e.code == ERR_OK && code != CURLE_OK)
        e = error_of(flight, code);
    else if (e.code == ERR_OK && !flight->has_head)
        e = err_new(ERR_UNAVAILABLE, "the provider closed the connection without an answer");
    if (flight->stop.code != ERR_OK)
        flight_cut(flight, e);
    else
        flight_end(flight, e);
}
