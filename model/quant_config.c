#include "model/quant_config.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include "base/assert.h"
#include "model/name_pattern.h"

#define PREFIX "quantization_config."

enum { MODULE_NAME_MAX = 96 };

static const char *module_name(const struct family_names *names, enum quant_module module)
{
    const char *const all[QUANT_MODULES] = {
        [QUANT_MODULE_Q] = names->q,       [QUANT_MODULE_K] = names->k,       [QUANT_MODULE_V] = names->v,
        [QUANT_MODULE_O] = names->o,       [QUANT_MODULE_GATE] = names->gate, [QUANT_MODULE_UP] = names->up,
        [QUANT_MODULE_DOWN] = names->down,
    };
    return all[module];
}

bool quant_config_covers(const struct quant_config *config, const struct family_names *names, int64_t layer,
                         const char *name)
{
    if (config->storage == QUANT_STORED_PLAIN)
        return false;
    if (layer < 0)
        return strcmp(name, names->lm_head) == 0 && !config->plain_lm_head;
    ASSERT(layer < QUANT_LAYERS_MAX);
    for (int module = 0; module < QUANT_MODULES; module++) {
        if (strcmp(module_name(names, (enum quant_module)module), name) == 0)
            return !(config->plain_modules[layer] >> module & 1);
    }
    return false;
}

/* ---- Lists of modules ---- */

/* Which modules a list names, by how the method's own loader compares. */
struct name_set {
    const struct json_fields *fields;
    const char *field;
    bool by_components; /* else whole names, and patterns behind "re:" */
    const struct family_names *names;
    uint32_t n_layers;
    uint32_t n_patterns;
};

/* Sets or clears the mark of every module that `matches` takes. */
static void mark_modules(const struct name_set *set, bool is_plain, const char *text,
                         const struct name_pattern *pattern, struct quant_config *out)
{
    for (uint32_t layer = 0; layer < set->n_layers; layer++) {
        for (int module = 0; module < QUANT_MODULES; module++) {
            char name[MODULE_NAME_MAX];
            snprintf(name, sizeof name, "%s%u.%s", set->names->layer_prefix, layer,
                     module_name(set->names, (enum quant_module)module));
            bool matches = pattern              ? name_pattern_matches(pattern, name)
                           : set->by_components ? name_has_components(name, text)
                                                : strcmp(name, text) == 0;
            if (!matches)
                continue;
            uint8_t bit = (uint8_t)(1u << module);
            out->plain_modules[layer] =
                is_plain ? out->plain_modules[layer] | bit : out->plain_modules[layer] & (uint8_t)~bit;
        }
    }
    bool head = pattern              ? name_pattern_matches(pattern, set->names->lm_head)
                : set->by_components ? name_has_components(set->names->lm_head, text)
                                     : strcmp(set->names->lm_head, text) == 0;
    if (head)
        out->plain_lm_head = is_plain;
}

static err_t mark_entry(struct name_set *set, bool is_plain, const json_t *item, struct quant_config *out)
{
    const char *text = json_string_value(item);
    if (!text || text[0] == '\0')
        return err_new(ERR_INVALID_ARGUMENT, "%s: \"%s%s\" must be a list of names", set->fields->file,
                       set->fields->prefix, set->field);
    if (set->by_components || strncmp(text, "re:", 3) != 0) {
        mark_modules(set, is_plain, text, NULL, out);
        return err_ok();
    }
    if (set->n_patterns++ == QUANT_PATTERNS_MAX)
        return err_new(ERR_RESOURCE_EXHAUSTED, "%s: \"%s%s\" has more than %d patterns", set->fields->file,
                       set->fields->prefix, set->field, QUANT_PATTERNS_MAX);
    struct name_pattern pattern;
    err_t e = name_pattern_parse(text + 3, &pattern);
    if (e.code != ERR_OK)
        return err_prefix(e, "%s: \"%s%s\"", set->fields->file, set->fields->prefix, set->field);
    mark_modules(set, is_plain, text, &pattern, out);
    return err_ok();
}

static err_t mark_list(struct name_set *set, bool is_plain, struct quant_config *out)
{
    const json_t *list;
    TRY(json_opt_array(set->fields, set->field, QUANT_NAMES_MAX, &list));
    for (size_t i = 0; list && i < json_array_size(list); i++)
        TRY(mark_entry(set, is_plain, json_array_get(list, i), out));
    return err_ok();
}

static void mark_all_plain(struct quant_config *out, uint32_t n_layers)
{
    memset(out->plain_modules, (1 << QUANT_MODULES) - 1, n_layers);
    out->plain_lm_head = true;
}

/* ---- Fields ---- */

static err_t not_supported(const struct json_fields *fields, const char *name, const char *got,
                           const char *known)
{
    return err_new(ERR_UNIMPLEMENTED, "%s: \"%s%s\" %.60s is not supported with \"%s\"; supported: %s",
                   fields->file, fields->prefix, name, got,
                   json_string_value(json_object_get(fields->object, "quant_method"))
                       ? json_string_value(json_object_get(fields->object, "quant_method"))
                       : "compressed-tensors",
                   known);
}

static err_t check_text(const struct json_fields *fields, const char *name, const char *fallback,
                        const char *const *known, const char *known_text)
{
    const char *text = fallback;
    TRY(json_opt_text(fields, name, &text));
    for (; *known; known++) {
        if (strcasecmp(*known, text) == 0)
            return err_ok();
    }
    return not_supported(fields, name, text, known_text);
}

static err_t check_bool(const struct json_fields *fields, const char *name, bool fallback, bool wanted)
{
    bool value = fallback;
    TRY(json_opt_bool(fields, name, &value));
    return value == wanted ? err_ok()
                           : not_supported(fields, name, value ? "true" : "false", wanted ? "true" : "false");
}

/* Objects and lists that change what the codes mean, where they are not empty. */
static err_t check_empty(const struct json_fields *fields, const char *name)
{
    const json_t *value = json_object_get(fields->object, name);
    if (json_object_size(value) == 0 && json_array_size(value) == 0)
        return err_ok();
    return not_supported(fields, name, "(as given)", "none");
}

/* -1: one group of all inputs. */
static err_t get_group(const struct json_fields *fields, const char *name, uint32_t *out)
{
    const json_t *value = json_object_get(fields->object, name);
    if (json_is_integer(value) && json_integer_value(value) == -1) {
        *out = 0;
        return err_ok();
    }
    return json_get_u32(fields, name, 1, QUANT_GROUP_MAX, out);
}

static const char *first_that_is(const struct json_fields *fields, const char *name, const char *other)
{
    return json_has(fields, name) ? name : other;
}

/* ---- Methods ---- */

static err_t parse_awq(const struct json_fields *fields, struct name_set *set, struct quant_config *out)
{
    uint32_t bits;
    TRY(json_get_u32(fields, first_that_is(fields, "bits", "w_bit"), 1, 32, &bits));
    if (bits != 4)
        return not_supported(fields, "bits", "other than 4", "4");
    TRY(check_text(fields, "version", "gemm", (const char *const[]){"gemm", NULL}, "gemm"));
    TRY(check_text(fields, "backend", "autoawq", (const char *const[]){"autoawq", NULL}, "autoawq"));
    TRY(check_bool(fields, "zero_point", true, true));
    out->storage = QUANT_STORED_AWQ;
    out->format = (struct quant_format){.bits = 4, .offset = QUANT_ZERO_POINT};
    out->plain_lm_head = true;
    TRY(get_group(fields, first_that_is(fields, "group_size", "q_group_size"), &out->format.group));
    set->field = "modules_to_not_convert";
    set->by_components = true;
    return mark_list(set, true, out);
}

/* "modules_in_block_to_quantize": [["self_attn.q_proj", ..], ..]; the others stay plain. */
static err_t parse_gptq_modules(const struct json_fields *fields, struct name_set *set,
                                struct quant_config *out)
{
    set->field = "modules_in_block_to_quantize";
    set->by_components = true;
    const json_t *lists;
    TRY(json_opt_array(fields, set->field, QUANT_NAMES_MAX, &lists));
    if (!lists)
        return err_ok();
    bool plain_lm_head = out->plain_lm_head;
    mark_all_plain(out, set->n_layers);
    for (size_t i = 0; i < json_array_size(lists); i++) {
        const json_t *list = json_array_get(lists, i);
        if (json_array_size(list) > QUANT_NAMES_MAX / (i + 1))
            return err_new(ERR_RESOURCE_EXHAUSTED, "%s: \"%s%s\" names more than %d modules", fields->file,
                           fields->prefix, set->field, QUANT_NAMES_MAX);
        if (!json_is_array(list))
            TRY(mark_entry(set, false, list, out));
        for (size_t k = 0; k < json_array_size(list); k++)
            TRY(mark_entry(set, false, json_array_get(list, k), out));
    }
    out->plain_lm_head = plain_lm_head;
    return err_ok();
}

static err_t parse_gptq(const struct json_fields *fields, struct name_set *set, struct quant_config *out)
{
    uint32_t bits;
    TRY(json_get_u32(fields, "bits", 1, 32, &bits));
    if (bits != 4 && bits != 8)
        return not_supported(fields, "bits", "other than these", "4, 8");
    static const char *const formats[] = {"gptq", "gptq_v2", NULL};
    TRY(check_text(fields, "checkpoint_format", "gptq", formats, "gptq, gptq_v2"));
    TRY(check_text(fields, "pack_dtype", "int32", (const char *const[]){"int32", NULL}, "int32"));
    TRY(check_bool(fields, "is_marlin_format", false, false));
    TRY(check_empty(fields, "dynamic"));
    const char *format = "gptq";
    TRY(json_opt_text(fields, "checkpoint_format", &format));
    bool symmetric = true, head = false;
    TRY(json_opt_bool(fields, "sym", &symmetric));
    TRY(json_opt_bool(fields, "lm_head", &head));
    TRY(json_opt_bool(fields, "desc_act", &out->is_act_order));
    out->storage = QUANT_STORED_GPTQ;
    out->format =
        (struct quant_format){.bits = bits, .offset = symmetric ? QUANT_SYMMETRIC : QUANT_ZERO_POINT};
    out->zeros_less_one = strcasecmp(format, "gptq") == 0;
    out->plain_lm_head = !head;
    TRY(get_group(fields, "group_size", &out->format.group));
    return parse_gptq_modules(fields, set, out);
}

static err_t parse_block(const struct json_fields *fields, const char *name, struct quant_config *out)
{
    const json_t *sides;
    TRY(json_opt_array(fields, name, 2, &sides));
    if (!sides)
        return err_ok();
    json_int_t side[2];
    for (size_t i = 0; i < 2; i++) {
        side[i] = json_integer_value(json_array_get(sides, i));
        if (side[i] < 1 || side[i] > QUANT_GROUP_MAX)
            return err_new(ERR_INVALID_ARGUMENT, "%s: \"%s%s\" must be two integers from 1 to %d",
                           fields->file, fields->prefix, name, QUANT_GROUP_MAX);
    }
    out->block_outputs = (uint32_t)side[0];
    out->format.group = (uint32_t)side[1];
    return err_ok();
}

static err_t parse_fp8(const struct json_fields *fields, struct name_set *set, struct quant_config *out)
{
    TRY(check_text(fields, "fmt", "e4m3", (const char *const[]){"e4m3", NULL}, "e4m3"));
    static const char *const schemes[] = {"dynamic", "static", NULL};
    TRY(check_text(fields, "activation_scheme", "dynamic", schemes, "dynamic, static"));
    out->storage = QUANT_STORED_BYTES;
    out->format = (struct quant_format){.code = QUANT_CODE_E4M3, .bits = 8, .rows_in_8_bits = true};
    out->plain_lm_head = true;
    TRY(parse_block(fields, "weight_block_size", out));
    set->by_components = true;
    set->field = first_that_is(fields, "modules_to_not_convert", "ignored_layers");
    return mark_list(set, true, out);
}

/* ---- compressed-tensors ---- */

/* How activations are quantised: only rows found as they come or not at all. A static scale is not needed
 * where every row has its own. */
static err_t parse_inputs(const struct json_fields *group, struct quant_format *format)
{
    struct json_fields inputs;
    TRY(json_opt_object(group, "input_activations", PREFIX "config_groups.input_activations.", &inputs));
    if (!inputs.object)
        return err_ok();
    uint32_t bits;
    TRY(json_get_u32(&inputs, "num_bits", 1, 32, &bits));
    bool is_float = format->code == QUANT_CODE_E4M3;
    if (bits != 8 || format->bits != 8)
        return not_supported(&inputs, "num_bits", "of inputs and weights",
                             "8 for both, or no input_activations");
    const char *const *types =
        is_float ? (const char *const[]){"float", NULL} : (const char *const[]){"int", NULL};
    TRY(check_text(&inputs, "type", "int", types, is_float ? "float" : "int"));
    TRY(check_bool(&inputs, "symmetric", true, true));
    format->rows_in_8_bits = true;
    return err_ok();
}

static err_t parse_strategy(const struct json_fields *weights, bool is_packed, struct quant_config *out)
{
    const char *strategy = "tensor";
    TRY(json_opt_text(weights, "strategy", &strategy));
    bool is_float = out->format.code == QUANT_CODE_E4M3;
    if (is_packed && strcmp(strategy, "group") == 0)
        return get_group(weights, "group_size", &out->format.group);
    if (is_float && strcmp(strategy, "block") == 0) {
        TRY(parse_block(weights, "block_structure", out));
        return out->block_outputs > 0 ? err_ok()
                                      : err_new(ERR_INVALID_ARGUMENT, "%s: \"%sblock_structure\" is missing",
                                                weights->file, weights->prefix);
    }
    if (strcmp(strategy, "channel") == 0 || (!is_packed && strcmp(strategy, "tensor") == 0))
        return err_ok();
    return not_supported(weights, "strategy", strategy,
                         is_packed  ? "group, channel"
                         : is_float ? "channel, tensor, block"
                                    : "channel, tensor");
}

static err_t parse_weights(const struct json_fields *group, const char *format, struct quant_config *out)
{
    struct json_fields weights;
    TRY(json_opt_object(group, "weights", PREFIX "config_groups.weights.", &weights));
    if (!weights.object)
        return err_new(ERR_INVALID_ARGUMENT, "%s: \"%sweights\" is missing", group->file, group->prefix);
    bool is_packed = strcmp(format, "pack-quantized") == 0, is_float = strcmp(format, "float-quantized") == 0;
    uint32_t bits;
    TRY(json_get_u32(&weights, "num_bits", 1, 32, &bits));
    if (bits != 8 && !(is_packed && bits == 4))
        return not_supported(&weights, "num_bits", "other than these", is_packed ? "4, 8" : "8");
    const char *const *types =
        is_float ? (const char *const[]){"float", NULL} : (const char *const[]){"int", NULL};
    TRY(check_text(&weights, "type", "int", types, is_float ? "float" : "int"));
    bool symmetric = true;
    TRY(json_opt_bool(&weights, "symmetric", &symmetric));
    if (!is_packed)
        TRY(check_bool(&weights, "symmetric", true, true));
    out->storage = is_packed ? QUANT_STORED_PACKED : QUANT_STORED_BYTES;
    out->format = (struct quant_format){.code = is_float ? QUANT_CODE_E4M3 : QUANT_CODE_INT,
                                        .bits = bits,
                                        .offset = symmetric ? QUANT_SYMMETRIC : QUANT_ZERO_POINT};
    const char *act_order = "";
    TRY(json_opt_text(&weights, "actorder", &act_order));
    out->is_act_order = strcasecmp(act_order, "group") == 0;
    return parse_strategy(&weights, is_packed, out);
}

static err_t parse_targets(const struct json_fields *group, struct name_set *set, struct quant_config *out)
{
    const json_t *targets;
    TRY(json_opt_array(group, "targets", QUANT_NAMES_MAX, &targets));
    for (size_t i = 0; targets && i < json_array_size(targets); i++) {
        const char *text = json_string_value(json_array_get(targets, i));
        if (text && strcmp(text, "Linear") == 0)
            return err_ok();
    }
    mark_all_plain(out, set->n_layers);
    const struct json_fields *fields = set->fields;
    set->fields = group;
    set->field = "targets";
    err_t e = mark_list(set, false, out);
    set->fields = fields;
    return e;
}

static err_t parse_compressed(const struct json_fields *fields, struct name_set *set,
                              struct quant_config *out)
{
    struct json_fields groups, group, sparsity;
    TRY(json_opt_object(fields, "config_groups", PREFIX "config_groups.", &groups));
    if (json_object_size(groups.object) != 1)
        return not_supported(fields, "config_groups", "without exactly one group", "one group");
    const char *key = json_object_iter_key(json_object_iter((json_t *)groups.object));
    TRY(json_opt_object(&groups, key, PREFIX "config_groups.", &group));
    if (!group.object)
        return err_new(ERR_INVALID_ARGUMENT, "%s: \"" PREFIX "config_groups\" holds no group", fields->file);
    const char *format = "";
    TRY(json_opt_text(fields, "format", &format));
    TRY(json_opt_text(&group, "format", &format));
    if (strcmp(format, "pack-quantized") != 0 && strcmp(format, "int-quantized") != 0 &&
        strcmp(format, "float-quantized") != 0)
        return not_supported(fields, "format", format, "pack-quantized, int-quantized, float-quantized");
    TRY(json_opt_object(fields, "sparsity_config", PREFIX "sparsity_config.", &sparsity));
    if (json_object_size(sparsity.object) > 0)
        TRY(check_text(&sparsity, "format", "dense", (const char *const[]){"dense", NULL}, "dense"));
    TRY(check_empty(fields, "transform_config"));
    TRY(parse_weights(&group, format, out));
    TRY(parse_inputs(&group, &out->format));
    TRY(parse_targets(&group, set, out));
    set->field = "ignore";
    return mark_list(set, true, out);
}

err_t quant_config_parse(const struct json_fields *fields, const struct family_names *names,
                         uint32_t n_layers, struct quant_config *out)
{
    static const struct {
        const char *name;
        err_t (*parse)(const struct json_fields *fields, struct name_set *set, struct quant_config *out);
    } methods[] = {
        {"awq", parse_awq},
        {"gptq", parse_gptq},
        {"compressed-tensors", parse_compressed},
        {"fp8", parse_fp8},
    };
    ASSERT(n_layers <= QUANT_LAYERS_MAX);
    *out = (struct quant_config){.storage = QUANT_STORED_PLAIN};
    struct json_fields inner;
    TRY(json_opt_object(fields, "quantization_config", PREFIX, &inner));
    if (!inner.object)
        return err_ok();
    const char *method;
    TRY(json_get_text(&inner, "quant_method", &method));
    struct name_set set = {.fields = &inner, .names = names, .n_layers = n_layers};
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        if (strcmp(methods[i].name, method) != 0)
            continue;
        out->method = methods[i].name;
        return methods[i].parse(&inner, &set, out);
    }
    return err_new(
        ERR_UNIMPLEMENTED,
        "%s: \"" PREFIX "quant_method\" \"%.60s\" is not known; known are awq, gptq, "
        "compressed-tensors and fp8. The f32, f16 or bf16 checkpoint with --quantization works too",
        fields->file, method);
}
