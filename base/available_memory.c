#include "base/available_memory.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/mapped_file.h"

enum { SYSTEM_FILE_MAX = 256 * 1024, SYSTEM_PATH_MAX = 1024 };

/* Names of one cgroup version's files. */
struct cgroup_files {
    const char *root, *limit, *usage, *reclaimable; /* reclaimable: a line of memory.stat */
};

static const struct cgroup_files cgroup_v2 = {"/sys/fs/cgroup", "memory.max", "memory.current",
                                              "inactive_file "};
static const struct cgroup_files cgroup_v1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                                              "memory.usage_in_bytes", "total_inactive_file "};

static char *read_text(const char *path)
{
    char *text;
    size_t size_bytes;
    return file_read(path, SYSTEM_FILE_MAX, &text, &size_bytes).code == ERR_OK ? text : NULL;
}

static char *read_control(const struct cgroup_files *files, const char *group, const char *name)
{
    char path[2 * SYSTEM_PATH_MAX];
    if (snprintf(path, sizeof path, "%s%s/%s", files->root, group, name) >= (int)sizeof path)
        return NULL;
    return read_text(path);
}

static bool parse_bytes(const char *text, uint64_t *out)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (end == text || errno != 0)
        return false; /* "max" */
    *out = value;
    return true;
}

/* The number after `key` where a line begins with it. */
static bool find_bytes(const char *text, const char *key, uint64_t *out)
{
    for (const char *line = text; *line;) {
        if (strncmp(line, key, strlen(key)) == 0)
            return parse_bytes(line + strlen(key), out);
        line += strcspn(line, "\n");
        line += *line == '\n';
    }
    return false;
}

static uint64_t group_available_bytes(const struct cgroup_files *files, const char *group)
{
    char *limit_text = read_control(files, group, files->limit);
    char *usage_text = read_control(files, group, files->usage);
    char *stat_text = read_control(files, group, "memory.stat");
    uint64_t limit = 0, usage = 0, reclaimable = 0, available = UINT64_MAX;
    if (limit_text && usage_text && parse_bytes(limit_text, &limit) && parse_bytes(usage_text, &usage)) {
        if (stat_text && find_bytes(stat_text, files->reclaimable, &reclaimable))
            usage -= reclaimable < usage ? reclaimable : usage;
        available = limit > usage ? limit - usage : 0;
    }
    mem_free(limit_text);
    mem_free(usage_text);
    mem_free(stat_text);
    return available;
}

/* The least of a group and all above it; a path that only the host can see is skipped. */
static uint64_t groups_available_bytes(const struct cgroup_files *files, char *group)
{
    uint64_t least = UINT64_MAX;
    for (;;) {
        size_t length = strlen(group);
        if (length > 0 && group[length - 1] == '/')
            group[length - 1] = '\0';
        uint64_t available = group_available_bytes(files, group);
        least = available < least ? available : least;
        char *slash = strrchr(group, '/');
        if (!slash)
            return least;
        *slash = '\0';
    }
}

/* A line of /proc/self/cgroup is "number:controllers:path"; v2's has no controllers. */
static uint64_t line_available_bytes(const char *line, size_t size_bytes)
{
    const char *list = memchr(line, ':', size_bytes);
    const char *end = line + size_bytes;
    const char *path = list ? memchr(list + 1, ':', (size_t)(end - list - 1)) : NULL;
    char group[SYSTEM_PATH_MAX];
    if (!path || (size_t)(end - path) > sizeof group)
        return UINT64_MAX;
    size_t list_bytes = (size_t)(path - list - 1), path_bytes = (size_t)(end - path - 1);
    memcpy(group, path + 1, path_bytes);
    group[path_bytes] = '\0';
    if (list_bytes == 0)
        return groups_available_bytes(&cgroup_v2, group);
    if (list_bytes == strlen("memory") && memcmp(list + 1, "memory", list_bytes) == 0)
        return groups_available_bytes(&cgroup_v1, group);
    return UINT64_MAX;
}

uint64_t available_memory_bytes(void)
{
    uint64_t least = UINT64_MAX;
    char *system = read_text("/proc/meminfo");
    uint64_t kib;
    if (system && find_bytes(system, "MemAvailable:", &kib) && kib < UINT64_MAX / 1024)
        least = kib * 1024;
    mem_free(system);
    char *groups = read_text("/proc/self/cgroup");
    for (const char *line = groups; line && *line;) {
        size_t size_bytes = strcspn(line, "\n");
        uint64_t available = line_available_bytes(line, size_bytes);
        least = available < least ? available : least;
        line += size_bytes + (line[size_bytes] == '\n');
    }
    mem_free(groups);
    return least;
}
