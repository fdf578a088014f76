/* How much memory this process may still take: the system's available memory, lowered by the cgroups (v1 and
 * v2) that it runs in. */
#pragma once

#include <stdint.h>

/* Bytes; UINT64_MAX when the system does not say. Any thread. */
uint64_t available_memory_bytes(void);
