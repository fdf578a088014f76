/* How far a policy is trusted. One that has no passing artefact of `bantam eval` only observes: its decisions
 * are logged, and the baseline (all to the frontier) is what happens. Then a share of the requests is
 * answered twice (shadow: the policy's own answer is compared and thrown away), then a share follows the
 * policy (canary), then all (promoted). Live scores below the margin take it back a stage, by itself.
 *
 *   gate:
 *     stage: canary                # observe, shadow, canary, promoted: as far as it may go
 *     artefact: eval.json
 *     share: 0.1                   # of requests, for shadow and canary
 *     baseline: frontier           # tier
 *     margin: 0.03                 # that the policy may be worse by
 *     window: 200                  # scores that are looked at
 *     shadow_share: 0.02           # of requests that follow the policy, scored still after promotion
 *     false_cheap: 0.05            # most of what the small model answers may be wrong where the baseline is
 * right
 *
 * What is written here are the defaults, but for the stage (observe), the artefact (none) and the baseline
 * (the last tier). A configuration without `gate` has these defaults, so that nobody's untested policy is
 * followed by oversight; `gate: off` follows it, and is logged.
 *
 * Scores: the mean of the last `window` must reach 1 - margin. As soon as it cannot, whatever the rest of a
 * window brings, the stage goes back by one and a new window begins. It comes forward again, never beyond the
 * configured stage, after a whole window whose mean reaches 1 - margin / 2, ROLLOUT_FALLS_MAX times; then it
 * stays until the gate, the policy or its artefact is another one, or the router starts anew. From SHADOW it
 * goes back to OBSERVE, which scores nothing: so that is for people to look at. Both are logged. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/error.h"
#include "router/config/yaml_fields.h"

enum rollout_stage { ROLLOUT_OBSERVE, ROLLOUT_SHADOW, ROLLOUT_CANARY, ROLLOUT_PROMOTED };
extern const char *const ROLLOUT_STAGE_NAMES[5]; /* NULL at the end */

enum { ROLLOUT_WINDOW_MAX = 100000, ROLLOUT_WINDOW_MIN = 10, ROLLOUT_FALLS_MAX = 3 };

struct rollout_options {
    bool is_set;     /* false: `gate: off`, and every policy is followed */
    bool is_default; /* the file says nothing of a gate */
    enum rollout_stage stage;
    const char *artefact, *baseline; /* NULL = not told; the file's */
    double share, shadow_share, margin, false_cheap;
    uint32_t window;
};
/* value: of the key `gate`; not there = observe. INVALID_ARGUMENT names line and field. */
err_t rollout_options_read(const struct yaml_value *value, struct rollout_options *out) ERR_MUST_CHECK;

struct rollout;

/* policy_id, local_fingerprint: of what runs, which the artefact must be of; fingerprint "" = not known yet.
 * An artefact that is missing, does not pass or is of something else makes the stage OBSERVE, and rollout_why
 * says so. With `gate: off` the stage is PROMOTED and nothing is shadowed. Nothing of options is kept. */
err_t rollout_open(const struct rollout_options *options, const char *policy_id,
                   const char *local_fingerprint, struct rollout **out) ERR_MUST_CHECK;
void rollout_close(struct rollout *rollout); /* NULL is fine */
/* What the local engine says it is: it has come, or another one may have taken its place. Costs nothing while
 * that is the same. Any thread. */
void rollout_local_changed(struct rollout *rollout, const char *local_fingerprint);

struct rollout_choice {
    bool follows_policy; /* else the baseline tier answers */
    bool is_shadowed;    /* the other one answers too, and rollout_score is told how that compares */
};
/* By the stage and the request's key alone, so that a replay chooses alike. What does not follow the policy
 * is shadowed with `share`, what follows it with `shadow_share`. Any thread, no lock. */
struct rollout_choice rollout_choose(struct rollout *rollout, uint64_t key);
/* How good the policy's answer was beside the baseline's: 0..1, 1 = as good. Any thread. */
void rollout_score(struct rollout *rollout, double score);
enum rollout_stage rollout_stage_now(const struct rollout *rollout);
/* Are both of the same gate, policy and artefact, so that what one has learned holds for the other? The
 * baseline is not looked at. */
bool rollout_is_same(const struct rollout *a, const struct rollout *b);
/* For people: why it stands where it does. */
void rollout_why(struct rollout *rollout, struct buffer *out);
