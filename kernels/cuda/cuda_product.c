/* Linear layers by a library's products: which, planned when a weight is packed, and their launch. The
 * library reads plain rows: bf16 weights lie so; packed e4m3 codes are laid out anew in scratch before each
 * product, which costs as much as reading the weight twice more and so pays at many rows alone. */
#include <stdio.h>
#include <string.h>
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/linear_pack.h"

/* ---- Which ---- */

static void note_mode(struct cuda_products *products, const err_t *missing)
{
    const struct product_policy *policy = &products->policy;
    if (missing != NULL)
        snprintf(products->note, sizeof products->note,
                 "every linear layer by our own kernels, which are batch-invariant: %.180s",
                 missing->message);
    else if (!products->is_open)
        snprintf(products->note, sizeof products->note,
                 "every linear layer by our own kernels, which are batch-invariant");
    else if (policy->batch_variant)
        snprintf(products->note, sizeof products->note,
                 "not batch-invariant: bf16 layers of %u rows and more and fp8 ones of %u by cuBLASLt %u",
                 product_policy_rows_min(policy, PRODUCT_BF16), product_policy_rows_min(policy, PRODUCT_E4M3),
                 policy->library_version);
    else
        snprintf(products->note, sizeof products->note,
                 "batch-invariant; some layers by cuBLASLt %u, whose bits equal our kernels'",
                 policy->library_version);
}

err_t cuda_products_open(struct cuda_backend *cuda, const struct backend_cuda_options *options)
{
    struct cuda_products *products = &cuda->products;
    products->policy = (struct product_policy){
        .batch_variant = options->batch_variant && !cuda->f32,
        .rows_min = options->library_rows_min,
        .table = product_table,
        .card = cuda->properties->name,
        .capability = cuda->properties->capability,
    };
    products->about =
        (struct backend_library){.note = products->note, .card = cuda->properties->name, .version = 0};
    note_mode(products, NULL);
    if (cuda->f32 || !product_policy_wants(&products->policy))
        return err_ok();
    err_t e = cuda->api->product_library(cuda->device, &products->policy.library_version);
    products->is_open = e.code == ERR_OK;
    products->about.version = products->is_open ? products->policy.library_version : 0;
    note_mode(products, e.code == ERR_UNAVAILABLE ? &e : NULL);
    return e.code == ERR_UNAVAILABLE ? err_ok() : e;
}

void cuda_products_close(struct cuda_backend *cuda)
{
    for (uint32_t i = 0; i < cuda->products.n; i++)
        if (cuda->products.list[i].product != NULL)
            cuda->api->product_destroy(cuda->device, cuda->products.list[i].product);
    cuda->products.n = 0;
}

static size_t unpacked_bytes(const struct cuda_backend *cuda, const struct backend_needs *needs)
{
    bool by_wgmma = linear_e4m3_kind(cuda->properties->capability) == LINEAR_E4M3_BY_WGMMA;
    return by_wgmma ? cuda_bytes(needs->largest_weight, 1) : 0;
}

/* The workspace, then room for a weight's plain rows. */
size_t cuda_products_scratch_bytes(const struct cuda_backend *cuda, const struct backend_needs *needs)
{
    return cuda->products.is_open ? CUDA_PRODUCT_WORKSPACE_BYTES + unpacked_bytes(cuda, needs) : 0;
}

static bool kind_of(const struct cuda_matrix *matrix, enum product_kind *kind)
{
    *kind = matrix->packed - 1 == LINEAR_BF16 ? PRODUCT_BF16 : PRODUCT_E4M3;
    return matrix->packed != 0 &&
           (matrix->packed - 1 == LINEAR_BF16 || matrix->packed - 1 == LINEAR_E4M3_WGMMA);
}

static bool is_same(const struct product_shape *a, const struct product_shape *b)
{
    return a->kind == b->kind && a->n_out == b->n_out && a->n_in == b->n_in;
}

/* Without an algorithm the shape stays in the list, and is ours. */
static err_t add_product(struct cuda_backend *cuda, const struct product_shape *shape,
                         struct cuda_product *product)
{
    struct cuda_products *products = &cuda->products;
    err_t e = cuda->api->product_create(cuda->device, shape, &product->product);
    if (e.code != ERR_OK && e.code != ERR_UNIMPLEMENTED)
        return e;
    product->shape = *shape;
    products->n++;
    if (e.code == ERR_OK)
        return e;
    size_t used = strlen(products->note);
    snprintf(products->note + used, sizeof products->note - used, "; but %s", e.message);
    return err_ok();
}

err_t cuda_product_plan(struct cuda_backend *cuda, const struct cuda_matrix *matrix,
                        const struct cuda_product **out)
{
    struct cuda_products *products = &cuda->products;
    enum product_kind kind;
    *out = NULL;
    if (!products->is_open || !kind_of(matrix, &kind))
        return err_ok();
    struct product_rows rows =
        product_policy_rows(&products->policy, kind, matrix->n_out, matrix->n_in, matrix->bias != NULL);
    if (rows.max > cuda->needs.step.rows)
        rows.max = cuda->needs.step.rows;
    if (rows.max == 0 || rows.min > rows.max)
        return err_ok();
    struct product_shape shape = {
        .kind = kind,
        .n_out = matrix->n_out,
        .n_in = matrix->n_in,
        .weight_stride = matrix->n_in,
        .x_stride = matrix->n_in,
        .out_stride = matrix->n_out,
        .rows_min = rows.min,
        .rows_max = rows.max,
        .workspace_bytes = CUDA_PRODUCT_WORKSPACE_BYTES,
    };
    uint32_t i = 0;
    while (i < products->n && !is_same(&products->list[i].shape, &shape))
        i++;
    if (i == CUDA_PRODUCTS_MAX)
        return err_ok();
    if (i == products->n)
        TRY(add_product(cuda, &shape, &products->list[i]));
    *out = products->list[i].product != NULL ? &products->list[i] : NULL;
    return err_ok();
}

bool cuda_product_serves(const struct cuda_product *product, uint32_t rows)
{
    return product != NULL && rows >= product->shape.rows_min && rows <= product->shape.rows_max;
}

const struct backend_library *cuda_library(const struct backend *backend)
{
    return &cuda_of_const(backend)->products.about;
}

bool cuda_library_serves(const struct weight *weight, uint32_t rows)
{
    return cuda_product_serves(weight->product, rows);
}

/* ---- The launch ---- */

static void unpack(struct cuda_backend *cuda, const struct cuda_matrix *matrix, uint8_t *to)
{
    struct unpack_weight_args args = {
        .codes = matrix->codes,
        .rows = to,
        .n_out = matrix->n_out,
        .n_in = matrix->n_in,
        .row_bytes = matrix->n_in,
    };
    CUDA_LAUNCH(cuda, unpack_e4m3_wgmma, linear_blocks(LINEAR_E4M3_WGMMA, matrix->n_in),
                linear_panels(matrix->n_out), UNPACK_THREADS, args);
}

void cuda_product_run(struct cuda_backend *cuda, const struct weight *weight, uint32_t rows, const void *x,
                      const float *x_scale, struct act *out)
{
    cuda_turn_flush(cuda);
    const struct cuda_matrix *matrix = &weight->matrix;
    const struct product_shape *shape = &weight->product->shape;
    ASSERT(cuda_product_serves(weight->product, rows) && !out->f32 && out->stride == shape->out_stride);
    ASSERT(shape->kind == PRODUCT_BF16 || (size_t)matrix->n_out * matrix->n_in <= cuda->needs.largest_weight);
    uint8_t *workspace = cuda->scratch.products, *unpacked = workspace + CUDA_PRODUCT_WORKSPACE_BYTES;
    struct product_call call = {
        .rows = rows,
        .weight = matrix->codes,
        .x = x,
        .out = out->data,
        .workspace = workspace,
    };
    if (shape->kind == PRODUCT_E4M3) {
        unpack(cuda, matrix, unpacked);
        call.weight = unpacked;
        call.weight_scale = matrix->scales;
        call.x_scale = x_scale;
    }
    (void)CUDA_STEP(cuda, cuda->api->product(cuda->device, cuda->stream, weight->product->product, &call));
    cuda->quantized = NULL;
    cuda->behind_library = true;
}
