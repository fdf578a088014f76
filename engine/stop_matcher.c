#include "engine/stop_matcher.h"

#include <string.h>

/* Held text is shorter than a stop string plus one pushed piece. */
enum { HELD_BYTES_MAX = 1 << 20 };

void stop_matcher_init(struct stop_matcher *matcher, const char *const *stops, size_t n_stops)
{
    *matcher =
        (struct stop_matcher){.stops = stops, .n_stops = n_stops, .held = {.limit_bytes = HELD_BYTES_MAX}};
}

void stop_matcher_free(struct stop_matcher *matcher)
{
    buffer_free(&matcher->held);
}

static err_t append(struct buffer *out, const char *text, size_t size)
{
    if (!buffer_append(out, text, size))
        return err_new(ERR_RESOURCE_EXHAUSTED, "the answer's text exceeds its limit of %zu bytes",
                       out->limit_bytes);
    return err_ok();
}

/* First position at which a whole stop string lies, and the longest such one; NULL when there is none. */
static const char *find_stop(const struct stop_matcher *matcher, size_t *position)
{
    const char *best = NULL;
    for (size_t i = 0; i < matcher->n_stops; i++) {
        const char *stop = matcher->stops[i];
        const char *at = memmem(matcher->held.data, matcher->held.size, stop, strlen(stop));
        if (!at)
            continue;
        size_t where = (size_t)(at - matcher->held.data);
        if (!best || where < *position || (where == *position && strlen(stop) > strlen(best))) {
            best = stop;
            *position = where;
        }
    }
    return best;
}

/* Length of the longest suffix of the held text that begins a stop string. */
static size_t partial_stop(const struct stop_matcher *matcher)
{
    size_t longest = 0;
    for (size_t i = 0; i < matcher->n_stops; i++) {
        size_t size = strlen(matcher->stops[i]) - 1;
        if (size > matcher->held.size)
            size = matcher->held.size;
        for (; size > longest; size--)
            if (memcmp(matcher->held.data + matcher->held.size - size, matcher->stops[i], size) == 0)
                longest = size;
    }
    return longest;
}

err_t stop_matcher_push(struct stop_matcher *matcher, const char *text, size_t text_bytes, bool include_stop,
                        struct buffer *out, const char **matched)
{
    *matched = NULL;
    if (matcher->n_stops == 0)
        return append(out, text, text_bytes);
    TRY(append(&matcher->held, text, text_bytes));
    if (matcher->held.size == 0)
        return err_ok();
    size_t position = 0;
    const char *stop = find_stop(matcher, &position);
    if (stop) {
        *matched = stop;
        TRY(append(out, matcher->held.data, position + (include_stop ? strlen(stop) : 0)));
        buffer_clear(&matcher->held);
        return err_ok();
    }
    size_t keep = partial_stop(matcher);
    size_t release = matcher->held.size - keep;
    TRY(append(out, matcher->held.data, release));
    memmove(matcher->held.data, matcher->held.data + release, keep);
    matcher->held.size = keep;
    matcher->held.data[keep] = '\0';
    return err_ok();
}

err_t stop_matcher_flush(struct stop_matcher *matcher, struct buffer *out)
{
    if (matcher->held.size == 0)
        return err_ok();
    err_t e = append(out, matcher->held.data, matcher->held.size);
    buffer_clear(&matcher->held);
    return e;
}
