#include "tests/model/broken_model.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/alloc.h"
#include "base/mapped_file.h"

void broken_model_make(struct broken_model *model)
{
    broken_model_make_of(model, "checkpoints/llama-gqa");
}

void broken_model_make_of(struct broken_model *model, const char *checkpoint)
{
    char path[512];
    *model = (struct broken_model){0};
    const char *folder = getenv("TMPDIR");
    snprintf(model->directory, sizeof model->directory, "%s/bantam-model-XXXXXX", folder ? folder : "/tmp");
    assert_non_null(mkdtemp(model->directory));
    snprintf(path, sizeof path, TEST_DATA_DIR "/parity/%s/config.json", checkpoint);
    model->config = json_load_file(path, 0, NULL);
    assert_non_null(model->config);
    char *file;
    size_t file_bytes;
    snprintf(path, sizeof path, TEST_DATA_DIR "/parity/%s/model.safetensors", checkpoint);
    assert_int_equal(file_read(path, 1 << 20, &file, &file_bytes).code, ERR_OK);
    uint64_t header_bytes;
    memcpy(&header_bytes, file, sizeof header_bytes);
    model->header = json_loadb(file + 8, header_bytes, 0, NULL);
    assert_non_null(model->header);
    model->data_bytes = file_bytes - 8 - header_bytes;
    model->data = mem_alloc(model->data_bytes);
    assert_non_null(model->data);
    memcpy(model->data, file + 8 + header_bytes, model->data_bytes);
    mem_free(file);
}

void broken_model_remove(struct broken_model *model)
{
    DIR *folder = opendir(model->directory);
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (entry->d_name[0] != '.')
            broken_model_delete_file(model, entry->d_name);
    }
    closedir(folder);
    assert_int_equal(rmdir(model->directory), 0);
    json_decref(model->config);
    json_decref(model->header);
    mem_free(model->data);
}

static void file_path(const struct broken_model *model, const char *name, char *out, size_t out_bytes)
{
    assert_true(snprintf(out, out_bytes, "%s/%s", model->directory, name) < (int)out_bytes);
}

void broken_model_write_file(const struct broken_model *model, const char *name, const void *data,
                             size_t size_bytes)
{
    char path[512];
    file_path(model, name, path, sizeof path);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, size_bytes, file), size_bytes);
    assert_int_equal(fclose(file), 0);
}

void broken_model_delete_file(const struct broken_model *model, const char *name)
{
    char path[512];
    file_path(model, name, path, sizeof path);
    (void)unlink(path);
}

void broken_model_write_safetensors(const struct broken_model *model, const char *name, const char *header,
                                    const void *data, size_t data_bytes, uint64_t header_bytes)
{
    char path[512];
    file_path(model, name, path, sizeof path);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    uint64_t prefix = header_bytes ? header_bytes : strlen(header);
    assert_int_equal(fwrite(&prefix, 1, sizeof prefix, file), sizeof prefix);
    assert_int_equal(fwrite(header, 1, strlen(header), file), strlen(header));
    assert_int_equal(fwrite(data, 1, data_bytes, file), data_bytes);
    assert_int_equal(fclose(file), 0);
}

void broken_model_write(const struct broken_model *model)
{
    char path[512];
    file_path(model, "config.json", path, sizeof path);
    assert_int_equal(json_dump_file(model->config, path, 0), 0);
    static char header[1 << 16];
    size_t n = json_dumpb(model->header, header, sizeof header - 1, JSON_COMPACT);
    assert_true(n > 0 && n < sizeof header);
    header[n] = '\0';
    broken_model_write_safetensors(model, "model.safetensors", header, model->data, model->data_bytes, 0);
}

json_t *broken_model_tensor(const struct broken_model *model, const char *name)
{
    json_t *tensor = json_object_get(model->header, name);
    assert_non_null(tensor);
    return tensor;
}

struct model_options broken_model_options(const struct broken_model *model)
{
    return (struct model_options){.directory = model->directory,
                                  .max_model_len = 64,
                                  .max_num_seqs = 2,
                                  .max_num_batched_tokens = 16,
                                  .num_kv_blocks = 8,
                                  .n_threads = 1};
}

err_t broken_model_load(const struct broken_model *model, const struct model_options *options)
{
    struct model_options defaults = broken_model_options(model);
    struct model *loaded;
    err_t e = model_load(options ? options : &defaults, NULL, &loaded);
    if (e.code == ERR_OK)
        model_destroy(loaded);
    else
        assert_null(loaded);
    return e;
}

void expect_error(err_t e, enum err_code code, ...)
{
    if (e.code == ERR_OK)
        fail_msg("loaded; expected %s", err_code_name(code));
    if (e.code != code)
        fail_msg("%s, expected %s: %s", err_code_name(e.code), err_code_name(code), e.message);
    va_list texts;
    va_start(texts, code);
    for (const char *text; (text = va_arg(texts, const char *)) != NULL;) {
        if (!strstr(e.message, text))
            fail_msg("\"%s\" is not in the message: %s", text, e.message);
    }
    va_end(texts);
}
