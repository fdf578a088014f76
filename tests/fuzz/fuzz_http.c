/* HTTP requests as bytes. The first byte says in which pieces they come: the result must not depend on it. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "base/alloc.h"
#include "base/assert.h"
#include "proto/http_parser.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What a body in chunks is, in any pieces. */
struct body {
    enum http_chunks_result result;
    size_t n_bytes, consumed;
    uint64_t sum;
};

static struct body read_chunks(const char *bytes, size_t size, size_t piece)
{
    struct http_chunks chunks = {0};
    struct body body = {.result = HTTP_CHUNKS_MORE};
    while (body.consumed < size && body.result != HTTP_CHUNKS_DONE && body.result != HTTP_CHUNKS_BAD) {
        size_t left = size - body.consumed, consumed = 0;
        struct http_text data = {NULL, 0};
        body.result =
            http_chunks_next(&chunks, bytes + body.consumed, left < piece ? left : piece, &consumed, &data);
        ASSERT(body.result == HTTP_CHUNKS_BAD || (consumed > 0 && consumed <= left));
        body.consumed += consumed;
        if (body.result != HTTP_CHUNKS_DATA)
            continue;
        for (size_t i = 0; i < data.size; i++)
            body.sum = body.sum * 31 + (unsigned char)data.data[i];
        body.n_bytes += data.size;
        body.result = HTTP_CHUNKS_MORE;
    }
    return body;
}

static void check_head(const char *bytes, size_t size)
{
    struct http_head head;
    struct http_fault fault = {0, NULL};
    if (!http_head_parse(bytes, size, &head, &fault)) {
        ASSERT(fault.status >= 400 && fault.status <= 505 && fault.why);
        return;
    }
    ASSERT(head.n_headers <= HTTP_HEADERS_MAX && head.path.size > 0 && head.method.size > 0);
    ASSERT(!(head.is_chunked && head.content_length > 0));
    for (size_t i = 0; i < head.n_headers; i++) {
        const struct http_header *header = &head.headers[i];
        ASSERT(header->name.data >= bytes && header->value.data + header->value.size <= bytes + size);
        ASSERT(memchr(header->value.data, '\n', header->value.size) == NULL);
    }
    (void)http_list_has(http_head_find(&head, "connection"), "close");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    size_t piece = data[0] % 17 + 1;
    /* Of the exact size, so that reading past the end is seen. */
    char *bytes = mem_alloc(size);
    ASSERT(bytes);
    memcpy(bytes, data + 1, size - 1);
    size_t n = size - 1, head = http_head_size(bytes, n, 0);
    for (size_t seen = 0, now = 0; now < n && head > 0; seen = now) {
        now = now + piece < n ? now + piece : n;
        size_t found = http_head_size(bytes, now, seen);
        ASSERT(found == 0 || found == head);
        if (found > 0)
            break;
        ASSERT(now < head);
    }
    if (head > 0)
        check_head(bytes, head);
    struct body whole = read_chunks(bytes + head, n - head, SIZE_MAX),
                cut = read_chunks(bytes + head, n - head, piece);
    ASSERT(whole.result == cut.result && whole.n_bytes == cut.n_bytes && whole.sum == cut.sum);
    mem_free(bytes);
    return 0;
}
