/* bantam replay: recorded traffic through another model or policy. */
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/mapped_file.h"
#include "cli/commands.h"
#include "cli/eval_flags.h"
#include "router/gate/eval_cases.h"
#include "router/gate/replay_run.h"

enum { REPLAY_OWN_FLAGS = 8 };

struct replay_values {
    struct eval_flag_values shared;
    const char *json;
    int64_t last;
    double temperature;
    bool decisions;
};

static size_t replay_command_flags(struct replay_values *v, struct flag *flags)
{
    const struct flag rows[] = {
        {.name = "last",
         .kind = FLAG_INT,
         .target = &v->last,
         .default_text = "0",
         .help = "only so many of the last requests; 0 = all"},
        {.name = "temperature",
         .kind = FLAG_DOUBLE,
         .target = &v->temperature,
         .default_text = "0",
         .min = -1,
         .max = 2,
         .help = "of requests that do not say; -1 = the model's"},
        {.name = "decisions",
         .kind = FLAG_BOOL,
         .target = &v->decisions,
         .default_text = "false",
         .help = "ask nobody: hold the decisions of --policy against those in our decision log; exit status "
                 "1 where they differ"},
        {.name = "json",
         .kind = FLAG_STRING,
         .target = &v->json,
         .metavar = "FILE",
         .help = "write the figures as JSON"},
        {.name = NULL, .help = "Models"},
    };
    size_t n = sizeof rows / sizeof *rows;
    _Static_assert(sizeof rows / sizeof *rows <= REPLAY_OWN_FLAGS, "the command's table has room for them");
    memcpy(flags, rows, sizeof rows);
    return n + eval_flags_fill(&v->shared, flags + n);
}

static err_t compare_decisions(const struct replay_values *v, const char *path, bool *differ)
{
    char *text;
    size_t bytes;
    struct replay_decisions sums;
    struct buffer lines = {.limit_bytes = 1 << 20};
    if (v->shared.config == NULL)
        return err_new(ERR_INVALID_ARGUMENT, "--decisions needs --policy CONFIG");
    TRY(file_read(path, EVAL_FILE_BYTES_MAX, &text, &bytes));
    err_t e = replay_decisions(text, bytes, v->shared.config->policy, &lines, &sums);
    mem_free(text);
    if (e.code == ERR_OK && sums.n_same + sums.n_different + sums.n_later == 0)
        e = err_new(ERR_INVALID_ARGUMENT,
                    "%s has no decision with its input: it is no decision log of ours, or an old one", path);
    if (e.code == ERR_OK) {
        (void)printf("%s%zu decisions are the same, %zu differ, %zu were made by what comes after the "
                     "policy; %zu lines have no "
                     "input, %zu are none\n",
                     lines.data ? lines.data : "", sums.n_same, sums.n_different, sums.n_later,
                     sums.n_without, sums.n_bad);
        *differ = sums.n_different > 0;
    }
    buffer_free(&lines);
    return e;
}

/* The model that is asked: the one told, or the first of the policy's first tier. */
static err_t open_model(const struct replay_values *v, char name[EVAL_NAME_BYTES_MAX + 1],
                        struct eval_endpoint **out)
{
    const struct flag_list *models = &v->shared.models;
    char text[2 * EVAL_NAME_BYTES_MAX + 16];
    if (models->count > 1 || (models->count == 0 && v->shared.config == NULL))
        return err_new(ERR_INVALID_ARGUMENT, "there must be one --model NAME=TARGET, or --policy CONFIG");
    const char *told = models->count ? models->item[0] : text;
    if (models->count == 0) {
        size_t n;
        const char *first = policy_tiers(v->shared.config->policy, &n)[0].models[0];
        (void)snprintf(text, sizeof text, "%.63s=config:%.63s", first, first);
    }
    TRY(eval_flags_open(&v->shared, "model", told, name, out));
    return *out ? err_ok()
                : err_new(ERR_INVALID_ARGUMENT,
                          "recorded answers are what is compared with: name another model");
}

static err_t report(const struct replay_values *v, const struct replay_log *log,
                    const struct replay_options *options, const struct replay_result *result)
{
    struct buffer table = {.limit_bytes = 1 << 24}, json = {.limit_bytes = 1 << 24};
    err_t e = replay_table(log, options, result, &table);
    if (e.code == ERR_OK)
        (void)fputs(table.data, stdout);
    if (e.code == ERR_OK && v->json != NULL)
        e = replay_json(log, options, result, &json);
    if (e.code == ERR_OK && v->json != NULL)
        e = eval_flags_write(v->json, &json);
    buffer_free(&table);
    buffer_free(&json);
    return e;
}

static err_t replay(const struct replay_values *v, const char *path)
{
    char name[EVAL_NAME_BYTES_MAX + 1] = "", judge[EVAL_NAME_BYTES_MAX + 1];
    struct replay_options options = {.name = name,
                                     .config = v->shared.config,
                                     .concurrency = (uint32_t)v->shared.concurrency,
                                     .shows_progress = v->shared.progress,
                                     .margin = v->shared.margin,
                                     .temperature = v->temperature};
    struct replay_log log;
    static struct replay_result result;
    TRY(replay_log_read(path, &log));
    err_t e = err_ok();
    if (v->last > 0)
        replay_log_keep_last(&log, (size_t)v->last);
    if (log.n == 0)
        e = err_new(ERR_INVALID_ARGUMENT,
                    "%s: no line has a request with its answer (%zu have no content, %zu are none%s%s)", path,
                    log.n_without_content, log.n_bad, log.n_bad ? "; the first: " : "",
                    log.n_bad ? log.why_bad.message : "");
    if (e.code == ERR_OK)
        e = open_model(v, name, &options.model);
    if (e.code == ERR_OK && v->shared.judge != NULL)
        e = eval_flags_open(&v->shared, "judge", v->shared.judge, judge, &options.judge);
    if (e.code == ERR_OK)
        e = replay_run(&log, &options, &result);
    if (e.code == ERR_OK)
        e = report(v, &log, &options, &result);
    replay_result_free(&result);
    eval_endpoint_close(options.model);
    eval_endpoint_close(options.judge);
    replay_log_free(&log);
    return e;
}

int command_replay(int argc, char *argv[])
{
    static struct replay_values values;
    struct flag flags[REPLAY_OWN_FLAGS + EVAL_FLAGS_MAX];
    const struct flag_command command = {
        .name = "bantam replay",
        .summary = "Puts recorded requests to another model and tells how far its answers agree with the "
                   "recorded ones, group "
                   "by group of similar requests, and what they cost. LOG is a decision log of `bantam "
                   "route` with content, or "
                   "JSON lines as OpenAI's ({request, response}, {messages}) and LiteLLM's logs have them. "
                   "With --policy only "
                   "what its rules keep at the first tier is asked. \"move\": at least 1 - margin of a group "
                   "agree, and not by "
                   "chance; \"keep\": fewer do; \"look\": there are too few to tell.",
        .positionals = "LOG",
        .min_positionals = 1,
        .max_positionals = 1,
        .flags = flags,
        .n_flags = replay_command_flags(&values, flags),
        .examples = "  bantam replay decisions.jsonl --last 1000 --model small=127.0.0.1:50051\n"
                    "  bantam replay litellm.jsonl --model small=127.0.0.1:50051 \\\n"
                    "      --judge big=https://api.openai.com/v1#gpt-5 \\\n"
                    "      --key-env big=OPENAI_API_KEY\n"
                    "  bantam replay decisions.jsonl --policy new.yaml --decisions\n",
    };
    struct flag_result arguments;
    int status;
    if (!parse_command(&command, argc, argv, &arguments, &status))
        return status;
    bool differ = false;
    err_t e = eval_flags_read_config(&values.shared);
    if (e.code == ERR_OK)
        e = values.decisions ? compare_decisions(&values, arguments.positional[0], &differ)
                             : replay(&values, arguments.positional[0]);
    eval_flags_free(&values.shared);
    if (e.code != ERR_OK)
        return report_error(command.name, &e);
    return differ ? 1 : 0;
}
