/* Messages of the Model Context Protocol: JSON-RPC 2.0, one message a body or a line. Two ways of speaking
 * are understood: that of 2026-07-28, where every request says its version and what its client can do in
 * params._meta (and over HTTP its version, method and name in headers too, which must agree), and that of
 * 2025-11-25, which begins with `initialize`. Neither needs anything to be remembered between two messages.
 * Source: modelcontextprotocol.io, specification, both versions. Pure but for memory; any thread. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include "base/buffer.h"
#include "proto/codec_openai.h"
#include "proto/http_parser.h"

#define MCP_VERSION_STATELESS "2026-07-28"
#define MCP_VERSION_HANDSHAKE "2025-11-25"

enum {
    MCP_PARSE_ERROR = -32700,
    MCP_INVALID_REQUEST = -32600,
    MCP_METHOD_NOT_FOUND = -32601,
    MCP_INVALID_PARAMS = -32602,
    MCP_INTERNAL_ERROR = -32603,
    MCP_RESOURCE_NOT_FOUND = -32002, /* of 2025-11-25; 2026-07-28 says INVALID_PARAMS */
    MCP_HEADER_MISMATCH = -32020,
    MCP_UNSUPPORTED_VERSION = -32022,
};

enum {
    MCP_FAULT_BYTES_MAX = 512,  /* of an error's words */
    MCP_METHOD_BYTES_MAX = 128, /* of a method's name */
    MCP_NAME_BYTES_MAX = 2048,  /* of a name that a header repeats */
};

/* What an HTTP request says beside its body. */
struct mcp_headers {
    struct http_text version, method, name; /* .data NULL = not there */
    bool is_repeated;                       /* one of them came more than once */
};

struct mcp_fault {
    int code;
    char message[MCP_FAULT_BYTES_MAX];
    json_t *data; /* owned; NULL = none */
};

/* Zero-initialise; mcp_message_free whatever comes of it. */
struct mcp_message {
    struct openai_scratch scratch; /* holds the document */
    const json_t *root;            /* NULL = it could not be read */
    const json_t *id;              /* a string or an integer; NULL = a notification, or not read */
    const char *method;
    const json_t *params; /* an object; NULL = none */
    bool is_stateless;    /* of 2026-07-28 */
};
void mcp_message_free(struct mcp_message *message);

/* headers: NULL = they came over stdio. False: *fault says why, and id stands where it could be read. */
bool mcp_message_read(const char *bytes, size_t size, const struct mcp_headers *headers,
                      struct mcp_message *out, struct mcp_fault *fault);

/* Sets *fault; false, so that a check can end with it. */
bool mcp_fault_set(struct mcp_fault *fault, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void mcp_fault_free(struct mcp_fault *fault);
/* The HTTP status that goes with an error of this code. */
int mcp_status_of(int code);
/* The name that the header Mcp-Name repeats: of a tool, a resource. NULL = this method has none. */
const char *mcp_message_name(const struct mcp_message *message);
/* The name as the header has it, appended: as it is where it is printable ASCII without blanks at its ends,
 * else
 * "=?base64?...?=", as is what looks like that. False at the buffer's limit. */
bool mcp_write_name(const char *name, struct buffer *out);

/* Answers, appended. False at the buffer's limit or without memory. result is given away. */
bool mcp_write_result(const struct mcp_message *message, json_t *result, struct buffer *out);
bool mcp_write_fault(const struct mcp_message *message, const struct mcp_fault *fault, struct buffer *out);

/* The versions that are spoken, newest first. Owned by the caller. */
json_t *mcp_versions(void);
