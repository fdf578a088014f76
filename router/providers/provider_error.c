#include "router/providers/provider_error.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum { MESSAGE_BYTES_MAX = 300 }; /* of a provider's words that go into a message of ours */

struct named_status {
    const char *name;
    int status;
};

/* What the types and codes of errors amount to. Sources: the error pages of OpenAI's and Anthropic's API
 * references; llama.cpp's and OpenRouter's are among them. */
static const struct named_status STATUS_OF_NAME[] = {
    {"insufficient_quota", 402},
    {"billing_hard_limit_reached", 402},
    {"billing_error", 402},
    {"credits_exhausted", 402},
    {"rate_limit_error", 429},
    {"rate_limit_exceeded", 429},
    {"tokens", 429},
    {"requests", 429},
    {"overloaded_error", 529},
    {"api_error", 500},
    {"server_error", 500},
    {"internal_server_error", 500},
    {"unavailable_error", 503},
    {"timeout_error", 504},
    {"authentication_error", 401},
    {"invalid_api_key", 401},
    {"permission_error", 403},
    {"not_found_error", 404},
    {"model_not_found", 404},
    {"request_too_large", 413},
    {"invalid_request_error", 400},
    {"exceed_context_size_error", 400},
};

static int status_of_name(const char *name)
{
    for (size_t i = 0; name && i < sizeof STATUS_OF_NAME / sizeof *STATUS_OF_NAME; i++) {
        if (strcmp(STATUS_OF_NAME[i].name, name) == 0)
            return STATUS_OF_NAME[i].status;
    }
    return 0;
}

static enum err_code code_of_status(int status)
{
    switch (status) {
    case 401:
        return ERR_UNAUTHENTICATED;
    case 402:
        return ERR_FAILED_PRECONDITION;
    case 403:
        return ERR_PERMISSION_DENIED;
    case 404:
        return ERR_NOT_FOUND;
    case 408:
    case 504:
        return ERR_DEADLINE_EXCEEDED;
    case 429:
        return ERR_RESOURCE_EXHAUSTED;
    default:
        return status >= 500 && status <= 599   ? ERR_UNAVAILABLE
               : status >= 400 && status <= 499 ? ERR_INVALID_ARGUMENT
                                                : ERR_INTERNAL;
    }
}

/* What an error object says, as far as it is text; strings are the document's. */
struct told {
    const char *message, *type, *code;
    int number; /* its code, where that is a status; 0 */
};

static struct told told_by(const json_t *error)
{
    if (json_is_string(error))
        return (struct told){.message = json_string_value(error)};
    const json_t *code = json_object_get(error, "code");
    json_int_t number = json_integer_value(code);
    return (struct told){
        .message = json_string_value(json_object_get(error, "message")),
        .type = json_string_value(json_object_get(error, "type")),
        .code = json_string_value(code),
        .number = number >= 400 && number <= 599 ? (int)number : 0,
    };
}

/* Spent money comes as 429, or as a 400 whose words alone tell. */
static bool is_about_money(int status, const struct told *told)
{
    if (status_of_name(told->code) == 402 || status_of_name(told->type) == 402)
        return true;
    return status == 400 && told->message && strcasestr(told->message, "credit balance is too low") != NULL;
}

static err_t error_of(int status, const struct told *told, int64_t retry_after_ms)
{
    if (is_about_money(status, told))
        status = 402;
    const char *message = told->message && told->message[0] != '\0' ? told->message : "it says nothing more";
    const char *name = told->code ? told->code : told->type;
    err_t e = err_new(code_of_status(status), "the provider answers %d%s%.60s: %.*s", status, name ? " " : "",
                      name ? name : "", MESSAGE_BYTES_MAX, message);
    if (provider_error_may_retry(e))
        e.retry_after_ms = retry_after_ms;
    return e;
}

err_t provider_error_of_response(int status, const char *body, size_t body_bytes, int64_t retry_after_ms)
{
    struct told told = {NULL, NULL, NULL, 0};
    json_t *root = json_loadb(body ? body : "", body_bytes, 0, NULL);
    const json_t *error = json_object_get(root, "error");
    if (error)
        told = told_by(error);
    else if (root)
        told = told_by(root); /* vLLM's older form, FastAPI's: no object around it */
    if (!told.message && !error)
        told.message = json_string_value(json_object_get(root, "detail"));
    err_t e = error_of(status, &told, retry_after_ms);
    json_decref(root);
    return e;
}

bool provider_error_of_json(const json_t *root, err_t *out)
{
    const json_t *error = json_object_get(root, "error");
    const char *object = json_string_value(json_object_get(root, "object"));
    bool is_flat = object && strcmp(object, "error") == 0;
    if (!json_is_object(error) && !json_is_string(error) && !is_flat)
        return false;
    struct told told = told_by(is_flat ? root : error);
    int status = told.number;
    if (status == 0)
        status = status_of_name(told.code);
    if (status == 0)
        status = status_of_name(told.type);
    *out = error_of(status != 0 ? status : 500, &told, 0);
    return true;
}

bool provider_error_may_retry(err_t error)
{
    return error.code == ERR_RESOURCE_EXHAUSTED || error.code == ERR_UNAVAILABLE ||
           error.code == ERR_DEADLINE_EXCEEDED;
}

static int64_t bounded_ms(double ms)
{
    if (!(ms > 0))
        return 0;
    return ms < PROVIDER_RETRY_AFTER_MS_MAX ? (int64_t)ms : PROVIDER_RETRY_AFTER_MS_MAX;
}

/* A number of at least 0 and what follows it; false when there is none. Digits and one point alone: strtod
 * would take "nan", "0x1" and "1e9" as well. */
static bool read_number(const char **at, double *out)
{
    const char *start = *at, *end = start;
    while (isdigit((unsigned char)*end))
        end++;
    if (end == start)
        return false;
    if (*end == '.')
        end++;
    while (isdigit((unsigned char)*end))
        end++;
    if (end - start > 24)
        return false;
    *out = strtod(start, NULL);
    *at = end;
    return true;
}

static bool is_blank(const char *text)
{
    return text[strspn(text, " \t")] == '\0';
}

int64_t provider_retry_after_ms_exact(const char *value)
{
    double ms;
    return read_number(&value, &ms) && is_blank(value) ? bounded_ms(ms) : -1;
}

int64_t provider_retry_after_ms(const char *value, int64_t now_s)
{
    const char *at = value;
    double seconds;
    if (read_number(&at, &seconds))
        return is_blank(at) ? bounded_ms(seconds * 1000) : -1;
    struct tm date = {0};
    const char *end = strptime(value, "%a, %d %b %Y %H:%M:%S GMT", &date); /* RFC 9110, IMF-fixdate */
    if (end == NULL || !is_blank(end))
        return -1;
    return bounded_ms((double)(timegm(&date) - now_s) * 1000);
}

static double unit_ms(const char **at)
{
    static const struct {
        const char *name;
        double ms;
    } UNITS[] = {{"ms", 1},   {"us", 1e-3},  {"ns", 1e-6},  {"s", 1e3},
                 {"m", 60e3}, {"h", 3600e3}, {"d", 86400e3}};
    for (size_t i = 0; i < sizeof UNITS / sizeof *UNITS; i++) {
        size_t bytes = strlen(UNITS[i].name);
        if (strncmp(*at, UNITS[i].name, bytes) == 0) {
            *at += bytes;
            return UNITS[i].ms;
        }
    }
    return -1;
}

/* Beyond this a number is no duration but a point of time: Unix time in seconds, or in milliseconds. */
static const double EPOCH_SECONDS_MIN = 1e9, EPOCH_MS_MIN = 1e12;

/* RFC 3339, "2026-11-27T20:00:00Z", with a fraction that is left out or an offset of hours; false: it is
 * none. */
static bool read_date(const char *value, int64_t *out_s)
{
    struct tm date = {0};
    const char *at = strptime(value, "%Y-%m-%dT%H:%M:%S", &date);
    if (at == NULL)
        return false;
    if (*at == '.')
        at += 1 + strspn(at + 1, "0123456789");
    int64_t offset_s = 0;
    if (*at == '+' || *at == '-') {
        int hours, minutes, bytes = 0;
        if (sscanf(at + 1, "%2d:%2d%n", &hours, &minutes, &bytes) != 2 || bytes != 5 || hours < 0 ||
            minutes < 0)
            return false;
        offset_s = (hours * 60 + minutes) * (*at == '-' ? -60 : 60);
        at += 6;
    } else if (*at++ != 'Z') {
        return false;
    }
    *out_s = (int64_t)timegm(&date) - offset_s;
    return is_blank(at);
}

int64_t provider_rate_reset_ms(const char *value, int64_t now_s)
{
    int64_t date_s;
    if (read_date(value, &date_s))
        return bounded_ms((double)(date_s - now_s) * 1000);
    double total_ms = 0, number;
    const char *at = value;
    if (!read_number(&at, &number))
        return -1;
    if (is_blank(at)) {
        if (number >= EPOCH_MS_MIN)
            return bounded_ms(number - (double)now_s * 1000);
        if (number >= EPOCH_SECONDS_MIN)
            return bounded_ms((number - (double)now_s) * 1000);
        return bounded_ms(number * 1000);
    }
    do {
        double unit = unit_ms(&at);
        if (unit < 0)
            return -1;
        total_ms += number * unit;
    } while (read_number(&at, &number));
    return is_blank(at) ? bounded_ms(total_ms) : -1;
}
