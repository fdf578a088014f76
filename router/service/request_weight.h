/* What a request weighs while it is under way, for the bound on all of them together. */
#pragma once

#include <jansson.h>
#include <stddef.h>

/* Bytes, about: of a JSON tree (NULL weighs nothing) and of its texts once more, as a provider gets them. */
size_t request_weight(const json_t *json);
