#include "kernels/cuda/device_cublaslt.h"

#include <dlfcn.h>
#include <stdlib.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "kernels/cuda/cublaslt_types.h"

/* Rows in powers of two, each with an algorithm of its own: 2^31 rows are never reached. */
enum { ROW_BUCKETS = 32, VERSION_MIN = 120900 /* scales per row and output */ };

/* An address that says how scales are aligned, which the choice of an algorithm asks for; it is not followed.
 */
#define SCALES_ALIGN ((uintptr_t)256)

struct cublaslt {
    struct cublaslt_functions call;
    cublaslt_handle handle;
};

struct cublaslt_product {
    struct cublaslt *blas;
    struct product_shape shape;
    cublaslt_operation operation;
    cublaslt_layout weight, x, out;
    struct cublaslt_algorithm algorithms[ROW_BUCKETS]; /* [i]: up to 2^i rows */
};

/* ---- The library ---- */

static err_t open_library(void **out)
{
    static const char *const names[] = {"libcublasLt.so.13", "libcublasLt.so.12"};
    const char *named = getenv("BANTAM_CUBLASLT_LIBRARY");
    if (named != NULL && *named != '\0') {
        *out = dlopen(named, RTLD_NOW | RTLD_LOCAL);
    } else {
        *out = NULL;
        for (size_t i = 0; i < sizeof names / sizeof names[0] && *out == NULL; i++)
            *out = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    }
    if (*out != NULL)
        return err_ok();
    const char *why = dlerror();
    return err_new(ERR_UNAVAILABLE,
                   "cuBLASLt cannot be loaded (%.200s): install it, or name it by BANTAM_CUBLASLT_LIBRARY",
                   why != NULL ? why : "unknown error");
}

static err_t load_symbols(void *library, struct cublaslt_functions *out)
{
    const struct {
        const char *name;
        void **at;
    } symbols[] = {
#define M(member, symbol, type, parameters) {#symbol, (void **)&out->member},
        CUBLASLT_FUNCTIONS(M)
#undef M
    };
    for (size_t i = 0; i < sizeof symbols / sizeof symbols[0]; i++) {
        *symbols[i].at = dlsym(library, symbols[i].name);
        if (*symbols[i].at == NULL)
            return err_new(ERR_UNAVAILABLE, "cuBLASLt lacks %s: it must be of CUDA 12.9 or newer",
                           symbols[i].name);
    }
    if (out->version() < VERSION_MIN)
        return err_new(ERR_UNAVAILABLE, "cuBLASLt's version number is %zu, at least %d (CUDA 12.9) is needed",
                       out->version(), VERSION_MIN);
    return err_ok();
}

static err_t status_error(const struct cublaslt *blas, int status, const char *what)
{
    if (status == CUBLASLT_OK)
        return err_ok();
    return err_new(status == CUBLASLT_NOT_SUPPORTED ? ERR_UNIMPLEMENTED : ERR_INTERNAL, "cuBLASLt: %s: %s",
                   what, blas->call.status_string(status));
}

/* The library stays loaded: it keeps state of its own. */
err_t cublaslt_create(struct cublaslt **out)
{
    void *library;
    struct cublaslt_functions call;
    *out = NULL;
    TRY(open_library(&library));
    TRY(load_symbols(library, &call));
    struct cublaslt *blas = mem_alloc(sizeof *blas);
    if (blas == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for cuBLASLt");
    *blas = (struct cublaslt){.call = call};
    int status = call.create(&blas->handle);
    if (status != CUBLASLT_OK) {
        mem_free(blas);
        return err_new(ERR_UNAVAILABLE, "cuBLASLt does not start: %s", call.status_string(status));
    }
    *out = blas;
    return err_ok();
}

void cublaslt_destroy(struct cublaslt *blas)
{
    if (blas != NULL)
        (void)blas->call.destroy(blas->handle);
    mem_free(blas);
}

uint32_t cublaslt_version(const struct cublaslt *blas)
{
    return (uint32_t)blas->call.version();
}

/* ---- Products ---- */

static uint32_t bucket_of(uint32_t rows)
{
    ASSERT(rows > 0);
    return rows == 1 ? 0 : 32u - (uint32_t)__builtin_clz(rows - 1);
}

static err_t set_operation(struct cublaslt_product *p, int attribute, const void *value, size_t value_bytes)
{
    return status_error(p->blas, p->blas->call.operation_set(p->operation, attribute, value, value_bytes),
                        "describing a product");
}

/* The columns of x and out are the rows of activations. */
static err_t set_rows(struct cublaslt_product *p, uint32_t rows)
{
    const struct cublaslt_functions *call = &p->blas->call;
    uint64_t columns = rows;
    TRY(status_error(p->blas, call->layout_set(p->x, CUBLASLT_LAYOUT_COLUMNS, &columns, sizeof columns),
                     "rows of a product"));
    return status_error(p->blas, call->layout_set(p->out, CUBLASLT_LAYOUT_COLUMNS, &columns, sizeof columns),
                        "rows of a product");
}

static err_t set_scales(struct cublaslt_product *p, const float *of_outputs, const float *of_rows)
{
    TRY(set_operation(p, CUBLASLT_OPERATION_A_SCALE, &of_outputs, sizeof of_outputs));
    return set_operation(p, CUBLASLT_OPERATION_B_SCALE, &of_rows, sizeof of_rows);
}

/* Matrices of the library have their columns one after the other: out^T = weight x^T, with the rows of weight
 * and x, that is of the first operand transposed, along the inputs. The form that e4m3 must have. */
static err_t describe(struct cublaslt_product *p)
{
    const struct cublaslt_functions *call = &p->blas->call;
    const struct product_shape *s = &p->shape;
    int type = s->kind == PRODUCT_E4M3 ? CUBLASLT_TYPE_E4M3 : CUBLASLT_TYPE_BF16;
    int32_t transposed = CUBLASLT_OP_T, by_row = CUBLASLT_SCALE_OUTER_VECTOR;
    TRY(status_error(p->blas, call->operation_create(&p->operation, CUBLASLT_COMPUTE_32F, CUBLASLT_TYPE_F32),
                     "a product"));
    TRY(set_operation(p, CUBLASLT_OPERATION_TRANSPOSE_A, &transposed, sizeof transposed));
    if (s->kind == PRODUCT_E4M3) {
        TRY(set_operation(p, CUBLASLT_OPERATION_A_SCALE_MODE, &by_row, sizeof by_row));
        TRY(set_operation(p, CUBLASLT_OPERATION_B_SCALE_MODE, &by_row, sizeof by_row));
        TRY(set_scales(p, (const float *)SCALES_ALIGN, (const float *)SCALES_ALIGN));
    }
    TRY(status_error(p->blas, call->layout_create(&p->weight, type, s->n_in, s->n_out, s->weight_stride),
                     "the layout of a weight"));
    TRY(status_error(p->blas, call->layout_create(&p->x, type, s->n_in, s->rows_max, s->x_stride),
                     "the layout of activations"));
    return status_error(
        p->blas, call->layout_create(&p->out, CUBLASLT_TYPE_BF16, s->n_out, s->rows_max, s->out_stride),
        "the layout of results");
}

static err_t no_algorithm(const struct cublaslt_product *p, uint32_t rows)
{
    return err_new(ERR_UNIMPLEMENTED, "cuBLASLt has no algorithm for %s, %u x %u at %u rows",
                   product_kind_name(p->shape.kind), p->shape.n_out, p->shape.n_in, rows);
}

/* Whether the bucket's algorithm takes so many rows: once steps run it is too late to find out. */
static err_t check_rows(struct cublaslt_product *p, uint32_t bucket, uint32_t rows)
{
    struct cublaslt_heuristic result = {0};
    TRY(set_rows(p, rows));
    int status = p->blas->call.check(p->blas->handle, p->operation, p->weight, p->x, p->out, p->out,
                                     &p->algorithms[bucket], &result);
    if (status != CUBLASLT_OK || result.workspace_bytes > p->shape.workspace_bytes)
        return no_algorithm(p, rows);
    return err_ok();
}

static err_t choose_for(struct cublaslt_product *p, cublaslt_preference preference, uint32_t bucket)
{
    const struct cublaslt_functions *call = &p->blas->call;
    struct cublaslt_heuristic found = {0};
    uint32_t most = (uint32_t)1 << bucket, least = most / 2 + 1;
    int n_found = 0;
    TRY(set_rows(p, most));
    int status = call->choose(p->blas->handle, p->operation, p->weight, p->x, p->out, p->out, preference, 1,
                              &found, &n_found);
    if (status == CUBLASLT_NOT_SUPPORTED || (status == CUBLASLT_OK && n_found == 0))
        return no_algorithm(p, most);
    TRY(status_error(p->blas, status, "choosing an algorithm"));
    if (found.status != CUBLASLT_OK || found.workspace_bytes > p->shape.workspace_bytes)
        return no_algorithm(p, most);
    p->algorithms[bucket] = found.algorithm;
    TRY(check_rows(p, bucket, least));
    return most > least ? check_rows(p, bucket, most - 1) : err_ok();
}

static err_t choose(struct cublaslt_product *p)
{
    const struct cublaslt_functions *call = &p->blas->call;
    cublaslt_preference preference;
    TRY(status_error(p->blas, call->preference_create(&preference), "a preference"));
    err_t e = status_error(p->blas,
                           call->preference_set(preference, CUBLASLT_PREFERENCE_WORKSPACE,
                                                &p->shape.workspace_bytes, sizeof p->shape.workspace_bytes),
                           "a preference");
    uint32_t last = bucket_of(p->shape.rows_max);
    for (uint32_t bucket = bucket_of(p->shape.rows_min); bucket <= last && e.code == ERR_OK; bucket++)
        e = choose_for(p, preference, bucket);
    (void)call->preference_destroy(preference);
    return e;
}

err_t cublaslt_product_create(struct cublaslt *blas, const struct product_shape *shape,
                              struct cublaslt_product **out)
{
    ASSERT(shape->rows_min >= 1 && shape->rows_min <= shape->rows_max &&
           shape->rows_max <= 1u << (ROW_BUCKETS - 2));
    *out = NULL;
    struct cublaslt_product *p = mem_alloc(sizeof *p);
    if (p == NULL)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for a product");
    *p = (struct cublaslt_product){.blas = blas, .shape = *shape};
    err_t e = describe(p);
    if (e.code == ERR_OK)
        e = choose(p);
    if (e.code != ERR_OK) {
        cublaslt_product_destroy(p);
        return e;
    }
    *out = p;
    return e;
}

void cublaslt_product_destroy(struct cublaslt_product *p)
{
    const struct cublaslt_functions *call = &p->blas->call;
    cublaslt_layout layouts[] = {p->weight, p->x, p->out};
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++)
        if (layouts[i] != NULL)
            (void)call->layout_destroy(layouts[i]);
    if (p->operation != NULL)
        (void)call->operation_destroy(p->operation);
    mem_free(p);
}

err_t cublaslt_product_run(struct cublaslt_product *p, const struct product_call *call, void *stream)
{
    const float one = 1, zero = 0;
    ASSERT(call->rows >= p->shape.rows_min && call->rows <= p->shape.rows_max);
    TRY(set_rows(p, call->rows));
    if (p->shape.kind == PRODUCT_E4M3)
        TRY(set_scales(p, call->weight_scale, call->x_scale));
    int status = p->blas->call.multiply(p->blas->handle, p->operation, &one, call->weight, p->weight, call->x,
                                        p->x, &zero, call->out, p->out, call->out, p->out,
                                        &p->algorithms[bucket_of(call->rows)], call->workspace,
                                        p->shape.workspace_bytes, stream);
    return status_error(p->blas, status, "a product");
}
