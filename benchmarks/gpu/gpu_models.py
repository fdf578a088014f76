"""The models of benchmarks/gpu/run: shapes with dummy weights, and the flags that every run of them has."""

import json
import pathlib

ROOT = pathlib.Path(__file__).resolve().parents[2]
TINY = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 1024}
# Wide enough that every kernel has several tiles, small enough for a second of dummy weights.
MIDDLE = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 2, "num_attention_heads": 16,
          "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 4096, "max_position_embeddings": 2048}
COMMON = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "rms_norm_eps": 1e-5,
          "rope_theta": 500000.0, "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": False,
          "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "bfloat16"}
DUMMY = ["--load-format", "dummy", "--skip-tokenizer-init"]

# name -> flags. Weights of 4 bits (in groups of 32, or of 128 as most checkpoints have them) and KV of 16; of 8 bits
# and KV of 8; of 16 bits and KV of 16.
FORMATS = {
    "W4A16": ["--quantization", "int4"],
    "W4A16 g128": ["--quantization", "int4", "--quantization-group", 128],
    "FP8": ["--quantization", "fp8", "--kv-cache-dtype", "fp8"],
    "bf16": [],
    "W8A8": ["--quantization", "w8a8"],
}


def shape(session):
    """The model that figures are of: a directory with a config.json. Llama-3.1-8B, or in a small run a tiny one."""
    return written(session, "tiny", TINY) if session.small else str(ROOT / "benchmarks/shapes/llama-3.1-8b")


def written(session, name, fields):
    directory = session.work / name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps({**COMMON, **fields}, indent=1))
    return str(directory)


def engine_flags(session):
    return ["--device", session.device]
