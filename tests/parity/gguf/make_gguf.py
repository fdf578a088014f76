#!/usr/bin/env python3
"""Writes what the tests of GGUF files read. Run by hand, with PyPI's gguf, PyTorch, safetensors and Transformers installed:

    python3 tests/parity/gguf/make_gguf.py

  NAME.gguf          a checkpoint of tests/parity/checkpoints as llama.cpp's converter lays it out: the names, Llama's rows of
                     q and k in interleaved order, Gemma's norms with 1 added. Transformers must read the same weights
                     from it, so that the checkpoint's own golden.json holds for it.
  blocks.json        for each quantised type blocks of random bytes, and the bits of the f32 values that PyPI's gguf makes of them
  tokenizer-*.gguf   small vocabularies without tensors: SentencePiece with and without a space in front, Gemma's, byte-level
  tokenizers.json    for each of them what Transformers' tokenizer from the same file makes of some texts
"""

import json
import pathlib
import random

import gguf
import numpy as np
import tokenizers
import torch
import transformers
from safetensors.torch import load_file
from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer, get_gguf_tokenizer

HERE = pathlib.Path(__file__).resolve().parent
CHECKPOINTS = HERE.parent / "checkpoints"
ROOT = HERE.parents[2]
MODELS = {"llama-tied-llama3-rope": "llama", "llama-head-dim-linear-rope": "llama", "qwen2-gqa-tied": "qwen2", "gemma3-windows": "gemma3"}
BLOCKS = 4
NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
LAYER_NAMES = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}


def gguf_name(name, architecture):
    base, suffix = name.rsplit(".", 1)
    if base in NAMES:
        return f"{NAMES[base]}.{suffix}"
    _, _, layer, rest = base.split(".", 3)
    if architecture == "gemma3":
        norms = {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
                 "post_feedforward_layernorm": "post_ffw_norm"}
    else:
        norms = {"post_attention_layernorm": "ffn_norm"}
    return f"blk.{layer}.{ {**LAYER_NAMES, **norms}[rest]}.{suffix}"


def interleaved(tensor, heads):
    return tensor.reshape(heads, 2, tensor.shape[0] // heads // 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)


def write_model(name, architecture):
    config = json.loads((CHECKPOINTS / name / "config.json").read_text())
    writer = gguf.GGUFWriter(str(HERE / f"{name}.gguf"), architecture)
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    rope = config.get("rope_parameters") or {"rope_theta": config["rope_theta"], **(config.get("rope_scaling") or {})}
    if architecture == "gemma3":
        writer.add_sliding_window(config["sliding_window"])
        rope = rope["full_attention"]
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    if rope.get("rope_type") == "llama3":
        writer.add_tensor("rope_freqs.weight", llama3_divisors(rope, head_dim))
    for tensor_name, tensor in load_file(CHECKPOINTS / name / "model.safetensors").items():
        values = tensor.float()
        if architecture == "llama" and ".q_proj." in tensor_name:
            values = interleaved(values, heads)
        if architecture == "llama" and ".k_proj." in tensor_name:
            values = interleaved(values, kv_heads)
        if architecture == "gemma3" and "norm" in tensor_name:
            values = values + 1
        array = values.numpy()
        if tensor.dtype == torch.bfloat16 and array.ndim == 2:
            array = gguf.quants.quantize(array, gguf.GGMLQuantizationType.BF16)
            writer.add_tensor(gguf_name(tensor_name, architecture), array, raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(gguf_name(tensor_name, architecture), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    check_model(name)


def llama3_divisors(rope, head_dim):
    """As llama.cpp's converter computes them."""
    original = rope["original_max_position_embeddings"]
    low, high = original / rope["low_freq_factor"], original / rope["high_freq_factor"]
    divisors = []
    for frequency in 1.0 / rope["rope_theta"] ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim):
        length = 2 * np.pi / float(frequency)
        if length < high:
            divisors.append(1.0)
        elif length > low:
            divisors.append(rope["factor"])
        else:
            smooth = (original / length - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])
            divisors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return np.array(divisors, dtype=np.float32)


def check_model(name):
    """Transformers reads the same weights from the file, where it reads such ones: no biases of Llama's, no width of its heads."""
    if name not in ("llama-tied-llama3-rope", "gemma3-windows"):
        return
    from_gguf = transformers.AutoModelForCausalLM.from_pretrained(HERE, gguf_file=f"{name}.gguf", dtype=torch.float32,
                                                                  ignore_mismatched_sizes=True).state_dict()
    ours = transformers.AutoModelForCausalLM.from_pretrained(CHECKPOINTS / name, dtype=torch.float32).state_dict()
    for key, value in ours.items():
        if "embed_tokens" in key or "lm_head" in key:  # it takes the vocabulary's size from tokens, of which there are none
            continue
        if key in from_gguf:
            assert torch.allclose(value, from_gguf[key], atol=1e-6), (name, key)
        else:
            print(f"{name}: Transformers does not read {key}")


def write_blocks():
    rng = np.random.default_rng(5)
    result = []
    for type_name in ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"):
        kind = gguf.GGMLQuantizationType[type_name]
        values, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = rng.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
        scales = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}.get(type_name, (0,))
        for at in scales:  # finite ones
            blocks[:, at : at + 2] = rng.normal(0, 0.05, BLOCKS).astype(np.float16).view(np.uint8).reshape(BLOCKS, 2)
        expected = gguf.quants.dequantize(blocks.reshape(1, -1), kind).reshape(-1).astype(np.float32)
        assert expected.size == BLOCKS * values
        result.append({"name": type_name, "type": int(kind), "hex": blocks.tobytes().hex(),
                       "bits": [int(v) for v in expected.view(np.uint32)]})
    (HERE / "blocks.json").write_text(json.dumps(result, separators=(",", ":")) + "\n")


def train(pre_tokenizer, normalizer, alphabet, specials, size):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=size, special_tokens=specials, initial_alphabet=alphabet, show_progress=False)
    texts = sorted((ROOT / "docs").glob("*.md")) + sorted((ROOT / "base").glob("*.c"))
    tokenizer.train_from_iterator([path.read_text(encoding="utf-8") for path in texts], trainer)
    return json.loads(tokenizer.to_str())["model"]


def write_vocabulary(name, architecture, model, tokens, types, scores=None, merges=None, **keys):
    writer = gguf.GGUFWriter(str(HERE / f"tokenizer-{name}.gguf"), architecture)
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    if scores is not None:
        writer.add_token_scores(scores)
    if merges is not None:
        writer.add_token_merges(merges)
    for key, value in keys.items():
        getattr(writer, f"add_{key}")(value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
BYTES = [f"<0x{b:02X}>" for b in range(256)]
GEMMA_TEMPLATE = "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"


def write_sentencepiece(name, architecture, prefix):
    """Pieces with spaces inside, as SentencePiece has them; scores by rank."""
    learned = train(tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"▁+[^▁]*|[^▁]+"), "isolated"),
                    tokenizers.normalizers.Replace(" ", "▁"), [], [], 700)
    pieces = [text for text, _ in sorted(learned["vocab"].items(), key=lambda item: item[1])]
    characters = [p for p in pieces if len(p) == 1]
    pieces = [p for p in pieces if len(p) > 1 and set(p) != {"▁"} and "\n" not in p]
    special = ["<unk>", "<s>", "</s>", "<start_of_turn>", "<end_of_turn>", "\n\n", "<table>"]
    types = [CONTROL if architecture == "gemma3" else UNKNOWN] + [CONTROL] * 4 + [USER_DEFINED] * 2
    scores = [-1000.0] * len(special) if architecture == "gemma3" else [0.0] * len(special)
    spaces = [" " * n for n in range(2, 9)] if architecture == "gemma3" else ["▁▁", "▁▁▁▁"]
    tokens = special + spaces + BYTES + pieces + characters
    types += [USER_DEFINED if architecture == "gemma3" else NORMAL] * len(spaces) + [BYTE] * 256
    types += [NORMAL] * (len(pieces) + len(characters))
    scores += [-1000.0 if architecture == "gemma3" else -0.5 - 1e-3 * n for n in range(len(spaces))] + [0.0] * 256
    scores += [-1.0 - n for n in range(len(pieces) + len(characters))]
    write_vocabulary(name, architecture, "llama", tokens, types, scores, bos_token_id=1, eos_token_id=2, unk_token_id=0,
                     add_bos_token=True, add_eos_token=False, add_space_prefix=prefix, chat_template=GEMMA_TEMPLATE)


def write_byte_level(name, pre):
    learned = train(tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False), None, tokenizers.pre_tokenizers.ByteLevel.alphabet(),
                    [], 900)
    pieces = [text for text, _ in sorted(learned["vocab"].items(), key=lambda item: item[1])]
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|im_start|>", "<|im_end|>", "<think>"]
    merges = [" ".join(m) if isinstance(m, list) else m for m in learned["merges"]]
    write_vocabulary(name, "llama", "gpt2", pieces + special, [NORMAL] * len(pieces) + [CONTROL] * 4 + [USER_DEFINED], None, merges,
                     tokenizer_pre=pre, bos_token_id=len(pieces), eos_token_id=len(pieces) + 1)


PIECES = ("the arena", " Tensor:", "naïve", "don't", "I'LL", "🙂", "👩‍👩‍👧", "\t", "\n", "\n\n", "\n\n\n", " ", "  ", "   ", " " * 7, " " * 20,
          "12345", "3.14", "if (x->y) { return 0; }", "漢字", "العربية", "<table>", "<think>", "<unk>", "<0x41>", "▁", "A" * 40, "_" * 9,
          "err_t e = err_ok();", "static const", "bytes", "the", "of", "static", "size_bytes", "\r\n")


def write_tokenizers():
    write_sentencepiece("sentencepiece", "llama", True)
    write_sentencepiece("sentencepiece-bare", "llama", False)
    write_sentencepiece("gemma", "gemma3", False)
    write_byte_level("llama3", "llama-bpe")
    write_byte_level("qwen2", "qwen2")
    rng = random.Random(11)
    texts = list(PIECES) + ["".join(rng.choice(PIECES) for _ in range(rng.randint(2, 8))) for _ in range(400)]
    result = {"texts": texts, "files": {}}
    for path in sorted(HERE.glob("tokenizer-*.gguf")):
        architecture, tokenizer_dict, _ = get_gguf_tokenizer(str(path))
        reference, _ = convert_gguf_tokenizer(architecture, tokenizer_dict)
        if path.stem.endswith("bare"):  # a file's own flag, which Transformers does not read
            reference.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace("▁", "never", split=False)
            reference.decoder = tokenizers.decoders.Sequence([tokenizers.decoders.Replace("▁", " "),
                                                              tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse()])
        encoded = [reference.encode(text, add_special_tokens=False).ids for text in texts]
        result["files"][path.name] = {"ids": encoded, "decoded": [reference.decode(ids, skip_special_tokens=False) for ids in encoded]}
    (HERE / "tokenizers.json").write_text(json.dumps(result, separators=(",", ":"), ensure_ascii=True) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    write_blocks()
    write_tokenizers()
    for model_name, model_architecture in MODELS.items():
        write_model(model_name, model_architecture)
