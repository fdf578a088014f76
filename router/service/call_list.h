/* Calls of tools, put together from their pieces. One thread at a time. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include "api/event.h"
#include "base/buffer.h"

enum { CALL_LIST_MAX = 128 };

struct kept_call {
    char *name; /* owned; NULL = not told yet */
    struct buffer arguments;
};

/* Zero-initialised it has none. */
struct call_list {
    struct kept_call *calls; /* [n], owned */
    size_t n;
};

/* limit_bytes: of each call's arguments. False: too many calls, too long ones, or no memory. */
bool call_list_take(struct call_list *list, const struct tool_call *piece, size_t limit_bytes);
void call_list_free(struct call_list *list); /* there are none then */
