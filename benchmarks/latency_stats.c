#include "benchmarks/latency_stats.h"

#include <math.h>
#include <stdlib.h>
#include "base/alloc.h"

err_t samples_add(struct samples *samples, double value)
{
    if (samples->count == samples->capacity) {
        size_t capacity = samples->capacity ? 2 * samples->capacity : 1024;
        double *grown = mem_realloc(samples->values, capacity * sizeof *grown);
        if (!grown)
            return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %zu samples", capacity);
        samples->values = grown;
        samples->capacity = capacity;
    }
    samples->values[samples->count++] = value;
    return err_ok();
}

void samples_free(struct samples *samples)
{
    mem_free(samples->values);
    *samples = (struct samples){0};
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void samples_sort(struct samples *samples)
{
    if (samples->count)
        qsort(samples->values, samples->count, sizeof *samples->values, compare);
}

double samples_mean(const struct samples *samples)
{
    double sum = 0;
    for (size_t i = 0; i < samples->count; i++)
        sum += samples->values[i];
    return samples->count ? sum / (double)samples->count : 0;
}

double samples_std(const struct samples *samples)
{
    double mean = samples_mean(samples), sum = 0;
    for (size_t i = 0; i < samples->count; i++)
        sum += (samples->values[i] - mean) * (samples->values[i] - mean);
    return samples->count ? sqrt(sum / (double)samples->count) : 0;
}

double samples_percentile(const struct samples *sorted, double percent)
{
    if (sorted->count == 0)
        return 0;
    double at = percent / 100 * (double)(sorted->count - 1);
    size_t low = (size_t)at;
    size_t high = low + 1 < sorted->count ? low + 1 : low;
    return sorted->values[low] + (at - (double)low) * (sorted->values[high] - sorted->values[low]);
}
