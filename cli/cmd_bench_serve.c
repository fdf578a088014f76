/* bantam bench serve: a load on a running server. */
#include <string.h>
#include "benchmarks/serve_bench.h"
#include "cli/bench_commands.h"
#include "cli/client_flags.h"
#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/load_flags.h"

enum { BENCH_SERVE_FLAGS_MAX = 20 + LOAD_FLAGS_MAX + CLIENT_FLAGS_MAX };

struct bench_serve_values {
    struct load_flag_values load;
    struct client_flag_values client;
    const char *dataset, *dataset_path, *ramp, *openai_url, *model;
    double request_rate, ramp_start, ramp_end, timeout_s;
    int64_t input_len, output_len, output_len_min, prefix_len, num_prefixes, prefix_seed, vocab_size;
    bool ignore_eos;
};

static size_t bench_serve_flags(struct bench_serve_values *v, struct flag *flags)
{
    const struct flag rows[] = {
        {.name = "request-rate",
         .kind = FLAG_DOUBLE,
         .target = &v->request_rate,
         .default_text = "0",
         .max = 1e6,
         .help = "arrivals per second (open loop); 0 = all at once"},
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
        {.name = "random-output-len-min",
         .kind = FLAG_INT,
         .target = &v->output_len_min,
         .default_text = "0",
         .max = 1 << 22,
         .help = "draw each length from here to --random-output-len; 0 = all are that"},
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
        {.name = "prefix-seed",
         .kind = FLAG_INT,
         .target = &v->prefix_seed,
         .default_text = "-1",
         .min = -1,
         .max = 9e15,
         .help =
             "prefix_repetition: seed of the shared parts, which may stay while --seed changes; -1 = --seed"},
        {.name = "ignore-eos",
         .kind = FLAG_BOOL,
         .target = &v->ignore_eos,
         .default_text = "false",
         .help = "every answer has the full length"},
        {.name = "openai-url",
         .kind = FLAG_STRING,
         .target = &v->openai_url,
         .metavar = "URL",
         .help = "http://HOST:PORT: load any OpenAI-compatible server over HTTP and not --target over gRPC"},
        {.name = "model",
         .kind = FLAG_STRING,
         .target = &v->model,
         .metavar = "NAME",
         .help = "with --openai-url: the model that requests name (default: none)"},
        {.name = "vocab-size",
         .kind = FLAG_INT,
         .target = &v->vocab_size,
         .default_text = "0",
         .max = 1 << 30,
         .help = "random ids are below it; needed with --openai-url, else asked of the server"},
        {.name = "request-timeout",
         .kind = FLAG_DOUBLE,
         .target = &v->timeout_s,
         .default_text = "0",
         .max = 86400,
         .metavar = "SECONDS",
         .help = "deadline of each request; 0 = none"},
    };
    size_t n = sizeof rows / sizeof *rows;
    memcpy(flags, rows, sizeof rows);
    n += load_flags_fill(&v->load, flags + n);
    return n + client_flags_fill(&v->client, flags + n);
}

static err_t load_data(const struct bench_serve_values *v, const struct bantam_client_options *client,
                       struct bench_data *out)
{
    *out = (struct bench_data){0};
    if (strcmp(v->dataset, "custom") == 0) {
        if (!v->dataset_path)
            return err_new(ERR_INVALID_ARGUMENT, "--dataset-name custom needs --dataset-path FILE");
        return bench_data_file(v->dataset_path, (size_t)v->load.num_prompts, (uint32_t)v->output_len, out);
    }
    if (v->openai_url && !v->vocab_size)
        return err_new(ERR_INVALID_ARGUMENT,
                       "random ids for --openai-url need --vocab-size: HTTP has no call that tells it");
    struct random_data_options options = {
        .num_prompts = (size_t)v->load.num_prompts,
        .input_len = (uint32_t)v->input_len,
        .output_len = (uint32_t)v->output_len,
        .output_len_min = (uint32_t)v->output_len_min,
        .vocab_size = (uint32_t)v->vocab_size,
        .prefix_len = strcmp(v->dataset, "prefix_repetition") == 0 ? (uint32_t)v->prefix_len : 0,
        .num_prefixes = (uint32_t)v->num_prefixes,
        .seed = (uint64_t)v->load.seed,
        .prefix_seed = (uint64_t)(v->prefix_seed < 0 ? v->load.seed : v->prefix_seed),
    };
    if (!v->vocab_size)
        TRY(serve_bench_vocab_size(client, &options.vocab_size));
    return bench_data_random(&options, out);
}

static err_t run_load(const struct bench_serve_values *v, bool *any_failed)
{
    struct serve_bench_options options = {
        .timeout_ns = v->timeout_s > 0 ? (int64_t)(v->timeout_s * 1e9) : -1,
        .openai_url = v->openai_url,
        .model = v->model,
    };
    struct client_header_room headers;
    TRY(client_flags_options(&v->client, &headers, &options.client));
    TRY(load_flags_options(&v->load, &options.load));
    struct arrival_options *arrivals = &options.load.arrivals;
    arrivals->request_rate = v->request_rate;
    arrivals->ramp = strcmp(v->ramp, "linear") == 0        ? RAMP_LINEAR
                     : strcmp(v->ramp, "exponential") == 0 ? RAMP_EXPONENTIAL
                                                           : RAMP_NONE;
    arrivals->ramp_start = v->ramp_start;
    arrivals->ramp_end = v->ramp_end;
    options.load.ignore_eos = v->ignore_eos;
    options.load.is_unshared = strcmp(v->dataset, "random") == 0;
    struct bench_data data;
    struct load_result result = {0};
    err_t e = load_data(v, &options.client, &data);
    if (e.code == ERR_OK) {
        interrupt_watch();
        e = serve_bench_run(&options, &data, &result);
    }
    if (e.code == ERR_OK)
        e = load_flags_report(&v->load, &options.load, &result, any_failed);
    load_result_free(&result);
    bench_data_free(&data);
    return e;
}

int bench_serve(int argc, char *argv[])
{
    static struct bench_serve_values values;
    struct flag flags[BENCH_SERVE_FLAGS_MAX];
    const struct flag_command command = {
        .name = "bantam bench serve",
        .summary = "Puts a load on a running server over gRPC, or on any OpenAI-compatible one over HTTP. "
                   "TTFT: start to first token; E2E: start to "
                   "last token; TPOT = "
                   "(E2E - TTFT) / (tokens - 1); ITL: gaps between tokens, pooled. With --request-rate a "
                   "request starts, for "
                   "its figures, at its scheduled arrival, so that waiting in the client counts.",
        .flags = flags,
        .n_flags = bench_serve_flags(&values, flags),
        .examples = "  bantam bench serve --max-concurrency 8 --num-prompts 200\n"
                    "  bantam bench serve --request-rate 20 --goodput ttft:200 --goodput tpot:50 --json\n"
                    "  bantam bench serve --target models.example:50051 --ssl --api-key-file key.txt\n"
                    "  bantam bench serve --openai-url http://127.0.0.1:8080 --vocab-size 128256\n",
    };
    struct flag_result arguments;
    int status;
    if (!parse_command(&command, argc, argv, &arguments, &status))
        return status;
    bool any_failed = false;
    values.load.stop = interrupt_flag();
    err_t e = run_load(&values, &any_failed);
    if (e.code != ERR_OK)
        return report_error(command.name, &e);
    return *values.load.stop ? INTERRUPTED_STATUS : any_failed ? 1 : 0;
}
