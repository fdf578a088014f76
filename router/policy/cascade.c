#include "router/policy/cascade.h"

#include <math.h>

bool cascade_margin(const struct position_logprobs *position, double *margin)
{
    if (position->n_top == 0)
        return false;
    double first = exp((double)position->top[0].logprob),
           second = position->n_top > 1 ? exp((double)position->top[1].logprob) : 0;
    double apart = first - second;
    *margin = isfinite(apart) ? fmin(fmax(apart, 0), 1) : 0;
    return true;
}

void cascade_add(struct cascade_margins *margins, const struct position_logprobs *position)
{
    double margin;
    if (!cascade_margin(position, &margin))
        return;
    margins->sum += margin;
    margins->n++;
}

double cascade_uncertainty(const struct cascade_margins *margins)
{
    return margins->n == 0 ? -1 : 1 - margins->sum / margins->n;
}

bool cascade_decide(const struct cascade_margins *margins, const struct confidence_map *map,
                    double escalate_over, double *estimate)
{
    double doubt = cascade_uncertainty(margins);
    *estimate = doubt < 0 ? doubt : confidence_map_wrong(map, doubt);
    return *estimate > escalate_over;
}
