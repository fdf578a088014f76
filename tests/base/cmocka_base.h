/* cmocka with the headers that it wants before it, and what the tests of base/ share. */
#pragma once

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define assert_error(expected_code, call)                                                                    \
    do {                                                                                                     \
        err_t got_ = (call);                                                                                 \
        if (got_.code != (expected_code))                                                                    \
            print_error("%s\n", got_.code != ERR_OK ? got_.message : "no error");                            \
        assert_int_equal(got_.code, (expected_code));                                                        \
    } while (0)

/* Runs fn in a child process and asserts that it ends by SIGABRT. */
static inline void assert_aborts(void (*fn)(void))
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        const struct rlimit no_core = {0, 0};
        setrlimit(RLIMIT_CORE, &no_core);
        signal(SIGABRT, SIG_DFL);
        if (close(STDERR_FILENO) == 0)
            fn();
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}
