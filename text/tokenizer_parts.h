/* What a tokenizer is made of. Internal to text/. */
#pragma once

#include "text/added_tokens.h"
#include "text/bpe.h"
#include "text/normalizer.h"
#include "text/post_processor.h"
#include "text/pre_tokenizer.h"
#include "text/token_decoder.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

struct tokenizer {
    struct vocab vocab;   /* the model's and the added tokens */
    uint8_t *token_flags; /* [vocab.n_ids] owned: enum token_flag */
    struct bpe bpe;
    struct added_token *added; /* [n_added] owned */
    size_t n_added;
    struct added_trie raw_tokens, normalized_tokens;
    struct normalizer normalizer;
    struct pre_tokenizer pre_tokenizer;
    struct post_processor post_processor;
    struct token_decoder decoder;
    char **added_pattern; /* [n_added] owned, each owned: what stands in the (normalised) text */
    uint64_t fingerprint;
};

/* The ways to fill *out: what the tokenizer is made of, tokenizer_mark_added, tokenizer_finish. */

/* When vocab and added[n_added] are set; n_model_ids: the first id that the model's own vocabulary does not
 * have. */
err_t tokenizer_mark_added(struct tokenizer *out, uint32_t n_model_ids) ERR_MUST_CHECK;
/* When all else is set: the patterns of added tokens, the decoder's texts, the tables of bytes. */
err_t tokenizer_finish(struct tokenizer *out) ERR_MUST_CHECK;

/* Fills *out from the parsed file; *out is zeroed, and tokenizer_destroy cleans up after an error. */
err_t tokenizer_build(const json_t *root, struct tokenizer *out) ERR_MUST_CHECK;
