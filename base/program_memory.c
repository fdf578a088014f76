#include "base/program_memory.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "base/alloc.h"
#include "base/mapped_file.h"

enum { PROC_FILE_MAX = 4 << 20 };

/* A line is "begin-end permissions offset device inode path", in hexadecimal but for the inode. */
static uint64_t mapped_file_bytes(const char *line)
{
    uint64_t begin, end, inode;
    char readable;
    if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %c%*s %*s %*s %" SCNu64, &begin, &end, &readable, &inode) != 4)
        return 0;
    return inode != 0 && readable == 'r' && end > begin ? end - begin : 0;
}

static uint64_t private_resident_bytes(void)
{
    char *text;
    size_t size_bytes;
    if (file_read("/proc/self/statm", PROC_FILE_MAX, &text, &size_bytes).code != ERR_OK)
        return 0;
    uint64_t resident, shared;
    bool known = sscanf(text, "%*s %" SCNu64 " %" SCNu64, &resident, &shared) == 2 && resident >= shared;
    mem_free(text);
    return known ? (resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}

uint64_t program_memory_bytes(void)
{
    char *maps;
    size_t size_bytes;
    if (file_read("/proc/self/maps", PROC_FILE_MAX, &maps, &size_bytes).code != ERR_OK)
        return 0;
    uint64_t bytes = private_resident_bytes();
    for (const char *line = maps; *line;) {
        bytes += mapped_file_bytes(line);
        line += strcspn(line, "\n");
        line += *line == '\n';
    }
    mem_free(maps);
    return bytes;
}

uint64_t program_peak_bytes(void)
{
    char *status;
    size_t size_bytes;
    if (file_read("/proc/self/status", PROC_FILE_MAX, &status, &size_bytes).code != ERR_OK)
        return 0;
    const char *line = strstr(status, "VmHWM:");
    uint64_t kib = 0;
    if (line && sscanf(line, "VmHWM: %" SCNu64 " kB", &kib) != 1)
        kib = 0;
    mem_free(status);
    return kib * 1024;
}
