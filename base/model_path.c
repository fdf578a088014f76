#include "base/model_path.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/gguf.h"
#include "base/mapped_file.h"

#define WHAT_TO_GIVE "give a folder with config.json and *.safetensors, a .gguf file or a packed model"

static bool ends_with(const char *text, const char *end)
{
    size_t n_text = strlen(text), n_end = strlen(end);
    return n_text >= n_end && strcmp(text + n_text - n_end, end) == 0;
}

/* "meta-llama/Llama-3.2-1B", where there is no folder meta-llama: other servers would download it. */
static bool is_hub_name(const char *path)
{
    const char *slash = strchr(path, '/');
    char owner[NAME_MAX + 1];
    if (!slash || slash == path || slash[1] == '\0' || strchr(slash + 1, '/') || strchr(".~", path[0]) ||
        (size_t)(slash - path) >= sizeof owner)
        return false;
    memcpy(owner, path, (size_t)(slash - path));
    owner[slash - path] = '\0';
    return access(owner, F_OK) != 0;
}

static err_t absent(const char *path)
{
    if (is_hub_name(path))
        return err_new(ERR_NOT_FOUND,
                       "%s: no such file or folder; names of model hubs are not downloaded: give a folder",
                       path);
    return err_new(ERR_NOT_FOUND, "%s: no such file or folder; " WHAT_TO_GIVE, path);
}

/* Whatever its name. */
static bool begins_as_gguf(const char *path)
{
    char first[sizeof GGUF_MAGIC - 1];
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0)
        return false;
    ssize_t size = read(descriptor, first, sizeof first);
    (void)close(descriptor);
    return size == (ssize_t)sizeof first && memcmp(first, GGUF_MAGIC, sizeof first) == 0;
}

/* Any other name may be a GGUF file's, which its reader checks. */
static err_t check_file(const char *path)
{
    static const char *const PARTS[] = {".safetensors", ".json", ".bin", ".pt", ".pth"};
    for (size_t i = 0; i < sizeof PARTS / sizeof PARTS[0]; i++)
        if (ends_with(path, PARTS[i]) && !begins_as_gguf(path))
            return err_new(ERR_INVALID_ARGUMENT, "%s: one file of a model; give the folder that holds it",
                           path);
    return err_ok();
}

static bool has(const char *folder, const char *name)
{
    char path[PATH_MAX];
    return path_join(folder, name, path, sizeof path).code == ERR_OK && access(path, F_OK) == 0;
}

/* A folder as downloads of GGUF files leave it. */
static bool find_gguf(const char *folder, char out[NAME_MAX + 1])
{
    DIR *directory = opendir(folder);
    const struct dirent *entry;
    out[0] = '\0';
    while (directory && !out[0] && (entry = readdir(directory)) != NULL)
        if (ends_with(entry->d_name, ".gguf"))
            memcpy(out, entry->d_name, strlen(entry->d_name) + 1);
    if (directory)
        (void)closedir(directory);
    return out[0] != '\0';
}

static err_t check_folder(const char *path, bool needs_config)
{
    char name[NAME_MAX + 1], gguf[GGUF_PATH_MAX];
    if (!needs_config || has(path, "config.json") || gguf_of_model(path, gguf))
        return err_ok();
    if (find_gguf(path, name))
        return err_new(ERR_NOT_FOUND, "%s: no config.json in it; of a GGUF model give the file: %s/%s", path,
                       path, name);
    return err_new(ERR_NOT_FOUND, "%s: no config.json in it; " WHAT_TO_GIVE, path);
}

err_t model_path_check(const char *path, bool needs_config)
{
    struct stat status;
    if (path[0] == '\0')
        return err_new(ERR_INVALID_ARGUMENT, "the model's path is empty; " WHAT_TO_GIVE);
    if (stat(path, &status) != 0)
        return errno == ENOENT ? absent(path) : err_new(ERR_IO, "%s: %s", path, strerror(errno));
    return S_ISDIR(status.st_mode) ? check_folder(path, needs_config) : check_file(path);
}
