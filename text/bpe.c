#include "text/bpe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/utf8.h"
#include "text/byte_alphabet.h"

#define NO_SYMBOL UINT32_MAX

struct bpe_symbol {
    uint32_t id;         /* NO_SYMBOL = merged into its left neighbour */
    uint32_t prev, next; /* NO_SYMBOL = none */
};

static err_t out_of_memory(void)
{
    return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory while tokenising");
}

void bpe_scratch_free(struct bpe_scratch *scratch)
{
    mem_free(scratch->symbols);
    mem_free(scratch->heap);
    memset(scratch, 0, sizeof *scratch);
}

void token_list_free(struct token_list *list)
{
    mem_free(list->ids);
    list->ids = NULL;
    list->count = list->capacity = 0;
}

err_t token_list_push(struct token_list *list, uint32_t id)
{
    size_t limit = list->limit ? list->limit : TOKENIZER_TEXT_BYTES_MAX;
    if (list->count >= limit)
        return err_new(ERR_RESOURCE_EXHAUSTED, "the text is longer than %zu tokens", limit);
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 64;
        uint32_t *ids = mem_realloc(list->ids, capacity * sizeof *ids);
        if (ids == NULL)
            return out_of_memory();
        list->ids = ids;
        list->capacity = capacity;
    }
    list->ids[list->count++] = id;
    return err_ok();
}

err_t bpe_merges_init(struct bpe *bpe, size_t n_merges)
{
    uint32_t n_slots = 16;
    ASSERT(n_merges <= TOKENIZER_VOCAB_MAX);
    while (n_slots < n_merges + n_merges / 2)
        n_slots *= 2;
    bpe->merges = mem_alloc_array(n_slots, sizeof *bpe->merges);
    if (bpe->merges == NULL)
        return out_of_memory();
    bpe->n_slots = n_slots;
    for (uint32_t i = 0; i < n_slots; i++)
        bpe->merges[i].left = UINT32_MAX;
    return err_ok();
}

static struct bpe_merge *merge_slot(const struct bpe *bpe, uint32_t left, uint32_t right)
{
    uint64_t hash = ((uint64_t)left << 32 | right) * 0x9e3779b97f4a7c15u;
    uint32_t slot = (uint32_t)(hash >> 32) & (bpe->n_slots - 1);
    while (bpe->merges[slot].left != UINT32_MAX &&
           (bpe->merges[slot].left != left || bpe->merges[slot].right != right))
        slot = (slot + 1) & (bpe->n_slots - 1);
    return &bpe->merges[slot];
}

static const struct bpe_merge *merge_find(const struct bpe *bpe, uint32_t left, uint32_t right)
{
    const struct bpe_merge *merge = merge_slot(bpe, left, right);
    return merge->left == UINT32_MAX ? NULL : merge;
}

void bpe_merges_add(struct bpe *bpe, uint32_t left, uint32_t right, uint32_t rank, uint32_t result)
{
    struct bpe_merge *merge = merge_slot(bpe, left, right);
    if (merge->left == UINT32_MAX)
        bpe->n_merges++;
    ASSERT(bpe->n_merges < bpe->n_slots);
    *merge = (struct bpe_merge){left, right, rank, result};
}

void bpe_free(struct bpe *bpe)
{
    mem_free(bpe->merges);
    mem_free(bpe->parts);
    memset(bpe, 0, sizeof *bpe);
}

/* The id of a token that text may become: special ones are as if not there, or a user could write one;
 * so are added ones, which are found before the model looks. */
static int64_t find_plain(const struct bpe *bpe, const char *text, size_t text_bytes)
{
    int64_t id = vocab_find(bpe->vocab, text, text_bytes);
    return id != VOCAB_NONE && bpe->token_flags[id] != 0 ? VOCAB_NONE : id;
}

static void fill_byte_ids(struct bpe *bpe)
{
    for (int i = 0; i < 256; i++) {
        char name[8], text[UTF8_MAX_BYTES];
        snprintf(name, sizeof name, "<0x%02X>", i);
        bpe->fallback_id[i] = bpe->byte_fallback ? vocab_find(bpe->vocab, name, 6) : VOCAB_NONE;
        size_t length = utf8_encode(byte_alphabet_encode((uint8_t)i), text);
        bpe->byte_id[i] = bpe->byte_level ? find_plain(bpe, text, length) : VOCAB_NONE;
    }
}

err_t bpe_finish(struct bpe *bpe)
{
    fill_byte_ids(bpe);
    for (int pass = 0; pass < 2; pass++) {
        uint32_t n = 0;
        for (uint32_t i = 0; i < bpe->n_slots; i++) {
            const struct bpe_merge *merge = &bpe->merges[i];
            if (merge->left == UINT32_MAX || !(bpe->token_flags[merge->result] & TOKEN_SPECIAL))
                continue;
            if (pass == 1)
                bpe->parts[n] = (struct bpe_parts){merge->result, merge->left, merge->right};
            n++;
        }
        if (n == 0)
            break;
        if (pass == 0 && (bpe->parts = mem_alloc_array(n, sizeof *bpe->parts)) == NULL)
            return out_of_memory();
        bpe->n_parts = n;
    }
    return err_ok();
}

static err_t symbol_add(struct bpe_scratch *scratch, uint32_t id)
{
    if (scratch->n_symbols == scratch->symbols_capacity) {
        size_t capacity = scratch->symbols_capacity ? 2 * scratch->symbols_capacity : 256;
        struct bpe_symbol *symbols = mem_realloc(scratch->symbols, capacity * sizeof *symbols);
        if (symbols == NULL)
            return out_of_memory();
        scratch->symbols = symbols;
        scratch->symbols_capacity = capacity;
    }
    uint32_t index = (uint32_t)scratch->n_symbols++;
    scratch->symbols[index] = (struct bpe_symbol){id, index == 0 ? NO_SYMBOL : index - 1, NO_SYMBOL};
    if (index > 0)
        scratch->symbols[index - 1].next = index;
    return err_ok();
}

/* The tokens <0xNN> of a character without a token. *done: all of its bytes have one. */
static err_t add_fallback(const struct bpe *bpe, struct bpe_scratch *scratch, const char *unit,
                          size_t unit_bytes, bool *done)
{
    *done = bpe->byte_fallback;
    for (size_t i = 0; i < unit_bytes && *done; i++)
        *done = bpe->fallback_id[(uint8_t)unit[i]] != VOCAB_NONE;
    for (size_t i = 0; i < unit_bytes && *done; i++)
        TRY(symbol_add(scratch, (uint32_t)bpe->fallback_id[(uint8_t)unit[i]]));
    return err_ok();
}

/* The first symbols of a piece: one a character (one a byte when byte_level). An unknown token waits until a
 * known one follows, so that fuse_unk can join a run; byte fallback in between does not end the wait, as in
 * the reference library. */
static err_t add_units(const struct bpe *bpe, struct bpe_scratch *scratch, const char *piece,
                       size_t piece_bytes)
{
    bool unk_waits = false;
    for (size_t i = 0; i < piece_bytes;) {
        char mapped[UTF8_MAX_BYTES];
        const char *unit = piece + i;
        uint32_t code_point;
        size_t unit_bytes = bpe->byte_level ? 1 : utf8_decode(unit, piece_bytes - i, &code_point);
        ASSERT(unit_bytes > 0);
        i += unit_bytes;
        int64_t id = bpe->byte_level ? bpe->byte_id[(uint8_t)*unit] : find_plain(bpe, unit, unit_bytes);
        if (id != VOCAB_NONE) {
            if (unk_waits)
                TRY(symbol_add(scratch, (uint32_t)bpe->unk_id));
            unk_waits = false;
            TRY(symbol_add(scratch, (uint32_t)id));
            continue;
        }
        if (bpe->byte_level) {
            unit_bytes = utf8_encode(byte_alphabet_encode((uint8_t)*unit), mapped);
            unit = mapped;
        }
        bool done = false;
        TRY(add_fallback(bpe, scratch, unit, unit_bytes, &done));
        if (done)
            continue;
        if (bpe->unk_missing)
            return err_new(ERR_DATA_LOSS, "a character has no token, and the tokenizer's unk_token is not "
                                          "in its vocabulary");
        if (bpe->unk_id == VOCAB_NONE)
            continue;
        if (unk_waits && !bpe->fuse_unk)
            TRY(symbol_add(scratch, (uint32_t)bpe->unk_id));
        unk_waits = true;
    }
    return unk_waits ? symbol_add(scratch, (uint32_t)bpe->unk_id) : err_ok();
}

static err_t heap_push(struct bpe_scratch *scratch, uint64_t key)
{
    if (scratch->heap_size == scratch->heap_capacity) {
        size_t capacity = scratch->heap_capacity ? 2 * scratch->heap_capacity : 256;
        uint64_t *heap = mem_realloc(scratch->heap, capacity * sizeof *heap);
        if (heap == NULL)
            return out_of_memory();
        scratch->heap = heap;
        scratch->heap_capacity = capacity;
    }
    uint64_t *heap = scratch->heap;
    size_t hole = scratch->heap_size++;
    while (hole > 0 && heap[(hole - 1) / 2] > key) {
        heap[hole] = heap[(hole - 1) / 2];
        hole = (hole - 1) / 2;
    }
    heap[hole] = key;
    return err_ok();
}

static uint64_t heap_pop(struct bpe_scratch *scratch)
{
    uint64_t *heap = scratch->heap;
    uint64_t top = heap[0], last = heap[--scratch->heap_size];
    size_t size = scratch->heap_size, hole = 0;
    for (size_t child = 1; child < size; child = 2 * hole + 1) {
        if (child + 1 < size && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= last)
            break;
        heap[hole] = heap[child];
        hole = child;
    }
    heap[hole] = last;
    return top;
}

static err_t push_pair(const struct bpe *bpe, struct bpe_scratch *scratch, uint32_t left)
{
    const struct bpe_symbol *symbol = &scratch->symbols[left];
    const struct bpe_merge *merge = merge_find(bpe, symbol->id, scratch->symbols[symbol->next].id);
    return merge == NULL ? err_ok() : heap_push(scratch, (uint64_t)merge->rank << 32 | left);
}

/* A key in the heap may be out of date: its left symbol is gone or has another neighbour. Ranks are unique to
 * a pair, so that comparing the rank finds out. */
static err_t merge_all(const struct bpe *bpe, struct bpe_scratch *scratch)
{
    struct bpe_symbol *symbols = scratch->symbols;
    scratch->heap_size = 0;
    for (uint32_t i = 0; i + 1 < scratch->n_symbols; i++)
        TRY(push_pair(bpe, scratch, i));
    while (scratch->heap_size > 0) {
        uint64_t key = heap_pop(scratch);
        struct bpe_symbol *left = &symbols[(uint32_t)key];
        if (left->id == NO_SYMBOL || left->next == NO_SYMBOL)
            continue;
        struct bpe_symbol *right = &symbols[left->next];
        const struct bpe_merge *merge = merge_find(bpe, left->id, right->id);
        if (merge == NULL || merge->rank != key >> 32)
            continue;
        left->id = merge->result;
        left->next = right->next;
        right->id = NO_SYMBOL;
        if (left->next != NO_SYMBOL) {
            symbols[left->next].prev = (uint32_t)key;
            TRY(push_pair(bpe, scratch, (uint32_t)key));
        }
        if (left->prev != NO_SYMBOL)
            TRY(push_pair(bpe, scratch, left->prev));
    }
    return err_ok();
}

/* Appends `id`; a special token that merges have made comes apart. Depth: parts are shorter than the whole.
 */
static err_t emit(const struct bpe *bpe, uint32_t id, struct token_list *out)
{
    if ((bpe->token_flags[id] & TOKEN_SPECIAL) && id != bpe->unk_id)
        for (uint32_t i = 0; i < bpe->n_parts; i++)
            if (bpe->parts[i].id == id) {
                TRY(emit(bpe, bpe->parts[i].left, out));
                return emit(bpe, bpe->parts[i].right, out);
            }
    return token_list_push(out, id);
}

/* The token that is written exactly as the piece. */
static int64_t find_whole(const struct bpe *bpe, const char *piece, size_t piece_bytes)
{
    if (!bpe->byte_level)
        return find_plain(bpe, piece, piece_bytes);
    char mapped[TOKENIZER_TOKEN_BYTES_MAX];
    size_t n = 0;
    for (size_t i = 0; i < piece_bytes; i++) {
        if (n + UTF8_MAX_BYTES > sizeof mapped)
            return VOCAB_NONE;
        n += utf8_encode(byte_alphabet_encode((uint8_t)piece[i]), mapped + n);
    }
    return find_plain(bpe, mapped, n);
}

err_t bpe_encode(const struct bpe *bpe, struct bpe_scratch *scratch, const char *piece, size_t piece_bytes,
                 struct token_list *out)
{
    ASSERT(piece_bytes > 0 && piece_bytes < UINT32_MAX);
    if (bpe->ignore_merges) {
        int64_t id = find_whole(bpe, piece, piece_bytes);
        if (id != VOCAB_NONE)
            return token_list_push(out, (uint32_t)id);
    }
    scratch->n_symbols = 0;
    TRY(add_units(bpe, scratch, piece, piece_bytes));
    TRY(merge_all(bpe, scratch));
    for (uint32_t i = 0; i < scratch->n_symbols; i++)
        if (scratch->symbols[i].id != NO_SYMBOL)
            TRY(emit(bpe, scratch->symbols[i].id, out));
    return err_ok();
}
