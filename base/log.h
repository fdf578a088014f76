/* Log lines to stderr: for a person on a terminal, JSON lines otherwise ({"ts","level","area","msg"}). Any
 * thread. One write(2) a line, at most LOG_LINE_MAX bytes; when stderr would block or the disk is full the
 * line is dropped and counted, so that serving never waits for a log. Contents of prompts and answers are
 * never logged. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };
enum log_format { LOG_FORMAT_AUTO, LOG_FORMAT_TEXT, LOG_FORMAT_JSON };
enum { LOG_LINE_MAX = 4096 };

/* Before other threads exist. AUTO: text when stderr is a terminal. */
void log_init(enum log_level level, enum log_format format);
void log_line(enum log_level level, const char *area, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
uint64_t log_dropped(void);

/* A value beside a line's message. JSON has it as a field of the line, a terminal as name=value behind the
 * message, in JSON's quotes where it has blanks, '=', quotes or backslashes, is empty or "-". */
struct log_field {
    const char *name; /* of letters and '_' */
    const char *text; /* NULL = it is the number */
    double number;    /* to three decimals; NaN = not known: null, or "-" */
};
/* As log_line. Fields that do not fit any more are left out. */
void log_line_fields(enum log_level level, const char *area, const char *message,
                     const struct log_field *fields, size_t n);
/* For what is dear to say. */
bool log_is_on(enum log_level level);
/* "error" | "warn" | "info" | "debug" -> level; false when it is none of them. */
bool log_level_parse(const char *name, enum log_level *out);

#define log_error(area, ...) log_line(LOG_ERROR, (area), __VA_ARGS__)
#define log_warn(area, ...)  log_line(LOG_WARN, (area), __VA_ARGS__)
#define log_info(area, ...)  log_line(LOG_INFO, (area), __VA_ARGS__)
#define log_debug(area, ...) log_line(LOG_DEBUG, (area), __VA_ARGS__)
