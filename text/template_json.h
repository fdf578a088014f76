/* JSON that came with a request (template_input.json) -> values of a render. All texts in it, names of fields
 * too, are marked as a message's. Internal to text/. */
#pragma once

#include <jansson.h>
#include "text/template_run.h"

/* *out: NULL when there is none; the caller json_decref's it after the render, whose texts it holds.
 * INVALID_ARGUMENT: it is not JSON, past base/json_bounds.h, or not an object as api/request.h has it. */
err_t template_json_parse(const struct template_input *input, json_t **out) ERR_MUST_CHECK;
/* The fields of one message's object, or of NULL, into its dict. ones: marks for the longest text. */
bool template_json_fields(struct run *run, const json_t *object, const uint8_t *ones, struct dict *dict);
/* Every name but "messages", in run->scope. json may be NULL. */
bool template_json_bind(struct run *run, const json_t *json, const uint8_t *ones);
