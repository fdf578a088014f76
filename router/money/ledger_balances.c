#include "router/money/ledger_balances.h"

#include <string.h>
#include "base/alloc.h"
#include "base/hash.h"

struct day_balance {
    struct day_balance *next;
    int32_t day;
    struct ledger_balance balance;
    char tenant[];
};

static struct day_balance **place_of(const struct ledger_balances *balances, const char *tenant, int32_t day)
{
    uint64_t hash = hash64(tenant, strlen(tenant), (uint64_t)(uint32_t)day);
    struct day_balance **place = (struct day_balance **)&balances->buckets[hash & (BALANCE_BUCKETS - 1)];
    while (*place && ((*place)->day != day || strcmp((*place)->tenant, tenant) != 0))
        place = &(*place)->next;
    return place;
}

err_t balances_reserve_day(struct ledger_balances *balances, const char *tenant, int32_t day)
{
    struct day_balance **place = place_of(balances, tenant, day);
    if (*place)
        return err_ok();
    size_t size = strlen(tenant) + 1;
    struct day_balance *own = mem_alloc(sizeof *own + size);
    if (own == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a tenant's balance");
    own->day = day;
    memcpy(own->tenant, tenant, size);
    *place = own;
    return err_ok();
}

void balances_add(struct ledger_balances *balances, const char *tenant, int32_t day, nanodollars spent,
                  nanodollars reserved)
{
    struct day_balance *own = *place_of(balances, tenant, day);
    if (own == NULL)
        return;
    own->balance.spent += spent;
    own->balance.reserved += reserved;
}

struct ledger_balance balances_sum(const struct ledger_balances *balances, const char *tenant,
                                   int32_t first_day, int32_t last_day)
{
    struct ledger_balance sum = {0, 0};
    for (int32_t day = first_day; day <= last_day; day++) {
        const struct day_balance *own = *place_of(balances, tenant, day);
        if (own) {
            sum.spent += own->balance.spent;
            sum.reserved += own->balance.reserved;
        }
    }
    return sum;
}

void balances_forget(struct ledger_balances *balances, size_t bucket, int32_t day)
{
    for (struct day_balance **place = &balances->buckets[bucket]; *place;) {
        struct day_balance *own = *place;
        if (own->day >= day) {
            place = &own->next;
        } else {
            *place = own->next;
            mem_free(own);
        }
    }
}

void balances_free(struct ledger_balances *balances)
{
    for (size_t i = 0; i < BALANCE_BUCKETS; i++) {
        for (struct day_balance *own = balances->buckets[i], *next; own; own = next) {
            next = own->next;
            mem_free(own);
        }
        balances->buckets[i] = NULL;
    }
}
