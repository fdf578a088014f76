/* What the doors' bench says. */
#include <inttypes.h>
#include "benchmarks/doors_bench.h"

static double over(double value, double by)
{
    return by > 0 ? value / by : 0;
}

static double rss_kib_per_stream(const struct doors_options *options, const struct doors_result *r)
{
    return ((double)r->rss_open_bytes - (double)r->rss_idle_bytes) / 1024 / options->n_streams;
}

bool doors_report_text(const struct doors_options *options, const struct doors_result results[DOOR_KINDS],
                       struct buffer *out)
{
    bool good = buffer_append_format(
        out, "%u streams, a step of %.3f ms, prompts of %u tokens, %.1f s a measurement\n",
        options->n_streams, (double)options->step_ns / 1e6, options->input_len, options->seconds);
    for (int kind = 0; kind < DOOR_KINDS; kind++) {
        const struct doors_result *r = &results[kind];
        double tokens = (double)r->tokens;
        if (!r->measured)
            continue;
        good =
            good && buffer_append_format(
                        out,
                        "%s\n"
                        "  streams   %10.0f tokens/s, %.2f messages a token; %" PRIu64
                        " of %.0f steps, %" PRIu64 " pauses\n"
                        "  CPU       %10.2f us a token (%.2f of them the loop), %.0f %% of a core; the "
                        "client %.0f %%\n"
                        "  added     %10.0f us p50, %.0f p99, %.0f at most, from a step's end to the client\n"
                        "  memory    %10.1f KiB RSS a stream, %.1f MiB idle; %.2f allocations a token\n",
                        doors_kind_name(kind), over(tokens, r->elapsed_s), over((double)r->messages, tokens),
                        r->steps, over(r->elapsed_s * 1e9, (double)options->step_ns), r->pauses,
                        over(r->server_cpu_s * 1e6, tokens), over(r->loop_cpu_s * 1e6, tokens),
                        over(r->server_cpu_s * 100, r->elapsed_s), over(r->client_cpu_s * 100, r->elapsed_s),
                        r->added_p50_us, r->added_p99_us, r->added_max_us, rss_kib_per_stream(options, r),
                        (double)r->rss_idle_bytes / 1048576, over((double)r->allocations, tokens));
        for (int i = 0; i < DOORS_LOADS; i++) {
            const struct doors_unary *u = &r->unary[i];
            double n = (double)u->requests;
            good = good &&
                   buffer_append_format(
                       out,
                       "  wholes    %10.0f a second, %u in flight: %.0f us p50, %.0f p99; CPU %.1f us each\n",
                       over(n, u->elapsed_s), u->in_flight, u->p50_us, u->p99_us,
                       over(u->server_cpu_s * 1e6, n));
        }
    }
    return good;
}

static bool json_unary(const struct doors_unary *u, struct buffer *out)
{
    double n = (double)u->requests;
    return buffer_append_format(
        out,
        "{\"in_flight\":%u,\"requests\":%" PRIu64
        ",\"requests_per_s\":%.1f,\"p50_us\":%.1f,\"p99_us\":%.1f,\"cpu_us_per_request\":%.3f}",
        u->in_flight, u->requests, over(n, u->elapsed_s), u->p50_us, u->p99_us,
        over(u->server_cpu_s * 1e6, n));
}

static bool json_door(const struct doors_options *options, enum doors_kind kind, const struct doors_result *r,
                      struct buffer *out)
{
    double tokens = (double)r->tokens;
    bool good = buffer_append_format(
        out,
        "{\"door\":\"%s\",\"tokens\":%" PRIu64 ",\"messages\":%" PRIu64 ",\"steps\":%" PRIu64
        ",\"elapsed_s\":%.6f,\"tokens_per_s\":%.1f,\"messages_per_token\":%.4f,\"cpu_us_per_token\":%.4f,"
        "\"loop_cpu_us_per_token\":%.4f,\"server_cpu_share\":%.4f,\"client_cpu_share\":%.4f,\"added_p50_us\":"
        "%.1f,"
        "\"added_p99_us\":%.1f,\"added_max_us\":%.1f,\"rss_kib_per_stream\":%.2f,\"rss_idle_bytes\":%" PRIu64
        ",\"allocations_per_token\":%.3f,\"pauses\":%" PRIu64 ",\"wholes\":[",
        doors_kind_name(kind), r->tokens, r->messages, r->steps, r->elapsed_s, over(tokens, r->elapsed_s),
        over((double)r->messages, tokens), over(r->server_cpu_s * 1e6, tokens),
        over(r->loop_cpu_s * 1e6, tokens), over(r->server_cpu_s, r->elapsed_s),
        over(r->client_cpu_s, r->elapsed_s), r->added_p50_us, r->added_p99_us, r->added_max_us,
        rss_kib_per_stream(options, r), r->rss_idle_bytes, over((double)r->allocations, tokens), r->pauses);
    for (int i = 0; good && i < DOORS_LOADS; i++)
        good = (i == 0 || buffer_append_text(out, ",")) && json_unary(&r->unary[i], out);
    return good && buffer_append_text(out, "]}");
}

bool doors_report_json(const struct doors_options *options, const struct doors_result results[DOOR_KINDS],
                       struct buffer *out)
{
    bool first = true;
    bool good = buffer_append_format(
        out, "{\"streams\":%u,\"step_us\":%.3f,\"input_len\":%u,\"seconds\":%.3f,\"doors\":[",
        options->n_streams, (double)options->step_ns / 1e3, options->input_len, options->seconds);
    for (int kind = 0; kind < DOOR_KINDS && good; kind++) {
        if (!results[kind].measured)
            continue;
        good = (first || buffer_append_text(out, ",")) && json_door(options, kind, &results[kind], out);
        first = false;
    }
    return good && buffer_append_text(out, "]}\n");
}
