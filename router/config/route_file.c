#include "router/config/route_file.h"

#include "base/log.h"

err_t route_file_open(const char *path, char *(*environment)(const char *name), struct route_file *file,
                      struct route_config **out)
{
    *file = (struct route_file){.path = path, .environment = environment};
    file->stamp = file_stamp_read(path); /* before it is read: a change meanwhile is seen later */
    return route_config_read(path, environment, out);
}

struct route_config *route_file_refresh(struct route_file *file, bool in_any_case)
{
    struct file_stamp now = file_stamp_read(file->path);
    if (!in_any_case && file_stamp_equal(&now, &file->stamp))
        return NULL;
    file->stamp = now;
    struct route_config *config = NULL;
    err_t e = route_config_read(file->path, file->environment, &config);
    if (e.code == ERR_OK)
        return config;
    log_error("route", "%s; the configuration stays as it was", e.message);
    return NULL;
}
