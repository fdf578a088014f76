/* bantam run: prompts through the engine's one loop, many at a time. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/event_count.h"
#include "cli/answer.h"
#include "cli/commands.h"
#include "cli/engine_flags.h"
#include "cli/prompts.h"
#include "cli/sampling_flags.h"

enum { RUN_FLAGS_MAX = ENGINE_FLAGS_MAX + SAMPLING_FLAGS_MAX + 8, RUN_LINE_BYTES_MAX = 1 << 30 };

struct run_values {
    struct engine_flag_values engine;
    struct sampling_flag_values sampling;
    struct flag_list prompts, token_ids;
    const char *prompts_file, *prompt; /* prompt: the one behind MODEL */
    bool json, no_special_tokens;
};

/* One prompt on its way. */
struct run_item {
    struct stream *stream;  /* NULL = not submitted yet, or released */
    struct answer *answers; /* [n] owned */
    uint32_t n;
    bool done;
};

struct run {
    const struct run_values *values;
    struct service *service;
    struct prompt_set prompts;
    struct sampling_params sampling;
    struct run_item *items; /* [prompts.count] */
    size_t n_submitted, n_printed;
    size_t n_answers, n_cut; /* printed; of them, that ended by their length */
    struct buffer line;
    int status;
};

static size_t run_flags(struct run_values *values, struct flag *flags)
{
    const struct flag rows[] = {
        {.name = "prompt",
         .kind = FLAG_LIST,
         .target = &values->prompts,
         .metavar = "TEXT",
         .help = "a text to complete"},
        {.name = "token-ids",
         .kind = FLAG_LIST,
         .target = &values->token_ids,
         .metavar = "ID,...",
         .help = "a prompt as token ids"},
        {.name = "prompts",
         .kind = FLAG_STRING,
         .target = &values->prompts_file,
         .metavar = "FILE",
         .help =
             "JSON lines: strings, or objects with \"prompt\", \"prompt_token_ids\" or \"messages\"; - for "
             "standard input"},
        {.name = "json",
         .kind = FLAG_BOOL,
         .target = &values->json,
         .default_text = "false",
         .help = "print one JSON object a prompt, on a line"},
        {.name = "no-special-tokens",
         .kind = FLAG_BOOL,
         .target = &values->no_special_tokens,
         .default_text = "false",
         .help = "do not add BOS and the like to text prompts"},
    };
    size_t n = sizeof rows / sizeof *rows;
    memcpy(flags, rows, sizeof rows);
    n += sampling_flags_fill(&values->sampling, flags + n);
    return n + engine_flags_fill(&values->engine, flags + n);
}

static err_t gather_prompts(struct run *run)
{
    const struct run_values *values = run->values;
    if (values->prompt)
        TRY(prompts_add_text(&run->prompts, values->prompt));
    for (size_t i = 0; i < values->prompts.count; i++)
        TRY(prompts_add_text(&run->prompts, values->prompts.item[i]));
    for (size_t i = 0; i < values->token_ids.count; i++)
        TRY(prompts_add_ids(&run->prompts, values->token_ids.item[i]));
    if (values->prompts_file)
        TRY(prompts_read_file(values->prompts_file, &run->prompts));
    else if (run->prompts.count == 0 && !isatty(STDIN_FILENO)) /* what is piped in */
        TRY(prompts_add_input(&run->prompts));
    if (run->prompts.count == 0)
        return err_new(
            ERR_INVALID_ARGUMENT,
            "nothing to run: give a text behind MODEL or on standard input, --prompt TEXT, --token-ids "
            "1,2,3 or --prompts FILE");
    run->items = mem_alloc_array(run->prompts.count, sizeof *run->items);
    if (!run->items)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the prompts");
    return err_ok();
}

/* Without JSON there is no place for them. */
static err_t check_logprobs(const struct run_values *values, const struct sampling_params *sampling)
{
    bool wants = ((sampling->set & SAMPLING_LOGPROBS) && sampling->logprobs >= 0) ||
                 ((sampling->set & SAMPLING_PROMPT_LOGPROBS) && sampling->prompt_logprobs >= 0);
    if (!wants || values->json)
        return err_ok();
    return err_new(ERR_INVALID_ARGUMENT, "--logprobs and --prompt-logprobs are printed with --json alone");
}

/* Answers that end in the middle because nobody said how long they may be. */
static void report_cut(const struct run *run)
{
    if (run->n_cut == 0 || run->values->json || (run->sampling.set & SAMPLING_MAX_TOKENS))
        return;
    (void)fprintf(
        stderr,
        "bantam run: %zu of %zu answers ended by length, not by themselves; --max-tokens N sets it, 0 is "
        "as much as the model has\n",
        run->n_cut, run->n_answers);
}

/* A prompt that was refused has its error as its answer: the others go on. */
static void refuse(struct run *run, struct run_item *item, const err_t *error)
{
    for (uint32_t i = 0; i < item->n; i++) {
        struct answer *answer = &item->answers[i];
        if (answer->finished)
            continue;
        answer->finish_reason = FINISH_ERROR;
        answer->error = *error;
        answer->timings = (struct timings){.queue_ns = -1, .prefill_ns = -1, .decode_ns = -1};
    }
    item->done = true;
    run->status = 1;
}

/* Submits what the queue takes. */
static void submit_more(struct run *run)
{
    while (run->n_submitted < run->prompts.count) {
        struct run_item *item = &run->items[run->n_submitted];
        struct request *request = &run->prompts.requests[run->n_submitted];
        request->sampling = run->sampling;
        request->no_special_tokens = run->values->no_special_tokens;
        if (!item->answers) {
            item->n = run->sampling.set & SAMPLING_N ? run->sampling.n : 1;
            item->answers = mem_alloc_array(item->n, sizeof *item->answers);
            if (!item->answers) {
                (void)fprintf(stderr, "bantam run: prompt %zu: out of memory for the answer\n",
                              run->n_submitted + 1);
                item->n = 0;
                run->n_submitted++;
                item->done = true;
                run->status = 1;
                continue;
            }
        }
        err_t e = run->service->vtable->submit(run->service, request, &item->stream);
        if (e.code == ERR_RESOURCE_EXHAUSTED && run->service->vtable->in_flight(run->service) > 0)
            return; /* when one ends there is room again */
        run->n_submitted++;
        if (e.code != ERR_OK)
            refuse(run, item, &e);
    }
}

static void stream_text(const struct run *run, size_t index, const struct event *event)
{
    bool alone = run->prompts.count == 1 && run->items[index].n == 1;
    if (run->values->json || !alone)
        return;
    (void)fwrite(event->text, 1, event->text_bytes, stdout);
    (void)fflush(stdout);
}

static void read_item(struct run *run, size_t index)
{
    struct run_item *item = &run->items[index];
    struct event event;
    while (item->stream && run->service->vtable->stream_next(item->stream, &event)) {
        stream_text(run, index, &event);
        struct answer *answer = &item->answers[event.choice_index];
        err_t e = answer_add(answer, &event);
        if (e.code != ERR_OK)
            refuse(run, item, &e);
        if (event.kind == EVENT_FINISHED && event.finish_reason == FINISH_ERROR)
            run->status = 1;
        if (event.last || item->done) {
            item->done = true;
            run->service->vtable->stream_release(item->stream);
            item->stream = NULL;
        }
    }
}

/* The choices of a refused prompt share one message, said once. */
static void print_error(const struct run_item *item, size_t index, uint32_t choice)
{
    const char *message = item->answers[choice].error.message;
    if (choice == 0 || strcmp(message, item->answers[0].error.message) != 0)
        (void)fprintf(stderr, "bantam run: prompt %zu: %s\n", index + 1, message);
}

static void print_answer(const struct run_item *item, size_t index, uint32_t choice)
{
    const struct buffer *text = &item->answers[choice].text;
    if (item->n > 1)
        (void)printf("[%zu.%u] ", index + 1, choice + 1);
    else
        (void)printf("[%zu] ", index + 1);
    (void)fwrite(text->data, 1, text->size, stdout);
    (void)fputc('\n', stdout);
}

static void print_json(struct run *run, const struct run_item *item, size_t index, uint32_t choice)
{
    buffer_clear(&run->line);
    if (answer_write_json(&item->answers[choice], &item->answers[0], choice, item->n > 1, &run->line)) {
        (void)fwrite(run->line.data, 1, run->line.size, stdout);
    } else {
        (void)fprintf(stderr, "bantam run: prompt %zu: out of memory for the line\n", index + 1);
        run->status = 1;
    }
}

static void print_item(struct run *run, size_t index)
{
    const struct run_item *item = &run->items[index];
    bool alone = run->prompts.count == 1 && item->n == 1;
    for (uint32_t i = 0; i < item->n; i++) {
        run->n_answers++;
        run->n_cut += item->answers[i].finish_reason == FINISH_LENGTH;
        if (run->values->json)
            print_json(run, item, index, i);
        else if (item->answers[i].finish_reason == FINISH_ERROR)
            print_error(item, index, i);
        else if (alone)
            (void)fputc('\n', stdout); /* the text came as it was made */
        else
            print_answer(item, index, i);
    }
    (void)fflush(stdout);
}

static void free_item(struct run_item *item)
{
    for (uint32_t i = 0; item->answers && i < item->n; i++)
        answer_free(&item->answers[i]);
    mem_free(item->answers);
    item->answers = NULL;
}

/* Once nobody takes the answers there is no point in making them; main reports why. */
static bool is_unfinished(const struct run *run)
{
    return run->n_printed < run->prompts.count && !ferror(stdout);
}

static void run_all(struct run *run)
{
    struct event_count *progress = run->service->vtable->progress(run->service);
    while (is_unfinished(run)) {
        uint32_t seen = event_count_read(progress);
        submit_more(run);
        for (size_t i = run->n_printed; i < run->n_submitted; i++)
            read_item(run, i);
        while (run->n_printed < run->prompts.count && run->items[run->n_printed].done) {
            print_item(run, run->n_printed);
            free_item(&run->items[run->n_printed++]);
        }
        if (is_unfinished(run))
            (void)event_count_wait(progress, seen, -1);
    }
    for (size_t i = run->n_printed; i < run->n_submitted; i++) {
        if (run->items[i].stream)
            run->service->vtable->stream_release(run->items[i].stream);
    }
    for (size_t i = run->n_printed; i < run->prompts.count; i++)
        free_item(&run->items[i]);
}

int command_run(int argc, char *argv[])
{
    static struct run_values values;
    struct flag flags[RUN_FLAGS_MAX];
    const struct flag_command command = {
        .name = "bantam run",
        .summary = "Answers prompts with a model: a directory in Hugging Face's layout, or a GGUF file.",
        .positionals = "MODEL [PROMPT]",
        .min_positionals = 1,
        .max_positionals = 2,
        .flags = flags,
        .n_flags = run_flags(&values, flags),
        .examples = "  bantam run demo/model \"The train to\" --max-tokens 20\n"
                    "  cat letter.txt | bantam run demo/model --max-tokens 0\n"
                    "  bantam run demo/model --prompts questions.jsonl --json > answers.jsonl\n",
    };
    struct flag_result arguments;
    int status;
    if (!parse_command(&command, argc, argv, &arguments, &status))
        return status;
    struct run run = {.values = &values, .line = {.limit_bytes = RUN_LINE_BYTES_MAX}};
    struct engine *engine = NULL;
    values.prompt = arguments.n_positionals > 1 ? arguments.positional[1] : NULL;
    struct engine_options options = engine_flags_options(&values.engine, arguments.positional[0]);
    err_t e = sampling_flags_params(&values.sampling, &run.sampling);
    if (e.code == ERR_OK)
        e = check_logprobs(&values, &run.sampling);
    if (e.code == ERR_OK)
        e = gather_prompts(&run);
    if (e.code == ERR_OK)
        e = engine_open(&options, NULL, &engine);
    if (e.code == ERR_OK) {
        run.service = engine_service(engine);
        run_all(&run);
        report_cut(&run);
        engine_close(engine);
        status = run.status;
    } else {
        status = report_error("bantam run", &e);
    }
    mem_free(run.items);
    buffer_free(&run.line);
    prompts_free(&run.prompts);
    return status;
}
