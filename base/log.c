#include "base/log.h"

#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "base/json_escape.h"

enum { TAIL_RESERVE = 32 }; /* of a line: closing quotes and the newline */

static const char *const level_names[] = {"error", "warn", "info", "debug"};

static struct {
    _Atomic int level;
    _Atomic bool json;
    _Atomic uint64_t n_dropped;
    pthread_mutex_t mutex; /* around poll and write: no other thread of ours can fill the pipe between them */
} logger = {.level = LOG_INFO, .mutex = PTHREAD_MUTEX_INITIALIZER};

/* A line being written into a fixed array. */
struct line {
    char text[LOG_LINE_MAX];
    size_t size;
};

void log_init(enum log_level level, enum log_format format)
{
    atomic_store(&logger.level, (int)level);
    atomic_store(&logger.json,
                 format == LOG_FORMAT_JSON || (format == LOG_FORMAT_AUTO && !isatty(STDERR_FILENO)));
}

bool log_level_parse(const char *name, enum log_level *out)
{
    for (size_t i = 0; i < sizeof level_names / sizeof level_names[0]; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *out = (enum log_level)i;
            return true;
        }
    }
    return false;
}

uint64_t log_dropped(void)
{
    return atomic_load(&logger.n_dropped);
}

/* Appends text, leaving room for reserve bytes; what does not fit is cut and marked. Control characters are
 * escaped in both formats: a message cannot forge a second line. */
static void line_append_escaped(struct line *line, const char *text, bool json, size_t reserve)
{
    static const char mark[] = "...";
    size_t limit = sizeof line->text - reserve - (sizeof mark - 1);
    size_t left = strlen(text);
    while (left > 0) {
        char escaped[JSON_ESCAPE_MAX];
        size_t consumed;
        size_t length = json_escape_next(text, left, &consumed, escaped);
        if (!json && (*text == '"' || *text == '\\')) {
            escaped[0] = *text;
            length = 1;
        }
        if (line->size + length > limit) {
            memcpy(line->text + line->size, mark, sizeof mark - 1);
            line->size += sizeof mark - 1;
            return;
        }
        memcpy(line->text + line->size, escaped, length);
        line->size += length;
        text += consumed;
        left -= consumed;
    }
}

static void line_append_time(struct line *line, bool json)
{
    struct timespec now;
    struct tm parts;
    clock_gettime(CLOCK_REALTIME, &now);
    if (json)
        gmtime_r(&now.tv_sec, &parts);
    else
        localtime_r(&now.tv_sec, &parts);
    char *out = line->text + line->size;
    size_t room = sizeof line->text - line->size;
    size_t length = strftime(out, room, json ? "{\"ts\":\"%Y-%m-%dT%H:%M:%S" : "%H:%M:%S", &parts);
    int n_digits =
        snprintf(out + length, room - length, ".%03ld%s", now.tv_nsec / 1000000, json ? "Z\"" : "");
    line->size += length + (size_t)n_digits;
}

/* Never blocks: a full pipe, a stopped terminal or a full disk costs the line. */
static void line_write(const struct line *line)
{
    pthread_mutex_lock(&logger.mutex);
    struct pollfd writable = {.fd = STDERR_FILENO, .events = POLLOUT};
    bool ready = poll(&writable, 1, 0) == 1 && (writable.revents & POLLOUT) != 0;
    bool written = ready && write(STDERR_FILENO, line->text, line->size) == (ssize_t)line->size;
    pthread_mutex_unlock(&logger.mutex);
    if (!written)
        atomic_fetch_add(&logger.n_dropped, 1);
}

/* Behind it the message follows, in JSON inside its quotes. */
static void line_open(struct line *line, enum log_level level, const char *area, bool json)
{
    line->size = 0;
    line_append_time(line, json);
    line->size += (size_t)snprintf(line->text + line->size, sizeof line->text - line->size,
                                   json ? ",\"level\":\"%s\",\"area\":\"" : " %-5s ", level_names[level]);
    line_append_escaped(line, area, json, LOG_LINE_MAX / 2);
    const char *seam = json ? "\",\"msg\":\"" : ": ";
    memcpy(line->text + line->size, seam, strlen(seam));
    line->size += strlen(seam);
}

bool log_is_on(enum log_level level)
{
    return (int)level <= atomic_load_explicit(&logger.level, memory_order_relaxed);
}

void log_line(enum log_level level, const char *area, const char *format, ...)
{
    if (!log_is_on(level))
        return;
    char message[LOG_LINE_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message, sizeof message, format, arguments);
    va_end(arguments);

    struct line line;
    bool json = atomic_load_explicit(&logger.json, memory_order_relaxed);
    line_open(&line, level, area, json);
    line_append_escaped(&line, message, json, TAIL_RESERVE);
    const char *end = json ? "\"}\n" : "\n";
    memcpy(line.text + line.size, end, strlen(end));
    line.size += strlen(end);
    line_write(&line);
}

/* As logfmt does: a value that could be read as more fields, as a number's "-" or as an escape stands in
 * quotes. */
static bool is_plain(const char *text)
{
    if (text[0] == '\0' || strcmp(text, "-") == 0)
        return false;
    for (; *text != '\0'; text++)
        if ((unsigned char)*text <= ' ' || *text == 0x7f || strchr("=\"\\", *text) != NULL)
            return false;
    return true;
}

/* Appends one, or nothing where it does not fit. */
static void line_append_field(struct line *line, const struct log_field *field, bool json)
{
    char value[64];
    size_t text_bytes = field->text ? strlen(field->text) : sizeof value;
    size_t most = strlen(field->name) + 8 + JSON_ESCAPE_MAX * text_bytes;
    if (line->size + most + TAIL_RESERVE > sizeof line->text)
        return;
    char *out = line->text + line->size;
    bool quotes = field->text && (json || !is_plain(field->text));
    line->size +=
        (size_t)snprintf(out, most, json ? ",\"%s\":%s" : " %s=%s", field->name, quotes ? "\"" : "");
    if (field->text)
        line_append_escaped(line, field->text, quotes, TAIL_RESERVE);
    if (quotes)
        line->text[line->size++] = '"';
    if (field->text)
        return;
    if (isnan(field->number))
        (void)snprintf(value, sizeof value, json ? "null" : "-");
    else
        (void)snprintf(value, sizeof value, "%.15g", round(field->number * 1e3) / 1e3);
    memcpy(line->text + line->size, value, strlen(value));
    line->size += strlen(value);
}

void log_line_fields(enum log_level level, const char *area, const char *message,
                     const struct log_field *fields, size_t n)
{
    if (!log_is_on(level))
        return;
    struct line line;
    bool json = atomic_load_explicit(&logger.json, memory_order_relaxed);
    line_open(&line, level, area, json);
    line_append_escaped(&line, message, json, LOG_LINE_MAX / 2);
    if (json)
        line.text[line.size++] = '"';
    for (size_t i = 0; i < n; i++)
        line_append_field(&line, &fields[i], json);
    if (json)
        line.text[line.size++] = '}';
    line.text[line.size++] = '\n';
    line_write(&line);
}
