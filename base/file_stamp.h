/* Whether a file is another one than before, by what its directory entry says: for files that are read again
 * when they change. Any thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct file_stamp {
    bool exists;
    uint64_t device, inode, size_bytes;
    int64_t changed_ns; /* the later of the times of its contents and of its entry */
};

/* Links are followed. A file that cannot be seen does not exist; NULL is one. */
struct file_stamp file_stamp_read(const char *path);
bool file_stamp_equal(const struct file_stamp *a, const struct file_stamp *b);
