/* bantam tokenize: one JSON string a line in, one JSON array of ids a line out; --decode the other way. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/model_path.h"
#include "cli/commands.h"
#include "text/tokenizer.h"

enum { TOKENIZE_LINE_BYTES_MAX = 1 << 30 };

struct tokenize_values {
    bool no_special, decode, skip_special_tokens;
};

static err_t encode_line(const struct tokenizer *tokenizer, const json_t *value, unsigned flags,
                         struct buffer *out)
{
    if (!json_is_string(value))
        return err_new(ERR_INVALID_ARGUMENT, "expected a JSON string");
    struct token_list ids = {0};
    err_t e =
        tokenizer_encode(tokenizer, json_string_value(value), json_string_length(value), NULL, flags, &ids);
    bool ok = e.code == ERR_OK && buffer_append_text(out, "[");
    for (size_t i = 0; i < ids.count && ok; i++)
        ok = buffer_append_format(out, "%s%u", i ? "," : "", ids.ids[i]);
    ok = ok && buffer_append_text(out, "]");
    token_list_free(&ids);
    if (e.code == ERR_OK && !ok)
        e = err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for a line");
    return e;
}

static err_t decode_line(const struct tokenizer *tokenizer, const json_t *value, bool skip_special,
                         struct buffer *out)
{
    size_t n = json_array_size(value);
    if (!json_is_array(value))
        return err_new(ERR_INVALID_ARGUMENT, "expected a JSON array of ids");
    uint32_t *ids = mem_alloc_array(n ? n : 1, sizeof *ids);
    struct buffer text = {.limit_bytes = TOKENIZE_LINE_BYTES_MAX};
    err_t e = ids ? err_ok() : err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for a line");
    for (size_t i = 0; i < n && e.code == ERR_OK; i++) {
        const json_t *id = json_array_get(value, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > UINT32_MAX)
            e = err_new(ERR_INVALID_ARGUMENT, "entry %zu is not a token id", i);
        else
            ids[i] = (uint32_t)json_integer_value(id);
    }
    if (e.code == ERR_OK)
        e = tokenizer_decode(tokenizer, ids, n, skip_special, &text);
    if (e.code == ERR_OK && !buffer_append_json_string(out, text.data ? text.data : "", text.size))
        e = err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for a line");
    buffer_free(&text);
    mem_free(ids);
    return e;
}

static err_t convert_line(const struct tokenizer *tokenizer, const struct tokenize_values *values,
                          const char *line, size_t size, struct buffer *out)
{
    json_error_t error;
    json_t *value = json_loadb(line, size, JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (!value)
        return err_new(ERR_INVALID_ARGUMENT, "not JSON: %s at byte %d", error.text, error.position);
    unsigned flags = (values->no_special ? 0 : TOKENIZE_ADD_SPECIAL) | TOKENIZE_PARSE_SPECIAL;
    err_t e = values->decode ? decode_line(tokenizer, value, values->skip_special_tokens, out)
                             : encode_line(tokenizer, value, flags, out);
    json_decref(value);
    return e;
}

/* A bad line ends the work: its number is in the message. */
static err_t convert_all(const struct tokenizer *tokenizer, const struct tokenize_values *values)
{
    char *line = NULL;
    size_t capacity = 0, number = 0;
    ssize_t size;
    struct buffer out = {.limit_bytes = TOKENIZE_LINE_BYTES_MAX};
    err_t e = err_ok();
    while (e.code == ERR_OK && !ferror(stdout) && (size = getline(&line, &capacity, stdin)) >= 0) {
        number++;
        buffer_clear(&out);
        while (size > 0 && (line[size - 1] == '\n' || line[size - 1] == '\r'))
            size--;
        if (size == 0)
            continue;
        e = convert_line(tokenizer, values, line, (size_t)size, &out);
        if (e.code != ERR_OK)
            e = err_prefix(e, "line %zu", number);
        else if (buffer_append_text(&out, "\n"))
            (void)fwrite(out.data, 1, out.size, stdout); /* main reports what could not be written */
        else
            e = err_new(ERR_RESOURCE_EXHAUSTED, "line %zu: out of memory for the output", number);
    }
    mem_free(line);
    buffer_free(&out);
    return e;
}

int command_tokenize(int argc, char *argv[])
{
    static struct tokenize_values values;
    const struct flag flags[] = {
        {.name = "no-special",
         .kind = FLAG_BOOL,
         .target = &values.no_special,
         .default_text = "false",
         .help = "do not add BOS and the like"},
        {.name = "decode",
         .kind = FLAG_BOOL,
         .target = &values.decode,
         .default_text = "false",
         .help = "arrays of ids in, JSON strings out"},
        {.name = "skip-special-tokens",
         .kind = FLAG_BOOL,
         .target = &values.skip_special_tokens,
         .default_text = "false",
         .help = "with --decode: leave special tokens out"},
    };
    const struct flag_command command = {
        .name = "bantam tokenize",
        .summary = "Reads one JSON string a line and prints one JSON array of token ids a line. Special "
                   "tokens written in "
                   "the text are recognised. Needs only the model's tokenizer files.",
        .positionals = "MODEL",
        .min_positionals = 1,
        .max_positionals = 1,
        .flags = flags,
        .n_flags = sizeof flags / sizeof *flags,
        .examples = "  echo '\"Hello world\"' | bantam tokenize demo/model\n",
    };
    struct flag_result arguments;
    int status;
    if (!parse_command(&command, argc, argv, &arguments, &status))
        return status;
    struct tokenizer *tokenizer = NULL;
    err_t e = model_path_check(arguments.positional[0], false);
    if (e.code == ERR_OK)
        e = tokenizer_load(arguments.positional[0], &tokenizer);
    if (e.code == ERR_OK)
        e = convert_all(tokenizer, &values);
    tokenizer_destroy(tokenizer);
    return e.code == ERR_OK ? 0 : report_error("bantam tokenize", &e);
}
