/* When a fake device breaks, as a card does that is lost: at the n-th call of a kind on it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum fake_break_kind {
    FAKE_BREAK_COPY,   /* copy_to_device, copy_to_host */
    FAKE_BREAK_LAUNCH, /* launch, product */
    FAKE_BREAK_RECORD, /* event_record, stream_wait_event */
    FAKE_BREAK_WAIT,   /* event_wait */
    FAKE_BREAK_GRAPH,  /* capture_begin, capture_end, graph_launch */
    FAKE_BREAK_GATHER, /* all_gather */
    FAKE_BREAK_RUN,    /* no call: a kernel goes wrong when it runs, which the next call reports */
    FAKE_BREAK_KINDS
};

/* "<kind>:<nth>" or "<kind>:<nth>@<ordinal>": the nth call of the kind from now on (0 = the next) on that
 * device (0 when not said) breaks it. "" or NULL: none does. Aborts on anything else. */
void fake_break_set(const char *spec);
/* Whether this call on the device, which is whole and runs steps, breaks it. */
bool fake_break_now(enum fake_break_kind kind, int ordinal);
