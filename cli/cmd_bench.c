/* bantam bench: what to measure is the first word. */
#include <stdio.h>
#include <string.h>
#include "benchmarks/loop_overhead.h"
#include "cli/bench_commands.h"
#include "cli/commands.h"

static int bench_loop(int argc, char *argv[])
{
    int64_t n_seqs, input_len, output_len;
    const struct flag flags[] = {
        {.name = "num-seqs",
         .kind = FLAG_INT,
         .target = &n_seqs,
         .default_text = "64",
         .min = 1,
         .max = 4096,
         .help = "sequences that decode together"},
        {.name = "input-len",
         .kind = FLAG_INT,
         .target = &input_len,
         .default_text = "128",
         .min = 1,
         .max = 4096,
         .help = "tokens of each prompt"},
        {.name = "output-len",
         .kind = FLAG_INT,
         .target = &output_len,
         .default_text = "1024",
         .min = 2,
         .max = 4000,
         .help = "tokens generated for each"},
    };
    const struct flag_command command = {
        .name = "bantam bench loop",
        .summary =
            "What the loop itself costs per step: scheduling, step building and publishing with a model that "
            "computes nothing.",
        .flags = flags,
        .n_flags = sizeof flags / sizeof *flags,
    };
    struct flag_result arguments;
    int status;
    if (!parse_command(&command, argc, argv, &arguments, &status))
        return status;
    struct loop_overhead_result result;
    err_t e = loop_overhead_run((uint32_t)n_seqs, (uint32_t)input_len, (uint32_t)output_len, &result);
    if (e.code != ERR_OK)
        return report_error(command.name, &e);
    (void)printf(
        "{\"num_seqs\":%u,\"steps\":%llu,\"tokens\":%llu,\"overhead_us_per_step\":%.3f,\"elapsed_s\":%.6f,"
        "\"allocations\":%llu}\n",
        result.n_seqs, (unsigned long long)result.steps, (unsigned long long)result.tokens,
        result.overhead_us_per_step, result.elapsed_s, (unsigned long long)result.allocations);
    return 0;
}

static const struct {
    const char *name, *summary;
    int (*run)(int argc, char *argv[]);
} BENCHES[] = {
    {"throughput", "offline: all prompts at once, in process", bench_throughput},
    {"decode", "a full batch that decodes at a context, in process", bench_decode},
    {"latency", "arrivals at a rate, in process", bench_latency},
#ifdef BANTAM_SERVER
    {"serve", "a running server over gRPC, closed or open loop", bench_serve},
    {"provider", "a MOCK model provider, for tests and demonstrations: its answers are made up",
     bench_provider},
    {"router", "what a router or gateway adds to the mock provider's answers", bench_router},
    {"doors", "the doors alone: a model that costs nothing, streams and whole answers", bench_doors},
#endif
    {"ops", "the ops of a layer, on a device", bench_ops},
    {"products", "cuBLASLt against our own kernels, on a GPU: bits and speed", bench_products},
    {"loop", "the scheduling loop alone", bench_loop},
};

int command_bench(int argc, char *argv[])
{
    size_t n = sizeof BENCHES / sizeof *BENCHES;
    for (size_t i = 0; argc > 0 && i < n; i++)
        if (strcmp(argv[0], BENCHES[i].name) == 0)
            return BENCHES[i].run(argc - 1, argv + 1);
    bool help = argc > 0 && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0);
    if (argc > 0 && !help) {
        (void)fprintf(stderr, "bantam bench: there is no bench \"%s\"\nTry \"bantam help bench\".\n",
                      argv[0]);
        return 2;
    }
    FILE *to = help ? stdout : stderr;
    (void)fputs("Usage: bantam bench WHAT [ARGUMENTS]\n\n", to);
    for (size_t i = 0; i < n; i++)
        (void)fprintf(to, "  %-12s %s\n", BENCHES[i].name, BENCHES[i].summary);
    return help ? 0 : 2;
}
