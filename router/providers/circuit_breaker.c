#include "router/providers/circuit_breaker.h"

struct breaker_options breaker_options_default(void)
{
    return (struct breaker_options){
        .failures_to_open = 5, .successes_to_close = 2, .open_ns = INT64_C(30000000000)};
}

const char *breaker_state_name(enum breaker_state state)
{
    static const char *const NAMES[] = {"closed", "open", "half_open"};
    return NAMES[state];
}

enum breaker_state breaker_state_at(const struct circuit_breaker *breaker, int64_t now_ns)
{
    bool is_over = breaker->state == BREAKER_OPEN && now_ns >= breaker->open_until_ns;
    return is_over ? BREAKER_HALF_OPEN : breaker->state;
}

/* Tickets given since it last opened. */
static uint64_t ticket_now(const struct circuit_breaker *breaker)
{
    return breaker->n_opened + 1;
}

uint64_t breaker_ask(struct circuit_breaker *breaker, int64_t now_ns)
{
    enum breaker_state state = breaker_state_at(breaker, now_ns);
    if (state == BREAKER_CLOSED)
        return ticket_now(breaker);
    if (state == BREAKER_OPEN || breaker->is_trying)
        return 0;
    if (breaker->state == BREAKER_OPEN)
        breaker->n_successes = 0;
    breaker->state = BREAKER_HALF_OPEN;
    breaker->is_trying = true;
    return ticket_now(breaker);
}

void breaker_succeeded(struct circuit_breaker *breaker, uint64_t ticket,
                       const struct breaker_options *options)
{
    if (ticket != ticket_now(breaker))
        return;
    breaker->n_failures = 0;
    breaker->is_trying = false;
    if (breaker->state == BREAKER_HALF_OPEN && ++breaker->n_successes >= options->successes_to_close)
        breaker->state = BREAKER_CLOSED;
}

void breaker_failed(struct circuit_breaker *breaker, uint64_t ticket, const struct breaker_options *options,
                    int64_t now_ns, int64_t retry_after_ns)
{
    if (ticket != ticket_now(breaker))
        return;
    if (breaker->state == BREAKER_CLOSED && ++breaker->n_failures < options->failures_to_open)
        return;
    int64_t until_ns, wait_ns = retry_after_ns > options->open_ns ? retry_after_ns : options->open_ns;
    if (__builtin_add_overflow(now_ns, wait_ns, &until_ns))
        until_ns = INT64_MAX;
    if (until_ns > breaker->open_until_ns)
        breaker->open_until_ns = until_ns;
    breaker->state = BREAKER_OPEN;
    breaker->is_trying = false;
    breaker->n_failures = 0;
    breaker->n_opened++;
}

void breaker_gave_up(struct circuit_breaker *breaker, uint64_t ticket)
{
    if (ticket == ticket_now(breaker))
        breaker->is_trying = false;
}

void breaker_forget(struct circuit_breaker *breaker)
{
    *breaker = (struct circuit_breaker){.n_opened = breaker->n_opened + 1};
}
