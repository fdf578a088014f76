/* tokenizer.json's "pre_tokenizer" -> struct pre_tokenizer. */
#include <string.h>

#include "base/alloc.h"
#include "base/utf8.h"
#include "text/json_field.h"
#include "text/pre_tokenizer.h"
#include "text/unicode_class.h"

void pre_tokenizer_free(struct pre_tokenizer *pre)
{
    for (size_t i = 0; i < pre->n_steps; i++)
        mem_free(pre->steps[i].text);
    memset(pre, 0, sizeof *pre);
}

static err_t step_new(struct pre_tokenizer *pre, enum pre_kind kind, struct pre_step **out)
{
    if (pre->byte_level)
        return err_new(ERR_UNIMPLEMENTED, "a pre-tokenizer after ByteLevel");
    if (pre->n_steps == PRE_TOKENIZER_STEPS_MAX)
        return err_new(ERR_DATA_LOSS, "more than %d pre-tokenizer steps", PRE_TOKENIZER_STEPS_MAX);
    *out = &pre->steps[pre->n_steps++];
    (*out)->kind = kind;
    return err_ok();
}

static err_t step_text(struct pre_step *step, const char *text, size_t text_bytes)
{
    step->text = mem_strndup(text, text_bytes);
    step->text_bytes = text_bytes;
    return step->text ? err_ok() : err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the pre-tokenizer");
}

static err_t parse_behavior(const json_t *json, enum split_behavior fallback, enum split_behavior *out)
{
    static const char *const NAMES[] = {
        [SPLIT_REMOVED] = "Removed",
        [SPLIT_ISOLATED] = "Isolated",
        [SPLIT_WITH_PREVIOUS] = "MergedWithPrevious",
        [SPLIT_WITH_NEXT] = "MergedWithNext",
        [SPLIT_CONTIGUOUS] = "Contiguous",
    };
    const char *name;
    size_t size_bytes;
    TRY(json_field_text(json, "behavior", &name, &size_bytes));
    *out = fallback;
    if (name == NULL)
        return err_ok();
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++)
        if (strcmp(NAMES[i], name) == 0) {
            *out = (enum split_behavior)i;
            return err_ok();
        }
    return err_new(ERR_DATA_LOSS,
                   "\"behavior\" is \"%s\", expected Removed, Isolated, MergedWithPrevious, "
                   "MergedWithNext or Contiguous",
                   name);
}

static err_t parse_split(const json_t *json, struct pre_tokenizer *out)
{
    const char *text;
    size_t text_bytes;
    bool is_regex;
    struct pre_step *step = NULL;
    TRY(json_field_pattern(json, &text, &text_bytes, &is_regex));
    TRY(step_new(out, is_regex ? PRE_SPLIT_PATTERN : PRE_SPLIT_TEXT, &step));
    TRY(parse_behavior(json, SPLIT_ISOLATED, &step->behavior));
    TRY(json_field_bool(json, "invert", false, &step->invert));
    if (!is_regex)
        return text_bytes == 0 ? err_new(ERR_DATA_LOSS, "pre-tokenizer Split with an empty pattern")
                               : step_text(step, text, text_bytes);
    if (!split_pattern_find(text, &step->pattern))
        return err_new(ERR_UNIMPLEMENTED, "pre-tokenizer Split with the regular expression \"%s\"", text);
    return err_ok();
}

static err_t parse_byte_level(const json_t *json, struct pre_tokenizer *out)
{
    bool add_prefix_space, use_regex;
    struct pre_step *step = NULL;
    TRY(json_field_bool(json, "add_prefix_space", true, &add_prefix_space));
    TRY(json_field_bool(json, "use_regex", true, &use_regex));
    if (out->byte_level)
        return err_new(ERR_UNIMPLEMENTED, "two pre-tokenizers ByteLevel");
    if (add_prefix_space)
        TRY(step_new(out, PRE_PREFIX_SPACE, &step));
    if (use_regex) {
        TRY(step_new(out, PRE_SPLIT_PATTERN, &step));
        step->pattern = SPLIT_GPT2;
        step->behavior = SPLIT_ISOLATED;
    }
    out->byte_level = true;
    return err_ok();
}

err_t metaspace_parse(const json_t *json, const char **text, size_t *text_bytes, enum prepend_scheme *prepend)
{
    const char *scheme;
    size_t size_bytes;
    uint32_t code_point;
    bool add_prefix_space;
    TRY(json_field_text_required(json, "replacement", text, text_bytes));
    if (*text_bytes == 0 || utf8_decode(*text, *text_bytes, &code_point) != *text_bytes)
        return err_new(ERR_DATA_LOSS, "Metaspace: \"replacement\" must be one character");
    TRY(json_field_text(json, "prepend_scheme", &scheme, &size_bytes));
    TRY(json_field_bool(json, "add_prefix_space", true, &add_prefix_space));
    if (scheme == NULL || strcmp(scheme, "always") == 0)
        *prepend = PREPEND_ALWAYS;
    else if (strcmp(scheme, "first") == 0)
        *prepend = PREPEND_FIRST;
    else if (strcmp(scheme, "never") == 0)
        *prepend = PREPEND_NEVER;
    else
        return err_new(ERR_DATA_LOSS, "\"prepend_scheme\" is \"%s\", expected always, first or never",
                       scheme);
    if (!add_prefix_space && scheme != NULL && *prepend != PREPEND_NEVER)
        return err_new(ERR_DATA_LOSS,
                       "Metaspace: \"add_prefix_space\" is false, but \"prepend_scheme\" is \"%s\"", scheme);
    if (!add_prefix_space)
        *prepend = PREPEND_NEVER;
    return err_ok();
}

static err_t parse_metaspace(const json_t *json, struct pre_tokenizer *out)
{
    const char *text;
    size_t text_bytes;
    enum prepend_scheme prepend;
    bool split;
    struct pre_step *step = NULL;
    TRY(metaspace_parse(json, &text, &text_bytes, &prepend));
    TRY(json_field_bool(json, "split", true, &split));
    TRY(step_new(out, PRE_METASPACE, &step));
    step->prepend = prepend;
    TRY(step_text(step, text, text_bytes));
    if (!split)
        return err_ok();
    TRY(step_new(out, PRE_SPLIT_TEXT, &step));
    step->behavior = SPLIT_WITH_NEXT;
    return step_text(step, text, text_bytes);
}

static err_t parse_class(struct pre_tokenizer *out, unsigned classes, enum split_behavior behavior,
                         struct pre_step **step)
{
    TRY(step_new(out, PRE_SPLIT_CLASS, step));
    (*step)->classes = classes;
    (*step)->behavior = behavior;
    return err_ok();
}

static err_t parse_one(const json_t *json, const char *type, struct pre_tokenizer *out)
{
    struct pre_step *step = NULL;
    if (strcmp(type, "ByteLevel") == 0)
        return parse_byte_level(json, out);
    if (strcmp(type, "Split") == 0)
        return parse_split(json, out);
    if (strcmp(type, "Metaspace") == 0)
        return parse_metaspace(json, out);
    if (strcmp(type, "Digits") == 0) {
        bool individual;
        TRY(json_field_bool(json, "individual_digits", false, &individual));
        return parse_class(out, CHAR_NUMBER, individual ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS, &step);
    }
    if (strcmp(type, "WhitespaceSplit") == 0)
        return parse_class(out, CHAR_SPACE, SPLIT_REMOVED, &step);
    if (strcmp(type, "Punctuation") == 0) {
        enum split_behavior behavior;
        TRY(parse_behavior(json, SPLIT_ISOLATED, &behavior));
        TRY(parse_class(out, CHAR_PUNCTUATION, behavior, &step));
        step->ascii_punctuation = true;
        return err_ok();
    }
    if (strcmp(type, "Whitespace") == 0) {
        TRY(step_new(out, PRE_SPLIT_PATTERN, &step));
        step->pattern = SPLIT_WORDS;
        step->behavior = SPLIT_REMOVED;
        step->invert = true;
        return err_ok();
    }
    return err_new(ERR_UNIMPLEMENTED, "pre-tokenizer type \"%s\"", type);
}

static err_t parse_into(const json_t *json, unsigned depth, struct pre_tokenizer *out)
{
    const char *type;
    const json_t *list;
    TRY(json_field_sequence(json, "pretokenizers", depth, &list));
    for (size_t i = 0; i < json_array_size(list); i++)
        TRY(parse_into(json_array_get(list, i), depth + 1, out));
    if (list != NULL)
        return err_ok();
    TRY(json_field_type(json, &type));
    return parse_one(json, type, out);
}

err_t pre_tokenizer_parse(const json_t *json, struct pre_tokenizer *out)
{
    memset(out, 0, sizeof *out);
    return json == NULL || json_is_null(json) ? err_ok() : parse_into(json, 0, out);
}
