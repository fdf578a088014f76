/* HTTP/1.1 (and 1.0) as bytes: the head of a request, and bodies in chunks. Strict where two readers could
 * disagree about where a message ends: CRLF alone ends a line, no folded lines, one Content-Length, not both
 * it and Transfer-Encoding. Source: RFC 9110, RFC 9112. Pure functions. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HTTP_HEADERS_MAX = 64,            /* of one request */
    HTTP_TARGET_BYTES_MAX = 2048,     /* of the request's path and query */
    HTTP_CHUNK_LINE_BYTES_MAX = 256,  /* size and extensions of one chunk */
    HTTP_TRAILER_BYTES_MAX = 4 << 10, /* after the last chunk; ignored */
};

struct http_text {
    const char *data; /* not NUL-terminated */
    size_t size;
};
bool http_text_is(struct http_text text, const char *expected);               /* exactly */
bool http_text_is_ignoring_case(struct http_text text, const char *expected); /* of ASCII letters */

struct http_header {
    struct http_text name, value; /* the value without blanks around it */
};

/* Points into the bytes that it was parsed from. */
struct http_head {
    struct http_text method, path, query; /* path as sent, percent-encoded; query without '?' */
    int minor_version;                    /* 0 or 1 */
    struct http_header headers[HTTP_HEADERS_MAX];
    size_t n_headers;
    bool keep_alive;       /* the client's wish and version */
    bool expects_continue; /* it waits for 100 Continue before it sends the body */
    bool is_chunked;
    uint64_t content_length; /* bytes; 0 when there is none */
};

/* Bytes of a request's head in bytes[0..size), its blank line included; 0 when it is not complete yet. The
 * first `seen` bytes were looked at by an earlier call. */
size_t http_head_size(const char *bytes, size_t size, size_t seen);

/* Why a request is refused: a status of 400 to 505 and a static sentence. */
struct http_fault {
    int status;
    const char *why;
};

/* bytes[0..size): what http_head_size measured. False: *fault says why. */
bool http_head_parse(const char *bytes, size_t size, struct http_head *out, struct http_fault *fault);
/* The value of the first header of that name (any case); .data NULL when there is none. */
struct http_text http_head_find(const struct http_head *head, const char *name);
/* Is `item` (lower case) in a comma-separated list of tokens? .data may be NULL. */
bool http_list_has(struct http_text list, const char *item);

/* A chunked body on its way; zero-initialise. */
struct http_chunks {
    uint64_t left;     /* of the chunk's data */
    size_t line_bytes; /* of the line so far; trailers: of all of them */
    int state;
    int n_digits;
};

enum http_chunks_result {
    HTTP_CHUNKS_MORE, /* everything was consumed, and there is more to come */
    HTTP_CHUNKS_DATA, /* *data is body; go on with the rest */
    HTTP_CHUNKS_DONE, /* the body and its trailers are over */
    HTTP_CHUNKS_BAD,  /* not chunked coding, or past a limit */
};

/* Consumes at most bytes[0..size): up to and with the next run of data. */
enum http_chunks_result http_chunks_next(struct http_chunks *chunks, const char *bytes, size_t size,
                                         size_t *consumed, struct http_text *data);
