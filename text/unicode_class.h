/* The character classes that pre-tokenizer patterns name, as the regex engines of the reference library have
 * them (Oniguruma's \p{..} and \s; the Rust regex crate's \w). Pure functions. Source: Unicode Character
 * Database, general categories. */
#pragma once

#include <stdint.h>

enum char_class {
    CHAR_LETTER = 1u << 0,      /* \p{L} */
    CHAR_NUMBER = 1u << 1,      /* \p{N} */
    CHAR_SPACE = 1u << 2,       /* \s: White_Space */
    CHAR_MARK = 1u << 3,        /* \p{M} */
    CHAR_UPPER = 1u << 4,       /* [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}] */
    CHAR_LOWER = 1u << 5,       /* [\p{Ll}\p{Lm}\p{Lo}\p{M}] */
    CHAR_PUNCTUATION = 1u << 6, /* \p{P} */
    CHAR_SYMBOL = 1u << 7,      /* \p{S} */
    CHAR_WORD = 1u << 8,        /* \w: letters, marks, numerals, connectors, joiners */
};

/* A set of enum char_class. */
unsigned unicode_classes(uint32_t code_point);
/* What Python's str methods and \s take for white space: \s above and the four separators 1c-1f. */
static inline int unicode_is_python_space(uint32_t code_point)
{
    return (unicode_classes(code_point) & CHAR_SPACE) || (code_point >= 0x1c && code_point <= 0x1f);
}
