#include "text/split_scanner.h"

#include <string.h>
#include "base/assert.h"
#include "base/utf8.h"
#include "text/unicode_class.h"

static const struct {
    const char *regex;
    enum split_pattern pattern;
} PATTERNS[] = {
    {"'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+", SPLIT_GPT2},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
     "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     SPLIT_LLAMA3},
    {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| "
     "?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
     SPLIT_LLAMA3},
    {"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
     "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     SPLIT_QWEN2},
    {"[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|"
     "'ve|'m|'ll|'d)?|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"
     "]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\p{N}{1,3}| "
     "?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     SPLIT_O200K},
    {"[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^\\r\\n\\p{"
     "L}"
     "\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}| "
     "?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
     SPLIT_TEKKEN},
    {"\\p{N}", SPLIT_NUMBER},
    {"\\p{N}{1,3}", SPLIT_NUMBERS_UP_TO_3},
    {"\\s+", SPLIT_SPACES},
};

bool split_pattern_find(const char *regex, enum split_pattern *out)
{
    for (size_t i = 0; i < sizeof PATTERNS / sizeof PATTERNS[0]; i++)
        if (strcmp(PATTERNS[i].regex, regex) == 0) {
            *out = PATTERNS[i].pattern;
            return true;
        }
    return false;
}

/* One character; length 0 at the end of the text. */
struct scan_char {
    uint32_t code_point;
    unsigned classes;
    size_t length;
};

struct scan_text {
    const char *text;
    size_t size_bytes;
};

static struct scan_char char_at(struct scan_text in, size_t position)
{
    struct scan_char c = {0, 0, 0};
    c.length = utf8_decode(in.text + position, in.size_bytes - position, &c.code_point);
    if (c.length != 0)
        c.classes = unicode_classes(c.code_point);
    return c;
}

/* End of the longest run from `position` of characters that have one of `wanted` and none of `unwanted`
 * (wanted 0: any character will do); at most `most` of them. */
static size_t run_end(struct scan_text in, size_t position, unsigned wanted, unsigned unwanted, size_t most)
{
    for (size_t n = 0; n < most; n++) {
        struct scan_char c = char_at(in, position);
        if (c.length == 0 || (wanted != 0 && !(c.classes & wanted)) || (c.classes & unwanted))
            break;
        position += c.length;
    }
    return position;
}

static bool is_newline(struct scan_char c)
{
    return c.code_point == '\r' || c.code_point == '\n';
}

enum { CASE_EXACT, CASE_ANY };

static uint32_t fold(uint32_t code_point, int case_rule)
{
    if (case_rule == CASE_EXACT)
        return code_point;
    if (code_point == 0x17f) /* long s folds to s */
        return 's';
    return code_point - 'A' < 26 ? code_point + ('a' - 'A') : code_point;
}

/* Length of 's 't 're 've 'm 'll or 'd at `position`, 0 = none. */
static size_t match_contraction(struct scan_text in, size_t position, int case_rule)
{
    if (position >= in.size_bytes || in.text[position] != '\'')
        return 0;
    struct scan_char first = char_at(in, position + 1);
    uint32_t a = first.length ? fold(first.code_point, case_rule) : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return 1 + first.length;
    if (a != 'r' && a != 'v' && a != 'l')
        return 0;
    struct scan_char second = char_at(in, position + 1 + first.length);
    uint32_t b = second.length ? fold(second.code_point, case_rule) : 0;
    if (b != (a == 'l' ? 'l' : 'e'))
        return 0;
    return 1 + first.length + second.length;
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ at text[0], which is white space. newlines: with the first alternative. */
static size_t match_spaces(struct scan_text in, bool newlines)
{
    size_t position = 0, newline_end = 0, last = 0;
    struct scan_char c;
    while ((c = char_at(in, position)).length != 0 && (c.classes & CHAR_SPACE)) {
        last = position;
        position += c.length;
        if (is_newline(c))
            newline_end = position;
    }
    if (newlines && newline_end != 0)
        return newline_end;
    if (c.length == 0 || last == 0) /* the text ends with the run, or the run is one character */
        return position;
    return last;
}

static size_t match_gpt2(struct scan_text in)
{
    size_t contraction = match_contraction(in, 0, CASE_EXACT);
    if (contraction != 0)
        return contraction;
    struct scan_char c = char_at(in, 0);
    size_t start = 0;
    if (c.code_point == ' ') { /* the optional space in front of a word */
        start = 1;
        c = char_at(in, 1);
    }
    if (c.length != 0 && !(c.classes & CHAR_SPACE)) {
        unsigned kind = c.classes & (CHAR_LETTER | CHAR_NUMBER);
        unsigned unwanted = kind ? 0 : CHAR_SPACE | CHAR_LETTER | CHAR_NUMBER;
        return run_end(in, start, kind, unwanted, SIZE_MAX);
    }
    return match_spaces(in, false);
}

/* The family that began with cl100k: [^\r\n\p{L}\p{N}]? before a word, digits in groups, punctuation with a
 * tail of newlines. */
struct word_rules {
    bool contraction_first; /* as an alternative of its own */
    bool contraction_after; /* as the end of a word */
    bool cased;             /* a word is upper* lower+ or upper+ lower* */
    bool slash_tail;        /* [\r\n/]* after punctuation */
    size_t digits;          /* most digits a piece */
};

/* U*L+ at `position` (need_lower) or U+L*: end of the match, 0 = none. Where U* takes everything, the regex
 * engine gives back characters until L+ has one: back to the last character that is in both sets. */
static size_t match_cased(struct scan_text in, size_t position, bool need_lower)
{
    size_t end = position, both_end = 0;
    struct scan_char c;
    while ((c = char_at(in, end)).length != 0 && (c.classes & CHAR_UPPER)) {
        end += c.length;
        if (c.classes & CHAR_LOWER)
            both_end = end;
    }
    if (!need_lower)
        return end == position ? 0 : run_end(in, end, CHAR_LOWER, 0, SIZE_MAX);
    if (c.length != 0 && (c.classes & CHAR_LOWER))
        return run_end(in, end, CHAR_LOWER, 0, SIZE_MAX);
    return both_end;
}

/* A word from `position`, where its optional leading character would end at `after_prefix` (= position when
 * there is none). */
static size_t match_word(struct scan_text in, size_t after_prefix, const struct word_rules *rules)
{
    if (!rules->cased) {
        size_t end = run_end(in, after_prefix, CHAR_LETTER, 0, SIZE_MAX);
        return end == after_prefix ? 0 : end;
    }
    size_t end = match_cased(in, after_prefix, true);
    if (end == 0 && after_prefix != 0)
        end = match_cased(in, 0, true);
    if (end == 0)
        end = match_cased(in, after_prefix, false);
    if (end == 0 && after_prefix != 0)
        end = match_cased(in, 0, false);
    if (end != 0 && rules->contraction_after)
        end += match_contraction(in, end, CASE_ANY);
    return end;
}

static size_t match_punctuation(struct scan_text in, const struct word_rules *rules)
{
    size_t start = in.text[0] == ' ' ? 1 : 0;
    size_t end = run_end(in, start, 0, CHAR_SPACE | CHAR_LETTER | CHAR_NUMBER, SIZE_MAX);
    if (end == start)
        return 0;
    while (end < in.size_bytes &&
           (in.text[end] == '\r' || in.text[end] == '\n' || (rules->slash_tail && in.text[end] == '/')))
        end++;
    return end;
}

static size_t match_by_rules(struct scan_text in, const struct word_rules *rules)
{
    size_t end = rules->contraction_first ? match_contraction(in, 0, CASE_ANY) : 0;
    if (end != 0)
        return end;
    struct scan_char c = char_at(in, 0);
    bool prefix = !(c.classes & (CHAR_LETTER | CHAR_NUMBER)) && !is_newline(c);
    end = match_word(in, prefix ? c.length : 0, rules);
    if (end != 0)
        return end;
    if (c.classes & CHAR_NUMBER)
        return run_end(in, 0, CHAR_NUMBER, 0, rules->digits);
    end = match_punctuation(in, rules);
    return end != 0 ? end : match_spaces(in, true);
}

static size_t match_words(struct scan_text in)
{
    struct scan_char c = char_at(in, 0);
    if (c.classes & CHAR_WORD)
        return run_end(in, 0, CHAR_WORD, 0, SIZE_MAX);
    return run_end(in, 0, 0, CHAR_WORD | CHAR_SPACE, SIZE_MAX);
}

size_t split_pattern_match(enum split_pattern pattern, const char *text, size_t size_bytes)
{
    static const struct word_rules LLAMA3 = {.contraction_first = true, .digits = 3};
    static const struct word_rules QWEN2 = {.contraction_first = true, .digits = 1};
    static const struct word_rules O200K = {
        .contraction_after = true, .cased = true, .slash_tail = true, .digits = 3};
    static const struct word_rules TEKKEN = {.cased = true, .slash_tail = true, .digits = 1};
    ASSERT(size_bytes > 0);
    struct scan_text in = {text, size_bytes};
    switch (pattern) {
    case SPLIT_GPT2:
        return match_gpt2(in);
    case SPLIT_LLAMA3:
        return match_by_rules(in, &LLAMA3);
    case SPLIT_QWEN2:
        return match_by_rules(in, &QWEN2);
    case SPLIT_O200K:
        return match_by_rules(in, &O200K);
    case SPLIT_TEKKEN:
        return match_by_rules(in, &TEKKEN);
    case SPLIT_NUMBER:
        return run_end(in, 0, CHAR_NUMBER, 0, 1);
    case SPLIT_NUMBERS_UP_TO_3:
        return run_end(in, 0, CHAR_NUMBER, 0, 3);
    case SPLIT_SPACES:
        return run_end(in, 0, CHAR_SPACE, 0, SIZE_MAX);
    case SPLIT_WORDS:
        return match_words(in);
    case SPLIT_PATTERN_COUNT:
        break;
    }
    ASSERT(false && "a pattern without a scanner");
    return 0;
}
