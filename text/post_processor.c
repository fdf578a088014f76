#include "text/post_processor.h"

#include <string.h>
#include "text/json_field.h"
#include "text/tokenizer.h"

/* Puts new ids outside of those that earlier processors put. */
static err_t wrap(struct post_processor *out, const struct post_processor *outer)
{
    if (out->n_before + outer->n_before > POST_IDS_MAX || out->n_after + outer->n_after > POST_IDS_MAX)
        return err_new(ERR_DATA_LOSS, "the post-processor puts more than %d tokens around a text",
                       POST_IDS_MAX);
    memmove(out->before + outer->n_before, out->before, out->n_before * sizeof *out->before);
    memcpy(out->before, outer->before, outer->n_before * sizeof *out->before);
    memcpy(out->after + out->n_after, outer->after, outer->n_after * sizeof *out->after);
    out->n_before += outer->n_before;
    out->n_after += outer->n_after;
    return err_ok();
}

static err_t add_id(const json_t *value, const struct vocab *vocab, uint32_t *ids, size_t *n)
{
    size_t text_bytes;
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        json_integer_value(value) >= TOKENIZER_VOCAB_MAX ||
        vocab_text(vocab, (uint32_t)json_integer_value(value), &text_bytes) == NULL)
        return err_new(ERR_DATA_LOSS, "the post-processor names an id that is no token's");
    if (*n == POST_IDS_MAX)
        return err_new(ERR_DATA_LOSS, "the post-processor puts more than %d tokens around a text",
                       POST_IDS_MAX);
    ids[(*n)++] = (uint32_t)json_integer_value(value);
    return err_ok();
}

static err_t parse_special(const json_t *json, const json_t *piece, const struct vocab *vocab, uint32_t *ids,
                           size_t *n)
{
    const char *name;
    size_t size_bytes;
    const json_t *list;
    TRY(json_field_text_required(piece, "id", &name, &size_bytes));
    const json_t *token = json_object_get(json_object_get(json, "special_tokens"), name);
    if (token == NULL)
        return err_new(ERR_DATA_LOSS, "TemplateProcessing: \"%s\" is not in \"special_tokens\"", name);
    TRY(json_field_array(token, "ids", &list));
    for (size_t i = 0; i < json_array_size(list); i++)
        TRY(add_id(json_array_get(list, i), vocab, ids, n));
    return err_ok();
}

static err_t parse_template(const json_t *json, const struct vocab *vocab, struct post_processor *out)
{
    const json_t *single;
    struct post_processor outer = {.n_before = 0};
    bool seen = false;
    TRY(json_field_array(json, "single", &single));
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *piece = json_array_get(single, i);
        const json_t *special = json_object_get(piece, "SpecialToken");
        const json_t *sequence = json_object_get(piece, "Sequence");
        if (special != NULL) {
            TRY(parse_special(json, special, vocab, seen ? outer.after : outer.before,
                              seen ? &outer.n_after : &outer.n_before));
            continue;
        }
        const char *id;
        size_t size_bytes;
        TRY(json_field_text_required(sequence, "id", &id, &size_bytes));
        if (strcmp(id, "A") != 0 || seen)
            return err_new(ERR_UNIMPLEMENTED, "TemplateProcessing: \"single\" must have the sequence A once");
        seen = true;
    }
    if (!seen)
        return err_new(ERR_UNIMPLEMENTED, "TemplateProcessing: \"single\" must have the sequence A once");
    return wrap(out, &outer);
}

/* {"cls": [text, id], "sep": [text, id]} */
static err_t parse_pair(const json_t *json, const struct vocab *vocab, struct post_processor *out)
{
    struct post_processor outer = {.n_before = 0};
    TRY(add_id(json_array_get(json_object_get(json, "cls"), 1), vocab, outer.before, &outer.n_before));
    TRY(add_id(json_array_get(json_object_get(json, "sep"), 1), vocab, outer.after, &outer.n_after));
    return wrap(out, &outer);
}

static err_t parse_into(const json_t *json, unsigned depth, const struct vocab *vocab,
                        struct post_processor *out)
{
    const char *type;
    const json_t *list;
    TRY(json_field_sequence(json, "processors", depth, &list));
    for (size_t i = 0; i < json_array_size(list); i++)
        TRY(parse_into(json_array_get(list, i), depth + 1, vocab, out));
    if (list != NULL)
        return err_ok();
    TRY(json_field_type(json, &type));
    if (strcmp(type, "ByteLevel") == 0)
        return err_ok(); /* changes offsets only */
    if (strcmp(type, "TemplateProcessing") == 0)
        return parse_template(json, vocab, out);
    if (strcmp(type, "RobertaProcessing") == 0 || strcmp(type, "BertProcessing") == 0)
        return parse_pair(json, vocab, out);
    return err_new(ERR_UNIMPLEMENTED, "post-processor type \"%s\"", type);
}

err_t post_processor_parse(const json_t *json, const struct vocab *vocab, struct post_processor *out)
{
    memset(out, 0, sizeof *out);
    return json == NULL || json_is_null(json) ? err_ok() : parse_into(json, 0, vocab, out);
}
