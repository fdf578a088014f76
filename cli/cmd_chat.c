/* bantam chat: a conversation in the terminal, through the model's own template. */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/event_count.h"
#include "cli/answer.h"
#include "cli/commands.h"
#include "cli/engine_flags.h"
#include "cli/sampling_flags.h"

enum {
    CHAT_FLAGS_MAX = ENGINE_FLAGS_MAX + SAMPLING_FLAGS_MAX + 4,
    CHAT_MESSAGES_MAX = 1024,
    CHAT_ROOM_TOKENS = 256, /* for an answer, where the model's length has four times as many */
};

struct chat {
    struct service *service;
    struct sampling_params sampling;
    struct chat_message messages[CHAT_MESSAGES_MAX]; /* contents owned */
    size_t n_messages, n_system;
};

struct chat_values {
    struct engine_flag_values engine;
    struct sampling_flag_values sampling;
    const char *system;
};

static atomic_bool interrupted;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    atomic_store(&interrupted, true);
}

static err_t add_message(struct chat *chat, const char *role, const char *text, size_t size)
{
    if (chat->n_messages == CHAT_MESSAGES_MAX)
        return err_new(ERR_RESOURCE_EXHAUSTED, "the conversation has %d messages; /clear starts a new one",
                       CHAT_MESSAGES_MAX);
    char *copy = mem_strndup(text, size);
    if (!copy)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the conversation");
    chat->messages[chat->n_messages++] = (struct chat_message){role, copy, size};
    return err_ok();
}

static void forget(struct chat *chat, size_t keep)
{
    while (chat->n_messages > keep)
        mem_free((char *)chat->messages[--chat->n_messages].content);
}

static struct request request_of(const struct chat *chat)
{
    return (struct request){
        .prompt_kind = PROMPT_MESSAGES,
        .messages = chat->messages,
        .n_messages = chat->n_messages,
        .deadline_ns = REQUEST_NO_DEADLINE,
        .sampling = chat->sampling,
    };
}

/* What an answer should find free of the model's length. */
static uint32_t room_tokens(const struct chat *chat, uint32_t max_model_len)
{
    uint32_t room = max_model_len / 4 < CHAT_ROOM_TOKENS ? max_model_len / 4 : CHAT_ROOM_TOKENS;
    bool given = (chat->sampling.set & SAMPLING_MAX_TOKENS) && chat->sampling.max_tokens > 0;
    return given && chat->sampling.max_tokens < room ? chat->sampling.max_tokens : room;
}

/* Whether the conversation leaves that; true too when it cannot be told, which submit then says. */
static bool fits(const struct chat *chat)
{
    const struct request request = request_of(chat);
    const struct service_vtable *vtable = chat->service->vtable;
    uint32_t *ids = NULL, max_model_len = vtable->model_info(chat->service)->max_model_len;
    size_t n = 0;
    err_t e = vtable->tokenize(chat->service, &request, &ids, &n);
    mem_free(ids);
    return e.code != ERR_OK || n + room_tokens(chat, max_model_len) <= max_model_len;
}

/* The oldest question and its answer, behind the system's message. */
static void drop_turn(struct chat *chat)
{
    struct chat_message *oldest = chat->messages + chat->n_system;
    mem_free((char *)oldest[0].content);
    mem_free((char *)oldest[1].content);
    chat->n_messages -= 2;
    memmove(oldest, oldest + 2, (chat->n_messages - chat->n_system) * sizeof *oldest);
}

/* The last message stays in any case. Returns how many turns went. */
static size_t make_room(struct chat *chat)
{
    size_t n = 0;
    for (; chat->n_messages > chat->n_system + 2 && !fits(chat); n++)
        drop_turn(chat);
    if (n > 0)
        (void)fprintf(stderr, "(the model's length is reached: %zu of the oldest turns %s forgotten)\n", n,
                      n == 1 ? "is" : "are");
    return n;
}

/* Prints the answer as it comes; Ctrl-C ends it, not the program. */
static err_t answer_turn(struct chat *chat, struct answer *answer)
{
    const struct request request = request_of(chat);
    const struct service_vtable *vtable = chat->service->vtable;
    struct event_count *progress = vtable->progress(chat->service);
    struct stream *stream;
    TRY(vtable->submit(chat->service, &request, &stream));
    atomic_store(&interrupted, false);
    err_t e = err_ok();
    while (!answer->finished && e.code == ERR_OK && !ferror(stdout)) {
        uint32_t seen = event_count_read(progress);
        struct event event;
        while (e.code == ERR_OK && vtable->stream_next(stream, &event)) {
            (void)fwrite(event.text, 1, event.text_bytes, stdout);
            (void)fflush(stdout);
            e = answer_add(answer, &event);
        }
        if (atomic_load(&interrupted))
            vtable->stream_cancel(stream);
        if (!answer->finished && e.code == ERR_OK)
            (void)event_count_wait(progress, seen, 100 * 1000 * 1000);
    }
    vtable->stream_release(stream);
    (void)fputs(answer->finish_reason == FINISH_ABORT ? " [stopped]\n" : "\n", stdout);
    if (e.code == ERR_OK && answer->finish_reason == FINISH_ERROR)
        e = answer->error;
    return e;
}

static void take_turn(struct chat *chat, const char *line, size_t size)
{
    struct answer answer = {0};
    size_t before = chat->n_messages;
    err_t e = add_message(chat, "user", line, size);
    if (e.code == ERR_OK)
        before -= 2 * make_room(chat);
    if (e.code == ERR_OK)
        e = answer_turn(chat, &answer);
    if (e.code == ERR_OK)
        e = add_message(chat, "assistant", answer.text.data ? answer.text.data : "", answer.text.size);
    if (e.code != ERR_OK) {
        (void)report_error("bantam chat", &e);
        forget(chat, before);
    }
    answer_free(&answer);
}

/* "/clear" and its like. False: the conversation ends. */
static bool obey(struct chat *chat, const char *line)
{
    if (strcmp(line, "/quit") == 0 || strcmp(line, "/exit") == 0)
        return false;
    if (strcmp(line, "/clear") == 0)
        forget(chat, chat->n_system);
    else if (strcmp(line, "/help") == 0)
        (void)fputs("/clear  forgets the conversation, but for --system\n"
                    "/quit   ends it, as Ctrl-D does\n"
                    "/help   prints this\n"
                    "Ctrl-C stops an answer. A message that begins with '/' takes a blank before that.\n",
                    stderr);
    else
        (void)fprintf(stderr, "%.100s is not a command; /help lists them\n", line);
    return true;
}

static void converse(struct chat *chat)
{
    char *line = NULL;
    size_t capacity = 0;
    (void)fputs("Type a message; /help lists commands, /quit or Ctrl-D ends it, Ctrl-C stops an answer.\n",
                stderr);
    while (!ferror(stdout)) { /* main reports that */
        (void)fputs("> ", stderr);
        errno = 0;
        ssize_t size = getline(&line, &capacity, stdin);
        if (size < 0 && errno == EINTR) {
            clearerr(stdin);
            (void)fputc('\n', stderr);
            continue;
        }
        if (size < 0)
            break;
        while (size > 0 && (line[size - 1] == '\n' || line[size - 1] == '\r'))
            line[--size] = '\0';
        if (line[0] == '/' && !obey(chat, line))
            break;
        if (size > 0 && line[0] != '/')
            take_turn(chat, line, (size_t)size);
    }
    mem_free(line);
}

static size_t chat_flags(struct chat_values *values, struct flag *flags)
{
    flags[0] = (struct flag){.name = "system",
                             .kind = FLAG_STRING,
                             .target = &values->system,
                             .metavar = "TEXT",
                             .help = "instructions that open the conversation"};
    size_t n = 1 + sampling_flags_fill_chat(&values->sampling, flags + 1);
    return n + engine_flags_fill(&values->engine, flags + n);
}

int command_chat(int argc, char *argv[])
{
    static struct chat_values values;
    static struct chat chat;
    struct flag flags[CHAT_FLAGS_MAX];
    const struct flag_command command = {
        .name = "bantam chat",
        .summary = "Talks to a model in the terminal, through its chat template.",
        .positionals = "MODEL",
        .min_positionals = 1,
        .max_positionals = 1,
        .flags = flags,
        .n_flags = chat_flags(&values, flags),
        .examples = "  bantam chat demo/model\n",
    };
    struct flag_result arguments;
    int status;
    if (!parse_command(&command, argc, argv, &arguments, &status))
        return status;
    struct engine_options options = engine_flags_options(&values.engine, arguments.positional[0]);
    struct engine *engine = NULL;
    err_t e = sampling_flags_params(&values.sampling, &chat.sampling);
    if (e.code == ERR_OK)
        e = engine_open(&options, NULL, &engine);
    if (e.code == ERR_OK &&
        !engine_service(engine)->vtable->model_info(engine_service(engine))->has_chat_template)
        e = err_new(ERR_FAILED_PRECONDITION, "%s has no chat template: give --chat-template FILE",
                    arguments.positional[0]);
    if (e.code == ERR_OK && values.system)
        e = add_message(&chat, "system", values.system, strlen(values.system));
    if (e.code != ERR_OK) {
        engine_close(engine);
        return report_error("bantam chat", &e);
    }
    chat.n_system = chat.n_messages;
    chat.service = engine_service(engine);
    struct sigaction action = {.sa_handler = on_interrupt};
    (void)sigaction(SIGINT, &action, NULL);
    converse(&chat);
    forget(&chat, 0);
    engine_close(engine);
    return 0;
}
