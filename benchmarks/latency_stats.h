/* Mean, median, standard deviation and percentiles of samples. */
#pragma once

#include <stddef.h>
#include "base/error.h"

/* A growing list of samples; zero-initialise. */
struct samples {
    double *values; /* [count] owned */
    size_t count, capacity;
};

err_t samples_add(struct samples *samples, double value) ERR_MUST_CHECK;
void samples_free(struct samples *samples);
/* Ascending; needed before samples_percentile. */
void samples_sort(struct samples *samples);
double samples_mean(const struct samples *samples); /* 0 without samples, here and below */
double samples_std(const struct samples *samples);  /* of the population, as numpy's std */
/* percent in [0, 100], linear between neighbours, as numpy's percentile. */
double samples_percentile(const struct samples *sorted, double percent);
