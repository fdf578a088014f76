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

/* Of the stop strings that end behind the first n_old bytes of the held text, the one that ends first, and
 * the longest of those; NULL when there is none. */
static const char *find_stop(const struct stop_matcher *matcher, size_t n_old, size_t *end)
{
    const char *best = NULL;
    for (size_t i = 0; i < matcher->n_stops; i++) {
        const char *stop = matcher->stops[i];
        size_t size = strlen(stop);
        size_t begin = n_old + 1 > size ? n_old + 1 - size : 0;
        const char *at = memmem(matcher->held.data + begin, matcher->held.size - begin, stop, size);
        if (!at)
            continue;
        size_t stop_end = (size_t)(at - matcher->held.data) + size;
        if (!best || stop_end < *end || (stop_end == *end && size > strlen(best))) {
            best = stop;
            *end = stop_end;
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
    if (matched)
        *matched = NULL;
    if (matcher->n_stops == 0)
        return append(out, text, text_bytes);
    size_t n_old = matcher->held.size, end = 0;
    TRY(append(&matcher->held, text, text_bytes));
    if (matcher->held.size == 0)
        return err_ok();
    const char *stop = matched ? find_stop(matcher, n_old, &end) : NULL;
    if (stop) {
        *matched = stop;
        TRY(append(out, matcher->held.data, include_stop ? end : end - strlen(stop)));
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
