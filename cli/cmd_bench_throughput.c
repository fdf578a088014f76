/* bantam bench throughput: offline, in process. */
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "benchmarks/throughput.h"
#include "cli/bench_commands.h"
#include "cli/commands.h"
#include "cli/engine_flags.h"

struct throughput_values {
    struct engine_flag_values engine;
    struct flag_list shapes;
    int64_t input_len, output_len, num_prompts, seed, shared_prefix_len;
    bool json;
};

enum { THROUGHPUT_FLAGS_MAX = ENGINE_FLAGS_MAX + 8 };

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
        {.name = "shape",
         .kind = FLAG_LIST,
         .target = &values->shapes,
         .metavar = "IN:OUT:PROMPTS",
         .help =
             "lengths and prompts of one run, in place of the three flags above; given several times: one "
             "after the other"},
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
         .help = "print one JSON object for each run"},
    };
    size_t n = sizeof rows / sizeof *rows;
    memcpy(flags, rows, sizeof rows);
    return n + engine_flags_fill(&values->engine, flags + n);
}

static double overhead_us_per_step(const struct throughput_result *r)
{
    return (double)r->loop.overhead_ns / 1e3 / (double)(r->loop.steps ? r->loop.steps : 1);
}

struct circumstances {
    uint64_t planned_bytes;
    double start_to_ready_s;
};

static void print_json(const struct throughput_options *o, const struct throughput_result *r,
                       const struct circumstances *c)
{
    (void)printf("{\"prefill_tok_s\":%.3f,\"decode_tok_s\":%.3f,\"output_tok_s\":%.3f,\"elapsed_s\":%.6f,"
                 "\"prefill_s\":%.6f,\"input_tokens\":%llu,\"output_tokens\":%llu,\"ttft_p50_ms\":%.3f,"
                 "\"ttft_p99_ms\":%.3f,\"steps\":%llu,\"loop_overhead_us_per_step\":%.3f,"
                 "\"peak_rss_bytes\":%llu,\"planned_bytes\":%llu,\"input_len\":%u,\"output_len\":%u,"
                 "\"num_prompts\":%u,\"start_to_ready_s\":%.6f}\n",
                 r->prefill_tok_s, r->decode_tok_s, r->output_tok_s, (double)r->elapsed_ns / 1e9,
                 (double)r->prefill_ns / 1e9, (unsigned long long)r->input_tokens,
                 (unsigned long long)r->output_tokens, (double)r->ttft_p50_ns / 1e6,
                 (double)r->ttft_p99_ns / 1e6, (unsigned long long)r->loop.steps, overhead_us_per_step(r),
                 (unsigned long long)r->peak_rss_bytes, (unsigned long long)c->planned_bytes, o->input_len,
                 o->output_len, o->num_prompts, c->start_to_ready_s);
}

static void print_text(const struct throughput_options *o, const struct throughput_result *r,
                       const struct circumstances *c)
{
    (void)printf("%u prompts of %u tokens, %u generated for each; ready after %.3f s\n", o->num_prompts,
                 o->input_len, o->output_len, c->start_to_ready_s);
    (void)printf("prefill   %10.1f tok/s   (%llu tokens; every prompt has its first token after %.3f s)\n",
                 r->prefill_tok_s, (unsigned long long)r->input_tokens, (double)r->prefill_ns / 1e9);
    (void)printf("decode    %10.1f tok/s   (all sequences together, after that)\n", r->decode_tok_s);
    (void)printf("output    %10.1f tok/s   (%llu tokens in %.3f s, prefill included)\n", r->output_tok_s,
                 (unsigned long long)r->output_tokens, (double)r->elapsed_ns / 1e9);
    (void)printf("TTFT      %10.1f ms p50, %.1f ms p99\n", (double)r->ttft_p50_ns / 1e6,
                 (double)r->ttft_p99_ns / 1e6);
    (void)printf("loop      %10.1f us per step besides the model, %llu steps\n", overhead_us_per_step(r),
                 (unsigned long long)r->loop.steps);
    (void)printf("memory    %10.1f MiB peak RSS, %.1f MiB planned\n", (double)r->peak_rss_bytes / 1048576.0,
                 (double)c->planned_bytes / 1048576.0);
}

static err_t parse_shape(const char *text, struct throughput_options *work)
{
    char rest[2];
    /* NOLINTNEXTLINE(cert-err34-c): what does not fit reads as another number, which submit refuses */
    int n = sscanf(text, "%9u:%9u:%9u%1s", &work->input_len, &work->output_len, &work->num_prompts, rest);
    if (n != 3 || !work->input_len || !work->output_len || !work->num_prompts)
        return err_new(ERR_INVALID_ARGUMENT, "--shape: \"%s\" is not like 1000:1000:256", text);
    return err_ok();
}

/* work[0..*n): what the flags ask for, in order. */
static err_t plan_work(const struct throughput_values *v, struct throughput_options *work, size_t *n)
{
    *n = v->shapes.count ? v->shapes.count : 1;
    for (size_t i = 0; i < *n; i++) {
        work[i] = (struct throughput_options){
            .input_len = (uint32_t)v->input_len,
            .output_len = (uint32_t)v->output_len,
            .num_prompts = (uint32_t)v->num_prompts,
            .shared_prefix_len = (uint32_t)v->shared_prefix_len,
            .seed = (uint64_t)v->seed + i, /* other prompts, or the prefix cache would know them */
        };
        if (v->shapes.count)
            TRY(parse_shape(v->shapes.item[i], &work[i]));
    }
    return err_ok();
}

static err_t run_series(const struct throughput_values *v, const char *directory)
{
    struct throughput_options work[FLAG_LIST_MAX];
    size_t n;
    TRY(plan_work(v, work, &n));
    struct engine_options options = engine_flags_options(&v->engine, directory);
    options.skip_tokenizer_init = true; /* ids in, ids out */
    for (size_t i = 0; i < n; i++)
        if (options.max_waiting < work[i].num_prompts)
            options.max_waiting = work[i].num_prompts;
    int64_t started_ns = clock_now_ns(clock_monotonic());
    struct engine *engine = NULL;
    TRY(engine_open(&options, v->json ? NULL : print_memory_plan, &engine));
    struct circumstances circumstances = {
        .planned_bytes = engine_memory_plan(engine)->total_bytes,
        .start_to_ready_s = (double)(clock_now_ns(clock_monotonic()) - started_ns) / 1e9,
    };
    err_t e = err_ok();
    for (size_t i = 0; i < n && e.code == ERR_OK; i++) {
        struct throughput_result result;
        e = throughput_run(engine, &work[i], &result);
        if (e.code == ERR_OK)
            (v->json ? print_json : print_text)(&work[i], &result, &circumstances);
        (void)fflush(stdout); /* a long series may be cut: what is measured is said */
    }
    engine_close(engine);
    return e;
}

int bench_throughput(int argc, char *argv[])
{
    static struct throughput_values values;
    struct flag flags[THROUGHPUT_FLAGS_MAX];
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
            "  bantam bench throughput demo/model --shape 128:128:64 --shape 512:32:32\n"
            "  bantam bench throughput DIR --load-format dummy --skip-tokenizer-init --quantization int4\n",
    };
    struct flag_result arguments;
    int status;
    if (!parse_command(&command, argc, argv, &arguments, &status))
        return status;
    err_t e = run_series(&values, arguments.positional[0]);
    return e.code == ERR_OK ? 0 : report_error(command.name, &e);
}
