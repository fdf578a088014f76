/* The frame of a shared library that stands for a vendor's: what it exports, and how a test tells it to fail.
 */
#pragma once

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

/* Whether the environment's variable names this mode. */
static inline bool fake_is_mode(const char *variable, const char *mode)
{
    const char *named = getenv(variable);
    return named != NULL && strcmp(named, mode) == 0;
}
