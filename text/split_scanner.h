/* The regular expressions that published tokenizers split text with, each as a hand-written scanner that
 * reads every character a bounded number of times. A pattern is known by its exact text. Pure functions. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum split_pattern {
    SPLIT_GPT2,
    SPLIT_LLAMA3, /* also cl100k */
    SPLIT_QWEN2,
    SPLIT_O200K,
    SPLIT_TEKKEN, /* Mistral's */
    SPLIT_NUMBER, /* \p{N} */
    SPLIT_NUMBERS_UP_TO_3,
    SPLIT_SPACES, /* \s+ */
    SPLIT_WORDS,  /* \w+|[^\w\s]+ of the Rust regex crate; the pre-tokenizer Whitespace, never by text */
    SPLIT_PATTERN_COUNT
};

/* false when no scanner stands for this regular expression. */
bool split_pattern_find(const char *regex, enum split_pattern *out);

/* The length in bytes of the match that starts at text[0], 0 when none does. text is valid UTF-8 and ends
 * where the piece ends: a look-ahead sees no further. */
size_t split_pattern_match(enum split_pattern pattern, const char *text, size_t size_bytes);
