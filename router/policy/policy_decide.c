/* Where a request goes. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "base/assert.h"
#include "router/policy/policy_internal.h"

const char *const POLICY_REASON_NAMES[POLICY_REASONS + 1] = {
    "default",      "privacy",  "wish", "rule",         "context", "difficulty",
    "unclassified", "overflow", "down", "cannot_cross", "budget",  NULL};
const char *const POLICY_VERDICT_NAMES[POLICY_VERDICTS + 1] = {"none", "given", "missing", NULL};

enum { COMPLEXITY_MAX = 10 };

/* A trace that is full simply ends. */
static void note(struct buffer *trace, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void note(struct buffer *trace, const char *format, ...)
{
    char line[256];
    if (trace == NULL)
        return;
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line - 1, format, arguments);
    va_end(arguments);
    size_t size = length < 0 ? 0 : (size_t)length < sizeof line - 1 ? (size_t)length : sizeof line - 2;
    line[size++] = '\n';
    bool ignored = buffer_append(trace, line, size);
    (void)ignored;
}

static bool has_name(const struct names *names, const char *name)
{
    for (size_t i = 0; i < names->n; i++) {
        if (strcmp(names->names[i], name) == 0)
            return true;
    }
    return names->n == 0;
}

static bool is_in(const struct span *span, uint64_t value)
{
    return !span->is_set || (value >= (uint64_t)span->min && value <= (uint64_t)span->max);
}

static bool is_wanted(enum want want, bool is_so)
{
    return want == WANT_ANY || (want == WANT_YES) == is_so;
}

/* The first condition that does not hold; NULL = all do. */
static const char *unmet(const struct condition *when, const struct policy_input *input)
{
    const struct request_signals *signals = input->signals;
    const struct {
        const char *name;
        bool holds;
    } CHECKS[] = {
        {"tenants", has_name(&when->tenants, input->tenant)},
        {"models", has_name(&when->models, input->model)},
        {"intents", has_name(&when->intents, input->intent)},
        {"tasks", has_name(&when->tasks, input->hints->task)},
        {"scripts", has_name(&when->scripts, SCRIPT_NAMES[signals->script])},
        {"languages", has_name(&when->languages, LANGUAGE_NAMES[signals->language])},
        {"tokens", is_in(&when->tokens, input->prompt_tokens + signals->max_tokens)},
        {"tools", is_in(&when->tools, signals->n_tools)},
        {"images", is_in(&when->images, signals->n_images)},
        {"audio", is_in(&when->audio, signals->n_audio)},
        {"files", is_in(&when->files, signals->n_files)},
        {"turns", is_in(&when->turns, signals->n_turns)},
        /* A complexity that nobody told is none at all. */
        {"complexity", !when->complexity.is_set || (input->hints->complexity > 0 &&
                                                    is_in(&when->complexity, input->hints->complexity))},
        {"budget", is_in(&when->budget, input->budget_percent)},
        {"code", is_wanted(when->code, signals->has_code)},
        {"schema", is_wanted(when->schema, signals->has_schema)},
        {"tool_calls", is_wanted(when->tool_calls, signals->calls_tools)},
    };
    for (size_t i = 0; i < sizeof CHECKS / sizeof *CHECKS; i++) {
        if (!CHECKS[i].holds)
            return CHECKS[i].name;
    }
    return NULL;
}

static bool try_rules(const struct policy *policy, const struct policy_input *input, struct buffer *trace,
                      struct policy_decision *out)
{
    for (size_t i = 0; i < policy->n_rules; i++) {
        const struct rule *rule = &policy->rules[i];
        const char *why_not =
            rule->local_only ? "privacy" : unmet(&rule->when, input); /* which came before */
        if (why_not) {
            note(trace, "rule \"%s\": no, %s", rule->name, why_not);
            continue;
        }
        note(trace, "rule \"%s\": yes, to %s", rule->name, policy->tiers[rule->tier].name);
        *out = (struct policy_decision){.tier = rule->tier, .reason = REASON_RULE, .rule = rule->name};
        return true;
    }
    return false;
}

/* Without a word on its intent a request may have any. */
static bool may_have_an_intent(const struct policy *policy, const struct policy_input *input)
{
    return !policy->opens_unclassified && input->verdict != VERDICT_GIVEN && input->intent[0] == '\0';
}

/* Does the rule keep the request here, or may it, as far as anybody knows? */
static bool keeps(const struct policy *policy, const struct rule *rule, const struct policy_input *input,
                  bool *is_guess)
{
    struct condition when = rule->when;
    *is_guess = when.intents.n > 0 && may_have_an_intent(policy, input);
    if (*is_guess)
        when.intents.n = 0;
    return rule->local_only && unmet(&when, input) == NULL;
}

/* Privacy by a rule counts before any wish: a client cannot take its company's data out. */
static bool try_privacy(const struct policy *policy, const struct policy_input *input, struct buffer *trace,
                        struct policy_decision *out)
{
    *out = (struct policy_decision){.local_only = true, .reason = REASON_PRIVACY, .rule = ""};
    if (input->hints->local_only) {
        note(trace, "privacy: the caller says local_only");
        return true;
    }
    for (size_t i = 0; i < policy->n_rules; i++) {
        const struct rule *rule = &policy->rules[i];
        bool is_guess;
        if (keeps(policy, rule, input, &is_guess)) {
            note(trace, "privacy: rule \"%s\" keeps it here%s", rule->name,
                 is_guess ? ", while its intent is not known" : "");
            out->tier = rule->tier;
            out->rule = rule->name;
            return true;
        }
    }
    return false;
}

static bool fits(const struct policy_input *input, size_t tier)
{
    uint64_t context = input->context_tokens[tier], needed;
    if (__builtin_add_overflow(input->prompt_tokens, input->signals->max_tokens, &needed))
        needed = UINT64_MAX;
    return context == 0 || needed <= context;
}

static bool try_context(const struct policy *policy, const struct policy_input *input, size_t tier,
                        struct buffer *trace, struct policy_decision *out)
{
    if (fits(input, tier))
        return false;
    for (size_t i = tier + 1; i < policy->n_tiers; i++) {
        if (fits(input, i)) {
            note(trace, "context: too long for %s, to %s", policy->tiers[tier].name, policy->tiers[i].name);
            *out = (struct policy_decision){.tier = i, .reason = REASON_CONTEXT, .rule = ""};
            return true;
        }
    }
    note(trace, "context: too long for %s and every tier after it", policy->tiers[tier].name);
    return false;
}

static bool try_difficulty(const struct policy *policy, const struct policy_input *input,
                           struct buffer *trace, struct policy_decision *out)
{
    double difficulty = input->difficulty;
    if (difficulty < 0 && input->hints->complexity > 0)
        difficulty = (double)input->hints->complexity / COMPLEXITY_MAX;
    if (!policy->has_difficulty || difficulty < 0) {
        note(trace, "difficulty: %s", policy->has_difficulty ? "not known" : "not in the policy");
        return false;
    }
    bool is_hard = difficulty >= policy->difficulty;
    note(trace, "difficulty: %.2f, %s %.2f", difficulty, is_hard ? "at least" : "below", policy->difficulty);
    *out = (struct policy_decision){.tier = policy->difficulty_tier, .reason = REASON_DIFFICULTY, .rule = ""};
    return is_hard;
}

/* Nobody could tell how hard it is. */
static bool try_unclassified(const struct policy *policy, const struct policy_input *input,
                             struct buffer *trace, struct policy_decision *out)
{
    bool is_known = input->difficulty >= 0 || input->hints->complexity > 0;
    if (!policy->has_unclassified || input->verdict != VERDICT_MISSING || is_known)
        return false;
    note(trace, "unclassified: to %s", policy->tiers[policy->unclassified_tier].name);
    *out = (struct policy_decision){
        .tier = policy->unclassified_tier, .reason = REASON_UNCLASSIFIED, .rule = ""};
    return true;
}

/* Spills only where that is expected to help. */
static bool try_overflow(const struct policy *policy, const struct policy_input *input, struct buffer *trace,
                         struct policy_decision *out)
{
    int64_t here_ms = input->ttft_ms[policy->default_tier];
    if (!policy->has_overflow || here_ms < 0 || here_ms <= policy->ttft_over_ms) {
        note(trace, "overflow: %s",
             !policy->has_overflow ? "not in the policy"
             : here_ms < 0         ? "not known"
                                   : "no");
        return false;
    }
    int64_t there_ms = input->ttft_ms[policy->overflow_tier];
    bool wins = there_ms >= 0 && there_ms < here_ms;
    note(trace, "overflow: a first token in %lld ms here, in %lld ms there: %s", (long long)here_ms,
         (long long)there_ms, wins ? "yes" : "no");
    *out = (struct policy_decision){.tier = policy->overflow_tier, .reason = REASON_OVERFLOW, .rule = ""};
    return wins;
}

static size_t wished_tier(const struct policy *policy, const struct policy_input *input)
{
    size_t tier = policy->default_tier, model;
    if (input->hints->route == WISH_MODEL)
        (void)policy_find_model(policy, input->model, &tier, &model);
    else
        tier = input->hints->route == WISH_LOCAL ? 0 : policy->n_tiers - 1;
    return tier;
}

/* Where it would go if everybody answered and nothing cost anything. */
static struct policy_decision wanted(const struct policy *policy, const struct policy_input *input,
                                     struct buffer *trace)
{
    struct policy_decision out;
    if (try_privacy(policy, input, trace, &out))
        return out;
    if (input->hints->route != WISH_AUTO) {
        bool is_model = input->hints->route == WISH_MODEL;
        note(trace, "wish: the caller says %s",
             is_model ? input->model : ROUTE_WISH_NAMES[input->hints->route]);
        return (struct policy_decision){
            .tier = wished_tier(policy, input), .reason = REASON_WISH, .rule = ""};
    }
    if (try_rules(policy, input, trace, &out) ||
        try_context(policy, input, policy->default_tier, trace, &out) ||
        try_difficulty(policy, input, trace, &out) || try_unclassified(policy, input, trace, &out) ||
        try_overflow(policy, input, trace, &out))
        return out;
    note(trace, "default: %s", policy->tiers[policy->default_tier].name);
    return (struct policy_decision){.tier = policy->default_tier, .reason = REASON_DEFAULT, .rule = ""};
}

static bool is_out_of_reach(const struct policy *policy, const struct policy_input *input, size_t tier,
                            enum policy_reason *why, struct buffer *trace)
{
    const char *name = policy->tiers[tier].name;
    if (input->cannot_cross[tier]) {
        note(trace, "%s: %s", name, input->cannot_cross[tier]);
        *why = REASON_CANNOT_CROSS;
    } else if (!policy->tiers[tier].is_local && input->is_broke) {
        note(trace, "%s: the budget is spent", name);
        *why = REASON_BUDGET;
    } else if (input->is_down[tier]) {
        note(trace, "%s: nobody answers", name);
        *why = REASON_DOWN;
    } else {
        return false;
    }
    return true;
}

/* Where it goes instead: up where an engine is down, back here where a provider cannot have it. */
static struct policy_decision instead(const struct policy *policy, const struct policy_input *input,
                                      struct policy_decision from, enum policy_reason why,
                                      struct buffer *trace)
{
    struct policy_decision out = {.is_refused = true,
                                  .local_only = from.local_only,
                                  .tier = from.tier,
                                  .reason = why,
                                  .rule = from.rule};
    bool was_local = policy->tiers[from.tier].is_local;
    if (from.local_only || (was_local && !policy->has_down))
        return out;
    bool keeps_money = why == REASON_BUDGET || why == REASON_DOWN;
    if (!was_local && policy->refuses_when_broke && keeps_money)
        return out;
    size_t other = was_local ? policy->down_tier : 0;
    enum policy_reason ignored;
    if (other == from.tier || is_out_of_reach(policy, input, other, &ignored, trace))
        return out;
    out.tier = other;
    out.is_refused = false;
    return out;
}

struct policy_decision policy_decide(const struct policy *policy, const struct policy_input *input,
                                     struct buffer *trace)
{
    struct policy_decision decision = wanted(policy, input, trace);
    enum policy_reason why;
    if (is_out_of_reach(policy, input, decision.tier, &why, trace))
        decision = instead(policy, input, decision, why, trace);
    ASSERT(decision.tier < policy->n_tiers &&
           (!decision.local_only || policy->tiers[decision.tier].is_local));
    note(trace, "%s %s: %s%s%s", decision.is_refused ? "refused for" : "to",
         policy->tiers[decision.tier].name, POLICY_REASON_NAMES[decision.reason],
         decision.rule[0] != '\0' ? ", rule " : "", decision.rule);
    return decision;
}
