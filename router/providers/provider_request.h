/* A chat request in OpenAI's form, made into the body that a provider takes. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <jansson.h>
#include "base/buffer.h"
#include "base/error.h"
#include "router/providers/provider.h"
#include "router/providers/provider_parameters.h"

/* What did not cross, to be told with the answer. */
struct provider_dropped {
    parameter_set parameters;
    uint32_t n_unknown; /* fields that are no parameter at all */
};

/* Can this request be put to this model at all? UNIMPLEMENTED names the parameter, part of a message or tool
 * that stands against it. */
err_t provider_request_check(const struct provider_model *model, const json_t *request) ERR_MUST_CHECK;

/* The body, appended. The request has passed the check and stays as it is. INVALID_ARGUMENT names what is
 * wrong with a message, RESOURCE_EXHAUSTED at body's limit. */
err_t provider_request_write(const struct provider_model *model, const json_t *request, bool is_stream,
                             struct provider_dropped *dropped, struct buffer *body) ERR_MUST_CHECK;
