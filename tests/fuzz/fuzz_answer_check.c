/* A schema on the first line, an answer on the others: schemas are clients', answers are models'. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "base/assert.h"
#include "router/service/answer_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The same as a tool's arguments, which are an object and may be left out. */
static void check_as_call(json_t *schema, const char *answer, size_t size, const err_t *as_answer)
{
    json_t *tools = json_pack("[{s:s, s:{s:s, s:b, s:O}}]", "type", "function", "function", "name", "f",
                              "strict", 1, "parameters", schema);
    json_t *value = json_loadb(answer, size, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    ASSERT(tools);
    err_t e = answer_check_call(tools, false, "f", answer, size);
    ASSERT(e.code == ERR_OK || (e.code == ERR_DATA_LOSS && e.message[0]));
    ASSERT(!json_is_object(value) || e.code == as_answer->code);
    ASSERT(json_is_object(value) || size == 0 || e.code == ERR_DATA_LOSS);
    json_decref(value);
    json_decref(tools);
}

static err_t check(json_t *schema, const char *answer, size_t size)
{
    json_t *format = json_pack("{s:s, s:{s:O}}", "type", "json_schema", "json_schema", "schema", schema);
    json_t *request = json_pack("{s:O}", "response_format", format);
    ASSERT(format && request && answer_check_is_due(request, false));
    err_t e = answer_check(format, answer, size);
    (void)answer_check_gap(format);
    ASSERT(e.code == ERR_OK || (e.code == ERR_DATA_LOSS && e.message[0]));
    check_as_call(schema, answer, size, &e);
    json_decref(request);
    json_decref(format);
    return e;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *line = memchr(data, '\n', size);
    if (line == NULL)
        return 0;
    const char *answer = (const char *)line + 1;
    size_t answer_bytes = size - (size_t)(line - data) - 1;
    json_t *schema = json_loadb((const char *)data, (size_t)(line - data), JSON_DECODE_ANY, NULL),
           *value = json_loadb(answer, answer_bytes, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    err_t e = schema ? check(schema, answer, answer_bytes) : err_ok();
    ASSERT(value || schema == NULL || e.code == ERR_DATA_LOSS);
    if (value) { /* whatever it is, a schema that names it takes it, and one that has it refused does not */
        json_t *named = json_pack("{s:O, s:[O]}", "const", value, "enum", value), *none = json_false();
        ASSERT(named && check(named, answer, answer_bytes).code == ERR_OK);
        ASSERT(check(none, answer, answer_bytes).code == ERR_DATA_LOSS);
        json_decref(named);
    }
    json_decref(schema);
    json_decref(value);
    return 0;
}
