#include "router/cache/store_of_config.h"

#include <stdlib.h>
#include <time.h>
#include "base/assert.h"

static int64_t unix_ms(void *clock)
{
    ASSERT(clock == NULL);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static err_t open_redis(const struct cache_config *config, struct response_store **out)
{
    const char *password = config->password_env ? getenv(config->password_env) : NULL;
    if (config->password_env && password == NULL)
        return err_new(
            ERR_INVALID_ARGUMENT,
            "cache.password_env: the environment variable %s, which has Redis's password, is not set",
            config->password_env);
    return redis_store_open(&(struct redis_store_options){.address = config->address,
                                                          .password = password,
                                                          .max_entry_bytes = (size_t)config->max_entry_bytes},
                            out);
}

err_t response_store_of_config(const struct cache_config *config, struct response_store **out)
{
    size_t max_bytes = (size_t)config->max_bytes, max_entry_bytes = (size_t)config->max_entry_bytes;
    *out = NULL;
    switch (config->kind) {
    case CACHE_OFF:
        return err_ok();
    case CACHE_MEMORY:
        return memory_store_open(
            &(struct memory_store_options){max_bytes, max_entry_bytes, clock_monotonic()}, out);
    case CACHE_SQLITE:
        return sqlite_store_open(&(struct sqlite_store_options){.path = config->path,
                                                                .max_bytes = max_bytes,
                                                                .max_entry_bytes = max_entry_bytes,
                                                                .unix_ms = unix_ms},
                                 out);
    case CACHE_REDIS:
        return open_redis(config, out);
    }
    ASSERT(false);
}
