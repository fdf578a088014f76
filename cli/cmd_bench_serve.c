/* bantam bench serve: a load on a running server. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "benchmarks/serve_bench.h"
#include "cli/bench_commands.h"
#include "cli/commands.h"

enum { REPORT_BYTES_MAX = 1 << 28, BENCH_SERVE_FLAGS_MAX = 32 };

struct bench_serve_values {
    const char *target, *dataset, *dataset_path, *ramp;
    double request_rate, burstiness, ramp_start, ramp_end, temperature, timeout_s;
    int64_t num_prompts, max_concurrency, input_len, output_len, prefix_len, num_prefixes, seed;
    bool ignore_eos, json, detailed;
    struct flag_list goodput;
};

static size_t bench_serve_flags(struct bench_serve_values *v, struct flag *flags)
{
    const struct flag rows[] = {
        {.name = "target",
         .kind = FLAG_STRING,
         .target = &v->target,
         .default_text = "127.0.0.1:50051",
         .metavar = "HOST:PORT",
         .help = "the server"},
        {.name = "num-prompts",
         .kind = FLAG_INT,
         .target = &v->num_prompts,
         .default_text = "100",
         .min = 1,
         .max = 1 << 24,
         .help = "requests in all"},
        {.name = "max-concurrency",
         .kind = FLAG_INT,
         .target = &v->max_concurrency,
         .default_text = "0",
         .max = 1 << 16,
         .help = "streams at once; 0 = no bound. Alone, it makes a closed loop"},
        {.name = "request-rate",
         .kind = FLAG_DOUBLE,
         .target = &v->request_rate,
         .default_text = "0",
         .max = 1e6,
         .help = "arrivals per second (open loop); 0 = all at once"},
        {.name = "burstiness",
         .kind = FLAG_DOUBLE,
         .target = &v->burstiness,
         .default_text = "1",
         .min = 0.01,
         .max = 1000,
         .help = "shape of the gamma distribution of gaps; 1 = Poisson, less = burstier"},
        {.name = "ramp-up-strategy",
         .kind = FLAG_CHOICE,
         .target = &v->ramp,
         .default_text = "none",
         .choices = "none|linear|exponential",
         .help = "let the rate grow over the load"},
        {.name = "ramp-up-start-rps",
         .kind = FLAG_DOUBLE,
         .target = &v->ramp_start,
         .default_text = "1",
         .min = 0.001,
         .max = 1e6,
         .help = "rate at the beginning of a ramp"},
        {.name = "ramp-up-end-rps",
         .kind = FLAG_DOUBLE,
         .target = &v->ramp_end,
         .default_text = "10",
         .min = 0.001,
         .max = 1e6,
         .help = "rate at its end"},
        {.name = "dataset-name",
         .kind = FLAG_CHOICE,
         .target = &v->dataset,
         .default_text = "random",
         .choices = "random|prefix_repetition|custom",
         .help = "random ids; random ids with shared prefixes; or a file of JSON lines"},
        {.name = "dataset-path",
         .kind = FLAG_STRING,
         .target = &v->dataset_path,
         .metavar = "FILE",
         .help = "custom: lines with \"prompt\" or \"messages\", and maybe \"output_tokens\""},
        {.name = "random-input-len",
         .kind = FLAG_INT,
         .target = &v->input_len,
         .default_text = "128",
         .min = 1,
         .max = 1 << 22,
         .help = "tokens of a prompt, shared prefix included"},
        {.name = "random-output-len",
         .kind = FLAG_INT,
         .target = &v->output_len,
         .default_text = "32",
         .min = 1,
         .max = 1 << 22,
         .help = "tokens asked for"},
        {.name = "prefix-len",
         .kind = FLAG_INT,
         .target = &v->prefix_len,
         .default_text = "96",
         .max = 1 << 22,
         .help = "prefix_repetition: tokens shared within a group"},
        {.name = "num-prefixes",
         .kind = FLAG_INT,
         .target = &v->num_prefixes,
         .default_text = "4",
         .min = 1,
         .max = 1 << 20,
         .help = "prefix_repetition: groups"},
        {.name = "seed",
         .kind = FLAG_INT,
         .target = &v->seed,
         .default_text = "0",
         .max = 9e15,
         .help = "seed of prompts and arrivals"},
        {.name = "temperature",
         .kind = FLAG_DOUBLE,
         .target = &v->temperature,
         .default_text = "0",
         .max = 100,
         .help = "0 = greedy"},
        {.name = "ignore-eos",
         .kind = FLAG_BOOL,
         .target = &v->ignore_eos,
         .default_text = "false",
         .help = "every answer has the full length"},
        {.name = "goodput",
         .kind = FLAG_LIST,
         .target = &v->goodput,
         .metavar = "METRIC:MS",
         .help = "a goal such as ttft:200, tpot:50 or e2el:1000; a request that meets all of them is good"},
        {.name = "request-timeout",
         .kind = FLAG_DOUBLE,
         .target = &v->timeout_s,
         .default_text = "0",
         .max = 86400,
         .metavar = "SECONDS",
         .help = "deadline of each request; 0 = none"},
        {.name = "json",
         .kind = FLAG_BOOL,
         .target = &v->json,
         .default_text = "false",
         .help = "print one JSON object with the fields of vLLM's bench serve"},
        {.name = "save-detailed",
         .kind = FLAG_BOOL,
         .target = &v->detailed,
         .default_text = "false",
         .help = "with --json: arrays with a value per request"},
    };
    memcpy(flags, rows, sizeof rows);
    return sizeof rows / sizeof *rows;
}

static err_t parse_goodput(const struct flag_list *goals, struct serve_bench_options *options)
{
    for (size_t i = 0; i < goals->count; i++) {
        double ms = 0;
        char name[16], rest[2];
        /* NOLINTNEXTLINE(cert-err34-c): a number out of range reads as infinity, which no request misses */
        int n = sscanf(goals->item[i], "%15[a-z0-9]:%lf%1s", name, &ms, rest);
        double *goal = n != 2 || !(ms > 0)         ? NULL
                       : strcmp(name, "ttft") == 0 ? &options->goodput_ttft_ms
                       : strcmp(name, "tpot") == 0 ? &options->goodput_tpot_ms
                       : strcmp(name, "e2el") == 0 ? &options->goodput_e2el_ms
                                                   : NULL;
        if (!goal)
            return err_new(ERR_INVALID_ARGUMENT,
                           "--goodput: \"%s\" is not like ttft:200, tpot:50 or e2el:1000", goals->item[i]);
        *goal = ms;
    }
    return err_ok();
}

static err_t load_data(const struct bench_serve_values *v, struct bench_data *out)
{
    *out = (struct bench_data){0};
    if (strcmp(v->dataset, "custom") == 0) {
        if (!v->dataset_path)
            return err_new(ERR_INVALID_ARGUMENT, "--dataset-name custom needs --dataset-path FILE");
        return bench_data_file(v->dataset_path, (size_t)v->num_prompts, (uint32_t)v->output_len, out);
    }
    struct random_data_options options = {
        .num_prompts = (size_t)v->num_prompts,
        .input_len = (uint32_t)v->input_len,
        .output_len = (uint32_t)v->output_len,
        .prefix_len = strcmp(v->dataset, "prefix_repetition") == 0 ? (uint32_t)v->prefix_len : 0,
        .num_prefixes = (uint32_t)v->num_prefixes,
        .seed = (uint64_t)v->seed,
    };
    TRY(serve_bench_vocab_size(v->target, &options.vocab_size));
    return bench_data_random(&options, out);
}

static err_t run_load(const struct bench_serve_values *v, bool *any_failed)
{
    struct serve_bench_options options = {
        .target = v->target,
        .arrivals = {.request_rate = v->request_rate,
                     .burstiness = v->burstiness,
                     .ramp = strcmp(v->ramp, "linear") == 0        ? RAMP_LINEAR
                             : strcmp(v->ramp, "exponential") == 0 ? RAMP_EXPONENTIAL
                                                                   : RAMP_NONE,
                     .ramp_start = v->ramp_start,
                     .ramp_end = v->ramp_end,
                     .seed = (uint64_t)v->seed},
        .max_concurrency = (uint32_t)v->max_concurrency,
        .ignore_eos = v->ignore_eos,
        .temperature = v->temperature,
        .timeout_ns = v->timeout_s > 0 ? (int64_t)(v->timeout_s * 1e9) : -1,
        .show_progress = isatty(STDERR_FILENO) != 0,
    };
    TRY(parse_goodput(&v->goodput, &options));
    struct bench_data data;
    struct serve_bench_result result = {0};
    struct buffer report = {.limit_bytes = REPORT_BYTES_MAX};
    err_t e = load_data(v, &data);
    if (e.code == ERR_OK)
        e = serve_bench_run(&options, &data, &result);
    if (e.code == ERR_OK) {
        bool ok = v->json ? serve_report_json(&options, &result, v->detailed, &report)
                          : serve_report_text(&options, &result, &report);
        if (ok)
            (void)fwrite(report.data, 1, report.size, stdout);
        else
            e = err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the report");
    }
    for (size_t i = 0; result.requests && i < result.n; i++)
        *any_failed |= result.requests[i].error != NULL;
    serve_bench_free(&result);
    bench_data_free(&data);
    buffer_free(&report);
    return e;
}

int bench_serve(int argc, char *argv[])
{
    static struct bench_serve_values values;
    struct flag flags[BENCH_SERVE_FLAGS_MAX];
    const struct flag_command command = {
        .name = "bantam bench serve",
        .summary = "Puts a load on a running server over gRPC. TTFT: start to first token; E2E: start to "
                   "last token; TPOT = "
                   "(E2E - TTFT) / (tokens - 1); ITL: gaps between tokens, pooled. With --request-rate a "
                   "request starts, for "
                   "its figures, at its scheduled arrival, so that waiting in the client counts.",
        .flags = flags,
        .n_flags = bench_serve_flags(&values, flags),
        .examples = "  bantam bench serve --max-concurrency 8 --num-prompts 200\n"
                    "  bantam bench serve --request-rate 20 --goodput ttft:200 --goodput tpot:50 --json\n",
    };
    struct flag_result arguments;
    int status;
    if (!parse_command(&command, argc, argv, &arguments, &status))
        return status;
    bool any_failed = false;
    err_t e = run_load(&values, &any_failed);
    if (e.code != ERR_OK)
        return report_error(command.name, &e);
    return any_failed ? 1 : 0;
}
