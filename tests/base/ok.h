/* OK(call): the test fails with the message of the error that the call returns. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include "base/error.h"

#define OK(call)                                                                                             \
    do {                                                                                                     \
        err_t e_ = (call);                                                                                   \
        if (e_.code != ERR_OK)                                                                               \
            fail_msg("%s", e_.message);                                                                      \
    } while (0)
