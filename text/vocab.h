/* Token texts by id and ids by text. Ids may have gaps. One thread while filling; then immutable. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"

enum { VOCAB_NONE = -1 };

struct vocab {
    char *bytes; /* owned: the texts, one after the other, each with a NUL */
    size_t n_bytes, bytes_capacity;
    uint32_t *offset; /* [id_capacity] owned: where the text starts; UINT32_MAX = no such token */
    uint16_t *length; /* [id_capacity] owned: bytes */
    uint32_t id_capacity;
    uint32_t n_ids;    /* highest id + 1 */
    uint32_t n_tokens; /* texts */
    uint32_t *slots;   /* [n_slots] owned: open addressing by text, id + 1, 0 = free */
    uint32_t n_slots;  /* a power of two, at least twice n_tokens */
};

/* expected_tokens: a hint. */
err_t vocab_init(struct vocab *vocab, size_t expected_tokens) ERR_MUST_CHECK;
void vocab_free(struct vocab *vocab);
/* DATA_LOSS when the text or the id is there already, is too long or too large. */
err_t vocab_add(struct vocab *vocab, const char *text, size_t text_bytes, uint32_t id) ERR_MUST_CHECK;
/* The id, VOCAB_NONE when no token is written so. */
int64_t vocab_find(const struct vocab *vocab, const char *text, size_t text_bytes);
/* NULL when no token has this id. NUL-terminated. */
const char *vocab_text(const struct vocab *vocab, uint32_t id, size_t *text_bytes);
