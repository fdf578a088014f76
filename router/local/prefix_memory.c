#include "router/local/prefix_memory.h"

#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/hash.h"
#include "router/local/local_salt.h"

/* --- names of chunks */

struct chunker {
    struct prefix_chain *chain;
    uint64_t parent;
    size_t size, total;
    char bytes[PREFIX_CHUNK_BYTES];
};

static void end_chunk(struct chunker *chunker, const void *data, size_t size)
{
    struct prefix_chain *chain = chunker->chain;
    if (chain->n == PREFIX_CHUNKS_MAX)
        return;
    chunker->parent = hash64(data, size, chunker->parent);
    chain->hash[chain->n++] = chunker->parent;
}

static void add_bytes(struct chunker *chunker, const char *data, size_t size)
{
    chunker->total += size;
    while (size > 0 && chunker->chain->n < PREFIX_CHUNKS_MAX) {
        size_t room = PREFIX_CHUNK_BYTES - chunker->size, part = size < room ? size : room;
        memcpy(chunker->bytes + chunker->size, data, part);
        chunker->size += part;
        data += part;
        size -= part;
        if (chunker->size == PREFIX_CHUNK_BYTES) {
            end_chunk(chunker, chunker->bytes, PREFIX_CHUNK_BYTES);
            chunker->size = 0;
        }
    }
}

static uint32_t tokens_of_bytes(size_t bytes)
{
    size_t tokens = bytes / PREFIX_TOKENS_BYTES + 1;
    return tokens < UINT32_MAX ? (uint32_t)tokens : UINT32_MAX;
}

void prefix_chain_make(const struct request *request, struct prefix_chain *out)
{
    const char *owner = local_salt_owner(request);
    struct chunker chunker = {.chain = out, .parent = hash64(owner, strlen(owner), request->prompt_kind)};
    out->n = 0;
    switch (request->prompt_kind) {
    case PROMPT_TOKEN_IDS:
        for (size_t i = 0; i + PREFIX_CHUNK_TOKENS <= request->n_token_ids; i += PREFIX_CHUNK_TOKENS)
            end_chunk(&chunker, request->token_ids + i, PREFIX_CHUNK_TOKENS * sizeof *request->token_ids);
        out->prompt_tokens = request->n_token_ids < UINT32_MAX ? (uint32_t)request->n_token_ids : UINT32_MAX;
        return;
    case PROMPT_TEXT:
        add_bytes(&chunker, request->text, request->text_bytes);
        break;
    case PROMPT_MESSAGES:
        for (size_t i = 0; i < request->n_messages; i++) {
            const struct chat_message *message = &request->messages[i];
            add_bytes(&chunker, message->role, strlen(message->role) + 1);
            add_bytes(&chunker, message->content, message->content_bytes);
            add_bytes(&chunker, "", 1);
        }
        add_bytes(&chunker, request->template_json, request->template_json_bytes); /* last: it grows */
        break;
    case PROMPT_NONE:
        break;
    }
    out->prompt_tokens = tokens_of_bytes(chunker.total);
}

/* --- the table: chains of a hash table and a list by age, over one array */

enum { NOBODY = UINT32_MAX };

struct prefix_entry {
    uint64_t hash, replicas; /* replicas: a bit each */
    uint32_t next;           /* in its bucket */
    uint32_t older, newer;
};

struct prefix_memory {
    struct prefix_entry *entries; /* [n_max] */
    uint32_t *buckets;            /* [n_max] */
    uint32_t n, n_max, newest, oldest;
};

err_t prefix_memory_open(uint32_t n_chunks_max, struct prefix_memory **out)
{
    ASSERT(n_chunks_max > 0);
    struct prefix_memory *memory = mem_alloc(sizeof *memory);
    if (memory) {
        memory->entries = mem_alloc_array(n_chunks_max, sizeof *memory->entries);
        memory->buckets = mem_alloc_array(n_chunks_max, sizeof *memory->buckets);
    }
    if (!memory || !memory->entries || !memory->buckets) {
        prefix_memory_close(memory);
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for %u prefixes", n_chunks_max);
    }
    memory->n_max = n_chunks_max;
    memory->newest = memory->oldest = NOBODY;
    memset(memory->buckets, 0xff, n_chunks_max * sizeof *memory->buckets);
    *out = memory;
    return err_ok();
}

void prefix_memory_close(struct prefix_memory *memory)
{
    if (!memory)
        return;
    mem_free(memory->entries);
    mem_free(memory->buckets);
    mem_free(memory);
}

static uint32_t *bucket_of(const struct prefix_memory *memory, uint64_t hash)
{
    return &memory->buckets[hash % memory->n_max];
}

static uint32_t find_entry(const struct prefix_memory *memory, uint64_t hash)
{
    uint32_t i = *bucket_of(memory, hash);
    while (i != NOBODY && memory->entries[i].hash != hash)
        i = memory->entries[i].next;
    return i;
}

static void unlink_age(struct prefix_memory *memory, uint32_t i)
{
    struct prefix_entry *entry = &memory->entries[i];
    *(entry->newer == NOBODY ? &memory->newest : &memory->entries[entry->newer].older) = entry->older;
    *(entry->older == NOBODY ? &memory->oldest : &memory->entries[entry->older].newer) = entry->newer;
}

static void make_newest(struct prefix_memory *memory, uint32_t i)
{
    struct prefix_entry *entry = &memory->entries[i];
    entry->newer = NOBODY;
    entry->older = memory->newest;
    *(memory->newest == NOBODY ? &memory->oldest : &memory->entries[memory->newest].newer) = i;
    memory->newest = i;
}

/* A place for a new entry: the next one, or the oldest entry's. */
static uint32_t take_place(struct prefix_memory *memory)
{
    if (memory->n < memory->n_max)
        return memory->n++;
    uint32_t i = memory->oldest, *link = bucket_of(memory, memory->entries[i].hash);
    while (*link != i)
        link = &memory->entries[*link].next;
    *link = memory->entries[i].next;
    unlink_age(memory, i);
    return i;
}

void prefix_memory_note(struct prefix_memory *memory, const struct prefix_chain *chain, uint32_t slot)
{
    ASSERT(slot < PREFIX_REPLICAS_MAX);
    /* From the end, so that a beginning is never older than what stands on it. */
    for (uint32_t k = chain->n; k-- > 0;) {
        uint32_t i = find_entry(memory, chain->hash[k]);
        if (i != NOBODY) {
            unlink_age(memory, i);
        } else {
            i = take_place(memory);
            uint32_t *bucket = bucket_of(memory, chain->hash[k]);
            memory->entries[i] = (struct prefix_entry){.hash = chain->hash[k], .next = *bucket};
            *bucket = i;
        }
        memory->entries[i].replicas |= UINT64_C(1) << slot;
        make_newest(memory, i);
    }
}

void prefix_memory_find(const struct prefix_memory *memory, const struct prefix_chain *chain,
                        uint16_t n_warm[PREFIX_REPLICAS_MAX])
{
    memset(n_warm, 0, PREFIX_REPLICAS_MAX * sizeof *n_warm);
    uint64_t still = UINT64_MAX;
    for (uint32_t k = 0; k < chain->n && still != 0; k++) {
        uint32_t i = find_entry(memory, chain->hash[k]);
        still &= i != NOBODY ? memory->entries[i].replicas : 0;
        for (uint64_t left = still; left != 0; left &= left - 1)
            n_warm[__builtin_ctzll(left)]++;
    }
}

void prefix_memory_forget(struct prefix_memory *memory, uint32_t slot)
{
    ASSERT(slot < PREFIX_REPLICAS_MAX);
    for (uint32_t i = 0; i < memory->n; i++)
        memory->entries[i].replicas &= ~(UINT64_C(1) << slot);
}

uint32_t prefix_memory_count(const struct prefix_memory *memory)
{
    return memory->n;
}
