#include "base/process_usage.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/mapped_file.h"

enum { PROC_FILE_MAX = 1 << 20 };

/* When the machine was started, in Unix time; 0 = unknown. */
static double boot_unix_s(void)
{
    char *text;
    size_t size_bytes;
    if (file_read("/proc/stat", PROC_FILE_MAX, &text, &size_bytes).code != ERR_OK)
        return 0;
    const char *line = strstr(text, "\nbtime ");
    double seconds = 0;
    (void)(line && sscanf(line, " btime %lf", &seconds));
    mem_free(text);
    return seconds;
}

/* /proc/self/stat, see proc(5): the second field is a name in parentheses that may hold anything. */
static void read_stat(struct process_usage *out)
{
    char *text;
    size_t size_bytes;
    if (file_read("/proc/self/stat", PROC_FILE_MAX, &text, &size_bytes).code != ERR_OK)
        return;
    const char *rest = strrchr(text, ')');
    uint64_t user, system, threads, start, bytes, pages;
    bool known = rest && sscanf(rest + 1,
                                " %*c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %" SCNu64 " %" SCNu64
                                " %*s %*s %*s %*s %" SCNu64 " %*s %" SCNu64 " %" SCNu64 " %" SCNu64,
                                &user, &system, &threads, &start, &bytes, &pages) == 6;
    mem_free(text);
    double ticks_a_second = (double)sysconf(_SC_CLK_TCK);
    if (!known || ticks_a_second <= 0)
        return;
    out->cpu_s = (double)(user + system) / ticks_a_second;
    out->start_unix_s = boot_unix_s() + (double)start / ticks_a_second;
    out->threads = threads;
    out->virtual_bytes = bytes;
    out->resident_bytes = pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t count_open_files(void)
{
    DIR *folder = opendir("/proc/self/fd");
    uint64_t n = 0;
    if (!folder)
        return 0;
    for (const struct dirent *entry = readdir(folder); entry; entry = readdir(folder))
        n += entry->d_name[0] != '.';
    (void)closedir(folder);
    return n > 0 ? n - 1 : 0; /* the folder's own is closed again */
}

void process_usage_read(struct process_usage *out)
{
    struct rlimit files;
    *out = (struct process_usage){0};
    read_stat(out);
    out->open_files = count_open_files();
    if (getrlimit(RLIMIT_NOFILE, &files) == 0)
        out->max_files = files.rlim_cur == RLIM_INFINITY ? UINT64_MAX : (uint64_t)files.rlim_cur;
}
