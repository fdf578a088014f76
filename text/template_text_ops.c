#include "text/template_text_ops.h"

#include <string.h>
#include <utf8proc.h>
#include "base/utf8.h"
#include "text/unicode_class.h"

/* Length of the character at text[position], which exists; invalid bytes count as one each. */
static size_t character_at(const struct text *text, size_t position, uint32_t *code_point)
{
    size_t length = utf8_decode(text->data + position, text->size_bytes - position, code_point);
    if (length == 0)
        *code_point = 0xfffd;
    return length ? length : 1;
}

static size_t character_before(const struct text *text, size_t position, uint32_t *code_point)
{
    size_t start = position - 1;
    while (start > 0 && ((uint8_t)text->data[start] & 0xc0) == 0x80)
        start--;
    return character_at(text, start, code_point) == position - start ? position - start : 1;
}

static bool is_stripped(uint32_t code_point, const struct text *characters)
{
    if (characters == NULL)
        return unicode_is_python_space(code_point);
    for (size_t i = 0; i < characters->size_bytes;) {
        uint32_t other;
        i += character_at(characters, i, &other);
        if (other == code_point)
            return true;
    }
    return false;
}

bool text_strip(struct run *run, const struct node *at, const struct text *text, unsigned sides,
                const struct text *characters, struct value *out)
{
    size_t start = 0, end = text->size_bytes, length;
    uint32_t code_point = 0;
    while ((sides & STRIP_LEFT) && start < end) {
        length = character_at(text, start, &code_point);
        if (!is_stripped(code_point, characters))
            break;
        start += length;
    }
    while ((sides & STRIP_RIGHT) && end > start) {
        length = character_before(text, end, &code_point);
        if (!is_stripped(code_point, characters))
            break;
        end -= length;
    }
    size_t cut = text->size_bytes - (end - start);
    size_t work = characters ? cut * (characters->size_bytes + 1) : cut;
    return run_charge_scan(run, at, work) && text_slice(run, at, text, start, end, out);
}

static bool put_marked(struct run *run, const struct node *at, struct sink *sink, const char *data,
                       size_t size_bytes, const struct text *from, size_t position)
{
    uint8_t marks[8];
    if (from->marks != NULL)
        memset(marks, from->marks[position], sizeof marks);
    struct text part = {data, from->marks ? marks : NULL, size_bytes};
    return sink_put(run, at, sink, &part);
}

static bool starts_word(enum case_rule rule, uint32_t before)
{
    if (rule == CASE_TITLE_LETTERS)
        return !(unicode_classes(before) & CHAR_LETTER);
    return unicode_is_python_space(before) || before == '-' || before == '(' || before == '{' ||
           before == '[' || before == '<';
}

static bool put_cased(struct run *run, const struct node *at, struct sink *sink, const struct text *text,
                      size_t position, uint32_t code_point, bool upper)
{
    char cased[UTF8_MAX_BYTES];
    if (upper && code_point == 0xdf)
        return put_marked(run, at, sink, "SS", 2, text, position);
    if (!upper && code_point == 0x130)
        return put_marked(run, at, sink, "i\xcc\x87", 3, text, position);
    utf8proc_int32_t changed = upper ? utf8proc_toupper((utf8proc_int32_t)code_point)
                                     : utf8proc_tolower((utf8proc_int32_t)code_point);
    return put_marked(run, at, sink, cased, utf8_encode((uint32_t)changed, cased), text, position);
}

bool text_change_case(struct run *run, const struct node *at, const struct text *text, enum case_rule rule,
                      struct value *out)
{
    struct sink sink = {.text = {0}};
    uint32_t before = ' ';
    bool ok = run_charge_scan(run, at, 4 * text->size_bytes);
    for (size_t i = 0; i < text->size_bytes && ok;) {
        uint32_t code_point;
        size_t length = character_at(text, i, &code_point);
        bool upper = rule == CASE_UPPER || (rule == CASE_CAPITALIZE && i == 0) ||
                     (rule >= CASE_TITLE && starts_word(rule, before));
        ok = put_cased(run, at, &sink, text, i, code_point, upper);
        before = code_point;
        i += length;
    }
    if (ok)
        return sink_take(run, at, &sink, out);
    sink_free(&sink);
    return false;
}

static bool any_mark(const struct text *text, size_t start, size_t size_bytes)
{
    for (size_t i = 0; text->marks != NULL && i < size_bytes; i++)
        if (text->marks[start + i] != 0)
            return true;
    return false;
}

/* new_text in the place of text[start..start + size): marked when what it replaces was. */
static bool put_replacement(struct run *run, const struct node *at, struct sink *sink,
                            const struct text *text, size_t start, size_t size_bytes,
                            const struct text *new_text)
{
    if (!any_mark(text, start, size_bytes))
        return sink_put(run, at, sink, new_text);
    char *data;
    uint8_t *marks;
    struct value copy;
    if (!text_new(run, at, new_text->size_bytes, true, &data, &marks, &copy))
        return false;
    memcpy(data, new_text->data, new_text->size_bytes);
    memset(marks, 1, new_text->size_bytes);
    return sink_put(run, at, sink, copy.text);
}

static bool put_range(struct run *run, const struct node *at, struct sink *sink, const struct text *text,
                      size_t start, size_t end)
{
    struct text part = {text->data + start, text->marks ? text->marks + start : NULL, end - start};
    return sink_put(run, at, sink, &part);
}

/* An empty `old` is found in front of every character and at the end. */
static size_t next_match(const struct text *text, const struct text *old, size_t from, bool first)
{
    if (old->size_bytes > 0)
        return text_find(text, old, from);
    if (first)
        return 0;
    uint32_t code_point;
    return from < text->size_bytes ? from + character_at(text, from, &code_point) : SIZE_MAX;
}

bool text_replace(struct run *run, const struct node *at, const struct text *text, const struct text *old,
                  const struct text *new_text, size_t most, struct value *out)
{
    struct sink sink = {.text = {0}};
    size_t done = 0;
    bool ok = run_charge_bytes(run, at, text->size_bytes);
    for (size_t n = 0; n < most && ok; n++) {
        size_t found = next_match(text, old, done, n == 0);
        if (found == SIZE_MAX)
            break;
        ok = run_charge(run, at, 1) && put_range(run, at, &sink, text, done, found) &&
             put_replacement(run, at, &sink, text, found, old->size_bytes, new_text);
        done = found + old->size_bytes;
    }
    ok = ok && put_range(run, at, &sink, text, done, text->size_bytes);
    if (ok)
        return sink_take(run, at, &sink, out);
    sink_free(&sink);
    return false;
}

/* Where a cut is: [start, end) goes. */
struct cut {
    size_t start, end;
};

static bool is_space_at(const struct text *text, size_t position, size_t *length)
{
    uint32_t code_point;
    *length = character_at(text, position, &code_point);
    return unicode_is_python_space(code_point);
}

/* The first cut at or after `from`; false = none. */
static bool next_cut(const struct text *text, const struct text *separator, size_t from, struct cut *out)
{
    size_t length;
    if (separator != NULL) {
        out->start = text_find(text, separator, from);
        out->end = out->start + separator->size_bytes;
        return out->start != SIZE_MAX;
    }
    out->start = from;
    while (out->start < text->size_bytes && !is_space_at(text, out->start, &length))
        out->start += length;
    out->end = out->start;
    while (out->end < text->size_bytes && is_space_at(text, out->end, &length))
        out->end += length;
    return out->start < text->size_bytes;
}

static size_t count_cuts(const struct text *text, const struct text *separator, size_t from)
{
    struct cut cut;
    size_t n = 0;
    for (; next_cut(text, separator, from, &cut); n++)
        from = cut.end;
    return n;
}

bool text_split(struct run *run, const struct node *at, const struct text *text, const struct text *separator,
                size_t most, bool from_right, struct value *out)
{
    if (separator != NULL && separator->size_bytes == 0)
        return run_type_error(run, at, "split with an empty separator");
    /* a text is searched as fast as it is copied; white space takes several looks at each character */
    if (!(separator ? run_charge_bytes(run, at, 2 * text->size_bytes)
                    : run_charge_scan(run, at, 4 * text->size_bytes)))
        return false;
    size_t n_cuts = separator ? count_cuts(text, separator, 0) : 0;
    if (separator == NULL) {
        /* white space at the ends makes no empty parts, but stays where no cut is made */
        struct value inner, half;
        if (!text_strip(run, at, text, STRIP_BOTH, NULL, &inner) ||
            !text_strip(run, at, text, from_right ? STRIP_RIGHT : STRIP_LEFT, NULL, &half))
            return false;
        n_cuts = count_cuts(inner.text, NULL, 0);
        text = n_cuts > most ? half.text : inner.text;
        n_cuts = count_cuts(text, NULL, 0);
    }
    size_t skip = from_right && n_cuts > most ? n_cuts - most : 0; /* cuts that are not made, at the left */
    size_t n_made = n_cuts - skip < most ? n_cuts - skip : most;
    struct value *items;
    bool empty = separator == NULL && text->size_bytes == 0;
    if (!list_new(run, at, empty ? 0 : n_made + 1, VALUE_LIST, &items, out))
        return false;
    if (empty)
        return true;
    size_t start = 0, from = 0;
    struct cut cut;
    for (size_t i = 0; i < skip + n_made && next_cut(text, separator, from, &cut); i++) {
        from = cut.end;
        if (i < skip)
            continue;
        if (!text_slice(run, at, text, start, cut.start, &items[i - skip]))
            return false;
        start = cut.end;
    }
    return text_slice(run, at, text, start, text->size_bytes, &items[n_made]);
}

bool text_join_list(struct run *run, const struct node *at, const struct list *items,
                    const struct text *separator, struct value *out)
{
    struct sink sink = {.text = {0}};
    bool ok = true;
    for (size_t i = 0; i < items->count && ok; i++) {
        const struct text *text;
        ok = run_charge(run, at, 1) && (i == 0 || sink_put(run, at, &sink, separator)) &&
             value_to_text(run, at, &items->items[i], &text) && sink_put(run, at, &sink, text);
    }
    if (ok)
        return sink_take(run, at, &sink, out);
    sink_free(&sink);
    return false;
}
