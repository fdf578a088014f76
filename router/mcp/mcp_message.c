#include "router/mcp/mcp_message.h"
#include <stdarg.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include "proto/openai_fields.h"
#include "router/providers/json_text.h"

#define META_VERSION      "io.modelcontextprotocol/protocolVersion"
#define META_CAPABILITIES "io.modelcontextprotocol/clientCapabilities"

/* 2025-11-25 is answered to whoever begins with an older one, as the protocol wants it. */
static const char *const handshake_versions[] = {MCP_VERSION_HANDSHAKE, "2025-06-18", "2025-03-26",
                                                 "2024-11-05"};

bool mcp_fault_set(struct mcp_fault *fault, int code, const char *format, ...)
{
    va_list arguments;
    fault->code = code;
    va_start(arguments, format);
    (void)vsnprintf(fault->message, sizeof fault->message, format, arguments);
    va_end(arguments);
    return false;
}

void mcp_fault_free(struct mcp_fault *fault)
{
    json_decref(fault->data);
    fault->data = NULL;
}

void mcp_message_free(struct mcp_message *message)
{
    openai_scratch_free(&message->scratch);
    *message = (struct mcp_message){0};
}

int mcp_status_of(int code)
{
    switch (code) {
    case MCP_METHOD_NOT_FOUND:
        return 404;
    case MCP_PARSE_ERROR:
    case MCP_INVALID_REQUEST:
    case MCP_INVALID_PARAMS:
    case MCP_HEADER_MISMATCH:
    case MCP_UNSUPPORTED_VERSION:
        return 400;
    case MCP_INTERNAL_ERROR:
        return 500;
    default:
        return 200;
    }
}

json_t *mcp_versions(void)
{
    return json_pack("[ss]", MCP_VERSION_STATELESS, MCP_VERSION_HANDSHAKE);
}

static bool text_equals(struct http_text text, const char *expected)
{
    return text.data && http_text_is(text, expected);
}

static bool is_handshake_version(struct http_text version)
{
    for (size_t i = 0; i < sizeof handshake_versions / sizeof *handshake_versions; i++)
        if (text_equals(version, handshake_versions[i]))
            return true;
    return false;
}

static bool refuse_version(struct mcp_fault *fault, const char *version, size_t bytes)
{
    char shown[65];
    (void)snprintf(shown, sizeof shown, "%.*s", bytes < 64 ? (int)bytes : 64, version);
    fault->data = json_pack("{s:o, s:s+}", "supported", mcp_versions(), "requested", shown, "");
    return mcp_fault_set(fault, MCP_UNSUPPORTED_VERSION,
                         "protocol version \"%s\" is not spoken here; " MCP_VERSION_STATELESS
                         " and " MCP_VERSION_HANDSHAKE " are",
                         shown);
}

const char *mcp_message_name(const struct mcp_message *message)
{
    const char *key =
        strcmp(message->method, "resources/read") == 0                                              ? "uri"
        : strcmp(message->method, "tools/call") == 0 || strcmp(message->method, "prompts/get") == 0 ? "name"
                                                                                                    : NULL;
    return key ? json_string_value(json_object_get(message->params, key)) : NULL;
}

#define NAME_STARTS "=?base64?"
#define NAME_ENDS   "?="

static bool is_plain_name(const char *name)
{
    size_t size = strlen(name), ends = strlen(NAME_ENDS);
    bool looks_encoded = strncmp(name, NAME_STARTS, strlen(NAME_STARTS)) == 0 && size >= ends &&
                         strcmp(name + size - ends, NAME_ENDS) == 0;
    if (looks_encoded || size == 0 || name[0] == ' ' || name[size - 1] == ' ')
        return false;
    for (const char *c = name; *c; c++)
        if (*c < ' ' || *c > '~')
            return false;
    return true;
}

bool mcp_write_name(const char *name, struct buffer *out)
{
    if (is_plain_name(name))
        return buffer_append_text(out, name);
    size_t size = strlen(name);
    if (size > MCP_NAME_BYTES_MAX)
        return false;
    unsigned char encoded[MCP_NAME_BYTES_MAX / 3 * 4 + 8];
    int length = EVP_EncodeBlock(encoded, (const unsigned char *)name, (int)size);
    return buffer_append_text(out, NAME_STARTS) && buffer_append(out, encoded, (size_t)length) &&
           buffer_append_text(out, NAME_ENDS);
}

/* There is one way to write a name, so that what was sent is compared with that. */
static bool is_name(struct http_text header, const char *name)
{
    struct buffer written = {.limit_bytes = 2 * MCP_NAME_BYTES_MAX};
    bool same = mcp_write_name(name, &written) && header.data && header.size == written.size &&
                memcmp(header.data, written.data ? written.data : "", written.size) == 0;
    buffer_free(&written);
    return same;
}

static bool check_headers(const struct mcp_message *message, const struct mcp_headers *headers,
                          const char *version, struct mcp_fault *fault)
{
    if (headers->is_repeated)
        return mcp_fault_set(fault, MCP_HEADER_MISMATCH,
                             "MCP-Protocol-Version, Mcp-Method or Mcp-Name came more than once");
    if (!text_equals(headers->version, version))
        return mcp_fault_set(fault, MCP_HEADER_MISMATCH,
                             "the header MCP-Protocol-Version must be the body's \"%.64s\"", version);
    if (!text_equals(headers->method, message->method))
        return mcp_fault_set(fault, MCP_HEADER_MISMATCH, "the header Mcp-Method must be the body's \"%.64s\"",
                             message->method);
    const char *name = mcp_message_name(message);
    if (name && !is_name(headers->name, name))
        return mcp_fault_set(fault, MCP_HEADER_MISMATCH, "the header Mcp-Name must be the body's \"%.64s\"",
                             name);
    return true;
}

/* The envelope of 2026-07-28. */
static bool check_envelope(const struct mcp_message *message, const struct mcp_headers *headers,
                           struct mcp_fault *fault)
{
    const json_t *meta = json_object_get(message->params, "_meta");
    const json_t *version = json_object_get(meta, META_VERSION);
    if (!json_is_string(version))
        return mcp_fault_set(fault, MCP_INVALID_PARAMS, "params._meta needs the text \"" META_VERSION "\"");
    if (!json_is_object(json_object_get(meta, META_CAPABILITIES)))
        return mcp_fault_set(fault, MCP_INVALID_PARAMS,
                             "params._meta needs the object \"" META_CAPABILITIES "\"");
    if (headers && !check_headers(message, headers, json_string_value(version), fault))
        return false;
    if (!openai_text_is(version, MCP_VERSION_STATELESS))
        return refuse_version(fault, json_string_value(version), json_string_length(version));
    return true;
}

static bool check_shape(struct mcp_message *message, struct mcp_fault *fault)
{
    const json_t *id = json_object_get(message->root, "id");
    const json_t *method = json_object_get(message->root, "method");
    const json_t *params = json_object_get(message->root, "params");
    if (id && !json_is_string(id) && !json_is_integer(id))
        return mcp_fault_set(fault, MCP_INVALID_REQUEST, "id must be a string or an integer");
    message->id = id;
    if (!openai_text_is(json_object_get(message->root, "jsonrpc"), "2.0"))
        return mcp_fault_set(fault, MCP_INVALID_REQUEST, "jsonrpc must be \"2.0\"");
    if (!json_is_string(method) || json_string_length(method) > MCP_METHOD_BYTES_MAX)
        return mcp_fault_set(
            fault, MCP_INVALID_REQUEST,
            "a message needs a method, a text of at most %d bytes; answers are not taken here",
            MCP_METHOD_BYTES_MAX);
    message->method = json_string_value(method);
    if (params && !json_is_object(params))
        return mcp_fault_set(fault, MCP_INVALID_PARAMS, "params must be an object");
    message->params = params;
    return true;
}

bool mcp_message_read(const char *bytes, size_t size, const struct mcp_headers *headers,
                      struct mcp_message *out, struct mcp_fault *fault)
{
    size_t first = 0;
    while (first < size && (bytes[first] == ' ' || (bytes[first] >= '\t' && bytes[first] <= '\r')))
        first++;
    if (first < size && bytes[first] == '[')
        return mcp_fault_set(fault, MCP_INVALID_REQUEST,
                             "one message at a time: lists of them are not taken");
    err_t e = openai_parse(bytes, size, &out->scratch, &out->root);
    if (e.code != ERR_OK) {
        out->root = NULL;
        return mcp_fault_set(fault, MCP_PARSE_ERROR, "%s", e.message);
    }
    if (!check_shape(out, fault))
        return false;
    bool is_named = headers && headers->version.data;
    out->is_stateless = json_object_get(json_object_get(out->params, "_meta"), META_VERSION) ||
                        strcmp(out->method, "server/discover") == 0 ||
                        (is_named && text_equals(headers->version, MCP_VERSION_STATELESS));
    if (out->is_stateless)
        return !out->id || check_envelope(out, headers, fault);
    if (is_named && !is_handshake_version(headers->version))
        return refuse_version(fault, headers->version.data, headers->version.size);
    return true;
}

static bool write_answer(const struct mcp_message *message, const char *key, json_t *value,
                         struct buffer *out)
{
    json_t *id = message->id ? json_incref((json_t *)message->id) : json_null();
    json_t *answer = value ? json_pack("{s:s, s:o, s:o}", "jsonrpc", "2.0", "id", id, key, value) : NULL;
    bool good = answer && json_text_append_decimal(out, answer).code == ERR_OK;
    json_decref(answer);
    return good;
}

bool mcp_write_result(const struct mcp_message *message, json_t *result, struct buffer *out)
{
    return write_answer(message, "result", result, out);
}

bool mcp_write_fault(const struct mcp_message *message, const struct mcp_fault *fault, struct buffer *out)
{
    /* What a client sent may have been cut inside a character. */
    json_t *words = json_string(fault->message);
    json_t *error = json_pack("{s:i, s:o}", "code", fault->code, "message",
                              words ? words : json_string("the message cannot be shown"));
    if (error && fault->data && json_object_set(error, "data", fault->data) != 0) {
        json_decref(error);
        error = NULL;
    }
    return write_answer(message, "error", error, out);
}
