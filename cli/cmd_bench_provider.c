/* bantam bench provider: a mock of a model provider. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include "benchmarks/mock_provider.h"
#include "benchmarks/mock_table.h"
#include "cli/bench_commands.h"
#include "cli/commands.h"
#include "server/file_budget.h"

enum { FAULT_HELP_BYTES_MAX = 4096 };

struct provider_values {
    const char *host, *answers, *fault, *log;
    int64_t port, tokens, per_minute, retry_after_s, huge_bytes, fault_every;
    double first_byte_ms, per_chunk_ms;
    bool log_bodies;
};

static err_t open_log(const char *path, FILE **out)
{
    *out = strcmp(path, "-") == 0 ? stderr : fopen(path, "ae");
    return *out ? err_ok() : err_new(ERR_IO, "--log %s: %s", path, strerror(errno));
}

static err_t serve(const struct mock_options *options)
{
    struct mock_provider *provider;
    sigset_t stops;
    sigemptyset(&stops);
    sigaddset(&stops, SIGINT);
    sigaddset(&stops, SIGTERM);
    (void)pthread_sigmask(SIG_BLOCK, &stops, NULL);
    (void)file_budget_raise(); /* every stream is a connection */
    TRY(mock_provider_open(options, &provider));
    unsigned port = mock_provider_port(provider);
    (void)printf("listening on %s:%u\nThis is a MOCK provider, its answers are made up: http://%s:%u/v1\n",
                 options->host, port, options->host, port);
    (void)fflush(stdout);
    int number;
    while (sigwait(&stops, &number) != 0) {
    }
    struct mock_counts counts;
    mock_provider_counts(provider, &counts);
    mock_provider_close(provider);
    (void)printf(
        "the mock provider was asked %llu times; %llu answers had a fault, %llu were not waited for\n",
        (unsigned long long)counts.requests, (unsigned long long)counts.faults,
        (unsigned long long)counts.cancelled);
    return err_ok();
}

static err_t run(const struct provider_values *values)
{
    struct mock_options options = mock_options_default();
    struct mock_table *table = NULL;
    options.host = values->host;
    options.port = (uint16_t)values->port;
    options.n_tokens = (uint32_t)values->tokens;
    options.first_byte_ns = (int64_t)(values->first_byte_ms * 1e6);
    options.per_chunk_ns = (int64_t)(values->per_chunk_ms * 1e6);
    options.requests_per_minute = (uint32_t)values->per_minute;
    options.retry_after_s = (uint32_t)values->retry_after_s;
    options.huge_bytes = (size_t)values->huge_bytes;
    options.fault_every = (uint32_t)values->fault_every;
    options.log_bodies = values->log_bodies;
    if (values->fault)
        TRY(mock_fault_parse(values->fault, strlen(values->fault), &options.fault));
    if (values->log)
        TRY(open_log(values->log, &options.log));
    if (values->answers)
        TRY(mock_table_read(values->answers, &table));
    options.table = table;
    err_t e = serve(&options);
    mock_table_free(table);
    if (options.log && options.log != stderr)
        (void)fclose(options.log);
    return e;
}

/* Every fault, a line each. */
static const char *fault_lines(void)
{
    static char text[FAULT_HELP_BYTES_MAX];
    size_t at =
        (size_t)snprintf(text, sizeof text, "%s",
                         "  bantam bench provider --port 9000 --first-byte-ms 200 --per-chunk-ms 20\n"
                         "  bantam bench provider --fault reset-mid --fault-every 10\n\n"
                         "Faults, for --fault, the header x-mock-fault, or \"mock:NAME\" in a prompt:\n");
    const char *what, *name;
    for (size_t i = 0; (name = mock_fault_name(i, &what)) != NULL && at < sizeof text; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "  %-14s %s\n", name, what);
    return text;
}

int bench_provider(int argc, char *argv[])
{
    static struct provider_values values;
    const struct flag flags[] = {
        {.name = "host",
         .kind = FLAG_STRING,
         .target = &values.host,
         .default_text = "127.0.0.1",
         .help = "the address to listen on"},
        {.name = "port",
         .kind = FLAG_INT,
         .target = &values.port,
         .default_text = "0",
         .max = 65535,
         .help = "the port; 0 = any free one, which is printed"},
        {.name = "answers",
         .kind = FLAG_STRING,
         .target = &values.answers,
         .metavar = "FILE",
         .help =
             "lines of {\"prompt\": \"...\", \"answer\": \"...\"}: what is said to whom; other prompts are "
             "repeated"},
        {.name = "tokens",
         .kind = FLAG_INT,
         .target = &values.tokens,
         .default_text = "0",
         .max = 1 << 20,
         .help = "answer with so many made-up tokens instead of the prompt"},
        {.name = "first-byte-ms",
         .kind = FLAG_DOUBLE,
         .target = &values.first_byte_ms,
         .default_text = "0",
         .max = 600000,
         .help = "milliseconds before an answer begins"},
        {.name = "per-chunk-ms",
         .kind = FLAG_DOUBLE,
         .target = &values.per_chunk_ms,
         .default_text = "0",
         .max = 600000,
         .help = "milliseconds between two pieces of a stream"},
        {.name = "requests-per-minute",
         .kind = FLAG_INT,
         .target = &values.per_minute,
         .default_text = "0",
         .max = 1e8,
         .help = "more are answered with 429; 0 = any number"},
        {.name = "retry-after-s",
         .kind = FLAG_INT,
         .target = &values.retry_after_s,
         .default_text = "1",
         .max = 86400,
         .help = "seconds, with 429, 503 and 529"},
        {.name = "fault",
         .kind = FLAG_STRING,
         .target = &values.fault,
         .metavar = "NAMES",
         .help = "what is wrong with every answer; several are joined by commas, the list is below"},
        {.name = "fault-every",
         .kind = FLAG_INT,
         .target = &values.fault_every,
         .default_text = "1",
         .min = 1,
         .max = 1e9,
         .help = "only with each so-manieth answer"},
        {.name = "huge-bytes",
         .kind = FLAG_INT,
         .target = &values.huge_bytes,
         .default_text = "100m",
         .min = 1,
         .max = 4e9,
         .help = "length of the line of the fault huge-line"},
        {.name = "log",
         .kind = FLAG_STRING,
         .target = &values.log,
         .metavar = "FILE",
         .help = "append each request and how it ended, as lines of JSON; - = standard error"},
        {.name = "log-bodies",
         .kind = FLAG_BOOL,
         .target = &values.log_bodies,
         .default_text = "false",
         .help = "with what was asked"},
    };
    const struct flag_command command = {
        .name = "bantam bench provider",
        .summary =
            "A MOCK of a model provider, for tests, benchmarks and demonstrations: it speaks OpenAI's chat "
            "completions and Anthropic's messages, makes its answers up, and has every fault that real ones "
            "have. Its models are called mock-..., and each answer says x-bantam-mock. Tools that are "
            "offered "
            "are called when tool_choice asks for it, or the prompt names one; a JSON schema is answered "
            "with "
            "the least value that it takes. Prompts may hold orders: mock:tokens=100, mock:first-byte-ms=50, "
            "mock:per-chunk-ms=5, mock:tool, mock:tools, and any fault. GET /mock/state counts what was "
            "heard; "
            "POST /mock/fault?name=503&count=2 sets the fault of the next answers.",
        .flags = flags,
        .n_flags = sizeof flags / sizeof *flags,
        .examples = fault_lines(),
    };
    struct flag_result arguments;
    int status;
    if (!parse_command(&command, argc, argv, &arguments, &status))
        return status;
    err_t e = run(&values);
    return e.code == ERR_OK ? 0 : report_error(command.name, &e);
}
