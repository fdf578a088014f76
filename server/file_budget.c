#include "server/file_budget.h"

#include <sys/resource.h>

uint64_t file_budget_raise(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) != 0)
        return UINT64_MAX;
    struct rlimit raised = {.rlim_cur = files.rlim_max, .rlim_max = files.rlim_max};
    if (files.rlim_cur < files.rlim_max && setrlimit(RLIMIT_NOFILE, &raised) == 0)
        files = raised;
    return files.rlim_cur == RLIM_INFINITY ? UINT64_MAX : files.rlim_cur;
}

static uint32_t share(uint64_t room, uint32_t part, uint64_t whole)
{
    uint64_t connections = room * part / whole;
    return connections > 0 ? (uint32_t)connections : 1;
}

bool file_budget_fit(uint64_t max_files, uint32_t *grpc_connections, uint32_t *http_connections)
{
    uint64_t wanted = (uint64_t)*grpc_connections + *http_connections + FILES_FOR_ANSWERS;
    uint64_t reserved = max_files / 4 < FILES_RESERVED ? max_files / 4 : FILES_RESERVED;
    uint64_t room = max_files - reserved;
    if (room >= wanted)
        return false;
    *grpc_connections = share(room, *grpc_connections, wanted);
    if (*http_connections > 0)
        *http_connections = share(room, *http_connections, wanted);
    return true;
}
