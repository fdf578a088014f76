/* The pre-tokenizer of a tokenizer.json: a list of steps that cut text into the pieces that merges do not
 * cross. Immutable after set-up. Source: pre_tokenizers of the tokenizers library. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include "base/buffer.h"
#include "base/error.h"
#include "text/split_scanner.h"
#include "text/text_piece.h"

enum { PRE_TOKENIZER_STEPS_MAX = 16 };

enum pre_kind {
    PRE_SPLIT_PATTERN, /* at what a known regular expression matches */
    PRE_SPLIT_TEXT,    /* at every occurrence of a text */
    PRE_SPLIT_CLASS,   /* at every character of some classes */
    PRE_PREFIX_SPACE,  /* a space in front of a piece that has none */
    PRE_METASPACE,     /* spaces become a visible character; maybe one in front */
};

/* What becomes of a match: a piece of its own, part of a neighbour, one piece with matches next to it. */
enum split_behavior { SPLIT_REMOVED, SPLIT_ISOLATED, SPLIT_WITH_PREVIOUS, SPLIT_WITH_NEXT, SPLIT_CONTIGUOUS };

enum prepend_scheme { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER };

struct pre_step {
    enum pre_kind kind;
    enum split_behavior behavior;
    bool invert;                /* what lies between the matches counts as the match */
    enum split_pattern pattern; /* PRE_SPLIT_PATTERN */
    unsigned classes;           /* PRE_SPLIT_CLASS: enum char_class */
    bool ascii_punctuation;     /* PRE_SPLIT_CLASS: and every ASCII character that is no letter or digit */
    char *text;                 /* owned; PRE_SPLIT_TEXT: the text; PRE_METASPACE: the character */
    size_t text_bytes;
    enum prepend_scheme prepend;
};

struct pre_tokenizer {
    struct pre_step steps[PRE_TOKENIZER_STEPS_MAX];
    size_t n_steps;
    bool byte_level; /* pieces go to the model as bytes */
};

/* json: the field "pre_tokenizer", NULL or null = one piece. Free with pre_tokenizer_free, also after an
 * error. */
err_t pre_tokenizer_parse(const json_t *json, struct pre_tokenizer *out) ERR_MUST_CHECK;
void pre_tokenizer_free(struct pre_tokenizer *pre);

/* The enum for "always", "first", "never" of a Metaspace object, and its character (*text: the document's).
 */
err_t metaspace_parse(const json_t *json, const char **text, size_t *text_bytes,
                      enum prepend_scheme *prepend) ERR_MUST_CHECK;

/* One buffer a step; zero-initialise. */
struct pre_scratch {
    struct buffer step[PRE_TOKENIZER_STEPS_MAX];
};
void pre_scratch_free(struct pre_scratch *scratch);

/* Hands the pieces of a text to sink in order, none of them empty. Marks of trust end here. */
err_t pre_tokenizer_run(const struct pre_tokenizer *pre, const struct text_piece *in,
                        struct pre_scratch *scratch, piece_sink *sink, void *context) ERR_MUST_CHECK;
