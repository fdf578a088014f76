#include "base/file_stamp.h"

#include <stddef.h>
#include <sys/stat.h>

static int64_t ns_of(struct timespec time)
{
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

struct file_stamp file_stamp_read(const char *path)
{
    struct stat status;
    if (path == NULL || stat(path, &status) != 0)
        return (struct file_stamp){.exists = false};
    int64_t contents_ns = ns_of(status.st_mtim), entry_ns = ns_of(status.st_ctim);
    return (struct file_stamp){
        .exists = true,
        .device = (uint64_t)status.st_dev,
        .inode = (uint64_t)status.st_ino,
        .size_bytes = (uint64_t)status.st_size,
        .changed_ns = contents_ns > entry_ns ? contents_ns : entry_ns,
    };
}

bool file_stamp_equal(const struct file_stamp *a, const struct file_stamp *b)
{
    return a->exists == b->exists && a->device == b->device && a->inode == b->inode &&
           a->size_bytes == b->size_bytes && a->changed_ns == b->changed_ns;
}
