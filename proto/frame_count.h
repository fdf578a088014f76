/* HTTP/2 as it comes in, counted: what a client says that no client says who means well. Knows the lengths
 * and kinds of frames (RFC 9113, 4.1 and 6), not what is in them, and is pure: bytes and time are passed in.
 * What is no HTTP/2 is counted as if it were; whoever speaks it ends that connection anyway.
 *
 * gRPC core holds a client to its limits only once that client has acknowledged them, joins the pieces of a
 * header anew with each, and lets streams be reset without end (docs/security.md). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FRAME_PREFACE_BYTES = 24,
    FRAME_HEAD_BYTES = 9,
    FRAME_BLOCK_BYTES_MAX = 64 << 10, /* of one request's headers as sent, with the heads of their frames */
    FRAME_PINGS_MAX = 32, /* in a row, come at once: who measures waits for one's answer before the next */
    FRAME_HASTE_MS = 10,  /* a stream is reset in haste when it was opened less than this or twice this ago */
    FRAME_HASTE_FORGIVEN = 1, /* such resets, of what counts, every FRAME_HASTE_MS */
};

struct frame_limits {
    uint32_t max_streams; /* opened before the client has acknowledged the server's settings; and as many may
                             be reset in haste beyond those that are not */
};

enum frame_fault {
    FRAME_FINE,
    FRAME_FAULT_BLOCK,          /* headers past FRAME_BLOCK_BYTES_MAX */
    FRAME_FAULT_UNACKNOWLEDGED, /* streams past max_streams, the settings unacknowledged */
    FRAME_FAULT_RESETS,
    FRAME_FAULT_PINGS,
};

/* Zero at first. */
struct frame_count {
    uint8_t head[FRAME_HEAD_BYTES];
    uint8_t n_head, n_preface;
    uint32_t payload_left; /* bytes of the frame under way */
    uint32_t block_bytes;  /* of the headers under way */
    uint32_t n_pings;      /* the last frames of this read */
    bool acknowledged;     /* the server's settings */
    uint32_t n_opened;     /* streams */
    uint32_t newest;       /* stream */
    uint32_t newest_at[2]; /* as of the two last ticks, the older one first */
    int64_t ticked_ns;     /* when the last one was; FRAME_HASTE_MS apart or more */
    uint32_t n_hasty;      /* resets in haste, less what is forgiven */
};

/* What was read at once. A fault is for good: nothing more may be added. */
enum frame_fault frame_count_add(struct frame_count *count, const struct frame_limits *limits,
                                 const uint8_t *bytes, size_t n_bytes, int64_t now_ns);
const char *frame_fault_text(enum frame_fault fault); /* for people */
