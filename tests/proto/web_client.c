#include "tests/proto/web_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ANSWER_BYTES_MAX = 256 << 20, READ_BYTES = 64 << 10, SLOW_BUFFER_BYTES = 4096 };

void web_open(struct web *web, const struct fake_options *fake, const struct http_door_options *door)
{
    struct fake_options fake_options = fake ? *fake : (struct fake_options){0};
    struct http_door_options options = door ? *door : http_door_options_default();
    options.port = 0;
    options.version = "1.2.3";
    (void)signal(SIGPIPE, SIG_IGN);
    assert_int_equal(fake_service_open(&fake_options, &web->fake).code, ERR_OK);
    err_t e = http_door_open(fake_service_of(web->fake), &options, &web->door);
    if (e.code != ERR_OK)
        print_error("%s\n", e.message);
    assert_int_equal(e.code, ERR_OK);
}

void web_close(struct web *web)
{
    http_door_close(web->door);
    assert_int_equal(fake_service_counts(web->fake).live, 0);
    fake_service_close(web->fake);
}

static struct web_connection connect_with(uint16_t port, int receive_bytes)
{
    struct web_connection connection = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
                                        .in.limit_bytes = ANSWER_BYTES_MAX};
    assert_true(connection.fd >= 0);
    if (receive_bytes > 0)
        (void)setsockopt(connection.fd, SOL_SOCKET, SO_RCVBUF, &receive_bytes, sizeof receive_bytes);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(connection.fd, (struct sockaddr *)&address, sizeof address), 0);
    int one = 1;
    (void)setsockopt(connection.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return connection;
}

struct web_connection web_connect(const struct web *web)
{
    return connect_with(http_door_port(web->door), 0);
}

struct web_connection web_connect_port(uint16_t port)
{
    return connect_with(port, 0);
}

struct web_connection web_connect_slow(const struct web *web)
{
    return connect_with(http_door_port(web->door), SLOW_BUFFER_BYTES);
}

void web_disconnect(struct web_connection *connection)
{
    (void)close(connection->fd);
    buffer_free(&connection->in);
}

void web_cut(struct web_connection *connection)
{
    struct linger at_once = {.l_onoff = 1};
    (void)setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    web_disconnect(connection);
}

bool web_try_send(struct web_connection *connection, const void *bytes, size_t size)
{
    for (size_t at = 0; at < size;) {
        ssize_t n = send(connection->fd, (const char *)bytes + at, size - at, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        at += (size_t)n;
    }
    return true;
}

void web_send(struct web_connection *connection, const void *bytes, size_t size)
{
    assert_true(web_try_send(connection, bytes, size));
}

void web_send_text(struct web_connection *connection, const char *text)
{
    web_send(connection, text, strlen(text));
}

void web_post(struct web_connection *connection, const char *path, const char *headers, const char *json)
{
    struct buffer request = {.limit_bytes = ANSWER_BYTES_MAX};
    assert_true(buffer_append_format(&request,
                                     "POST %s HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
                                     "Content-Length: %zu\r\n%s\r\n",
                                     path, strlen(json), headers));
    assert_true(buffer_append_text(&request, json));
    web_send(connection, request.data, request.size);
    buffer_free(&request);
}

void web_get(struct web_connection *connection, const char *path)
{
    char request[512];
    (void)snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: t\r\n\r\n", path);
    web_send_text(connection, request);
}

/* Reads until there are `wanted` bytes; false at the end of the connection. */
static bool read_more(struct web_connection *connection, size_t wanted)
{
    static char bytes[READ_BYTES];
    while (connection->in.size < wanted) {
        ssize_t n = recv(connection->fd, bytes, sizeof bytes, 0);
        if (n <= 0)
            return false;
        assert_true(buffer_append(&connection->in, bytes, (size_t)n));
    }
    return true;
}

static void consume(struct web_connection *connection, size_t n)
{
    struct buffer *in = &connection->in;
    memmove(in->data, in->data + n, in->size - n + 1);
    in->size -= n;
}

static void take(struct web_connection *connection, size_t n, struct buffer *out)
{
    assert_true(read_more(connection, n));
    assert_true(buffer_append(out, connection->in.data, n));
    consume(connection, n);
}

/* A line with its CRLF. */
static size_t line_size(struct web_connection *connection)
{
    for (;;) {
        const char *found =
            connection->in.size > 0 ? memchr(connection->in.data, '\n', connection->in.size) : NULL;
        if (found)
            return (size_t)(found - connection->in.data) + 1;
        assert_true(read_more(connection, connection->in.size + 1));
    }
}

const char *web_header(const struct web_answer *answer, const char *name)
{
    for (const char *line = strstr(answer->head.data, "\r\n"); line; line = strstr(line + 2, "\r\n"))
        if (strncasecmp(line + 2, name, strlen(name)) == 0 && line[2 + strlen(name)] == ':')
            return line + 2 + strlen(name) + 2;
    return NULL;
}

void web_read_head(struct web_connection *connection, struct web_answer *out)
{
    *out = (struct web_answer){.head.limit_bytes = READ_BYTES, .body.limit_bytes = ANSWER_BYTES_MAX};
    size_t size;
    do {
        size = line_size(connection);
        take(connection, size, &out->head);
    } while (size > 2);
    assert_int_equal(sscanf(out->head.data, "HTTP/1.1 %d ", &out->status), 1);
    const char *coding = web_header(out, "transfer-encoding"), *end = web_header(out, "connection");
    out->is_chunked = coding && strncmp(coding, "chunked", 7) == 0;
    out->closes = end && strncmp(end, "close", 5) == 0;
}

static void read_chunks(struct web_connection *connection, struct web_answer *out)
{
    for (;;) {
        struct buffer line = {.limit_bytes = 64}, end = {.limit_bytes = 64};
        take(connection, line_size(connection), &line);
        size_t size = strtoul(line.data, NULL, 16);
        take(connection, size, &out->body);
        take(connection, 2, &end);
        assert_string_equal(end.data, "\r\n");
        buffer_free(&line);
        buffer_free(&end);
        if (size == 0)
            return;
    }
}

void web_read(struct web_connection *connection, struct web_answer *out)
{
    web_read_head(connection, out);
    const char *length = web_header(out, "content-length");
    if (out->is_chunked) {
        read_chunks(connection, out);
    } else if (length) {
        take(connection, strtoul(length, NULL, 10), &out->body);
    } else {
        while (read_more(connection, connection->in.size + 1))
            continue;
        take(connection, connection->in.size, &out->body);
    }
}

void web_read_without_body(struct web_connection *connection, struct web_answer *out)
{
    web_read_head(connection, out);
}

void web_answer_free(struct web_answer *answer)
{
    buffer_free(&answer->head);
    buffer_free(&answer->body);
}

bool web_ended(struct web_connection *connection)
{
    return connection->in.size == 0 && !read_more(connection, 1);
}

int web_call(const struct web *web, const char *path, const char *json, json_t **body)
{
    struct web_connection connection = web_connect(web);
    struct web_answer answer;
    if (json)
        web_post(&connection, path, "", json);
    else
        web_get(&connection, path);
    web_read(&connection, &answer);
    int status = answer.status;
    if (body) {
        *body = json_loadb(answer.body.data, answer.body.size, JSON_ALLOW_NUL, NULL);
        assert_non_null(*body);
    }
    web_answer_free(&answer);
    web_disconnect(&connection);
    return status;
}

const char *web_error(const json_t *body, const char *name)
{
    return json_string_value(json_object_get(json_object_get(body, "error"), name));
}

json_t *web_events(const struct web_answer *answer, bool *done)
{
    json_t *events = json_array();
    *done = false;
    for (const char *at = answer->body.data; at && *at;) {
        const char *end = strstr(at, "\n\n");
        assert_non_null(end);
        assert_int_equal(strncmp(at, "data: ", 6), 0);
        assert_false(*done);
        *done = strncmp(at, "data: [DONE]\n\n", 14) == 0;
        if (!*done) {
            json_t *event = json_loadb(at + 6, (size_t)(end - at) - 6, JSON_ALLOW_NUL, NULL);
            assert_non_null(event);
            json_array_append_new(events, event);
        }
        at = end + 2;
    }
    return events;
}
