#include "benchmarks/bench_data.h"

#include <jansson.h>
#include <string.h>
#include "base/alloc.h"
#include "base/mapped_file.h"
#include "base/philox.h"

static err_t no_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the prompts");
}

/* The counter's third word: what is drawn. */
enum { DRAW_TOKEN, DRAW_SHARED_TOKEN, DRAW_OUTPUT_LEN };

static uint32_t draw_below(const struct random_data_options *options, uint32_t k, uint32_t index,
                           uint32_t what, uint32_t n)
{
    uint32_t counter[4] = {k, index, what, 0};
    uint64_t seed = what == DRAW_SHARED_TOKEN ? options->prefix_seed : options->seed;
    uint64_t draw = philox4x32(seed, counter).lane[0];
    return (uint32_t)(draw * n >> 32);
}

static uint32_t draw_output_len(const struct random_data_options *options, size_t i)
{
    uint32_t least = options->output_len_min;
    if (least == 0 || least >= options->output_len)
        return options->output_len;
    return least + draw_below(options, 0, (uint32_t)i, DRAW_OUTPUT_LEN, options->output_len - least + 1);
}

err_t bench_data_random(const struct random_data_options *options, struct bench_data *out)
{
    *out = (struct bench_data){.prompts = mem_alloc_array(options->num_prompts, sizeof *out->prompts)};
    if (!out->prompts)
        return no_memory();
    for (size_t i = 0; i < options->num_prompts; i++) {
        struct bench_prompt *prompt = &out->prompts[out->count++];
        prompt->output_len = draw_output_len(options, i);
        prompt->n_token_ids = options->input_len;
        prompt->token_ids = mem_alloc_array(options->input_len, sizeof *prompt->token_ids);
        if (!prompt->token_ids)
            return no_memory();
        for (uint32_t k = 0; k < options->input_len; k++) {
            bool shared = k < options->prefix_len;
            uint32_t group = (uint32_t)(i % options->num_prefixes);
            prompt->token_ids[k] = draw_below(options, k, shared ? group : (uint32_t)i,
                                              shared ? DRAW_SHARED_TOKEN : DRAW_TOKEN, options->vocab_size);
        }
    }
    return err_ok();
}

static err_t add_text(struct bench_data *data, const char *text, bool as_message, uint32_t output_len)
{
    struct bench_prompt *prompt = &data->prompts[data->count];
    *prompt =
        (struct bench_prompt){.text = mem_strdup(text), .as_message = as_message, .output_len = output_len};
    if (!prompt->text)
        return no_memory();
    data->count++;
    return err_ok();
}

static err_t add_line(struct bench_data *data, const char *line, size_t size, uint32_t output_len)
{
    json_error_t error;
    json_t *value = json_loadb(line, size, JSON_REJECT_DUPLICATES, &error);
    if (!value)
        return err_new(ERR_INVALID_ARGUMENT, "not a JSON object: %s", error.text);
    const json_t *prompt = json_object_get(value, "prompt");
    const json_t *messages = json_object_get(value, "messages");
    const json_t *last =
        json_array_get(messages, json_array_size(messages) ? json_array_size(messages) - 1 : 0);
    const json_t *content = json_object_get(last, "content");
    const json_t *tokens = json_object_get(value, "output_tokens");
    if (json_is_integer(tokens) && json_integer_value(tokens) > 0 && json_integer_value(tokens) < INT32_MAX)
        output_len = (uint32_t)json_integer_value(tokens);
    err_t e;
    if (json_is_string(prompt))
        e = add_text(data, json_string_value(prompt), false, output_len);
    else if (json_is_string(content))
        e = add_text(data, json_string_value(content), true, output_len);
    else
        e = err_new(ERR_INVALID_ARGUMENT, "expected \"prompt\" or \"messages\"");
    json_decref(value);
    return e;
}

static err_t add_lines(struct bench_data *data, const char *path, const char *text, size_t num_prompts,
                       uint32_t output_len)
{
    while (data->count < num_prompts) {
        size_t before = data->count, number = 1;
        for (const char *line = text; *line && data->count < num_prompts; number++) {
            const char *newline = strchr(line, '\n');
            size_t size = newline ? (size_t)(newline - line) : strlen(line);
            if (size > 0) {
                err_t e = add_line(data, line, size, output_len);
                if (e.code != ERR_OK)
                    return err_prefix(e, "%s line %zu", path, number);
            }
            line += size + (newline ? 1 : 0);
        }
        if (data->count == before)
            return err_new(ERR_INVALID_ARGUMENT, "%s has no prompts", path);
    }
    return err_ok();
}

err_t bench_data_file(const char *path, size_t num_prompts, uint32_t output_len, struct bench_data *out)
{
    *out = (struct bench_data){.prompts = mem_alloc_array(num_prompts, sizeof *out->prompts)};
    if (!out->prompts)
        return no_memory();
    char *text = NULL;
    size_t size = 0;
    TRY(file_read(path, BENCH_FILE_BYTES_MAX, &text, &size));
    err_t e = add_lines(out, path, text, num_prompts, output_len);
    mem_free(text);
    return e;
}

struct request bench_prompt_request(const struct bench_prompt *prompt, double temperature)
{
    return (struct request){
        .deadline_ns = REQUEST_NO_DEADLINE,
        .prompt_kind = PROMPT_TOKEN_IDS,
        .token_ids = prompt->token_ids,
        .n_token_ids = prompt->n_token_ids,
        .sampling = {.set = SAMPLING_TEMPERATURE | SAMPLING_MAX_TOKENS | SAMPLING_IGNORE_EOS |
                            SAMPLING_REPETITION_PENALTY,
                     .temperature = (float)temperature,
                     .repetition_penalty = 1,
                     .max_tokens = prompt->output_len,
                     .ignore_eos = true},
    };
}

void bench_data_free(struct bench_data *data)
{
    for (size_t i = 0; i < data->count; i++) {
        mem_free(data->prompts[i].token_ids);
        mem_free(data->prompts[i].text);
    }
    mem_free(data->prompts);
    *data = (struct bench_data){0};
}
