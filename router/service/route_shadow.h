/* Live scores for the gate (router/gate/rollout.h): a request that was answered is asked a second time, of
 * the other side: the baseline where the policy was followed, the policy where the baseline answered. The two
 * texts are compared, the score goes to the gate, and the second answer is thrown away.
 *
 * Only what is open and whole is asked twice: one choice of text that ended by itself, without tools, images
 * and other parts, without a wish where it shall go or what it may cost, nothing that must stay here, nothing
 * that was kept, and no answer that a failure sent elsewhere.
 *
 * A shadow begins when the answer's end is in its reader's hands, on the worker's thread, as a request of its
 * own: own ledger entries (reason "shadow", the tenant's budget), the lowest priority at engines, the same
 * limit of tokens, one tier and no retry after a rest, no hedge, no cache, no line in the decision log, no
 * place among --max-requests; none at engines where somebody waits. It tells nothing of an engine's times,
 * which its priority makes longer. */
#pragma once

#include "router/service/route_internal.h"

enum {
    SHADOWS_AT_ONCE_MAX = 16,        /* more are not begun */
    SHADOW_TIME_MS_MAX = 60000,      /* then it is given up, without a score */
    SHADOW_TEXT_BYTES_MAX = 1 << 20, /* of an answer; a longer one is not compared */
};

/* At submit, before anybody is asked: shall this one be compared? policy_tier: where the policy sends it. */
void route_shadow_prepare(struct stream *stream, bool follows_policy, size_t policy_tier);
/* An event of the answer, of a request that is compared or is a shadow. False: the shadow has ended. */
bool route_shadow_take_locked(struct stream *stream, const struct event *event);
/* What was told so far is thrown away. */
void route_shadow_forget_locked(struct stream *stream);
/* The shadow's cascade goes up to that tier. True: that is the baseline, as good as itself; it has ended. */
bool route_shadow_escalates_locked(struct stream *stream, size_t tier);
/* On the worker, without the lock: a request has ended, and its shadow begins. */
void route_shadow_begin(struct stream *stream);
/* On the worker, without the lock: the shadow itself has ended. */
void route_shadow_ended(struct stream *stream);
void route_shadow_free(struct route_shadow *shadow); /* NULL is fine */
/* None begins any more once the service drains; those under way are cancelled. */
void route_shadow_cancel_all(struct route_service *service);
