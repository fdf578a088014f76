/* Rows of a weight as a backend packs them: values, or the codes of a checkpoint. */
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "base/float16.h"
#include "model/dummy_weights.h"
#include "model/weight_blocks.h"
#include "model/weights.h"

#define F16_ROUNDS_TO_INFINITY 65520.0f

static err_t fault_raise(struct weight_fault *fault, err_t error)
{
    pthread_mutex_lock(&fault->lock);
    if (!fault->raised) {
        fault->raised = true;
        fault->error = error;
    }
    pthread_mutex_unlock(&fault->lock);
    return error;
}

err_t weight_list_fault(struct weight_list *list)
{
    pthread_mutex_lock(&list->fault.lock);
    err_t e = list->fault.raised ? list->fault.error : err_ok();
    pthread_mutex_unlock(&list->fault.lock);
    return e;
}

/* Values that the format cannot hold: quantising them would be undefined, computing with them useless. */
static err_t check_values(const struct weight_source *source, const struct weight_part *part, size_t row,
                          const float *values, size_t n)
{
    int32_t largest = 0; /* with a sign: SSE2 compares no others */
    for (size_t i = 0; i < n; i++) {
        int32_t magnitude = (int32_t)(f32_to_bits(values[i]) & 0x7fffffffu);
        largest = magnitude > largest ? magnitude : largest;
    }
    const struct checkpoint_tensor *tensor = weight_part_tensor(part);
    const char *file = tensor ? checkpoint_file(source->checkpoint, tensor) : "dummy weights";
    if (largest >= 0x7f800000)
        return err_new(ERR_DATA_LOSS, "%s: tensor \"%s\": row %zu holds NaN or infinity", file, part->name,
                       row);
    if (source->format == WEIGHT_F16 && largest >= (int32_t)f32_to_bits(F16_ROUNDS_TO_INFINITY))
        return err_new(ERR_INVALID_ARGUMENT,
                       "%s: tensor \"%s\": row %zu holds %g, more than float16 can; use --dtype bfloat16",
                       file, part->name, row, (double)f32_from_bits((uint32_t)largest));
    return err_ok();
}

/* n values of the tensor's row `row`, from column `first` on; n_columns: the tensor's. */
static err_t read_values(const struct weight_source *source, const struct weight_part *part, size_t row,
                         size_t n_columns, size_t first, size_t n, float *out)
{
    if (!source->checkpoint) {
        dummy_row(source->dummy_seed, part->name, row, first, n, out);
        return err_ok();
    }
    uint64_t at = (uint64_t)row * n_columns + first;
    TRY(checkpoint_read_f32(source->checkpoint, part->tensor, at, n, out));
    return check_values(source, part, row, out, n);
}

/* Where the checkpoint has row `row`: pairs of a head's rotation may lie side by side there. */
static size_t stored_row(const struct weight_part *part, size_t row)
{
    size_t dim = part->interleaved_dim;
    if (dim == 0)
        return row;
    size_t in_head = row % dim;
    return row - in_head + 2 * (in_head % (dim / 2)) + in_head / (dim / 2);
}

/* The part that holds row *row of the stack; *row becomes the row of the tensor. */
static const struct weight_part *find_part(const struct weight_source *source, size_t *row)
{
    ASSERT(*row < source->n_out);
    const struct weight_part *part = source->parts;
    while (*row >= part->n_rows) {
        *row -= part->n_rows;
        part++;
    }
    *row += part->first_row;
    return part;
}

/* ---- Codes ---- */

/* Groups of this rank's inputs as the part's tensors have them. */
static size_t count_groups(const struct weight_source *source, const struct quant_tensors *tensors)
{
    return tensors->group_of ? (size_t)tensors->n_groups
                             : quant_groups(&tensors->format, source->first_column, source->n_in);
}

static err_t quantized_values(const struct weight_source *source, const struct weight_part *part, size_t row,
                              float *out)
{
    const struct quant_tensors *tensors = part->quantized;
    size_t n_groups = count_groups(source, tensors);
    char *memory = mem_alloc_array(n_groups * (2 * sizeof(float) + sizeof(int16_t)) + source->n_in, 1);
    if (!memory)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for a row of %s", part->name);
    struct quant_row read = {.scales = (float *)memory};
    read.minimums = read.scales + n_groups;
    read.zeros = (int16_t *)(read.minimums + n_groups);
    read.codes = (int8_t *)(read.zeros + n_groups);
    err_t e = quant_tensors_read(tensors, row, 1, source->first_column, source->n_in, &read);
    if (e.code == ERR_OK)
        quant_row_values(&tensors->format, &read, source->first_column, source->n_in, out);
    mem_free(memory);
    return e.code == ERR_OK ? check_values(source, part, row, out, source->n_in) : e;
}

enum { ROWS_AT_ONCE = 32 };

/* Of at most ROWS_AT_ONCE rows of the part's tensors. */
static err_t read_quantized(const struct weight_source *source, const struct weight_part *part, size_t row,
                            size_t n_rows, const struct weight_codes *out)
{
    const struct quant_tensors *tensors = part->quantized;
    size_t n_groups = count_groups(source, tensors);
    bool has_zeros = source->format == WEIGHT_UINT4;
    struct quant_row read[ROWS_AT_ONCE] = {0};
    int16_t *zeros = has_zeros ? mem_alloc_array(n_rows * n_groups, sizeof *zeros) : NULL;
    if (has_zeros && !zeros)
        return err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for rows of %s", part->name);
    for (size_t i = 0; i < n_rows; i++)
        read[i] = (struct quant_row){
            .codes = out[i].codes, .scales = out[i].scales, .zeros = has_zeros ? zeros + i * n_groups : NULL};
    err_t e = quant_tensors_read(tensors, row, n_rows, source->first_column, source->n_in, read);
    for (size_t i = 0; e.code == ERR_OK && i < n_rows; i++) {
        for (size_t g = n_groups; g-- > 0;) {
            if (has_zeros)
                out[i].zeros[g] = (uint8_t)read[i].zeros[g];
            for (size_t r = source->group_repeats; r-- > 0;) /* from the end: none is overwritten before */
                out[i].scales[g * source->group_repeats + r] = out[i].scales[g];
        }
    }
    mem_free(zeros);
    return e;
}

/* Of a GGUF file. row: this rank's, of the part. */
static err_t read_blocks(const struct weight_source *source, const struct weight_part *part, size_t row,
                         size_t n_rows, const struct weight_codes *out)
{
    const struct blocks_range range = {source->n_columns, source->first_column, source->n_in, part->group};
    size_t at_once = part->interleaved_dim == 0 ? n_rows : 1;
    for (size_t i = 0; i < n_rows; i += at_once)
        TRY(blocks_read(source->checkpoint, part->tensor, &range, stored_row(part, row + i), at_once,
                        out + i));
    return err_ok();
}

static void dummy_codes_of(const struct weight_source *source, const struct weight_part *part, size_t row,
                           const struct weight_codes *out)
{
    dummy_codes(source->dummy_seed, part->name, row, source->first_column, source->n_in, source->format,
                out->codes);
    for (size_t g = 0; g < source->n_in / source->group; g++)
        out->scales[g] = dummy_codes_scale(source->format);
}

/* Nothing is computed with what stands there. */
static void clear_codes(const struct weight_source *source, const struct weight_part *part,
                        const struct weight_codes *out)
{
    uint32_t group = part->quantized ? source->group : part->group;
    if (out->blocks) {
        memset(out->blocks, 0, source->n_in / WEIGHT_GROUP * WEIGHT_BLOCK_BYTES);
        return;
    }
    memset(out->codes, 0, source->n_in);
    memset(out->scales, 0, source->n_in / group * sizeof(float));
    if (!part->quantized)
        memset(out->minimums, 0, source->n_in / group * sizeof(float));
    if (source->format == WEIGHT_UINT4)
        memset(out->zeros, 0, source->n_in / source->group);
}

/* Rows of one part. */
static err_t read_codes(const struct weight_source *source, const struct weight_part *part, size_t row,
                        size_t n_rows, const struct weight_codes *out)
{
    if (source->checkpoint && !part->quantized)
        return read_blocks(source, part, row, n_rows, out);
    for (size_t i = 0, now; i < n_rows; i += now) {
        now = !part->quantized ? 1 : n_rows - i < ROWS_AT_ONCE ? n_rows - i : ROWS_AT_ONCE;
        if (source->checkpoint)
            TRY(read_quantized(source, part, row + i, now, &out[i]));
        else
            dummy_codes_of(source, part, row + i, &out[i]);
    }
    return err_ok();
}

static void source_codes(const void *context, size_t first_row, size_t n_rows, const struct weight_codes *out)
{
    const struct weight_source *source = context;
    for (size_t done = 0, now; done < n_rows; done += now) {
        size_t row = first_row + done;
        const struct weight_part *part = find_part(source, &row);
        size_t left = part->first_row + part->n_rows - row;
        now = n_rows - done < left ? n_rows - done : left;
        err_t e = read_codes(source, part, row, now, out + done);
        if (e.code == ERR_OK)
            continue;
        (void)fault_raise(source->fault, e);
        for (size_t i = 0; i < now; i++)
            clear_codes(source, part, &out[done + i]);
    }
}

static struct quant_extent part_extent(const struct weight_source *source, const struct weight_part *part)
{
    return (struct quant_extent){part->first_row, part->n_rows, source->first_column, source->n_in};
}

uint64_t weight_source_stage_bytes(const struct weight_source *source)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < source->n_parts; i++) {
        struct quant_extent extent = part_extent(source, &source->parts[i]);
        if (source->parts[i].quantized)
            bytes += quant_tensors_stage_bytes(source->parts[i].quantized, &extent);
    }
    return bytes;
}

err_t weight_source_open(struct weight_source *source)
{
    for (uint32_t i = 0; i < source->n_parts; i++) {
        struct quant_extent extent = part_extent(source, &source->parts[i]);
        if (source->parts[i].quantized)
            TRY(quant_tensors_stage(source->parts[i].quantized, &extent));
    }
    return err_ok();
}

void weight_source_close(struct weight_source *source)
{
    for (uint32_t i = 0; i < source->n_parts; i++) {
        if (source->parts[i].quantized)
            quant_tensors_unstage(source->parts[i].quantized);
    }
}

/* ---- Rows ---- */

static void source_row(const void *context, size_t row, float *out)
{
    const struct weight_source *source = context;
    const struct weight_part *part = find_part(source, &row);
    err_t e = part->quantized ? quantized_values(source, part, row, out)
                              : read_values(source, part, stored_row(part, row), source->n_columns,
                                            source->first_column, source->n_in, out);
    if (e.code == ERR_OK)
        return;
    (void)fault_raise(source->fault, e);
    memset(out, 0, source->n_in * sizeof *out);
}

struct weight_desc weight_source_desc(const struct weight_source *source)
{
    return (struct weight_desc){
        .name = source->name,
        .n_out = source->n_out,
        .n_in = source->n_in,
        .format = source->format,
        .group = source->group,
        .row = source_row,
        .row_context = source,
        .bias = NULL,
        .is_table = source->is_table,
        .codes = source->has_codes ? source_codes : NULL,
        .sections = source->n_sections > 0 ? source->sections : NULL,
        .n_sections = source->n_sections,
    };
}

err_t weight_source_read_bias(const struct weight_source *source, float *out)
{
    size_t done = 0;
    for (uint32_t i = 0; i < source->n_biases; i++) {
        const struct weight_part *bias = &source->biases[i];
        for (size_t row = 0; row < bias->n_rows && bias->interleaved_dim > 0; row++)
            TRY(read_values(source, bias, 0, 0, stored_row(bias, bias->first_row + row), 1,
                            out + done + row));
        if (bias->interleaved_dim == 0)
            TRY(read_values(source, bias, 0, 0, bias->first_row, bias->n_rows, out + done));
        done += bias->n_rows;
    }
    return err_ok();
}

err_t weight_source_read_vector(const struct weight_source *source, float *out)
{
    if (!source->checkpoint) { /* norms that do nothing, as in a freshly initialised model */
        for (size_t i = 0; i < source->n_in; i++)
            out[i] = 1.0f;
        return err_ok();
    }
    TRY(read_values(source, &source->parts[0], 0, 0, 0, source->n_in, out));
    for (size_t i = 0; i < source->n_in && source->one_plus; i++)
        out[i] = 1.0f + out[i];
    return err_ok();
}

err_t weight_source_pack(struct weight_source *source, struct backend *backend, struct weight **out)
{
    struct weight_desc desc = weight_source_desc(source);
    float *bias = NULL;
    *out = NULL;
    err_t e = err_ok();
    if (source->n_biases > 0) {
        bias = mem_alloc_array(source->n_out, sizeof *bias);
        e = bias ? weight_source_read_bias(source, bias)
                 : err_new(ERR_RESOURCE_EXHAUSTED, "out of memory for the bias of %s", source->name);
        desc.bias = bias;
    }
    if (e.code == ERR_OK)
        e = weight_source_open(source);
    if (e.code == ERR_OK)
        e = backend->vtable->weight_pack(backend, &desc, out);
    weight_source_close(source);
    mem_free(bias);
    return e;
}
