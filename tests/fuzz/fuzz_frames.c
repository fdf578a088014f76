/* HTTP/2 frames as a client may send them, in pieces that the first byte names: what is counted must not
 * depend on those, but for PINGs, which count by what comes at once. */
#include <stddef.h>
#include <stdint.h>
#include "base/assert.h"
#include "proto/frame_count.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct frame_limits limits = {.max_streams = 20};

static enum frame_fault count_pieces(struct frame_count *count, const uint8_t *bytes, size_t size,
                                     size_t piece)
{
    enum frame_fault fault = FRAME_FINE;
    for (size_t at = 0; at < size && fault == FRAME_FINE; at += piece)
        fault = frame_count_add(count, &limits, bytes + at, size - at < piece ? size - at : piece, 1);
    return fault;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    struct frame_count whole = {.n_head = 0}, pieces = {.n_head = 0};
    enum frame_fault fault = count_pieces(&whole, data + 1, size - 1, size);
    enum frame_fault fault_of_pieces = count_pieces(&pieces, data + 1, size - 1, (size_t)data[0] + 1);
    ASSERT(frame_fault_text(fault)[0] != '\0');
    if (fault == FRAME_FAULT_PINGS || fault_of_pieces == FRAME_FAULT_PINGS)
        return 0;
    ASSERT(fault == fault_of_pieces && whole.n_opened == pieces.n_opened && whole.newest == pieces.newest);
    ASSERT(whole.n_hasty == pieces.n_hasty && whole.block_bytes == pieces.block_bytes);
    ASSERT(whole.payload_left == pieces.payload_left && whole.n_head == pieces.n_head);
    return 0;
}
