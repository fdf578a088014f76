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
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/error.h"
#include "router/config/yaml_fields.h"

enum rollout_stage { ROLLOUT_OBSERVE, ROLLOUT_SHADOW, ROLLOUT_CANARY, ROLLOUT_PROMOTED };
extern const char *const ROLLOUT_STAGE_NAMES[5]; /* NULL at the end */

struct rollout_options {
    bool is_set; /* there is a gate: else every policy is followed */
    enum rollout_stage stage;
    const char *artefact, *baseline;
    double share, shadow_share, margin;
    uint32_t window;
};
err_t rollout_options_read(const struct yaml_value *value, struct rollout_options *out) ERR_MUST_CHECK;

struct rollout;

/* policy_id, fingerprints: of what runs, which the artefact must be of. An artefact that is missing, does not
 * pass or is of something else makes the stage OBSERVE, and rollout_why says so. */
err_t rollout_open(const struct rollout_options *options, const char *policy_id,
                   const char *local_fingerprint, struct rollout **out) ERR_MUST_CHECK;
void rollout_close(struct rollout *rollout); /* NULL is fine */

struct rollout_choice {
    bool follows_policy; /* else the baseline tier answers */
    bool is_shadowed;    /* the other one answers too, and rollout_score is told how that compares */
};
/* By the request's key alone, so that a replay chooses alike. Any thread. */
struct rollout_choice rollout_choose(struct rollout *rollout, uint64_t key);
/* How good the policy's answer was beside the baseline's: 0..1. Any thread. */
void rollout_score(struct rollout *rollout, double score);
enum rollout_stage rollout_stage_now(const struct rollout *rollout);
/* For people: why it stands where it does. */
void rollout_why(struct rollout *rollout, struct buffer *out);
