/* Assertions that stay on in every build. A failed one is a bug of ours: it prints and aborts.
 * Never put a call with an effect inside. */
#pragma once

_Noreturn void assert_fail(const char *file, int line, const char *expression);

#define ASSERT(expression) ((expression) ? (void)0 : assert_fail(__FILE__, __LINE__, #expression))
