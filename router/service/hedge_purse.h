/* What second calls beside slow ones may cost together in a day (UTC), since the router's start. Any thread.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include "router/money/money.h"

struct hedge_purse {
    pthread_mutex_t lock;
    int64_t day;                 /* since 1970, of `spent` */
    nanodollars spent, reserved; /* reserved: by calls under way, whatever the day they began */
};

void hedge_purse_open(struct hedge_purse *purse);
void hedge_purse_close(struct hedge_purse *purse);
/* Sets the estimate aside; false: with it the day's calls could cost more than `most`. */
bool hedge_purse_take(struct hedge_purse *purse, nanodollars estimate, nanodollars most, int64_t unix_ms);
/* The call has ended, and came to that. */
void hedge_purse_settle(struct hedge_purse *purse, nanodollars estimate, nanodollars cost, int64_t unix_ms);
