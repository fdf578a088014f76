#include "base/json_bounds.h"

#include <stdbool.h>
#include <string.h>

int json_fault_bytes(const char *fault)
{
    const char *quote = strstr(fault, " near '");
    return (int)(quote ? (size_t)(quote - fault) : strlen(fault));
}

err_t json_bounds_add(struct json_bounds *counted, const char *what, const char *text, size_t text_bytes)
{
    size_t depth = 0;
    bool in_string = false;
    counted->n_values++;
    for (size_t i = 0; i < text_bytes; i++) {
        char c = text[i];
        if (in_string) {
            i += c == '\\';
            in_string = c != '"';
            continue;
        }
        in_string = c == '"';
        counted->n_strings += in_string;
        counted->n_values += c == ',' || c == ':' || c == '[' || c == '{';
        if (c == '[' || c == '{') {
            counted->n_containers++;
            depth++;
        } else if ((c == ']' || c == '}') && depth > 0) {
            depth--;
        }
        if (depth > JSON_DEPTH_MAX)
            return err_new(ERR_INVALID_ARGUMENT, "%s is nested deeper than %d levels", what, JSON_DEPTH_MAX);
    }
    if (counted->n_values > JSON_VALUES_MAX || counted->n_containers > JSON_CONTAINERS_MAX ||
        counted->n_strings > JSON_STRINGS_MAX)
        return err_new(
            ERR_INVALID_ARGUMENT,
            "%s has %zu values, %zu lists and objects and %zu strings; at most %d, %d and %d are allowed",
            what, counted->n_values, counted->n_containers, counted->n_strings, JSON_VALUES_MAX,
            JSON_CONTAINERS_MAX, JSON_STRINGS_MAX);
    return err_ok();
}
