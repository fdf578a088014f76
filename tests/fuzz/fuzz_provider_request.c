/* Chat requests as JSON, made into the bodies of every kind of provider. */
#include <stddef.h>
#include <stdint.h>
#include "base/assert.h"
#include "router/providers/provider_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void write_for(enum provider_kind kind, const json_t *request)
{
    struct provider_model model = {.kind = kind,
                                   .name = "m",
                                   .max_output_tokens = 100,
                                   .takes_images = true,
                                   .takes_audio = true,
                                   .takes_files = true,
                                   .takes_tools = true,
                                   .takes_schemas = true};
    struct provider_dropped dropped;
    struct buffer body = {.limit_bytes = 1 << 20};
    err_t e = provider_request_check(&model, request);
    if (e.code == ERR_OK)
        e = provider_request_write(&model, request, true, &dropped, &body);
    if (e.code == ERR_OK) {
        json_t *read = json_loadb(body.data, body.size, JSON_ALLOW_NUL, NULL);
        ASSERT(read && json_is_string(json_object_get(read, "model")) &&
               json_is_true(json_object_get(read, "stream")));
        ASSERT(json_array_size(json_object_get(read, "messages")) > 0);
        json_decref(read);
    } else {
        ASSERT(e.code == ERR_UNIMPLEMENTED || e.code == ERR_INVALID_ARGUMENT ||
               e.code == ERR_RESOURCE_EXHAUSTED);
    }
    buffer_free(&body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *request = json_loadb((const char *)data, size, JSON_ALLOW_NUL, NULL);
    if (json_is_object(request)) {
        for (int kind = 0; kind < PROVIDER_KINDS; kind++)
            write_for((enum provider_kind)kind, request);
    }
    json_decref(request);
    return 0;
}
