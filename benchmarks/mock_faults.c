#include "benchmarks/mock_faults.h"

#include <stdio.h>
#include <string.h>

static const struct row {
    const char *name, *what;
    struct mock_fault fault;
} ROWS[] = {
#define STATUS(number, what)                                                                                 \
    {                                                                                                        \
#number, what,                                                                                       \
        {                                                                                                    \
            .course = COURSE_STATUS, .status = (number)                                                      \
        }                                                                                                    \
    }
    STATUS(302, "a redirect"),
    STATUS(400, "a bad request"),
    STATUS(401, "a key that nobody knows"),
    STATUS(402, "money is spent"),
    STATUS(403, "forbidden"),
    STATUS(404, "no such model"),
    STATUS(408, "too late"),
    STATUS(413, "too large"),
    STATUS(422, "cannot be processed"),
    STATUS(429, "too many requests, with retry-after"),
    STATUS(500, "an internal error"),
    STATUS(502, "a bad gateway, in HTML"),
    STATUS(503, "not available, with retry-after"),
    STATUS(504, "a gateway's timeout"),
    STATUS(529, "overloaded"),
#undef STATUS
    {"429-money",
     "a 429 because money is spent",
     {.course = COURSE_STATUS, .status = 429, .is_about_money = true}},
#define COURSE(name, course_, what)                                                                          \
    {                                                                                                        \
        name, what,                                                                                          \
        {                                                                                                    \
            .course = (course_)                                                                              \
        }                                                                                                    \
    }
    COURSE("overloaded", COURSE_ERROR_FIRST, "200, then an error at once"),
    COURSE("error-mid", COURSE_ERROR_MID, "an error after half of the answer"),
    COURSE("error-object", COURSE_ERROR_OBJECT, "likewise, as {\"object\":\"error\"}"),
    COURSE("finish-error", COURSE_FINISH_ERROR, "finish_reason \"error\", in OpenAI's form alone"),
    COURSE("reset", COURSE_RESET, "the connection is reset"),
    COURSE("reset-mid", COURSE_RESET_MID, "likewise, after half of the answer"),
    COURSE("hang", COURSE_HANG, "nothing ever comes"),
    COURSE("stall", COURSE_STALL, "nothing more after half of the answer"),
    COURSE("garbled", COURSE_GARBLED, "an event with half of its JSON"),
    COURSE("noise", COURSE_NOISE, "random bytes"),
    COURSE("huge-line", COURSE_HUGE_LINE, "a line of --huge-bytes"),
    COURSE("eof", COURSE_EOF, "ends within an event, by closing"),
    COURSE("cut", COURSE_CUT, "likewise, before the length that was told"),
    COURSE("cut-anywhere", COURSE_CUT_ANYWHERE, "ends at a random byte, by closing; streams alone"),
    COURSE("no-finish", COURSE_NO_FINISH, "an end without its reason"),
    COURSE("empty", COURSE_EMPTY, "200 without a body"),
    COURSE("html", COURSE_HTML, "200 with a page"),
#undef COURSE
#define STYLE(name, style, what)                                                                             \
    {                                                                                                        \
        name, what,                                                                                          \
        {                                                                                                    \
            .styles = (style)                                                                                \
        }                                                                                                    \
    }
    STYLE("crlf", STYLE_CRLF, "lines end with CR LF"),
    STYLE("cr", STYLE_CR, "lines end with CR"),
    STYLE("comments", STYLE_COMMENTS, "comments and pings between events"),
    STYLE("bom", STYLE_BOM, "a byte order mark"),
    STYLE("no-space", STYLE_NO_SPACE, "no blank after the colon"),
    STYLE("trailing", STYLE_TRAILING, "blanks after the JSON"),
    STYLE("lines", STYLE_LINES, "data of one event in several lines"),
    STYLE("bytes", STYLE_BYTES, "segments of one byte"),
    STYLE("split-utf8", STYLE_SPLIT_UTF8, "segments that end within characters"),
    STYLE("segments", STYLE_SEGMENTS, "segments of random sizes"),
    STYLE("mutated", STYLE_MUTATED, "bytes of a stream are changed, lost and doubled at random"),
    STYLE("no-done", STYLE_NO_DONE, "no [DONE], no message_stop"),
    STYLE("no-usage", STYLE_NO_USAGE, "tokens are not counted"),
    STYLE("tools-at-once", STYLE_TOOLS_AT_ONCE, "two calls of tools and the finish_reason in one chunk"),
    STYLE("drip", STYLE_DRIP, "one byte now and then"),
    STYLE("bad-schema", STYLE_BAD_SCHEMA, "not what the schema asks for"),
#undef STYLE
};
enum { N_ROWS = sizeof ROWS / sizeof *ROWS };

const char *mock_fault_name(size_t i, const char **what)
{
    *what = i < N_ROWS ? ROWS[i].what : NULL;
    return i < N_ROWS ? ROWS[i].name : NULL;
}

bool mock_fault_is_any(const struct mock_fault *fault)
{
    return fault->course != COURSE_WHOLE || fault->styles != 0;
}

static err_t unknown(const char *name, size_t size_bytes)
{
    char known[400] = "";
    for (size_t i = 0, at = 0; i < N_ROWS && at < sizeof known; i++)
        at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", i > 0 ? ", " : "", ROWS[i].name);
    return err_new(ERR_INVALID_ARGUMENT, "\"%.*s\" is no fault; there are %s",
                   (int)(size_bytes < 64 ? size_bytes : 64), name, known);
}

static err_t add(const char *name, size_t size_bytes, struct mock_fault *out)
{
    if (size_bytes == 0 || (size_bytes == 4 && memcmp(name, "none", 4) == 0))
        return err_ok();
    for (size_t i = 0; i < N_ROWS; i++) {
        const struct mock_fault *fault = &ROWS[i].fault;
        if (strlen(ROWS[i].name) != size_bytes || memcmp(ROWS[i].name, name, size_bytes) != 0)
            continue;
        out->styles |= fault->styles;
        if (fault->course != COURSE_WHOLE) {
            out->course = fault->course;
            out->status = fault->status;
            out->is_about_money = fault->is_about_money;
        }
        return err_ok();
    }
    return unknown(name, size_bytes);
}

err_t mock_fault_parse(const char *names, size_t size_bytes, struct mock_fault *out)
{
    for (size_t at = 0; at <= size_bytes;) {
        const char *comma = memchr(names + at, ',', size_bytes - at);
        size_t end = comma ? (size_t)(comma - names) : size_bytes;
        TRY(add(names + at, end - at, out));
        at = end + 1;
    }
    return err_ok();
}

uint32_t mock_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33);
}
