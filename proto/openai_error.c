/* Errors in OpenAI's shape. */
#include <stdio.h>
#include <string.h>
#include "proto/codec_openai.h"

int openai_status_of(enum err_code code)
{
    switch (code) {
    case ERR_OK:
        return 200;
    case ERR_INVALID_ARGUMENT:
    case ERR_FAILED_PRECONDITION:
    case ERR_UNIMPLEMENTED:
        return 400;
    case ERR_NOT_FOUND:
        return 404;
    case ERR_UNAUTHENTICATED:
        return 401;
    case ERR_PERMISSION_DENIED:
        return 403;
    case ERR_RESOURCE_EXHAUSTED:
    case ERR_QUOTA_EXCEEDED:
        return 429;
    case ERR_CANCELLED:
        return 499;
    case ERR_UNAVAILABLE:
        return 503;
    case ERR_DEADLINE_EXCEEDED:
        return 504;
    case ERR_OUT_OF_RANGE:
    case ERR_DATA_LOSS:
    case ERR_IO:
    case ERR_INTERNAL:
        break;
    }
    return 500;
}

static const char *type_of(int status)
{
    if (status == 403)
        return "permission_error";
    if (status == 429)
        return "rate_limit_error";
    if (status == 503)
        return "service_unavailable_error";
    return status >= 500 ? "server_error" : status == 499 ? "request_cancelled" : "invalid_request_error";
}

/* The length of "messages[3].content" and the like at the start of text. */
static size_t path_length(const char *text)
{
    size_t n = 0;
    while ((text[n] >= 'a' && text[n] <= 'z') || (text[n] >= '0' && text[n] <= '9') ||
           (text[n] != '\0' && strchr("_.[]", text[n]) != NULL))
        n++;
    return n;
}

/* The validator's words for a field, and this door's. */
static const char *door_word(const char *word, size_t size, enum openai_kind kind)
{
    bool chat = kind == OPENAI_CHAT;
    const struct {
        const char *word, *door;
    } words[] = {
        {"text", "prompt"},
        {"token_ids", "prompt"},
        {"prompt", "prompt"},
        {"logprobs", chat ? "top_logprobs" : "logprobs"},
    };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strlen(words[i].word) == size && memcmp(words[i].word, word, size) == 0)
            return words[i].door;
    return NULL;
}

static bool is_field(const char *word, size_t size)
{
    static const char *const fields[] = {
        "prompt",
        "model",
        "messages",
        "text",
        "token_ids",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
        "seed",
        "max_tokens",
        "min_tokens",
        "n",
        "logprobs",
        "prompt_logprobs",
        "stop",
        "stop_token_ids",
        "logit_bias",
        "allowed_token_ids",
        "bad_words",
        "output_prefix_ids",
        "priority",
        "request_id",
        "truncate_prompt_tokens",
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
        if (strlen(fields[i]) == size && memcmp(fields[i], word, size) == 0)
            return true;
    return false;
}

/* Of what is not supported the message names the field first, in the decoder's words. */
static bool lacks_field(const char *message)
{
    size_t size = path_length(message);
    return strncmp(message, "messages[", 9) == 0 ||
           (size > 0 && strncmp(message + size, " is not supported", 17) == 0);
}

/* Messages of the one validator begin with the field. */
static void find_param(const char *message, enum openai_kind kind, char out[OPENAI_PARAM_BYTES_MAX])
{
    if (strncmp(message, "the prompt has ", 15) == 0) {
        (void)snprintf(out, OPENAI_PARAM_BYTES_MAX, kind == OPENAI_CHAT ? "messages" : "prompt");
        return;
    }
    size_t size = path_length(message), root = strcspn(message, "[. ");
    if (root > size || !is_field(message, root))
        return;
    const char *word = door_word(message, root, kind);
    if (word)
        (void)snprintf(out, OPENAI_PARAM_BYTES_MAX, "%s", word);
    else
        (void)snprintf(out, OPENAI_PARAM_BYTES_MAX, "%.*s", (int)size, message);
}

/* The validator's message in this door's words. */
static void translate(const char *message, enum openai_kind kind, char out[ERR_MESSAGE_MAX])
{
    size_t root = strcspn(message, "[. ");
    const char *word = is_field(message, root) ? door_word(message, root, kind) : NULL;
    (void)snprintf(out, ERR_MESSAGE_MAX, "%s%s", word ? word : "", word ? message + root : message);
}

err_t openai_error_of_prompt(err_t error, size_t prompt)
{
    size_t root = strcspn(error.message, "[. ");
    const char *word = door_word(error.message, root, OPENAI_COMPLETION);
    if (error.code != ERR_INVALID_ARGUMENT || !word || strcmp(word, "prompt") != 0)
        return error;
    err_t e = error;
    (void)snprintf(e.message, sizeof e.message, "prompt[%zu]%.480s", prompt, error.message + root);
    return e;
}

static const char *code_of(const err_t *error)
{
    switch (error->code) {
    case ERR_NOT_FOUND:
        return "model_not_found";
    case ERR_UNIMPLEMENTED:
        return "unsupported_parameter";
    case ERR_RESOURCE_EXHAUSTED:
        return "queue_full";
    case ERR_QUOTA_EXCEEDED:
        return "rate_limit_exceeded";
    case ERR_UNAUTHENTICATED:
        return "invalid_api_key";
    case ERR_PERMISSION_DENIED:
        return "permission_denied";
    case ERR_INVALID_ARGUMENT:
        return strncmp(error->message, "the prompt has ", 15) == 0 ? "context_length_exceeded" : NULL;
    default:
        return NULL;
    }
}

static bool encode(const char *message, const char *type, const char *param, const char *code,
                   struct buffer *out)
{
    bool good = buffer_append_text(out, "{\"error\":{\"message\":") &&
                buffer_append_json_string(out, message, strlen(message)) &&
                buffer_append_format(out, ",\"type\":\"%s\",\"param\":", type);
    good = good && (param[0] ? buffer_append_json_string(out, param, strlen(param))
                             : buffer_append_text(out, "null"));
    return good && buffer_append_format(out, code ? ",\"code\":\"%s\"}}" : ",\"code\":null}}", code);
}

bool openai_encode_error(const err_t *error, enum openai_kind kind, const char *param, struct buffer *out)
{
    char found[OPENAI_PARAM_BYTES_MAX] = "", message[ERR_MESSAGE_MAX];
    (void)snprintf(message, sizeof message, "%s", error->message);
    int status = openai_status_of(error->code);
    if (param && param[0]) {
        (void)snprintf(found, sizeof found, "%s", param);
    } else if (error->code == ERR_UNIMPLEMENTED && lacks_field(error->message)) {
        (void)snprintf(found, sizeof found, "%.*s", (int)path_length(error->message), error->message);
    } else if (status == 400) {
        find_param(error->message, kind, found);
        translate(error->message, kind, message);
    } else if (status == 404) {
        (void)snprintf(found, sizeof found, "model");
    }
    const char *type = type_of(status);
    if (error->code == ERR_QUOTA_EXCEEDED)
        type = strstr(error->message, "tokens a minute") ? "tokens" : "requests";
    return encode(message, type, found, code_of(error), out);
}

bool openai_encode_fault(int status, const char *message, struct buffer *out)
{
    return encode(message, type_of(status), "", NULL, out);
}
