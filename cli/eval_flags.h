/* Flags that `bantam eval` and `bantam replay` share: models and how they are reached. */
#pragma once

#include "base/buffer.h"
#include "base/flags.h"
#include "router/config/route_config.h"
#include "router/gate/eval_ask.h"

enum { EVAL_FLAGS_MAX = 10, EVAL_NAME_BYTES_MAX = 63 };

struct eval_flag_values {
    struct flag_list models, prices, key_envs;
    const char *policy, *judge;
    int64_t concurrency, seed;
    double timeout_s, margin;
    bool progress;
    const _Atomic bool *stop;    /* of no flag: the endpoints' (eval_ask.h) */
    struct route_config *config; /* owned: of `policy`; NULL = none */
};

/* Writes the rows to flags[0..EVAL_FLAGS_MAX) with targets in *values; returns how many. */
size_t eval_flags_fill(struct eval_flag_values *values, struct flag *flags);
/* Reads the configuration that is named. */
err_t eval_flags_read_config(struct eval_flag_values *values) ERR_MUST_CHECK;
void eval_flags_free(struct eval_flag_values *values);
/* "NAME=TARGET" cut in two: the name's bytes, and where the target begins. INVALID_ARGUMENT. */
err_t eval_flags_cut(const char *flag, const char *text, size_t *name_bytes,
                     const char **target) ERR_MUST_CHECK;
/* Opens the endpoint of "NAME=TARGET", with its price and key; *out NULL for "recorded". */
err_t eval_flags_open(const struct eval_flag_values *values, const char *flag, const char *text,
                      char name[EVAL_NAME_BYTES_MAX + 1], struct eval_endpoint **out) ERR_MUST_CHECK;
/* The file with these bytes and no others. */
err_t eval_flags_write(const char *path, const struct buffer *bytes) ERR_MUST_CHECK;
