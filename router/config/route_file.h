/* A configuration's file that is watched: read at the start, and again when it is another one. One thread. */
#pragma once

#include <stdbool.h>
#include "base/error.h"
#include "base/file_stamp.h"
#include "router/config/route_config.h"

struct route_file {
    const char *path; /* borrowed */
    char *(*environment)(const char *name);
    struct file_stamp stamp; /* of what was read last, good or not */
};

/* *out: what the file says. Errors as route_config_read's. */
err_t route_file_open(const char *path, char *(*environment)(const char *name), struct route_file *file,
                      struct route_config **out) ERR_MUST_CHECK;
/* Now and then: the file's new contents when it is another one than before, or in_any_case, since files that
 * it names may have changed. NULL: it is the same, or wrong, which is logged: whoever runs by the old one
 * goes on. */
struct route_config *route_file_refresh(struct route_file *file, bool in_any_case);
