/* Any bytes as a packed model: an error, or entries that lie within the file one behind the other, that a
 * backend can size, and whose weights compute. Hashes are made right, so that what is behind them is reached.
 */
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/checked.h"
#include "base/hash.h"
#include "model/packed_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { WIDTH_MAX = 4096 };

static struct backend *backend; /* one for all inputs */

static void store(uint8_t *out, uint64_t value)
{
    for (size_t i = 0; i < 8; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

/* As a writer would have left it: header, size and both hashes. */
static void mend(uint8_t *data, size_t size)
{
    if (size < PACKED_ENTRIES_AT)
        return;
    uint64_t n = (uint64_t)(data[12] | data[13] << 8) % 8,
             room = (size - PACKED_ENTRIES_AT) / PACKED_ENTRY_BYTES;
    n = n < room ? n : room;
    memcpy(data, "BANTAMPK\1\0\0", 12);
    data[12] = (uint8_t)n;
    data[13] = data[14] = data[15] = 0;
    store(data + 16, size);
    store(data + 128, hash64(data + PACKED_ENTRIES_AT, n * PACKED_ENTRY_BYTES, 0));
    store(data + 136, hash64(data, 136, 0));
}

static void import(const struct packed_file *file, const struct packed_entry *entry, struct weight_desc *desc)
{
    static const struct backend_vtable *ops;
    ops = backend->vtable;
    struct weight *weight;
    struct act *in, *out;
    struct step step = {.n_rows = 1};
    err_t e = ops->weight_import(backend, desc, file->data + entry->offset, &weight);
    ASSERT(e.code == ERR_OK);
    e = ops->act_create(backend, ACT_HIDDEN, 1, desc->n_in, &in);
    ASSERT(e.code == ERR_OK);
    e = ops->act_create(backend, ACT_HIDDEN, 1, desc->n_out, &out);
    ASSERT(e.code == ERR_OK);
    ops->linear(backend, &step, STEP_ROWS_ALL, in, weight, out);
    ops->act_destroy(in);
    ops->act_destroy(out);
    ops->weight_destroy(weight);
}

static void no_codes(const void *context, size_t first_row, size_t n_rows, const struct weight_codes *out)
{
    (void)context, (void)first_row, (void)n_rows, (void)out;
}

static void use_matrix(const struct packed_file *file, const struct packed_entry *entry)
{
    static const float bias = 0;
    struct weight_desc desc = {.name = entry->name,
                               .n_out = entry->n_out,
                               .n_in = entry->n_in,
                               .codes = no_codes,
                               .bias = entry->has_bias ? &bias : NULL,
                               .sections = entry->sections,
                               .n_sections = entry->n_sections};
    size_t bytes = backend->vtable->packed_bytes(backend, &desc);
    if (bytes == entry->size_bytes && entry->n_in <= WIDTH_MAX)
        import(file, entry, &desc);
}

static void use(const struct packed_file *file, size_t size)
{
    uint64_t end = PACKED_ENTRIES_AT + (uint64_t)file->n_entries * PACKED_ENTRY_BYTES;
    for (uint32_t i = 0; i < file->n_entries; i++) {
        const struct packed_entry *entry = &file->entries[i];
        ASSERT(strlen(entry->name) > 0 && strlen(entry->name) < WEIGHT_NAME_MAX);
        ASSERT(entry->offset >= end && entry->size_bytes <= size - entry->offset);
        ASSERT(entry->is_vector == (entry->n_sections == 0));
        end = entry->offset + entry->size_bytes;
        if (entry->size_bytes <= PACKED_CHUNK_BYTES)
            (void)packed_file_verify(file, entry, NULL).code;
        if (!entry->is_vector)
            use_matrix(file, entry);
    }
    ASSERT(end == size);
}

static void parse(const uint8_t *data, size_t size)
{
    struct packed_file file;
    err_t e = packed_file_parse("input", data, size, &file);
    if (e.code != ERR_OK) {
        ASSERT(e.message[0] != '\0' && strlen(e.message) < ERR_MESSAGE_MAX);
        return;
    }
    use(&file, size);
    packed_file_close(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!backend) {
        err_t e = backend_cpu_create(1, "scalar", &backend);
        ASSERT(e.code == ERR_OK);
    }
    /* Aligned as a mapping is, and of its length, so that a sanitizer sees a read past it. */
    size_t lead = PACKED_ALIGN;
    uint8_t *block = mem_alloc(size + lead);
    ASSERT(block);
    uint8_t *copy = (uint8_t *)round_up((uintptr_t)block, PACKED_ALIGN);
    if (size > 0)
        memcpy(copy, data, size);
    parse(copy, size);
    mend(copy, size);
    parse(copy, size);
    mem_free(block);
    return 0;
}
