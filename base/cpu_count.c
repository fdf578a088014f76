#include "base/cpu_count.h"

#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/mapped_file.h"
#include "base/thread_pool.h"

enum { CONTROL_FILE_MAX = 64 * 1024, CONTROL_PATH_MAX = 1024 };

/* Reads a control file of a group; NULL when there is none. The caller frees. */
static char *control_read(const char *root, const char *group, const char *name)
{
    char path[2 * CONTROL_PATH_MAX];
    if (snprintf(path, sizeof path, "%s%s/%s", root, group, name) >= (int)sizeof path)
        return NULL;
    char *text;
    size_t size_bytes;
    err_t e = file_read(path, CONTROL_FILE_MAX, &text, &size_bytes);
    return e.code == ERR_OK ? text : NULL;
}

/* quota / period rounded up to whole CPUs; 0 for "no limit". */
static int quota_cpus(double quota_us, double period_us)
{
    enum { CPUS_MAX = 1 << 20 };
    if (!(quota_us > 0) || !(period_us > 0))
        return 0;
    double cpus = quota_us / period_us;
    if (cpus >= CPUS_MAX)
        return 0;
    int whole = (int)cpus;
    return whole < cpus ? whole + 1 : whole;
}

/* v2: "quota period", or "max period". */
static int group_cpus_v2(const char *root, const char *group)
{
    char *text = control_read(root, group, "cpu.max");
    double quota_us = 0, period_us = 0;
    if (text != NULL) {
        char *end;
        quota_us = strtod(text, &end); /* "max" is no number: 0 */
        period_us = strtod(end, NULL);
    }
    mem_free(text);
    return quota_cpus(quota_us, period_us);
}

/* v1: two files under the controller's own tree; a quota of -1 is none. */
static int group_cpus_v1(const char *root, const char *group)
{
    char tree[CONTROL_PATH_MAX];
    if (snprintf(tree, sizeof tree, "%s/cpu", root) >= (int)sizeof tree)
        return 0;
    char *quota = control_read(tree, group, "cpu.cfs_quota_us");
    char *period = control_read(tree, group, "cpu.cfs_period_us");
    int cpus = quota != NULL && period != NULL ? quota_cpus(strtod(quota, NULL), strtod(period, NULL)) : 0;
    mem_free(quota);
    mem_free(period);
    return cpus;
}

/* The least quota of a group and all above it. Inside a container the path may name a group that only the
 * host can see; its levels are skipped, and the root is the container's own. */
static int lower_to_groups(const char *root, char *group, bool is_v2, int n_cpus)
{
    for (;;) {
        size_t length = strlen(group);
        if (length > 0 && group[length - 1] == '/')
            group[length - 1] = '\0';
        int cpus = is_v2 ? group_cpus_v2(root, group) : group_cpus_v1(root, group);
        if (cpus > 0 && cpus < n_cpus)
            n_cpus = cpus;
        char *slash = strrchr(group, '/');
        if (slash == NULL)
            return n_cpus;
        *slash = '\0';
    }
}

/* True when the comma-separated list has "cpu". */
static bool controllers_have_cpu(const char *list, size_t size_bytes)
{
    size_t begin = 0;
    for (size_t i = 0; i <= size_bytes; i++) {
        if (i < size_bytes && list[i] != ',')
            continue;
        if (i - begin == 3 && memcmp(list + begin, "cpu", 3) == 0)
            return true;
        begin = i + 1;
    }
    return false;
}

/* A line is "number:controllers:path"; v2's has no controllers. */
static int lower_to_line(const char *root, const char *line, size_t size_bytes, int n_cpus)
{
    const char *line_end = line + size_bytes;
    const char *list = memchr(line, ':', size_bytes);
    const char *path = list != NULL ? memchr(list + 1, ':', (size_t)(line_end - list - 1)) : NULL;
    if (path == NULL)
        return n_cpus;
    list++;
    size_t list_bytes = (size_t)(path - list);
    path++;
    char group[CONTROL_PATH_MAX];
    size_t path_bytes = (size_t)(line_end - path);
    if (path_bytes >= sizeof group)
        return n_cpus;
    memcpy(group, path, path_bytes);
    group[path_bytes] = '\0';
    bool is_v2 = list_bytes == 0;
    if (!is_v2 && !controllers_have_cpu(list, list_bytes))
        return n_cpus;
    return lower_to_groups(root, group, is_v2, n_cpus);
}

int cpu_count_within_quota(const char *groups_path, const char *cgroup_root, int n_cpus)
{
    char *groups;
    size_t size_bytes;
    err_t e = file_read(groups_path, CONTROL_FILE_MAX, &groups, &size_bytes);
    if (e.code != ERR_OK)
        return n_cpus;
    for (const char *line = groups; *line != '\0';) {
        size_t line_bytes = strcspn(line, "\n");
        n_cpus = lower_to_line(cgroup_root, line, line_bytes, n_cpus);
        line += line_bytes + (line[line_bytes] == '\n');
    }
    mem_free(groups);
    return n_cpus;
}

static int affinity_cpus(void)
{
    cpu_set_t mask;
    if (sched_getaffinity(0, sizeof mask, &mask) == 0)
        return CPU_COUNT(&mask);
    /* More CPUs than cpu_set_t holds. */
    long n_online = sysconf(_SC_NPROCESSORS_ONLN);
    return n_online > 0 ? (int)n_online : 1;
}

int usable_cpu_count(void)
{
    int n_cpus = cpu_count_within_quota("/proc/self/cgroup", "/sys/fs/cgroup", affinity_cpus());
    return n_cpus > 0 ? n_cpus : 1;
}
