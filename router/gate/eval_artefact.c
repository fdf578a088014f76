#include "router/gate/eval_artefact.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/mapped_file.h"
#include "router/providers/json_text.h"

static json_t *interval_json(const struct stat_interval *interval)
{
    return json_pack("{s:f, s:f, s:f}", "value", isnan(interval->value) ? 0.0 : interval->value, "low",
                     interval->low, "high", interval->high);
}

err_t eval_artefact_write(const struct eval_artefact *artefact, struct buffer *out)
{
    json_t *root = json_pack(
        "{s:i, s:s, s:s, s:s, s:I, s:I, s:f, s:f, s:f, s:o, s:o, s:I}", "bantam_eval", EVAL_ARTEFACT_VERSION,
        "policy_id", artefact->policy_id, "fingerprint", artefact->fingerprint, "cases_id",
        artefact->cases_id, "cases", (json_int_t)artefact->n_cases, "cheap", (json_int_t)artefact->n_cheap,
        "quality", artefact->quality, "baseline_quality", artefact->baseline_quality, "strong_share",
        artefact->strong_share, "difference", interval_json(&artefact->difference), "false_cheap",
        interval_json(&artefact->false_cheap), "made", (json_int_t)artefact->made_unix_s);
    if (root == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the artefact");
    err_t e = json_text_append(out, root);
    json_decref(root);
    if (e.code == ERR_OK && !buffer_append_text(out, "\n"))
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for the artefact");
    return e;
}

static err_t read_text(const json_t *root, const char *name, char out[EVAL_ID_BYTES])
{
    const json_t *value = json_object_get(root, name);
    if (!json_is_string(value) || json_string_length(value) >= EVAL_ID_BYTES)
        return err_new(ERR_INVALID_ARGUMENT, "%s must be a string of at most %d bytes", name,
                       EVAL_ID_BYTES - 1);
    memcpy(out, json_string_value(value), json_string_length(value) + 1);
    return err_ok();
}

static err_t read_count(const json_t *root, const char *name, uint64_t *out)
{
    const json_t *value = json_object_get(root, name);
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return err_new(ERR_INVALID_ARGUMENT, "%s must be a whole number, 0 or more", name);
    *out = (uint64_t)json_integer_value(value);
    return err_ok();
}

static err_t read_number(const json_t *root, const char *name, double low, double high, double *out)
{
    const json_t *value = json_object_get(root, name);
    if (!json_is_number(value) || json_number_value(value) < low || json_number_value(value) > high)
        return err_new(ERR_INVALID_ARGUMENT, "%s must be a number, %g to %g", name, low, high);
    *out = json_number_value(value);
    return err_ok();
}

static err_t read_interval(const json_t *root, const char *name, double low, struct stat_interval *out)
{
    const json_t *value = json_object_get(root, name);
    err_t e = read_number(value, "value", low, 1, &out->value);
    if (e.code == ERR_OK)
        e = read_number(value, "low", low, 1, &out->low);
    if (e.code == ERR_OK)
        e = read_number(value, "high", low, 1, &out->high);
    return e.code == ERR_OK ? e : err_prefix(e, "%s", name);
}

static err_t read_fields(const json_t *root, struct eval_artefact *out)
{
    const json_t *version = json_object_get(root, "bantam_eval");
    if (!json_is_integer(version) || json_integer_value(version) != EVAL_ARTEFACT_VERSION)
        return err_new(ERR_INVALID_ARGUMENT,
                       "bantam_eval must be %d: it is not an eval artefact of this version",
                       EVAL_ARTEFACT_VERSION);
    TRY(read_text(root, "policy_id", out->policy_id));
    TRY(read_text(root, "fingerprint", out->fingerprint));
    TRY(read_text(root, "cases_id", out->cases_id));
    TRY(read_count(root, "cases", &out->n_cases));
    TRY(read_count(root, "cheap", &out->n_cheap));
    TRY(read_number(root, "quality", 0, 1, &out->quality));
    TRY(read_number(root, "baseline_quality", 0, 1, &out->baseline_quality));
    TRY(read_number(root, "strong_share", 0, 1, &out->strong_share));
    TRY(read_interval(root, "difference", -1, &out->difference));
    TRY(read_interval(root, "false_cheap", 0, &out->false_cheap));
    uint64_t made;
    TRY(read_count(root, "made", &made));
    out->made_unix_s = (int64_t)made;
    return err_ok();
}

err_t eval_artefact_parse(const char *text, size_t text_bytes, struct eval_artefact *out)
{
    *out = (struct eval_artefact){0};
    json_error_t error;
    json_t *root = json_loadb(text, text_bytes, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL)
        return err_new(ERR_INVALID_ARGUMENT, "not JSON: %s at byte %d", error.text, error.position);
    err_t e = read_fields(root, out);
    json_decref(root);
    return e;
}

err_t eval_artefact_read(const char *path, struct eval_artefact *out)
{
    char *text;
    size_t size;
    TRY(file_read(path, EVAL_ARTEFACT_BYTES_MAX, &text, &size));
    err_t e = eval_artefact_parse(text, size, out);
    mem_free(text);
    return e.code == ERR_OK ? e : err_prefix(e, "%s", path);
}

err_t eval_artefact_check(const struct eval_artefact *artefact, const char *policy_id,
                          const char *fingerprint, double margin, double false_cheap)
{
    if (strcmp(artefact->policy_id, policy_id) != 0)
        return err_new(ERR_FAILED_PRECONDITION,
                       "the artefact is of policy %s and this is %s: run `bantam eval` again",
                       artefact->policy_id, policy_id);
    if (fingerprint[0] == '\0')
        return err_new(ERR_FAILED_PRECONDITION, "the local engine has not said yet what it is");
    if (strcmp(artefact->fingerprint, fingerprint) != 0)
        return err_new(ERR_FAILED_PRECONDITION,
                       "the artefact is of the local engine %s and this one is %s: run `bantam eval` again",
                       artefact->fingerprint[0] ? artefact->fingerprint : "(unknown)", fingerprint);
    if (artefact->n_cases < EVAL_ARTEFACT_CASES_MIN)
        return err_new(ERR_FAILED_PRECONDITION, "the artefact is of %llu cases; it takes %d",
                       (unsigned long long)artefact->n_cases, EVAL_ARTEFACT_CASES_MIN);
    if (stat_non_inferiority(&artefact->difference, margin) != STAT_NO_WORSE)
        return err_new(
            ERR_FAILED_PRECONDITION,
            "the policy may be worse than the baseline by %.1f %% (interval's end); the margin is %.1f %%",
            -100 * artefact->difference.low, 100 * margin);
    if (artefact->n_cheap > 0 && artefact->false_cheap.high > false_cheap)
        return err_new(
            ERR_FAILED_PRECONDITION,
            "up to %.1f %% of what the small model answers may be wrong where the baseline is right "
            "(interval's end); the bound is %.1f %%",
            100 * artefact->false_cheap.high, 100 * false_cheap);
    return err_ok();
}
