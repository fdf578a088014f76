/* How many connections the process's limit of open files has room for. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    FILES_RESERVED = 256,    /* for everything but connections; of a small limit a quarter */
    FILES_FOR_ANSWERS = 256, /* connections that are told why they are refused, and the operator's */
};

/* Makes the soft limit the hard one: each connection is a file, and 1024, the soft limit of many systems, is
 * meant for programs of another kind. Returns it; UINT64_MAX when it is not known or there is none. */
uint64_t file_budget_raise(void);
/* Lowers the limits on connections in proportion until max_files are enough for all of them; each stays at
 * least 1. False when they fit as they are. */
bool file_budget_fit(uint64_t max_files, uint32_t *grpc_connections, uint32_t *http_connections);
