/* Whether this process may use AMX. */
#pragma once

#include <stdbool.h>

/* True: CPU and operating system have tiles with products in int8 and bf16 (CPUID, XCR0), and the kernel has
 * given this process the register state for them, which is asked for here; every thread has it then, those
 * that run already too. Any thread, any number of times. The CPU has XGETBV. */
bool amx_request(void);
