/* What tenants have spent and reserved by day, in memory: a budget is checked by this alone. The caller
 * serialises. */
#pragma once

#include <stdint.h>
#include "base/error.h"
#include "router/money/ledger.h"

enum { BALANCE_BUCKETS = 1024 };

/* Zero at first. */
struct ledger_balances {
    struct day_balance *buckets[BALANCE_BUCKETS];
};

/* day: since 1970, UTC. Makes room for a tenant's day, so that nothing fails later. */
err_t balances_reserve_day(struct ledger_balances *balances, const char *tenant, int32_t day) ERR_MUST_CHECK;
/* Of a day that has room, or was forgotten: then nothing. */
void balances_add(struct ledger_balances *balances, const char *tenant, int32_t day, nanodollars spent,
                  nanodollars reserved);
/* The sum over both days and those between. */
struct ledger_balance balances_sum(const struct ledger_balances *balances, const char *tenant,
                                   int32_t first_day, int32_t last_day);
/* Days before that one, in one bucket of BALANCE_BUCKETS. */
void balances_forget(struct ledger_balances *balances, size_t bucket, int32_t day);
void balances_free(struct ledger_balances *balances);
