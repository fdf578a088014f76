/* When the requests of an open-loop load start. Pure functions. */
#pragma once

#include <stddef.h>
#include <stdint.h>

enum ramp_kind { RAMP_NONE, RAMP_LINEAR, RAMP_EXPONENTIAL };

struct arrival_options {
    double request_rate; /* requests per second; 0 = all at once */
    double burstiness;   /* shape of the gamma distribution of gaps: 1 = Poisson, less = burstier, more =
                            steadier */
    enum ramp_kind
        ramp; /* the rate goes from ramp_start to ramp_end over the load; request_rate is then not used */
    double ramp_start, ramp_end; /* requests per second, > 0 */
    uint64_t seed;
};

/* starts_ns[i]: start of request i after the load's beginning, ascending. The gaps are scaled so that the
 * last start is at n / rate (without a ramp): the rate asked for is the rate given. */
void arrivals_fill(const struct arrival_options *options, size_t n, int64_t *starts_ns);
