#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/assert.h"
#include "base/utf8.h"

/* A message that did not fit ends in "...", on a character's boundary. */
static void mark_truncated(char message[ERR_MESSAGE_MAX])
{
    static const char dots[] = "...";
    size_t kept = utf8_complete_prefix(message, ERR_MESSAGE_MAX - sizeof dots);
    memcpy(message + kept, dots, sizeof dots);
}

err_t err_make(const char *file, int line, enum err_code code, const char *format, ...)
{
    err_t e = {.code = code, .line = line, .file = file};
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(e.message, sizeof e.message, format, arguments);
    va_end(arguments);
    if (length >= (int)sizeof e.message)
        mark_truncated(e.message);
    return e;
}

err_t err_prefix(err_t e, const char *format, ...)
{
    if (e.code == ERR_OK)
        return e;
    char context[ERR_MESSAGE_MAX];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(context, sizeof context, format, arguments);
    va_end(arguments);
    err_t out = {.code = e.code, .line = e.line, .file = e.file, .retry_after_ms = e.retry_after_ms};
    size_t context_length = strlen(context);
    size_t message_length = strnlen(e.message, sizeof e.message - 1);
    size_t room = sizeof out.message - 1;
    memcpy(out.message, context, context_length);
    for (size_t i = 0; i < 2 && context_length + i < room; i++)
        out.message[context_length + i] = ": "[i];
    if (context_length + 2 < room) {
        size_t left = room - context_length - 2;
        memcpy(out.message + context_length + 2, e.message, message_length < left ? message_length : left);
    }
    if (context_length + 2 + message_length > room)
        mark_truncated(out.message);
    return out;
}

const char *err_code_name(enum err_code code)
{
    switch (code) {
    case ERR_OK:
        return "OK";
    case ERR_CANCELLED:
        return "CANCELLED";
    case ERR_INVALID_ARGUMENT:
        return "INVALID_ARGUMENT";
    case ERR_NOT_FOUND:
        return "NOT_FOUND";
    case ERR_RESOURCE_EXHAUSTED:
        return "RESOURCE_EXHAUSTED";
    case ERR_QUOTA_EXCEEDED:
        return "QUOTA_EXCEEDED";
    case ERR_UNAUTHENTICATED:
        return "UNAUTHENTICATED";
    case ERR_PERMISSION_DENIED:
        return "PERMISSION_DENIED";
    case ERR_FAILED_PRECONDITION:
        return "FAILED_PRECONDITION";
    case ERR_UNIMPLEMENTED:
        return "UNIMPLEMENTED";
    case ERR_UNAVAILABLE:
        return "UNAVAILABLE";
    case ERR_DEADLINE_EXCEEDED:
        return "DEADLINE_EXCEEDED";
    case ERR_OUT_OF_RANGE:
        return "OUT_OF_RANGE";
    case ERR_DATA_LOSS:
        return "DATA_LOSS";
    case ERR_IO:
        return "IO";
    case ERR_INTERNAL:
        return "INTERNAL";
    }
    return "UNKNOWN";
}

_Noreturn void assert_fail(const char *file, int line, const char *expression)
{
    fprintf(stderr, "bantam: %s:%d: assertion failed: %s (please report this bug)\n", file, line, expression);
    fflush(stderr);
    abort();
}
