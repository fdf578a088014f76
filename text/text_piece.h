/* A stretch of text on its way through the tokenizer. Plain data, owns nothing. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

struct text_piece {
    const char *text; /* size_bytes of valid UTF-8 */
    size_t size_bytes;
    const uint8_t *untrusted; /* [size_bytes] 1 = from a user; NULL = all trusted, or nobody asks any more */
    bool at_start;            /* begins where the whole text begins */
};

/* Takes one piece after the other; an error stops the walk and goes to its caller. */
typedef err_t piece_sink(void *context, const struct text_piece *piece);
