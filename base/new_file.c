#include "base/new_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static err_t system_error(const struct new_file *file, const char *action)
{
    bool full = errno == ENOSPC || errno == EDQUOT || errno == EFBIG;
    return err_new(full ? ERR_RESOURCE_EXHAUSTED : ERR_IO, "%s: cannot %s: %s", file->beside, action,
                   strerror(errno));
}

/* Whether the file that was locked is still the one of that name: its writer may just have finished it. */
static bool is_in_place(const struct new_file *file)
{
    struct stat opened, named;
    return fstat(file->descriptor, &opened) == 0 && stat(file->beside, &named) == 0 &&
           opened.st_ino == named.st_ino && opened.st_dev == named.st_dev;
}

static err_t take(struct new_file *file)
{
    /* Not O_TRUNC: until the lock is held it may be somebody else's. */
    int descriptor = open(file->beside, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (descriptor < 0)
        return system_error(file, "create");
    if (flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
        int why = errno;
        close(descriptor);
        errno = why;
        if (why == EWOULDBLOCK)
            return err_new(ERR_FAILED_PRECONDITION, "%s: another process is writing it", file->beside);
        return system_error(file, "lock");
    }
    file->descriptor = descriptor;
    return err_ok();
}

err_t new_file_open(const char *path, struct new_file *out)
{
    *out = (struct new_file){.descriptor = -1};
    if (strlen(path) >= sizeof out->path)
        return err_new(ERR_INVALID_ARGUMENT, "%.100s...: the path is longer than %zu bytes", path,
                       sizeof out->path - 1);
    (void)snprintf(out->path, sizeof out->path, "%s", path);
    (void)snprintf(out->beside, sizeof out->beside, "%s.partial", path);
    TRY(take(out));
    if (!is_in_place(out)) {
        close(out->descriptor);
        out->descriptor = -1;
        TRY(take(out));
    }
    return ftruncate(out->descriptor, 0) == 0 ? err_ok() : system_error(out, "empty");
}

err_t new_file_reserve(struct new_file *file, uint64_t size_bytes)
{
    if (size_bytes == 0 || fallocate(file->descriptor, 0, 0, (off_t)size_bytes) == 0)
        return err_ok();
    if (errno == EOPNOTSUPP || errno == ENOSYS)
        return err_ok();
    err_t e = system_error(file, "take room on the disk");
    return err_prefix(e, "%llu bytes", (unsigned long long)size_bytes);
}

err_t new_file_write(struct new_file *file, uint64_t offset, const void *data, size_t size_bytes)
{
    const char *bytes = data;
    for (size_t done = 0; done < size_bytes;) {
        ssize_t n = pwrite(file->descriptor, bytes + done, size_bytes - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return system_error(file, "write");
        done += (size_t)n;
    }
    return err_ok();
}

/* The new name is on the disk, too. */
static void sync_directory(const struct new_file *file)
{
    char directory[NEW_FILE_PATH_MAX];
    const char *slash = strrchr(file->path, '/');
    int size = slash == NULL ? 0 : (int)(slash - file->path) + 1;
    (void)snprintf(directory, sizeof directory, "%.*s", size == 0 ? 1 : size, size == 0 ? "." : file->path);
    int descriptor = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0)
        return;
    (void)fsync(descriptor);
    close(descriptor);
}

err_t new_file_finish(struct new_file *file)
{
    if (fsync(file->descriptor) != 0)
        return system_error(file, "write");
    if (rename(file->beside, file->path) != 0)
        return system_error(file, "rename");
    sync_directory(file);
    close(file->descriptor);
    file->descriptor = -1;
    return err_ok();
}

void new_file_close(struct new_file *file)
{
    if (file->descriptor < 0)
        return;
    (void)unlink(file->beside);
    close(file->descriptor);
    file->descriptor = -1;
}
