/* bantam bench doors: what the doors cost when the model costs nothing. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "benchmarks/doors_bench.h"
#include "cli/bench_commands.h"
#include "cli/commands.h"
#include "text/text_assets.h"

enum { DOORS_INPUT_LEN_MAX = 1024, DOORS_REPORT_BYTES_MAX = 1 << 16 };

struct doors_values {
    struct flag_list doors;
    int64_t n_streams, step_us, input_len;
    double seconds;
    bool json;
};

static err_t choose_doors(const struct flag_list *names, struct doors_options *options)
{
    for (int kind = 0; kind < DOOR_KINDS; kind++)
        options->wanted[kind] = names->count == 0;
    for (size_t i = 0; i < names->count; i++) {
        int kind = 0;
        while (kind < DOOR_KINDS && strcmp(doors_kind_name(kind), names->item[i]) != 0)
            kind++;
        if (kind == DOOR_KINDS)
            return err_new(ERR_INVALID_ARGUMENT, "--door: \"%s\" is none of native, facade and http",
                           names->item[i]);
        options->wanted[kind] = true;
    }
    return err_ok();
}

static err_t run(const struct doors_values *values, const char *model)
{
    struct doors_options options = {
        .n_streams = (uint32_t)values->n_streams,
        .input_len = (uint32_t)values->input_len,
        .step_ns = values->step_us * 1000,
        .seconds = values->seconds,
        .show_progress = isatty(STDERR_FILENO) != 0,
        .end_process = _exit,
    };
    TRY(choose_doors(&values->doors, &options));
    struct text_assets text;
    TRY(text_assets_load(model, NULL, &text));
    options.text = &text;
    options.vocab_size = tokenizer_vocab_size(text.tokenizer);
    struct doors_result results[DOOR_KINDS];
    err_t e = doors_bench_run(&options, results);
    text_assets_free(&text);
    if (e.code != ERR_OK)
        return e;
    struct buffer report = {.limit_bytes = DOORS_REPORT_BYTES_MAX};
    if (!(values->json ? doors_report_json : doors_report_text)(&options, results, &report))
        e = err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the report");
    else
        (void)fwrite(report.data, 1, report.size, stdout);
    buffer_free(&report);
    return e;
}

int bench_doors(int argc, char *argv[])
{
    static struct doors_values values;
    const struct flag flags[] = {
        {.name = "door",
         .kind = FLAG_LIST,
         .target = &values.doors,
         .metavar = "native|facade|http",
         .help =
             "which doors: FlatBuffers over gRPC, protobuf over gRPC, server-sent events; may be repeated; "
             "absent: all"},
        {.name = "streams",
         .kind = FLAG_INT,
         .target = &values.n_streams,
         .default_text = "256",
         .min = 1,
         .max = DOORS_STREAMS_MAX,
         .help = "streams at once; over gRPC on one connection, over HTTP on one each"},
        {.name = "step-us",
         .kind = FLAG_INT,
         .target = &values.step_us,
         .default_text = "2000",
         .min = 100,
         .max = 1000000,
         .help = "microseconds from one step's end to the next: each stream has a token of each"},
        {.name = "input-len",
         .kind = FLAG_INT,
         .target = &values.input_len,
         .default_text = "16",
         .min = 1,
         .max = DOORS_INPUT_LEN_MAX,
         .help = "tokens of each prompt"},
        {.name = "seconds",
         .kind = FLAG_DOUBLE,
         .target = &values.seconds,
         .default_text = "5",
         .min = 0.1,
         .max = 30,
         .help = "of each measurement: the streams, and whole answers one and 32 at once"},
        {.name = "json",
         .kind = FLAG_BOOL,
         .target = &values.json,
         .default_text = "false",
         .help = "print one JSON object"},
    };
    const struct flag_command command = {
        .name = "bantam bench doors",
        .summary =
            "What each door costs: the engine over an executor that computes nothing, behind the doors of "
            "bantam serve, and a client that reads streams and asks for answers of one token; each in a "
            "process of "
            "its own. Of MODEL only the tokenizer is used. Added latency: from the end of a token's step, "
            "before "
            "the engine has published it, to its arrival at the client.",
        .positionals = "MODEL",
        .min_positionals = 1,
        .max_positionals = 1,
        .flags = flags,
        .n_flags = sizeof flags / sizeof *flags,
        .examples = "  bantam bench doors demo/model\n"
                    "  bantam bench doors demo/model --door http --streams 64 --step-us 5000 --json\n",
    };
    struct flag_result arguments;
    int status;
    if (!parse_command(&command, argc, argv, &arguments, &status))
        return status;
    err_t e = run(&values, arguments.positional[0]);
    return e.code == ERR_OK ? 0 : report_error(command.name, &e);
}
