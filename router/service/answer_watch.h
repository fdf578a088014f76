/* The text of an answer that goes on piece by piece, kept to be checked at its end. Of one thread at a time.
 */
#pragma once

#include <jansson.h>
#include "api/event.h"
#include "base/buffer.h"
#include "base/error.h"

struct answer_watch {
    struct buffer *texts; /* [n_choices] owned; NULL = nothing is watched */
    uint32_t n_choices;
    uint64_t others; /* bits: choices that are no JSON and need not be: calls of tools, refusals, cut short */
    bool is_too_much; /* to be kept, or there is no memory */
};

enum { ANSWER_WATCH_BYTES_MAX = 4 << 20 }; /* of each choice */

err_t answer_watch_open(struct answer_watch *watch, uint32_t n_choices) ERR_MUST_CHECK;
void answer_watch_close(struct answer_watch *watch);
void answer_watch_take(struct answer_watch *watch, const struct event *event);
/* What came so far is thrown away: another one answers. */
void answer_watch_forget(struct answer_watch *watch);
/* answer_check of each choice; DATA_LOSS too where it was too much to be looked at. */
err_t answer_watch_check(const struct answer_watch *watch, const json_t *response_format) ERR_MUST_CHECK;
