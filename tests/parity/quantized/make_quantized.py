"""Makes the tiny quantised checkpoints of this folder, and what Transformers says of them (golden.json).

Run by hand, with PyTorch and Transformers installed; the tests read only what it wrote:

    python make_quantized.py

Every matrix is quantised here in the plainest way, stored in the layout of its format, and the golden numbers are
those of a float32 model whose matrices are the codes times their scales. golden.json is as in ../checkpoints.
"""

import importlib.util
import json
import pathlib
import shutil
import struct

import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
spec = importlib.util.spec_from_file_location("plain", HERE.parent / "checkpoints" / "make_checkpoints.py")
plain = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plain)
plain.PROMPT_LENGTHS = [2, 17, 40]

LINEARS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
           "mlp.up_proj", "mlp.down_proj"]
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def llama(**changes):
    base = dict(vocab_size=160, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, rms_norm_eps=1e-5)
    return transformers.LlamaForCausalLM, transformers.LlamaConfig(**{**plain.COMMON, **base, **changes})


def qwen2(**changes):
    base = dict(vocab_size=160, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, rms_norm_eps=1e-6)
    return transformers.Qwen2ForCausalLM, transformers.Qwen2Config(**{**plain.COMMON, **base, **changes})


# ---- Codes ----

def quantise_int(w, bits, group, symmetric, scale_type, order=None):
    """w [out, in] to unsigned codes [out, in], scales and zero points [out, groups] and the group of each input."""
    n_out, n_in = w.shape
    group = n_in if group == -1 else group
    group_of = torch.arange(n_in) // group if order is None else order
    n_groups = n_in // group
    codes = torch.empty(n_out, n_in, dtype=torch.int64)
    scales = torch.empty(n_out, n_groups)
    zeros = torch.empty(n_out, n_groups, dtype=torch.int64)
    top, half = 2**bits - 1, 2**(bits - 1)
    for g in range(n_groups):
        part = w[:, group_of == g]
        low, high = part.amin(1).clamp(max=0), part.amax(1).clamp(min=0)
        if symmetric:
            scale = torch.maximum(-low, high) / (half - 0.5)
        else:
            scale = (high - low) / top
        scale = scale.to(scale_type).float()
        zero = torch.full_like(low, half) if symmetric else (-low / scale).round().clamp(0, top)
        codes[:, group_of == g] = (part / scale[:, None] + zero[:, None]).round().clamp(0, top).long()
        scales[:, g], zeros[:, g] = scale, zero.long()
    return codes, scales, zeros, group_of


def value_of(codes, scales, zeros, group_of):
    return (codes - zeros[:, group_of]).float() * scales[:, group_of]


def quantise_e4m3(w, block_out, block_in):
    """Codes as torch.float8_e4m3fn [out, in] and scales [out blocks, in blocks]."""
    n_out, n_in = w.shape
    rows, columns = -(-n_out // block_out), -(-n_in // block_in)
    codes = torch.empty(n_out, n_in, dtype=torch.float8_e4m3fn)
    scales = torch.empty(rows, columns)
    values = torch.empty_like(w)
    for r in range(rows):
        for c in range(columns):
            at = (slice(r * block_out, (r + 1) * block_out), slice(c * block_in, (c + 1) * block_in))
            scales[r, c] = w[at].abs().max() / 448
            codes[at] = (w[at] / scales[r, c]).to(torch.float8_e4m3fn)
            values[at] = codes[at].float() * scales[r, c]
    return codes, scales, values


def pack(codes, bits, dim, order=None):
    """Unsigned codes to int32 words along a dimension, the first in the lowest bits; order: of the codes in a word."""
    n = 32 // bits
    codes = codes.movedim(dim, -1)
    missing = -codes.shape[-1] % n
    codes = torch.nn.functional.pad(codes, (0, missing)).reshape(*codes.shape[:-1], -1, n)
    words = torch.zeros(codes.shape[:-1], dtype=torch.int64)
    for i in range(n):
        words |= codes[..., order[i] if order else i] << (bits * i)
    words = torch.where(words >= 2**31, words - 2**32, words)
    return words.to(torch.int32).movedim(-1, dim).contiguous()


# ---- Formats: name of a module and its matrix -> tensors and the matrix that they stand for ----

def awq(group):
    def make(name, w):
        codes, scales, zeros, of = quantise_int(w, 4, group, False, torch.float16)
        tensors = {"qweight": pack(codes.t(), 4, 1, AWQ_ORDER), "qzeros": pack(zeros.t(), 4, 1, AWQ_ORDER),
                   "scales": scales.t().half()}
        return tensors, value_of(codes, scales, zeros, of)
    return make, {"quant_method": "awq", "bits": 4, "group_size": group, "version": "gemm", "zero_point": True,
                  "modules_to_not_convert": None}


def gptq(bits, group, symmetric, act_order=False, v2=False, stored_half=False, head=False):
    def make(name, w):
        order = None
        if act_order:
            generator = torch.Generator().manual_seed(len(name))
            order = (torch.arange(w.shape[1]) // group)[torch.randperm(w.shape[1], generator=generator)]
        codes, scales, zeros, of = quantise_int(w, bits, group, symmetric, torch.float16, order)
        stored = zeros if v2 or stored_half else (zeros - 1) % 2**bits
        tensors = {"qweight": pack(codes.t(), bits, 0), "qzeros": pack(stored.t(), bits, 1),
                   "scales": scales.t().half(), "g_idx": of.to(torch.int32)}
        return tensors, value_of(codes, scales, zeros, of)
    return make, {"quant_method": "gptq", "bits": bits, "group_size": group, "sym": symmetric, "desc_act": act_order,
                  "checkpoint_format": "gptq_v2" if v2 else "gptq", "lm_head": head, "damp_percent": 0.01}


def compressed(format, weights, inputs, make, ignore):
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs, "output_activations": None}
    return make, {"quant_method": "compressed-tensors", "format": format, "config_groups": {"group_0": group},
                  "ignore": ignore, "kv_cache_scheme": None, "quantization_status": "compressed"}


def packed(bits, group, symmetric, scale_type=torch.bfloat16, ignore=("lm_head",)):
    def make(name, w):
        codes, scales, zeros, of = quantise_int(w, bits, group, symmetric, scale_type)
        tensors = {"weight_packed": pack(codes, bits, 1), "weight_scale": scales.to(scale_type),
                   "weight_shape": torch.tensor(w.shape)}
        if not symmetric:
            tensors["weight_zero_point"] = pack(zeros, bits, 0)
        return tensors, value_of(codes, scales, zeros, of)
    weights = {"num_bits": bits, "type": "int", "symmetric": symmetric,
               "strategy": "channel" if group == -1 else "group", "group_size": None if group == -1 else group}
    return compressed("pack-quantized", weights, None, make, list(ignore))


def w8a8():
    def make(name, w):
        codes, scales, zeros, of = quantise_int(w, 8, -1, True, torch.bfloat16)
        codes[0, 0] = 0  # -128 occurs
        return ({"weight": (codes - 128).to(torch.int8), "weight_scale": scales.bfloat16()},
                value_of(codes, scales, zeros, of))
    weights = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}
    inputs = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
    return compressed("int-quantized", weights, inputs, make, ["lm_head"])


def e4m3_channel():
    def make(name, w):
        codes, scales, values = quantise_e4m3(w, 1, w.shape[1])
        return {"weight": codes, "weight_scale": scales}, values
    weights = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel"}
    inputs = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "token", "dynamic": True}
    return compressed("float-quantized", weights, inputs, make, ["re:.*lm_head", "re:model\\.layers\\.0\\.mlp.+gate_proj$"])


def e4m3_tensor():
    def make(name, w):
        codes, scales, values = quantise_e4m3(w, *w.shape)
        return {"weight": codes, "weight_scale": scales[0, 0], "input_scale": torch.tensor(0.01)}, values
    return make, {"quant_method": "fp8", "activation_scheme": "static", "ignored_layers": ["lm_head"]}


def e4m3_block(side):
    def make(name, w):
        codes, scales, values = quantise_e4m3(w, side, side)
        return {"weight": codes, "weight_scale_inv": scales}, values
    return make, {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3",
                  "weight_block_size": [side, side], "modules_to_not_convert": ["lm_head", "model.layers.1.self_attn"]}


# name: model, format, dtype of the other tensors, modules that stay as they are
CHECKPOINTS = {
    "awq-g32": (llama(), awq(32), torch.float16, []),
    "awq-g128": (llama(hidden_size=128, num_key_value_heads=1), awq(128), torch.float16, []),
    "gptq-sym-g32": (llama(), gptq(4, 32, True, head=True), torch.float16, []),
    "gptq-sym-stored-half": (qwen2(tie_word_embeddings=True), gptq(4, 64, True, stored_half=True), torch.float16, []),
    "gptq-asym-g64": (llama(attention_bias=True), gptq(4, 64, False), torch.float16, []),
    "gptq-v2-act-order": (llama(), gptq(4, 32, False, act_order=True, v2=True), torch.float16, []),
    "gptq-int8-channel": (qwen2(), gptq(8, -1, True), torch.float16, []),
    "packed-sym-g64": (llama(), packed(4, 64, True), torch.bfloat16, []),
    "packed-asym-g32": (llama(num_key_value_heads=1), packed(4, 32, False, torch.float16,
                                      ["lm_head", "model.layers.1.self_attn.k_proj"]), torch.bfloat16,
                        ["model.layers.1.self_attn.k_proj"]),
    "packed-channel": (llama(), packed(4, -1, True), torch.bfloat16, []),
    "packed-int8-asym": (llama(), packed(8, 32, False), torch.bfloat16, []),
    "w8a8": (llama(), w8a8(), torch.bfloat16, []),
    "e4m3-channel": (llama(), e4m3_channel(), torch.bfloat16, ["model.layers.0.mlp.gate_proj"]),
    "e4m3-tensor": (qwen2(), e4m3_tensor(), torch.bfloat16, []),
    "e4m3-block": (llama(), e4m3_block(48), torch.bfloat16,
                   ["model.layers.1.self_attn." + x for x in ("q_proj", "k_proj", "v_proj", "o_proj")]),
}

DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int32: "I32", torch.int64: "I64",
          torch.int8: "I8", torch.float8_e4m3fn: "F8_E4M3"}


def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, tensor in sorted(tensors.items()):
        raw = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@torch.no_grad()
def make(index, name):
    (model_class, config), (quantise, quantization), dtype, left = CHECKPOINTS[name]
    directory = HERE / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    model = model_class(config)
    plain.randomize(model, 3000 + index)
    model.tie_weights()
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype).float()
    tensors = {}
    modules = dict(model.named_modules())
    quantised = [f"model.layers.{layer}.{linear}" for layer in range(config.num_hidden_layers) for linear in LINEARS]
    quantised = [module for module in quantised if module not in left]
    if quantization.get("lm_head"):
        quantised.append("lm_head")
    for module in quantised:
        parts, values = quantise(module, modules[module].weight)
        modules[module].weight.copy_(values)
        tensors.update({f"{module}.{key}": value for key, value in parts.items()})
    for key, value in model.state_dict().items():
        if key.removesuffix(".weight") in quantised:
            continue
        if not (config.tie_word_embeddings and key == "lm_head.weight"):
            tensors[key] = value.to(dtype)
    write_safetensors(directory / "model.safetensors", tensors)
    config.dtype = dtype
    config.architectures = [model_class.__name__]
    text = {**json.loads(config.to_json_string(use_diff=False)), "quantization_config": quantization}
    keep = ["architectures", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
            "num_attention_heads", "num_key_value_heads", "head_dim", "rms_norm_eps", "max_position_embeddings",
            "hidden_act", "attention_bias", "mlp_bias", "tie_word_embeddings", "rope_parameters", "dtype",
            "bos_token_id", "eos_token_id", "model_type", "quantization_config"]
    (directory / "config.json").write_text(json.dumps({key: text[key] for key in keep if key in text}, indent=1) + "\n")
    model.set_attn_implementation("eager")
    cases = plain.golden(model.eval(), 4000 + index)
    (directory / "golden.json").write_text(json.dumps({"cases": cases}, separators=(",", ":")) + "\n")
    greedy = [step for case in cases for step in case["greedy"]]
    print(f"{name}: {len({step['token'] for step in greedy})} different tokens, "
          f"{sum(step['gap'] < 0.01 for step in greedy)} ties of {len(greedy)}, "
          f"mean logprob {sum(step['logprob'] for step in greedy) / len(greedy):.2f}, "
          f"{sum(f.stat().st_size for f in directory.iterdir()) // 1024} KiB")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for number, checkpoint in enumerate(CHECKPOINTS):
        make(number, checkpoint)
