/* Which language a text is in, by the words that every text of it has and by letters that few others have.
 * For the rules of policies: cheap, the same every time, and silent where it is not sure.
 *
 * Known are the languages of LANGUAGE_NAMES. Those with an alphabet of their own (Greek, Hebrew, Thai,
 * Korean, Japanese, Chinese) are told by that; Russian and Ukrainian by words and letters; Arabic, Persian
 * and Urdu by letters; the others, in Latin letters, by words and letters. A text of fewer than about four
 * words, of names or of terms alone has no language here, and neither has one in a language that is not among
 * them, but for close relatives (Catalan, Galician, Afrikaans, Slovak), which may be taken for one that is.
 * docs/routing.md says how often it is right. */
#pragma once

#include <stddef.h>

enum language {
    LANGUAGE_UNKNOWN,
    LANGUAGE_AR,
    LANGUAGE_CS,
    LANGUAGE_DA,
    LANGUAGE_DE,
    LANGUAGE_EL,
    LANGUAGE_EN,
    LANGUAGE_ES,
    LANGUAGE_FA,
    LANGUAGE_FR,
    LANGUAGE_HE,
    LANGUAGE_IT,
    LANGUAGE_JA,
    LANGUAGE_KO,
    LANGUAGE_NB,
    LANGUAGE_NL,
    LANGUAGE_PL,
    LANGUAGE_PT,
    LANGUAGE_RU,
    LANGUAGE_SV,
    LANGUAGE_TH,
    LANGUAGE_TR,
    LANGUAGE_UK,
    LANGUAGE_UR,
    LANGUAGE_ZH,
    LANGUAGES,
};
/* "unknown", then ISO 639-1's codes; NULL at the end. */
extern const char *const LANGUAGE_NAMES[LANGUAGES + 1];

enum { LANGUAGE_TEXT_BYTES_MAX = 4096, LANGUAGE_WORDS_MAX = 200 }; /* no more of a text is looked at */

/* What stands between fences of code does not count. Any bytes; pure. */
enum language language_guess(const char *text, size_t text_bytes);
