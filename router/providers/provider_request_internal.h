/* Between the common part and Anthropic's. */
#pragma once

#include "router/providers/provider_request.h"

/* object[name] = value, which is taken over; RESOURCE_EXHAUSTED, also when value is NULL. */
err_t request_set(json_t *object, const char *name, json_t *value) ERR_MUST_CHECK;
err_t request_append(json_t *array, json_t *value) ERR_MUST_CHECK;

/* Anthropic's form of what is mapped: system, messages, tools and the like, into body. */
err_t request_map_anthropic(const struct provider_model *model, const json_t *request, json_t *body,
                            struct provider_dropped *dropped) ERR_MUST_CHECK;
