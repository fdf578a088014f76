#include "benchmarks/arrivals.h"

#include <math.h>
#include "base/philox.h"

/* Gamma(shape, 1): Marsaglia and Tsang, "A simple method for generating gamma variables", 2000. */
static double gamma_draw(struct rng *rng, double shape)
{
    if (shape < 1) {
        double u = 1.0 - (double)rng_uniform(rng);
        return gamma_draw(rng, shape + 1) * pow(u, 1 / shape);
    }
    double d = shape - 1.0 / 3, c = 1 / sqrt(9 * d);
    for (;;) {
        double x = (double)rng_normal(rng), v = 1 + c * x;
        if (v <= 0)
            continue;
        v = v * v * v;
        double u = 1.0 - (double)rng_uniform(rng);
        if (log(u) < 0.5 * x * x + d - d * v + d * log(v))
            return d * v;
    }
}

static double rate_at(const struct arrival_options *options, size_t i, size_t n)
{
    double progress = n > 1 ? (double)i / (double)(n - 1) : 0;
    switch (options->ramp) {
    case RAMP_LINEAR:
        return options->ramp_start + (options->ramp_end - options->ramp_start) * progress;
    case RAMP_EXPONENTIAL:
        return options->ramp_start * pow(options->ramp_end / options->ramp_start, progress);
    case RAMP_NONE:
        break;
    }
    return options->request_rate;
}

void arrivals_fill(const struct arrival_options *options, size_t n, int64_t *starts_ns)
{
    struct rng rng = rng_make(options->seed);
    double at_s = 0;
    for (size_t i = 0; i < n; i++) {
        double rate = rate_at(options, i, n);
        if (rate > 0)
            at_s += gamma_draw(&rng, options->burstiness) / options->burstiness / rate;
        starts_ns[i] = (int64_t)(at_s * 1e9);
    }
    if (options->ramp != RAMP_NONE || options->request_rate <= 0 || n == 0 || at_s <= 0)
        return;
    double scale = (double)n / options->request_rate / at_s;
    for (size_t i = 0; i < n; i++)
        starts_ns[i] = (int64_t)((double)starts_ns[i] * scale);
}
