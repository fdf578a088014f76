#include "cli/interrupt.h"

#include <signal.h>
#include <stddef.h>

static _Atomic bool interrupted;

static void on_interrupt(int signal_number)
{
    (void)signal_number;
    atomic_store(&interrupted, true);
}

const _Atomic bool *interrupt_flag(void)
{
    return &interrupted;
}

void interrupt_watch(void)
{
    struct sigaction action = {.sa_handler = on_interrupt, .sa_flags = (int)SA_RESETHAND};
    (void)sigaction(SIGINT, &action, NULL);
}
