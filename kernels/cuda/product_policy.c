#include "kernels/cuda/product_policy.h"

#include <stddef.h>
#include <string.h>

enum { OUTER_SCALES_CAPABILITY = 90 }; /* no other has products with a scale per row and per output */

const char *product_kind_name(enum product_kind kind)
{
    return kind == PRODUCT_BF16 ? "bf16" : "fp8";
}

static bool is_of_card(const struct product_entry *entry, const struct product_policy *policy)
{
    return strcmp(entry->card, policy->card) == 0;
}

bool product_policy_wants(const struct product_policy *policy)
{
    if (policy->batch_variant)
        return true;
    for (const struct product_entry *entry = policy->table; entry->card != NULL; entry++) {
        if (is_of_card(entry, policy))
            return true;
    }
    return false;
}

static bool can_serve(const struct product_policy *policy, enum product_kind kind, uint32_t n_out,
                      uint32_t n_in, bool has_bias)
{
    return !has_bias && n_out % PRODUCT_SHAPE_ALIGN == 0 && n_in % PRODUCT_SHAPE_ALIGN == 0 &&
           (kind == PRODUCT_BF16 || policy->capability == OUTER_SCALES_CAPABILITY);
}

uint32_t product_policy_rows_min(const struct product_policy *policy, enum product_kind kind)
{
    if (policy->rows_min != 0)
        return policy->rows_min;
    return kind == PRODUCT_BF16 ? PRODUCT_ROWS_MIN_BF16 : PRODUCT_ROWS_MIN_E4M3;
}

struct product_rows product_policy_rows(const struct product_policy *policy, enum product_kind kind,
                                        uint32_t n_out, uint32_t n_in, bool has_bias)
{
    if (!can_serve(policy, kind, n_out, n_in, has_bias))
        return (struct product_rows){0, 0};
    if (policy->batch_variant)
        return (struct product_rows){product_policy_rows_min(policy, kind), UINT32_MAX};
    for (const struct product_entry *entry = policy->table; entry->card != NULL; entry++) {
        if (is_of_card(entry, policy) && entry->library_version == policy->library_version &&
            entry->kind == kind && entry->n_out == n_out && entry->n_in == n_in)
            return (struct product_rows){entry->rows_min, entry->rows_max};
    }
    return (struct product_rows){0, 0};
}
