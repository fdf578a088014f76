/* What malloc keeps of memory that was freed goes back to the system: after a flood of connections or calls
 * that can be most of what the process holds. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
    MEMORY_RETURN_BYTES = 16 << 20,   /* so much more than after the last time is worth it */
    MEMORY_RETURN_INTERVAL_MS = 5000, /* at most so often: it walks all of malloc's lists */
};

/* Zero at first. */
struct memory_return {
    uint64_t resident_bytes; /* after the last time; 0 = it has not been looked at */
    int64_t looked_ns;
};

/* By one thread, now and then. Returns whether something was given back. */
bool memory_return_check(struct memory_return *memory, int64_t now_ns);
