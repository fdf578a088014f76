/* bantam bench router: what a router adds. */
#include <stdio.h>
#include "benchmarks/router_bench.h"
#include "cli/bench_commands.h"
#include "cli/commands.h"
#include "server/file_budget.h"

enum { ROUTER_REPORT_BYTES_MAX = 1 << 16 };

struct router_values {
    struct flag_list targets;
    const char *model, *api_key;
    double rate, stream_rate, seconds, per_chunk_ms, count_seconds;
    int64_t rounds, tokens, open, count;
    bool json;
};

static err_t run(const struct router_values *values)
{
    static struct router_result results[ROUTER_TARGETS_MAX];
    struct router_bench_options options = {
        .model = values->model,
        .rate = values->rate,
        .stream_rate = values->stream_rate,
        .seconds = values->seconds,
        .n_rounds = (uint32_t)values->rounds,
        .n_tokens = (uint32_t)values->tokens,
        .per_chunk_ms = values->per_chunk_ms,
        .n_open = (uint32_t)values->open,
        .n_count = (uint64_t)values->count,
        .count_seconds = values->count_seconds,
        .show_progress = true,
        .api_key = values->api_key,
    };
    if (values->targets.count == 0 || values->targets.count > ROUTER_TARGETS_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "--target: 1 to %d of them", ROUTER_TARGETS_MAX);
    for (size_t i = 0; i < values->targets.count; i++)
        TRY(router_target_parse(values->targets.item[i], &options.targets[options.n_targets++]));
    (void)file_budget_raise(); /* every stream is a connection */
    TRY(router_bench_run(&options, results));
    struct buffer report = {.limit_bytes = ROUTER_REPORT_BYTES_MAX};
    err_t e = err_ok();
    if (!(values->json ? router_report_json : router_report_text)(&options, results, &report))
        e = err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the report");
    else
        (void)fwrite(report.data, 1, report.size, stdout);
    buffer_free(&report);
    return e;
}

int bench_router(int argc, char *argv[])
{
    static struct router_values values;
    const struct flag flags[] = {
        {.name = "target",
         .kind = FLAG_LIST,
         .target = &values.targets,
         .metavar = "NAME=http|grpc:PORT[:PID]",
         .help = "whom to ask, at a port of this machine; may be repeated: the first is what the others are "
                 "compared with; of the process PID its CPU and memory are told"},
        {.name = "model",
         .kind = FLAG_STRING,
         .target = &values.model,
         .default_text = "mock-frontier",
         .help = "the model that is asked for"},
        {.name = "api-key", .kind = FLAG_STRING, .target = &values.api_key, .help = "sent to every target"},
        {.name = "rate",
         .kind = FLAG_DOUBLE,
         .target = &values.rate,
         .default_text = "2000",
         .min = 1,
         .max = 1e5,
         .help = "whole answers asked for a second, whether those before have come or not"},
        {.name = "stream-rate",
         .kind = FLAG_DOUBLE,
         .target = &values.stream_rate,
         .default_text = "500",
         .min = 1,
         .max = 1e5,
         .help = "streams asked for a second, likewise"},
        {.name = "seconds",
         .kind = FLAG_DOUBLE,
         .target = &values.seconds,
         .default_text = "10",
         .max = 3600,
         .help = "of each of the two, and each target; 0 = neither"},
        {.name = "rounds",
         .kind = FLAG_INT,
         .target = &values.rounds,
         .default_text = "5",
         .min = 1,
         .max = ROUTER_ROUNDS_MAX,
         .help = "in which the targets take turns"},
        {.name = "tokens",
         .kind = FLAG_INT,
         .target = &values.tokens,
         .default_text = "16",
         .min = 1,
         .max = 4096,
         .help = "of each answer"},
        {.name = "per-chunk-ms",
         .kind = FLAG_DOUBLE,
         .target = &values.per_chunk_ms,
         .default_text = "5",
         .max = 10000,
         .help = "between the chunks of a stream"},
        {.name = "open",
         .kind = FLAG_INT,
         .target = &values.open,
         .default_text = "0",
         .max = ROUTER_OPEN_MAX,
         .help = "streams that are open at once, and what memory they take"},
        {.name = "count",
         .kind = FLAG_INT,
         .target = &values.count,
         .default_text = "0",
         .max = 1e9,
         .help = "whole answers, as fast as they come, with the memory before and after"},
        {.name = "count-seconds",
         .kind = FLAG_DOUBLE,
         .target = &values.count_seconds,
         .default_text = "0",
         .max = 1e6,
         .help = "of each target; fewer are counted where they take longer; 0 = without end"},
        {.name = "json",
         .kind = FLAG_BOOL,
         .target = &values.json,
         .default_text = "false",
         .help = "print one JSON object"},
    };
    const struct flag_command command = {
        .name = "bantam bench router",
        .summary =
            "What a router or gateway adds to answers of the mock provider (bantam bench provider): the "
            "same requests to the provider and through the router, in turns, by one process. Times run "
            "from when a request was due.",
        .flags = flags,
        .n_flags = sizeof flags / sizeof *flags,
        .examples = "  bantam bench router --target direct=http:9000 --target router=http:8010:4242 \\\n"
                    "    --target router-grpc=grpc:50052:4242 --open 10000\n"
                    "  benchmarks/router, which starts all of them\n",
    };
    struct flag_result arguments;
    int status;
    if (!parse_command(&command, argc, argv, &arguments, &status))
        return status;
    err_t e = run(&values);
    return e.code == ERR_OK ? 0 : report_error(command.name, &e);
}
