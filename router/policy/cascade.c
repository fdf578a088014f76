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

bool cascade_decide(const struct cascade_margins *margins, const struct confidence_map *map,
                    double escalate_over, double *estimate)
{
    double doubt = cascade_uncertainty(margins);
    *estimate = doubt < 0 ? doubt : confidence_map_wrong(map, doubt);
    return *estimate > escalate_over;
}
