/* Whose letters a text is written in. */
#pragma once

#include <stdint.h>

enum script {
    SCRIPT_NONE, /* no letters at all */
    SCRIPT_LATIN,
    SCRIPT_GREEK,
    SCRIPT_CYRILLIC,
    SCRIPT_HEBREW,
    SCRIPT_ARABIC,
    SCRIPT_INDIC, /* Devanagari and its neighbours up to Sinhala */
    SCRIPT_THAI,
    SCRIPT_HANGUL,
    SCRIPT_KANA, /* Japanese: Kana, however much Han stands beside it */
    SCRIPT_HAN,
    SCRIPT_OTHER,
    SCRIPTS,
};
extern const char *const SCRIPT_NAMES[SCRIPTS + 1]; /* "none", "latin", ...; NULL at the end */

/* SCRIPT_NONE: it is no letter. */
enum script script_of_letter(uint32_t code_point);
/* The script of most of the letters that were counted; the first of equals. */
enum script script_of_counts(const uint64_t letters[SCRIPTS]);
