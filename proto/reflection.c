#include "proto/reflection.h"

#include <stdbool.h>
#include <string.h>
#include <grpc/status.h>
#include <pb_decode.h>
#include "base/assert.h"
#include "proto/wire_schemas.h"

struct span {
    const uint8_t *data;
    size_t size;
};

/* Field numbers of reflection_v1.proto. */
enum {
    REQUEST_HOST = 1,
    REQUEST_FILE_BY_FILENAME = 3,
    REQUEST_FILE_CONTAINING_SYMBOL = 4,
    REQUEST_FILE_CONTAINING_EXTENSION = 5,
    REQUEST_EXTENSION_NUMBERS = 6,
    REQUEST_LIST_SERVICES = 7,
    EXTENSION_CONTAINING_TYPE = 1,
    RESPONSE_VALID_HOST = 1,
    RESPONSE_ORIGINAL_REQUEST = 2,
    RESPONSE_FILES = 4,
    RESPONSE_EXTENSION_NUMBERS = 5,
    RESPONSE_SERVICES = 6,
    RESPONSE_ERROR = 7,
    ERROR_CODE = 1,
    ERROR_MESSAGE = 2,
};

/* Of google/protobuf/descriptor.proto. NAME is the name of every kind of descriptor. */
enum {
    SET_FILE = 1,
    NAME = 1,
    FILE_PACKAGE = 2,
    FILE_DEPENDENCY = 3,
    FILE_MESSAGE = 4,
    FILE_ENUM = 5,
    FILE_SERVICE = 6,
    MESSAGE_FIELD = 2,
    MESSAGE_NESTED = 3,
    MESSAGE_ENUM = 4,
    MESSAGE_ONEOF = 8,
    SERVICE_METHOD = 2,
};

/* --- reading */

/* The next field of a message: its number, and its bytes when it is length-delimited (else data is NULL).
 * False at the end and for malformed bytes, which leave *rest not empty. */
static bool next_field(struct span *rest, uint32_t *number, struct span *body)
{
    *body = (struct span){0};
    if (rest->size == 0)
        return false;
    pb_istream_t stream = pb_istream_from_buffer(rest->data, rest->size), inner;
    pb_wire_type_t type;
    bool at_end;
    if (!pb_decode_tag(&stream, &type, number, &at_end) || *number == 0)
        return false;
    if (type != PB_WT_STRING) {
        if (!pb_skip_field(&stream, type))
            return false;
    } else {
        if (!pb_make_string_substream(&stream, &inner))
            return false;
        size_t after = stream.bytes_left + inner.bytes_left;
        *body = (struct span){rest->data + (rest->size - after), inner.bytes_left};
    }
    rest->data += rest->size - stream.bytes_left;
    rest->size = stream.bytes_left;
    return true;
}

static struct span field_of(struct span message, uint32_t wanted)
{
    uint32_t number;
    struct span body;
    while (next_field(&message, &number, &body))
        if (number == wanted)
            return body;
    return (struct span){0};
}

static bool spans_equal(struct span a, struct span b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/* *rest begins with name: takes it off, with the dot after it. *whole: nothing is left. */
static bool take_component(struct span *rest, struct span name, bool *whole)
{
    if (name.size == 0 || rest->size < name.size || memcmp(rest->data, name.data, name.size) != 0)
        return false;
    *whole = rest->size == name.size;
    if (!*whole && rest->data[name.size] != '.')
        return false;
    size_t taken = name.size + (*whole ? 0 : 1);
    *rest = (struct span){rest->data + taken, rest->size - taken};
    return true;
}

/* --- the files */

static struct span all_files(void)
{
    return (struct span){wire_protobuf_files, wire_protobuf_files_bytes};
}

/* The index of the first file that `is_it` accepts, -1 = none. */
static int find_file(bool (*is_it)(struct span file, struct span wanted), struct span wanted,
                     struct span *out)
{
    struct span rest = all_files();
    uint32_t number;
    for (int i = 0; next_field(&rest, &number, out); i++) {
        ASSERT(number == SET_FILE && i < REFLECTION_FILES_MAX);
        if (is_it(*out, wanted))
            return i;
    }
    ASSERT(rest.size == 0);
    return -1;
}

static bool has_name(struct span file, struct span wanted)
{
    return spans_equal(field_of(file, NAME), wanted);
}

enum scope { SCOPE_FILE, SCOPE_MESSAGE, SCOPE_SERVICE, SCOPE_NOTHING };

/* What a descriptor's field with this number declares within it. */
static bool is_declaration(enum scope scope, uint32_t number, enum scope *inner)
{
    static const struct {
        enum scope scope;
        uint32_t number;
        enum scope inner;
    } rows[] = {
        {SCOPE_FILE, FILE_MESSAGE, SCOPE_MESSAGE},      {SCOPE_FILE, FILE_ENUM, SCOPE_NOTHING},
        {SCOPE_FILE, FILE_SERVICE, SCOPE_SERVICE},      {SCOPE_MESSAGE, MESSAGE_FIELD, SCOPE_NOTHING},
        {SCOPE_MESSAGE, MESSAGE_NESTED, SCOPE_MESSAGE}, {SCOPE_MESSAGE, MESSAGE_ENUM, SCOPE_NOTHING},
        {SCOPE_MESSAGE, MESSAGE_ONEOF, SCOPE_NOTHING},  {SCOPE_SERVICE, SERVICE_METHOD, SCOPE_NOTHING},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        if (rows[i].scope == scope && rows[i].number == number) {
            *inner = rows[i].inner;
            return true;
        }
    return false;
}

static bool declares(enum scope scope, struct span descriptor, struct span symbol)
{
    uint32_t number;
    struct span body;
    while (next_field(&descriptor, &number, &body)) {
        enum scope inner;
        struct span rest = symbol;
        bool whole;
        if (!is_declaration(scope, number, &inner) || !take_component(&rest, field_of(body, NAME), &whole))
            continue;
        if (whole || declares(inner, body, rest))
            return true;
    }
    return false;
}

static bool has_symbol(struct span file, struct span symbol)
{
    bool whole;
    return take_component(&symbol, field_of(file, FILE_PACKAGE), &whole) && !whole &&
           declares(SCOPE_FILE, file, symbol);
}

/* --- writing */

static bool put_varint(struct buffer *out, uint64_t value)
{
    uint8_t bytes[10];
    size_t n = 0;
    for (; value >= 0x80; value >>= 7)
        bytes[n++] = (uint8_t)(value | 0x80);
    bytes[n++] = (uint8_t)value;
    return buffer_append(out, bytes, n);
}

static bool put_bytes(struct buffer *out, uint32_t number, struct span bytes)
{
    return put_varint(out, number << 3 | PB_WT_STRING) && put_varint(out, bytes.size) &&
           buffer_append(out, bytes.size > 0 ? (const void *)bytes.data : "", bytes.size);
}

static struct span written(const struct buffer *buffer)
{
    return (struct span){(const uint8_t *)buffer->data, buffer->size};
}

/* A file and what it imports, each once. */
static bool put_file(struct buffer *out, int index, struct span file, uint32_t *seen)
{
    if (*seen & 1u << index)
        return true;
    *seen |= 1u << index;
    if (!put_bytes(out, 1, file))
        return false;
    uint32_t number;
    struct span body, rest = file;
    while (next_field(&rest, &number, &body)) {
        if (number != FILE_DEPENDENCY)
            continue;
        struct span import;
        int import_index = find_file(has_name, body, &import);
        ASSERT(import_index >= 0);
        if (!put_file(out, import_index, import, seen))
            return false;
    }
    return true;
}

static bool put_services(struct buffer *out)
{
    struct buffer name = {.limit_bytes = REFLECTION_REQUEST_BYTES_MAX}, entry = name;
    struct span files = all_files(), file, body;
    uint32_t number;
    bool put = true;
    while (put && next_field(&files, &number, &file)) {
        struct span package = field_of(file, FILE_PACKAGE), rest = file;
        while (put && next_field(&rest, &number, &body)) {
            if (number != FILE_SERVICE)
                continue;
            struct span own = field_of(body, NAME);
            buffer_clear(&name);
            buffer_clear(&entry);
            put = buffer_append(&name, package.data, package.size) && buffer_append_text(&name, ".") &&
                  buffer_append(&name, own.data, own.size) && put_bytes(&entry, NAME, written(&name)) &&
                  put_bytes(out, 1, written(&entry));
        }
    }
    buffer_free(&name);
    buffer_free(&entry);
    return put;
}

/* --- requests */

struct reflection_request {
    struct span host;
    uint32_t kind; /* REQUEST_*; 0 = none */
    struct span value;
};

static err_t decode_request(struct span bytes, struct reflection_request *out)
{
    *out = (struct reflection_request){0};
    if (bytes.size > REFLECTION_REQUEST_BYTES_MAX)
        return err_new(ERR_INVALID_ARGUMENT, "a reflection request has %zu bytes; at most %d are allowed",
                       bytes.size, REFLECTION_REQUEST_BYTES_MAX);
    uint32_t number;
    struct span body;
    while (next_field(&bytes, &number, &body)) {
        if (number == REQUEST_HOST && body.data)
            out->host = body;
        if (number >= REQUEST_FILE_BY_FILENAME && number <= REQUEST_LIST_SERVICES && body.data) {
            out->kind = number;
            out->value = body;
        }
    }
    if (bytes.size > 0)
        return err_new(
            ERR_INVALID_ARGUMENT,
            "the message is not a well-formed protobuf message grpc.reflection.ServerReflectionRequest");
    return err_ok();
}

static bool put_error(struct buffer *out, uint32_t *kind, grpc_status_code code, const char *what,
                      struct span name)
{
    struct buffer message = {.limit_bytes = REFLECTION_REQUEST_BYTES_MAX + 64};
    *kind = RESPONSE_ERROR;
    bool put = buffer_append_text(&message, what) &&
               buffer_append(&message, name.size > 0 ? (const void *)name.data : "", name.size) &&
               put_varint(out, ERROR_CODE << 3 | PB_WT_VARINT) && put_varint(out, (uint64_t)code) &&
               put_bytes(out, ERROR_MESSAGE, written(&message));
    buffer_free(&message);
    return put;
}

static bool put_found_file(struct buffer *out, uint32_t *kind, bool (*is_it)(struct span, struct span),
                           struct span wanted, const char *in_vain)
{
    struct span file;
    uint32_t seen = 0;
    int index = find_file(is_it, wanted, &file);
    if (index < 0)
        return put_error(out, kind, GRPC_STATUS_NOT_FOUND, in_vain, wanted);
    *kind = RESPONSE_FILES;
    return put_file(out, index, file, &seen);
}

static bool put_extension_numbers(struct buffer *out, uint32_t *kind, struct span type)
{
    struct span file;
    if (find_file(has_symbol, type, &file) < 0)
        return put_error(out, kind, GRPC_STATUS_NOT_FOUND, "no such type: ", type);
    *kind = RESPONSE_EXTENSION_NUMBERS;
    return put_bytes(out, NAME, type); /* proto3: there are no extensions */
}

static bool put_response(const struct reflection_request *request, struct buffer *out, uint32_t *kind)
{
    switch (request->kind) {
    case REQUEST_FILE_BY_FILENAME:
        return put_found_file(out, kind, has_name, request->value, "no such file: ");
    case REQUEST_FILE_CONTAINING_SYMBOL:
        return put_found_file(out, kind, has_symbol, request->value, "no such symbol: ");
    case REQUEST_FILE_CONTAINING_EXTENSION:
        return put_error(out, kind, GRPC_STATUS_NOT_FOUND, "there are no extensions of ",
                         field_of(request->value, EXTENSION_CONTAINING_TYPE));
    case REQUEST_EXTENSION_NUMBERS:
        return put_extension_numbers(out, kind, request->value);
    case REQUEST_LIST_SERVICES:
        *kind = RESPONSE_SERVICES;
        return put_services(out);
    default:
        return put_error(out, kind, GRPC_STATUS_INVALID_ARGUMENT, "the request asks for nothing",
                         (struct span){0});
    }
}

err_t reflection_answer(const uint8_t *bytes, size_t size_bytes, struct buffer *out)
{
    struct reflection_request request;
    struct span original = {bytes, size_bytes};
    TRY(decode_request(original, &request));
    struct buffer response = {.limit_bytes = REFLECTION_ANSWER_BYTES_MAX};
    uint32_t kind = 0;
    bool put = put_response(&request, &response, &kind) &&
               (request.host.size == 0 || put_bytes(out, RESPONSE_VALID_HOST, request.host)) &&
               put_bytes(out, RESPONSE_ORIGINAL_REQUEST, original) &&
               put_bytes(out, kind, written(&response));
    buffer_free(&response);
    if (!put)
        return err_new(ERR_RESOURCE_EXHAUSTED, "no memory for an answer about schemas");
    return err_ok();
}
