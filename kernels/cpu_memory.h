/* Zeroed memory for tensors of the CPU backend. Large blocks are mapped, with huge pages where a whole one
 * fits, and cost pages only once touched; small ones come from the heap. Set-up time, but for
 * cpu_memory_tend; any thread.
 *
 * Huge pages read fastest, but on a virtual machine whose hypervisor takes free memory back their first touch
 * may wait for it many times longer than clearing them takes (docs/cpu.md). Where populating them proves slow
 * the rest is mapped in small pages, which the guest mostly still has, and cpu_memory_tend makes huge pages
 * of them when nobody waits. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CPU_MEMORY_ALIGN = 64,                /* bytes: of every block */
    CPU_MEMORY_MAP_FROM_BYTES = 256 << 10 /* blocks of so many bytes are mapped */
};

/* NULL when memory is short. */
void *cpu_memory_alloc(size_t size_bytes);
/* [offset, offset + size_bytes) of a mapped block is about to be written and gets its pages at once, which
 * costs the kernel less than one after the other. Any threads at once. */
void cpu_memory_populate(void *block, size_t offset, size_t size_bytes);
void cpu_memory_free(void *block); /* NULL is fine */

/* One huge page in place of small ones that were touched, where there are any: 4 ms where the
 * hypervisor is slow, 23 at most (docs/cpu.md). False when nothing is left to do. Content and addresses stay,
 * and other threads may read and write; cpu_memory_free waits for it. */
bool cpu_memory_tend(void);

/* For tests: the clock that huge pages are timed by, and nothing learnt of them so far; NULL: the real one.
 */
void cpu_memory_pretend(int64_t (*now_ns)(void));
