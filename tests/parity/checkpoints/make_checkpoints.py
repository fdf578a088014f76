"""Makes the tiny random checkpoints of this folder, and what Transformers says of them (golden.json).

Run by hand, with PyTorch and Transformers installed; the tests read only what it wrote:

    python make_checkpoints.py

A golden file holds, for each prompt, the logits that follow its last token, the log-probabilities of each of its
tokens, and a greedy continuation: at every step the chosen token, its log-probability, the gap to the runner-up,
and the most likely alternatives. All in float32 on the weights as they were stored.
"""

import json
import pathlib
import shutil

import torch
import transformers

HERE = pathlib.Path(__file__).resolve().parent
PROMPT_LENGTHS = [1, 2, 15, 16, 17, 33, 70]
GREEDY_TOKENS = 64
TOP = 6

COMMON = dict(pad_token_id=None, bos_token_id=1, eos_token_id=2, max_position_embeddings=256, use_cache=True)


def llama(**changes):
    base = dict(vocab_size=384, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, rms_norm_eps=1e-5)
    return transformers.LlamaForCausalLM, transformers.LlamaConfig(**{**COMMON, **base, **changes})


def qwen2(**changes):
    base = dict(vocab_size=320, hidden_size=64, intermediate_size=128, num_hidden_layers=3, num_attention_heads=4,
                num_key_value_heads=2, rms_norm_eps=1e-6)
    return transformers.Qwen2ForCausalLM, transformers.Qwen2Config(**{**COMMON, **base, **changes})


def gemma(family, **changes):
    base = dict(vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
                num_key_value_heads=2, head_dim=32, sliding_window=24, query_pre_attn_scalar=24, rms_norm_eps=1e-6)
    return (getattr(transformers, f"{family}ForCausalLM"),
            getattr(transformers, {"Gemma3": "Gemma3TextConfig"}.get(family, f"{family}Config"))(
                **{**COMMON, **base, **changes}))


def rope(kind, **values):
    return dict(rope_parameters=dict(rope_type=kind, **values))


# name: (model class and configuration, dtype in the file, bytes of a shard or None, write rope the old way)
CHECKPOINTS = {
    "llama-gqa": (llama(rope_theta=10000.0), torch.bfloat16, None, False),
    "llama-tied-llama3-rope": (
        llama(tie_word_embeddings=True, vocab_size=512, hidden_size=96, num_attention_heads=6, num_key_value_heads=2,
              **rope("llama3", rope_theta=500000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                     original_max_position_embeddings=64)),
        torch.bfloat16, None, False),
    "llama-mha-sharded": (llama(num_key_value_heads=4, num_hidden_layers=3), torch.float16, 120_000, True),
    "llama-head-dim-linear-rope": (
        llama(hidden_size=96, intermediate_size=64, num_attention_heads=4, num_key_value_heads=1, head_dim=32,
              attention_bias=True, mlp_bias=True, vocab_size=256,
              **rope("linear", rope_theta=10000.0, factor=4.0)),
        torch.float32, None, True),
    "qwen2-gqa-tied": (qwen2(tie_word_embeddings=True, rope_theta=1000000.0), torch.bfloat16, None, False),
    "qwen2-window": (
        qwen2(num_attention_heads=4, num_key_value_heads=1, use_sliding_window=True, sliding_window=24,
              max_window_layers=1),
        torch.bfloat16, None, False),
    # Five windowed layers to one that sees all, each kind with its own theta. Also in a GGUF file, which has no key for
    # another query_pre_attn_scalar than head_dim.
    "gemma3-windows": (
        gemma("Gemma3", num_hidden_layers=7, num_attention_heads=2, num_key_value_heads=1, query_pre_attn_scalar=32),
        torch.bfloat16, None, False),
    "gemma3-linear-rope": (
        gemma("Gemma3", layer_types=["sliding_attention", "full_attention"] * 2, num_hidden_layers=4,
              rope_parameters=dict(sliding_attention=dict(rope_type="default", rope_theta=5000.0),
                                   full_attention=dict(rope_type="linear", rope_theta=500000.0, factor=8.0))),
        torch.float32, None, True),
    # Soft caps low enough to bend these logits.
    "gemma2-soft-caps": (
        gemma("Gemma2", attn_logit_softcapping=3.0, final_logit_softcapping=6.0), torch.bfloat16, None, False),
}


def randomize(model, seed):
    """Weights large enough for outputs that differ from token to token and prefer one clearly."""
    generator = torch.Generator().manual_seed(seed)
    # A tied head favours the token just read, unless the layers drown it.
    gain = 1.15 if model.config.tie_word_embeddings else 1.0
    gemma = model.config.model_type.startswith("gemma")
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name:  # Gemma's norms multiply by 1 + w
            parameter.data = 0.2 * noise if gemma else 1.0 + 0.2 * noise
            if gemma and name == "model.norm.weight":
                parameter.data += 4.0
        elif name.endswith("bias"):
            parameter.data = 0.3 * noise
        elif "embed_tokens" in name:
            parameter.data = noise if not model.config.tie_word_embeddings else 0.2 * noise
            if gemma:  # they are scaled up; the last norm makes up for it
                parameter.data = 0.05 * noise
        elif "lm_head" in name:
            parameter.data = 0.25 * noise
        else:
            parameter.data = gain * noise / parameter.shape[1] ** 0.5


def rope_the_old_way(directory):
    """As files written before Transformers 5 have it: rope_theta at the top, the rest in rope_scaling."""
    path = directory / "config.json"
    config = json.loads(path.read_text())
    parameters = config.pop("rope_parameters")
    if "sliding_attention" in parameters:
        config["rope_local_base_freq"] = parameters["sliding_attention"]["rope_theta"]
        config["sliding_window_pattern"] = config.pop("layer_types").index("full_attention") + 1
        parameters = parameters["full_attention"]
    config["rope_theta"] = parameters.pop("rope_theta")
    config["rope_scaling"] = None if parameters["rope_type"] == "default" else parameters
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config, indent=2) + "\n")


def rounded(values, digits=6):
    return [round(float(v), digits) for v in values]


@torch.no_grad()
def golden(model, seed):
    generator = torch.Generator().manual_seed(seed)
    cases = []
    for length in PROMPT_LENGTHS:
        prompt = torch.randint(3, model.config.vocab_size, (length,), generator=generator).tolist()
        tokens = list(prompt)
        greedy = []
        for step in range(GREEDY_TOKENS):
            logits = model(torch.tensor([tokens])).logits[0]
            if step == 0:
                last_logits = rounded(logits[-1], 5)
                log_probs = logits.log_softmax(-1)
                prompt_logprobs = rounded(log_probs[i, prompt[i + 1]] for i in range(length - 1))
            best = logits[-1].log_softmax(-1).topk(TOP)
            greedy.append({"token": int(best.indices[0]), "logprob": round(float(best.values[0]), 6),
                           "gap": round(float(best.values[0] - best.values[1]), 6),
                           "top": best.indices.tolist(), "top_logprobs": rounded(best.values)})
            tokens.append(int(best.indices[0]))
        cases.append({"prompt": prompt, "last_logits": last_logits, "prompt_logprobs": prompt_logprobs,
                      "greedy": greedy})
    return cases


def make(index, name):
    (model_class, config), dtype, shard_bytes, old_rope = CHECKPOINTS[name]
    directory = HERE / name
    shutil.rmtree(directory, ignore_errors=True)
    model = model_class(config)
    randomize(model, 1000 + index)
    model.tie_weights()
    model.to(dtype).save_pretrained(directory, max_shard_size=shard_bytes or "1GB")
    (directory / "generation_config.json").unlink(missing_ok=True)
    if old_rope:
        rope_the_old_way(directory)
    model = model_class.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    cases = golden(model, 2000 + index)
    (directory / "golden.json").write_text(json.dumps({"cases": cases}, separators=(",", ":")) + "\n")
    greedy = [step for case in cases for step in case["greedy"]]
    print(f"{name}: {sum(p.numel() for p in model.parameters())} parameters, "
          f"{len({step['token'] for step in greedy})} different tokens, "
          f"{sum(step['gap'] < 0.01 for step in greedy)} ties of {len(greedy)}, "
          f"mean logprob {sum(step['logprob'] for step in greedy) / len(greedy):.2f}, "
          f"{sum(f.stat().st_size for f in directory.iterdir()) // 1024} KiB")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for number, checkpoint in enumerate(CHECKPOINTS):
        make(number, checkpoint)
