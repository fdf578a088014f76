#include "base/mapped_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/alloc.h"

enum { READ_FIRST_BYTES = 4096 };

static err_t system_error(const char *path, const char *action)
{
    if (errno == ENOENT || errno == ENOTDIR)
        return err_new(ERR_NOT_FOUND, "%s: no such file", path);
    return err_new(ERR_IO, "%s: cannot %s: %s", path, action, strerror(errno));
}

static err_t map_descriptor(const char *path, int descriptor, struct mapped_file *out)
{
    struct stat status;
    if (fstat(descriptor, &status) != 0)
        return system_error(path, "examine");
    if (!S_ISREG(status.st_mode))
        return err_new(ERR_INVALID_ARGUMENT, "%s: not a regular file", path);
    if (status.st_size == 0)
        return err_ok();
    void *data = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, descriptor, 0);
    if (data == MAP_FAILED)
        return system_error(path, "map");
    out->data = data;
    out->size_bytes = (size_t)status.st_size;
    return err_ok();
}

err_t mapped_file_open(const char *path, struct mapped_file *out)
{
    *out = (struct mapped_file){NULL, 0};
    /* O_NONBLOCK: a named pipe is refused and not waited for. */
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (descriptor < 0)
        return system_error(path, "open");
    err_t e = map_descriptor(path, descriptor, out);
    close(descriptor);
    return e;
}

void mapped_file_close(struct mapped_file *file)
{
    if (file->data != NULL)
        munmap((void *)(uintptr_t)file->data, file->size_bytes);
    *file = (struct mapped_file){NULL, 0};
}

/* The file's size is not asked for: files of the kernel and pipes do not know theirs. */
static err_t read_to_end(const char *path, int descriptor, size_t max_bytes, char **data, size_t *size_bytes)
{
    size_t size = 0, capacity = 0;
    for (;;) {
        if (capacity - size < 2) { /* a byte to read and the NUL */
            size_t larger = capacity > 0 ? 2 * capacity : READ_FIRST_BYTES;
            char *moved = mem_realloc(*data, larger);
            if (moved == NULL)
                return err_new(ERR_RESOURCE_EXHAUSTED, "%s: no memory to read it", path);
            *data = moved;
            capacity = larger;
        }
        ssize_t got = read(descriptor, *data + size, capacity - size - 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && errno == EISDIR)
            return err_new(ERR_INVALID_ARGUMENT, "%s: is a directory, not a file", path);
        if (got < 0)
            return system_error(path, "read");
        size += (size_t)got;
        if (size > max_bytes)
            return err_new(ERR_RESOURCE_EXHAUSTED, "%s: larger than the limit of %zu bytes", path, max_bytes);
        if (got == 0)
            break;
    }
    (*data)[size] = '\0';
    *size_bytes = size;
    return err_ok();
}

err_t descriptor_read(int descriptor, const char *name, size_t max_bytes, char **data, size_t *size_bytes)
{
    *data = NULL;
    *size_bytes = 0;
    err_t e = read_to_end(name, descriptor, max_bytes, data, size_bytes);
    if (e.code != ERR_OK) {
        mem_free(*data);
        *data = NULL;
    }
    return e;
}

err_t file_read(const char *path, size_t max_bytes, char **data, size_t *size_bytes)
{
    *data = NULL;
    *size_bytes = 0;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    if (descriptor < 0)
        return system_error(path, "open");
    err_t e = descriptor_read(descriptor, path, max_bytes, data, size_bytes);
    close(descriptor);
    return e;
}

err_t path_join(const char *directory, const char *name, char *out, size_t out_bytes)
{
    if (name[0] == '\0' || strchr(name, '/') != NULL || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return err_new(ERR_INVALID_ARGUMENT, "\"%s\" is not a plain file name", name);
    int length = snprintf(out, out_bytes, "%s/%s", directory, name);
    if (length < 0 || (size_t)length >= out_bytes)
        return err_new(ERR_INVALID_ARGUMENT, "%s/%s: the path is longer than %zu bytes", directory, name,
                       out_bytes - 1);
    return err_ok();
}
