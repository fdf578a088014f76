#include "server/memory_return.h"

#include <malloc.h>
#include "base/process_usage.h"

static uint64_t resident_bytes(void)
{
    struct process_usage usage;
    process_usage_read(&usage);
    return usage.resident_bytes;
}

bool memory_return_check(struct memory_return *memory, int64_t now_ns)
{
    if (memory->resident_bytes == 0)
        memory->resident_bytes = resident_bytes();
    if (now_ns - memory->looked_ns < MEMORY_RETURN_INTERVAL_MS * INT64_C(1000000))
        return false;
    memory->looked_ns = now_ns;
    if (resident_bytes() < memory->resident_bytes + MEMORY_RETURN_BYTES ||
        mallinfo2().fordblks < MEMORY_RETURN_BYTES)
        return false;
    bool gave_back = malloc_trim(0) != 0;
    memory->resident_bytes = resident_bytes();
    return gave_back;
}
