#include "proto/frame_count.h"

#include "base/assert.h"

enum { KIND_HEADERS = 1, KIND_RST_STREAM = 3, KIND_SETTINGS = 4, KIND_PING = 6, KIND_CONTINUATION = 9 };
enum { FLAG_ACK = 1 };

static uint32_t smaller(uint32_t a, size_t b)
{
    return b < a ? (uint32_t)b : a;
}

/* Time goes on: what was opened before the tick before the last is no longer new. At least one was missed
 * when more than one is due. */
static void tick(struct frame_count *count, int64_t now_ns)
{
    int64_t n_ticks = (now_ns - count->ticked_ns) / (FRAME_HASTE_MS * INT64_C(1000000));
    if (n_ticks < 1)
        return;
    count->ticked_ns = now_ns;
    count->newest_at[0] = n_ticks > 1 ? count->newest : count->newest_at[1];
    count->newest_at[1] = count->newest;
    count->n_hasty -= smaller(count->n_hasty, (size_t)n_ticks * FRAME_HASTE_FORGIVEN);
}

static enum frame_fault open_stream(struct frame_count *count, const struct frame_limits *limits,
                                    uint32_t stream)
{
    if (stream <= count->newest)
        return FRAME_FINE; /* trailers */
    count->newest = stream;
    count->n_hasty -= smaller(1, count->n_hasty);
    count->n_opened++;
    return !count->acknowledged && count->n_opened > limits->max_streams ? FRAME_FAULT_UNACKNOWLEDGED
                                                                         : FRAME_FINE;
}

static enum frame_fault reset_stream(struct frame_count *count, const struct frame_limits *limits,
                                     uint32_t stream)
{
    if (stream <= count->newest_at[0])
        return FRAME_FINE;
    count->n_hasty += 2; /* one more than its opening takes off, or would have */
    return count->n_hasty > limits->max_streams + 1 ? FRAME_FAULT_RESETS : FRAME_FINE;
}

/* A frame's head is there. */
static enum frame_fault begin_frame(struct frame_count *count, const struct frame_limits *limits)
{
    const uint8_t *head = count->head;
    uint32_t n_payload = (uint32_t)head[0] << 16 | (uint32_t)head[1] << 8 | head[2];
    uint32_t stream =
        ((uint32_t)head[5] << 24 | (uint32_t)head[6] << 16 | (uint32_t)head[7] << 8 | head[8]) & INT32_MAX;
    uint8_t kind = head[3], flags = head[4];
    count->payload_left = n_payload;
    if (kind != KIND_PING)
        count->n_pings = 0;
    switch (kind) {
    case KIND_HEADERS:
        count->block_bytes = 0;
        /* fall through */
    case KIND_CONTINUATION:
        count->block_bytes += FRAME_HEAD_BYTES + n_payload;
        if (count->block_bytes > FRAME_BLOCK_BYTES_MAX)
            return FRAME_FAULT_BLOCK;
        return kind == KIND_HEADERS ? open_stream(count, limits, stream) : FRAME_FINE;
    case KIND_RST_STREAM:
        return reset_stream(count, limits, stream);
    case KIND_SETTINGS:
        count->acknowledged |= (flags & FLAG_ACK) != 0;
        return FRAME_FINE;
    case KIND_PING:
        return (flags & FLAG_ACK) == 0 && ++count->n_pings > FRAME_PINGS_MAX ? FRAME_FAULT_PINGS : FRAME_FINE;
    default:
        return FRAME_FINE;
    }
}

enum frame_fault frame_count_add(struct frame_count *count, const struct frame_limits *limits,
                                 const uint8_t *bytes, size_t n_bytes, int64_t now_ns)
{
    tick(count, now_ns);
    count->n_pings = 0;
    uint32_t preface = smaller((uint32_t)FRAME_PREFACE_BYTES - count->n_preface, n_bytes);
    count->n_preface = (uint8_t)(count->n_preface + preface);
    size_t at = preface;
    while (at < n_bytes) {
        if (count->payload_left > 0) {
            uint32_t skipped = smaller(count->payload_left, n_bytes - at);
            count->payload_left -= skipped;
            at += skipped;
            continue;
        }
        ASSERT(count->n_head < FRAME_HEAD_BYTES);
        count->head[count->n_head++] = bytes[at++];
        if (count->n_head < FRAME_HEAD_BYTES)
            continue;
        count->n_head = 0;
        enum frame_fault fault = begin_frame(count, limits);
        if (fault != FRAME_FINE)
            return fault;
    }
    return FRAME_FINE;
}

const char *frame_fault_text(enum frame_fault fault)
{
    static const char *const texts[] = {
        [FRAME_FINE] = "nothing",
        [FRAME_FAULT_BLOCK] = "a request's headers are larger than 64 KiB",
        [FRAME_FAULT_UNACKNOWLEDGED] = ("more calls than a connection may have (--max-connection-calls), the "
                                        "settings that say so unacknowledged"),
        [FRAME_FAULT_RESETS] = "calls are begun and cancelled at once, again and again",
        [FRAME_FAULT_PINGS] = "a flood of PINGs",
    };
    ASSERT((size_t)fault < sizeof texts / sizeof texts[0]);
    return texts[fault];
}
