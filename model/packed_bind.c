/* The list of a model's weights over a file of packed ones. */
#include <string.h>
#include "model/packed_file.h"

static err_t mismatch(const struct packed_file *file, const struct weight_source *source, const char *what)
{
    return err_new(ERR_DATA_LOSS, "%s: %s \"%s\" of the configuration beside it: run bantam quantize again",
                   file->path, what, source->name);
}

static err_t bind_entry(const struct packed_file *file, uint32_t index, bool is_vector,
                        struct weight_source *source)
{
    if (index >= file->n_entries)
        return mismatch(file, source, "it lacks");
    const struct packed_entry *entry = &file->entries[index];
    if (strcmp(entry->name, source->name) != 0 || entry->is_vector != is_vector ||
        entry->n_out != source->n_out || entry->n_in != source->n_in ||
        entry->has_bias != (source->n_biases > 0))
        return mismatch(file, source, "another name or shape than");
    source->packed = entry;
    return err_ok();
}

/* The format is the file's. */
static err_t bind_matrix(const struct packed_file *file, const struct backend *backend, uint32_t index,
                         struct weight_source *source)
{
    static const float not_read = 0;
    TRY(bind_entry(file, index, false, source));
    const struct packed_entry *entry = source->packed;
    source->format = entry->sections[0].format;
    source->group = entry->sections[0].group;
    source->has_codes = false;
    source->n_sections = entry->n_sections > 1 ? entry->n_sections : 0;
    for (uint32_t i = 0; i < entry->n_sections; i++) {
        source->sections[i] = entry->sections[i];
        source->has_codes |= entry->sections[i].has_codes;
    }
    struct weight_desc desc = weight_source_desc(source);
    desc.bias = entry->has_bias ? &not_read : NULL;
    if (backend->vtable->packed_bytes(backend, &desc) != entry->size_bytes)
        return mismatch(file, source, "another size than that of");
    return err_ok();
}

err_t packed_file_bind(const struct packed_file *file, const struct backend *backend,
                       struct weight_list *list)
{
    uint32_t index = 0;
    for (size_t i = 0; i < list->n_matrices; i++)
        TRY(bind_matrix(file, backend, index++, &list->matrices[i]));
    for (size_t i = 0; i < list->n_vectors; i++) {
        if (list->vectors[i].n_parts > 0)
            TRY(bind_entry(file, index++, true, &list->vectors[i]));
    }
    if (index != file->n_entries)
        return err_new(ERR_DATA_LOSS, "%s: \"%s\" is none of the configuration's weights", file->path,
                       file->entries[index].name);
    list->n_of_blocks = (size_t)file->n_of_blocks;
    return err_ok();
}
