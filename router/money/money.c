#include "router/money/money.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include "base/assert.h"

enum { MILLION = 1000000, FRACTION_DIGITS = 9 };

static err_t not_money(const char *text)
{
    return err_new(
        ERR_INVALID_ARGUMENT,
        "\"%.40s\" is not an amount in dollars: write digits with at most nine after the point, as in "
        "0.0375, up to 1000000000",
        text);
}

err_t money_parse(const char *text, nanodollars *out)
{
    const char *at = text;
    nanodollars amount = 0;
    for (; isdigit((unsigned char)*at); at++) {
        amount = amount * 10 + (*at - '0');
        if (amount > MONEY_MAX / NANODOLLARS_PER_DOLLAR)
            return not_money(text);
    }
    if (at == text)
        return not_money(text);
    amount *= NANODOLLARS_PER_DOLLAR;
    nanodollars unit = NANODOLLARS_PER_DOLLAR / 10;
    if (*at == '.') {
        if (!isdigit((unsigned char)at[1]))
            return not_money(text);
        for (at++; isdigit((unsigned char)*at) && unit > 0; at++, unit /= 10)
            amount += (*at - '0') * unit;
    }
    if (*at != '\0' || amount > MONEY_MAX)
        return not_money(text);
    *out = amount;
    return err_ok();
}

void money_format(nanodollars amount, char out[MONEY_TEXT_BYTES])
{
    uint64_t size = amount < 0 ? 0 - (uint64_t)amount : (uint64_t)amount;
    int length = snprintf(out, MONEY_TEXT_BYTES, "%s$%llu.%0*llu", amount < 0 ? "-" : "",
                          (unsigned long long)(size / NANODOLLARS_PER_DOLLAR), FRACTION_DIGITS,
                          (unsigned long long)(size % NANODOLLARS_PER_DOLLAR));
    ASSERT(length > FRACTION_DIGITS && length < MONEY_TEXT_BYTES);
    for (int digits = FRACTION_DIGITS; digits > 2 && out[length - 1] == '0'; digits--)
        out[--length] = '\0';
}

nanodollars money_add(nanodollars a, nanodollars b)
{
    ASSERT(a >= 0 && b >= 0);
    nanodollars sum;
    return __builtin_add_overflow(a, b, &sum) || sum > MONEY_MAX ? MONEY_MAX : sum;
}

/* In nano-dollars times a million, exact. */
static unsigned __int128 tokens_cost(nanodollars per_million, uint64_t tokens)
{
    ASSERT(per_million >= 0 && per_million <= MONEY_MAX);
    return (unsigned __int128)per_million * tokens;
}

static nanodollars round_up(unsigned __int128 millionths)
{
    unsigned __int128 amount = millionths / MILLION + (millionths % MILLION != 0);
    return amount > (unsigned __int128)MONEY_MAX ? MONEY_MAX : (nanodollars)amount;
}

static uint64_t known(int64_t tokens)
{
    return tokens > 0 ? (uint64_t)tokens : 0;
}

bool price_cost(const struct price *price, const struct answer_usage *usage, nanodollars *out)
{
    if (usage->input_tokens < 0 || usage->output_tokens < 0)
        return false;
    uint64_t input = known(usage->input_tokens), cached = known(usage->cached_tokens),
             written = known(usage->cache_write_tokens);
    if (cached > input || written > input - cached) /* counts that do not fit: all of it is ordinary input */
        cached = written = 0;
    nanodollars of_cached = price->cached_input >= 0 ? price->cached_input : price->input,
                of_written = price->cache_write >= 0 ? price->cache_write : price->input;
    unsigned __int128 millionths = tokens_cost(price->input, input - cached - written) +
                                   tokens_cost(of_cached, cached) + tokens_cost(of_written, written) +
                                   tokens_cost(price->output, known(usage->output_tokens));
    *out = money_add(round_up(millionths), price->request > 0 ? price->request : 0);
    return true;
}

nanodollars price_estimate(const struct price *price, uint64_t input_tokens, uint64_t max_output_tokens)
{
    nanodollars dearest = price->input;
    if (price->cache_write > dearest)
        dearest = price->cache_write;
    unsigned __int128 millionths =
        tokens_cost(dearest, input_tokens) + tokens_cost(price->output, max_output_tokens);
    return money_add(round_up(millionths), price->request > 0 ? price->request : 0);
}
