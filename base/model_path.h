/* Whether a path can be a model's, before anything of it is read: a wrong one is told as such, and not as the
 * first file that is missed in it. */
#pragma once

#include <stdbool.h>
#include "base/error.h"

/* A folder, or a GGUF file. needs_config: a folder must have config.json, or be of a packed GGUF file.
 * NOT_FOUND, INVALID_ARGUMENT or IO, whose message says what to give. */
err_t model_path_check(const char *path, bool needs_config) ERR_MUST_CHECK;
