/* The decoder of a tokenizer.json, brought into one form: every token's text, prepared at load, and a few
 * rules for putting texts together. Immutable after set-up. Source: decoders of the tokenizers library. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/error.h"
#include "base/utf8.h"

enum { DECODER_STEPS_MAX = 8, DECODED_TOKEN_BYTES_MAX = 4096, DECODER_STRIP_MAX = 100 };

enum decoder_kind {
    DECODE_SPACED, /* no decoder: tokens with a space in between */
    DECODE_BYTES,  /* ByteLevel: tokens are bytes, the sum is UTF-8 */
    DECODE_CHAIN,  /* tokens are text; the rules below */
};

/* One change to each token's text, at load: pattern -> content, or cut `content` from its ends. */
struct decoder_step {
    bool is_strip;
    char *pattern; /* owned */
    char *content; /* owned; strip: one character */
    size_t strip_start, strip_stop;
};

struct token_decoder {
    enum decoder_kind kind;
    struct decoder_step steps[DECODER_STEPS_MAX];
    size_t n_steps;
    bool byte_fallback;                  /* <0xNN> is a byte */
    bool metaspace_first;                /* the first token loses its metaspaces */
    char metaspace[UTF8_MAX_BYTES + 1];  /* "" = no Metaspace */
    char text_strip[UTF8_MAX_BYTES + 1]; /* cut from the start of the whole text, up to n times */
    size_t n_text_strip;
    bool fused; /* parsing: Fuse came */

    char *bytes;      /* owned: prepared texts */
    uint32_t *offset; /* [n_ids + 1] owned */
    int16_t *byte;    /* [n_ids] owned, with byte_fallback: the byte, -1 = text */
    uint32_t n_ids;
};

/* json: the field "decoder", NULL or null = DECODE_SPACED. Free with token_decoder_free, also after an error.
 */
err_t token_decoder_parse(const json_t *json, struct token_decoder *out) ERR_MUST_CHECK;
/* token_text(context, id, &size): the token, NULL = none. Once. */
err_t token_decoder_prepare(struct token_decoder *decoder, uint32_t n_ids,
                            const char *(*token_text)(const void *context, uint32_t id, size_t *size_bytes),
                            const void *context) ERR_MUST_CHECK;
void token_decoder_free(struct token_decoder *decoder);
