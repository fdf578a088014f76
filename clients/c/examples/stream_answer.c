/* A whole client of a Bantam server: streams an answer to standard output.
 *
 *   stream_answer [--target HOST:PORT] [--ca FILE] [--cert FILE --key FILE] [--server-name NAME]
 *                 [--api-key-file FILE] [--timeout SECONDS] [--max-tokens N] [--chat] PROMPT
 *
 * The key may also be in BANTAM_API_KEY: as an argument every user of the machine could read it. Built alone,
 * against an installed library:
 *
 *   cc stream_answer.c $(pkg-config --cflags --libs bantam-client) -o stream_answer */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "clients/c/bantam_client.h"

struct arguments {
    struct bantam_client_options client;
    const char *prompt;
    double timeout_s; /* 0 = none */
    uint32_t max_tokens;
    bool chat;
};

/* What the answer came to. */
struct answer {
    bool done;
    err_t error;
    uint32_t prompt_tokens, completion_tokens;
    char reason[16], model[128], fingerprint[32];
    uint32_t attempts;
};

static const char *value_of(int argc, char **argv, int *at)
{
    if (*at + 1 >= argc) {
        (void)fprintf(stderr, "stream_answer: %s needs a value\n", argv[*at]);
        return NULL;
    }
    return argv[++*at];
}

/* The flags with a value; false for anything else. */
static bool set_flag(struct arguments *out, const char *name, const char *value)
{
    struct {
        const char *name, **target;
    } texts[] = {
        {"--target", &out->client.target},           {"--ca", &out->client.ca_file},
        {"--cert", &out->client.cert_file},          {"--key", &out->client.key_file},
        {"--server-name", &out->client.server_name}, {"--api-key-file", &out->client.api_key_file},
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (strcmp(name, texts[i].name) == 0) {
            *texts[i].target = value;
            return true;
        }
    if (strcmp(name, "--timeout") == 0)
        out->timeout_s = strtod(value, NULL);
    else if (strcmp(name, "--max-tokens") == 0)
        out->max_tokens = (uint32_t)strtoul(value, NULL, 10);
    else
        return false;
    return true;
}

static bool parse(int argc, char **argv, struct arguments *out)
{
    *out = (struct arguments){.client = bantam_client_options_default(), .max_tokens = 64};
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        if (strcmp(name, "--chat") == 0) {
            out->chat = true;
        } else if (strncmp(name, "--", 2) != 0) {
            out->prompt = name;
        } else {
            const char *value = value_of(argc, argv, &i);
            if (!value || !set_flag(out, name, value))
                return false;
        }
    }
    if (!out->client.api_key_file)
        out->client.api_key = getenv("BANTAM_API_KEY");
    return out->prompt != NULL;
}

/* Tokens and text since the last event; with EVENT_FINISHED the rest, and how it ended. */
static bool on_event(void *context, const struct event *event)
{
    struct answer *answer = context;
    (void)fwrite(event->text, 1, event->text_bytes, stdout);
    (void)fflush(stdout);
    if (event->kind == EVENT_FINISHED) {
        static const char *const reasons[] = {"", "stop", "length", "abort", "error"};
        (void)snprintf(answer->reason, sizeof answer->reason, "%s", reasons[event->finish_reason]);
        answer->prompt_tokens = event->usage.prompt_tokens;
        answer->completion_tokens = event->usage.completion_tokens;
    }
    return true; /* false would stop reading until bantam_call_resume */
}

static void on_done(void *context, const struct bantam_outcome *outcome)
{
    struct answer *answer = context;
    answer->done = true;
    answer->error = outcome->error;
    answer->attempts = outcome->attempts;
    (void)snprintf(answer->model, sizeof answer->model, "%s", outcome->model);
    (void)snprintf(answer->fingerprint, sizeof answer->fingerprint, "%s", outcome->fingerprint);
}

static err_t ask(struct bantam_client *client, const struct arguments *arguments, struct answer *answer)
{
    static const struct bantam_handler handler = {.on_event = on_event, .on_done = on_done};
    struct chat_message message = {"user", arguments->prompt, strlen(arguments->prompt)};
    struct request request = {
        .prompt_kind = arguments->chat ? PROMPT_MESSAGES : PROMPT_TEXT,
        .text = arguments->prompt,
        .text_bytes = strlen(arguments->prompt),
        .messages = &message,
        .n_messages = 1,
        .sampling = {.set = SAMPLING_MAX_TOKENS | SAMPLING_TEMPERATURE,
                     .max_tokens = arguments->max_tokens,
                     .temperature = 0},
    };
    struct bantam_query query = {.method = BANTAM_GENERATE, .request = &request};
    struct bantam_call_options options = {.timeout_ns = BANTAM_NO_TIMEOUT};
    if (arguments->timeout_s > 0)
        options.timeout_ns = (int64_t)(arguments->timeout_s * 1e9);
    err_t e = bantam_client_start(client, &query, &options, &handler, answer, NULL);
    while (e.code == ERR_OK && !answer->done)
        (void)bantam_client_poll(client, -1);
    return e.code == ERR_OK ? answer->error : e;
}

int main(int argc, char **argv)
{
    struct arguments arguments;
    struct answer answer = {.done = false};
    struct bantam_client *client;
    if (!parse(argc, argv, &arguments)) {
        (void)fputs("usage: stream_answer [--target HOST:PORT] [--ca FILE] [--cert FILE --key FILE]\n"
                    "    [--server-name NAME] [--api-key-file FILE] [--timeout SECONDS] [--max-tokens N]\n"
                    "    [--chat] PROMPT\n",
                    stderr);
        return 2;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    err_t e = bantam_client_open(&arguments.client, &client);
    if (e.code == ERR_OK) {
        e = ask(client, &arguments, &answer);
        bantam_client_close(client);
    }
    if (e.code != ERR_OK) {
        (void)fprintf(stderr, "stream_answer: %s: %s\n", err_code_name(e.code), e.message);
        return 1;
    }
    (void)fprintf(stderr, "\n%s: %u + %u tokens of %s, fingerprint %s\n", answer.reason, answer.prompt_tokens,
                  answer.completion_tokens, answer.model, answer.fingerprint);
    return 0;
}
