/* What a fake device still has to do: kernels, copies, events, in the order of the calls. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"

enum { ARGS_BYTES_MAX = 1024 }; /* of a kernel or product */

enum operation_kind { RUN_KERNEL, RUN_COPY, RUN_FILL, RUN_RECORD, RUN_WAIT, RUN_POST, RUN_TAKE, RUN_PRODUCT };

struct device_event;
struct device_product;

struct operation {
    enum operation_kind kind;
    /* RUN_KERNEL */
    uint32_t kernel, grid[3], block_threads, shared_bytes, args_bytes;
    bool dependent, shared_is_asked;
    /* RUN_COPY, RUN_FILL, RUN_POST, RUN_TAKE */
    void *to;
    const void *from;
    size_t size_bytes;
    uint8_t byte;
    /* RUN_PRODUCT: args is the call */
    const struct device_product *product;
    /* RUN_RECORD, RUN_WAIT */
    struct device_event *event;
    uint64_t ticket;
    _Alignas(16) uint8_t args[ARGS_BYTES_MAX];
};

/* A growing list; [first, n) is still to run. */
struct operations {
    struct operation *items;
    size_t first, n, room;
};

/* One more, all zero; valid until the next one is appended. */
static inline struct operation *operations_append(struct operations *list)
{
    if (list->n == list->room) {
        list->room = list->room ? 2 * list->room : 64;
        list->items = mem_realloc(list->items, list->room * sizeof *list->items);
        ASSERT(list->items != NULL);
    }
    return memset(&list->items[list->n++], 0, sizeof *list->items);
}
