/* Money as whole nano-dollars (10^-9 $), and what a call costs. No rounding but one: a call's cost is rounded
 * up to the next nano-dollar. Pure functions. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "router/providers/provider_answer.h"

typedef int64_t nanodollars;
#define NANODOLLARS_PER_DOLLAR INT64_C(1000000000)
#define MONEY_MAX                                                                                            \
    (INT64_C(1000000000) * NANODOLLARS_PER_DOLLAR) /* 10^9 $; sums of 9 of them do not overflow */

/* "3", "0.0375", "1234.5": at most nine digits after the point, at least 0, at most 10^9. INVALID_ARGUMENT.
 */
err_t money_parse(const char *text, nanodollars *out) ERR_MUST_CHECK;

enum { MONEY_TEXT_BYTES = 32 };
/* "$0.0375", "$12.00": two digits after the point, or as many as it takes. */
void money_format(nanodollars amount, char out[MONEY_TEXT_BYTES]);
/* a + b, at most MONEY_MAX. Neither is negative. */
nanodollars money_add(nanodollars a, nanodollars b);

/* Of a million tokens each, as price lists have them; `request` of one call. -1 = as ordinary input. */
struct price {
    nanodollars input, cached_input, cache_write, output, request;
};

/* What a call cost; false when the provider did not count its tokens. */
bool price_cost(const struct price *price, const struct answer_usage *usage, nanodollars *out);
/* The most that a call can cost: nothing cached, every token of max_output_tokens written. */
nanodollars price_estimate(const struct price *price, uint64_t input_tokens, uint64_t max_output_tokens);
