/* What the two halves of the FlatBuffers codec share. C++, included by codec_*.cc only. */
#pragma once

#include "bantam_generated.h"

extern "C" {
#include "base/alloc.h"
#include "proto/codec_flatbuffers.h"
}

static_assert(FLATBUFFERS_LITTLEENDIAN, "vectors are read in place");
static_assert(sizeof(bantam::LogitBias) == sizeof(struct logit_bias), "read in place");

using builder_t = flatbuffers::FlatBufferBuilder;
using string_offset = flatbuffers::Offset<flatbuffers::String>;
using ids_offset = flatbuffers::Offset<flatbuffers::Vector<uint32_t>>;

/* The calling thread's builder, empty; codec_finish ends the message in it. */
builder_t &codec_builder();
struct codec_bytes codec_finish_root(builder_t &builder);

template <class T> struct codec_bytes codec_finish(builder_t &builder, flatbuffers::Offset<T> root)
{
    builder.Finish(root);
    return codec_finish_root(builder);
}

/* Makes *bytes 8-byte aligned (a copy in scratch when need be) and checks the size; `code` is the error's. */
err_t codec_align(const uint8_t **bytes, size_t size_bytes, enum err_code code,
                  struct codec_scratch *scratch);

/* The verified root table of type T, named `type`. */
template <class T>
err_t codec_root(const uint8_t *bytes, size_t size_bytes, enum err_code code, const char *type,
                 struct codec_scratch *scratch, const T **out)
{
    TRY(codec_align(&bytes, size_bytes, code, scratch));
    flatbuffers::Verifier::Options options;
    options.max_depth = CODEC_DEPTH_MAX;
    options.max_tables = code == ERR_DATA_LOSS ? (int)CODEC_ANSWER_TABLES_MAX : (int)CODEC_TABLES_MAX;
    flatbuffers::Verifier verifier(bytes, size_bytes, options);
    if (!verifier.VerifyBuffer<T>(nullptr))
        return err_new(code, "the message is not a well-formed FlatBuffers table bantam.%s", type);
    *out = flatbuffers::GetRoot<T>(bytes);
    return err_ok();
}

/* Zeroed scratch->arrays of size_bytes > 0. */
err_t codec_arrays(struct codec_scratch *scratch, size_t size_bytes);

inline void codec_ids(const flatbuffers::Vector<uint32_t> *vector, const uint32_t **ids, size_t *n_ids)
{
    *ids = vector && vector->size() > 0 ? reinterpret_cast<const uint32_t *>(vector->Data()) : nullptr;
    *n_ids = vector ? vector->size() : 0;
}

inline string_offset codec_string(builder_t &builder, const char *text)
{
    return text ? builder.CreateString(text) : string_offset();
}

inline ids_offset codec_id_vector(builder_t &builder, const uint32_t *ids, size_t n_ids)
{
    return n_ids > 0 ? builder.CreateVector(ids, n_ids) : ids_offset();
}
