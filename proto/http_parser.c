#include "proto/http_parser.h"

#include <string.h>
#include <strings.h>

/* --- characters */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* RFC 9110, 5.6.2 */
static bool is_token_char(char c)
{
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    return letter || is_digit(c) || (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool is_token(struct http_text text)
{
    for (size_t i = 0; i < text.size; i++)
        if (!is_token_char(text.data[i]))
            return false;
    return text.size > 0;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

static struct http_text trimmed(const char *begin, const char *end)
{
    while (begin < end && is_blank(*begin))
        begin++;
    while (begin < end && is_blank(end[-1]))
        end--;
    return (struct http_text){begin, (size_t)(end - begin)};
}

bool http_text_is(struct http_text text, const char *expected)
{
    return strlen(expected) == text.size && memcmp(text.data, expected, text.size) == 0;
}

bool http_text_is_ignoring_case(struct http_text text, const char *expected)
{
    return strlen(expected) == text.size && strncasecmp(text.data, expected, text.size) == 0;
}

/* --- the head */

size_t http_head_size(const char *bytes, size_t size, size_t seen)
{
    /* A line feed alone does not end a line, but it must not hide the end of the head either. */
    size_t from = seen < 3 ? 0 : seen - 3;
    while (from < size) {
        const char *found = memchr(bytes + from, '\n', size - from);
        if (!found)
            return 0;
        size_t next = (size_t)(found - bytes) + 1;
        if (next < size && bytes[next] == '\n')
            return next + 1;
        if (next + 1 < size && bytes[next] == '\r' && bytes[next + 1] == '\n')
            return next + 2;
        from = next;
    }
    return 0;
}

static bool refuse(struct http_fault *fault, int status, const char *why)
{
    *fault = (struct http_fault){status, why};
    return false;
}

/* The line at *at without its CRLF; *at moves past it. */
static bool next_line(const char **at, const char *end, struct http_text *line)
{
    const char *feed = memchr(*at, '\n', (size_t)(end - *at));
    if (!feed || feed == *at || feed[-1] != '\r')
        return false;
    *line = (struct http_text){*at, (size_t)(feed - 1 - *at)};
    *at = feed + 1;
    return true;
}

/* "http://host/path" is as good as "/path". */
static bool split_target(struct http_text target, struct http_head *out)
{
    static const char scheme[] = "http://";
    size_t scheme_bytes = sizeof scheme - 1;
    if (target.size > scheme_bytes && strncasecmp(target.data, scheme, scheme_bytes) == 0) {
        const char *slash = memchr(target.data + scheme_bytes, '/', target.size - scheme_bytes);
        if (!slash)
            return false;
        target = (struct http_text){slash, target.size - (size_t)(slash - target.data)};
    }
    if (target.size == 0 || (target.data[0] != '/' && !http_text_is(target, "*")))
        return false;
    for (size_t i = 0; i < target.size; i++)
        if (target.data[i] <= ' ' || target.data[i] == 0x7f || target.data[i] == '#')
            return false;
    const char *mark = memchr(target.data, '?', target.size);
    out->path = (struct http_text){target.data, mark ? (size_t)(mark - target.data) : target.size};
    if (mark)
        out->query = (struct http_text){mark + 1, target.size - out->path.size - 1};
    return true;
}

static bool parse_request_line(struct http_text line, struct http_head *out, struct http_fault *fault)
{
    static const char version[] = "HTTP/1.";
    size_t version_bytes = sizeof version; /* and one digit */
    const char *first = memchr(line.data, ' ', line.size);
    if (!first || line.size < version_bytes + 1 || line.data[line.size - version_bytes - 1] != ' ')
        return refuse(fault, 400, "the request line is not \"METHOD PATH HTTP/1.1\"");
    const char *last = line.data + line.size - version_bytes - 1;
    if (last <= first)
        return refuse(fault, 400, "the request line is not \"METHOD PATH HTTP/1.1\"");
    out->method = (struct http_text){line.data, (size_t)(first - line.data)};
    if (!is_token(out->method))
        return refuse(fault, 400, "the method is not a name");
    char digit = line.data[line.size - 1];
    if (memcmp(last + 1, version, version_bytes - 1) != 0 || !is_digit(digit))
        return refuse(fault, 505, "only HTTP/1.0 and HTTP/1.1 are spoken here");
    out->minor_version = digit == '0' ? 0 : 1;
    struct http_text target = {first + 1, (size_t)(last - first) - 1};
    if (target.size > HTTP_TARGET_BYTES_MAX)
        return refuse(fault, 414, "the path is longer than 2048 bytes");
    if (!split_target(target, out))
        return refuse(fault, 400, "the path is not one");
    return true;
}

static bool parse_header(struct http_text line, struct http_head *out, struct http_fault *fault)
{
    if (out->n_headers == HTTP_HEADERS_MAX)
        return refuse(fault, 431, "the request has more than 64 headers");
    const char *colon = memchr(line.data, ':', line.size);
    if (!colon)
        return refuse(fault, 400, "a header has no colon");
    struct http_header *header = &out->headers[out->n_headers++];
    header->name = (struct http_text){line.data, (size_t)(colon - line.data)};
    if (!is_token(header->name))
        return refuse(fault, 400, "a header's name is not one");
    header->value = trimmed(colon + 1, line.data + line.size);
    for (size_t i = 0; i < header->value.size; i++) {
        char c = header->value.data[i];
        if (((unsigned char)c < 0x20 && c != '\t') || c == 0x7f)
            return refuse(fault, 400, "a header's value has a control character");
    }
    return true;
}

struct http_text http_head_find(const struct http_head *head, const char *name)
{
    for (size_t i = 0; i < head->n_headers; i++)
        if (http_text_is_ignoring_case(head->headers[i].name, name))
            return head->headers[i].value;
    return (struct http_text){NULL, 0};
}

static size_t count_headers(const struct http_head *head, const char *name)
{
    size_t n = 0;
    for (size_t i = 0; i < head->n_headers; i++)
        n += http_text_is_ignoring_case(head->headers[i].name, name);
    return n;
}

bool http_list_has(struct http_text list, const char *item)
{
    if (!list.data) /* there was no such header */
        return false;
    const char *at = list.data, *end = list.data + list.size;
    while (at < end) {
        const char *comma = memchr(at, ',', (size_t)(end - at));
        const char *stop = comma ? comma : end;
        if (http_text_is_ignoring_case(trimmed(at, stop), item))
            return true;
        at = comma ? comma + 1 : end;
    }
    return false;
}

static bool any_connection_header(const struct http_head *head, const char *item)
{
    for (size_t i = 0; i < head->n_headers; i++)
        if (http_text_is_ignoring_case(head->headers[i].name, "connection") &&
            http_list_has(head->headers[i].value, item))
            return true;
    return false;
}

static bool parse_length(struct http_text text, uint64_t *out)
{
    *out = 0;
    if (text.size == 0 || text.size > 18) /* no overflow */
        return false;
    for (size_t i = 0; i < text.size; i++) {
        if (!is_digit(text.data[i]))
            return false;
        *out = *out * 10 + (uint64_t)(text.data[i] - '0');
    }
    return true;
}

/* Where the body ends. */
static bool find_framing(struct http_head *out, struct http_fault *fault)
{
    size_t n_lengths = count_headers(out, "content-length"),
           n_codings = count_headers(out, "transfer-encoding");
    if (n_lengths > 1 || (n_lengths > 0 && n_codings > 0))
        return refuse(fault, 400, "the body's length is given twice");
    if (n_lengths > 0 && !parse_length(http_head_find(out, "content-length"), &out->content_length))
        return refuse(fault, 400, "Content-Length is not a number of bytes");
    if (n_codings == 0)
        return true;
    if (out->minor_version == 0)
        return refuse(fault, 400, "HTTP/1.0 has no Transfer-Encoding");
    if (n_codings > 1 || !http_text_is_ignoring_case(http_head_find(out, "transfer-encoding"), "chunked"))
        return refuse(fault, 501, "the only Transfer-Encoding here is \"chunked\"");
    out->is_chunked = true;
    return true;
}

bool http_head_parse(const char *bytes, size_t size, struct http_head *out, struct http_fault *fault)
{
    memset(out, 0, sizeof *out);
    const char *at = bytes, *end = bytes + size;
    struct http_text line;
    if (!next_line(&at, end, &line) || memchr(line.data, '\r', line.size) != NULL)
        return refuse(fault, 400, "a line does not end with CRLF");
    if (!parse_request_line(line, out, fault))
        return false;
    for (;;) {
        if (!next_line(&at, end, &line))
            return refuse(fault, 400, "a line does not end with CRLF");
        if (line.size == 0)
            break;
        if (!parse_header(line, out, fault))
            return false;
    }
    size_t n_hosts = count_headers(out, "host");
    if (n_hosts > 1 || (n_hosts == 0 && out->minor_version == 1))
        return refuse(fault, 400, "a request has one Host header");
    out->keep_alive = !any_connection_header(out, "close") &&
                      (out->minor_version == 1 || any_connection_header(out, "keep-alive"));
    struct http_text expect = http_head_find(out, "expect");
    if (expect.data && !http_text_is_ignoring_case(expect, "100-continue"))
        return refuse(fault, 417, "the only Expect here is \"100-continue\"");
    out->expects_continue = expect.data != NULL && out->minor_version == 1;
    return find_framing(out, fault);
}

/* --- chunks */

enum {
    CHUNK_SIZE,       /* hexadecimal digits */
    CHUNK_EXTENSION,  /* up to CR */
    CHUNK_LINE_FEED,  /* after the size */
    CHUNK_DATA,       /* `left` bytes */
    CHUNK_END_RETURN, /* CR after the data */
    CHUNK_END_FEED,   /* LF after the data */
    TRAILER_START,    /* of a line */
    TRAILER_LINE,     /* within one */
    TRAILER_FEED,     /* after its CR */
    LAST_FEED,        /* of the blank line */
};

enum { CHUNK_DIGITS_MAX = 8 };

static int hex_value(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

/* The line with a chunk's size; the state after c, -1 = wrong. */
static int step_size_line(struct http_chunks *chunks, char c)
{
    if (++chunks->line_bytes > HTTP_CHUNK_LINE_BYTES_MAX)
        return -1;
    if (chunks->state == CHUNK_LINE_FEED)
        return c != '\n' ? -1 : chunks->left > 0 ? CHUNK_DATA : TRAILER_START;
    if (chunks->state == CHUNK_SIZE) {
        int value = hex_value(c);
        if (value >= 0) {
            chunks->left = chunks->left * 16 + (uint64_t)value;
            return ++chunks->n_digits > CHUNK_DIGITS_MAX ? -1 : CHUNK_SIZE;
        }
        if (chunks->n_digits == 0 || (c != '\r' && c != ';' && !is_blank(c)))
            return -1;
    }
    if (c == '\r')
        return CHUNK_LINE_FEED;
    return ((unsigned char)c < 0x20 && c != '\t') || c == 0x7f ? -1 : CHUNK_EXTENSION;
}

static int step_trailer(struct http_chunks *chunks, char c)
{
    if (++chunks->line_bytes > HTTP_TRAILER_BYTES_MAX)
        return -1;
    if (chunks->state == TRAILER_START && c == '\r')
        return LAST_FEED;
    if (chunks->state == TRAILER_FEED)
        return c == '\n' ? TRAILER_START : -1;
    if (c == '\r')
        return TRAILER_FEED;
    return c == '\n' || c == '\0' ? -1 : TRAILER_LINE;
}

static int step_chunk(struct http_chunks *chunks, char c)
{
    switch (chunks->state) {
    case CHUNK_END_RETURN:
        return c == '\r' ? CHUNK_END_FEED : -1;
    case CHUNK_END_FEED:
        chunks->left = 0;
        chunks->line_bytes = 0;
        chunks->n_digits = 0;
        return c == '\n' ? CHUNK_SIZE : -1;
    case TRAILER_START:
    case TRAILER_LINE:
    case TRAILER_FEED:
        return step_trailer(chunks, c);
    default:
        return step_size_line(chunks, c);
    }
}

enum http_chunks_result http_chunks_next(struct http_chunks *chunks, const char *bytes, size_t size,
                                         size_t *consumed, struct http_text *data)
{
    size_t at = 0;
    while (at < size) {
        if (chunks->state == CHUNK_DATA) {
            size_t n = size - at < chunks->left ? size - at : (size_t)chunks->left;
            *data = (struct http_text){bytes + at, n};
            chunks->left -= n;
            if (chunks->left == 0)
                chunks->state = CHUNK_END_RETURN;
            *consumed = at + n;
            return HTTP_CHUNKS_DATA;
        }
        char c = bytes[at++];
        if (chunks->state == LAST_FEED) {
            *consumed = at;
            return c == '\n' ? HTTP_CHUNKS_DONE : HTTP_CHUNKS_BAD;
        }
        int next = step_chunk(chunks, c);
        if (next < 0)
            return HTTP_CHUNKS_BAD;
        if (next == TRAILER_START && chunks->state == CHUNK_LINE_FEED)
            chunks->line_bytes = 0;
        chunks->state = next;
    }
    *consumed = size;
    return HTTP_CHUNKS_MORE;
}
