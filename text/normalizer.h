/* The normaliser of a tokenizer.json: a list of steps, each text -> text, with the marks of untrusted bytes
 * carried along. Immutable after set-up. Source: normalizers of the tokenizers library. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/error.h"
#include "text/text_piece.h"

enum { NORMALIZER_STEPS_MAX = 32, NORMALIZED_BYTES_MAX = 256 << 20 };

enum normalizer_kind {
    NORMALIZE_NFC,
    NORMALIZE_NFD,
    NORMALIZE_NFKC,
    NORMALIZE_NFKD,
    NORMALIZE_LOWERCASE,
    NORMALIZE_STRIP_ACCENTS,
    NORMALIZE_STRIP,
    NORMALIZE_REPLACE,
    NORMALIZE_PREPEND,
};

struct normalizer_step {
    enum normalizer_kind kind;
    bool strip_left, strip_right;
    char *pattern; /* owned; REPLACE: what is replaced */
    size_t pattern_bytes;
    char *content; /* owned; REPLACE, PREPEND */
    size_t content_bytes;
};

struct normalizer {
    struct normalizer_step steps[NORMALIZER_STEPS_MAX];
    size_t n_steps;
};

/* json: the field "normalizer", NULL or null = no steps. Free what it made with normalizer_free, also after
 * an error. */
err_t normalizer_parse(const json_t *json, struct normalizer *out) ERR_MUST_CHECK;
void normalizer_free(struct normalizer *normalizer);

/* Two texts and their marks, between which the steps go to and fro; zero-initialise. */
struct normalizer_scratch {
    struct buffer text[2], marks[2];
};
void normalizer_scratch_free(struct normalizer_scratch *scratch);

/* *out: the normalised piece; points into scratch or is `in` itself. Unicode forms do not combine a trusted
 * character with an untrusted one. */
err_t normalizer_run(const struct normalizer *normalizer, const struct text_piece *in,
                     struct normalizer_scratch *scratch, struct text_piece *out) ERR_MUST_CHECK;
