#!/usr/bin/env python3
"""A random Llama, and what Transformers computes with it in float32 on the same device, in the form of
tests/parity/checkpoints. gpu_torch.py DIRECTORY DEVICE [--small]. Ends with 3 where PyTorch or Transformers is missing."""

import json
import pathlib
import sys

try:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
except ImportError as error:
    print(f"python3 has no PyTorch and Transformers: {error}")
    sys.exit(3)

GREEDY_TOKENS, TOP = 16, 8


def main():
    directory, device, small = pathlib.Path(sys.argv[1]), sys.argv[2], "--small" in sys.argv
    if device == "cuda" and not torch.cuda.is_available():
        print("PyTorch sees no GPU")
        sys.exit(3)
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.set_grad_enabled(False)
    size = (64, 128, 2, 4, 2) if small else (512, 1408, 4, 8, 2)
    config = LlamaConfig(vocab_size=1000, hidden_size=size[0], intermediate_size=size[1], num_hidden_layers=size[2],
                         num_attention_heads=size[3], num_key_value_heads=size[4], max_position_embeddings=512,
                         rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False, initializer_range=0.05)
    rounded = LlamaForCausalLM(config).to(torch.bfloat16)
    directory.mkdir(parents=True, exist_ok=True)
    rounded.save_pretrained(directory)
    # Another one with the same weights: a conversion in place would round the rotary frequencies to bf16 as well. Not loaded
    # from the directory, for how from_pretrained is asked for float32 has changed between versions.
    model = LlamaForCausalLM(config).float()
    model.load_state_dict(rounded.state_dict())
    model = model.to(device).eval()

    generator = torch.Generator().manual_seed(2)
    cases = []
    for length in (1, 17, 63, 130):
        prompt = torch.randint(3, config.vocab_size, (length,), generator=generator).tolist()
        ids, greedy = list(prompt), []
        for _ in range(GREEDY_TOKENS):
            logits = model(torch.tensor([ids], device=device)).logits[0, -1].double()
            logprobs = torch.log_softmax(logits, -1)
            top = torch.topk(logprobs, TOP)
            token = int(top.indices[0])
            greedy.append({"token": token, "logprob": float(logprobs[token]), "gap": float(top.values[0] - top.values[1]),
                           "top": top.indices.tolist(), "top_logprobs": top.values.tolist()})
            ids.append(token)
        whole = torch.log_softmax(model(torch.tensor([prompt], device=device)).logits[0].double(), -1)
        cases.append({"prompt": prompt, "prompt_logprobs": [float(whole[i, prompt[i + 1]]) for i in range(length - 1)],
                      "greedy": greedy})
    (directory / "golden.json").write_text(json.dumps({"cases": cases}))


if __name__ == "__main__":
    main()
