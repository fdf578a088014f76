/* Finds stop strings in text that arrives in pieces. Text that might be the beginning of a stop string is
 * held back: what is released can never turn out to be part of one. One per choice, one thread. */
#pragma once

#include <stddef.h>
#include "base/buffer.h"
#include "base/error.h"

struct stop_matcher {
    const char *const *stops; /* [n_stops] borrowed, not empty */
    size_t n_stops;
    struct buffer held; /* owned */
};

void stop_matcher_init(struct stop_matcher *matcher, const char *const *stops, size_t n_stops);
void stop_matcher_free(struct stop_matcher *matcher);

/* Adds text; appends to *out what is certain. *matched: the stop string that was completed (the one that ends
 * first in the text, the longest of those: it does not depend on how the text is cut into pieces), or NULL;
 * then nothing before it is held any more and what follows it is dropped; the stop string itself is appended
 * too when include_stop. With matched NULL a stop string that ends in this piece does not count, but text
 * that may begin a later one is held all the same (min_tokens). RESOURCE_EXHAUSTED at a buffer's limit. */
err_t stop_matcher_push(struct stop_matcher *matcher, const char *text, size_t text_bytes, bool include_stop,
                        struct buffer *out, const char **matched) ERR_MUST_CHECK;
/* The end: what was held comes out. */
err_t stop_matcher_flush(struct stop_matcher *matcher, struct buffer *out) ERR_MUST_CHECK;
