#include "router/policy/language_guess.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include "base/utf8.h"
#include "router/policy/text_script.h"

const char *const LANGUAGE_NAMES[LANGUAGES + 1] = {"unknown", "ar", "cs", "da", "de", "el", "en", "es", "fa",
                                                   "fr",      "he", "it", "ja", "ko", "nb", "nl", "pl", "pt",
                                                   "ru",      "sv", "th", "tr", "uk", "ur", "zh", NULL};

enum {
    WORD_BYTES_MAX = 24, /* longer ones are in no list */
    WORD_POINTS = 12,    /* shared out among the languages that have the word */
    LETTER_POINTS = 8,
    SPELLING_POINTS = 6,     /* of a word that is spelt as one of two neighbours alone does */
    LETTERS_COUNTED_MAX = 3, /* of one word's or one text's telling letters, for each language */
    POINTS_LEAST = 15,       /* a word of its own, and some of others */
    WORDS_PER_HIT_MAX = 8,   /* of so many words one at least must be known */
};

#define BIT(language) (UINT32_C(1) << LANGUAGE_##language)
enum { UNKNOWN_BIT = 1 }; /* of LANGUAGE_UNKNOWN: letters of languages that are not known here */

static const struct {
    const char *word;
    uint32_t bytes, languages; /* languages: bits */
} WORDS[] = {
#define CS                 BIT(CS)
#define DA                 BIT(DA)
#define DE                 BIT(DE)
#define EN                 BIT(EN)
#define ES                 BIT(ES)
#define FR                 BIT(FR)
#define IT                 BIT(IT)
#define NB                 BIT(NB)
#define NL                 BIT(NL)
#define PL                 BIT(PL)
#define PT                 BIT(PT)
#define RU                 BIT(RU)
#define SV                 BIT(SV)
#define TR                 BIT(TR)
#define UK                 BIT(UK)
#define X(word, languages) {word, sizeof(word) - 1, languages},
#include "router/policy/language_words.inc"
#undef X
};
enum { N_WORDS = sizeof WORDS / sizeof WORDS[0] };

/* Letters in lower case that few languages have. */
static const struct {
    uint32_t letter, languages;
} LETTERS[] = {
    {0xdf, DE},
    {0xe3, PT},
    {0xe5, SV | DA | NB},
    {0xe6, DA | NB},
    {0xf1, ES},
    {0xf5, PT},
    {0xf8, DA | NB},
    {0x105, PL},
    {0x107, PL},
    {0x119, PL},
    {0x11b, CS},
    {0x11f, TR},
    {0x131, TR},
    {0x142, PL},
    {0x144, PL},
    {0x153, FR},
    {0x159, CS},
    {0x15b, PL},
    {0x16f, CS},
    {0x17a, PL},
    {0x17c, PL},
    {0x44a, RU},
    {0x44b, RU},
    {0x44d, RU},
    {0x451, RU},
    {0x454, UK},
    {0x457, UK},
    {0x491, UK},
    /* Icelandic; Romanian; Latvian and Lithuanian; Croatian and Vietnamese; Hungarian; Slovak */
    {0xf0, UNKNOWN_BIT},
    {0xfe, UNKNOWN_BIT},
    {0x103, UNKNOWN_BIT},
    {0x219, UNKNOWN_BIT},
    {0x21b, UNKNOWN_BIT},
    {0x101, UNKNOWN_BIT},
    {0x113, UNKNOWN_BIT},
    {0x12b, UNKNOWN_BIT},
    {0x117, UNKNOWN_BIT},
    {0x12f, UNKNOWN_BIT},
    {0x173, UNKNOWN_BIT},
    {0x111, UNKNOWN_BIT},
    {0x1a1, UNKNOWN_BIT},
    {0x1b0, UNKNOWN_BIT},
    {0x151, UNKNOWN_BIT},
    {0x171, UNKNOWN_BIT},
    {0x13e, UNKNOWN_BIT},
    {0x155, UNKNOWN_BIT},
    /* Belarusian; Serbian and Macedonian; languages of Central Asia */
    {0x45e, UNKNOWN_BIT},
    {0x458, UNKNOWN_BIT},
    {0x459, UNKNOWN_BIT},
    {0x45a, UNKNOWN_BIT},
    {0x452, UNKNOWN_BIT},
    {0x45b, UNKNOWN_BIT},
    {0x45f, UNKNOWN_BIT},
    {0x45c, UNKNOWN_BIT},
    {0x453, UNKNOWN_BIT},
    {0x49b, UNKNOWN_BIT},
    {0x4a3, UNKNOWN_BIT},
    {0x493, UNKNOWN_BIT},
    {0x4af, UNKNOWN_BIT},
    {0x4b1, UNKNOWN_BIT},
    {0x4e9, UNKNOWN_BIT},
    {0x4d9, UNKNOWN_BIT},
};

struct tally {
    uint32_t points[LANGUAGES], n_hits[LANGUAGES], n_letters[LANGUAGES];
    uint32_t n_words;
    uint64_t scripts[SCRIPTS];
    uint32_t n_persian, n_urdu, n_danish, n_norwegian;
    char word[WORD_BYTES_MAX];
    size_t word_bytes; /* more than WORD_BYTES_MAX: too long */
};

/* Lower case of the alphabets that words are listed in; the dotted capital I of Turkish becomes an i. */
static uint32_t fold(uint32_t letter)
{
    if ((letter >= 'A' && letter <= 'Z') || (letter >= 0xc0 && letter <= 0xde && letter != 0xd7))
        return letter + 0x20;
    if (letter == 0x130)
        return 'i';
    if ((letter >= 0x100 && letter <= 0x137) || (letter >= 0x14a && letter <= 0x177) ||
        (letter >= 0x218 && letter <= 0x21b) || letter == 0x490)
        return letter | 1;
    if ((letter >= 0x139 && letter <= 0x148) || (letter >= 0x179 && letter <= 0x17e))
        return letter + (letter & 1);
    if (letter >= 0x410 && letter <= 0x42f)
        return letter + 0x20;
    return letter >= 0x400 && letter <= 0x40f ? letter + 0x50 : letter;
}

static void add(struct tally *tally, uint32_t languages, uint32_t points, bool is_word)
{
    for (uint32_t language = 0; language < LANGUAGES; language++) {
        if (!(languages & UINT32_C(1) << language))
            continue;
        if (!is_word && tally->n_letters[language]++ >= LETTERS_COUNTED_MAX)
            continue;
        tally->points[language] += points;
        tally->n_hits[language] += is_word;
    }
}

static bool has_ending(const struct tally *tally, size_t bytes, const char *const *endings)
{
    for (; *endings; endings++) {
        size_t size = strlen(*endings);
        if (bytes > size && memcmp(tally->word + bytes - size, *endings, size) == 0)
            return true;
    }
    return false;
}

/* Danish and Norwegian have most words in common and spell many of the others by rules of their own: no
 * Danish word ends with a consonant twice. Other languages share these rules, so they part these two alone.
 */
static void look_at_spelling(struct tally *tally, size_t bytes)
{
    static const char *const DANISH[] = {"tion", "tionen", "tioner", "hed",   "heden",  "heder",
                                         "ej",   "øj",     "øje",    "øjet",  "eje",    "skab",
                                         "eret", "erede",  "erne",   "ighed", "skabet", NULL},
                             *const NORWEGIAN[] = {"sjon",  "sjonen", "sjoner", "het",  "heten",
                                                   "heter", "ei",     "øy",     "skap", "skapet",
                                                   "iser",  "sert",   "tert",   NULL};
    const char *word = tally->word;
    if (bytes < 3)
        return;
    bool is_doubled = word[bytes - 1] == word[bytes - 2] && strchr("bdfgklmnprst", word[bytes - 1]),
         is_soft = (word[0] == 'k' || word[0] == 'g') && word[1] == 'j';
    tally->n_danish += has_ending(tally, bytes, DANISH);
    tally->n_norwegian += is_doubled || is_soft || has_ending(tally, bytes, NORWEGIAN);
}

static void end_word(struct tally *tally)
{
    size_t bytes = tally->word_bytes, low = 0, high = N_WORDS;
    tally->word_bytes = 0;
    if (bytes == 0)
        return;
    tally->n_words++;
    if (bytes > WORD_BYTES_MAX)
        return;
    look_at_spelling(tally, bytes);
    while (low < high) {
        size_t middle = (low + high) / 2, other_bytes = WORDS[middle].bytes;
        int order = (unsigned char)WORDS[middle].word[0] - (unsigned char)tally->word[0]; /* most end here */
        if (order == 0)
            order = memcmp(WORDS[middle].word, tally->word, other_bytes < bytes ? other_bytes : bytes);
        if (order == 0 && other_bytes == bytes) {
            uint32_t languages = WORDS[middle].languages;
            add(tally, languages, WORD_POINTS / (uint32_t)__builtin_popcount(languages), true);
            return;
        }
        if (order < 0 || (order == 0 && other_bytes < bytes))
            low = middle + 1;
        else
            high = middle;
    }
}

/* Of Arabic letters: those that Persian has besides, and those that only Urdu has. */
static void look_at_arabic(struct tally *tally, uint32_t letter)
{
    static const uint32_t PERSIAN[] = {0x67e, 0x686, 0x698, 0x6af, 0x6a9, 0x6cc},
                          URDU[] = {0x679, 0x688, 0x691, 0x6ba, 0x6be, 0x6c1, 0x6d2};
    for (size_t i = 0; i < sizeof PERSIAN / sizeof *PERSIAN; i++)
        tally->n_persian += PERSIAN[i] == letter;
    for (size_t i = 0; i < sizeof URDU / sizeof *URDU; i++)
        tally->n_urdu += URDU[i] == letter;
}

static void take_letter(struct tally *tally, uint32_t letter)
{
    enum script script = script_of_letter(letter);
    tally->scripts[script]++;
    if (script == SCRIPT_ARABIC)
        look_at_arabic(tally, letter);
    letter = fold(letter);
    for (size_t i = 0; letter >= 0x80 && i < sizeof LETTERS / sizeof *LETTERS; i++) {
        if (LETTERS[i].letter == letter)
            add(tally, LETTERS[i].languages,
                LETTER_POINTS / (uint32_t)__builtin_popcount(LETTERS[i].languages), false);
    }
    char bytes[UTF8_MAX_BYTES];
    size_t n = utf8_encode(letter, bytes);
    if (tally->word_bytes + n <= WORD_BYTES_MAX)
        memcpy(tally->word + tally->word_bytes, bytes, n);
    tally->word_bytes += n;
}

/* What most texts are made of, without the tables. */
static void take_ascii(struct tally *tally, unsigned char c)
{
    unsigned char small = c | 0x20;
    if (small < 'a' || small > 'z') {
        end_word(tally);
        return;
    }
    tally->scripts[SCRIPT_LATIN]++;
    if (tally->word_bytes < WORD_BYTES_MAX)
        tally->word[tally->word_bytes] = (char)small;
    tally->word_bytes++;
}

static void take_line(struct tally *tally, const char *line, size_t size)
{
    for (size_t at = 0; at < size && tally->n_words < LANGUAGE_WORDS_MAX;) {
        uint32_t code_point;
        if ((unsigned char)line[at] < 0x80) {
            take_ascii(tally, (unsigned char)line[at++]);
            continue;
        }
        size_t bytes = utf8_decode(line + at, size - at, &code_point);
        if (bytes > 0 && script_of_letter(code_point) != SCRIPT_NONE)
            take_letter(tally, code_point);
        else
            end_word(tally);
        at += bytes > 0 ? bytes : 1;
    }
    end_word(tally);
}

static bool is_fence(const char *line, size_t size)
{
    return size >= 3 && (memcmp(line, "```", 3) == 0 || memcmp(line, "~~~", 3) == 0);
}

/* Where nobody else comes near, their spelling counts. */
static void part_neighbours(struct tally *tally)
{
    uint32_t *points = tally->points, others = 0,
             less = points[LANGUAGE_DA] < points[LANGUAGE_NB] ? points[LANGUAGE_DA] : points[LANGUAGE_NB];
    for (uint32_t language = 0; language < LANGUAGES; language++) {
        if (language != LANGUAGE_DA && language != LANGUAGE_NB && points[language] > others)
            others = points[language];
    }
    if (less < others)
        return;
    points[LANGUAGE_DA] += SPELLING_POINTS * tally->n_danish;
    points[LANGUAGE_NB] += SPELLING_POINTS * tally->n_norwegian;
}

/* Far enough before the next one, or it is none. */
static enum language best_of(struct tally *tally)
{
    uint32_t best = LANGUAGE_UNKNOWN, second = 0;
    part_neighbours(tally);
    for (uint32_t language = 1; language < LANGUAGES; language++) {
        if (tally->points[language] > tally->points[best] || best == LANGUAGE_UNKNOWN)
            best = language;
    }
    for (uint32_t language = 0; language < LANGUAGES; language++) {
        if (language != best && tally->points[language] > second)
            second = tally->points[language];
    }
    bool is_sure = tally->points[best] >= POINTS_LEAST && tally->points[best] * 4 >= second * 5 &&
                   tally->n_hits[best] * WORDS_PER_HIT_MAX >= tally->n_words && tally->n_hits[best] >= 2;
    return is_sure ? (enum language)best : LANGUAGE_UNKNOWN;
}

static enum language language_of(struct tally *tally)
{
    switch (script_of_counts(tally->scripts)) {
    case SCRIPT_LATIN:
    case SCRIPT_CYRILLIC:
        return best_of(tally);
    case SCRIPT_GREEK:
        return LANGUAGE_EL;
    case SCRIPT_HEBREW:
        return LANGUAGE_HE;
    case SCRIPT_ARABIC:
        return tally->n_urdu > 0 ? LANGUAGE_UR : tally->n_persian > 0 ? LANGUAGE_FA : LANGUAGE_AR;
    case SCRIPT_THAI:
        return LANGUAGE_TH;
    case SCRIPT_HANGUL:
        return LANGUAGE_KO;
    case SCRIPT_KANA:
        return LANGUAGE_JA;
    case SCRIPT_HAN:
        return LANGUAGE_ZH;
    case SCRIPT_NONE:
    case SCRIPT_INDIC: /* of many languages */
    case SCRIPT_OTHER:
    case SCRIPTS:
        return LANGUAGE_UNKNOWN;
    }
    return LANGUAGE_UNKNOWN;
}

enum language language_guess(const char *text, size_t text_bytes)
{
    struct tally tally = {0};
    bool is_code = false;
    if (text_bytes > LANGUAGE_TEXT_BYTES_MAX)
        text_bytes = LANGUAGE_TEXT_BYTES_MAX;
    for (size_t at = 0; at < text_bytes;) {
        const char *line = text + at, *end = memchr(line, '\n', text_bytes - at);
        size_t size = end ? (size_t)(end - line) : text_bytes - at;
        if (is_fence(line, size))
            is_code = !is_code;
        else if (!is_code)
            take_line(&tally, line, size);
        at += size + 1;
    }
    return language_of(&tally);
}
