#include "router/service/hedge_purse.h"

#include "base/assert.h"

#define MS_PER_DAY INT64_C(86400000)

void hedge_purse_open(struct hedge_purse *purse)
{
    int failure = pthread_mutex_init(&purse->lock, NULL);
    ASSERT(failure == 0);
    purse->day = 0;
    purse->spent = purse->reserved = 0;
}

void hedge_purse_close(struct hedge_purse *purse)
{
    ASSERT(purse->reserved == 0);
    pthread_mutex_destroy(&purse->lock);
}

/* Locked. */
static void turn_day(struct hedge_purse *purse, int64_t unix_ms)
{
    int64_t today = unix_ms / MS_PER_DAY;
    if (today != purse->day)
        purse->spent = 0;
    purse->day = today;
}

bool hedge_purse_take(struct hedge_purse *purse, nanodollars estimate, nanodollars most, int64_t unix_ms)
{
    pthread_mutex_lock(&purse->lock);
    turn_day(purse, unix_ms);
    nanodollars all = money_add(money_add(purse->spent, purse->reserved), estimate);
    bool fits = most == 0 || all <= most;
    if (fits)
        purse->reserved = money_add(purse->reserved, estimate);
    pthread_mutex_unlock(&purse->lock);
    return fits;
}

void hedge_purse_settle(struct hedge_purse *purse, nanodollars estimate, nanodollars cost, int64_t unix_ms)
{
    pthread_mutex_lock(&purse->lock);
    turn_day(purse, unix_ms);
    ASSERT(purse->reserved >= estimate);
    purse->reserved -= estimate;
    purse->spent = money_add(purse->spent, cost);
    pthread_mutex_unlock(&purse->lock);
}
