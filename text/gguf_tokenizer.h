/* The tokenizer that a GGUF file's metadata describes ("tokenizer.ggml.*"), as the one that a tokenizer.json
 * would: byte-level BPE with its merges ("gpt2"), and SentencePiece's BPE ("llama"), whose merges follow from
 * the tokens and their scores. Keys: the ggml project's docs/gguf.md. */
#pragma once

#include "base/error.h"
#include "base/gguf.h"
#include "text/tokenizer.h"

/* INVALID_ARGUMENT, DATA_LOSS or UNIMPLEMENTED (a model or pre-tokenizer that is not known is named); the
 * message has the file. Nothing of *out points into the file. */
err_t tokenizer_from_gguf(const struct gguf *gguf, struct tokenizer **out) ERR_MUST_CHECK;
