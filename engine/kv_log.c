#include "engine/kv_log.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"

/* An event in words; the table's places are the same. Every word is stored with release and loaded with
 * acquire: who sees a new word sees what its writer had stored before, which is how a reader learns that it
 * was overtaken. (Fences would do, but ThreadSanitizer does not know them.) */
enum {
    WORD_SERIAL, /* of the table: 0 while its place is empty or being written */
    WORD_SEQUENCE,
    WORD_TIME,
    WORD_BLOCK, /* is_stored << 32 | block */
    WORD_PARENT,
    WORD_SALT,
    WORD_ADAPTER,
    WORD_TOKENS, /* two a word */
};

enum { SNAPSHOT_TRIES = 4 };
#define STORED_BIT (UINT64_C(1) << 32)

struct kv_log {
    uint32_t n_blocks, block_tokens;
    size_t stride;     /* words of an event */
    uint64_t capacity; /* events, a power of two */
    uint64_t first_sequence;
    _Atomic uint64_t *ring;  /* [capacity][stride] */
    _Atomic uint64_t *table; /* [n_blocks][stride] */

    _Atomic uint64_t
        begun; /* events that were begun: of those `capacity` before it the oldest is being lost */
    _Atomic uint64_t readable; /* events that may be read */
    _Atomic uint64_t applied;  /* events that the table knows */

    /* The writer's. */
    uint64_t sequence; /* of the batch under way or ended last */
    int64_t unix_ns;
};

static size_t stride_of(uint32_t block_tokens)
{
    return WORD_TOKENS + ((size_t)block_tokens + 1) / 2;
}

static uint64_t capacity_of(uint32_t n_blocks)
{
    uint64_t capacity = KV_LOG_EVENTS_MIN;
    while (capacity < 2 * (uint64_t)n_blocks && capacity < KV_LOG_EVENTS_MAX)
        capacity *= 2;
    return capacity;
}

size_t kv_log_bytes(uint32_t n_blocks, uint32_t block_tokens)
{
    size_t n_places = (size_t)capacity_of(n_blocks) + n_blocks;
    return sizeof(struct kv_log) + n_places * stride_of(block_tokens) * sizeof(uint64_t);
}

err_t kv_log_create(uint32_t n_blocks, uint32_t block_tokens, uint64_t first_sequence_number,
                    struct kv_log **out)
{
    ASSERT(n_blocks > 0 && block_tokens > 0 && first_sequence_number > 0);
    struct kv_log *log = mem_alloc(kv_log_bytes(n_blocks, block_tokens));
    if (!log)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the log of KV events");
    log->n_blocks = n_blocks;
    log->block_tokens = block_tokens;
    log->stride = stride_of(block_tokens);
    log->capacity = capacity_of(n_blocks);
    log->first_sequence = log->sequence = first_sequence_number;
    log->ring = (_Atomic uint64_t *)(log + 1);
    log->table = log->ring + log->capacity * log->stride;
    *out = log;
    return err_ok();
}

void kv_log_destroy(struct kv_log *log)
{
    mem_free(log);
}

static void store_word(_Atomic uint64_t *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_release);
}

static uint64_t load_word(const _Atomic uint64_t *word)
{
    return atomic_load_explicit((_Atomic uint64_t *)word, memory_order_acquire);
}

static _Atomic uint64_t *event_at(const struct kv_log *log, uint64_t position)
{
    return log->ring + (position & (log->capacity - 1)) * log->stride;
}

static _Atomic uint64_t *place_of(const struct kv_log *log, uint64_t block)
{
    return log->table + block * log->stride;
}

/* ---- The writer ---- */

static void copy_tokens_in(const struct kv_log *log, const uint32_t *tokens, _Atomic uint64_t *words)
{
    for (uint32_t i = 0; i < log->block_tokens; i += 2) {
        uint64_t second = i + 1 < log->block_tokens ? tokens[i + 1] : 0;
        store_word(&words[WORD_TOKENS + i / 2], second << 32 | tokens[i]);
    }
}

static void append(struct kv_log *log, const struct prefix_block *block, bool is_stored)
{
    uint64_t position = atomic_load_explicit(&log->begun, memory_order_relaxed);
    uint64_t readable = atomic_load_explicit(&log->readable, memory_order_relaxed);
    if (position - readable == KV_LOG_BATCH_EVENTS_MAX) {
        kv_log_flush(log);
        readable = position;
    }
    log->sequence += position == readable;
    store_word(&log->begun, position + 1);
    _Atomic uint64_t *words = event_at(log, position);
    store_word(&words[WORD_SERIAL], block->serial);
    store_word(&words[WORD_SEQUENCE], log->sequence);
    store_word(&words[WORD_TIME], (uint64_t)log->unix_ns);
    store_word(&words[WORD_BLOCK], (is_stored ? STORED_BIT : 0) | block->block);
    store_word(&words[WORD_PARENT], block->parent_serial);
    store_word(&words[WORD_SALT], block->salt);
    store_word(&words[WORD_ADAPTER], block->adapter);
    if (is_stored)
        copy_tokens_in(log, block->tokens, words);
}

static void on_stored(void *context, const struct prefix_block *block)
{
    append(context, block, true);
}

static void on_removed(void *context, const struct prefix_block *block)
{
    append(context, block, false);
}

struct prefix_observer kv_log_observer(struct kv_log *log)
{
    return (struct prefix_observer){log, on_stored, on_removed};
}

void kv_log_set_time(struct kv_log *log, int64_t unix_ns)
{
    log->unix_ns = unix_ns;
}

/* The writer reads back what it wrote itself. */
static void apply_to_table(struct kv_log *log, uint64_t position)
{
    const _Atomic uint64_t *event = event_at(log, position);
    uint64_t word = load_word(&event[WORD_BLOCK]);
    _Atomic uint64_t *place = place_of(log, word & UINT32_MAX);
    store_word(&place[WORD_SERIAL], 0);
    if (!(word & STORED_BIT))
        return;
    for (size_t i = WORD_SERIAL + 1; i < log->stride; i++)
        store_word(&place[i], load_word(&event[i]));
    store_word(&place[WORD_SERIAL], load_word(&event[WORD_SERIAL]));
}

bool kv_log_flush(struct kv_log *log)
{
    uint64_t end = atomic_load_explicit(&log->begun, memory_order_relaxed);
    uint64_t begin = atomic_load_explicit(&log->readable, memory_order_relaxed);
    if (begin == end)
        return false;
    store_word(&log->readable, end);
    for (uint64_t position = begin; position < end; position++)
        apply_to_table(log, position);
    store_word(&log->applied, end);
    return true;
}

/* ---- Readers ---- */

uint64_t kv_log_end(const struct kv_log *log)
{
    return load_word(&log->readable);
}

static bool is_kept(const struct kv_log *log, uint64_t position)
{
    return load_word(&log->begun) <= position + log->capacity;
}

/* words: [stride]. False when it was overwritten. */
static bool read_words(const struct kv_log *log, uint64_t position, uint64_t *words)
{
    const _Atomic uint64_t *event = event_at(log, position);
    for (size_t i = 0; i < log->stride; i++)
        words[i] = load_word(&event[i]);
    return is_kept(log, position);
}

static void copy_tokens_out(const uint64_t *words, uint32_t block_tokens, uint32_t *tokens)
{
    for (uint32_t i = 0; i < block_tokens; i++)
        tokens[i] = (uint32_t)(words[i / 2] >> (i % 2 * 32));
}

bool kv_log_read(const struct kv_log *log, uint64_t position, struct kv_log_event *out, uint32_t *tokens)
{
    const _Atomic uint64_t *event = event_at(log, position);
    uint64_t block = load_word(&event[WORD_BLOCK]);
    *out = (struct kv_log_event){
        .sequence_number = load_word(&event[WORD_SEQUENCE]),
        .is_stored = block & STORED_BIT,
        .unix_ns = (int64_t)load_word(&event[WORD_TIME]),
        .block = {.block = (uint32_t)block,
                  .adapter = (uint32_t)load_word(&event[WORD_ADAPTER]),
                  .serial = load_word(&event[WORD_SERIAL]),
                  .parent_serial = load_word(&event[WORD_PARENT]),
                  .salt = load_word(&event[WORD_SALT]),
                  .tokens = tokens},
    };
    for (uint32_t i = 0; out->is_stored && i < log->block_tokens; i++)
        tokens[i] = (uint32_t)(load_word(&event[WORD_TOKENS + i / 2]) >> (i % 2 * 32));
    return is_kept(log, position);
}

bool kv_log_find(const struct kv_log *log, uint64_t sequence_number, uint64_t *position)
{
    /* Not the very oldest events: they may be lost while others are looked at. */
    const uint64_t n_kept = log->capacity - 2 * KV_LOG_BATCH_EVENTS_MAX;
    uint64_t end = kv_log_end(log);
    uint64_t oldest = end > n_kept ? end - n_kept : 0;
    uint64_t first = log->first_sequence + 1, last = log->first_sequence;
    if (end > 0) {
        last = load_word(&event_at(log, end - 1)[WORD_SEQUENCE]);
        /* The batch at `oldest` may have begun before it. */
        first = load_word(&event_at(log, oldest)[WORD_SEQUENCE]) + (oldest > 0);
    }
    uint64_t wanted = sequence_number > first ? sequence_number : first;
    uint64_t low = oldest, high = end;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2;
        if (load_word(&event_at(log, middle)[WORD_SEQUENCE]) < wanted)
            low = middle + 1;
        else
            high = middle;
    }
    *position = low;
    return sequence_number >= first - 1 && sequence_number <= last && is_kept(log, oldest);
}

/* Copies the table's places of one salt; what changes meanwhile is left out. */
static void copy_table(const struct kv_log *log, const uint64_t *salt, uint64_t *words)
{
    for (uint64_t block = 0; block < log->n_blocks; block++, words += log->stride) {
        const _Atomic uint64_t *place = place_of(log, block);
        uint64_t serial = load_word(&place[WORD_SERIAL]);
        if (serial == 0)
            continue;
        for (size_t i = WORD_SERIAL + 1; i < log->stride; i++)
            words[i] = load_word(&place[i]);
        bool is_wanted = !salt || words[WORD_SALT] == *salt;
        words[WORD_SERIAL] = is_wanted && load_word(&place[WORD_SERIAL]) == serial ? serial : 0;
    }
}

/* Plays the events [begin, end) over the copy. False when one was overwritten. */
static bool play_events(const struct kv_log *log, const uint64_t *salt, uint64_t begin, uint64_t end,
                        uint64_t *words, uint64_t *event)
{
    for (uint64_t position = begin; position < end; position++) {
        if (!read_words(log, position, event))
            return false;
        if (salt && event[WORD_SALT] != *salt)
            continue;
        uint64_t *place = words + (event[WORD_BLOCK] & UINT32_MAX) * log->stride;
        if (event[WORD_BLOCK] & STORED_BIT)
            memcpy(place, event, log->stride * sizeof *place);
        else
            place[WORD_SERIAL] = 0;
    }
    return true;
}

static int by_serial(const void *a, const void *b)
{
    const uint64_t *left = a, *right = b;
    return (left[WORD_SERIAL] > right[WORD_SERIAL]) - (left[WORD_SERIAL] < right[WORD_SERIAL]);
}

/* Moves the blocks that are there to the front, oldest first; returns how many. */
static size_t gather_blocks(const struct kv_log *log, uint64_t *words)
{
    size_t n = 0, stride = log->stride;
    for (uint32_t block = 0; block < log->n_blocks; block++) {
        if (words[block * stride + WORD_SERIAL] == 0)
            continue;
        if (n != block)
            memcpy(words + n * stride, words + block * stride, stride * sizeof *words);
        n++;
    }
    qsort(words, n, stride * sizeof *words, by_serial);
    return n;
}

/* The exact state at the end that was readable after the copy was made; false when the writer was faster. */
static bool try_snapshot(const struct kv_log *log, const uint64_t *salt, uint64_t *words, uint64_t *event,
                         struct kv_snapshot *out)
{
    memset(words, 0, (size_t)log->n_blocks * log->stride * sizeof *words);
    uint64_t begin = load_word(&log->applied);
    copy_table(log, salt, words);
    uint64_t end = kv_log_end(log);
    if (!play_events(log, salt, begin, end, words, event))
        return false;
    out->position = end;
    out->sequence_number = log->first_sequence;
    if (end == 0)
        return true;
    out->sequence_number = load_word(&event_at(log, end - 1)[WORD_SEQUENCE]);
    return is_kept(log, end - 1);
}

err_t kv_log_snapshot(const struct kv_log *log, const uint64_t *salt, struct kv_snapshot *out)
{
    size_t n_words = ((size_t)log->n_blocks + 1) * log->stride;
    uint64_t *words = mem_alloc_array(n_words, sizeof *words);
    if (!words)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a snapshot of the prefix cache");
    uint64_t *event = words + (size_t)log->n_blocks * log->stride;
    bool done = false;
    for (int i = 0; i < SNAPSHOT_TRIES && !done; i++)
        done = try_snapshot(log, salt, words, event, out);
    if (!done) {
        mem_free(words);
        return err_new(ERR_UNAVAILABLE, "the prefix cache changes faster than a snapshot can be made");
    }
    out->block_tokens = log->block_tokens;
    out->stride = log->stride;
    out->n_blocks = gather_blocks(log, words);
    uint64_t *shrunk = mem_realloc(words, (out->n_blocks + 1) * log->stride * sizeof *words);
    out->words = shrunk ? shrunk : words;
    return err_ok();
}

void kv_snapshot_block(const struct kv_snapshot *snapshot, size_t i, struct prefix_block *out,
                       uint32_t *tokens)
{
    ASSERT(i < snapshot->n_blocks);
    const uint64_t *words = snapshot->words + i * snapshot->stride;
    *out = (struct prefix_block){
        .block = (uint32_t)words[WORD_BLOCK],
        .adapter = (uint32_t)words[WORD_ADAPTER],
        .serial = words[WORD_SERIAL],
        .parent_serial = words[WORD_PARENT],
        .salt = words[WORD_SALT],
        .tokens = tokens,
    };
    copy_tokens_out(words + WORD_TOKENS, snapshot->block_tokens, tokens);
}

void kv_snapshot_free(struct kv_snapshot *snapshot)
{
    mem_free(snapshot->words);
    snapshot->words = NULL;
}
