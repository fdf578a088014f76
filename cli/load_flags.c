#include "cli/load_flags.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/assert.h"

enum { REPORT_BYTES_MAX = 1 << 28 };

size_t load_flags_fill(struct load_flag_values *v, struct flag *flags)
{
    const struct flag rows[] = {
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
        {.name = "burstiness",
         .kind = FLAG_DOUBLE,
         .target = &v->burstiness,
         .default_text = "1",
         .min = 0.01,
         .max = 1000,
         .help = "shape of the gamma distribution of gaps; 1 = Poisson, less = burstier"},
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
        {.name = "goodput",
         .kind = FLAG_LIST,
         .target = &v->goodput,
         .metavar = "METRIC:MS",
         .help = "a goal such as ttft:200, tpot:50 or e2el:1000; a request that meets all of them is good"},
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
    size_t n = sizeof rows / sizeof *rows;
    ASSERT(n <= LOAD_FLAGS_MAX);
    memcpy(flags, rows, sizeof rows);
    return n;
}

static err_t parse_goodput(const struct flag_list *goals, struct load_options *options)
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

err_t load_flags_options(const struct load_flag_values *v, struct load_options *options)
{
    *options = (struct load_options){
        .arrivals = {.burstiness = v->burstiness, .seed = (uint64_t)v->seed},
        .max_concurrency = (uint32_t)v->max_concurrency,
        .temperature = v->temperature,
        .show_progress = isatty(STDERR_FILENO) != 0,
        .stop = v->stop,
    };
    return parse_goodput(&v->goodput, options);
}

err_t load_flags_report(const struct load_flag_values *v, const struct load_options *options,
                        struct load_result *result, bool *any_failed)
{
    struct buffer report = {.limit_bytes = REPORT_BYTES_MAX};
    bool ok = v->json ? load_report_json(options, result, v->detailed, &report)
                      : load_report_text(options, result, &report);
    if (ok)
        (void)fwrite(report.data, 1, report.size, stdout);
    (void)fflush(stdout); /* a long series may be cut: what is measured is said */
    buffer_free(&report);
    for (size_t i = 0; i < result->n; i++)
        *any_failed |= result->requests[i].error != NULL;
    return ok ? err_ok() : err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the report");
}
