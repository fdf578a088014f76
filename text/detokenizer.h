/* Streaming ids -> text that never splits a character: bytes of an unfinished character are held back. The
 * pieces add up to tokenizer_decode of all ids. Plain state, no allocation: one per output stream, one thread
 * at a time. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include "text/tokenizer.h"

struct detokenizer {
    const struct tokenizer *tokenizer;
    bool skip_special_tokens;
    bool joins_special_tokens; /* no space between two in a row; false after init */
    bool after_special;        /* the last token was one */
    bool started;              /* something was emitted or held: strip rules for the first token are over */
    uint8_t n_stripped;        /* characters left out at the start */
    uint8_t n_held;            /* bytes held back */
    char held[8];
};

void detokenizer_init(struct detokenizer *detokenizer, const struct tokenizer *tokenizer,
                      bool skip_special_tokens);
/* Appends the text that `id` completes (maybe none). An id without a token adds nothing. RESOURCE_EXHAUSTED
 * at the buffer's limit. */
err_t detokenizer_push(struct detokenizer *detokenizer, uint32_t id, struct buffer *out) ERR_MUST_CHECK;
/* The end of the stream: held bytes that never became a character come out as U+FFFD. */
err_t detokenizer_flush(struct detokenizer *detokenizer, struct buffer *out) ERR_MUST_CHECK;
