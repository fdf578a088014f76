/* bantam bench latency: arrivals at a rate, in process. */
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/stop.h"
#include "benchmarks/latency_bench.h"
#include "cli/bench_commands.h"
#include "cli/commands.h"
#include "cli/engine_flags.h"
#include "cli/interrupt.h"
#include "cli/load_flags.h"

struct latency_values {
    struct engine_flag_values engine;
    struct load_flag_values load;
    struct flag_list request_rate;
    int64_t input_len, output_len, prefix_len, num_prefixes, num_warmups;
    double duration_s;
};

enum { LATENCY_FLAGS_MAX = ENGINE_FLAGS_MAX + LOAD_FLAGS_MAX + 8 };

static size_t latency_flags(struct latency_values *v, struct flag *flags)
{
    const struct flag rows[] = {
        {.name = "request-rate",
         .kind = FLAG_LIST,
         .target = &v->request_rate,
         .metavar = "R",
         .help = "arrivals per second (open loop); given several times: one load after the other; absent or "
                 "inf: all at once"},
        {.name = "duration",
         .kind = FLAG_DOUBLE,
         .target = &v->duration_s,
         .default_text = "0",
         .max = 86400,
         .metavar = "SECONDS",
         .help = "of arrivals: prompts = rate * this, in place of --num-prompts"},
        {.name = "input-len",
         .kind = FLAG_INT,
         .target = &v->input_len,
         .default_text = "128",
         .min = 1,
         .max = 1 << 22,
         .help = "random tokens of a prompt, shared prefix included"},
        {.name = "output-len",
         .kind = FLAG_INT,
         .target = &v->output_len,
         .default_text = "32",
         .min = 1,
         .max = 1 << 22,
         .help = "tokens generated for each prompt"},
        {.name = "prefix-len",
         .kind = FLAG_INT,
         .target = &v->prefix_len,
         .default_text = "0",
         .max = 1 << 22,
         .help = "leading tokens shared within a group"},
        {.name = "num-prefixes",
         .kind = FLAG_INT,
         .target = &v->num_prefixes,
         .default_text = "1",
         .min = 1,
         .max = 1 << 20,
         .help = "groups"},
        {.name = "num-warmups",
         .kind = FLAG_INT,
         .target = &v->num_warmups,
         .default_text = "0",
         .max = 1 << 20,
         .help = "requests before each load that are not part of its figures"},
    };
    size_t n = sizeof rows / sizeof *rows;
    memcpy(flags, rows, sizeof rows);
    n += load_flags_fill(&v->load, flags + n);
    return n + engine_flags_fill(&v->engine, flags + n);
}

static err_t parse_rate(const char *text, double *rate)
{
    *rate = 0;
    if (strcmp(text, "inf") == 0)
        return err_ok();
    char *end;
    *rate = strtod(text, &end);
    if (end == text || *end || !(*rate > 0) || *rate > 1e6)
        return err_new(ERR_INVALID_ARGUMENT, "--request-rate: \"%s\" is neither a number above 0 nor inf",
                       text);
    return err_ok();
}

static size_t n_prompts(const struct latency_values *v, double rate)
{
    double n = v->duration_s > 0 && rate > 0 ? rate * v->duration_s : (double)v->load.num_prompts;
    return n < 1 ? 1 : (size_t)n;
}

/* Load number `index` of the series: other prompts and arrivals each time, or the prefix cache would know
 * them. */
static err_t run_load(const struct latency_values *v, struct engine *engine, double rate, size_t index,
                      int64_t start_to_ready_ns, bool *any_failed)
{
    const struct random_data_options random = {
        .num_prompts = (size_t)v->num_warmups + n_prompts(v, rate),
        .input_len = (uint32_t)v->input_len,
        .output_len = (uint32_t)v->output_len,
        .vocab_size = engine_service(engine)->vtable->model_info(engine_service(engine))->vocab_size,
        .prefix_len = (uint32_t)v->prefix_len,
        .num_prefixes = (uint32_t)v->num_prefixes,
        .seed = (uint64_t)v->load.seed + index,
        .prefix_seed = (uint64_t)v->load.seed + index,
    };
    struct load_options options;
    TRY(load_flags_options(&v->load, &options));
    options.arrivals.request_rate = rate;
    options.arrivals.seed = random.seed;
    options.ignore_eos = true;
    struct bench_data data;
    struct load_result result = {0};
    err_t e = bench_data_random(&random, &data);
    if (e.code == ERR_OK)
        e = latency_bench_run(engine, &options, &data, (size_t)v->num_warmups, &result);
    result.start_to_ready_ns = start_to_ready_ns;
    if (e.code == ERR_OK)
        e = load_flags_report(&v->load, &options, &result, any_failed);
    load_result_free(&result);
    bench_data_free(&data);
    return e;
}

static err_t run_series(const struct latency_values *v, const char *directory, bool *any_failed)
{
    double rates[FLAG_LIST_MAX] = {0};
    for (size_t i = 0; i < v->request_rate.count; i++)
        TRY(parse_rate(v->request_rate.item[i], &rates[i]));
    size_t n = v->request_rate.count ? v->request_rate.count : 1;
    struct engine_options options = engine_flags_options(&v->engine, directory);
    options.skip_tokenizer_init = true; /* ids in, ids out */
    /* An overload shows as time in the queue, not as refusals. */
    for (size_t i = 0; i < n; i++)
        if (options.max_waiting < n_prompts(v, rates[i]))
            options.max_waiting = (uint32_t)n_prompts(v, rates[i]);
    int64_t started_ns = clock_now_ns(clock_monotonic());
    struct engine *engine = NULL;
    TRY(engine_open(&options, v->load.json ? NULL : print_memory_plan, &engine));
    int64_t start_to_ready_ns = clock_now_ns(clock_monotonic()) - started_ns;
    interrupt_watch();
    err_t e = err_ok();
    for (size_t i = 0; i < n && e.code == ERR_OK && (i == 0 || !stop_is_wished(v->load.stop)); i++)
        e = run_load(v, engine, rates[i], i, start_to_ready_ns, any_failed);
    engine_close(engine);
    return e;
}

int bench_latency(int argc, char *argv[])
{
    static struct latency_values values;
    struct flag flags[LATENCY_FLAGS_MAX];
    const struct flag_command command = {
        .name = "bantam bench latency",
        .summary =
            "Arrivals at a rate, in process: what bench serve does, without a network. Random token ids, "
            "EOS ignored. A request is timed from its scheduled start. TTFT: start to first token; E2E: "
            "start to last token; TPOT = (E2E - TTFT) / (tokens - 1); ITL: gaps between tokens, pooled.",
        .positionals = "MODEL",
        .min_positionals = 1,
        .max_positionals = 1,
        .flags = flags,
        .n_flags = latency_flags(&values, flags),
        .examples =
            "  bantam bench latency demo/model --request-rate 20 --num-prompts 200\n"
            "  bantam bench latency DIR --load-format dummy --skip-tokenizer-init --input-len 800 \\\n"
            "      --output-len 200 --prefix-len 600 --request-rate 20 --request-rate 40 --json\n",
    };
    struct flag_result arguments;
    int status;
    if (!parse_command(&command, argc, argv, &arguments, &status))
        return status;
    bool any_failed = false;
    values.load.stop = interrupt_flag();
    err_t e = run_series(&values, arguments.positional[0], &any_failed);
    if (e.code != ERR_OK)
        return report_error(command.name, &e);
    return *values.load.stop ? INTERRUPTED_STATUS : any_failed ? 1 : 0;
}
