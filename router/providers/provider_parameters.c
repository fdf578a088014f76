#include "router/providers/provider_parameters.h"

#include <string.h>
#include "base/assert.h"

static const struct {
    const char *name;
    enum crossing crossing[PROVIDER_KINDS];
} TABLE[] = {
#define X(name, openai, compatible, anthropic) {#name, {openai, compatible, anthropic}},
    PROVIDER_PARAMETERS(X)
#undef X
};

/* Numbers that say what would be so without them. */
static const struct {
    enum provider_parameter parameter;
    double value;
} DEFAULTS[] = {
    {PARAMETER_n, 1},
    {PARAMETER_presence_penalty, 0},
    {PARAMETER_frequency_penalty, 0},
    {PARAMETER_min_p, 0},
    {PARAMETER_top_k, 0},
    {PARAMETER_top_k, -1},
    {PARAMETER_min_tokens, 0},
    {PARAMETER_repetition_penalty, 1},
    {PARAMETER_top_logprobs, 0},
};

const char *crossing_name(enum crossing crossing)
{
    static const char *const NAMES[] = {"as it is", "mapped", "dropped", "stays local", "ours"};
    return NAMES[crossing];
}

const char *provider_parameter_name(enum provider_parameter parameter)
{
    ASSERT(parameter < PROVIDER_PARAMETER_COUNT);
    return TABLE[parameter].name;
}

bool provider_parameter_find(const char *name, enum provider_parameter *out)
{
    for (int i = 0; i < PROVIDER_PARAMETER_COUNT; i++) {
        if (strcmp(TABLE[i].name, name) == 0) {
            *out = (enum provider_parameter)i;
            return true;
        }
    }
    return false;
}

enum crossing provider_parameter_crossing(enum provider_parameter parameter, enum provider_kind kind)
{
    ASSERT(parameter < PROVIDER_PARAMETER_COUNT && kind < PROVIDER_KINDS);
    return TABLE[parameter].crossing[kind];
}

/* ["text"] is what everybody answers in. */
static bool is_text_alone(const json_t *modalities)
{
    const char *only = json_string_value(json_array_get(modalities, 0));
    return json_array_size(modalities) == 1 && only && strcmp(only, "text") == 0;
}

static bool is_true_by_itself(enum provider_parameter parameter)
{
    return parameter == PARAMETER_parallel_tool_calls || parameter == PARAMETER_skip_special_tokens ||
           parameter == PARAMETER_spaces_between_special_tokens ||
           parameter == PARAMETER_add_generation_prompt;
}

bool provider_parameter_asks(enum provider_parameter parameter, const json_t *value)
{
    if (value == NULL || json_is_null(value))
        return false;
    if (json_is_boolean(value))
        return json_is_true(value) != is_true_by_itself(parameter);
    if (json_is_string(value))
        return json_string_length(value) > 0;
    if (json_is_array(value))
        return json_array_size(value) > 0 && !(parameter == PARAMETER_modalities && is_text_alone(value));
    if (json_is_object(value))
        return json_object_size(value) > 0;
    for (size_t i = 0; i < sizeof DEFAULTS / sizeof *DEFAULTS; i++) {
        if (DEFAULTS[i].parameter == parameter && DEFAULTS[i].value == json_number_value(value))
            return false;
    }
    return true;
}

const char *provider_parameter_that_keeps(enum provider_kind kind, const json_t *request)
{
    for (int i = 0; i < PROVIDER_PARAMETER_COUNT; i++) {
        enum provider_parameter parameter = (enum provider_parameter)i;
        if (provider_parameter_crossing(parameter, kind) == KEEPS_LOCAL &&
            provider_parameter_asks(parameter, json_object_get(request, TABLE[i].name)))
            return TABLE[i].name;
    }
    return NULL;
}
