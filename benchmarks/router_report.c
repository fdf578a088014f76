/* What the router's bench says: each target's times, and what they are more than the first one's. */
#include <inttypes.h>
#include <string.h>
#include "benchmarks/router_bench.h"

static const double MIB = 1048576;

static bool text_times(const char *what, const struct router_times *t, const struct router_times *first,
                       struct buffer *out)
{
    if (t->n + t->n_failed == 0)
        return true;
    bool good = buffer_append_format(out, "  %-12s %9.0f us p50 %9.0f p90 %9.0f p99 %9.0f max", what,
                                     t->p50_us, t->p90_us, t->p99_us, t->max_us);
    if (first != t)
        good = good && buffer_append_format(out, "   added %+.0f us p50 %+.0f p99", t->p50_us - first->p50_us,
                                            t->p99_us - first->p99_us);
    if (t->n_failed > 0)
        good = good && buffer_append_format(out, "   %" PRIu64 " FAILED of %" PRIu64, t->n_failed,
                                            t->n + t->n_failed);
    return good && buffer_append_text(out, "\n");
}

static bool text_target(const struct router_bench_options *options, const struct router_target *target,
                        const struct router_result *r, const struct router_result *first, struct buffer *out)
{
    bool good = buffer_append_format(out, "%s\n", target->name) &&
                text_times("whole", &r->whole, &first->whole, out) &&
                text_times("first chunk", &r->first, &first->first, out) &&
                text_times("stream", &r->last, &first->last, out);
    if (target->pid > 0 && r->whole.n > 0)
        good = good && buffer_append_format(out, "  CPU          %9.1f us a whole answer, %.1f a stream\n",
                                            r->whole_cpu_us, r->stream_cpu_us);
    if (options->n_count > 0)
        good =
            good && buffer_append_format(out,
                                         "  count        %9.0f a second of %" PRIu64 ", %" PRIu64
                                         " failed; RSS %.1f MiB, then %.1f\n",
                                         r->count_rps, r->count_done + r->count_failed, r->count_failed,
                                         (double)r->rss_before_bytes / MIB, (double)r->rss_after_bytes / MIB);
    if (options->n_open > 0)
        good = good && buffer_append_format(out,
                                            "  open         %9" PRIu64 " streams, %" PRIu64
                                            " failed; RSS %.1f MiB, then %.1f\n",
                                            r->open_begun, r->open_failed, (double)r->rss_idle_bytes / MIB,
                                            (double)r->rss_open_bytes / MIB);
    if (r->failure[0])
        good = good && buffer_append_format(out, "  a failure    %s\n", r->failure);
    return good;
}

bool router_report_text(const struct router_bench_options *options,
                        const struct router_result results[ROUTER_TARGETS_MAX], struct buffer *out)
{
    bool good = buffer_append_format(out,
                                     "%.0f whole answers and %.0f streams a second, %u tokens each, %g ms "
                                     "between the chunks of a stream; %g s each in %u rounds\n",
                                     options->rate, options->stream_rate, options->n_tokens,
                                     options->per_chunk_ms, options->seconds, options->n_rounds);
    for (size_t i = 0; i < options->n_targets; i++)
        good = good && text_target(options, &options->targets[i], &results[i], &results[0], out);
    return good;
}

static bool json_times(const char *name, const struct router_times *t, struct buffer *out)
{
    return buffer_append_format(out,
                                "\"%s\":{\"completed\":%" PRIu64 ",\"failed\":%" PRIu64
                                ",\"p50_us\":%.1f,\"p90_us\":%.1f,\"p99_us\":%.1f,\"max_us\":%.1f},",
                                name, t->n, t->n_failed, t->p50_us, t->p90_us, t->p99_us, t->max_us);
}

bool router_report_json(const struct router_bench_options *options,
                        const struct router_result results[ROUTER_TARGETS_MAX], struct buffer *out)
{
    bool good = buffer_append_format(
        out,
        "{\"rate\":%g,\"stream_rate\":%g,\"tokens\":%u,\"per_chunk_ms\":%g,\"seconds\":%g,"
        "\"rounds\":%u,\"open\":%u,\"count\":%" PRIu64 ",\"targets\":[",
        options->rate, options->stream_rate, options->n_tokens, options->per_chunk_ms, options->seconds,
        options->n_rounds, options->n_open, options->n_count);
    for (size_t i = 0; i < options->n_targets; i++) {
        const struct router_result *r = &results[i];
        const char *name = options->targets[i].name;
        good = good && buffer_append_text(out, i > 0 ? ",{\"name\":" : "{\"name\":") &&
               buffer_append_json_string(out, name, strlen(name)) && buffer_append_text(out, ",") &&
               json_times("whole", &r->whole, out) && json_times("first_chunk", &r->first, out) &&
               json_times("stream", &r->last, out) &&
               buffer_append_format(
                   out,
                   "\"whole_cpu_us\":%.2f,\"stream_cpu_us\":%.2f,\"whole_rps\":%.1f,\"stream_rps\":%.1f,"
                   "\"open_begun\":%" PRIu64 ",\"open_failed\":%" PRIu64 ",\"rss_idle_bytes\":%" PRIu64
                   ",\"rss_open_bytes\":%" PRIu64 ",\"count_done\":%" PRIu64 ",\"count_failed\":%" PRIu64
                   ",\"count_rps\":%.1f,\"rss_before_bytes\":%" PRIu64 ",\"rss_after_bytes\":%" PRIu64
                   ",\"failure\":",
                   r->whole_cpu_us, r->stream_cpu_us, r->whole_rps, r->stream_rps, r->open_begun,
                   r->open_failed, r->rss_idle_bytes, r->rss_open_bytes, r->count_done, r->count_failed,
                   r->count_rps, r->rss_before_bytes, r->rss_after_bytes) &&
               buffer_append_json_string(out, r->failure, strlen(r->failure)) && buffer_append_text(out, "}");
    }
    return good && buffer_append_text(out, "]}\n");
}
