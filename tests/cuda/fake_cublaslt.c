/* A cuBLASLt that does not exist, as a shared library: what device_cublaslt.c says to it is understood as the
 * real one's documentation says, and the product is computed on the host when it is called. A call that the
 * real one would refuse, or that leaves out what it needs, is refused here.
 *
 * BANTAM_FAKE_CUBLASLT=old: an old version; start: does not start; none: has no algorithms; odd: none for an
 * odd number of rows. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "base/alloc.h"
#include "base/float16.h"
#include "kernels/cuda/cublaslt_types.h"
#include "base/float8.h"
#include "tests/cuda/fake_cublaslt.h"
#include "tests/cuda/fake_library.h"

enum { INVALID = 7, VERSION = 130100, WORKSPACE_WANTED = 4096 };

struct cublaslt_context {
    int unused;
};

struct cublaslt_operation {
    int compute, scale_type;
    int32_t transpose_a, a_scale_mode, b_scale_mode;
    const float *a_scale, *b_scale;
};

struct cublaslt_layout {
    int type;
    uint64_t rows, columns;
    int64_t stride;
};

struct cublaslt_preference {
    size_t workspace_bytes;
};

/* Declared as device_cublaslt.c has them: it cannot call what is another thing here. */
#define M(member, symbol, type, parameters) type symbol parameters;
CUBLASLT_FUNCTIONS(M)
#undef M

EXPORT struct fake_cublaslt_counts fake_cublaslt_counts;

static bool is_mode(const char *mode)
{
    return fake_is_mode("BANTAM_FAKE_CUBLASLT", mode);
}

EXPORT size_t cublasLtGetVersion(void)
{
    return is_mode("old") ? 120300 : VERSION;
}

EXPORT const char *cublasLtGetStatusString(int status)
{
    return status == CUBLASLT_NOT_SUPPORTED ? "not supported" : "invalid value";
}

#define CREATE(what, ...)                                                                                    \
    *out = mem_alloc(sizeof **out);                                                                          \
    if (*out == NULL)                                                                                        \
        return INVALID;                                                                                      \
    **out = (struct what){__VA_ARGS__};                                                                      \
    fake_cublaslt_counts.n_objects++;                                                                        \
    return CUBLASLT_OK

static int destroy(void *object)
{
    mem_free(object);
    fake_cublaslt_counts.n_objects--;
    return CUBLASLT_OK;
}

EXPORT int cublasLtCreate(cublaslt_handle *out)
{
    if (is_mode("start"))
        return INVALID;
    CREATE(cublaslt_context, 0);
}

EXPORT int cublasLtDestroy(cublaslt_handle handle)
{
    return destroy(handle);
}

EXPORT int cublasLtMatmulDescCreate(cublaslt_operation *out, int compute, int scale_type)
{
    CREATE(cublaslt_operation, .compute = compute, .scale_type = scale_type);
}

EXPORT int cublasLtMatmulDescDestroy(cublaslt_operation operation)
{
    return destroy(operation);
}

EXPORT int cublasLtMatmulDescSetAttribute(cublaslt_operation o, int attribute, const void *value,
                                          size_t bytes)
{
    const struct {
        int attribute;
        void *to;
        size_t bytes;
    } known[] = {
        {CUBLASLT_OPERATION_TRANSPOSE_A, &o->transpose_a, sizeof o->transpose_a},
        {CUBLASLT_OPERATION_A_SCALE_MODE, &o->a_scale_mode, sizeof o->a_scale_mode},
        {CUBLASLT_OPERATION_B_SCALE_MODE, &o->b_scale_mode, sizeof o->b_scale_mode},
        {CUBLASLT_OPERATION_A_SCALE, &o->a_scale, sizeof o->a_scale},
        {CUBLASLT_OPERATION_B_SCALE, &o->b_scale, sizeof o->b_scale},
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (known[i].attribute != attribute)
            continue;
        if (known[i].bytes != bytes)
            return INVALID;
        memcpy(known[i].to, value, bytes);
        return CUBLASLT_OK;
    }
    return INVALID;
}

EXPORT int cublasLtMatrixLayoutCreate(cublaslt_layout *out, int type, uint64_t rows, uint64_t columns,
                                      int64_t stride)
{
    CREATE(cublaslt_layout, type, rows, columns, stride);
}

EXPORT int cublasLtMatrixLayoutDestroy(cublaslt_layout layout)
{
    return destroy(layout);
}

EXPORT int cublasLtMatrixLayoutSetAttribute(cublaslt_layout layout, int attribute, const void *value,
                                            size_t bytes)
{
    if (attribute != CUBLASLT_LAYOUT_COLUMNS || bytes != sizeof layout->columns)
        return INVALID;
    memcpy(&layout->columns, value, bytes);
    return CUBLASLT_OK;
}

EXPORT int cublasLtMatmulPreferenceCreate(cublaslt_preference *out)
{
    CREATE(cublaslt_preference, 0);
}

EXPORT int cublasLtMatmulPreferenceDestroy(cublaslt_preference preference)
{
    return destroy(preference);
}

EXPORT int cublasLtMatmulPreferenceSetAttribute(cublaslt_preference preference, int attribute,
                                                const void *value, size_t bytes)
{
    if (attribute != CUBLASLT_PREFERENCE_WORKSPACE || bytes != sizeof preference->workspace_bytes)
        return INVALID;
    memcpy(&preference->workspace_bytes, value, bytes);
    return CUBLASLT_OK;
}

/* d = a^T b with columns one after the other; what the real library has for e4m3 and for bf16. */
static int product_status(const struct cublaslt_operation *o, const struct cublaslt_layout *a,
                          const struct cublaslt_layout *b, const struct cublaslt_layout *c,
                          const struct cublaslt_layout *d)
{
    bool e4m3 = a->type == CUBLASLT_TYPE_E4M3;
    int64_t align = e4m3 ? 16 : 8;
    if (o->compute != CUBLASLT_COMPUTE_32F || o->scale_type != CUBLASLT_TYPE_F32 || c != d)
        return INVALID;
    if (o->transpose_a != CUBLASLT_OP_T || a->rows != b->rows || d->rows != a->columns ||
        d->columns != b->columns || a->type != b->type || d->type != CUBLASLT_TYPE_BF16)
        return INVALID;
    if (a->stride < (int64_t)a->rows || b->stride < (int64_t)b->rows || d->stride < (int64_t)d->rows)
        return INVALID;
    if (a->stride % align != 0 || b->stride % align != 0 || d->stride % 8 != 0 || b->columns == 0)
        return CUBLASLT_NOT_SUPPORTED;
    int32_t mode = e4m3 ? CUBLASLT_SCALE_OUTER_VECTOR : 0;
    if (o->a_scale_mode != mode || o->b_scale_mode != mode || (o->a_scale != NULL) != e4m3 ||
        (o->b_scale != NULL) != e4m3)
        return INVALID;
    return is_mode("odd") && b->columns % 2 != 0 ? CUBLASLT_NOT_SUPPORTED : CUBLASLT_OK;
}

/* An algorithm is of a number of rows up to a power of two, which it names. */
static uint64_t name_of(uint64_t columns)
{
    uint64_t name = 1;
    while (name < columns)
        name *= 2;
    return name;
}

EXPORT int cublasLtMatmulAlgoGetHeuristic(cublaslt_handle handle, cublaslt_operation o, cublaslt_layout a,
                                          cublaslt_layout b, cublaslt_layout c, cublaslt_layout d,
                                          cublaslt_preference preference, int n_wanted,
                                          struct cublaslt_heuristic *out, int *n_found)
{
    *n_found = 0;
    int status = product_status(o, a, b, c, d);
    if (handle == NULL || n_wanted < 1 || status != CUBLASLT_OK)
        return status == CUBLASLT_OK ? INVALID : status;
    if (is_mode("none") || preference->workspace_bytes < WORKSPACE_WANTED)
        return CUBLASLT_NOT_SUPPORTED;
    *out = (struct cublaslt_heuristic){.algorithm = {{name_of(b->columns)}},
                                       .workspace_bytes = WORKSPACE_WANTED};
    *n_found = 1;
    fake_cublaslt_counts.n_chosen++;
    return CUBLASLT_OK;
}

EXPORT int cublasLtMatmulAlgoCheck(cublaslt_handle handle, cublaslt_operation o, cublaslt_layout a,
                                   cublaslt_layout b, cublaslt_layout c, cublaslt_layout d,
                                   const struct cublaslt_algorithm *algorithm, struct cublaslt_heuristic *out)
{
    (void)handle;
    *out = (struct cublaslt_heuristic){.algorithm = *algorithm, .workspace_bytes = WORKSPACE_WANTED};
    return product_status(o, a, b, c, d);
}

static float element(const void *values, int type, size_t i)
{
    return type == CUBLASLT_TYPE_E4M3 ? f8_e4m3_to_f32(((const uint8_t *)values)[i])
                                      : bf16_to_f32(((const uint16_t *)values)[i]);
}

EXPORT int cublasLtMatmul(cublaslt_handle handle, cublaslt_operation o, const void *alpha, const void *a,
                          cublaslt_layout a_layout, const void *b, cublaslt_layout b_layout, const void *beta,
                          const void *c, cublaslt_layout c_layout, void *d, cublaslt_layout d_layout,
                          const struct cublaslt_algorithm *algorithm, void *workspace, size_t workspace_bytes,
                          void *stream)
{
    int status = product_status(o, a_layout, b_layout, c_layout, d_layout);
    if (status != CUBLASLT_OK)
        return status;
    if (handle == NULL || c != d || *(const float *)alpha != 1.0f || *(const float *)beta != 0.0f ||
        workspace == NULL || workspace_bytes < WORKSPACE_WANTED || stream != FAKE_CUBLASLT_STREAM ||
        algorithm->data[0] != name_of(b_layout->columns))
        return INVALID;
    for (uint64_t j = 0; j < d_layout->columns; j++) {
        for (uint64_t i = 0; i < d_layout->rows; i++) {
            float sum = 0;
            for (uint64_t k = 0; k < a_layout->rows; k++)
                sum += element(a, a_layout->type, i * (uint64_t)a_layout->stride + k) *
                       element(b, b_layout->type, j * (uint64_t)b_layout->stride + k);
            if (o->a_scale_mode == CUBLASLT_SCALE_OUTER_VECTOR)
                sum *= o->a_scale[i] * o->b_scale[j];
            ((uint16_t *)d)[j * (uint64_t)d_layout->stride + i] = bf16_from_f32(sum);
        }
    }
    fake_cublaslt_counts.n_products++;
    return CUBLASLT_OK;
}
