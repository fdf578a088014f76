/* Which fault the next answer of the mock provider has, and whether it is one request too many. One thread.
 */
#pragma once

#include <stdint.h>
#include "base/error.h"
#include "benchmarks/mock_faults.h"
#include "proto/http_parser.h"

struct mock_orders {
    struct mock_fault always; /* of all answers, */
    uint32_t every;           /* or of each n-th; 0 = 1 */
    struct mock_fault next;   /* of the next n_next, before those */
    uint64_t n_next, n_answers;
    uint32_t per_minute; /* requests; 0 = any number */
    double tokens;       /* requests that may come now, of those */
    int64_t tokens_ns;   /* when that was so */
};

/* A query like "name=503&count=2". INVALID_ARGUMENT: there is no such fault. */
err_t mock_orders_take(struct mock_orders *orders, struct http_text query) ERR_MUST_CHECK;
/* For a request that comes now; header: x-mock-fault's value, which adds to it, or .data NULL. */
err_t mock_orders_choose(struct mock_orders *orders, struct http_text header, int64_t now_ns,
                         struct mock_fault *out) ERR_MUST_CHECK;
