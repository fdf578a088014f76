#include "router/policy/cascade.h"

#include <math.h>

void cascade_add(struct cascade_margins *margins, const struct position_logprobs *position)
{
    if (position->n_top == 0)
        return;
    double first = exp((double)position->top[0].logprob),
           second = position->n_top > 1 ? exp((double)position->top[1].logprob) : 0;
    double margin = first - second;
    margins->sum += isfinite(margin) ? fmin(fmax(margin, 0), 1) : 0;
    margins->n++;
}

double cascade_uncertainty(const struct cascade_margins *margins)
{
    return margins->n == 0 ? -1 : 1 - margins->sum / margins->n;
}

bool cascade_decide(const struct cascade_margins *margins, double escalate_over, double *estimate)
{
    *estimate = cascade_uncertainty(margins);
    return *estimate > escalate_over;
}
