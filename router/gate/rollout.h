/* How far a policy is trusted. One that has no passing artefact of `bantam eval` only observes: its decisions
 * are logged, and the baseline (all to the frontier) is what happens. Then a share of the requests is
 * answered twice (shadow: the policy's own answer is compared and thrown away), then a share follows the
 * policy (canary), then all (promoted). The artefact lets it begin, live scores let it take each further
 * step, and take it back a stage when they fall below the margin, by themselves.
 *
 *   gate:
 *     stage: canary                # observe, shadow, canary, promoted: as far as it may go
 *     from: shadow                 # where a policy with a new artefact begins
 *     state: eval.json.stage       # file in which the stage is kept that it has come to
 *     artefact: eval.json
 *     share: 0.1                   # of requests, for shadow and canary
 *     baseline: frontier           # tier
 *     margin: 0.03                 # that the policy may be worse by
 *     window: 200                  # scores that are looked at
 *     shadow_share: 0.02           # of requests that follow the policy, scored still after promotion
 *     false_cheap: 0.05            # most of what the small model answers may be wrong where the baseline is
 * right
 *
 * What is written here are the defaults, but for the stage (observe), the artefact (none; the state's file
 * stands beside it) and the baseline (the last tier). A configuration without `gate` has these defaults, so
 * that nobody's untested policy is followed by oversight; `gate: off` follows it, and is logged.
 *
 * Scores: the mean of the last `window` must reach 1 - margin. As soon as it cannot, whatever the rest of a
 * window brings, the stage goes back by one and a new window begins. After a whole window whose mean reaches
 * 1 - margin it takes the next step, never beyond the configured stage; once it has fallen that takes
 * 1 - margin / 2, and after ROLLOUT_FALLS_MAX falls it stays. From SHADOW it goes back to OBSERVE, which
 * scores nothing: so that is for people to look at. All are logged, and the stage and the falls are kept in
 * the state's file: another start goes on there while policy, artefact and `from` are the same. */
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
    enum rollout_stage stage, from;
    const char *artefact, *baseline, *state; /* NULL = not told; the file's */
    double share, shadow_share, margin, false_cheap;
    uint32_t window;
};
/* value: of the key `gate`; not there = observe. INVALID_ARGUMENT names line and field. */
err_t rollout_options_read(const struct yaml_value *value, struct rollout_options *out) ERR_MUST_CHECK;

struct rollout;

/* policy_id, local_fingerprint: of what runs, which the artefact must be of; fingerprint "" = not known yet.
 * An artefact that is missing, does not pass or is of something else makes the stage OBSERVE, and rollout_why
 * says so. A state's file that cannot be read or is of something else counts as not there. With `gate: off`
 * the stage is PROMOTED and nothing is shadowed. Nothing of options is kept. */
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
/* Are both of the same gate, policy, artefact and state's file, so that what one has learned holds for the
 * other? The baseline is not looked at. */
bool rollout_is_same(const struct rollout *a, const struct rollout *b);
/* For people: why it stands where it does. */
void rollout_why(struct rollout *rollout, struct buffer *out);
