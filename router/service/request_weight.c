#include "router/service/request_weight.h"

#include <string.h>

/* Of Jansson on a 64-bit machine, with the allocator's own. */
enum { VALUE_BYTES = 64, CONTAINER_BYTES = 192, MEMBER_BYTES = 64 };

/* As deep as Jansson reads, 2,048 levels. */
size_t request_weight(const json_t *json)
{
    size_t bytes = VALUE_BYTES, i;
    const char *name;
    json_t *value;
    if (json == NULL)
        return 0;
    switch (json_typeof(json)) {
    case JSON_STRING:
        return bytes + 2 * json_string_length(json);
    case JSON_ARRAY:
        bytes += CONTAINER_BYTES;
        json_array_foreach(json, i, value) bytes += request_weight(value);
        return bytes;
    case JSON_OBJECT:
        bytes += CONTAINER_BYTES;
        json_object_foreach((json_t *)json, name, value) bytes +=
            MEMBER_BYTES + 2 * strlen(name) + request_weight(value);
        return bytes;
    default:
        return bytes;
    }
}
