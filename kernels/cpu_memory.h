/* Zeroed memory for tensors of the CPU backend. Large blocks are mapped, with huge pages where a whole one
 * fits, and cost pages only once touched; small ones come from the heap. Set-up time, any thread. */
#pragma once

#include <stddef.h>

enum {
    CPU_MEMORY_ALIGN = 64,                /* bytes: of every block */
    CPU_MEMORY_MAP_FROM_BYTES = 256 << 10 /* blocks of so many bytes are mapped */
};

/* NULL when memory is short. */
void *cpu_memory_alloc(size_t size_bytes);
/* What is about to be written gets its pages at once, which costs the kernel less than one after the other.
 * bytes: within a block. */
void cpu_memory_populate(void *bytes, size_t size_bytes);
void cpu_memory_free(void *block); /* NULL is fine */
