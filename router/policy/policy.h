/* Where a request goes, decided by a policy file without calling anyone. Tiers are ordered, the first one is
 * local; a tier is a chain of models, of which the next is asked when one is down.
 *
 *   tiers:
 *     - {name: small, models: [local/demo]}
 *     - {name: frontier, models: [openai/gpt-5, claude/opus]}
 *   rules:                               # from the top; the first whose conditions all hold decides
 *     - name: save
 *       when: {budget: {min: 80}}        # percent that are used
 *       to: small
 *     - name: hr stays
 *       when: {tenants: [hr]}
 *       local_only: yes                  # nothing of it leaves this machine; comes before all others, and
 * before a wish
 *     - name: pictures
 *       when: {images: {min: 1}}
 *       to: frontier
 *     - name: code
 *       when: {code: yes, turns: {min: 3}}
 *       to: frontier
 *   default: small
 *   difficulty: {at_least: 0.6, to: frontier}      # what a classifier or the caller says of it
 *   overflow: {ttft_over: 500ms, to: frontier}     # only where the other is expected to begin sooner
 *   when_down: {to: frontier}                      # every engine of the tier is down
 *   when_broke: local                              # or refuse: a budget is spent, or every provider is down
 *   unclassified: {privacy: closed, to: frontier}  # a classifier was to be asked and said nothing
 *
 * What decides, first to last: privacy, the caller's wish, rules, the context's length, difficulty (or that
 * no classifier told it), overflow, the default. A rule that keeps something here by its intent keeps
 * whatever may have that intent, as long as nobody has said which it has, unless `privacy: open` says
 * otherwise. Then what stands against it: an engine that is down, a parameter that cannot cross, a budget.
 * Pure: the same input gives the same decision. A policy does not change; any thread reads it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/error.h"
#include "router/policy/request_signals.h"
#include "router/config/yaml_fields.h"

enum {
    POLICY_TIERS_MAX = 8,
    POLICY_CHAIN_MAX = 8, /* models of a tier */
    POLICY_RULES_MAX = 256,
    POLICY_NAMES_MAX = 64, /* in one list of a condition */
};

struct policy_tier {
    const char *name;
    const char *const *models; /* [n_models] "local/NAME" or "PROVIDER/NAME" */
    size_t n_models;
    bool is_local; /* all of them are */
};

struct policy;

/* What a classifier said of a request. */
enum policy_verdict {
    VERDICT_NONE, /* it was not asked, or not yet */
    VERDICT_GIVEN,
    VERDICT_MISSING, /* it was to be asked, and said nothing */
    POLICY_VERDICTS,
};
extern const char *const POLICY_VERDICT_NAMES[POLICY_VERDICTS + 1]; /* "none", "given", "missing", NULL */

/* The keys of the file that are a policy's; the file must outlive it. INVALID_ARGUMENT names line and field.
 */
extern const char *const POLICY_KEYS[]; /* NULL ends them */
err_t policy_read(const struct yaml_value *root, struct policy **out) ERR_MUST_CHECK;
void policy_free(struct policy *policy); /* NULL is fine */
const struct policy_tier *policy_tiers(const struct policy *policy, size_t *n);
bool policy_find_tier(const struct policy *policy, const char *name, size_t *tier);
/* Of a tier's name, whose first model it is, or of a model's as the tiers write it. */
bool policy_find_model(const struct policy *policy, const char *name, size_t *tier, size_t *model);

/* What a first token may take before requests overflow; -1 = the policy does not say. */
int64_t policy_ttft_over_ms(const struct policy *policy);

/* Everything a decision rests on. */
struct policy_input {
    const struct request_signals *signals;
    const struct route_hints *hints;
    const char *tenant; /* "" = none */
    const char *model;  /* that the client asked for; "" = none */
    enum policy_verdict verdict;
    const char *intent; /* a classifier's; "" = not known, or none of those that rules know */
    double
        difficulty; /* 0..1, that the small model gets it wrong; negative = not known: then complexity / 10 */
    uint64_t prompt_tokens;                     /* or an estimate */
    uint64_t context_tokens[POLICY_TIERS_MAX];  /* of each tier's models, the least; 0 = not known */
    int64_t ttft_ms[POLICY_TIERS_MAX];          /* expected of each tier; -1 = not known */
    bool is_down[POLICY_TIERS_MAX];             /* nobody of the tier answers */
    const char *cannot_cross[POLICY_TIERS_MAX]; /* why the request cannot go there; NULL = it can */
    uint64_t
        budget_percent; /* that is spent or reserved of the tenant's, of its day or month; 0 = it has none */
    bool is_broke;      /* the tenant's budget has no room for a call to a provider */
};

enum policy_reason {
    REASON_DEFAULT,
    REASON_PRIVACY,
    REASON_WISH,
    REASON_RULE,
    REASON_CONTEXT,
    REASON_DIFFICULTY,
    REASON_UNCLASSIFIED,
    REASON_OVERFLOW,
    REASON_DOWN,
    REASON_CANNOT_CROSS,
    REASON_BUDGET,
    POLICY_REASONS,
};
extern const char
    *const POLICY_REASON_NAMES[POLICY_REASONS + 1]; /* for metrics and metadata: "default", ... */

struct policy_decision {
    bool is_refused; /* nobody may or can answer it */
    bool local_only; /* and nothing may change that */
    size_t tier;     /* index */
    enum policy_reason reason;
    const char *rule; /* REASON_RULE and REASON_PRIVACY by a rule: its name; else "" */
};

/* trace: what was looked at, line by line, for people; NULL = none. */
struct policy_decision policy_decide(const struct policy *policy, const struct policy_input *input,
                                     struct buffer *trace);
