#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include "base/log.h"
#include "cli/commands.h"

static const struct {
    const char *name, *summary;
    int (*run)(int argc, char *argv[]);
} COMMANDS[] = {
#ifdef BANTAM_SERVER
    {"serve", "serve a model over gRPC and HTTP", command_serve},
    {"route", "route requests between local engines and providers", command_route},
    {"eval", "how good models and routers are on a file of cases", command_eval},
    {"replay", "recorded requests through another model or policy", command_replay},
    {"mcp", "a router's tools for agents, over standard input and output", command_mcp},
    {"keys", "make keys for clients of a server", command_keys},
    {"cost", "what a router's calls have cost", command_cost},
    {"forget", "delete what a router has kept of a tenant's requests", command_forget},
#endif
    {"run", "answer prompts from the command line or a file", command_run},
    {"chat", "talk to a model in the terminal", command_chat},
    {"tokenize", "text to token ids and back", command_tokenize},
    {"quantize", "pack a model once, for starts that only map it", command_quantize},
    {"bench", "measure throughput and latency", command_bench},
};
enum { N_COMMANDS = sizeof COMMANDS / sizeof *COMMANDS };

int report_error(const char *what, const err_t *error)
{
    (void)fprintf(stderr, "%s: %s\n", what, error->message);
    return error->code == ERR_INVALID_ARGUMENT ? 2 : 1;
}

bool parse_command(const struct flag_command *command, int argc, char *argv[], struct flag_result *out,
                   int *status)
{
    err_t e = flags_parse(command, argc, argv, out);
    if (e.code != ERR_OK) {
        *status = report_error(command->name, &e);
        (void)fprintf(stderr, "Try \"%s --help\".\n", command->name);
        return false;
    }
    *status = 0;
    return !out->help;
}

static void usage(FILE *to)
{
    (void)fputs("bantam: a serving engine for small language models\n\nUsage: bantam COMMAND "
                "[ARGUMENTS]\n\nCommands:\n",
                to);
    for (int i = 0; i < N_COMMANDS; i++)
        (void)fprintf(to, "  %-10s %s\n", COMMANDS[i].name, COMMANDS[i].summary);
    (void)fputs("\n\"bantam help COMMAND\" tells more about each. Every flag can also be given as an "
                "environment variable:\n"
                "--max-model-len as BANTAM_MAX_MODEL_LEN.\n",
                to);
}

static bool is_one_of(const char *word, const char *first, const char *second, const char *third)
{
    return strcmp(word, first) == 0 || strcmp(word, second) == 0 || strcmp(word, third) == 0;
}

/* argv[0]: the command's name. */
static int run_named(int argc, char *argv[])
{
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(argv[0], COMMANDS[i].name) == 0)
            return COMMANDS[i].run(argc - 1, argv + 1);
    (void)fprintf(stderr, "bantam: there is no command \"%s\"\nTry \"bantam help\".\n", argv[0]);
    return 2;
}

/* "help serve" is "serve --help", "help bench latency" "bench latency --help". */
static int help(int argc, char *argv[])
{
    enum { WORDS_MAX = 2 };
    static char flag[] = "--help";
    char *words[WORDS_MAX + 1];
    int n = 0;
    for (; n < argc && n < WORDS_MAX && argv[n][0] != '-'; n++)
        words[n] = argv[n];
    if (n == 0) {
        usage(stdout);
        return 0;
    }
    words[n] = flag;
    return run_named(n + 1, words);
}

static int run_command(int argc, char *argv[])
{
    if (argc < 2) {
        usage(stderr);
        return 2;
    }
    if (is_one_of(argv[1], "help", "--help", "-h"))
        return help(argc - 2, argv + 2);
    if (is_one_of(argv[1], "version", "--version", "-v")) {
        (void)puts("bantam " BANTAM_VERSION);
        return 0;
    }
    return run_named(argc - 1, argv + 1);
}

/* A full disk or a closed pipe: what was printed is not all there is, and the status must say so. */
static int check_output(int status)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    (void)fprintf(stderr, "bantam: cannot write to standard output%s%s\n", errno ? ": " : "",
                  errno ? strerror(errno) : "");
    return status ? status : 1;
}

int main(int argc, char *argv[])
{
    /* A closed pipe is an error of one write, not the end of the program. */
    (void)signal(SIGPIPE, SIG_IGN);
    log_init(LOG_INFO, LOG_FORMAT_AUTO);
    return check_output(run_command(argc, argv));
}
