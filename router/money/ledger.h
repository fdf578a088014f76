/* What calls cost and who pays: a book in one SQLite file. A call to a provider is reserved before its first
 * byte leaves and settled when it is over, so that a budget cannot be overrun by calls under way, and every
 * attempt (retried, hedged, cancelled) is an entry of its own.
 *
 * Nothing is lost or doubled by kill -9: what is reserved or settled stands in a journal beside the file
 * (ledger_journal.h), handed to the operating system, before the call returns, and is folded into the file a
 * moment later, by a thread of its own, or at the next start. What a crash leaves open is charged in full at
 * the next start, as `lost`: the call may have been answered and billed. A power cut may cost the last
 * moments unless `durable` is set.
 *
 * Days are those of UTC. Any thread; calls take turns, and wait for no disk unless `durable` asks for it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "router/money/money.h"
#include "router/providers/provider_answer.h"

enum {
    LEDGER_NAME_BYTES_MAX = 256, /* of each string of a call; a longer one is refused */
    LEDGER_DAY_BYTES = 11,       /* "2026-11-27" and a NUL */
    LEDGER_KEEP_DAYS_MIN = 32,   /* budgets count a calendar month */
    LEDGER_KEEP_DAYS_MAX = 36500,
};

struct ledger;

struct ledger_options {
    const char *path; /* of the file, made when it is not there; ":memory:" = none: entries are forgotten when
                         they are over */
    int64_t (*unix_ms)(void *clock); /* milliseconds since 1970, UTC */
    void *clock;
    int32_t keep_days; /* entries older than that are deleted, at the start and once an hour; 0 = none is */
    bool durable;      /* every entry is on the disk itself before it counts: some ms each */
    bool read_only; /* for reports, beside a router that writes it: nothing is settled, and nothing can be */
};

/* INVALID_ARGUMENT: the file is no ledger, or one of a newer version; FAILED_PRECONDITION: another process
 * writes it; NOT_FOUND: read_only, and there is none; IO. Settles what a crash left open, and
 * says how many those were in *n_lost (may be NULL). */
err_t ledger_open(const struct ledger_options *options, uint64_t *n_lost, struct ledger **out) ERR_MUST_CHECK;
void ledger_close(struct ledger *ledger); /* NULL is fine; open reservations stay open */

/* Likewise from now on. Any thread. */
void ledger_keep(struct ledger *ledger, int32_t days);

/* The strings are copied. */
struct ledger_call {
    const char *request_id;
    uint32_t attempt;     /* of this request, from 1: (request_id, attempt) names an entry once and for all */
    const char *tenant;   /* "" = none */
    const char *provider; /* or "local" */
    const char *model;
    const char *reason; /* why it went there */
};

/* How much a tenant may spend in a day, in a calendar month; 0 = as much as it likes. */
struct ledger_budget {
    nanodollars per_day, per_month;
};

/* Writes the entry with its estimate. QUOTA_EXCEEDED when what is spent and reserved leaves no room for it:
 * nothing is written then. INVALID_ARGUMENT: this entry is open or has just ended (one that ended before gets
 * another name in the file). IO: the disk is full, or fails. */
err_t ledger_reserve(struct ledger *ledger, const struct ledger_call *call, nanodollars estimate,
                     const struct ledger_budget *budget, int64_t *entry) ERR_MUST_CHECK;

enum ledger_outcome {
    LEDGER_SETTLED,  /* the cost is known */
    LEDGER_UNKNOWN,  /* the provider did not say: the estimate stands */
    LEDGER_RELEASED, /* nothing was asked of it: costs nothing */
    LEDGER_LOST,     /* of a process that died: the estimate stands */
    LEDGER_OUTCOMES,
};
const char *ledger_outcome_name(enum ledger_outcome outcome);

/* Ends a reservation, once: FAILED_PRECONDITION when it has ended already. cost counts for LEDGER_SETTLED
 * alone and may be more than the estimate; usage may be NULL. */
err_t ledger_settle(struct ledger *ledger, int64_t entry, enum ledger_outcome outcome, nanodollars cost,
                    const struct answer_usage *usage) ERR_MUST_CHECK;
/* The same for many at a time: the end counts at once, and goes into the journal with the next promise or
 * ledger_flush. kill -9 before that leaves the entry open, so that the next start charges it in full. */
err_t ledger_settle_soon(struct ledger *ledger, int64_t entry, enum ledger_outcome outcome, nanodollars cost,
                         const struct answer_usage *usage) ERR_MUST_CHECK;
err_t ledger_flush(struct ledger *ledger) ERR_MUST_CHECK; /* IO: it is tried again with the next promise */
/* An entry that is settled at once: a local answer. */
err_t ledger_record(struct ledger *ledger, const struct ledger_call *call, nanodollars cost,
                    const struct answer_usage *usage) ERR_MUST_CHECK;

/* What a tenant has spent, and what is reserved for calls under way. Not of one that is read_only. */
struct ledger_balance {
    nanodollars spent, reserved;
};
err_t ledger_balance(struct ledger *ledger, const char *tenant, struct ledger_balance *today,
                     struct ledger_balance *this_month) ERR_MUST_CHECK;

/* One line of `bantam cost`: a day's calls of one tenant to one model. Strings live until the callback
 * returns. */
struct ledger_line {
    const char *day; /* "2026-11-27" */
    const char *tenant, *provider, *model;
    uint64_t n_calls, n_unknown; /* n_unknown: of them, those whose cost is an estimate */
    uint64_t n_uncounted;        /* of them, those whose tokens nobody has told */
    uint64_t input_tokens, output_tokens;
    nanodollars cost;
};
/* Lines from first_day to last_day ("2026-11-01"; NULL = open), by day, tenant, provider and model. */
err_t ledger_report(struct ledger *ledger, const char *first_day, const char *last_day,
                    void (*line)(void *context, const struct ledger_line *line),
                    void *context) ERR_MUST_CHECK;
/* The day from which on entries are there, since those before it were deleted; "" = all are. */
err_t ledger_kept_from(struct ledger *ledger, char day[LEDGER_DAY_BYTES]) ERR_MUST_CHECK;
