/* `bantam keys`: keys for clients, and the lines by which a server's file of tenants knows them. */
#pragma once

#include <stddef.h>
#include "base/buffer.h"
#include "base/error.h"

/* Appends a fresh key, and the line that stands for it, each with a line break. INVALID_ARGUMENT for a tenant
 * that cannot be. */
err_t key_lines_new(const char *tenant, struct buffer *out) ERR_MUST_CHECK;
/* The line of a key that there is already. */
err_t key_lines_of(const char *key, size_t key_bytes, const char *tenant, struct buffer *out) ERR_MUST_CHECK;
