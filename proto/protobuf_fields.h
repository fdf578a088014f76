/* Protobuf's encoding, as far as the small messages need that are read and written by hand (grpc.health.v1,
 * ORCA). Source: protobuf.dev, "Encoding". Pure functions. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

/* The key of a field. */
#define WIRE_KEY(number, type) ((uint64_t)(number) << 3 | (type))

struct wire_reader {
    const uint8_t *at, *end;
};

struct wire_field {
    uint64_t key;            /* WIRE_KEY */
    uint64_t value;          /* WIRE_VARINT, WIRE_FIXED64 */
    struct wire_reader body; /* WIRE_BYTES: what is inside */
};

/* The next field; false at the end of the message and when it is malformed (then *malformed is set). */
bool wire_read_field(struct wire_reader *reader, struct wire_field *out, bool *malformed);

/* A WIRE_FIXED64 value as the double that it is. */
double wire_double(uint64_t value);

/* Appends at out and returns the end. Room is the caller's to have. */
enum { WIRE_VARINT_BYTES_MAX = 10 };
uint8_t *wire_write_varint(uint8_t *out, uint64_t value);
uint8_t *wire_write_double(uint8_t *out, unsigned number, double value); /* nothing for 0, the default */
/* map<string, double>: one entry. The name has at most 100 bytes. */
uint8_t *wire_write_map_double(uint8_t *out, unsigned number, const char *name, double value);
