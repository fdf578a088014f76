/* bantam bench: what to measure is the first word. */
#include <stdio.h>
#include <string.h>
#include "benchmarks/loop_overhead.h"
#include "benchmarks/throughput.h"
#include "cli/bench_commands.h"
#include "cli/commands.h"
#include "cli/engine_flags.h"

struct throughput_values {
    struct engine_flag_values engine;
    int64_t input_len, output_len, num_prompts, seed, shared_prefix_len;
    bool json;
};

static size_t throughput_flags(struct throughput_values *values, struct flag *flags)
{
    const struct flag rows[] = {
        {.name = "input-len",
         .kind = FLAG_INT,
         .target = &values->input_len,
         .default_text = "512",
         .min = 1,
         .max = 1 << 22,
         .help = "random tokens of each prompt"},
        {.name = "output-len",
         .kind = FLAG_INT,
         .target = &values->output_len,
         .default_text = "32",
         .min = 1,
         .max = 1 << 22,
         .help = "tokens generated for each prompt"},
        {.name = "num-prompts",
         .kind = FLAG_INT,
         .target = &values->num_prompts,
         .default_text = "8",
         .min = 1,
         .max = 1 << 20,
         .help = "prompts, all submitted at once"},
        {.name = "shared-prefix-len",
         .kind = FLAG_INT,
         .target = &values->shared_prefix_len,
         .default_text = "0",
         .max = 1 << 22,
         .help = "leading tokens that all prompts have in common"},
        {.name = "seed",
         .kind = FLAG_INT,
         .target = &values->seed,
         .default_text = "0",
         .max = 9e15,
         .help = "seed of the random prompts"},
        {.name = "json",
         .kind = FLAG_BOOL,
         .target = &values->json,
         .default_text = "false",
         .help = "print one JSON object"},
    };
    size_t n = sizeof rows / sizeof *rows;
    memcpy(flags, rows, sizeof rows);
    return n + engine_flags_fill(&values->engine, flags + n);
}

static void print_throughput(const struct throughput_result *r, uint64_t planned_bytes, bool json)
{
    double overhead_us = (double)r->loop.overhead_ns / 1e3 / (double)(r->loop.steps ? r->loop.steps : 1);
    if (json) {
        (void)printf("{\"prefill_tok_s\":%.3f,\"decode_tok_s\":%.3f,\"output_tok_s\":%.3f,\"elapsed_s\":%.6f,"
                     "\"prefill_s\":%.6f,\"input_tokens\":%llu,\"output_tokens\":%llu,\"ttft_p50_ms\":%.3f,"
                     "\"ttft_p99_ms\":%.3f,\"steps\":%llu,\"loop_overhead_us_per_step\":%.3f,"
                     "\"peak_rss_bytes\":%llu,\"planned_bytes\":%llu}\n",
                     r->prefill_tok_s, r->decode_tok_s, r->output_tok_s, (double)r->elapsed_ns / 1e9,
                     (double)r->prefill_ns / 1e9, (unsigned long long)r->input_tokens,
                     (unsigned long long)r->output_tokens, (double)r->ttft_p50_ns / 1e6,
                     (double)r->ttft_p99_ns / 1e6, (unsigned long long)r->loop.steps, overhead_us,
                     (unsigned long long)r->peak_rss_bytes, (unsigned long long)planned_bytes);
        return;
    }
    (void)printf("prefill   %10.1f tok/s   (%llu tokens; every prompt has its first token after %.3f s)\n",
                 r->prefill_tok_s, (unsigned long long)r->input_tokens, (double)r->prefill_ns / 1e9);
    (void)printf("decode    %10.1f tok/s   (all sequences together, after that)\n", r->decode_tok_s);
    (void)printf("output    %10.1f tok/s   (%llu tokens in %.3f s, prefill included)\n", r->output_tok_s,
                 (unsigned long long)r->output_tokens, (double)r->elapsed_ns / 1e9);
    (void)printf("TTFT      %10.1f ms p50, %.1f ms p99\n", (double)r->ttft_p50_ns / 1e6,
                 (double)r->ttft_p99_ns / 1e6);
    (void)printf("loop      %10.1f us per step besides the model, %llu steps\n", overhead_us,
                 (unsigned long long)r->loop.steps);
    (void)printf("memory    %10.1f MiB peak RSS, %.1f MiB planned\n", (double)r->peak_rss_bytes / 1048576.0,
                 (double)planned_bytes / 1048576.0);
}

static int bench_throughput(int argc, char *argv[])
{
    static struct throughput_values values;
    struct flag flags[ENGINE_FLAGS_MAX + 8];
    const struct flag_command command = {
        .name = "bantam bench throughput",
        .summary =
            "Offline throughput in process: all prompts at once, random token ids, greedy, EOS ignored. "
            "prefill_tok_s = prompt tokens / time until every prompt has its first token; decode_tok_s = "
            "tokens "
            "after that moment / time after it.",
        .positionals = "MODEL",
        .min_positionals = 1,
        .max_positionals = 1,
        .flags = flags,
        .n_flags = throughput_flags(&values, flags),
        .examples =
            "  bantam bench throughput demo/model --input-len 512 --output-len 32 --num-prompts 8 --json\n"
            "  bantam bench throughput DIR --load-format dummy --skip-tokenizer-init --quantization int4\n",
    };
    struct flag_result arguments;
    int status;
    if (!parse_command(&command, argc, argv, &arguments, &status))
        return status;
    struct engine_options options = engine_flags_options(&values.engine, arguments.positional[0]);
    options.skip_tokenizer_init = true; /* ids in, ids out */
    if (options.max_waiting < (uint32_t)values.num_prompts)
        options.max_waiting = (uint32_t)values.num_prompts;
    struct throughput_options work = {
        .input_len = (uint32_t)values.input_len,
        .output_len = (uint32_t)values.output_len,
        .num_prompts = (uint32_t)values.num_prompts,
        .shared_prefix_len = (uint32_t)values.shared_prefix_len,
        .seed = (uint64_t)values.seed,
    };
    struct engine *engine = NULL;
    struct throughput_result result;
    err_t e = engine_open(&options, values.json ? NULL : print_memory_plan, &engine);
    if (e.code == ERR_OK)
        e = throughput_run(engine, &work, &result);
    if (e.code == ERR_OK)
        print_throughput(&result, engine_memory_plan(engine)->total_bytes, values.json);
    engine_close(engine);
    return e.code == ERR_OK ? 0 : report_error(command.name, &e);
}

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
#ifdef BANTAM_SERVER
    {"serve", "a running server over gRPC, closed or open loop", bench_serve},
#endif
    {"loop", "the scheduling loop alone", bench_loop},
};

int command_bench(int argc, char *argv[])
{
    size_t n = sizeof BENCHES / sizeof *BENCHES;
    for (size_t i = 0; argc > 0 && i < n; i++)
        if (strcmp(argv[0], BENCHES[i].name) == 0)
            return BENCHES[i].run(argc - 1, argv + 1);
    bool help = argc > 0 && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0);
    FILE *to = help ? stdout : stderr;
    (void)fputs("Usage: bantam bench WHAT [ARGUMENTS]\n\n", to);
    for (size_t i = 0; i < n; i++)
        (void)fprintf(to, "  %-12s %s\n", BENCHES[i].name, BENCHES[i].summary);
    return help ? 0 : 2;
}
