/* Requests: chat completions, completions, tokenize, detokenize. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/buffer.h"
#include "proto/openai_fields.h"

#define INVALID(...) err_new(ERR_INVALID_ARGUMENT, __VA_ARGS__)

struct decoder {
    struct openai_scratch *scratch;
    const json_t *root;
    struct openai_request *out;
};

/* --- what this server does not do */

#define NEEDS_CONSTRAINED_DECODING "it needs constrained decoding, which this server does not have yet"
#define NEEDS_OWN_TEMPLATE         "a template cannot come with a request"
#define STANDS_ELSEWHERE           "it is another API's; parameters stand in the body itself"

static const struct {
    const char *name, *why;
} lacking_fields[] = {
    {"functions", NEEDS_CONSTRAINED_DECODING},
    {"guided_json", NEEDS_CONSTRAINED_DECODING},
    {"guided_regex", NEEDS_CONSTRAINED_DECODING},
    {"guided_choice", NEEDS_CONSTRAINED_DECODING},
    {"guided_grammar", NEEDS_CONSTRAINED_DECODING},
    {"structural_tag", NEEDS_CONSTRAINED_DECODING},
    {"structured_outputs", NEEDS_CONSTRAINED_DECODING},
    /* llama.cpp's, SGLang's and Ollama's: to ignore them would be to answer in another form. */
    {"grammar", NEEDS_CONSTRAINED_DECODING},
    {"json_schema", NEEDS_CONSTRAINED_DECODING},
    {"regex", NEEDS_CONSTRAINED_DECODING},
    {"ebnf", NEEDS_CONSTRAINED_DECODING},
    {"format", NEEDS_CONSTRAINED_DECODING},
    {"options", STANDS_ELSEWHERE},
    {"chat_template", NEEDS_OWN_TEMPLATE},
    {"continue_final_message", "an answer begins a new message; give its beginning as output_prefix_ids"},
    {"use_beam_search", "there is no beam search"},
    {"suffix", "there is no infilling"},
    {"prompt_embeds", "a prompt is text or token ids"},
    {"logits_processors", "code cannot come with a request"},
    {"cache_salt", "the prefix cache is salted by who is authenticated"},
    {"kv_transfer_params", "nothing is handed over to or from another server"},
    {"vllm_xargs", "there are no extensions that would read it"},
    {"repetition_detection", "an answer ends by its stops and lengths alone"},
    {"thinking_token_budget", "reasoning is not told from the answer"},
    {"audio", "this model takes and gives text only"},
    {"prediction", "there is no predicted output"},
    {"web_search_options", "there is no web search"},
};

static err_t lacking(struct decoder *d, const char *name, const char *why)
{
    return openai_lacking(d->scratch, name, "%s is not supported: %s", name, why);
}

/* Tools that must not be called, which the template shows, and an answer in plain text, are what there is
 * without a grammar. */
static err_t refuse_tools(struct decoder *d)
{
    const json_t *choice = openai_find(d->root, "tool_choice");
    const json_t *format = openai_find(d->root, "response_format");
    if (!openai_asks_for_nothing(openai_find(d->root, "tools")) && !openai_text_is(choice, "none"))
        TRY(lacking(d, "tools", NEEDS_CONSTRAINED_DECODING "; tool_choice \"none\" asks for no call"));
    if (choice && !openai_text_is(choice, "none") && !openai_text_is(choice, "auto"))
        TRY(lacking(d, "tool_choice", NEEDS_CONSTRAINED_DECODING));
    const json_t *call = openai_find(d->root, "function_call");
    if (call && !openai_text_is(call, "none") && !openai_text_is(call, "auto"))
        TRY(lacking(d, "function_call", NEEDS_CONSTRAINED_DECODING));
    if (format && !json_is_object(format))
        return openai_wrong_type(d->scratch, "response_format", format, "an object");
    if (format && !openai_text_is(json_object_get(format, "type"), "text"))
        return lacking(d, "response_format", NEEDS_CONSTRAINED_DECODING "; only {\"type\": \"text\"} is");
    return err_ok();
}

static err_t refuse_lacking(struct decoder *d)
{
    for (size_t i = 0; i < sizeof lacking_fields / sizeof lacking_fields[0]; i++)
        if (!openai_asks_for_nothing(openai_find(d->root, lacking_fields[i].name)))
            TRY(lacking(d, lacking_fields[i].name, lacking_fields[i].why));
    TRY(refuse_tools(d));
    const json_t *modalities = openai_find(d->root, "modalities");
    for (size_t i = 0; i < json_array_size(modalities); i++)
        if (!openai_text_is(json_array_get(modalities, i), "text"))
            TRY(lacking(d, "modalities", "this model gives text only"));
    return err_ok();
}

/* --- hints about where it may go */

/* Strings as they are, whole numbers as text. */
static err_t decode_hint(struct decoder *d, const json_t *value, const char *name, const char **out)
{
    char field[OPENAI_PARAM_BYTES_MAX];
    (void)snprintf(field, sizeof field, "bantam.%s", name);
    if (!json_is_string(value) && !json_is_integer(value))
        return openai_wrong_type(d->scratch, field, value, "a string or a whole number");
    openai_blame(d->scratch, "%s", field);
    const char *text = json_string_value(value);
    if (text && strlen(text) != json_string_length(value))
        return INVALID("%s contains a NUL character", field);
    if (text && strlen(text) > REQUEST_HINT_BYTES_MAX)
        return INVALID("%s has %zu bytes; at most %d are allowed", field, strlen(text),
                       REQUEST_HINT_BYTES_MAX);
    openai_blame(d->scratch, "%s", "");
    *out = text;
    return text ? err_ok() : openai_print(d->scratch, out, "%lld", (long long)json_integer_value(value));
}

static const struct {
    const char *field, *hint;
} hint_fields[] = {{"route", "route"},
                   {"privacy", "privacy"},
                   {"complexity", "complexity"},
                   {"max_cost", "max-cost"},
                   {"task", "task"}};
#define N_HINT_FIELDS (sizeof hint_fields / sizeof hint_fields[0])
_Static_assert(N_HINT_FIELDS <= REQUEST_HINTS_MAX, "a body's hints fit");

static err_t check_hint_names(struct decoder *d, const json_t *object)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        size_t i = 0;
        while (i < N_HINT_FIELDS && strcmp(hint_fields[i].field, key) != 0)
            i++;
        openai_blame(d->scratch, "bantam");
        if (i == N_HINT_FIELDS)
            return INVALID("bantam.%.32s is not a hint; hints are route, privacy, complexity, max_cost and "
                           "task",
                           key);
    }
    openai_blame(d->scratch, "%s", "");
    return err_ok();
}

static err_t decode_hints(struct decoder *d)
{
    const json_t *object = openai_find(d->root, "bantam");
    if (!object)
        return err_ok();
    if (!json_is_object(object))
        return openai_wrong_type(d->scratch, "bantam", object, "an object of hints");
    TRY(check_hint_names(d, object));
    void *memory;
    TRY(openai_allocate(d->scratch, N_HINT_FIELDS, sizeof(struct request_hint), &memory));
    struct request_hint *hints = memory;
    size_t n = 0;
    for (size_t i = 0; i < N_HINT_FIELDS; i++) {
        const json_t *value = openai_find(object, hint_fields[i].field);
        if (!value)
            continue;
        hints[n].name = hint_fields[i].hint;
        TRY(decode_hint(d, value, hint_fields[i].field, &hints[n++].value));
    }
    d->out->request.hints = hints;
    d->out->request.n_hints = n;
    return err_ok();
}

/* --- sampling */

static err_t decode_numbers(struct decoder *d)
{
    struct sampling_params *p = &d->out->request.sampling;
    const struct {
        const char *name;
        uint32_t bit;
        float *to;
    } rows[] = {
        {"temperature", SAMPLING_TEMPERATURE, &p->temperature},
        {"top_p", SAMPLING_TOP_P, &p->top_p},
        {"min_p", SAMPLING_MIN_P, &p->min_p},
        {"repetition_penalty", SAMPLING_REPETITION_PENALTY, &p->repetition_penalty},
        {"presence_penalty", SAMPLING_PRESENCE_PENALTY, &p->presence_penalty},
        {"frequency_penalty", SAMPLING_FREQUENCY_PENALTY, &p->frequency_penalty},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        bool found;
        TRY(openai_number(d->scratch, d->root, rows[i].name, rows[i].to, &found));
        p->set |= found ? rows[i].bit : 0;
    }
    return err_ok();
}

static err_t decode_switches(struct decoder *d)
{
    struct sampling_params *p = &d->out->request.sampling;
    const struct {
        const char *name;
        uint32_t bit;
        bool *to;
    } rows[] = {
        {"ignore_eos", SAMPLING_IGNORE_EOS, &p->ignore_eos},
        {"skip_special_tokens", SAMPLING_SKIP_SPECIAL_TOKENS, &p->skip_special_tokens},
        {"include_stop_str_in_output", SAMPLING_INCLUDE_STOP, &p->include_stop_str_in_output},
        {"spaces_between_special_tokens", SAMPLING_SPACES_BETWEEN_SPECIAL_TOKENS,
         &p->spaces_between_special_tokens},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        bool found;
        TRY(openai_bool(d->scratch, d->root, rows[i].name, rows[i].to, &found));
        p->set |= found ? rows[i].bit : 0;
    }
    return err_ok();
}

/* Into a uint32_t parameter. */
static err_t decode_count(struct decoder *d, const char *name, int64_t low, uint32_t bit, uint32_t *to)
{
    int64_t value = 0;
    bool found;
    TRY(openai_integer(d->scratch, d->root, name, low, UINT32_MAX, &value, &found));
    if (found) {
        *to = (uint32_t)value;
        d->out->request.sampling.set |= bit;
    }
    return err_ok();
}

static err_t decode_integers(struct decoder *d)
{
    struct sampling_params *p = &d->out->request.sampling;
    int64_t value = 0;
    bool found;
    TRY(openai_integer(d->scratch, d->root, "top_k", INT32_MIN, INT32_MAX, &value, &found));
    if (found) {
        p->top_k = (int32_t)value;
        p->set |= SAMPLING_TOP_K;
    }
    TRY(openai_integer(d->scratch, d->root, "truncate_prompt_tokens", INT32_MIN, INT32_MAX, &value, &found));
    if (found) {
        p->truncate_prompt_tokens = (int32_t)value;
        p->set |= SAMPLING_TRUNCATE_PROMPT_TOKENS;
    }
    TRY(openai_integer(d->scratch, d->root, "seed", INT64_MIN, INT64_MAX, &value, &found));
    if (found) {
        p->seed = (uint64_t)value;
        p->set |= SAMPLING_SEED;
    }
    TRY(openai_integer(d->scratch, d->root, "priority", INT32_MIN, INT32_MAX, &value, &found));
    if (found)
        d->out->request.priority = (int32_t)value;
    TRY(decode_count(d, "min_tokens", 0, SAMPLING_MIN_TOKENS, &p->min_tokens));
    return decode_count(d, "n", 0, SAMPLING_N, &p->n);
}

static err_t decode_logit_bias(struct decoder *d)
{
    struct sampling_params *p = &d->out->request.sampling;
    const json_t *object = openai_find(d->root, "logit_bias");
    if (!object)
        return err_ok();
    if (!json_is_object(object))
        return openai_wrong_type(d->scratch, "logit_bias", object, "an object of token ids and numbers");
    void *memory;
    TRY(openai_allocate(d->scratch, json_object_size(object), sizeof(struct logit_bias), &memory));
    struct logit_bias *entries = memory;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)object, key, value)
    {
        char *end;
        errno = 0;
        unsigned long long id = strtoull(key, &end, 10);
        openai_blame(d->scratch, "logit_bias");
        if (key[0] < '0' || key[0] > '9' || *end != '\0' || errno != 0 || id > UINT32_MAX)
            return INVALID("logit_bias names \"%.32s\", which is not a token id", key);
        if (!json_is_number(value))
            return INVALID("logit_bias of token %llu is not a number", id);
        entries[p->n_logit_bias++] = (struct logit_bias){(uint32_t)id, (float)json_number_value(value)};
        openai_blame(d->scratch, "%s", "");
    }
    p->logit_bias = entries;
    return err_ok();
}

static err_t decode_lists(struct decoder *d)
{
    struct sampling_params *p = &d->out->request.sampling;
    TRY(openai_names(d->scratch, d->root, "stop", &p->stop, &p->n_stop));
    TRY(openai_names(d->scratch, d->root, "bad_words", &p->bad_words, &p->n_bad_words));
    const json_t *stop_ids = openai_find(d->root, "stop_token_ids");
    if (stop_ids)
        TRY(openai_ids(d->scratch, stop_ids, "stop_token_ids", &p->stop_token_ids, &p->n_stop_token_ids));
    const json_t *allowed = openai_find(d->root, "allowed_token_ids");
    if (allowed)
        TRY(openai_ids(d->scratch, allowed, "allowed_token_ids", &p->allowed_token_ids,
                       &p->n_allowed_token_ids));
    const json_t *prefix = openai_find(d->root, "output_prefix_ids");
    if (prefix)
        TRY(openai_ids(d->scratch, prefix, "output_prefix_ids", &d->out->request.output_prefix_ids,
                       &d->out->request.n_output_prefix_ids));
    return decode_logit_bias(d);
}

static void ask_for_logprobs(struct sampling_params *p, uint32_t bit, int32_t *to, int64_t n)
{
    bool more = !(p->set & bit) || *to < n;
    p->set |= bit;
    if (more)
        *to = n > INT32_MAX ? INT32_MAX : (int32_t)n;
}

/* Completions: a count. Chat: a switch, and a count besides. */
static err_t decode_logprobs(struct decoder *d)
{
    struct openai_request *out = d->out;
    struct sampling_params *p = &out->request.sampling;
    int64_t n = 0;
    bool wants = false, counted = false;
    if (out->kind == OPENAI_CHAT) {
        TRY(openai_bool(d->scratch, d->root, "logprobs", &wants, NULL));
        TRY(openai_integer(d->scratch, d->root, "top_logprobs", 0, INT32_MAX, &n, &counted));
        if (n > 0 && !wants) {
            openai_blame(d->scratch, "top_logprobs");
            return INVALID("top_logprobs needs logprobs to be true");
        }
    } else {
        TRY(openai_integer(d->scratch, d->root, "logprobs", 0, INT32_MAX, &n, &wants));
    }
    out->logprobs = -1;
    if (wants) {
        out->logprobs = (int32_t)n;
        ask_for_logprobs(p, SAMPLING_LOGPROBS, &p->logprobs, n);
    }
    if (wants && out->echo)
        ask_for_logprobs(p, SAMPLING_PROMPT_LOGPROBS, &p->prompt_logprobs, n);
    TRY(openai_integer(d->scratch, d->root, "prompt_logprobs", 0, INT32_MAX, &n, &counted));
    out->wants_prompt_logprobs = counted;
    if (counted)
        ask_for_logprobs(p, SAMPLING_PROMPT_LOGPROBS, &p->prompt_logprobs, n);
    return err_ok();
}

/* 0 tokens: the prompt alone, which only echo and prompt logprobs show. */
static err_t decode_max_tokens(struct decoder *d)
{
    struct openai_request *out = d->out;
    struct sampling_params *p = &out->request.sampling;
    bool shows_prompt = out->kind == OPENAI_COMPLETION && (out->echo || out->wants_prompt_logprobs);
    const char *name = "max_tokens";
    if (out->kind == OPENAI_CHAT && openai_find(d->root, "max_completion_tokens"))
        name = "max_completion_tokens";
    TRY(decode_count(d, name, shows_prompt ? 0 : 1, SAMPLING_MAX_TOKENS, &p->max_tokens));
    if ((p->set & SAMPLING_MAX_TOKENS) && p->max_tokens == 0) {
        out->prompt_only = true;
        p->max_tokens = 1;
    }
    return err_ok();
}

/* --- prompts */

static err_t decode_prompt(struct decoder *d, const json_t *value, const char *name,
                           struct openai_prompt *out)
{
    if (json_is_string(value)) {
        *out = (struct openai_prompt){
            .kind = PROMPT_TEXT, .text = json_string_value(value), .text_bytes = json_string_length(value)};
        return err_ok();
    }
    out->kind = PROMPT_TOKEN_IDS;
    return openai_ids(d->scratch, value, name, &out->token_ids, &out->n_token_ids);
}

/* A string, a list of ids, or a list of such. */
static err_t decode_prompts(struct decoder *d)
{
    struct openai_request *out = d->out;
    const json_t *value = openai_find(d->root, "prompt");
    if (!json_is_string(value) && !json_is_array(value))
        return openai_wrong_type(d->scratch, "prompt", value,
                                 "a string, a list of token ids, or a list of such");
    const json_t *first = json_array_get(value, 0);
    bool several = json_is_string(first) || json_is_array(first);
    out->n_prompts = several ? json_array_size(value) : 1;
    openai_blame(d->scratch, "prompt");
    if (json_is_array(value) && json_array_size(value) == 0)
        return INVALID("prompt is an empty list");
    if (out->n_prompts > OPENAI_PROMPTS_MAX)
        return INVALID("prompt has %zu entries; at most %d are allowed", out->n_prompts, OPENAI_PROMPTS_MAX);
    openai_blame(d->scratch, "%s", "");
    void *memory;
    TRY(openai_allocate(d->scratch, out->n_prompts, sizeof(struct openai_prompt), &memory));
    struct openai_prompt *prompts = memory;
    for (size_t i = 0; i < out->n_prompts; i++) {
        char name[OPENAI_PARAM_BYTES_MAX];
        (void)snprintf(name, sizeof name, "prompt[%zu]", i);
        TRY(decode_prompt(d, several ? json_array_get(value, i) : value, several ? name : "prompt",
                          &prompts[i]));
    }
    out->prompts = prompts;
    return err_ok();
}

/* --- the request */

static err_t decode_stream(struct decoder *d)
{
    struct openai_request *out = d->out;
    TRY(openai_bool(d->scratch, d->root, "stream", &out->stream, NULL));
    const json_t *options = openai_find(d->root, "stream_options");
    if (!options)
        return err_ok();
    if (!json_is_object(options))
        return openai_wrong_type(d->scratch, "stream_options", options, "an object");
    if (!out->stream) {
        openai_blame(d->scratch, "stream_options");
        return INVALID("stream_options needs stream to be true");
    }
    TRY(openai_bool(d->scratch, options, "include_usage", &out->include_usage, NULL));
    return openai_bool(d->scratch, options, "continuous_usage_stats", &out->continuous_usage, NULL);
}

/* What needs to see several fields. */
static err_t check_together(struct decoder *d)
{
    struct openai_request *out = d->out;
    int64_t best_of = out->n_choices;
    TRY(openai_integer(d->scratch, d->root, "best_of", 1, INT32_MAX, &best_of, NULL));
    if (best_of != out->n_choices)
        TRY(openai_lacking(
            d->scratch, "best_of",
            "best_of is %lld and n %u: every choice is answered, so that they must be the same",
            (long long)best_of, out->n_choices));
    openai_blame(d->scratch, "n");
    if (out->n_prompts * out->n_choices > OPENAI_CHOICES_MAX)
        return INVALID("%zu prompts with n %u make more than %d choices", out->n_prompts, out->n_choices,
                       OPENAI_CHOICES_MAX);
    openai_blame(d->scratch, "prompt_logprobs");
    if (out->stream && out->wants_prompt_logprobs)
        return err_new(ERR_UNIMPLEMENTED, "prompt_logprobs are not supported in a stream");
    openai_blame(d->scratch, "echo");
    if (out->stream && out->echo && out->logprobs >= 0 && out->n_choices > 1)
        return err_new(ERR_UNIMPLEMENTED, "echo with logprobs in a stream is not supported for n above 1");
    if (out->echo && (out->request.sampling.set & SAMPLING_TRUNCATE_PROMPT_TOKENS))
        return err_new(ERR_UNIMPLEMENTED, "echo with truncate_prompt_tokens is not supported");
    openai_blame(d->scratch, "%s", "");
    return err_ok();
}

static err_t decode_rest(struct decoder *d)
{
    struct openai_request *out = d->out;
    TRY(decode_stream(d));
    TRY(openai_bool(d->scratch, d->root, "echo", &out->echo, NULL));
    if (out->echo && out->kind == OPENAI_CHAT)
        TRY(lacking(d, "echo", "a chat answers with its answer alone"));
    out->echo = out->echo && out->kind == OPENAI_COMPLETION;
    TRY(decode_numbers(d));
    TRY(decode_switches(d));
    TRY(decode_integers(d));
    TRY(decode_lists(d));
    TRY(decode_logprobs(d));
    TRY(decode_max_tokens(d));
    TRY(openai_bool(d->scratch, d->root, "return_token_ids", &out->return_token_ids, NULL));
    TRY(openai_bool(d->scratch, d->root, "return_tokens_as_token_ids", &out->return_tokens_as_token_ids,
                    NULL));
    const struct sampling_params *p = &out->request.sampling;
    out->n_choices = p->set & SAMPLING_N && p->n > 0 ? p->n : 1;
    return check_together(d);
}

static struct request empty_request(void)
{
    return (struct request){.tenant = "", .deadline_ns = REQUEST_NO_DEADLINE};
}

err_t openai_decode_request(enum openai_kind kind, const char *body, size_t body_bytes,
                            struct openai_scratch *scratch, struct openai_request *out)
{
    *out = (struct openai_request){.kind = kind, .request = empty_request(), .n_prompts = 1};
    struct decoder d = {.scratch = scratch, .out = out};
    TRY(openai_parse(body, body_bytes, scratch, &d.root));
    TRY(openai_name(scratch, d.root, "model", &out->request.model));
    TRY(openai_name(scratch, d.root, "request_id", &out->request.request_id));
    TRY(refuse_lacking(&d));
    if (kind == OPENAI_CHAT) {
        TRY(openai_messages(scratch, d.root, &out->request));
    } else {
        TRY(decode_prompts(&d));
        bool adds = true;
        TRY(openai_bool(scratch, d.root, "add_special_tokens", &adds, NULL));
        out->request.no_special_tokens = !adds;
    }
    TRY(decode_rest(&d));
    if (!scratch->passes_on)
        return err_ok();
    TRY(decode_hints(&d));
    out->request.original = scratch->document;
    out->request.beyond = scratch->beyond;
    return err_ok();
}

struct request openai_request_of_prompt(const struct openai_request *request, size_t prompt)
{
    struct request one = request->request;
    if (!request->prompts)
        return one;
    const struct openai_prompt *from = &request->prompts[prompt];
    one.prompt_kind = from->kind;
    one.text = from->text;
    one.text_bytes = from->text_bytes;
    one.token_ids = from->token_ids;
    one.n_token_ids = from->n_token_ids;
    return one;
}

err_t openai_decode_tokenize(const char *body, size_t body_bytes, struct openai_scratch *scratch,
                             struct openai_tokenize *out)
{
    *out = (struct openai_tokenize){.request = empty_request()};
    const json_t *root;
    TRY(openai_parse(body, body_bytes, scratch, &root));
    TRY(openai_name(scratch, root, "model", &out->request.model));
    TRY(openai_bool(scratch, root, "return_token_strs", &out->return_token_strs, NULL));
    const json_t *prompt = openai_find(root, "prompt");
    if (!prompt && openai_find(root, "messages"))
        return openai_messages(scratch, root, &out->request);
    if (!json_is_string(prompt))
        return openai_wrong_type(scratch, "prompt", prompt, "a string (or messages a list)");
    out->request.prompt_kind = PROMPT_TEXT;
    out->request.text = json_string_value(prompt);
    out->request.text_bytes = json_string_length(prompt);
    bool adds = true;
    TRY(openai_bool(scratch, root, "add_special_tokens", &adds, NULL));
    out->request.no_special_tokens = !adds;
    return err_ok();
}

err_t openai_decode_detokenize(const char *body, size_t body_bytes, struct openai_scratch *scratch,
                               struct openai_detokenize *out)
{
    *out = (struct openai_detokenize){.model = NULL};
    const json_t *root;
    TRY(openai_parse(body, body_bytes, scratch, &root));
    TRY(openai_name(scratch, root, "model", &out->model));
    return openai_ids(scratch, openai_find(root, "tokens"), "tokens", &out->token_ids, &out->n_token_ids);
}
