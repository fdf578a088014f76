/* An answer as the decision log has it: the first choice's text and calls of tools, kept while they pass on
 * to the reader, up to a limit. One thread at a time. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include "api/event.h"
#include "base/buffer.h"
#include "router/service/call_list.h"

/* A longer answer is not kept at all, nor is one with more than CALL_LIST_MAX calls. */
enum { ANSWER_KEEP_BYTES_MAX = 1 << 20 };

/* Zero-initialised it keeps nothing. */
struct answer_keep {
    bool is_on, is_too_much; /* is_too_much: too long, or no memory */
    struct buffer text;
    struct call_list calls;
    size_t n_bytes;
};

void answer_keep_take(struct answer_keep *keep, const struct event *event);
/* Nothing was said: another one answers. It stays on. */
void answer_keep_forget(struct answer_keep *keep);
/* The text, and behind it the calls as eval_put_calls writes them. False: nothing is kept, or it is more than
 * the buffer takes. */
bool answer_keep_write(const struct answer_keep *keep, struct buffer *out);
