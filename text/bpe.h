/* Byte pair encoding: pieces of text -> ids, by the merges of a tokenizer.json, lowest rank first, then
 * leftmost; O(n log n) in the piece. Immutable after set-up: any thread, each with its own scratch. Source:
 * Sennrich et al., "Neural machine translation of rare words with subword units", 2016; models/bpe of the
 * tokenizers library. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

struct bpe_merge {
    uint32_t left, right; /* ids; left UINT32_MAX = free slot */
    uint32_t rank, result;
};

enum token_flag {
    TOKEN_SPECIAL = 1u << 0,
    TOKEN_ADDED_ONLY = 1u << 1, /* an added token that the model's own vocabulary does not have */
};

/* How a special token that merges could make comes apart again. */
struct bpe_parts {
    uint32_t id, left, right;
};

struct bpe {
    const struct vocab *vocab;
    const uint8_t *token_flags; /* [vocab->n_ids] enum token_flag; only plain tokens are made from text */
    bool byte_level;            /* pieces are bytes; the vocabulary is written in the byte alphabet */
    bool fuse_unk, ignore_merges;
    bool byte_fallback;
    int64_t unk_id;           /* VOCAB_NONE = characters without a token are dropped */
    bool unk_missing;         /* the file names an unk_token that is not in the vocabulary */
    int64_t byte_id[256];     /* byte_level: the byte's token; VOCAB_NONE = none */
    int64_t fallback_id[256]; /* <0x00>..<0xFF> */
    struct bpe_merge *merges; /* [n_slots] owned: open addressing by pair */
    uint32_t n_slots, n_merges;
    struct bpe_parts *parts; /* [n_parts] owned */
    uint32_t n_parts;
};

/* Working memory of one encode call; zero-initialise. */
struct bpe_scratch {
    struct bpe_symbol *symbols; /* owned */
    size_t n_symbols, symbols_capacity;
    uint64_t *heap; /* owned: rank << 32 | index of the left symbol */
    size_t heap_size, heap_capacity;
};
void bpe_scratch_free(struct bpe_scratch *scratch);

/* Room for n_merges; the other fields are the caller's to fill. */
err_t bpe_merges_init(struct bpe *bpe, size_t n_merges) ERR_MUST_CHECK;
/* A pair that is there already takes the new rank. */
void bpe_merges_add(struct bpe *bpe, uint32_t left, uint32_t right, uint32_t rank, uint32_t result);
/* When vocab, token_flags, byte_level and the merges are set: the tables of single bytes, the parts. */
err_t bpe_finish(struct bpe *bpe) ERR_MUST_CHECK;
void bpe_free(struct bpe *bpe);

/* Appends the ids of one piece (not empty): bytes when byte_level, else UTF-8. */
err_t bpe_encode(const struct bpe *bpe, struct bpe_scratch *scratch, const char *piece, size_t piece_bytes,
                 struct token_list *out) ERR_MUST_CHECK;

/* RESOURCE_EXHAUSTED at the list's limit. */
err_t token_list_push(struct token_list *list, uint32_t id) ERR_MUST_CHECK;
