/* The schemas of what the gRPC door speaks, as their compilers write them; embedded at build. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* A google.protobuf.FileDescriptorSet: every .proto file of this folder, imports before what imports them. */
extern const uint8_t wire_protobuf_files[];
extern const size_t wire_protobuf_files_bytes;

/* bantam.fbs as a reflection.Schema (flatc --binary --schema). */
extern const uint8_t wire_flatbuffers_schema[];
extern const size_t wire_flatbuffers_schema_bytes;
