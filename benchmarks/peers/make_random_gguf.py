#!/usr/bin/env python3
"""Writes a GGUF file of a Llama shape with random weights, for measuring: the same file for every program.

    python3 benchmarks/peers/make_random_gguf.py benchmarks/shapes/llama-3.2-1b OUT.gguf [--type q4_0|q8_0|f16] [--seed 1]

The shape is a directory with a config.json (rope scaling is left out: it costs nothing to compute). All matrices, the
embedding included, are of the one type; norms are ones in f32. The tokenizer knows bytes and nothing else: prompts of a
measurement are token ids. Weights repeat after 16 MiB, which no cache holds. Standard library only."""

import argparse
import json
import os
import pathlib
import random
import struct
import sys

ALIGNMENT = 32
TILE_BYTES = 16 << 20
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
# name: (GGML type, general.file_type, weights of a block, bytes of a block)
TYPES = {"f16": (1, 1, 1, 2), "q4_0": (2, 2, 32, 18), "q8_0": (8, 7, 32, 34)}
F32_TYPE = 0


def packed_string(text):
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def packed_value(kind, value):
    if kind == STRING:
        return packed_string(value)
    return struct.pack({UINT32: "<I", INT32: "<i", FLOAT32: "<f", BOOL: "<?"}[kind], value)


def packed_entry(key, kind, value):
    if kind == ARRAY:
        of, values = value
        head = packed_string(key) + struct.pack("<IIQ", ARRAY, of, len(values))
        return head + b"".join(packed_value(of, v) for v in values)
    return packed_string(key) + struct.pack("<I", kind) + packed_value(kind, value)


def byte_tokens():
    """The 256 characters that byte-level BPE writes bytes as (GPT-2's table), in the order of the bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


def tokenizer_entries(vocab_size):
    letters = byte_tokens()
    blank = letters[32]
    tokens = [*letters, blank + blank] + [f"<{i}>" for i in range(257, vocab_size)]
    return [
        ("tokenizer.ggml.model", STRING, "gpt2"),
        ("tokenizer.ggml.pre", STRING, "gpt-2"),
        ("tokenizer.ggml.tokens", ARRAY, (STRING, tokens[:vocab_size])),
        ("tokenizer.ggml.token_type", ARRAY, (INT32, [1] * vocab_size)),
        ("tokenizer.ggml.merges", ARRAY, (STRING, [f"{blank} {blank}"])),
        ("tokenizer.ggml.bos_token_id", UINT32, vocab_size - 2),
        ("tokenizer.ggml.eos_token_id", UINT32, vocab_size - 1),
        ("tokenizer.ggml.add_bos_token", BOOL, False),
    ]


def model_entries(config, name, file_type):
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return [
        ("general.architecture", STRING, "llama"),
        ("general.name", STRING, f"random {name}"),
        ("general.file_type", UINT32, file_type),
        ("general.quantization_version", UINT32, 2),
        ("llama.vocab_size", UINT32, config["vocab_size"]),
        ("llama.context_length", UINT32, config["max_position_embeddings"]),
        ("llama.embedding_length", UINT32, config["hidden_size"]),
        ("llama.block_count", UINT32, config["num_hidden_layers"]),
        ("llama.feed_forward_length", UINT32, config["intermediate_size"]),
        ("llama.attention.head_count", UINT32, config["num_attention_heads"]),
        ("llama.attention.head_count_kv", UINT32, config["num_key_value_heads"]),
        ("llama.attention.key_length", UINT32, head_dim),
        ("llama.attention.value_length", UINT32, head_dim),
        ("llama.attention.layer_norm_rms_epsilon", FLOAT32, config["rms_norm_eps"]),
        ("llama.rope.dimension_count", UINT32, head_dim),
        ("llama.rope.freq_base", FLOAT32, config["rope_theta"]),
    ]


def model_tensors(config):
    """(name, rows, columns) of each matrix, rows 0 for a vector of `columns` values."""
    hidden, feed = config["hidden_size"], config["intermediate_size"]
    head_dim = config.get("head_dim") or hidden // config["num_attention_heads"]
    q_width, kv_width = config["num_attention_heads"] * head_dim, config["num_key_value_heads"] * head_dim
    yield "token_embd.weight", config["vocab_size"], hidden
    for i in range(config["num_hidden_layers"]):
        yield f"blk.{i}.attn_norm.weight", 0, hidden
        yield f"blk.{i}.attn_q.weight", q_width, hidden
        yield f"blk.{i}.attn_k.weight", kv_width, hidden
        yield f"blk.{i}.attn_v.weight", kv_width, hidden
        yield f"blk.{i}.attn_output.weight", hidden, q_width
        yield f"blk.{i}.ffn_norm.weight", 0, hidden
        yield f"blk.{i}.ffn_gate.weight", feed, hidden
        yield f"blk.{i}.ffn_up.weight", feed, hidden
        yield f"blk.{i}.ffn_down.weight", hidden, feed
    yield "output_norm.weight", 0, hidden
    if not config.get("tie_word_embeddings", False):
        yield "output.weight", config["vocab_size"], hidden


def weight_tile(type_name, scale, rng):
    """Blocks of random codes; scale is the standard deviation of the weights, about."""
    if type_name == "f16":
        return b"".join(struct.pack("<e", rng.gauss(0, scale)) for _ in range(1 << 16)) * (TILE_BYTES >> 17)
    _, _, _, block_bytes = TYPES[type_name]
    step = struct.pack("<e", scale / (4.6 if type_name == "q4_0" else 74))
    codes = rng.randbytes(TILE_BYTES // block_bytes * (block_bytes - 2))
    if type_name == "q4_0":  # 0 is -8, and nothing is 8: weights with a mean make a model that says one thing
        codes = codes.translate(bytes((byte & 15 or 8) | (byte >> 4 or 8) << 4 for byte in range(256)))
    return b"".join(step + codes[i : i + block_bytes - 2] for i in range(0, len(codes), block_bytes - 2))


def write_repeated(file, tile, offset, n_bytes):
    """n_bytes of the endless tile from an offset on."""
    while n_bytes > 0:
        part = tile[offset : offset + n_bytes]
        file.write(part)
        n_bytes -= len(part)
        offset = 0


def write_tensors(entries, tensors, out):
    """A small model, whole: tensors are (name, shape with the width first, GGML type, bytes)."""
    infos, blocks, offset = [], [], 0
    for name, shape, kind, data in tensors:
        infos.append(packed_string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset))
        blocks.append(data + bytes(-len(data) % ALIGNMENT))
        offset += len(blocks[-1])
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(entries)) + b"".join(packed_entry(*entry) for entry in entries)
    head += b"".join(infos)
    partial = out.with_suffix(".partial")
    partial.write_bytes(head + bytes(-len(head) % ALIGNMENT) + b"".join(blocks))
    os.replace(partial, out)


def write_gguf(config, name, type_name, seed, out, scale=0.02):
    """scale: the standard deviation of the weights, about."""
    ggml_type, file_type, block, block_bytes = TYPES[type_name]
    entries = model_entries(config, name, file_type) + tokenizer_entries(config["vocab_size"])
    infos, sizes, offset = [], [], 0
    for tensor, rows, columns in model_tensors(config):
        if rows and columns % block:
            raise ValueError(f"{tensor}: {columns} columns are no multiple of {block}, the block of {type_name}")
        size = rows * columns // block * block_bytes if rows else columns * 4
        shape = (columns, rows) if rows else (columns,)
        kind = ggml_type if rows else F32_TYPE
        infos.append(packed_string(tensor) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset))
        sizes.append((rows, columns, size))
        offset += -(-size // ALIGNMENT) * ALIGNMENT
    tile = weight_tile(type_name, scale, random.Random(seed))
    partial = out.with_suffix(".partial")
    done, terminal = 0, sys.stderr.isatty()
    with open(partial, "wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(entries)))
        file.write(b"".join(packed_entry(*entry) for entry in entries) + b"".join(infos))
        file.write(bytes(-file.tell() % ALIGNMENT))
        for index, (rows, columns, size) in enumerate(sizes):
            if rows:
                write_repeated(file, tile, index * 7919 % (len(tile) // block_bytes) * block_bytes, size)
            else:
                file.write(struct.pack("<f", 1.0) * columns)
            file.write(bytes(-size % ALIGNMENT))
            done += size
            if terminal:
                print(f"\r{out.name}: {100 * done // offset} %", end="", file=sys.stderr, flush=True)
    if terminal:
        print(file=sys.stderr)
    os.replace(partial, out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", type=pathlib.Path, help="a directory with a config.json")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--type", choices=sorted(TYPES), default="q4_0")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    config = json.loads((arguments.shape / "config.json").read_text(encoding="utf-8"))
    write_gguf(config, arguments.shape.name, arguments.type, arguments.seed, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
