/* Answers by prompt, out of lines of JSON: {"prompt": "...", "answer": "..."}. */
#pragma once

#include "base/error.h"

struct mock_table;
enum { MOCK_TABLE_BYTES_MAX = 256 << 20 };

/* IO, NOT_FOUND; INVALID_ARGUMENT names the line. */
err_t mock_table_read(const char *path, struct mock_table **out) ERR_MUST_CHECK;
void mock_table_free(struct mock_table *table); /* NULL is fine */
/* The answer to exactly that prompt; NULL = none is known. Any thread. */
const char *mock_table_find(const struct mock_table *table, const char *prompt);
