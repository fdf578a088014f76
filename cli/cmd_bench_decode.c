/* bantam bench decode: a full batch that decodes at a context, in process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "benchmarks/decode_bench.h"
#include "cli/bench_commands.h"
#include "cli/commands.h"
#include "cli/engine_flags.h"

struct decode_values {
    struct engine_flag_values engine;
    struct flag_list batch;
    int64_t context, steps, shared_prefix_len, seed;
    bool json;
};

enum { DECODE_FLAGS_MAX = ENGINE_FLAGS_MAX + 6, BATCH_MAX = 4096 };

static size_t decode_flags(struct decode_values *v, struct flag *flags)
{
    const struct flag rows[] = {
        {.name = "batch",
         .kind = FLAG_LIST,
         .target = &v->batch,
         .metavar = "N",
         .help = "sequences that decode together; given several times: one after the other; absent: 1"},
        {.name = "context",
         .kind = FLAG_INT,
         .target = &v->context,
         .default_text = "900",
         .min = 1,
         .max = 1 << 22,
         .help = "tokens of each sequence, in the middle of what is measured"},
        {.name = "steps",
         .kind = FLAG_INT,
         .target = &v->steps,
         .default_text = "64",
         .min = 1,
         .max = 1 << 20,
         .help = "decode steps measured"},
        {.name = "shared-prefix-len",
         .kind = FLAG_INT,
         .target = &v->shared_prefix_len,
         .default_text = "0",
         .max = 1 << 22,
         .help = "leading tokens that all prompts have in common, in the prefix cache before the batch "
                 "comes"},
        {.name = "seed",
         .kind = FLAG_INT,
         .target = &v->seed,
         .default_text = "0",
         .max = 9e15,
         .help = "seed of the random prompts"},
        {.name = "json",
         .kind = FLAG_BOOL,
         .target = &v->json,
         .default_text = "false",
         .help = "print a JSON object a line"},
    };
    size_t n = sizeof rows / sizeof *rows;
    memcpy(flags, rows, sizeof rows);
    return n + engine_flags_fill(&v->engine, flags + n);
}

static void print_decode(const struct decode_options *o, const struct decode_result *r,
                         double start_to_ready_s, bool json)
{
    if (json)
        (void)printf("{\"batch\":%u,\"context\":%u,\"mean_context\":%.1f,\"decode_tok_s\":%.3f,"
                     "\"ms_per_step\":%.6f,\"tokens\":%llu,\"elapsed_s\":%.6f,\"preemptions\":%llu,"
                     "\"start_to_ready_s\":%.6f}\n",
                     o->batch, o->context, r->mean_context, r->tok_s, r->ms_per_step,
                     (unsigned long long)r->tokens, (double)r->elapsed_ns / 1e9,
                     (unsigned long long)r->preemptions, start_to_ready_s);
    else
        (void)printf("batch %5u   %10.1f tok/s   %8.3f ms per step   (context %.0f, %llu tokens%s)\n",
                     o->batch, r->tok_s, r->ms_per_step, r->mean_context, (unsigned long long)r->tokens,
                     r->preemptions ? "; some were preempted: the batch was not full" : "");
    (void)fflush(stdout); /* a long series may be cut: what is measured is said */
}

static err_t parse_batch(const char *text, uint32_t *batch)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (end == text || *end || value < 1 || value > BATCH_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "--batch: \"%s\" is not a number from 1 to %d", text, BATCH_MAX);
    *batch = (uint32_t)value;
    return err_ok();
}

static err_t run_series(const struct decode_values *v, const char *directory)
{
    uint32_t batches[FLAG_LIST_MAX] = {1};
    for (size_t i = 0; i < v->batch.count; i++)
        TRY(parse_batch(v->batch.item[i], &batches[i]));
    size_t n = v->batch.count ? v->batch.count : 1;
    struct engine_options options = engine_flags_options(&v->engine, directory);
    options.skip_tokenizer_init = true; /* ids in, ids out */
    for (size_t i = 0; i < n; i++)
        if (options.model.max_num_seqs < batches[i])
            options.model.max_num_seqs = batches[i];
    if (options.max_waiting < options.model.max_num_seqs)
        options.max_waiting = options.model.max_num_seqs;
    int64_t started_ns = clock_now_ns(clock_monotonic());
    struct engine *engine = NULL;
    TRY(engine_open(&options, v->json ? NULL : print_memory_plan, &engine));
    double start_to_ready_s = (double)(clock_now_ns(clock_monotonic()) - started_ns) / 1e9;
    err_t e = err_ok();
    for (size_t i = 0; i < n && e.code == ERR_OK; i++) {
        struct decode_options work = {
            .batch = batches[i],
            .context = (uint32_t)v->context,
            .n_steps = (uint32_t)v->steps,
            .shared_prefix_len = (uint32_t)v->shared_prefix_len,
            .step_tokens = options.model.max_num_batched_tokens,
            .seed = (uint64_t)v->seed + i, /* other prompts, or the prefix cache would know them */
        };
        struct decode_result result;
        e = decode_bench_run(engine_service(engine), &work, &result);
        if (e.code == ERR_OK)
            print_decode(&work, &result, start_to_ready_s, v->json);
    }
    engine_close(engine);
    return e;
}

int bench_decode(int argc, char *argv[])
{
    static struct decode_values values;
    struct flag flags[DECODE_FLAGS_MAX];
    const struct flag_command command = {
        .name = "bantam bench decode",
        .summary =
            "Decode alone, in process: tokens per second of a batch that stays full, at a context, from a "
            "few steps after the last sequence's first token. Random token ids, greedy, EOS ignored.",
        .positionals = "MODEL",
        .min_positionals = 1,
        .max_positionals = 1,
        .flags = flags,
        .n_flags = decode_flags(&values, flags),
        .examples =
            "  bantam bench decode demo/model --batch 1 --batch 8 --context 200\n"
            "  bantam bench decode DIR --load-format dummy --skip-tokenizer-init --quantization int4\n",
    };
    struct flag_result arguments;
    int status;
    if (!parse_command(&command, argc, argv, &arguments, &status))
        return status;
    err_t e = run_series(&values, arguments.positional[0]);
    return e.code == ERR_OK ? 0 : report_error(command.name, &e);
}
