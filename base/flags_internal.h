/* What flags.c (parsing) and flags_help.c (--help) share. */
#pragma once

#include "base/flags.h"

enum { FLAGS_MAX = 256, FLAG_ENVIRONMENT_NAME_MAX = 64 };

/* BANTAM_<NAME> with '_' for '-', NUL-terminated. */
void flag_environment_name(const struct flag *flag, char out[FLAG_ENVIRONMENT_NAME_MAX]);
