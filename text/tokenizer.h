/* Text <-> token ids, from a Hugging Face tokenizer.json: byte-level BPE (GPT-2, Llama 3, Qwen) and
 * SentencePiece-style BPE with byte fallback (Llama 2, Mistral, Gemma), with added and special tokens,
 * normalisers and pre-tokenizers. Immutable after load: any thread. Format:
 * https://huggingface.co/docs/tokenizers (tokenizer.json of tokenizers 0.20+). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/error.h"

enum {
    TOKENIZER_FILE_BYTES_MAX = 128 << 20,
    TOKENIZER_VOCAB_MAX = 1 << 21,      /* tokens */
    TOKENIZER_TOKEN_BYTES_MAX = 1024,   /* of one token; longer ones are refused at load */
    TOKENIZER_TEXT_BYTES_MAX = 64 << 20 /* of one encode call */
};

struct tokenizer;

/* A growing array of ids; zero-initialise with a limit. */
struct token_list {
    uint32_t *ids; /* [count], owned */
    size_t count, capacity;
    size_t limit; /* most ids; 0 = TOKENIZER_TEXT_BYTES_MAX */
};
void token_list_free(struct token_list *list);

enum tokenize_flags {
    TOKENIZE_ADD_SPECIAL = 1u << 0,   /* run the post-processor: BOS, EOS as the file says */
    TOKENIZE_PARSE_SPECIAL = 1u << 1, /* special tokens written in the text become their id */
};

/* Reads PATH/tokenizer.json, or the metadata of a GGUF file. Errors name the file and the field; a construct
 * that is not supported is ERR_UNIMPLEMENTED and named. */
err_t tokenizer_load(const char *path, struct tokenizer **out) ERR_MUST_CHECK;
/* From memory; `name` is for messages. */
err_t tokenizer_parse(const char *json, size_t json_bytes, const char *name,
                      struct tokenizer **out) ERR_MUST_CHECK;
void tokenizer_destroy(struct tokenizer *tokenizer);

/* Appends the ids of text[0..text_bytes) to *out. `untrusted`: NULL, or one byte per text byte; a special
 * token is only recognised (TOKENIZE_PARSE_SPECIAL) where none of its bytes is marked, so that text from a
 * user never becomes one. Added tokens that are not special are recognised everywhere, as in the reference
 * library. The model itself never makes a special token (unk_token apart). Invalid UTF-8 becomes U+FFFD.
 * "truncation" and "padding" of the file are not applied. RESOURCE_EXHAUSTED past a limit. */
err_t tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t text_bytes,
                       const uint8_t *untrusted, unsigned flags, struct token_list *out) ERR_MUST_CHECK;

/* Whole text of ids, as the reference library's decode (without clean_up_tokenization_spaces). Unknown ids
 * are an error. Two deliberate differences: a run of byte tokens (<0xNN>) that is not UTF-8 keeps its whole
 * characters, where the library turns the whole run into U+FFFD, so that a stream need not wait for the end
 * of a run; and special tokens with normalized = true are left out like all others. */
err_t tokenizer_decode(const struct tokenizer *tokenizer, const uint32_t *ids, size_t n_ids,
                       bool skip_special_tokens, struct buffer *out) ERR_MUST_CHECK;

uint32_t tokenizer_vocab_size(const struct tokenizer *tokenizer); /* highest id + 1 */
bool tokenizer_is_special(const struct tokenizer *tokenizer, uint32_t id);
/* Id of the token that is written exactly so (added tokens first); -1 = none. */
int64_t tokenizer_find(const struct tokenizer *tokenizer, const char *token, size_t token_bytes);
/* The token as the file writes it; NULL for an id without a token. */
const char *tokenizer_token(const struct tokenizer *tokenizer, uint32_t id, size_t *token_bytes);
uint64_t tokenizer_fingerprint(const struct tokenizer *tokenizer); /* hash of the file's bytes */
