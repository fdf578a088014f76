/* What a check might have found on a card, for the tests of the backend: one of that name alone has entries.
 */
#include <stddef.h>
#include "kernels/cuda/product_policy.h"
#include "tests/cuda/fake_product.h"

const struct product_entry product_table[] = {
    {"Emulated GPU with a table", FAKE_PRODUCT_VERSION, PRODUCT_BF16, 192, 64, 5, 40},
    {"Emulated GPU with a table", FAKE_PRODUCT_VERSION, PRODUCT_E4M3, 192, 64, 5, 40},
    {"Emulated GPU with a table", FAKE_PRODUCT_VERSION + 1, PRODUCT_BF16, 64, 64, 1, 8},
    {.card = NULL},
};
