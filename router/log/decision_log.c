#include "router/log/decision_log.h"

#include <errno.h>
#include <openssl/rand.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/clock.h"
#include "base/event_count.h"
#include "base/log_repeat.h"
#include "router/log/log_files.h"

#define EXPIRE_EVERY_NS INT64_C(60000000000)
#define GATHER_NS       INT64_C(2000000) /* lines come together meanwhile */
enum {
    POLL_MS = 100,       /* of a pipe that is blocked: how often it is asked whether the log is to close */
    CLOSE_WAIT_MS = 1000 /* for it when the log closes */
};

struct decision_log {
    struct decision_key key;
    bool content;
    pthread_mutex_t lock;
    struct buffer queue; /* whole lines; under the lock */
    struct event_count wake;
    _Atomic bool is_closing;
    _Atomic uint64_t n_lost;
    pthread_t writer;
    struct log_files files; /* the writer's, as is all that follows */
    struct buffer taken;
    struct log_repeat complaint;
    int64_t close_by_ns; /* 0 = not known yet */
};

err_t decision_log_options_read(const struct yaml_value *value, struct decision_log_options *out)
{
    static const char *const KEYS[] = {"path", "content", "max_bytes", "keep", "retention", NULL};
    *out = (struct decision_log_options){.max_bytes = 100000000, .keep = 5, .retention_ms = 2592000000};
    if (!yaml_is_there(value))
        return err_ok();
    TRY(yaml_map(value, KEYS));
    struct yaml_value path = yaml_at(value, "path"), content = yaml_at(value, "content"),
                      max_bytes = yaml_at(value, "max_bytes"), keep = yaml_at(value, "keep"),
                      retention = yaml_at(value, "retention");
    TRY(yaml_required(&path));
    TRY(yaml_text(&path, &out->path));
    TRY(yaml_bool(&content, &out->content));
    TRY(yaml_integer(&max_bytes, 1 << 16, INT64_C(1) << 40, &out->max_bytes));
    int64_t n = out->keep;
    TRY(yaml_integer(&keep, 0, DECISION_KEEP_MAX, &n));
    out->keep = (uint32_t)n;
    return yaml_duration_ms(&retention, &out->retention_ms);
}

static int64_t unix_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void complain(struct decision_log *log, err_t e)
{
    uint64_t n_silent;
    if (log_repeat_due(&log->complaint, clock_now_ns(clock_monotonic()), &n_silent))
        log_warn("log", "%s; %llu lines lost so far", e.message,
                 (unsigned long long)atomic_load(&log->n_lost));
}

/* Whether it may be tried again. A pipe that nobody reads is waited for, until the log closes and a little.
 */
static bool wait_for_room(struct decision_log *log)
{
    struct pollfd room = {.fd = log->files.file, .events = POLLOUT};
    if (atomic_load(&log->is_closing)) {
        int64_t now_ns = clock_now_ns(clock_monotonic());
        if (log->close_by_ns == 0)
            log->close_by_ns = now_ns + CLOSE_WAIT_MS * INT64_C(1000000);
        if (now_ns >= log->close_by_ns)
            return false;
    }
    int rc = poll(&room, 1, POLL_MS);
    return rc >= 0 || errno == EINTR;
}

/* The bytes written; fewer than asked for when the file takes no more. */
static size_t write_bytes(struct decision_log *log, const char *bytes, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t n = write(log->files.file, bytes + done, size - done);
        if (n >= 0)
            done += (size_t)n;
        else if (errno == EAGAIN && wait_for_room(log))
            continue;
        else if (errno != EINTR)
            break;
    }
    return done;
}

static uint64_t count_lines(const char *bytes, size_t size)
{
    uint64_t n = 0;
    for (const char *at = bytes, *end = bytes + size; (at = memchr(at, '\n', (size_t)(end - at))) != NULL;
         at++)
        n++;
    return n;
}

/* Whole lines that go into one file. A line that was cut before is ended first, so that it spoils no other.
 */
static void write_lines(struct decision_log *log, const char *lines, size_t size)
{
    err_t e = log_files_prepare(&log->files, size, unix_ms());
    if (e.code != ERR_OK)
        complain(log, e);
    if (log->files.is_mid_line && write_bytes(log, "\n", 1) == 1)
        log->files.is_mid_line = false;
    size_t done = log->files.is_mid_line ? 0 : write_bytes(log, lines, size);
    if (done < size) {
        e = err_new(ERR_IO, "the decision log %s cannot be written: %s", log->files.path, strerror(errno));
        atomic_fetch_add(&log->n_lost, count_lines(lines + done, size - done));
        if (done > 0)
            log->files.is_mid_line = lines[done - 1] != '\n';
        complain(log, e);
    }
    log->files.size += (int64_t)done;
}

/* What has been taken, in pieces that fit a file each. */
static void write_taken(struct decision_log *log)
{
    const char *at = log->taken.data, *end = at + log->taken.size;
    while (at < end) {
        const char *next = at;
        int64_t room = log->files.max_bytes - log->files.size;
        do {
            const char *line_end = memchr(next, '\n', (size_t)(end - next));
            ASSERT(line_end);
            if (next > at && line_end + 1 - at > room)
                break;
            next = line_end + 1;
        } while (next < end);
        write_lines(log, at, (size_t)(next - at));
        at = next;
    }
    buffer_clear(&log->taken);
}

static bool take_lines(struct decision_log *log)
{
    pthread_mutex_lock(&log->lock);
    struct buffer empty = log->taken;
    log->taken = log->queue;
    log->queue = empty;
    pthread_mutex_unlock(&log->lock);
    return log->taken.size > 0;
}

static bool has_lines(struct decision_log *log)
{
    pthread_mutex_lock(&log->lock);
    bool has = log->queue.size > 0;
    pthread_mutex_unlock(&log->lock);
    return has;
}

static void *write_all(void *context)
{
    struct decision_log *log = context;
    int64_t expired_ns = INT64_MIN / 2;
    for (;;) {
        uint32_t seen = event_count_read(&log->wake);
        bool is_closing = atomic_load(&log->is_closing);
        if (!is_closing && has_lines(log))
            event_count_wait(&log->wake, seen, GATHER_NS);
        while (take_lines(log))
            write_taken(log);
        int64_t now_ns = clock_now_ns(clock_monotonic());
        if (now_ns - expired_ns >= EXPIRE_EVERY_NS) {
            expired_ns = now_ns;
            err_t e = log_files_expire(&log->files, unix_ms());
            if (e.code != ERR_OK)
                complain(log, e);
        }
        if (is_closing)
            return NULL;
        event_count_wait(&log->wake, seen, EXPIRE_EVERY_NS);
    }
}

/* Signals are for other threads; a pipe without a reader is an error of write alone. */
static int start_writer(struct decision_log *log)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&log->writer, NULL, write_all, log);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc == 0)
        (void)pthread_setname_np(log->writer, "bantam-log");
    return rc;
}

static void free_log(struct decision_log *log)
{
    log_files_close(&log->files);
    buffer_free(&log->queue);
    buffer_free(&log->taken);
    pthread_mutex_destroy(&log->lock);
    mem_free((char *)log->files.path);
    mem_free(log);
}

err_t decision_log_open(const struct decision_log_options *options, struct decision_log **out)
{
    ASSERT(options->path && options->keep <= DECISION_KEEP_MAX);
    struct decision_log *log = mem_alloc(sizeof *log);
    if (log == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a decision log");
    log->content = options->content;
    log->queue.limit_bytes = log->taken.limit_bytes = DECISION_QUEUE_BYTES_MAX;
    log->files = (struct log_files){.path = mem_strdup(options->path),
                                    .max_bytes = options->max_bytes,
                                    .retention_ms = options->retention_ms,
                                    .keep = options->keep,
                                    .file = -1};
    ASSERT(pthread_mutex_init(&log->lock, NULL) == 0);
    err_t e = err_ok();
    if (log->files.path == NULL || RAND_bytes(log->key.bytes, sizeof log->key.bytes) != 1)
        e = err_new(ERR_RESOURCE_EXHAUSTED, "no memory or no random numbers for a decision log");
    if (e.code == ERR_OK)
        e = log_files_open(&log->files);
    if (e.code == ERR_OK && start_writer(log) != 0)
        e = err_new(ERR_RESOURCE_EXHAUSTED, "no thread for the decision log");
    if (e.code != ERR_OK)
        free_log(log);
    else
        *out = log;
    return e;
}

void decision_log_close(struct decision_log *log)
{
    if (log == NULL)
        return;
    atomic_store(&log->is_closing, true);
    event_count_bump(&log->wake);
    pthread_join(log->writer, NULL);
    uint64_t n_lost = atomic_load(&log->n_lost);
    if (n_lost > 0)
        log_warn("log", "the decision log %s lost %llu lines", log->files.path, (unsigned long long)n_lost);
    free_log(log);
}

/* The content is left out of a line that it makes too long. */
static err_t encode(const struct decision_log *log, const struct decision_entry *entry, struct buffer *line)
{
    err_t e = decision_entry_encode(entry, log->content, &log->key, line);
    if (e.code == ERR_OK || !log->content)
        return e;
    buffer_clear(line);
    return decision_entry_encode(entry, false, &log->key, line);
}

void decision_log_write(struct decision_log *log, const struct decision_entry *entry)
{
    struct buffer line = {.limit_bytes = DECISION_LINE_BYTES_MAX};
    bool is_kept = encode(log, entry, &line).code == ERR_OK && buffer_append_text(&line, "\n"),
         is_first = false;
    if (is_kept) {
        pthread_mutex_lock(&log->lock);
        is_first = log->queue.size == 0;
        is_kept = buffer_append(&log->queue, line.data, line.size);
        pthread_mutex_unlock(&log->lock);
    }
    if (!is_kept)
        atomic_fetch_add(&log->n_lost, 1);
    buffer_free(&line);
    if (is_first)
        event_count_bump(&log->wake);
}

uint64_t decision_log_lost(const struct decision_log *log)
{
    return atomic_load(&log->n_lost);
}
