/* What a replay found, for people and programs; and decisions held against the log. */
#include <stdio.h>
#include <string.h>
#include "router/gate/eval_cases.h"
#include "router/gate/replay_run.h"
#include "router/log/decision_entry.h"
#include "router/providers/json_text.h"

static err_t no_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the report");
}

const char *replay_advice(const struct replay_sum *sum, double margin)
{
    if (sum->agree.low >= 1 - margin)
        return "move";
    return sum->agree.high < 1 - margin ? "keep" : "look";
}

static const char *dollars(nanodollars cost, char out[MONEY_TEXT_BYTES])
{
    if (cost < 0)
        return "?";
    money_format(cost > 1000000 ? cost - cost % 1000 : cost, out);
    return out;
}

static const char *milliseconds(int64_t us, char out[16])
{
    if (us < 0)
        return "?";
    (void)snprintf(out, 16, "%.0f", (double)us / 1000);
    return out;
}

static bool put_sum(const char *name, const struct replay_sum *sum, double margin, struct buffer *out)
{
    char then[16], now[16], times[40], cost_then[MONEY_TEXT_BYTES], cost_now[MONEY_TEXT_BYTES], agree[48],
        fields[16] = "-";
    (void)snprintf(agree, sizeof agree, "%.1f %% [%.1f, %.1f]", 100 * sum->agree.value, 100 * sum->agree.low,
                   100 * sum->agree.high);
    (void)snprintf(times, sizeof times, "%s -> %s", milliseconds(sum->p50_then, then),
                   milliseconds(sum->p50_now, now));
    if (sum->n_json > 0)
        (void)snprintf(fields, sizeof fields, "%.1f %%", 100 * sum->fields);
    return buffer_append_format(out, "%7zu %24s %7zu %8s %7zu %6zu %6zu %14s %12s %12s  %-4s  %s\n", sum->n,
                                agree, sum->n_same, fields, sum->n_judged_as_good, sum->n_stays,
                                sum->n_failed, times, dollars(sum->cost_then, cost_then),
                                dollars(sum->cost_now, cost_now), replay_advice(sum, margin), name);
}

err_t replay_table(const struct replay_log *log, const struct replay_options *options,
                   const struct replay_result *result, struct buffer *out)
{
    bool fits = true;
    if (log->n_without_content > 0)
        fits = buffer_append_format(out, "%zu lines have no content, or no answer, and are left out\n",
                                    log->n_without_content);
    if (log->n_bad > 0)
        fits = fits && buffer_append_format(out, "%zu lines are left out; the first of them, line %zu: %s\n",
                                            log->n_bad, log->first_bad, log->why_bad.message);
    fits = fits && buffer_append_format(out, "%7s %24s %7s %8s %7s %6s %6s %14s %12s %12s  %-4s  %s\n", "n",
                                        "agree", "same", "fields", "judged", "stay", "failed", "p50 ms",
                                        "cost then", "cost now", "", "begins");
    for (size_t group = 0; group < result->clusters.n && fits; group++)
        fits = put_sum(result->clusters.names[group], &result->sums[group], options->margin, out);
    char then[MONEY_TEXT_BYTES], now[MONEY_TEXT_BYTES];
    const struct replay_sum *all = &result->all;
    fits =
        fits && buffer_append_format(
                    out, "\nYour last %zu requests on %s: %.1f %% agree [%.1f, %.1f], %s instead of %s. %s\n",
                    all->n, options->name, 100 * all->agree.value, 100 * all->agree.low,
                    100 * all->agree.high, dollars(all->cost_now, now), dollars(all->cost_then, then),
                    all->agree.low >= 1 - options->margin ? "They can move."
                    : all->agree.high < 1 - options->margin
                        ? "They cannot move as they are; groups marked \"move\" can."
                        : "That is not enough to tell; replay more of them.");
    return fits ? err_ok() : no_memory();
}

static json_t *whole(int64_t value)
{
    return value < 0 ? json_null() : json_integer(value);
}

static json_t *sum_json(const char *name, const struct replay_sum *sum, double margin)
{
    return json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:I, s:o, s:I, s:[f, f, f], s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "name",
        name, "n", (json_int_t)sum->n, "stays", (json_int_t)sum->n_stays, "failed", (json_int_t)sum->n_failed,
        "same", (json_int_t)sum->n_same, "json", (json_int_t)sum->n_json, "fields",
        sum->n_json ? json_real(sum->fields) : json_null(), "judged_as_good",
        (json_int_t)sum->n_judged_as_good, "agree", sum->agree.value, sum->agree.low, sum->agree.high,
        "total_us_p50_then", whole(sum->p50_then), "total_us_p95_then", whole(sum->p95_then),
        "total_us_p50_now", whole(sum->p50_now), "total_us_p95_now", whole(sum->p95_now),
        "cost_then_nanodollars", whole(sum->cost_then), "cost_now_nanodollars", whole(sum->cost_now),
        "advice", replay_advice(sum, margin));
}

err_t replay_json(const struct replay_log *log, const struct replay_options *options,
                  const struct replay_result *result, struct buffer *out)
{
    json_t *groups = json_array();
    for (size_t group = 0; group < result->clusters.n; group++)
        (void)json_array_append_new(
            groups, sum_json(result->clusters.names[group], &result->sums[group], options->margin));
    json_t *root = json_pack("{s:i, s:s, s:f, s:I, s:I, s:o, s:o}", "bantam_replay", 1, "model",
                             options->name, "margin", options->margin, "without_content",
                             (json_int_t)log->n_without_content, "bad", (json_int_t)log->n_bad, "all",
                             sum_json("", &result->all, options->margin), "groups", groups);
    if (root == NULL)
        return no_memory();
    err_t e = json_text_append(out, root);
    json_decref(root);
    return e.code != ERR_OK || buffer_append_text(out, "\n") ? e : no_memory();
}

static bool is_policys(const char *reason)
{
    for (size_t i = 0; i < POLICY_REASONS; i++)
        if (strcmp(reason, POLICY_REASON_NAMES[i]) == 0)
            return true;
    return false;
}

/* The line of a request that nobody was asked has the tier that it would have gone to, and an error. */
static bool was_refused(const struct decision_entry *entry)
{
    return entry->error[0] && entry->attempts == 0;
}

static bool is_same_decision(const struct policy *policy, const struct decision_entry *entry,
                             struct buffer *out, size_t n_listed, bool *fits)
{
    size_t n_tiers;
    const struct policy_tier *tiers = policy_tiers(policy, &n_tiers);
    struct policy_decision decision = policy_decide(policy, entry->input, NULL);
    const char *tier = decision.is_refused ? "" : tiers[decision.tier].name,
               *reason = POLICY_REASON_NAMES[decision.reason];
    const char *was = decision.is_refused && was_refused(entry) ? "" : entry->tier;
    if (strcmp(tier, was) == 0 && strcmp(reason, entry->reason) == 0 &&
        strcmp(decision.rule, entry->rule) == 0)
        return true;
    if (n_listed < REPLAY_DIFFERENCES_MAX)
        *fits &= buffer_append_format(out, "%s: %s (%s%s%s) became %s (%s%s%s)\n", entry->id,
                                      was[0] ? was : "refused", entry->reason, entry->rule[0] ? " " : "",
                                      entry->rule, tier[0] ? tier : "refused", reason,
                                      decision.rule[0] ? " " : "", decision.rule);
    return false;
}

err_t replay_decisions(const char *text, size_t text_bytes, const struct policy *policy, struct buffer *out,
                       struct replay_decisions *sums)
{
    size_t begin = 0, number = 0, bytes;
    const char *at;
    bool fits = true;
    *sums = (struct replay_decisions){0};
    while (fits && eval_next_line(text, text_bytes, &begin, &number, &at, &bytes)) {
        struct decision_line line;
        if (decision_line_parse(at, bytes, &line).code != ERR_OK) {
            sums->n_bad++;
            continue;
        }
        if (line.entry.input == NULL)
            sums->n_without++;
        else if (!is_policys(line.entry.reason))
            sums->n_later++;
        else if (is_same_decision(policy, &line.entry, out, sums->n_different, &fits))
            sums->n_same++;
        else
            sums->n_different++;
        decision_line_free(&line);
    }
    return fits ? err_ok() : no_memory();
}
