#include "benchmarks/mock_table.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/mapped_file.h"

struct entry {
    const char *prompt, *answer; /* the lines' */
};

struct mock_table {
    struct entry *entries; /* [n], by prompt */
    json_t *lines;         /* owns the texts */
    size_t n;
};

static int by_prompt(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->prompt, ((const struct entry *)b)->prompt);
}

static err_t read_lines(struct mock_table *table, const char *path, const char *text, size_t size_bytes)
{
    size_t number = 0;
    for (size_t at = 0; at < size_bytes; number++) {
        const char *newline = memchr(text + at, '\n', size_bytes - at);
        size_t n = newline ? (size_t)(newline - text) - at : size_bytes - at;
        json_error_t fault;
        json_t *line = strspn(text + at, " \t\r") >= n ? json_null() : json_loadb(text + at, n, 0, &fault);
        at += n + 1;
        if (json_is_null(line))
            continue;
        bool good = json_is_string(json_object_get(line, "prompt")) &&
                    json_is_string(json_object_get(line, "answer"));
        if (!good) {
            json_decref(line);
            return err_new(ERR_INVALID_ARGUMENT,
                           "%s, line %zu: a line is {\"prompt\": \"...\", \"answer\": \"...\"}", path,
                           number + 1);
        }
        if (json_array_append_new(table->lines, line) != 0)
            return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %s", path);
    }
    return err_ok();
}

static err_t index_lines(struct mock_table *table, const char *path)
{
    table->n = json_array_size(table->lines);
    table->entries = mem_alloc_array(table->n + 1, sizeof *table->entries);
    if (!table->entries)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %s", path);
    for (size_t i = 0; i < table->n; i++) {
        const json_t *line = json_array_get(table->lines, i);
        table->entries[i] = (struct entry){json_string_value(json_object_get(line, "prompt")),
                                           json_string_value(json_object_get(line, "answer"))};
    }
    qsort(table->entries, table->n, sizeof *table->entries, by_prompt);
    return err_ok();
}

err_t mock_table_read(const char *path, struct mock_table **out)
{
    char *text;
    size_t size_bytes;
    TRY(file_read(path, MOCK_TABLE_BYTES_MAX, &text, &size_bytes));
    struct mock_table *table = mem_alloc(sizeof *table);
    err_t e = err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %s", path);
    if (table && (table->lines = json_array()) != NULL) {
        e = read_lines(table, path, text, size_bytes);
        if (e.code == ERR_OK)
            e = index_lines(table, path);
    }
    mem_free(text);
    if (e.code == ERR_OK)
        *out = table;
    else
        mock_table_free(table);
    return e;
}

void mock_table_free(struct mock_table *table)
{
    if (!table)
        return;
    json_decref(table->lines);
    mem_free(table->entries);
    mem_free(table);
}

const char *mock_table_find(const struct mock_table *table, const char *prompt)
{
    const struct entry key = {prompt, NULL};
    const struct entry *found =
        table ? bsearch(&key, table->entries, table->n, sizeof *table->entries, by_prompt) : NULL;
    return found ? found->answer : NULL;
}
