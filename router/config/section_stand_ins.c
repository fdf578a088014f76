/* Readers of parts that are being built in their own rooms: the least that a configuration needs. */
#include "router/config/route_config.h"

err_t decision_log_options_read(const struct yaml_value *value, struct decision_log_options *out)
{
    static const char *const KEYS[] = {"path", "content", NULL};
    *out = (struct decision_log_options){.max_bytes = 100000000, .keep = 5};
    TRY(yaml_map(value, KEYS));
    struct yaml_value path = yaml_at(value, "path"), content = yaml_at(value, "content");
    TRY(yaml_text(&path, &out->path));
    return yaml_bool(&content, &out->content);
}
