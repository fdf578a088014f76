/* Errors are values: a code that a program can act on and a message that a person can.
 *
 * Operating errors (bad file, bad request, no memory at start) are returned as `err_t`; bugs abort through
 * ASSERT. An err_t is plain data, owns nothing and may be copied or dropped freely. Any thread. Messages say
 * what was wrong, where, and what would be right. */
#pragma once

#include <stdarg.h>
#include <stdint.h>

enum err_code {
    ERR_OK = 0,
    ERR_CANCELLED,           /* the caller asked for it */
    ERR_INVALID_ARGUMENT,    /* a parameter, flag or request is wrong; the same call can never succeed */
    ERR_NOT_FOUND,           /* a named thing (file, model, tensor) does not exist */
    ERR_RESOURCE_EXHAUSTED,  /* a limit was reached: queue, memory, size; may succeed later */
    ERR_QUOTA_EXCEEDED,      /* a limit that belongs to this caller alone was reached; retry_after_ms */
    ERR_UNAUTHENTICATED,     /* nobody knows who asks */
    ERR_PERMISSION_DENIED,   /* it is known who asks, and he may not */
    ERR_FAILED_PRECONDITION, /* the system is not in the state that the call needs */
    ERR_UNIMPLEMENTED,       /* valid, but this build or model cannot do it */
    ERR_UNAVAILABLE,         /* draining, loading, or a peer is gone; retry elsewhere */
    ERR_DEADLINE_EXCEEDED,
    ERR_OUT_OF_RANGE, /* a place in something that goes on is not there any more, or not yet */
    ERR_DATA_LOSS,    /* a file is truncated, overlapping or otherwise malformed; or a reader was too slow */
    ERR_IO,           /* the operating system refused: message carries strerror */
    ERR_INTERNAL,     /* something that should not happen did, and only this request suffers */
};

enum { ERR_MESSAGE_MAX = 512 }; /* bytes incl. NUL; longer messages end in "..." */

/* file and line: where the error was made (static string); for logs, not for users. */
typedef struct err {
    enum err_code code;
    int line;
    int64_t retry_after_ms; /* the same call may succeed after that; 0 = not known */
    const char *file;
    char message[ERR_MESSAGE_MAX];
} err_t;

#define ERR_MUST_CHECK __attribute__((warn_unused_result))

/* Success. Only the code is meaningful. */
static inline err_t err_ok(void)
{
    err_t e;
    e.code = ERR_OK;
    return e;
}

err_t err_make(const char *file, int line, enum err_code code, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Prefixes e's message: "<context>: <message>". Keeps everything else. */
err_t err_prefix(err_t e, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The code's stable upper-case name, e.g. "INVALID_ARGUMENT". */
const char *err_code_name(enum err_code code);

/* err_new(ERR_NOT_FOUND, "%s: no such file", path) */
#define err_new(code, ...) err_make(__FILE__, __LINE__, (code), __VA_ARGS__)

/* Forwards an error to the caller: TRY(f(x)); */
#define TRY(call)                                                                                            \
    do {                                                                                                     \
        err_t try_err_ = (call);                                                                             \
        if (try_err_.code != ERR_OK)                                                                         \
            return try_err_;                                                                                 \
    } while (0)

/* Jumps to a clean-up label with `target` set: TRY_GOTO(e, f(x), out); */
#define TRY_GOTO(target, call, label)                                                                        \
    do {                                                                                                     \
        (target) = (call);                                                                                   \
        if ((target).code != ERR_OK)                                                                         \
            goto label;                                                                                      \
    } while (0)
