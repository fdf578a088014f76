#include "model/packed_file.h"

#include <inttypes.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/checked.h"
#include "base/hash.h"

/* ---- Names ---- */

static const char *const FORMATS[WEIGHT_FORMATS] = {
    [WEIGHT_F32] = "f32",   [WEIGHT_BF16] = "bf16",   [WEIGHT_F16] = "f16", [WEIGHT_INT8] = "int8",
    [WEIGHT_INT4] = "int4", [WEIGHT_UINT4] = "uint4", [WEIGHT_FP8] = "fp8", [WEIGHT_INT5] = "int5",
    [WEIGHT_K4] = "k4",     [WEIGHT_K5] = "k5",       [WEIGHT_K6] = "k6",
};
const char *packed_format_name(enum weight_format format)
{
    return FORMATS[format];
}

/* The index of the name that a field of so many bytes holds, padded with NUL; -1: none of them. */
static int find_name(const char *const *names, int n, const uint8_t *field, size_t field_bytes)
{
    for (int i = 0; i < n; i++) {
        char padded[64] = "";
        if (!names[i] || strlen(names[i]) >= field_bytes)
            continue;
        memcpy(padded, names[i], strlen(names[i]));
        if (memcmp(padded, field, field_bytes) == 0)
            return i;
    }
    return -1;
}

/* Text of printable characters, padded with NUL: at least one of either. */
static bool take_text(const uint8_t *field, size_t field_bytes, char *out)
{
    size_t size = strnlen((const char *)field, field_bytes);
    bool ok = size > 0 && size < field_bytes;
    for (size_t i = 0; i < field_bytes; i++)
        ok &= i < size ? field[i] > ' ' && field[i] < 0x7f : field[i] == 0;
    if (ok)
        memcpy(out, field, field_bytes);
    return ok;
}

/* ---- Numbers ---- */

static uint64_t load(const uint8_t *data, size_t size_bytes)
{
    uint64_t value = 0;
    for (size_t i = size_bytes; i > 0; i--)
        value = value << 8 | data[i - 1];
    return value;
}

uint64_t packed_entry_offset(uint64_t end, bool is_vector)
{
    uint64_t align = is_vector ? PACKED_VECTOR_ALIGN : PACKED_MATRIX_ALIGN;
    return (end + align - 1) / align * align;
}

uint64_t packed_chunks_hash(const uint64_t *hashes, size_t n)
{
    return hash64(hashes, n * sizeof *hashes, 0);
}

/* ---- Entries ---- */

struct parse {
    const char *path;
    const uint8_t *data;
    size_t size_bytes;
    uint64_t end; /* of the data of the entries so far */
};

static err_t broken(const struct parse *parse, const struct packed_entry *entry, const char *what)
{
    return err_new(ERR_DATA_LOSS, "%s: \"%s\" %s: write it again with bantam quantize", parse->path,
                   entry->name, what);
}

/* What a description must hold (kernels.h). */
static bool section_is_sound(const struct weight_section *section, size_t n_in)
{
    bool grouped = section->format == WEIGHT_INT8 || section->format == WEIGHT_INT4 ||
                   section->format == WEIGHT_UINT4 || section->format >= WEIGHT_INT5;
    bool needs_codes = section->format == WEIGHT_UINT4 || section->format >= WEIGHT_INT5;
    if (grouped && (section->group == 0 || section->group % WEIGHT_GROUP != 0 || n_in % section->group != 0))
        return false;
    if (section->format == WEIGHT_FP8 && section->group != n_in)
        return false;
    return section->n_out > 0 && (section->has_codes || !needs_codes);
}

static err_t take_sections(const struct parse *parse, const uint8_t *data, struct packed_entry *entry)
{
    size_t n_out = 0;
    bool fits = true;
    for (uint32_t i = 0; i < entry->n_sections; i++, data += 24) {
        struct weight_section *section = &entry->sections[i];
        int format = find_name(FORMATS, WEIGHT_FORMATS, data + 16, 8);
        uint64_t has_codes = load(data + 12, 4);
        if (format < 0 || has_codes > 1)
            return broken(parse, entry, "has a format that is not known");
        *section = (struct weight_section){.n_out = (size_t)load(data, 8),
                                           .format = (enum weight_format)format,
                                           .group = (uint32_t)load(data + 8, 4),
                                           .has_codes = has_codes == 1};
        fits = fits && section_is_sound(section, entry->n_in) && checked_add(n_out, section->n_out, &n_out);
    }
    return fits && n_out == entry->n_out ? err_ok()
                                         : broken(parse, entry, "has sections that are not its outputs");
}

/* Each behind the one before it, within the file. */
static err_t take_place(struct parse *parse, const uint8_t *data, struct packed_entry *entry)
{
    entry->offset = load(data, 8);
    entry->size_bytes = load(data + 8, 8);
    entry->hash = load(data + 16, 8);
    uint64_t end;
    if (entry->offset != packed_entry_offset(parse->end, entry->is_vector))
        return broken(parse, entry, "does not lie behind what is before it");
    if (entry->size_bytes == 0 || __builtin_add_overflow(entry->offset, entry->size_bytes, &end) ||
        end > parse->size_bytes)
        return broken(parse, entry, "ends past the file");
    size_t values_bytes;
    if (entry->is_vector &&
        (!checked_mul(entry->n_in, sizeof(float), &values_bytes) || entry->size_bytes != values_bytes))
        return broken(parse, entry, "is not as long as its values");
    parse->end = end;
    return err_ok();
}

static err_t take_entry(struct parse *parse, const uint8_t *data, struct packed_entry *entry)
{
    enum { MATRIX = 1, VECTOR = 2 };
    if (!take_text(data, WEIGHT_NAME_MAX, entry->name))
        return err_new(ERR_DATA_LOSS, "%s: the name at byte %zu is no text of 1 to %d characters",
                       parse->path, (size_t)(data - parse->data), WEIGHT_NAME_MAX - 1);
    uint64_t kind = load(data + 112, 4), has_bias = load(data + 116, 4), n_sections = load(data + 120, 4);
    entry->n_out = (size_t)load(data + 96, 8);
    entry->n_in = (size_t)load(data + 104, 8);
    entry->is_vector = kind == VECTOR;
    entry->has_bias = has_bias == 1;
    if ((kind != MATRIX && kind != VECTOR) || has_bias > 1)
        return broken(parse, entry, "is neither a matrix nor a vector");
    bool counts = kind == MATRIX ? n_sections >= 1 && n_sections <= WEIGHT_SECTIONS_MAX
                                 : n_sections == 0 && has_bias == 0 && entry->n_out == 1;
    if (!counts || entry->n_out == 0 || entry->n_in == 0)
        return broken(parse, entry, "has no shape of its kind");
    entry->n_sections = (uint32_t)n_sections;
    if (!entry->is_vector)
        TRY(take_sections(parse, data + 128, entry));
    return take_place(parse, data + 200, entry);
}

static err_t take_entries(struct parse *parse, struct packed_file *out)
{
    parse->end = PACKED_ENTRIES_AT + (uint64_t)out->n_entries * PACKED_ENTRY_BYTES;
    for (uint32_t i = 0; i < out->n_entries; i++)
        TRY(take_entry(parse, parse->data + PACKED_ENTRIES_AT + (size_t)i * PACKED_ENTRY_BYTES,
                       &out->entries[i]));
    if (parse->end != parse->size_bytes)
        return err_new(ERR_DATA_LOSS, "%s: %" PRIu64 " bytes behind its weights", parse->path,
                       parse->size_bytes - parse->end);
    return err_ok();
}

/* ---- The header ---- */

static err_t check_size(const struct parse *parse)
{
    const uint8_t *data = parse->data;
    if (parse->size_bytes < PACKED_ENTRIES_AT)
        return err_new(ERR_DATA_LOSS, "%s: truncated: %zu bytes hold no packed model", parse->path,
                       parse->size_bytes);
    if (memcmp(data, "BANTAMPK", 8) != 0)
        return err_new(ERR_DATA_LOSS, "%s: not a packed model", parse->path);
    uint64_t version = load(data + 8, 4), size_bytes = load(data + 16, 8);
    if (version != PACKED_VERSION)
        return err_new(ERR_UNIMPLEMENTED,
                       "%s: version %" PRIu64 ", this program reads %d: run bantam quantize on the original "
                       "model again",
                       parse->path, version, PACKED_VERSION);
    if (load(data + 136, 8) != hash64(data, 136, 0))
        return err_new(ERR_DATA_LOSS, "%s: its header is not what was written (the hash differs)",
                       parse->path);
    if (size_bytes != parse->size_bytes)
        return err_new(ERR_DATA_LOSS, "%s: %s: %zu bytes, it was written with %" PRIu64, parse->path,
                       size_bytes > parse->size_bytes ? "truncated" : "too long", parse->size_bytes,
                       size_bytes);
    return err_ok();
}

static err_t take_header(const struct parse *parse, struct packed_file *out)
{
    const uint8_t *data = parse->data;
    int dtype = find_name(MODEL_DTYPE_NAMES, MODEL_DTYPES, data + 96, 16);
    int quantization = find_name(MODEL_QUANTIZATION_NAMES, MODEL_QUANTIZATIONS, data + 112, 16);
    if (dtype < 0 || quantization < 0 || !take_text(data + 64, PACKED_LAYOUT_MAX, out->layout))
        return err_new(ERR_DATA_LOSS, "%s: layout, dtype or quantization are none that are known",
                       parse->path);
    out->dtype = (enum model_dtype)dtype;
    out->quantization = (enum model_quantization)quantization;
    out->n_parameters = load(data + 24, 8);
    out->config_fingerprint = load(data + 32, 8);
    out->weights_fingerprint = load(data + 40, 8);
    out->n_of_blocks = load(data + 48, 8);
    out->group = (uint32_t)load(data + 56, 4);
    uint64_t n_entries = load(data + 12, 4);
    if (n_entries > PACKED_ENTRIES_MAX ||
        n_entries * PACKED_ENTRY_BYTES > parse->size_bytes - PACKED_ENTRIES_AT)
        return err_new(ERR_DATA_LOSS, "%s: %" PRIu64 " entries are more than it can hold", parse->path,
                       n_entries);
    if (load(data + 128, 8) != hash64(data + PACKED_ENTRIES_AT, (size_t)n_entries * PACKED_ENTRY_BYTES, 0))
        return err_new(ERR_DATA_LOSS, "%s: its entries are not what was written (the hash differs)",
                       parse->path);
    out->n_entries = (uint32_t)n_entries;
    out->entries = mem_alloc_array(n_entries + 1, sizeof *out->entries);
    return out->entries ? err_ok() : err_new(ERR_RESOURCE_EXHAUSTED, "%s: out of memory", parse->path);
}

err_t packed_file_parse(const char *path, const uint8_t *data, size_t size_bytes, struct packed_file *out)
{
    *out = (struct packed_file){.path = mem_strdup(path), .data = data};
    struct parse parse = {.path = path, .data = data, .size_bytes = size_bytes};
    err_t e = out->path ? check_size(&parse) : err_new(ERR_RESOURCE_EXHAUSTED, "%s: out of memory", path);
    if (e.code == ERR_OK)
        e = take_header(&parse, out);
    if (e.code == ERR_OK)
        e = take_entries(&parse, out);
    if (e.code != ERR_OK)
        packed_file_close(out);
    return e;
}

bool packed_file_is_in(const char *directory)
{
    char path[PATH_MAX];
    return path_join(directory, PACKED_FILE, path, sizeof path).code == ERR_OK && access(path, F_OK) == 0;
}

err_t packed_file_open(const char *directory, struct packed_file *out)
{
    char path[PATH_MAX];
    struct mapped_file map;
    *out = (struct packed_file){0};
    TRY(path_join(directory, PACKED_FILE, path, sizeof path));
    TRY(mapped_file_open(path, &map));
    err_t e = packed_file_parse(path, map.data, map.size_bytes, out);
    if (e.code == ERR_OK)
        out->map = map;
    else
        mapped_file_close(&map);
    return e;
}

void packed_file_close(struct packed_file *file)
{
    mapped_file_close(&file->map);
    mem_free(file->entries);
    mem_free(file->path);
    *file = (struct packed_file){0};
}

/* ---- Options ---- */

err_t packed_file_adopt(const struct packed_file *file, struct model_options *options)
{
    if (options->dtype != MODEL_DTYPE_AUTO && options->dtype != file->dtype)
        return err_new(
            ERR_INVALID_ARGUMENT,
            "%s: packed with --dtype %s: leave --dtype out, or run bantam quantize on the original "
            "model with --dtype %s",
            file->path, MODEL_DTYPE_NAMES[file->dtype], MODEL_DTYPE_NAMES[options->dtype]);
    uint32_t group = weight_list_group(options);
    bool grouped = options->quantization == MODEL_QUANT_INT8 || options->quantization == MODEL_QUANT_INT4;
    if (options->quantization != MODEL_QUANT_NONE &&
        (options->quantization != file->quantization || (grouped && group != file->group)))
        return err_new(ERR_INVALID_ARGUMENT,
                       "%s: packed with --quantization %s --quantization-group %u: leave both out, or run "
                       "bantam quantize on the original model again",
                       file->path, MODEL_QUANTIZATION_NAMES[file->quantization], file->group);
    if (options->n_ranks > 1)
        return err_new(ERR_INVALID_ARGUMENT,
                       "%s: packed whole: --tensor-parallel-size %u needs the original model", file->path,
                       options->n_ranks);
    options->dtype = file->dtype;
    options->quantization = file->quantization;
    options->quantization_group = file->group;
    return err_ok();
}

err_t packed_file_suits(const struct packed_file *file, const struct backend *backend)
{
    const char *layout = backend->vtable->packed_layout;
    if (!layout || strcmp(layout, file->layout) != 0)
        return err_new(ERR_UNIMPLEMENTED,
                       "%s: packed in the layout %s, this program computes with %s: run bantam quantize on "
                       "the original model again",
                       file->path, file->layout, layout ? layout : "none");
    return err_ok();
}

/* ---- Data ---- */

struct verify_job {
    const uint8_t *data;
    size_t size_bytes;
    uint64_t *hashes; /* [chunks] */
};

static void hash_chunks(void *context, int thread_index, int n_threads)
{
    const struct verify_job *job = context;
    size_t begin, end;
    thread_split(div_up(job->size_bytes, PACKED_CHUNK_BYTES), 1, thread_index, n_threads, &begin, &end);
    for (size_t i = begin; i < end; i++) {
        size_t at = i * PACKED_CHUNK_BYTES, left = job->size_bytes - at;
        job->hashes[i] = hash64(job->data + at, left < PACKED_CHUNK_BYTES ? left : PACKED_CHUNK_BYTES, i);
    }
}

err_t packed_file_verify(const struct packed_file *file, const struct packed_entry *entry,
                         struct thread_pool *pool)
{
    struct verify_job job = {.data = file->data + entry->offset, .size_bytes = (size_t)entry->size_bytes};
    size_t n = div_up(job.size_bytes, PACKED_CHUNK_BYTES);
    job.hashes = mem_alloc_array(n, sizeof *job.hashes);
    if (!job.hashes)
        return err_new(ERR_RESOURCE_EXHAUSTED, "%s: out of memory", file->path);
    if (n > 1)
        thread_pool_run(pool, hash_chunks, &job);
    else
        hash_chunks(&job, 0, 1);
    bool same = packed_chunks_hash(job.hashes, n) == entry->hash;
    mem_free(job.hashes);
    return same ? err_ok()
                : err_new(ERR_DATA_LOSS,
                          "%s: \"%s\" is not what was written (the hash differs): write it again with "
                          "bantam quantize",
                          file->path, entry->name);
}

void packed_file_prefetch(const struct packed_file *file, const struct packed_entry *entry)
{
    uintptr_t page = (uintptr_t)(file->data + entry->offset) & ~(uintptr_t)4095;
    (void)madvise((void *)page, (size_t)entry->size_bytes, MADV_WILLNEED);
}
