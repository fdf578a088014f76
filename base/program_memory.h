/* What this process takes: as it stands, before anything large is allocated, and at most so far. */
#pragma once

#include <stdint.h>

/* Bytes: the private pages that are resident now, and all pages mapped from files (the program and its
 * libraries), resident or not: any of them may be touched later. 0 when the system does not say. Any thread.
 */
uint64_t program_memory_bytes(void);
/* Bytes: the most that was ever resident at once; 0 when the system does not say. Not getrusage's ru_maxrss,
 * which a program inherits from the one that started it. Any thread. */
uint64_t program_peak_bytes(void);
