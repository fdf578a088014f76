/* The result of a load in the words that people's tools parse. */
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include "benchmarks/load_result.h"

static const double PERCENTILES[] = {50, 90, 95, 99};
enum { N_PERCENTILES = sizeof PERCENTILES / sizeof *PERCENTILES };

struct summary {
    size_t completed, failed, good;
    uint64_t input_tokens, output_tokens, cached_tokens;
    double duration_s;
    size_t n_steady; /* answers that ended in the second half of the arrivals, which is steady_s long */
    double steady_s; /* 0: a load whose requests do not arrive at one rate */
    struct samples ttft_ms, tpot_ms, e2el_ms; /* owned */
    double max_output_tokens_per_s;
};

static bool meets_goal(const struct load_options *options, double ttft_ms, double tpot_ms, double e2el_ms)
{
    return (options->goodput_ttft_ms <= 0 || ttft_ms <= options->goodput_ttft_ms) &&
           (options->goodput_tpot_ms <= 0 || tpot_ms <= options->goodput_tpot_ms) &&
           (options->goodput_e2el_ms <= 0 || e2el_ms <= options->goodput_e2el_ms);
}

static err_t add_request(const struct load_options *options, const struct load_request_result *request,
                         struct summary *out)
{
    if (request->error || request->ttft_ns < 0) {
        out->failed++;
        return err_ok();
    }
    double ttft_ms = (double)request->ttft_ns / 1e6, e2el_ms = (double)request->e2el_ns / 1e6;
    double tpot_ms = request->output_len > 1 ? (e2el_ms - ttft_ms) / (request->output_len - 1) : 0;
    out->completed++;
    out->input_tokens += request->input_len;
    out->output_tokens += request->output_len;
    out->cached_tokens += request->cached_len;
    out->good += meets_goal(options, ttft_ms, tpot_ms, e2el_ms);
    TRY(samples_add(&out->ttft_ms, ttft_ms));
    if (request->output_len > 1)
        TRY(samples_add(&out->tpot_ms, tpot_ms));
    return samples_add(&out->e2el_ms, e2el_ms);
}

static void summary_free(struct summary *summary)
{
    samples_free(&summary->ttft_ms);
    samples_free(&summary->tpot_ms);
    samples_free(&summary->e2el_ms);
}

/* What a service gives while requests come: neither the time in which an idle one fills up nor the one in
 * which the last answers drain is counted. The lead-in is half of the arrivals: answers should take no
 * longer. */
static void count_steady(const struct load_options *options, const struct load_result *result,
                         struct summary *out)
{
    if (options->arrivals.request_rate <= 0 || options->arrivals.ramp != RAMP_NONE)
        return;
    int64_t last_ns = 0;
    for (size_t i = 0; i < result->n; i++)
        last_ns = result->requests[i].start_ns > last_ns ? result->requests[i].start_ns : last_ns;
    for (size_t i = 0; i < result->n; i++) {
        const struct load_request_result *request = &result->requests[i];
        int64_t end_ns = request->start_ns + request->e2el_ns;
        out->n_steady +=
            !request->error && request->ttft_ns >= 0 && end_ns > last_ns / 2 && end_ns <= last_ns;
    }
    out->steady_s = (double)(last_ns - last_ns / 2) / 1e9;
}

static bool summarise(const struct load_options *options, struct load_result *result, struct summary *out)
{
    *out = (struct summary){.duration_s = (double)result->duration_ns / 1e9};
    count_steady(options, result, out);
    err_t e = err_ok();
    for (size_t i = 0; i < result->n && e.code == ERR_OK; i++)
        e = add_request(options, &result->requests[i], out);
    for (size_t i = 0; i < result->n_seconds; i++)
        out->max_output_tokens_per_s =
            fmax(out->max_output_tokens_per_s, (double)result->tokens_per_second[i]);
    samples_sort(&out->ttft_ms);
    samples_sort(&out->tpot_ms);
    samples_sort(&out->e2el_ms);
    samples_sort(&result->itl_ms);
    return e.code == ERR_OK;
}

static double per_second(double amount, const struct summary *summary)
{
    return summary->duration_s > 0 ? amount / summary->duration_s : 0;
}

static double steady_throughput(const struct summary *summary)
{
    return summary->steady_s > 0 ? (double)summary->n_steady / summary->steady_s : 0;
}

static bool write_metric(const char *name, const struct samples *samples, struct buffer *out)
{
    bool ok = buffer_append_format(out, ",\"mean_%s_ms\":%.6g,\"median_%s_ms\":%.6g,\"std_%s_ms\":%.6g", name,
                                   samples_mean(samples), name, samples_percentile(samples, 50), name,
                                   samples_std(samples));
    for (int i = 0; i < N_PERCENTILES && ok; i++)
        ok = buffer_append_format(out, ",\"p%g_%s_ms\":%.6g", PERCENTILES[i], name,
                                  samples_percentile(samples, PERCENTILES[i]));
    return ok;
}

enum array_kind { ARRAY_INPUT, ARRAY_OUTPUT, ARRAY_TTFT, ARRAY_LATENCY, ARRAY_START };

static double array_value(const struct load_request_result *request, enum array_kind kind)
{
    switch (kind) {
    case ARRAY_INPUT:
        return request->input_len;
    case ARRAY_OUTPUT:
        return request->output_len;
    case ARRAY_TTFT:
        return request->ttft_ns < 0 ? 0 : (double)request->ttft_ns / 1e9;
    case ARRAY_LATENCY:
        return request->e2el_ns < 0 ? 0 : (double)request->e2el_ns / 1e9;
    case ARRAY_START:
        return (double)request->start_ns / 1e9;
    }
    return 0;
}

static bool write_array(const char *name, const struct load_result *result, enum array_kind kind,
                        struct buffer *out)
{
    bool ok = buffer_append_format(out, ",\"%s\":[", name);
    for (size_t i = 0; i < result->n && ok; i++)
        ok = buffer_append_format(out, "%s%.9g", i ? "," : "", array_value(&result->requests[i], kind));
    return ok && buffer_append_text(out, "]");
}

static bool write_arrays(const struct load_result *result, struct buffer *out)
{
    bool ok = write_array("input_lens", result, ARRAY_INPUT, out) &&
              write_array("output_lens", result, ARRAY_OUTPUT, out) &&
              write_array("ttfts", result, ARRAY_TTFT, out) &&
              write_array("latencies", result, ARRAY_LATENCY, out) &&
              write_array("start_times", result, ARRAY_START, out) && buffer_append_text(out, ",\"itls\":[");
    for (size_t i = 0; i < result->itl_ms.count && ok; i++)
        ok = buffer_append_format(out, "%s%.6g", i ? "," : "", result->itl_ms.values[i] / 1e3);
    ok = ok && buffer_append_text(out, "],\"errors\":[");
    for (size_t i = 0; i < result->n && ok; i++) {
        const char *error = result->requests[i].error ? result->requests[i].error : "";
        ok = buffer_append_text(out, i ? "," : "") && buffer_append_json_string(out, error, strlen(error));
    }
    return ok && buffer_append_text(out, "]");
}

/* What vLLM's object has besides the figures, and what it lacks. */
static bool write_circumstances(const struct load_options *options, const struct load_result *result,
                                const struct summary *summary, struct buffer *out)
{
    const struct arrival_options *arrivals = &options->arrivals;
    bool ok = arrivals->request_rate > 0
                  ? buffer_append_format(out, ",\"request_rate\":%.6g", arrivals->request_rate)
                  : buffer_append_text(out, ",\"request_rate\":\"inf\"");
    ok = ok && buffer_append_format(out, ",\"burstiness\":%.6g,\"total_cached_tokens\":%" PRIu64,
                                    arrivals->burstiness, summary->cached_tokens);
    if (result->is_partial)
        ok = ok && buffer_append_format(out, ",\"interrupted\":true,\"num_prompts\":%zu", result->n_wanted);
    if (summary->steady_s > 0)
        ok = ok && buffer_append_format(out, ",\"steady_s\":%.6f,\"steady_request_throughput\":%.6g",
                                        summary->steady_s, steady_throughput(summary));
    if (result->retries >= 0)
        ok = ok && buffer_append_format(out, ",\"retries\":%" PRId64, result->retries);
    if (result->start_to_ready_ns >= 0)
        ok = ok &&
             buffer_append_format(out, ",\"start_to_ready_s\":%.6f", (double)result->start_to_ready_ns / 1e9);
    return ok;
}

bool load_report_json(const struct load_options *options, struct load_result *result, bool detailed,
                      struct buffer *out)
{
    struct summary s;
    bool ok = summarise(options, result, &s) &&
              buffer_append_format(
                  out,
                  "{\"duration\":%.6f,\"completed\":%zu,\"failed\":%zu,\"total_input_tokens\":%" PRIu64
                  ",\"total_output_tokens\":%" PRIu64 ",\"request_throughput\":%.6g"
                  ",\"request_goodput\":%.6g,\"output_throughput\":%.6g"
                  ",\"total_token_throughput\":%.6g,\"max_output_tokens_per_s\":%.6g"
                  ",\"max_concurrent_requests\":%" PRIu32,
                  s.duration_s, s.completed, s.failed, s.input_tokens, s.output_tokens,
                  per_second((double)s.completed, &s), per_second((double)s.good, &s),
                  per_second((double)s.output_tokens, &s),
                  per_second((double)(s.input_tokens + s.output_tokens), &s), s.max_output_tokens_per_s,
                  result->max_concurrent_requests) &&
              write_metric("ttft", &s.ttft_ms, out) && write_metric("tpot", &s.tpot_ms, out) &&
              write_metric("itl", &result->itl_ms, out) && write_metric("e2el", &s.e2el_ms, out) &&
              write_circumstances(options, result, &s, out) && (!detailed || write_arrays(result, out)) &&
              buffer_append_text(out, "}\n");
    summary_free(&s);
    return ok;
}

static bool text_metric(const char *name, const struct samples *samples, struct buffer *out)
{
    return buffer_append_format(out, "%-8s %10.2f %10.2f %10.2f %10.2f ms\n", name, samples_mean(samples),
                                samples_percentile(samples, 50), samples_percentile(samples, 90),
                                samples_percentile(samples, 99));
}

/* What was asked for and did not happen, and what makes the figures others than they look. */
static bool text_warnings(const struct load_options *options, const struct load_result *result,
                          const struct summary *s, struct buffer *out)
{
    bool ok = true;
    if (result->is_partial)
        ok = buffer_append_format(
            out, "stopped    after %zu of %zu requests: those under way count in ITL alone\n", result->n,
            result->n_wanted);
    if (options->is_unshared && s->cached_tokens > s->input_tokens / 10)
        ok = ok && buffer_append_text(
                       out, "note       the server had these prompts in its prefix cache: take another "
                            "--seed to measure prefill\n");
    return ok;
}

static bool has_goal(const struct load_options *options)
{
    return options->goodput_ttft_ms > 0 || options->goodput_tpot_ms > 0 || options->goodput_e2el_ms > 0;
}

bool load_report_text(const struct load_options *options, struct load_result *result, struct buffer *out)
{
    struct summary s;
    bool ok = summarise(options, result, &s) &&
              buffer_append_format(
                  out,
                  "requests   %zu completed, %zu failed in %.3f s, at most %" PRIu32 " at once\n"
                  "tokens     %" PRIu64 " in (%" PRIu64 " from the prefix cache), %" PRIu64 " out\n"
                  "rate       %.2f requests/s, %.1f output tokens/s, %.1f tokens/s in all\n",
                  s.completed, s.failed, s.duration_s, result->max_concurrent_requests, s.input_tokens,
                  s.cached_tokens, s.output_tokens, per_second((double)s.completed, &s),
                  per_second((double)s.output_tokens, &s),
                  per_second((double)(s.input_tokens + s.output_tokens), &s)) &&
              (!has_goal(options) ||
               buffer_append_format(out, "goodput    %.2f requests/s\n", per_second((double)s.good, &s))) &&
              buffer_append_format(out, "%-8s %10s %10s %10s %10s\n", "", "mean", "median", "p90", "p99") &&
              text_metric("TTFT", &s.ttft_ms, out) && text_metric("TPOT", &s.tpot_ms, out) &&
              text_metric("ITL", &result->itl_ms, out) && text_metric("E2E", &s.e2el_ms, out);
    if (s.steady_s > 0)
        ok =
            ok && buffer_append_format(out, "steady     %.2f requests/s in the last %.1f s of the arrivals\n",
                                       steady_throughput(&s), s.steady_s);
    if (result->retries >= 0)
        ok = ok && buffer_append_format(out, "retries    %" PRId64 "\n", result->retries);
    ok = ok && text_warnings(options, result, &s, out);
    for (size_t i = 0; i < result->n && ok; i++)
        if (result->requests[i].error) {
            ok = buffer_append_format(out, "first error: %s\n", result->requests[i].error);
            break;
        }
    summary_free(&s);
    return ok;
}
