/* Prompts for `bantam run`: from flags, or from a file of JSON lines. */
#pragma once

#include <stddef.h>
#include "api/request.h"
#include "base/error.h"

enum { PROMPTS_FILE_BYTES_MAX = 1 << 30 };

/* Requests without sampling parameters; the prompts' memory is owned by the set. */
struct prompt_set {
    struct request *requests; /* [count] */
    size_t count, capacity;
    void **owned; /* [n_owned] */
    size_t n_owned, owned_capacity;
};

/* Each line is a JSON string (a text prompt) or an object with one of "prompt" (text), "prompt_token_ids" or
 * "messages"
 * ([{"role", "content"}]). Empty lines are skipped. Errors name file and line. "-" is standard
 * input. */
err_t prompts_read_file(const char *path, struct prompt_set *out) ERR_MUST_CHECK;
err_t prompts_add_text(struct prompt_set *set, const char *text) ERR_MUST_CHECK;
/* All of standard input as one text, without the ends of lines behind it; none where that is empty or closed.
 * INVALID_ARGUMENT: it has a NUL byte. */
err_t prompts_add_input(struct prompt_set *set) ERR_MUST_CHECK;
/* "1,2,3" */
err_t prompts_add_ids(struct prompt_set *set, const char *text) ERR_MUST_CHECK;
void prompts_free(struct prompt_set *set);
