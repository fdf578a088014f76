/* What can be wrong with a provider's answer, by name: "503", "reset-mid", "crlf,bytes". Some change the
 * course of an answer, some how a stream is written, which a good reader must not notice. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include "base/error.h"

enum mock_course {
    COURSE_WHOLE,
    COURSE_STATUS,       /* an error's status and body */
    COURSE_ERROR_FIRST,  /* 200, and the error as the first event */
    COURSE_ERROR_MID,    /* after half of the answer */
    COURSE_ERROR_OBJECT, /* likewise, in vLLM's older form */
    COURSE_FINISH_ERROR, /* finish_reason "error" */
    COURSE_RESET,        /* RST instead of an answer */
    COURSE_RESET_MID,    /* RST after half of it */
    COURSE_HANG,         /* nothing ever comes */
    COURSE_STALL,        /* nothing more after half of it */
    COURSE_GARBLED,      /* half of an event's JSON, as if it were one */
    COURSE_NOISE,        /* random bytes */
    COURSE_HUGE_LINE,
    COURSE_EOF,          /* ends within an event; the transport finds nothing wrong */
    COURSE_CUT,          /* likewise, and the transport sees it */
    COURSE_CUT_ANYWHERE, /* at a random byte before the reason of the end, by closing; streams alone */
    COURSE_NO_FINISH,    /* the end, but not why */
    COURSE_EMPTY,        /* 200 and no body */
    COURSE_HTML,         /* 200 and a page */
};

enum mock_style {
    STYLE_CRLF = 1 << 0,
    STYLE_CR = 1 << 1,
    STYLE_COMMENTS = 1 << 2, /* before each event; Anthropic's form: pings as well */
    STYLE_BOM = 1 << 3,
    STYLE_NO_SPACE = 1 << 4,   /* after the colon */
    STYLE_TRAILING = 1 << 5,   /* blanks after the JSON */
    STYLE_LINES = 1 << 6,      /* one event's data in several lines */
    STYLE_BYTES = 1 << 7,      /* one byte a segment */
    STYLE_SPLIT_UTF8 = 1 << 8, /* segments end within characters, of which the answer has many */
    STYLE_NO_DONE = 1 << 9,    /* no [DONE], no message_stop; the answer is complete */
    STYLE_NO_USAGE = 1 << 10,
    STYLE_TOOLS_AT_ONCE = 1 << 11, /* two calls of tools and the reason of the end in one chunk */
    STYLE_DRIP = 1 << 12,          /* one byte a MOCK_DRIP_MS */
    STYLE_SEGMENTS = 1 << 14,      /* of random sizes */
    STYLE_MUTATED = 1 << 15,       /* bytes are changed, lost and doubled at random */
    STYLE_BAD_SCHEMA = 1 << 13,    /* an answer that is not what the request's schema has */
};
enum { MOCK_DRIP_MS = 20, MOCK_SEGMENT_BYTES_MAX = 400, MOCK_FAULT_NAME_BYTES_MAX = 127 };

/* Zero: nothing is wrong. */
struct mock_fault {
    enum mock_course course;
    int status;          /* COURSE_STATUS */
    bool is_about_money; /* a 429 that no waiting helps */
    unsigned styles;     /* of enum mock_style */
};

/* names: joined by commas, added to *out; "none" and "" are nothing. INVALID_ARGUMENT lists the known ones.
 */
err_t mock_fault_parse(const char *names, size_t size_bytes, struct mock_fault *out) ERR_MUST_CHECK;
bool mock_fault_is_any(const struct mock_fault *fault);
/* The i-th fault's name and what it is; NULL past the last. */
const char *mock_fault_name(size_t i, const char **what);
/* The next of a sequence of random numbers, by what *state was set to. */
uint32_t mock_random(uint64_t *state);
