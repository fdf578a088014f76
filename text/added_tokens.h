/* Added tokens ("added_tokens" of tokenizer.json): found in the text before anything else looks at it,
 * leftmost first, the longest at a place. Those with normalized = false are sought in the text as it came,
 * the others after the normaliser. Immutable after set-up. Source: added_vocabulary of the tokenizers
 * library. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "text/text_piece.h"

enum { ADDED_TOKENS_MAX = 1 << 17 };

struct added_token {
    uint32_t id;
    bool special;     /* left out by decode; text from a user never becomes it */
    bool single_word; /* only between characters that are not of a word */
    bool lstrip, rstrip;
    bool normalized;
};

/* A trie of the patterns' bytes. */
struct added_node {
    uint32_t first_child, next_sibling; /* 0 = none */
    int32_t token;                      /* index into tokens, -1 = no pattern ends here */
    uint8_t byte;
};
struct added_trie {
    struct added_node *nodes; /* [n_nodes] owned; 0 is unused */
    uint32_t n_nodes, capacity;
    uint32_t root[256]; /* by the first byte; 0 = none */
};
void added_trie_free(struct added_trie *trie);
/* The first of two equal patterns stays. */
err_t added_trie_add(struct added_trie *trie, const char *pattern, size_t pattern_bytes,
                     int32_t token) ERR_MUST_CHECK;

/* What a split hands on: text between tokens, and tokens. */
struct added_sink {
    void *context;
    piece_sink *on_text;
    err_t (*on_token)(void *context, uint32_t id);
};

/* Cuts a piece at its added tokens. parse_special: special ones count, where none of their bytes is marked
 * untrusted. */
err_t added_tokens_split(const struct added_trie *trie, const struct added_token *tokens,
                         const struct text_piece *piece, bool parse_special,
                         const struct added_sink *sink) ERR_MUST_CHECK;
