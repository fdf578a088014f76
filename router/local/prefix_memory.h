/* Which prefixes were sent to which replicas: a guess at what their prefix caches hold. A prompt is cut into
 * chunks, each named by a hash over it and all before it; a bounded table keeps for each name the set of
 * replicas that had it, and forgets first what was not sent for longest. Not synchronised. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "api/request.h"
#include "base/error.h"

enum {
    PREFIX_CHUNK_TOKENS = 64,
    PREFIX_CHUNK_BYTES = 256, /* of a text: about as many tokens */
    PREFIX_CHUNKS_MAX = 256,  /* what is beyond them is not looked at */
    PREFIX_REPLICAS_MAX = 64, /* slots: bits of a set */
    PREFIX_TOKENS_BYTES = 4,  /* a token's, guessed */
};

struct prefix_chain {
    uint32_t prompt_tokens; /* of texts: a guess */
    uint32_t n;             /* whole chunks */
    uint64_t hash[PREFIX_CHUNKS_MAX];
};
/* Of text, ids or messages, and of the one whose they are (local_salt.h): engines share no prefix between
 * two. Pure. */
void prefix_chain_make(const struct request *request, struct prefix_chain *out);

struct prefix_memory;

err_t prefix_memory_open(uint32_t n_chunks_max, struct prefix_memory **out) ERR_MUST_CHECK;
void prefix_memory_close(struct prefix_memory *memory); /* NULL is fine */
/* For each slot the chunks that it had of the chain, from its beginning and without a gap. */
void prefix_memory_find(const struct prefix_memory *memory, const struct prefix_chain *chain,
                        uint16_t n_warm[PREFIX_REPLICAS_MAX]);
void prefix_memory_note(struct prefix_memory *memory, const struct prefix_chain *chain, uint32_t slot);
/* Another replica has the slot, or the same one begins anew. */
void prefix_memory_forget(struct prefix_memory *memory, uint32_t slot);
uint32_t prefix_memory_count(const struct prefix_memory *memory); /* chunks */
