#!/usr/bin/env python3
"""Writes the demo model as GGUF in Q8_0, for programs that read nothing else: the same file for every program.

    python3 benchmarks/peers/make_demo_gguf.py OUT.gguf [--model demo/model]

A Llama checkpoint of one model.safetensors in bf16 with a byte-level BPE tokenizer.json. The embedding and the matrices are in
Q8_0 (a scale and 32 codes: the largest of a block is 127), norms in f32; rows of q and k stand as GGUF has them, the halves
of each rotation side by side. Standard library only."""

import argparse
import json
import pathlib
import struct
import sys

import make_random_gguf as gguf

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
NORMAL, CONTROL = 1, 3
LAYER_NAMES = {"attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
               "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
               "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}


class Checkpoint:
    def __init__(self, path):
        self.data = path.read_bytes()
        size = struct.unpack("<Q", self.data[:8])[0]
        self.header, self.base = json.loads(self.data[8 : 8 + size]), 8 + size

    def rows(self, name, n_rows):
        """Lists of floats. bf16 is the upper half of an f32."""
        entry = self.header[name]
        begin, end = (self.base + offset for offset in entry["data_offsets"])
        if entry["dtype"] != "BF16":
            raise ValueError(f"{name} is {entry['dtype']}: expected BF16")
        halves = struct.unpack(f"<{(end - begin) // 2}H", self.data[begin:end])
        values = struct.unpack(f"<{len(halves)}f", struct.pack(f"<{len(halves)}I", *(half << 16 for half in halves)))
        width = len(values) // n_rows
        return [values[i : i + width] for i in range(0, len(values), width)]


def source_name(name):
    """The checkpoint's name of a tensor of make_random_gguf.model_tensors."""
    if name.startswith("blk."):
        _, layer, part, _ = name.split(".")
        return f"model.layers.{layer}.{LAYER_NAMES[part]}.weight"
    return {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
            "output.weight": "lm_head.weight"}[name]


def interleaved(rows, n_heads):
    """The halves of each head's rotation side by side."""
    width = len(rows) // n_heads
    return [rows[head * width + j + half * (width // 2)]
            for head in range(n_heads) for j in range(width // 2) for half in (0, 1)]


def packed_q8_0(row):
    blocks = []
    for i in range(0, len(row), 32):
        block = row[i : i + 32]
        scale = max(map(abs, block)) / 127
        inverse = 1 / scale if scale else 0
        blocks.append(struct.pack("<e32b", scale, *(max(-127, min(127, round(value * inverse))) for value in block)))
    return b"".join(blocks)


def tokenizer_entries(tokenizer, config):
    vocabulary = tokenizer["model"]["vocab"]
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    tokens = [None] * config["vocab_size"]
    for token, index in (vocabulary | special).items():
        tokens[index] = token
    tokens = [token if token is not None else f"<unused{i}>" for i, token in enumerate(tokens)]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    ends = config["eos_token_id"] if isinstance(config["eos_token_id"], list) else [config["eos_token_id"]]
    return [
        ("tokenizer.ggml.model", gguf.STRING, "gpt2"),
        ("tokenizer.ggml.pre", gguf.STRING, "smollm"),  # digits one by one, then GPT-2's words
        ("tokenizer.ggml.tokens", gguf.ARRAY, (gguf.STRING, tokens)),
        ("tokenizer.ggml.token_type", gguf.ARRAY, (gguf.INT32, [CONTROL if token in special else NORMAL for token in tokens])),
        ("tokenizer.ggml.merges", gguf.ARRAY, (gguf.STRING, merges)),
        ("tokenizer.ggml.bos_token_id", gguf.UINT32, config["bos_token_id"]),
        ("tokenizer.ggml.eos_token_id", gguf.UINT32, ends[-1]),
        ("tokenizer.ggml.eot_token_id", gguf.UINT32, ends[0]),
        ("tokenizer.ggml.add_bos_token", gguf.BOOL, True),
    ]


def write_demo(model, out):
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    tokenizer = json.loads((model / "tokenizer.json").read_text(encoding="utf-8"))
    checkpoint = Checkpoint(model / "model.safetensors")
    q8_0, file_type = gguf.TYPES["q8_0"][:2]
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}

    def tensors():
        """(name, shape, GGML type, bytes)"""
        for name, n_rows, width in gguf.model_tensors(config):
            rows = checkpoint.rows(source_name(name), n_rows or 1)
            part = name.split(".")[-2]
            if part in heads:
                rows = interleaved(rows, heads[part])
            if n_rows:
                yield name, (width, n_rows), q8_0, b"".join(map(packed_q8_0, rows))
            else:
                yield name, (width,), gguf.F32_TYPE, struct.pack(f"<{width}f", *rows[0])

    gguf.write_tensors(gguf.model_entries(config, "demo", file_type) + tokenizer_entries(tokenizer, config), tensors(), out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / "demo/model")
    arguments = parser.parse_args()
    write_demo(arguments.model, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
