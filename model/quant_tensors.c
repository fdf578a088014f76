#include "model/quant_tensors.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "model/quant_storage.h"

enum { TENSOR_NAME_MAX = 160 };

static const struct quant_storage_ops *ops_of(const struct quant_tensors *tensors)
{
    static const struct quant_storage_ops *const all[] = {
        [QUANT_STORED_AWQ] = &quant_storage_awq,
        [QUANT_STORED_GPTQ] = &quant_storage_gptq,
        [QUANT_STORED_PACKED] = &quant_storage_packed,
        [QUANT_STORED_BYTES] = &quant_storage_bytes,
    };
    ASSERT(tensors->config->storage != QUANT_STORED_PLAIN);
    return all[tensors->config->storage];
}

err_t quant_wrong_tensor(const struct quant_tensors *tensors, const struct checkpoint_tensor *tensor,
                         const char *what)
{
    return err_new(ERR_INVALID_ARGUMENT, "%s: tensor \"%s\" %s", checkpoint_file(tensors->checkpoint, tensor),
                   tensor->info->name, what);
}

static err_t check_dtype(const struct quant_tensors *tensors, const struct checkpoint_tensor *tensor,
                         int dtype)
{
    enum tensor_dtype got = tensor->info->dtype;
    bool is_float = got == TENSOR_F32 || got == TENSOR_F16 || got == TENSOR_BF16;
    if ((dtype == QUANT_DTYPE_INTEGER && got == TENSOR_I32) || (dtype == QUANT_DTYPE_FLOAT && is_float))
        return err_ok();
    char text[96];
    snprintf(text, sizeof text, "has dtype %s, it must be %s", tensor_dtype_name(got),
             dtype == QUANT_DTYPE_INTEGER ? "I32" : "F32, F16 or BF16");
    return quant_wrong_tensor(tensors, tensor, text);
}

err_t quant_find(const struct quant_tensors *tensors, const struct quant_binder *binder, const char *suffix,
                 int dtype, uint64_t rows, uint64_t columns, const struct checkpoint_tensor **out)
{
    char name[TENSOR_NAME_MAX], text[320], got[96], wanted[96];
    snprintf(name, sizeof name, "%s%s", binder->module, suffix);
    *out = checkpoint_find(tensors->checkpoint, name);
    if (!*out)
        return err_new(
            ERR_NOT_FOUND,
            "%s: tensor \"%s\" is missing from the checkpoint, whose \"quantization_config\" (%s) makes "
            "it be there",
            binder->directory, name, tensors->config->method);
    TRY(check_dtype(tensors, *out, dtype));
    const struct tensor_info *info = (*out)->info;
    const uint64_t shape[2] = {rows, columns};
    bool same = info->n_dims == (columns == 0 ? 1 : 2) && info->shape[0] == rows &&
                (columns == 0 || info->shape[1] == columns);
    if (same)
        return err_ok();
    snprintf(text, sizeof text, "has shape %s, config.json makes it %s",
             tensor_shape_text(info->shape, info->n_dims, got, sizeof got),
             tensor_shape_text(shape, columns == 0 ? 1 : 2, wanted, sizeof wanted));
    return quant_wrong_tensor(tensors, *out, text);
}

/* ---- Act-order ---- */

/* Reads the indices; dropped again where they say what is so without them. */
static err_t bind_group_indices(struct quant_tensors *tensors, const struct quant_binder *binder)
{
    bool is_gptq = tensors->config->storage == QUANT_STORED_GPTQ;
    if (!is_gptq && tensors->config->storage != QUANT_STORED_PACKED)
        return err_ok();
    const char *suffix = is_gptq ? ".g_idx" : ".weight_g_idx";
    char name[TENSOR_NAME_MAX];
    snprintf(name, sizeof name, "%s%s", binder->module, suffix);
    if (!tensors->config->is_act_order && !checkpoint_find(tensors->checkpoint, name))
        return err_ok();
    const struct checkpoint_tensor *tensor;
    TRY(quant_find(tensors, binder, suffix, QUANT_DTYPE_INTEGER, tensors->n_in, 0, &tensor));
    tensors->group_of = mem_alloc_array(tensors->n_in, sizeof *tensors->group_of);
    if (!tensors->group_of)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %s", name);
    TRY(checkpoint_read_bytes(tensors->checkpoint, tensor, 0, tensors->n_in * sizeof(uint32_t),
                              tensors->group_of));
    bool needed = false;
    for (uint64_t k = 0; k < tensors->n_in; k++) {
        uint32_t group = tensors->group_of[k];
        if (group >= tensors->n_groups) {
            char text[96];
            snprintf(text, sizeof text, "gives input %llu group %d of %llu", (unsigned long long)k,
                     (int)group, (unsigned long long)tensors->n_groups);
            return quant_wrong_tensor(tensors, tensor, text);
        }
        needed |= group != (tensors->format.group == 0 ? 0 : k / tensors->format.group);
    }
    if (!needed) {
        mem_free(tensors->group_of);
        tensors->group_of = NULL;
    }
    return err_ok();
}

err_t quant_tensors_bind(const struct quant_config *config, struct checkpoint *checkpoint,
                         const char *directory, const char *module, uint64_t n_out, uint64_t n_in,
                         struct quant_tensors **out)
{
    *out = mem_alloc(sizeof **out);
    if (!*out)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %s", module);
    struct quant_tensors *tensors = *out;
    *tensors = (struct quant_tensors){
        .config = config, .checkpoint = checkpoint, .format = config->format, .n_out = n_out, .n_in = n_in};
    uint32_t group = config->format.group;
    tensors->n_groups = group == 0 ? 1 : (n_in + group - 1) / group;
    struct quant_binder binder = {directory, module};
    err_t e = err_ok();
    if (config->block_outputs == 0 && group > 0 && n_in % group != 0)
        e = err_new(
            ERR_INVALID_ARGUMENT,
            "%s/config.json: groups of %u (\"quantization_config\") do not divide the %llu inputs of \"%s\"",
            directory, group, (unsigned long long)n_in, module);
    if (e.code == ERR_OK)
        e = ops_of(tensors)->bind(tensors, &binder);
    if (e.code == ERR_OK)
        e = bind_group_indices(tensors, &binder);
    if (e.code != ERR_OK) {
        quant_tensors_free(tensors);
        *out = NULL;
    }
    return e;
}

void quant_tensors_free(struct quant_tensors *tensors)
{
    if (!tensors)
        return;
    quant_tensors_unstage(tensors);
    mem_free(tensors->group_of);
    mem_free(tensors);
}

/* ---- Staging ---- */

uint64_t quant_tensors_stage_bytes(const struct quant_tensors *tensors, const struct quant_extent *extent)
{
    struct quant_slab slabs[3] = {0};
    if (!ops_of(tensors)->slabs)
        return 0;
    ops_of(tensors)->slabs(tensors, extent, &slabs[0], &slabs[1], &slabs[2]);
    uint64_t bytes = 0;
    for (int i = 0; i < 3; i++)
        bytes += slabs[i].n_rows * slabs[i].row_bytes;
    return bytes;
}

static err_t load_slab(const struct quant_tensors *tensors, const struct checkpoint_tensor *tensor,
                       struct quant_slab *slab)
{
    const struct tensor_info *info = tensor->info;
    uint64_t whole_row_bytes = (info->end - info->begin) / info->shape[0];
    slab->bytes = mem_alloc_array(slab->n_rows, slab->row_bytes);
    if (!slab->bytes)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for %s", info->name);
    if (slab->row_bytes == whole_row_bytes)
        return checkpoint_read_bytes(tensors->checkpoint, tensor, slab->first_row * whole_row_bytes,
                                     slab->n_rows * whole_row_bytes, slab->bytes);
    for (uint64_t r = 0; r < slab->n_rows; r++)
        TRY(checkpoint_read_bytes(tensors->checkpoint, tensor,
                                  (slab->first_row + r) * whole_row_bytes + slab->first_byte, slab->row_bytes,
                                  slab->bytes + r * slab->row_bytes));
    return err_ok();
}

err_t quant_tensors_stage(struct quant_tensors *tensors, const struct quant_extent *extent)
{
    ASSERT(extent->n_out > 0 && extent->first_out + extent->n_out <= tensors->n_out);
    ASSERT(extent->n_in > 0 && extent->first_in + extent->n_in <= tensors->n_in);
    if (!ops_of(tensors)->slabs)
        return err_ok();
    quant_tensors_unstage(tensors);
    ops_of(tensors)->slabs(tensors, extent, &tensors->code_slab, &tensors->scale_slab, &tensors->zero_slab);
    TRY(load_slab(tensors, tensors->codes, &tensors->code_slab));
    TRY(load_slab(tensors, tensors->scales, &tensors->scale_slab));
    return load_slab(tensors, tensors->zeros, &tensors->zero_slab);
}

void quant_tensors_unstage(struct quant_tensors *tensors)
{
    struct quant_slab *const slabs[] = {&tensors->code_slab, &tensors->scale_slab, &tensors->zero_slab};
    for (size_t i = 0; i < sizeof slabs / sizeof slabs[0]; i++) {
        mem_free(slabs[i]->bytes);
        *slabs[i] = (struct quant_slab){0};
    }
}

/* ---- Rows ---- */

static err_t check_row(const struct quant_tensors *tensors, uint64_t row, const struct quant_row *read,
                       size_t n, size_t n_groups)
{
    for (size_t g = 0; g < n_groups; g++) {
        if (!isfinite(read->scales[g]))
            return err_new(ERR_DATA_LOSS, "%s: tensor \"%s\": a scale of output %llu is NaN or infinity",
                           checkpoint_file(tensors->checkpoint, tensors->scales), tensors->scales->info->name,
                           (unsigned long long)row);
    }
    for (size_t k = 0; tensors->format.code == QUANT_CODE_E4M3 && k < n; k++) {
        if ((read->codes[k] & 0x7f) == 0x7f)
            return err_new(ERR_DATA_LOSS, "%s: tensor \"%s\": row %llu holds NaN",
                           checkpoint_file(tensors->checkpoint, tensors->codes), tensors->codes->info->name,
                           (unsigned long long)row);
    }
    return err_ok();
}

err_t quant_tensors_read(const struct quant_tensors *tensors, uint64_t row, size_t n_rows, uint64_t first,
                         size_t n, struct quant_row *out)
{
    ASSERT(n_rows > 0 && row < tensors->n_out && n_rows <= tensors->n_out - row);
    ASSERT(n > 0 && first + n <= tensors->n_in);
    const struct quant_storage_ops *ops = ops_of(tensors);
    TRY(ops->read_codes(tensors, row, n_rows, first, n, out));
    uint64_t group = tensors->group_of || tensors->format.group == 0 ? 0 : first / tensors->format.group;
    size_t n_groups =
        tensors->group_of ? (size_t)tensors->n_groups : quant_groups(&tensors->format, first, n);
    for (size_t i = 0; i < n_rows; i++) {
        out[i].group_of = tensors->group_of;
        TRY(ops->read_groups(tensors, row + i, group, n_groups, &out[i]));
        TRY(check_row(tensors, row + i, &out[i], n, n_groups));
    }
    return err_ok();
}
