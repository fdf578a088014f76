#include "text/normalizer.h"

#include <string.h>
#include <utf8proc.h>
#include "base/alloc.h"
#include "base/utf8.h"
#include "text/json_field.h"
#include "text/unicode_class.h"

static const struct {
    const char *name;
    enum normalizer_kind kind;
} KINDS[] = {
    {"NFC", NORMALIZE_NFC},
    {"NFD", NORMALIZE_NFD},
    {"NFKC", NORMALIZE_NFKC},
    {"NFKD", NORMALIZE_NFKD},
    {"Lowercase", NORMALIZE_LOWERCASE},
    {"StripAccents", NORMALIZE_STRIP_ACCENTS},
    {"Strip", NORMALIZE_STRIP},
    {"Replace", NORMALIZE_REPLACE},
    {"Prepend", NORMALIZE_PREPEND},
};

static err_t copy_text(const char *text, size_t text_bytes, char **out, size_t *out_bytes)
{
    *out = mem_strndup(text, text_bytes);
    *out_bytes = text_bytes;
    return *out ? err_ok() : err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the normaliser");
}

static err_t parse_replace(const json_t *json, struct normalizer_step *step)
{
    const char *text;
    size_t text_bytes;
    bool is_regex;
    TRY(json_field_pattern(json, &text, &text_bytes, &is_regex));
    if (is_regex)
        return err_new(ERR_UNIMPLEMENTED, "normaliser Replace with the regular expression \"%s\"", text);
    if (text_bytes == 0)
        return err_new(ERR_DATA_LOSS, "normaliser Replace with an empty pattern");
    TRY(copy_text(text, text_bytes, &step->pattern, &step->pattern_bytes));
    TRY(json_field_text_required(json, "content", &text, &text_bytes));
    return copy_text(text, text_bytes, &step->content, &step->content_bytes);
}

static err_t parse_step(const json_t *json, const char *type, struct normalizer_step *step)
{
    size_t i = 0, n = sizeof KINDS / sizeof KINDS[0];
    while (i < n && strcmp(KINDS[i].name, type) != 0)
        i++;
    if (i == n)
        return err_new(ERR_UNIMPLEMENTED, "normaliser type \"%s\"", type);
    step->kind = KINDS[i].kind;
    const char *text;
    size_t text_bytes;
    switch (step->kind) {
    case NORMALIZE_STRIP:
        TRY(json_field_bool(json, "strip_left", true, &step->strip_left));
        return json_field_bool(json, "strip_right", true, &step->strip_right);
    case NORMALIZE_REPLACE:
        return parse_replace(json, step);
    case NORMALIZE_PREPEND:
        TRY(json_field_text_required(json, "prepend", &text, &text_bytes));
        return copy_text(text, text_bytes, &step->content, &step->content_bytes);
    default:
        return err_ok();
    }
}

static err_t parse_into(const json_t *json, unsigned depth, struct normalizer *out)
{
    const char *type;
    const json_t *list;
    TRY(json_field_sequence(json, "normalizers", depth, &list));
    for (size_t i = 0; i < json_array_size(list); i++)
        TRY(parse_into(json_array_get(list, i), depth + 1, out));
    if (list != NULL)
        return err_ok();
    TRY(json_field_type(json, &type));
    if (out->n_steps == NORMALIZER_STEPS_MAX)
        return err_new(ERR_DATA_LOSS, "more than %d normalisers", NORMALIZER_STEPS_MAX);
    return parse_step(json, type, &out->steps[out->n_steps++]);
}

err_t normalizer_parse(const json_t *json, struct normalizer *out)
{
    memset(out, 0, sizeof *out);
    return json == NULL || json_is_null(json) ? err_ok() : parse_into(json, 0, out);
}

void normalizer_free(struct normalizer *normalizer)
{
    for (size_t i = 0; i < normalizer->n_steps; i++) {
        mem_free(normalizer->steps[i].pattern);
        mem_free(normalizer->steps[i].content);
    }
    memset(normalizer, 0, sizeof *normalizer);
}

void normalizer_scratch_free(struct normalizer_scratch *scratch)
{
    for (int i = 0; i < 2; i++) {
        buffer_free(&scratch->text[i]);
        buffer_free(&scratch->marks[i]);
    }
}

/* Where a step writes: text and, when the piece has marks, one mark a byte. */
struct marked_out {
    struct buffer *text, *marks; /* marks NULL = not wanted */
};

static bool put(struct marked_out out, const char *text, size_t text_bytes, const uint8_t *marks)
{
    return buffer_append(out.text, text, text_bytes) &&
           (out.marks == NULL || buffer_append(out.marks, marks, text_bytes));
}

/* text with the same mark on each of its bytes. */
static bool put_marked(struct marked_out out, const char *text, size_t text_bytes, uint8_t mark)
{
    if (!buffer_append(out.text, text, text_bytes))
        return false;
    uint8_t marks[256];
    memset(marks, mark, sizeof marks);
    for (size_t done = 0; out.marks != NULL && done < text_bytes;) {
        size_t part = text_bytes - done < sizeof marks ? text_bytes - done : sizeof marks;
        if (!buffer_append(out.marks, marks, part))
            return false;
        done += part;
    }
    return true;
}

static bool put_slice(struct marked_out out, const struct text_piece *in, size_t start, size_t end)
{
    return put(out, in->text + start, end - start, in->untrusted ? in->untrusted + start : NULL);
}

/* End of the run of bytes from `start` that have the same mark. */
static size_t mark_run_end(const struct text_piece *in, size_t start)
{
    if (in->untrusted == NULL)
        return in->size_bytes;
    size_t end = start + 1;
    while (end < in->size_bytes && in->untrusted[end] == in->untrusted[start])
        end++;
    return end;
}

static utf8proc_option_t form_options(enum normalizer_kind kind)
{
    bool compatible = kind == NORMALIZE_NFKC || kind == NORMALIZE_NFKD;
    bool composed = kind == NORMALIZE_NFC || kind == NORMALIZE_NFKC;
    return UTF8PROC_STABLE | (composed ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
           (compatible ? UTF8PROC_COMPAT : 0);
}

static bool put_form(struct marked_out out, const char *text, size_t text_bytes, uint8_t mark,
                     utf8proc_option_t options)
{
    const utf8proc_uint8_t *from = (const utf8proc_uint8_t *)text;
    utf8proc_ssize_t from_bytes = (utf8proc_ssize_t)text_bytes;
    utf8proc_ssize_t n = utf8proc_decompose(from, from_bytes, NULL, 0, options);
    utf8proc_int32_t *form = n < 0 ? NULL : mem_alloc_array((size_t)n + 1, sizeof *form);
    if (form == NULL)
        return false;
    n = utf8proc_decompose(from, from_bytes, form, n, options);
    n = n < 0 ? n : utf8proc_reencode(form, n, options); /* now UTF-8 in the same memory */
    bool ok = n >= 0 && put_marked(out, (const char *)form, (size_t)n, mark);
    mem_free(form);
    return ok;
}

/* Every form leaves ASCII as it is, and an ASCII character never joins what stands in front of it: only the
 * other stretches, each with the ASCII character that it may join, need work. */
static bool put_unicode_form(struct marked_out out, const char *text, size_t text_bytes, uint8_t mark,
                             enum normalizer_kind kind)
{
    utf8proc_option_t options = form_options(kind);
    for (size_t i = 0; i < text_bytes;) {
        size_t other = i;
        while (other < text_bytes && (uint8_t)text[other] < 0x80)
            other++;
        size_t start = other < text_bytes && other > i ? other - 1 : other, end = other;
        while (end < text_bytes && (uint8_t)text[end] >= 0x80)
            end++;
        if (!put_marked(out, text + i, start - i, mark) ||
            (end > start && !put_form(out, text + start, end - start, mark, options)))
            return false;
        i = end;
    }
    return true;
}

static bool run_unicode_form(const struct text_piece *in, struct marked_out out, enum normalizer_kind kind)
{
    for (size_t start = 0; start < in->size_bytes;) {
        size_t end = mark_run_end(in, start);
        uint8_t mark = in->untrusted ? in->untrusted[start] : 0;
        if (!put_unicode_form(out, in->text + start, end - start, mark, kind))
            return false;
        start = end;
    }
    return true;
}

/* Lower case by character, without context; only U+0130 becomes two. */
static bool put_lower(struct marked_out out, uint32_t code_point, uint8_t mark)
{
    char lower[UTF8_MAX_BYTES];
    if (code_point == 0x130)
        return put_marked(out, "i\xcc\x87", 3, mark);
    size_t length = utf8_encode((uint32_t)utf8proc_tolower((utf8proc_int32_t)code_point), lower);
    return put_marked(out, lower, length, mark);
}

static bool run_by_character(const struct text_piece *in, struct marked_out out, enum normalizer_kind kind)
{
    for (size_t i = 0; i < in->size_bytes;) {
        uint32_t code_point = 0;
        size_t length = utf8_decode(in->text + i, in->size_bytes - i, &code_point);
        bool ok = kind == NORMALIZE_LOWERCASE
                      ? put_lower(out, code_point, in->untrusted ? in->untrusted[i] : 0)
                      : (unicode_classes(code_point) & CHAR_MARK) || put_slice(out, in, i, i + length);
        if (!ok)
            return false;
        i += length;
    }
    return true;
}

static bool run_strip(const struct text_piece *in, struct marked_out out, const struct normalizer_step *step)
{
    size_t first = 0, last = 0; /* the text without its outer white space */
    bool seen = false;
    for (size_t i = 0; i < in->size_bytes;) {
        uint32_t code_point = 0;
        size_t length = utf8_decode(in->text + i, in->size_bytes - i, &code_point);
        if (!(unicode_classes(code_point) & CHAR_SPACE)) {
            if (!seen)
                first = i;
            seen = true;
            last = i + length;
        }
        i += length;
    }
    if (!seen) {
        bool strips = step->strip_left || step->strip_right;
        return put_slice(out, in, 0, strips ? 0 : in->size_bytes);
    }
    return put_slice(out, in, step->strip_left ? first : 0, step->strip_right ? last : in->size_bytes);
}

/* What replaces untrusted bytes is untrusted. */
static bool run_replace(const struct text_piece *in, struct marked_out out,
                        const struct normalizer_step *step)
{
    size_t done = 0;
    while (done < in->size_bytes) {
        const char *found =
            memmem(in->text + done, in->size_bytes - done, step->pattern, step->pattern_bytes);
        if (found == NULL)
            break;
        size_t start = (size_t)(found - in->text), end = start + step->pattern_bytes;
        uint8_t mark = 0;
        for (size_t i = start; i < end && in->untrusted != NULL; i++)
            mark |= in->untrusted[i];
        if (!put_slice(out, in, done, start) || !put_marked(out, step->content, step->content_bytes, mark))
            return false;
        done = end;
    }
    return put_slice(out, in, done, in->size_bytes);
}

static bool run_step(const struct normalizer_step *step, const struct text_piece *in, struct marked_out out)
{
    switch (step->kind) {
    case NORMALIZE_NFC:
    case NORMALIZE_NFD:
    case NORMALIZE_NFKC:
    case NORMALIZE_NFKD:
        return run_unicode_form(in, out, step->kind);
    case NORMALIZE_LOWERCASE:
    case NORMALIZE_STRIP_ACCENTS:
        return run_by_character(in, out, step->kind);
    case NORMALIZE_STRIP:
        return run_strip(in, out, step);
    case NORMALIZE_REPLACE:
        return run_replace(in, out, step);
    case NORMALIZE_PREPEND:
        return put_marked(out, step->content, step->content_bytes, 0) &&
               put_slice(out, in, 0, in->size_bytes);
    }
    return false;
}

err_t normalizer_run(const struct normalizer *normalizer, const struct text_piece *in,
                     struct normalizer_scratch *scratch, struct text_piece *out)
{
    *out = *in;
    for (size_t i = 0; i < normalizer->n_steps && out->size_bytes > 0; i++) {
        struct buffer *text = &scratch->text[i & 1], *marks = &scratch->marks[i & 1];
        text->limit_bytes = marks->limit_bytes = NORMALIZED_BYTES_MAX;
        buffer_clear(text);
        buffer_clear(marks);
        struct marked_out to = {text, in->untrusted ? marks : NULL};
        if (!run_step(&normalizer->steps[i], out, to))
            return err_new(ERR_RESOURCE_EXHAUSTED, "the normalised text does not fit into %d bytes",
                           NORMALIZED_BYTES_MAX);
        out->text = text->data;
        out->size_bytes = text->size;
        out->untrusted = in->untrusted ? (const uint8_t *)marks->data : NULL;
    }
    return err_ok();
}
