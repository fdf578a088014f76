/* What the HTTP door's tests share: a door in front of the fake service, and a client that speaks HTTP by
 * hand over a blocking socket, so that it can also speak it badly. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>
#include <jansson.h>
#include "base/buffer.h"
#include "proto/http_door.h"
#include "tests/proto/fake_service.h"

struct web {
    struct fake_service *fake;
    struct http_door *door;
};

void web_open(struct web *web, const struct fake_options *fake, const struct http_door_options *door);
void web_close(struct web *web);

/* A connection, and what was read from it and not yet looked at. */
struct web_connection {
    int fd;
    struct buffer in;
};

struct web_answer {
    int status;
    struct buffer head, body; /* body: chunks put together */
    bool is_chunked, closes;  /* closes: "connection: close" was said */
};

struct web_connection web_connect(const struct web *web);
/* To another listener of this machine. */
struct web_connection web_connect_port(uint16_t port);
/* With a receive buffer so small that a server soon notices when nobody reads. */
struct web_connection web_connect_slow(const struct web *web);
void web_disconnect(struct web_connection *connection);
/* Abruptly (RST). */
void web_cut(struct web_connection *connection);
void web_send(struct web_connection *connection, const void *bytes, size_t size);
void web_send_text(struct web_connection *connection, const char *text);
/* False when the other side takes no more. */
bool web_try_send(struct web_connection *connection, const void *bytes, size_t size);
/* POST with a JSON body; headers: further lines, each with its CRLF. */
void web_post(struct web_connection *connection, const char *path, const char *headers, const char *json);
void web_get(struct web_connection *connection, const char *path);

/* Reads one answer to its end. web_answer_free before the next. */
void web_read(struct web_connection *connection, struct web_answer *out);
/* Its head alone. */
void web_read_head(struct web_connection *connection, struct web_answer *out);
/* The next answer is that of a HEAD request. */
void web_read_without_body(struct web_connection *connection, struct web_answer *out);
void web_answer_free(struct web_answer *answer);
/* A header's value as part of a line; NULL when there is none. */
const char *web_header(const struct web_answer *answer, const char *name);
/* Waits for the end of the connection; false when something else came. */
bool web_ended(struct web_connection *connection);

/* One request on a connection of its own; returns the status and, when body is not NULL, the parsed body. */
int web_call(const struct web *web, const char *path, const char *json, json_t **body);
/* The field `name` of {"error": {...}}; NULL when it is null. Borrowed. */
const char *web_error(const json_t *body, const char *name);

/* The data of an event stream: each "data: ..." that is JSON, and whether [DONE] was the last. */
json_t *web_events(const struct web_answer *answer, bool *done);
