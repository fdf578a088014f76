#include "engine/packed_model.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/gguf.h"
#include "base/mapped_file.h"
#include "base/model_path.h"
#include "base/new_file.h"
#include "model/gguf_config.h"
#include "model/packed_file.h"

enum { BESIDE_BYTES_MAX = 512 << 20 }; /* of a file beside the weights */

/* What Bantam reads of a directory beside its weights. */
static const char *const NAMES[] = {"config.json",           "generation_config.json", "tokenizer.json",
                                    "tokenizer_config.json", "chat_template.jinja",    GGUF_HEAD_FILE};
enum { N_NAMES = sizeof NAMES / sizeof NAMES[0] };

struct beside {
    const char *from, *to; /* the model's path; the directory */
};

static err_t write_whole(const char *path, const void *data, size_t size_bytes)
{
    struct new_file file;
    err_t e = new_file_open(path, &file);
    if (e.code == ERR_OK)
        e = new_file_write(&file, 0, data, size_bytes);
    if (e.code == ERR_OK)
        e = new_file_finish(&file);
    new_file_close(&file);
    return e;
}

static err_t write_head(const char *gguf_path, const char *path)
{
    struct gguf gguf;
    struct buffer head = {.limit_bytes = BESIDE_BYTES_MAX};
    TRY(gguf_open(gguf_path, &gguf));
    err_t e = gguf_head_write(&gguf, GGUF_ROPE_DIVISORS, &head);
    if (e.code == ERR_OK)
        e = write_whole(path, head.data, head.size);
    buffer_free(&head);
    gguf_close(&gguf);
    return e;
}

/* A file that the model has not, an earlier one in its place had: it goes. */
static err_t copy(const struct beside *beside, const char *name, const char *to)
{
    char from[PATH_MAX], *data;
    size_t size_bytes;
    TRY(path_join(beside->from, name, from, sizeof from));
    err_t e = file_read(from, BESIDE_BYTES_MAX, &data, &size_bytes);
    if (e.code == ERR_NOT_FOUND)
        return unlink(to) == 0 || errno == ENOENT
                   ? err_ok()
                   : err_new(ERR_IO, "%s: cannot remove: %s", to, strerror(errno));
    if (e.code == ERR_OK)
        e = write_whole(to, data, size_bytes);
    mem_free(data);
    return e;
}

static err_t write_beside(void *context)
{
    const struct beside *beside = context;
    char gguf[GGUF_PATH_MAX], to[PATH_MAX];
    bool is_gguf = gguf_of_model(beside->from, gguf);
    for (size_t i = 0; i < N_NAMES; i++) {
        TRY(path_join(beside->to, NAMES[i], to, sizeof to));
        if (is_gguf && strcmp(NAMES[i], GGUF_HEAD_FILE) == 0)
            TRY(write_head(gguf, to));
        else
            TRY(copy(beside, NAMES[i], to));
    }
    return err_ok();
}

static bool is_empty(DIR *directory)
{
    const struct dirent *entry;
    while ((entry = readdir(directory)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            return false;
    }
    return true;
}

/* What a writer that was killed left may be there, too. */
static bool is_ours(const char *path)
{
    char partial[PATH_MAX];
    return packed_file_is_in(path) ||
           (path_join(path, PACKED_FILE ".partial", partial, sizeof partial).code == ERR_OK &&
            access(partial, F_OK) == 0);
}

static err_t make_directory(const char *path, bool *is_new)
{
    *is_new = mkdir(path, 0777) == 0;
    if (*is_new)
        return err_ok();
    if (errno != EEXIST)
        return err_new(ERR_IO, "%s: cannot make the directory: %s", path, strerror(errno));
    DIR *directory = opendir(path);
    if (!directory)
        return err_new(errno == ENOTDIR ? ERR_INVALID_ARGUMENT : ERR_IO, "%s: %s", path, strerror(errno));
    bool empty = is_empty(directory);
    (void)closedir(directory);
    return empty || is_ours(path)
               ? err_ok()
               : err_new(ERR_INVALID_ARGUMENT,
                         "%s: neither empty nor a packed model: give a directory of its own", path);
}

err_t packed_model_write(const struct model_options *options, const char *directory, struct model_packed *out)
{
    bool is_new;
    struct beside beside = {options->directory, directory};
    TRY(model_path_check(options->directory, true));
    TRY(make_directory(directory, &is_new));
    err_t e = model_pack(options, directory, write_beside, &beside, out);
    if (e.code != ERR_OK && is_new)
        (void)rmdir(directory);
    return e;
}
