#include "benchmarks/load_result.h"

#include <string.h>
#include "base/alloc.h"

static const int64_t NS_PER_S = 1000000000;
static const int64_t STOP_LOOK_NS = 100000000; /* how long a wish to stop may wait */

err_t load_result_init(size_t n, struct load_result *out)
{
    *out = (struct load_result){.n = n, .n_wanted = n, .retries = -1, .start_to_ready_ns = -1};
    out->requests = mem_alloc_array(n, sizeof *out->requests);
    if (!out->requests)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %zu requests", n);
    return err_ok();
}

void load_result_free(struct load_result *result)
{
    for (size_t i = 0; result->requests && i < result->n; i++)
        mem_free(result->requests[i].error);
    mem_free(result->requests);
    mem_free(result->tokens_per_second);
    samples_free(&result->itl_ms);
    *result = (struct load_result){0};
}

void load_result_start(struct load_result *result, size_t index, int64_t start_ns)
{
    result->requests[index] =
        (struct load_request_result){.start_ns = start_ns, .ttft_ns = -1, .e2el_ns = -1};
}

static err_t count_tokens(struct load_result *result, int64_t now_ns, uint64_t n)
{
    size_t second = (size_t)(now_ns / NS_PER_S);
    if (second >= result->seconds_capacity) {
        size_t capacity = 2 * second + 64;
        uint64_t *grown = mem_realloc(result->tokens_per_second, capacity * sizeof *grown);
        if (!grown)
            return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the load's counters");
        memset(grown + result->seconds_capacity, 0, (capacity - result->seconds_capacity) * sizeof *grown);
        result->tokens_per_second = grown;
        result->seconds_capacity = capacity;
    }
    if (second >= result->n_seconds)
        result->n_seconds = second + 1;
    result->tokens_per_second[second] += n;
    return err_ok();
}

err_t load_result_tokens(struct load_result *result, size_t index, size_t n_tokens, int64_t now_ns)
{
    if (n_tokens == 0)
        return err_ok();
    TRY(count_tokens(result, now_ns, n_tokens));
    struct load_request_result *request = &result->requests[index];
    int64_t elapsed_ns = now_ns - request->start_ns;
    double gap_ms = 0;
    if (request->ttft_ns < 0) {
        request->ttft_ns = elapsed_ns;
        n_tokens--; /* the others of this arrival came at the same moment */
    } else {
        gap_ms = (double)(elapsed_ns - request->e2el_ns) / 1e6 / (double)n_tokens;
    }
    for (size_t i = 0; i < n_tokens; i++)
        TRY(samples_add(&result->itl_ms, gap_ms));
    request->e2el_ns = elapsed_ns;
    return err_ok();
}

void load_result_usage(struct load_result *result, size_t index, const struct usage *usage)
{
    struct load_request_result *request = &result->requests[index];
    request->input_len = usage->prompt_tokens;
    request->output_len = usage->completion_tokens;
    request->cached_len = usage->cached_tokens;
}

void load_result_fail(struct load_result *result, size_t index, const char *message)
{
    if (!result->requests[index].error)
        result->requests[index].error = mem_strdup(message);
}

void load_result_end(struct load_result *result, size_t index)
{
    result->requests[index].has_ended = true;
}

void load_result_cut(struct load_result *result)
{
    size_t n_kept = 0;
    for (size_t i = 0; i < result->n; i++) {
        if (result->requests[i].has_ended)
            result->requests[n_kept++] = result->requests[i];
        else
            mem_free(result->requests[i].error);
    }
    result->n = n_kept;
    result->is_partial = true;
}

int64_t load_wait_ns(int64_t next_ns)
{
    return next_ns < 0 || next_ns > STOP_LOOK_NS ? STOP_LOOK_NS : next_ns;
}

bool load_is_open(const struct load_options *options)
{
    return options->arrivals.request_rate > 0 || options->arrivals.ramp != RAMP_NONE;
}
