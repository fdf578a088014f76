#include "tests/cuda/fake_break.h"

#include <stdio.h>
#include <string.h>
#include "base/assert.h"

static struct {
    bool is_set;
    enum fake_break_kind kind;
    int ordinal;
    unsigned long n_left; /* calls of the kind before it */
} planned;

static const char *const names[FAKE_BREAK_KINDS] = {
    [FAKE_BREAK_COPY] = "copy", [FAKE_BREAK_LAUNCH] = "launch", [FAKE_BREAK_RECORD] = "record",
    [FAKE_BREAK_WAIT] = "wait", [FAKE_BREAK_GRAPH] = "graph",   [FAKE_BREAK_GATHER] = "gather",
    [FAKE_BREAK_RUN] = "run",
};

void fake_break_set(const char *spec)
{
    planned.is_set = spec != NULL && *spec != '\0';
    if (!planned.is_set)
        return;
    char name[16];
    planned.ordinal = 0;
    int n_read = sscanf(spec, "%15[a-z]:%lu@%d", name, &planned.n_left, &planned.ordinal);
    ASSERT(n_read >= 2);
    for (int kind = 0; kind < FAKE_BREAK_KINDS; kind++) {
        if (strcmp(name, names[kind]) == 0) {
            planned.kind = (enum fake_break_kind)kind;
            return;
        }
    }
    ASSERT(!"no kind of call that can break a device");
}

bool fake_break_now(enum fake_break_kind kind, int ordinal)
{
    if (!planned.is_set || kind != planned.kind || ordinal != planned.ordinal || planned.n_left-- > 0)
        return false;
    planned.is_set = false;
    return true;
}
