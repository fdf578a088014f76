/* usable_cpu_count of thread_pool.h: the affinity mask and the CPU quotas of cgroup v1 and v2. */
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

/* Reads <root><group>/<name>; NULL when there is no such file. The caller frees. */
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
    if (quota_us <= 0 || period_us <= 0)
        return 0;
    double cpus = quota_us / period_us;
    if (cpus >= 1 << 20)
        return 0;
    int whole = (int)cpus;
    return whole < cpus ? whole + 1 : whole;
}

static int group_cpus_v2(const char *group)
{
    char *text = control_read("/sys/fs/cgroup", group, "cpu.max");
    double quota_us = 0, period_us = 0;
    if (text != NULL) {
        char *end;
        quota_us = strtod(text, &end); /* "max": no number, 0 */
        period_us = strtod(end, NULL);
    }
    mem_free(text);
    return quota_cpus(quota_us, period_us);
}

static int group_cpus_v1(const char *group)
{
    char *quota = control_read("/sys/fs/cgroup/cpu", group, "cpu.cfs_quota_us");
    char *period = control_read("/sys/fs/cgroup/cpu", group, "cpu.cfs_period_us");
    int cpus = quota != NULL && period != NULL ? quota_cpus(strtod(quota, NULL), strtod(period, NULL)) : 0;
    mem_free(quota);
    mem_free(period);
    return cpus;
}

/* The smallest quota of a group and all above it. Inside a container the path may name a group that only the
 * host can see; its levels are skipped, and the root is the container's own. */
static int quota_of_groups(char *group, int (*group_cpus)(const char *), int n_cpus)
{
    for (;;) {
        size_t length = strlen(group);
        if (length > 0 && group[length - 1] == '/')
            group[length - 1] = '\0';
        int cpus = group_cpus(group);
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

/* A line of /proc/self/cgroup is "number:controllers:path"; v2's has no controllers. */
static int quota_of_line(const char *line, size_t size_bytes, int n_cpus)
{
    const char *list = memchr(line, ':', size_bytes);
    if (list == NULL)
        return n_cpus;
    list++;
    const char *line_end = line + size_bytes;
    const char *path = memchr(list, ':', (size_t)(line_end - list));
    if (path == NULL)
        return n_cpus;
    size_t list_bytes = (size_t)(path - list);
    path++;
    char group[CONTROL_PATH_MAX];
    size_t path_bytes = (size_t)(line_end - path);
    if (path_bytes >= sizeof group)
        return n_cpus;
    memcpy(group, path, path_bytes);
    group[path_bytes] = '\0';
    if (list_bytes == 0)
        return quota_of_groups(group, group_cpus_v2, n_cpus);
    if (controllers_have_cpu(list, list_bytes))
        return quota_of_groups(group, group_cpus_v1, n_cpus);
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
    int n_cpus = affinity_cpus();
    char *groups = control_read("/proc", "/self", "cgroup");
    for (char *line = groups; line != NULL && *line != '\0';) {
        size_t size_bytes = strcspn(line, "\n");
        n_cpus = quota_of_line(line, size_bytes, n_cpus);
        line += size_bytes + (line[size_bytes] == '\n');
    }
    mem_free(groups);
    return n_cpus > 0 ? n_cpus : 1;
}
