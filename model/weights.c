#include "model/weights.h"

#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "model/dummy_weights.h"
#include "model/weight_blocks.h"

struct list_maker {
    const struct model_config *config;
    const struct shard *shard;
    struct checkpoint *checkpoint; /* NULL = dummy */
    const struct model_options *options;
    const struct backend *backend;
    struct weight_list *list;
};

static bool shape_equals(const struct tensor_info *info, const uint64_t *shape, uint32_t n_dims)
{
    return info->n_dims == n_dims && memcmp(info->shape, shape, n_dims * sizeof *shape) == 0;
}

/* A checkpoint of codes whose configuration is not in config.json has other names. */
static err_t missing_part(const struct list_maker *maker, const struct weight_part *part)
{
    static const char *const endings[] = {".qweight", ".weight_packed"};
    int module_bytes = (int)(strlen(part->name) - strlen(".weight"));
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        char name[WEIGHT_NAME_MAX + 16];
        snprintf(name, sizeof name, "%.*s%s", module_bytes, part->name, endings[i]);
        if (checkpoint_find(maker->checkpoint, name))
            return err_new(ERR_NOT_FOUND,
                           "%s: tensor \"%s\" is missing from the checkpoint; \"%s\" is there, but "
                           "\"quantization_config\" of config.json does not say that it is quantised",
                           maker->options->directory, part->name, name);
    }
    return err_new(ERR_NOT_FOUND, "%s: tensor \"%s\" is missing from the checkpoint",
                   maker->options->directory, part->name);
}

/* Finds the part's tensor and holds it against the shape. */
static err_t bind_part(const struct list_maker *maker, struct weight_part *part, const uint64_t *shape,
                       uint32_t n_dims)
{
    uint64_t n_values = shape[0] * (n_dims > 1 ? shape[1] : 1);
    maker->list->n_parameters += n_values;
    if (!maker->checkpoint)
        return err_ok();
    part->tensor = checkpoint_find(maker->checkpoint, part->name);
    if (!part->tensor)
        return missing_part(maker, part);
    const struct tensor_info *info = part->tensor->info;
    const char *file = checkpoint_file(maker->checkpoint, part->tensor);
    char got[128], expected[128];
    if (!shape_equals(info, shape, n_dims))
        return err_new(ERR_INVALID_ARGUMENT, "%s: tensor \"%s\" has shape %s, the configuration makes it %s",
                       file, part->name, tensor_shape_text(info->shape, info->n_dims, got, sizeof got),
                       tensor_shape_text(shape, n_dims, expected, sizeof expected));
    if (!checkpoint_can_read(part->tensor))
        return err_new(ERR_INVALID_ARGUMENT,
                       "%s: tensor \"%s\" has dtype %s, it must be F32, F16 or BF16, or in a GGUF file Q4_0, "
                       "Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K or Q6_K",
                       file, part->name, tensor_dtype_name(info->dtype));
    return err_ok();
}

/* layer < 0: the name stands by itself. */
static void part_name(const struct list_maker *maker, struct weight_part *part, int64_t layer,
                      const char *name, const char *suffix)
{
    int n = layer < 0 ? snprintf(part->name, sizeof part->name, "%s.%s", name, suffix)
                      : snprintf(part->name, sizeof part->name, "%s%lld.%s.%s",
                                 maker->config->names->layer_prefix, (long long)layer, name, suffix);
    ASSERT(n > 0 && (size_t)n < sizeof part->name);
}

static err_t check_quantisable(const struct list_maker *maker, const struct weight_source *source)
{
    bool grouped = source->format == WEIGHT_INT8 || source->format == WEIGHT_INT4;
    if (source->has_codes || !grouped || source->n_in % source->group == 0)
        return err_ok();
    return err_new(ERR_INVALID_ARGUMENT,
                   "%s: tensor \"%s\" has %zu inputs a row%s; --quantization needs a multiple of %u",
                   maker->options->directory, source->name, source->n_in,
                   source->n_in < source->n_columns ? " of a rank" : "", source->group);
}

/* Rows or columns of a tensor: those that this rank holds, of how many. */
struct extent {
    size_t first, n, all;
};

struct matrix_spec {
    int64_t layer; /* -1 = none */
    enum weight_format format;
    struct extent columns;
    bool bias;
    uint32_t n_parts;
    const char *names[WEIGHT_PARTS_MAX];
    struct extent rows[WEIGHT_PARTS_MAX];
    uint32_t interleaved_dim[WEIGHT_PARTS_MAX]; /* of weight_part */
};

/* ---- Quantised checkpoints ---- */

static err_t bind_quantized(const struct list_maker *maker, struct weight_part *part,
                            const struct matrix_spec *spec, uint32_t index)
{
    int module_bytes = (int)(strlen(part->name) - strlen(".weight"));
    char module[WEIGHT_NAME_MAX];
    snprintf(module, sizeof module, "%.*s", module_bytes, part->name);
    size_t n_out = spec->rows[index].all, n_in = spec->columns.all;
    maker->list->n_parameters += (uint64_t)n_out * n_in;
    return quant_tensors_bind(&maker->config->quantization, maker->checkpoint, maker->options->directory,
                              module, n_out, n_in, &part->quantized);
}

static err_t bind_weight(const struct list_maker *maker, struct weight_part *part,
                         const struct matrix_spec *spec, uint32_t index)
{
    part->first_row = spec->rows[index].first;
    part->n_rows = spec->rows[index].n;
    part->interleaved_dim = spec->interleaved_dim[index];
    part_name(maker, part, spec->layer, spec->names[index], "weight");
    const struct model_config *config = maker->config;
    if (maker->checkpoint &&
        quant_config_covers(&config->quantization, config->names, spec->layer, spec->names[index]))
        return bind_quantized(maker, part, spec, index);
    return bind_part(maker, part, (uint64_t[]){spec->rows[index].all, spec->columns.all}, 2);
}

/* The largest of the groups that every backend takes, for scales of whole rows; 0 = none. */
static uint32_t split_group(size_t n_in)
{
    for (uint32_t group = 4 * WEIGHT_GROUP; group >= WEIGHT_GROUP; group /= 2) {
        if (n_in % group == 0 && group < n_in)
            return group;
    }
    return 0;
}

/* The format whose codes are those of the checkpoint, and the group; false: there is none. */
static bool format_of_codes(const struct weight_source *source, const struct quant_format *format,
                            enum weight_format *out, uint32_t *group)
{
    *group = format->group == 0 ? (uint32_t)source->n_in : format->group;
    if (format->code == QUANT_CODE_E4M3) {
        *out = WEIGHT_FP8; /* where a GPU has rows in 8 bits too */
        return format->group == 0 && format->rows_in_8_bits;
    }
    if (*group % WEIGHT_GROUP != 0 || format->offset == QUANT_MINIMUM)
        return false;
    if (format->bits == 4) {
        *out = format->offset == QUANT_SYMMETRIC ? WEIGHT_INT4 : WEIGHT_UINT4;
        return true;
    }
    /* One scale for a row of int8 means rows in int8: where they are not meant to be, it stands several
     * times. */
    *out = WEIGHT_INT8;
    if (*group == source->n_in && !format->rows_in_8_bits)
        *group = split_group(source->n_in);
    return format->bits == 8 && format->offset == QUANT_SYMMETRIC && *group > 0;
}

/* Why the parts' codes cannot stand side by side in one matrix; NULL: they can. */
static const char *codes_obstacle(const struct weight_source *source)
{
    for (uint32_t i = 0; i < source->n_parts; i++) {
        const struct quant_tensors *tensors = source->parts[i].quantized;
        if (!tensors)
            return "a matrix beside them that is not quantised";
        if (tensors->group_of)
            return "groups of inputs that are not neighbours (act-order)";
    }
    return NULL;
}

/* Codes are kept where a kernel computes with them. */
static err_t choose_format(const struct list_maker *maker, struct weight_source *source)
{
    bool any = false;
    for (uint32_t i = 0; i < source->n_parts; i++)
        any |= source->parts[i].quantized != NULL;
    if (!any || maker->list->dtype == MODEL_DTYPE_F32)
        return err_ok();
    const struct quant_format *format = &maker->config->quantization.format;
    enum weight_format of_codes;
    uint32_t group;
    const char *obstacle = codes_obstacle(source);
    if (!obstacle && !format_of_codes(source, format, &of_codes, &group))
        obstacle = "bits, groups or blocks that no kernel takes";
    if (obstacle) {
        maker->list->n_widened++;
        maker->list->widened_why = obstacle;
        return err_ok();
    }
    if (format->group > 0 && (source->first_column % format->group != 0 || source->n_in % format->group != 0))
        return err_new(
            ERR_INVALID_ARGUMENT,
            "--tensor-parallel-size %u cuts the groups of %u inputs of \"%s\": a rank would have %zu "
            "inputs; take fewer ranks",
            maker->shard->n_ranks, format->group, source->name, source->n_in);
    source->format = of_codes;
    source->group = group;
    source->has_codes = true;
    source->group_repeats = format->group == 0 ? (uint32_t)(source->n_in / group) : format->group / group;
    return err_ok();
}

/* ---- Blocks of GGUF files ---- */

/* The part's codes and group; has_codes false: it is plain. */
static err_t choose_block_format(const struct list_maker *maker, const struct weight_source *source,
                                 struct weight_part *part, struct weight_section *out)
{
    *out = (struct weight_section){part->n_rows, source->format, source->group, false, false};
    out->has_codes = blocks_format(part->tensor, &out->format, &out->group);
    if (!out->has_codes)
        return err_ok();
    /* A rank's inputs may begin or end within a block of 256: its scale then stands for fewer of them. */
    while (out->group > WEIGHT_GROUP &&
           (source->first_column % out->group != 0 || source->n_in % out->group != 0))
        out->group /= 2;
    if (source->first_column % out->group != 0 || source->n_in % out->group != 0)
        return err_new(ERR_INVALID_ARGUMENT,
                       "--tensor-parallel-size %u cuts the blocks of %u inputs of \"%s\": a rank would have "
                       "%zu inputs; take fewer ranks",
                       maker->shard->n_ranks, out->group, part->name, source->n_in);
    part->group = out->group;
    out->has_blocks = blocks_are_whole(part->tensor);
    return err_ok();
}

/* Codes of a GGUF file are kept where the backend computes with them, and nothing else is asked for. */
static err_t choose_blocks(const struct list_maker *maker, struct weight_source *source)
{
    bool any = false;
    for (uint32_t i = 0; i < source->n_parts; i++)
        any |= source->parts[i].tensor && source->parts[i].tensor->info->dtype >= TENSOR_GGUF;
    if (!any || maker->list->dtype == MODEL_DTYPE_F32 || maker->options->quantization != MODEL_QUANT_NONE)
        return err_ok();
    if (!maker->backend->vtable->has_block_formats) {
        maker->list->n_widened++;
        maker->list->widened_why = "blocks of a GGUF file, which the CPU alone computes with as they are";
        return err_ok();
    }
    source->has_codes = true;
    maker->list->n_of_blocks++;
    for (uint32_t i = 0; i < source->n_parts; i++) {
        struct weight_section section;
        TRY(choose_block_format(maker, source, &source->parts[i], &section));
        struct weight_section *last = source->n_sections ? &source->sections[source->n_sections - 1] : NULL;
        if (last && last->format == section.format && last->group == section.group &&
            last->has_codes == section.has_codes && last->has_blocks == section.has_blocks)
            last->n_out += section.n_out;
        else
            source->sections[source->n_sections++] = section;
    }
    return err_ok();
}

/* ---- The list ---- */

uint32_t weight_list_group(const struct model_options *options)
{
    return options->quantization_group == 0 ? (uint32_t)WEIGHT_GROUP : options->quantization_group;
}

static uint32_t group_of_options(const struct list_maker *maker, const struct matrix_spec *spec)
{
    bool by_output = maker->options->quantization == MODEL_QUANT_W8A8 && spec->format == WEIGHT_INT8;
    return spec->format == WEIGHT_FP8 || by_output ? (uint32_t)spec->columns.n
                                                   : weight_list_group(maker->options);
}

static err_t add_matrix(const struct list_maker *maker, const struct matrix_spec *spec)
{
    struct weight_source *source = &maker->list->matrices[maker->list->n_matrices++];
    *source = (struct weight_source){.n_in = spec->columns.n,
                                     .first_column = spec->columns.first,
                                     .n_columns = spec->columns.all,
                                     .format = spec->format,
                                     .group = group_of_options(maker, spec),
                                     .n_parts = spec->n_parts,
                                     .n_biases = spec->bias ? spec->n_parts : 0,
                                     .checkpoint = maker->checkpoint,
                                     .dummy_seed = maker->options->dummy_seed,
                                     .fault = &maker->list->fault};
    for (uint32_t i = 0; i < spec->n_parts; i++) {
        TRY(bind_weight(maker, &source->parts[i], spec, i));
        source->n_out += source->parts[i].n_rows;
    }
    for (uint32_t i = 0; i < source->n_biases; i++) {
        struct weight_part *part = &source->biases[i];
        part->first_row = spec->rows[i].first;
        part->n_rows = spec->rows[i].n;
        part->interleaved_dim = spec->interleaved_dim[i];
        part_name(maker, part, spec->layer, spec->names[i], "bias");
        TRY(bind_part(maker, part, (uint64_t[]){spec->rows[i].all}, 1));
    }
    memcpy(source->name, source->parts[0].name, sizeof source->name);
    TRY(choose_format(maker, source));
    TRY(choose_blocks(maker, source));
    TRY(check_quantisable(maker, source));
    source->has_codes |= !source->checkpoint && dummy_has_codes(source->format);
    return err_ok();
}

/* name NULL: the family has none. */
static err_t add_vector(const struct list_maker *maker, int64_t layer, const char *name, size_t n)
{
    struct weight_source *source = &maker->list->vectors[maker->list->n_vectors++];
    if (!name) {
        *source = (struct weight_source){0};
        return err_ok();
    }
    *source = (struct weight_source){.n_out = 1,
                                     .n_in = n,
                                     .n_columns = n,
                                     .one_plus = maker->config->norm_one_plus,
                                     .format = WEIGHT_F32,
                                     .n_parts = 1,
                                     .checkpoint = maker->checkpoint,
                                     .fault = &maker->list->fault};
    source->parts[0].n_rows = source->n_in;
    part_name(maker, &source->parts[0], layer, name, "weight");
    memcpy(source->name, source->parts[0].name, sizeof source->name);
    return bind_part(maker, &source->parts[0], (uint64_t[]){source->n_in}, 1);
}

static enum weight_format plain_format(enum model_dtype dtype)
{
    switch (dtype) {
    case MODEL_DTYPE_F32:
        return WEIGHT_F32;
    case MODEL_DTYPE_F16:
        return WEIGHT_F16;
    case MODEL_DTYPE_BF16:
    case MODEL_DTYPE_AUTO:
        break;
    }
    return WEIGHT_BF16;
}

static struct extent heads_extent(const struct model_config *config, uint32_t first, uint32_t n, uint32_t all)
{
    size_t dim = config->head_dim;
    return (struct extent){first * dim, n * dim, all * dim};
}

/* A bias behind a sum over the ranks is added once: by the first. */
static err_t add_layer(const struct list_maker *maker, uint32_t layer, enum weight_format format)
{
    const struct model_config *config = maker->config;
    const struct shard *shard = maker->shard;
    const struct family_names *names = config->names;
    const struct extent hidden = {0, config->hidden_size, config->hidden_size};
    const struct extent q = heads_extent(config, shard->first_head, shard->n_heads, config->n_heads);
    const struct extent kv =
        heads_extent(config, shard->first_kv_head, shard->n_kv_heads, config->n_kv_heads);
    const struct extent mlp = {shard->first_mlp, shard->mlp_width, config->intermediate_size};
    bool first = shard->rank == 0;
    uint32_t pairs = config->interleaved_heads ? config->head_dim : 0;
    const struct matrix_spec specs[LAYER_MATRICES] = {
        [LAYER_QKV] = {layer,
                       format,
                       hidden,
                       config->qkv_bias,
                       3,
                       {names->q, names->k, names->v},
                       {q, kv, kv},
                       {pairs, pairs, 0}},
        [LAYER_O] = {layer, format, q, config->o_bias && first, 1, {names->o}, {hidden}, {0}},
        [LAYER_GATE_UP] =
            {layer, format, hidden, config->mlp_bias, 2, {names->gate, names->up}, {mlp, mlp}, {0}},
        [LAYER_DOWN] = {layer, format, mlp, config->mlp_bias && first, 1, {names->down}, {hidden}, {0}},
    };
    for (int i = 0; i < LAYER_MATRICES; i++)
        TRY(add_matrix(maker, &specs[i]));
    const struct family *family = config->family;
    const struct {
        const char *name;
        size_t n;
    } vectors[LAYER_VECTORS] = {
        [LAYER_ATTENTION_NORM] = {names->attention_norm, config->hidden_size},
        [LAYER_ATTENTION_POST_NORM] = {family->post_norms ? names->attention_post_norm : NULL,
                                       config->hidden_size},
        [LAYER_MLP_NORM] = {names->mlp_norm, config->hidden_size},
        [LAYER_MLP_POST_NORM] = {family->post_norms ? names->mlp_post_norm : NULL, config->hidden_size},
        [LAYER_Q_NORM] = {family->qk_norms ? names->q_norm : NULL, config->head_dim},
        [LAYER_K_NORM] = {family->qk_norms ? names->k_norm : NULL, config->head_dim},
    };
    for (int i = 0; i < LAYER_VECTORS; i++)
        TRY(add_vector(maker, layer, vectors[i].name, vectors[i].n));
    return err_ok();
}

const char *const MODEL_DTYPE_NAMES[MODEL_DTYPES] = {
    [MODEL_DTYPE_F32] = "float32", [MODEL_DTYPE_BF16] = "bfloat16", [MODEL_DTYPE_F16] = "float16"};
const char *const MODEL_QUANTIZATION_NAMES[MODEL_QUANTIZATIONS] = {
    [MODEL_QUANT_NONE] = "none", [MODEL_QUANT_INT8] = "int8", [MODEL_QUANT_INT4] = "int4",
    [MODEL_QUANT_W8A8] = "w8a8", [MODEL_QUANT_FP8] = "fp8",
};

enum model_dtype weight_list_dtype(const struct model_config *config, struct checkpoint *checkpoint,
                                   const struct model_options *options)
{
    if (options->dtype != MODEL_DTYPE_AUTO)
        return options->dtype;
    if (config->dtype != MODEL_DTYPE_AUTO)
        return config->dtype;
    char name[WEIGHT_NAME_MAX];
    snprintf(name, sizeof name, "%s.weight", config->names->embedding);
    const struct checkpoint_tensor *tensor = checkpoint ? checkpoint_find(checkpoint, name) : NULL;
    if (tensor && tensor->info->dtype == TENSOR_F32)
        return MODEL_DTYPE_F32;
    return tensor && tensor->info->dtype == TENSOR_F16 ? MODEL_DTYPE_F16 : MODEL_DTYPE_BF16;
}

static err_t fill_list(const struct list_maker *maker)
{
    const struct model_config *config = maker->config;
    const struct family_names *names = config->names;
    enum weight_format plain = plain_format(maker->list->dtype), linear = plain, head = plain;
    if (maker->checkpoint && config->quantization.method && maker->options->quantization != MODEL_QUANT_NONE)
        return err_new(
            ERR_INVALID_ARGUMENT,
            "%s: the checkpoint is quantised already (\"quantization_config\" of config.json says %s): "
            "leave --quantization out",
            maker->options->directory, config->quantization.method);
    switch (maker->options->quantization) {
    case MODEL_QUANT_NONE:
        break;
    case MODEL_QUANT_INT8:
        linear = head = WEIGHT_INT8;
        break;
    case MODEL_QUANT_INT4:
        linear = WEIGHT_INT4;
        head = WEIGHT_INT8;
        break;
    case MODEL_QUANT_W8A8:
        linear = WEIGHT_INT8;
        break;
    case MODEL_QUANT_FP8:
        linear = WEIGHT_FP8;
        break;
    }
    for (uint32_t layer = 0; layer < config->n_layers; layer++)
        TRY(add_layer(maker, layer, linear));
    const struct shard *shard = maker->shard;
    const struct extent hidden = {0, config->hidden_size, config->hidden_size},
                        tokens = {shard->first_token, shard->n_tokens, config->vocab_size};
    const struct matrix_spec embedding = {-1, head, hidden, false, 1, {names->embedding}, {tokens}, {0}};
    TRY(add_matrix(maker, &embedding));
    maker->list->matrices[maker->list->n_matrices - 1].is_table = true;
    TRY(add_vector(maker, -1, names->final_norm, config->hidden_size));
    if (maker->list->tied)
        return err_ok();
    const struct matrix_spec lm_head = {-1, head, hidden, false, 1, {names->lm_head}, {tokens}, {0}};
    err_t e = add_matrix(maker, &lm_head);
    if (e.code == ERR_NOT_FOUND)
        e = err_prefix(e, "config.json does not say \"tie_word_embeddings\": true");
    return e;
}

err_t weight_list_create(const struct model_config *config, const struct shard *shard,
                         struct checkpoint *checkpoint, const struct model_options *options,
                         const struct backend *backend, struct weight_list *out)
{
    *out = (struct weight_list){.tied = config->tie_word_embeddings};
    pthread_mutex_init(&out->fault.lock, NULL);
    size_t n_matrices = (size_t)config->n_layers * LAYER_MATRICES + 2;
    size_t n_vectors = (size_t)config->n_layers * LAYER_VECTORS + 1;
    out->matrices = mem_alloc_array(n_matrices, sizeof *out->matrices);
    out->vectors = mem_alloc_array(n_vectors, sizeof *out->vectors);
    err_t e = err_ok();
    if (out->matrices && out->vectors) {
        struct list_maker maker = {config, shard, checkpoint, options, backend, out};
        out->dtype = weight_list_dtype(config, checkpoint, options);
        e = fill_list(&maker);
    } else {
        e = err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the list of weights");
    }
    if (e.code != ERR_OK)
        weight_list_free(out);
    return e;
}

void weight_list_free(struct weight_list *list)
{
    for (size_t i = 0; list->matrices && i < list->n_matrices; i++) {
        for (uint32_t part = 0; part < WEIGHT_PARTS_MAX; part++)
            quant_tensors_free(list->matrices[i].parts[part].quantized);
    }
    if (list->matrices || list->vectors)
        pthread_mutex_destroy(&list->fault.lock);
    mem_free(list->matrices);
    mem_free(list->vectors);
    *list = (struct weight_list){0};
}
