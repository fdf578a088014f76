/* The ledger's SQLite file: what the entries of ledger.h become there, and what is asked of it. The caller
 * serialises. Days are counted from 1970, UTC. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "router/money/ledger.h"

struct ledger_database;

/* As ledger_open, without what a crash left: that is the journal's and the caller's. */
err_t database_open(const struct ledger_options *options, struct ledger_database **out) ERR_MUST_CHECK;
void database_close(struct ledger_database *database); /* NULL is fine */
bool database_is_file(const struct ledger_database *database);

/* An entry as it is to be, or its end. */
struct database_entry {
    int64_t id;
    struct ledger_call call;
    int32_t day;
    int64_t at_ms;
    nanodollars estimate;
    bool is_over;
    enum ledger_outcome outcome; /* of one that is over, as what follows */
    nanodollars charged;
    int64_t ended_ms, input_tokens, cached_tokens, output_tokens; /* tokens: -1 = not told */
};

/* What is written between the two is there as a whole or not at all. Finishes with e, or with why it cannot.
 */
err_t database_begin(struct ledger_database *database) ERR_MUST_CHECK;
err_t database_finish(struct ledger_database *database, err_t e) ERR_MUST_CHECK;
/* Copies the write-ahead log into the file where that is long, which no commit does by itself. */
void database_tidy(struct ledger_database *database);
/* One whose (request_id, attempt) is there already gets another name: what was promised is charged. */
err_t database_insert(struct ledger_database *database, const struct database_entry *entry) ERR_MUST_CHECK;
err_t database_end(struct ledger_database *database, const struct database_entry *entry) ERR_MUST_CHECK;
err_t database_add_balance(struct ledger_database *database, const char *tenant, int32_t day,
                           nanodollars spent, nanodollars reserved) ERR_MUST_CHECK;
/* Up to which number of the journal it has everything. */
err_t database_set_folded(struct ledger_database *database, uint64_t number) ERR_MUST_CHECK;
err_t database_folded(struct ledger_database *database, uint64_t *number) ERR_MUST_CHECK;

/* An entry that is not over; NOT_FOUND. tenant: LEDGER_NAME_BYTES_MAX + 1 bytes. */
err_t database_find_open(struct ledger_database *database, int64_t id, char *tenant, int32_t *day,
                         nanodollars *estimate) ERR_MUST_CHECK;
err_t database_last_id(struct ledger_database *database, int64_t *id) ERR_MUST_CHECK;
/* All entries that are over; their days' balances stay. Within a transaction. */
err_t database_forget_ended(struct ledger_database *database) ERR_MUST_CHECK;
/* Entries of days before that one that are over, at most so many, and with the last of them their days'
 * balances. *is_all: there are no more. */
err_t database_delete_before(struct ledger_database *database, int32_t day, uint32_t most,
                             bool *is_all) ERR_MUST_CHECK;
err_t database_kept_from(struct ledger_database *database, char day[LEDGER_DAY_BYTES]) ERR_MUST_CHECK;
/* Reservations of a process that is gone: their estimates are spent. */
err_t database_charge_lost(struct ledger_database *database, int64_t now_ms, uint64_t *n) ERR_MUST_CHECK;
/* The days from first to last, each with what a tenant spent and reserved. */
err_t database_balances(struct ledger_database *database, int32_t first_day, int32_t last_day,
                        err_t (*take)(void *context, const char *tenant, int32_t day,
                                      const struct ledger_balance *balance),
                        void *context) ERR_MUST_CHECK;
/* ledger_report, with what the journal beside a database that is only read has more. */
err_t database_report(struct ledger_database *database, const char *first_day, const char *last_day,
                      void (*line)(void *context, const struct ledger_line *line),
                      void *context) ERR_MUST_CHECK;
