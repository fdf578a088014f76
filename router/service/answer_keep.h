/* An answer as the decision log has it: the first choice's text and calls of tools, kept while they pass on
 * to the reader, up to a limit. One thread at a time. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include "api/event.h"
#include "base/buffer.h"

enum {
    ANSWER_KEEP_BYTES_MAX = 1 << 20, /* a longer answer is not kept at all */
    ANSWER_KEEP_CALLS_MAX = 128,     /* likewise one with more calls */
};

struct kept_call;

/* Zero-initialised it keeps nothing. */
struct answer_keep {
    bool is_on, is_too_much; /* is_too_much: too long, or no memory */
    struct buffer text;
    struct kept_call *calls; /* [n_calls], owned */
    size_t n_calls, n_bytes;
};

void answer_keep_take(struct answer_keep *keep, const struct event *event);
/* Nothing was said: another one answers. It stays on. */
void answer_keep_forget(struct answer_keep *keep);
/* The text, and behind it the calls as eval_put_calls writes them. False: nothing is kept, or it is more than
 * the buffer takes. */
bool answer_keep_write(const struct answer_keep *keep, struct buffer *out);
