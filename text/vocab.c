#include "text/vocab.h"

#include <string.h>
#include "base/alloc.h"
#include "base/hash.h"
#include "text/tokenizer.h"

static err_t out_of_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the vocabulary");
}

static size_t slot_of(const struct vocab *vocab, const char *text, size_t text_bytes)
{
    size_t slot = hash64(text, text_bytes, 0) & (vocab->n_slots - 1);
    while (vocab->slots[slot] != 0) {
        uint32_t id = vocab->slots[slot] - 1;
        if (vocab->length[id] == text_bytes &&
            memcmp(vocab->bytes + vocab->offset[id], text, text_bytes) == 0)
            break;
        slot = (slot + 1) & (vocab->n_slots - 1);
    }
    return slot;
}

static err_t slots_grow(struct vocab *vocab, uint32_t n_slots)
{
    uint32_t *old = vocab->slots;
    uint32_t n_old = vocab->n_slots;
    vocab->slots = mem_alloc_array(n_slots, sizeof *vocab->slots);
    if (vocab->slots == NULL) {
        vocab->slots = old;
        return out_of_memory();
    }
    vocab->n_slots = n_slots;
    for (uint32_t i = 0; i < n_old; i++)
        if (old[i] != 0) {
            uint32_t id = old[i] - 1;
            vocab->slots[slot_of(vocab, vocab->bytes + vocab->offset[id], vocab->length[id])] = id + 1;
        }
    mem_free(old);
    return err_ok();
}

err_t vocab_init(struct vocab *vocab, size_t expected_tokens)
{
    memset(vocab, 0, sizeof *vocab);
    uint32_t n_slots = 1024;
    while (n_slots < 2 * expected_tokens && n_slots < 2u * TOKENIZER_VOCAB_MAX)
        n_slots *= 2;
    return slots_grow(vocab, n_slots);
}

void vocab_free(struct vocab *vocab)
{
    mem_free(vocab->bytes);
    mem_free(vocab->offset);
    mem_free(vocab->length);
    mem_free(vocab->slots);
    memset(vocab, 0, sizeof *vocab);
}

static err_t ids_reserve(struct vocab *vocab, uint32_t id)
{
    if (id < vocab->id_capacity)
        return err_ok();
    uint32_t capacity = vocab->id_capacity ? vocab->id_capacity : 1024;
    while (capacity <= id)
        capacity *= 2;
    uint32_t *offset = mem_realloc(vocab->offset, capacity * sizeof *offset);
    if (offset == NULL)
        return out_of_memory();
    vocab->offset = offset;
    uint16_t *length = mem_realloc(vocab->length, capacity * sizeof *length);
    if (length == NULL)
        return out_of_memory();
    vocab->length = length;
    memset(offset + vocab->id_capacity, 0xff, (capacity - vocab->id_capacity) * sizeof *offset);
    memset(length + vocab->id_capacity, 0, (capacity - vocab->id_capacity) * sizeof *length);
    vocab->id_capacity = capacity;
    return err_ok();
}

static err_t bytes_reserve(struct vocab *vocab, size_t more)
{
    if (vocab->bytes_capacity - vocab->n_bytes >= more)
        return err_ok();
    size_t capacity = vocab->bytes_capacity ? 2 * vocab->bytes_capacity : 1 << 16;
    char *bytes = mem_realloc(vocab->bytes, capacity);
    if (bytes == NULL)
        return out_of_memory();
    vocab->bytes = bytes;
    vocab->bytes_capacity = capacity;
    return err_ok();
}

err_t vocab_add(struct vocab *vocab, const char *text, size_t text_bytes, uint32_t id)
{
    if (text_bytes > TOKENIZER_TOKEN_BYTES_MAX)
        return err_new(ERR_DATA_LOSS, "token %u is %zu bytes long, the most is %d", id, text_bytes,
                       TOKENIZER_TOKEN_BYTES_MAX);
    if (id >= TOKENIZER_VOCAB_MAX)
        return err_new(ERR_DATA_LOSS, "token id %u is past the largest, %d", id, TOKENIZER_VOCAB_MAX - 1);
    TRY(ids_reserve(vocab, id));
    TRY(bytes_reserve(vocab, text_bytes + 1));
    if (vocab->offset[id] != UINT32_MAX)
        return err_new(ERR_DATA_LOSS, "two tokens have the id %u", id);
    size_t slot = slot_of(vocab, text, text_bytes);
    if (vocab->slots[slot] != 0)
        return err_new(ERR_DATA_LOSS, "ids %u and %u are written the same", vocab->slots[slot] - 1, id);
    vocab->offset[id] = (uint32_t)vocab->n_bytes;
    vocab->length[id] = (uint16_t)text_bytes;
    memcpy(vocab->bytes + vocab->n_bytes, text, text_bytes);
    vocab->bytes[vocab->n_bytes + text_bytes] = '\0';
    vocab->n_bytes += text_bytes + 1;
    vocab->slots[slot] = id + 1;
    if (id >= vocab->n_ids)
        vocab->n_ids = id + 1;
    vocab->n_tokens++;
    return 2 * vocab->n_tokens > vocab->n_slots ? slots_grow(vocab, 2 * vocab->n_slots) : err_ok();
}

int64_t vocab_find(const struct vocab *vocab, const char *text, size_t text_bytes)
{
    if (text_bytes > TOKENIZER_TOKEN_BYTES_MAX)
        return VOCAB_NONE;
    uint32_t entry = vocab->slots[slot_of(vocab, text, text_bytes)];
    return entry == 0 ? VOCAB_NONE : (int64_t)entry - 1;
}

const char *vocab_text(const struct vocab *vocab, uint32_t id, size_t *text_bytes)
{
    if (id >= vocab->n_ids || vocab->offset[id] == UINT32_MAX)
        return NULL;
    *text_bytes = vocab->length[id];
    return vocab->bytes + vocab->offset[id];
}
