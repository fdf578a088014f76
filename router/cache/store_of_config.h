/* The store that a configuration names (cache: {kind: ...}). */
#pragma once

#include "base/error.h"
#include "router/cache/response_store.h"
#include "router/config/route_config.h"

/* *out NULL: the cache is off. A Redis that is not there yet is no error; a file that cannot be written is.
 */
err_t response_store_of_config(const struct cache_config *config, struct response_store **out) ERR_MUST_CHECK;
