/* The providers of a configuration file:
 *
 *   providers:
 *     - name: openai
 *       kind: openai                       # openai, compatible or anthropic
 *       url: https://api.openai.com/v1
 *       key_env: OPENAI_API_KEY            # or key_file: PATH; a key never stands in the file itself
 *       headers: ["X-Title: my service"]
 *       timeouts: {connect: 5s, first_byte: 30s, chunk: 30s, total: 10m}
 *       models:
 *         - name: gpt-5
 *           price: {input: 1.25, cached_input: 0.125, output: 10, as_of: 2026-11-01}   # dollars a million
 * tokens context: 400000 max_output: 128000 takes: [images, tools, schemas] refuses: [temperature, top_p]
 *           max_completion_tokens: yes
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include "base/error.h"
#include "router/providers/provider.h"
#include "router/config/yaml_fields.h"

enum {
    PROVIDERS_MAX = 64,
    PROVIDER_MODELS_MAX = 256, /* of one */
    PROVIDER_HEADERS_MAX = 16, /* of one */
    PRICE_STALE_DAYS = 90,
};

struct provider_list {
    struct provider *providers; /* [n]; owned with all that hangs on it, but for texts that are the file's */
    size_t n;
};

/* value: the list. environment: getenv, or a test's. INVALID_ARGUMENT names file, line and field; NOT_FOUND
 * and IO name the file of a key. The list lives on the YAML file, which must outlive it. */
err_t provider_config_read(const struct yaml_value *value, char *(*environment)(const char *name),
                           struct provider_list *out) ERR_MUST_CHECK;
/* Keys are wiped. */
void provider_config_free(struct provider_list *list);

/* The model `name` of the provider before the first slash: "openai/gpt-5". NULL = there is none. */
const struct provider_model *provider_config_find(const struct provider_list *list, const char *name,
                                                  const struct provider **provider);
/* Are the prices older than PRICE_STALE_DAYS at Unix time now_s, or of no day at all? */
bool provider_price_is_stale(const struct provider_model *model, int64_t now_s);
