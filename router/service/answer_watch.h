/* What an answer says and which tools it calls, kept while it passes, to be held against what was asked for
 * when it is over. Of one thread at a time. */
#pragma once

#include <jansson.h>
#include "api/event.h"
#include "base/buffer.h"
#include "base/error.h"
#include "router/service/call_list.h"

struct answer_watch {
    struct watched_choice {
        struct buffer text;
        struct call_list calls;
        bool is_other; /* a refusal, or cut short: it says so, and fits nothing */
    } * choices;       /* [n_choices] owned; NULL = nothing is watched */
    uint32_t n_choices;
    bool checks_all_calls; /* not of strict tools alone */
    bool is_too_much;      /* to be kept, or there is no memory */
};

enum { ANSWER_WATCH_BYTES_MAX = 4 << 20 }; /* of each choice's text, and of each call */

err_t answer_watch_open(struct answer_watch *watch, uint32_t n_choices, bool checks_all_calls) ERR_MUST_CHECK;
void answer_watch_close(struct answer_watch *watch);
void answer_watch_take(struct answer_watch *watch, const struct event *event);
/* What came so far is thrown away: another one answers. */
void answer_watch_forget(struct answer_watch *watch);
/* answer_check of each choice that calls nothing, answer_check_call of what the others call; DATA_LOSS too
 * where it was too much to be looked at. */
err_t answer_watch_check(const struct answer_watch *watch, const json_t *request) ERR_MUST_CHECK;
