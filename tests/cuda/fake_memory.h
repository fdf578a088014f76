/* The fake device's memory: blocks that know what they are. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum fake_memory_kind { FAKE_MEMORY_DEVICE, FAKE_MEMORY_PINNED };

/* Poisoned; of whole pages, device memory out of reach until opened. */
void *fake_memory_alloc(enum fake_memory_kind kind, size_t size_bytes);
void fake_memory_free(void *memory);
/* Aborts unless [pointer, pointer + size) lies in a block of the kind; what: for the message. */
void fake_memory_check(enum fake_memory_kind kind, const void *pointer, size_t size_bytes, const char *what);
bool fake_memory_is_within(const void *memory, const void *pointer);
uint64_t fake_memory_device_bytes(void);

/* Around work on the device. */
void fake_memory_open(void);
void fake_memory_close(void);
