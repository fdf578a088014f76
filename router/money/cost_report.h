/* What calls cost, line by line of a ledger, beside what the frontier alone would have cost, and what more
 * calls of the same mix would. Pure; one thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/error.h"
#include "router/money/ledger.h"

enum { COST_LINES_MAX = 100000, COST_VOLUMES = 4 };
extern const uint64_t COST_VOLUMES_A_DAY[COST_VOLUMES]; /* calls: 10 k, 100 k, 1 M, 10 M */

struct cost_options {
    const char *tenant; /* of this one alone; NULL = of all */
    /* The frontier that is compared with; its own lines cost what they cost. NULL: only the price is known.
     */
    const char *frontier_provider, *frontier_model;
    struct price frontier;
    bool has_frontier;          /* else nothing is compared */
    nanodollars engine_per_day; /* of the engines beside the router, whatever they answer; 0 = not known */
};

/* Sums of a line or of all. */
struct cost_sum {
    uint64_t n_calls, n_unknown, n_uncounted; /* as in struct ledger_line */
    uint64_t input_tokens, output_tokens;
    nanodollars cost;
    nanodollars frontier; /* what it would have cost there: from the tokens that are known */
};

struct cost_line {
    char *day, *tenant, *provider, *model; /* owned */
    struct cost_sum sum;
};

struct cost_report {
    struct cost_options options; /* strings are the caller's */
    struct cost_line *lines;     /* [n_lines]; owned */
    size_t n_lines, n_room;
    struct cost_sum total;
    char kept_from[LEDGER_DAY_BYTES]; /* ledger_kept_from */
    err_t e;                          /* of gathering: too many lines, no memory */
};

/* For ledger_report: context is a struct cost_report whose options are set and whose rest is zero. */
void cost_report_line(void *context, const struct ledger_line *line);
void cost_report_free(struct cost_report *report);

/* Of so many calls a day of the measured mix; at most MONEY_MAX. */
nanodollars cost_of_volume(const struct cost_sum *sum, nanodollars amount, uint64_t calls);

/* A table for people, or one JSON object whose amounts are whole nano-dollars. RESOURCE_EXHAUSTED. */
err_t cost_report_table(const struct cost_report *report, struct buffer *out) ERR_MUST_CHECK;
err_t cost_report_json(const struct cost_report *report, struct buffer *out) ERR_MUST_CHECK;
