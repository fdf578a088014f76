/* Writing a packed model: one matrix after the other is packed, written and dropped. */
#include <limits.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/checked.h"
#include "base/hash.h"
#include "base/new_file.h"
#include "base/progress.h"
#include "model/survey.h"

struct packer {
    struct survey *survey;
    struct new_file *file;
    uint8_t *entries; /* [n_entries][PACKED_ENTRY_BYTES], as they will stand in the file */
    uint8_t *chunk;   /* [PACKED_CHUNK_BYTES]: what was not written yet */
    uint64_t *hashes; /* of the entry's chunks, [hashes_max] */
    size_t hashes_max, n_hashes;
    size_t chunk_used;
    uint64_t at; /* of the chunk in the file */
    struct progress progress;
};

static void store(uint8_t *out, uint64_t value, size_t size_bytes)
{
    for (size_t i = 0; i < size_bytes; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

/* ---- The data of an entry ---- */

static err_t flush_chunk(struct packer *packer)
{
    ASSERT(packer->n_hashes < packer->hashes_max);
    packer->hashes[packer->n_hashes] = hash64(packer->chunk, packer->chunk_used, packer->n_hashes);
    packer->n_hashes++;
    TRY(new_file_write(packer->file, packer->at, packer->chunk, packer->chunk_used));
    packer->at += packer->chunk_used;
    packer->chunk_used = 0;
    progress_update(&packer->progress, packer->at);
    return err_ok();
}

static err_t take_bytes(void *context, const void *data, size_t size_bytes)
{
    struct packer *packer = context;
    const uint8_t *bytes = data;
    while (size_bytes > 0) {
        size_t room = PACKED_CHUNK_BYTES - packer->chunk_used, now = size_bytes < room ? size_bytes : room;
        memcpy(packer->chunk + packer->chunk_used, bytes, now);
        packer->chunk_used += now;
        bytes += now;
        size_bytes -= now;
        if (packer->chunk_used == PACKED_CHUNK_BYTES)
            TRY(flush_chunk(packer));
    }
    return err_ok();
}

static void begin_data(struct packer *packer, uint64_t offset)
{
    packer->at = offset;
    packer->n_hashes = packer->chunk_used = 0;
}

static err_t end_data(struct packer *packer, uint8_t *entry)
{
    if (packer->chunk_used > 0)
        TRY(flush_chunk(packer));
    store(entry + 216, packed_chunks_hash(packer->hashes, packer->n_hashes), 8);
    return err_ok();
}

/* ---- The directory ---- */

static void put_section(uint8_t *out, const struct weight_section *section)
{
    const char *format = packed_format_name(section->format);
    store(out, section->n_out, 8);
    store(out + 8, section->group, 4);
    store(out + 12, section->has_codes, 4);
    memcpy(out + 16, format, strlen(format));
}

static void put_sections(uint8_t *entry, const struct weight_source *source)
{
    const struct weight_section whole = {source->n_out, source->format, source->group, source->has_codes,
                                         false};
    store(entry + 120, source->n_sections > 0 ? source->n_sections : 1, 4);
    if (source->n_sections == 0)
        put_section(entry + 128, &whole);
    for (uint32_t i = 0; i < source->n_sections; i++)
        put_section(entry + 128 + 24 * (size_t)i, &source->sections[i]);
}

static size_t packed_size(const struct packer *packer, const struct weight_source *source)
{
    static const float not_read = 0;
    const struct backend *backend = packer->survey->backends[0];
    struct weight_desc desc = weight_source_desc(source);
    desc.bias = source->n_biases > 0 ? &not_read : NULL;
    return backend->vtable->packed_bytes(backend, &desc);
}

/* Returns where the next one begins at the earliest. */
static uint64_t put_entry(const struct packer *packer, const struct weight_source *source, bool is_vector,
                          uint64_t end, uint8_t *entry)
{
    enum { MATRIX = 1, VECTOR = 2 };
    uint64_t offset = packed_entry_offset(end, is_vector);
    uint64_t size_bytes = is_vector ? source->n_in * sizeof(float) : packed_size(packer, source);
    memcpy(entry, source->name, strlen(source->name));
    store(entry + 96, source->n_out, 8);
    store(entry + 104, source->n_in, 8);
    store(entry + 112, is_vector ? VECTOR : MATRIX, 4);
    store(entry + 116, source->n_biases > 0, 4);
    if (!is_vector)
        put_sections(entry, source);
    store(entry + 200, offset, 8);
    store(entry + 208, size_bytes, 8);
    return offset + size_bytes;
}

static uint32_t count_entries(const struct weight_list *list)
{
    uint32_t n = (uint32_t)list->n_matrices;
    for (size_t i = 0; i < list->n_vectors; i++)
        n += list->vectors[i].n_parts > 0;
    return n;
}

/* Places, before anything is packed; returns the size of the file. */
static uint64_t put_entries(const struct packer *packer, uint32_t n_entries)
{
    const struct weight_list *list = &packer->survey->lists[0];
    uint64_t end = PACKED_ENTRIES_AT + (uint64_t)n_entries * PACKED_ENTRY_BYTES;
    uint8_t *entry = packer->entries;
    for (size_t i = 0; i < list->n_matrices; i++, entry += PACKED_ENTRY_BYTES)
        end = put_entry(packer, &list->matrices[i], false, end, entry);
    for (size_t i = 0; i < list->n_vectors; i++) {
        if (list->vectors[i].n_parts == 0)
            continue;
        end = put_entry(packer, &list->vectors[i], true, end, entry);
        entry += PACKED_ENTRY_BYTES;
    }
    return end;
}

static err_t put_header(const struct packer *packer, uint32_t n_entries, uint64_t size_bytes)
{
    const struct survey *survey = packer->survey;
    const struct weight_list *list = &survey->lists[0];
    const char *layout = survey->backends[0]->vtable->packed_layout;
    const char *dtype = MODEL_DTYPE_NAMES[list->dtype];
    const char *quantization = MODEL_QUANTIZATION_NAMES[survey->options.quantization];
    uint64_t weights_fingerprint;
    uint8_t header[PACKED_HEADER_BYTES] = "BANTAMPK";
    TRY(survey_fingerprint(survey, &weights_fingerprint));
    ASSERT(strlen(layout) < PACKED_LAYOUT_MAX);
    store(header + 8, PACKED_VERSION, 4);
    store(header + 12, n_entries, 4);
    store(header + 16, size_bytes, 8);
    store(header + 24, list->n_parameters, 8);
    store(header + 32, survey->config.fingerprint, 8);
    store(header + 40, weights_fingerprint, 8);
    store(header + 48, list->n_of_blocks, 8);
    store(header + 56, weight_list_group(&survey->options), 4);
    memcpy(header + 64, layout, strlen(layout));
    memcpy(header + 96, dtype, strlen(dtype));
    memcpy(header + 112, quantization, strlen(quantization));
    store(header + 128, hash64(packer->entries, (size_t)n_entries * PACKED_ENTRY_BYTES, 0), 8);
    store(header + 136, hash64(header, 136, 0), 8);
    TRY(new_file_write(packer->file, PACKED_ENTRIES_AT, packer->entries,
                       (size_t)n_entries * PACKED_ENTRY_BYTES));
    return new_file_write(packer->file, 0, header, sizeof header);
}

/* ---- Packing ---- */

static err_t pack_matrix(struct packer *packer, struct weight_source *source)
{
    struct backend *backend = packer->survey->backends[0];
    struct weight *weight;
    TRY(weight_source_pack(source, backend, &weight));
    err_t e = weight_list_fault(&packer->survey->lists[0]);
    if (e.code == ERR_OK)
        e = backend->vtable->weight_export(weight, take_bytes, packer);
    backend->vtable->weight_destroy(weight);
    return e;
}

static err_t pack_vector(struct packer *packer, const struct weight_source *source)
{
    float *values = mem_alloc_array(source->n_in, sizeof *values);
    if (!values)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %s", source->name);
    err_t e = weight_source_read_vector(source, values);
    if (e.code == ERR_OK)
        e = take_bytes(packer, values, source->n_in * sizeof *values);
    mem_free(values);
    return e;
}

static uint64_t load_offset(const uint8_t *entry)
{
    uint64_t offset = 0;
    for (size_t i = 8; i > 0; i--)
        offset = offset << 8 | entry[200 + i - 1];
    return offset;
}

static void prefetch(const struct survey *survey, const struct weight_source *next)
{
    for (uint32_t i = 0; survey->checkpoint && i < next->n_parts; i++)
        checkpoint_prefetch(survey->checkpoint, weight_part_tensor(&next->parts[i]));
}

static err_t pack_all(struct packer *packer)
{
    const struct weight_list *list = &packer->survey->lists[0];
    uint8_t *entry = packer->entries;
    for (size_t i = 0; i < list->n_matrices; i++, entry += PACKED_ENTRY_BYTES) {
        if (i + 1 < list->n_matrices)
            prefetch(packer->survey, &list->matrices[i + 1]);
        begin_data(packer, load_offset(entry));
        TRY(pack_matrix(packer, &list->matrices[i]));
        TRY(end_data(packer, entry));
    }
    for (size_t i = 0; i < list->n_vectors; i++) {
        if (list->vectors[i].n_parts == 0)
            continue;
        begin_data(packer, load_offset(entry));
        TRY(pack_vector(packer, &list->vectors[i]));
        TRY(end_data(packer, entry));
        entry += PACKED_ENTRY_BYTES;
    }
    return err_ok();
}

static err_t write_file(struct packer *packer, struct model_packed *out)
{
    uint32_t n_entries = count_entries(&packer->survey->lists[0]);
    ASSERT(n_entries <= PACKED_ENTRIES_MAX);
    packer->entries = mem_alloc_array(n_entries, PACKED_ENTRY_BYTES);
    packer->chunk = mem_alloc(PACKED_CHUNK_BYTES);
    if (!packer->entries || !packer->chunk)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory to pack");
    uint64_t size_bytes = put_entries(packer, n_entries);
    packer->hashes_max = (size_t)div_up(size_bytes, PACKED_CHUNK_BYTES) + 1;
    packer->hashes = mem_alloc_array(packer->hashes_max, sizeof *packer->hashes);
    if (!packer->hashes)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory to pack");
    TRY(new_file_reserve(packer->file, size_bytes));
    progress_begin(&packer->progress, "packing weights", size_bytes);
    packer->progress.enabled = packer->progress.enabled && packer->survey->options.show_progress;
    err_t e = pack_all(packer);
    progress_end(&packer->progress);
    TRY(e);
    TRY(put_header(packer, n_entries, size_bytes));
    *out = (struct model_packed){n_entries, size_bytes};
    return err_ok();
}

static err_t check_packable(const struct survey *survey)
{
    ASSERT(survey->backends[0]->vtable->packed_layout);
    return survey->packed.path == NULL
               ? err_ok()
               : err_new(ERR_INVALID_ARGUMENT, "%s: packed already: give the model that it was made from",
                         survey->options.directory);
}

/* Before a GPU is looked for. */
static err_t check_device(struct model_options *options)
{
    const char *device = options->device ? options->device : "cpu";
    options->device = "cpu";
    return strcmp(device, "cpu") == 0 || strcmp(device, "auto") == 0
               ? err_ok()
               : err_new(ERR_INVALID_ARGUMENT,
                         "--device %.60s packs its weights whenever it loads them: only those of the CPU are "
                         "written",
                         device);
}

err_t model_pack(const struct model_options *options, const char *directory, model_pack_beside_fn *beside,
                 void *context, struct model_packed *out)
{
    struct survey survey = {0};
    struct new_file file = {.descriptor = -1};
    struct packer packer = {.survey = &survey, .file = &file};
    struct model_options whole = *options;
    char path[PATH_MAX];
    whole.n_ranks = 1;
    TRY(check_device(&whole));
    TRY(path_join(directory, PACKED_FILE, path, sizeof path));
    err_t e = survey_open(&whole, &survey);
    if (e.code == ERR_OK)
        e = check_packable(&survey);
    if (e.code == ERR_OK) {
        survey_warn(&survey);
        e = new_file_open(path, &file);
    }
    if (e.code == ERR_OK)
        e = write_file(&packer, out);
    if (e.code == ERR_OK)
        e = beside(context);
    if (e.code == ERR_OK)
        e = new_file_finish(&file);
    new_file_close(&file);
    mem_free(packer.entries);
    mem_free(packer.chunk);
    mem_free(packer.hashes);
    survey_free(&survey);
    return e;
}
