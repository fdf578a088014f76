/* A schema on the first line, an answer on the others: schemas are clients', answers are models'. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "base/assert.h"
#include "router/service/answer_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static err_t check(json_t *schema, const char *answer, size_t size)
{
    json_t *format = json_pack("{s:s, s:{s:O}}", "type", "json_schema", "json_schema", "schema", schema);
    ASSERT(format && answer_check_is_due(format));
    err_t e = answer_check(format, answer, size);
    (void)answer_check_gap(format);
    ASSERT(e.code == ERR_OK || (e.code == ERR_DATA_LOSS && e.message[0]));
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
