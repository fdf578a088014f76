#!/usr/bin/env python3
"""Writes what Transformers makes of Gemma 3 270M's GGUF file, its tensors dequantised and computed in float32.

    python3 tests/parity/gemma/make_gemma_goldens.py

It needs torch, transformers, gguf, and the model (gemma_model.py says where from). No weight is written.
  gemma_goldens.json  for each prompt its ids, the log-probability of each of its tokens, and a greedy answer: its text, its
                      ids, their log-probabilities, and the best alternatives
  gemma_ids.json      the number of ids and a checksum of them for each of the texts of gemma_model.py
"""

import json
import pathlib
import zlib

import gemma_model
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = pathlib.Path(__file__).resolve().parent
ANSWER_TOKENS, TOP = 48, 8
LONG_PROMPT_TOKENS = 700  # longer than the window of 512
PROMPTS = (
    "The capital of France is",
    "Once upon a time there was a little girl who",
    "The three laws of motion, as stated by Isaac Newton, are:\n\n1.",
    "def fibonacci(n):\n    \"\"\"Return the n-th Fibonacci number.\"\"\"\n",
    "#include <stdio.h>\n\nint main(void)\n{\n    for (int i = 0; i < 10; i++)",
    "Die Hauptstadt von Deutschland ist",
    "Q: What is the boiling point of water at sea level?\nA:",
    "Monday, Tuesday, Wednesday,",
)


@torch.inference_mode()
def make_case(model, tokenizer, prompt):
    ids, answer = list(prompt), []
    output = model(input_ids=torch.tensor([ids]), use_cache=True)
    log_probs = output.logits[0].log_softmax(-1)
    prompt_logprobs = [round(log_probs[i, ids[i + 1]].item(), 6) for i in range(len(ids) - 1)]
    for _ in range(ANSWER_TOKENS):
        best = output.logits[0, -1].log_softmax(-1).topk(TOP)
        answer.append({"token": best.indices[0].item(), "logprob": round(best.values[0].item(), 6),
                       "top": best.indices.tolist(), "top_logprobs": [round(v, 6) for v in best.values.tolist()]})
        output = model(input_ids=best.indices[:1][None], past_key_values=output.past_key_values, use_cache=True)
    text = tokenizer.decode([step["token"] for step in answer], skip_special_tokens=True)
    print(repr(text), flush=True)
    return {"prompt_token_ids": prompt, "prompt_logprobs": prompt_logprobs, "answer": answer, "text": text}


def checksum(ids):
    return zlib.crc32(b"".join(i.to_bytes(4, "little") for i in ids))


def main():
    path, why = gemma_model.find()
    if path is None:
        raise SystemExit(why)
    tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    encoded = [tokenizer(text).input_ids for text in gemma_model.texts()]
    (HERE / "gemma_ids.json").write_text(json.dumps([[len(ids), checksum(ids)] for ids in encoded], separators=(",", ":")) + "\n")
    model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager").eval()
    prompts = [tokenizer(prompt).input_ids for prompt in PROMPTS]
    prompts.append(tokenizer((gemma_model.ROOT / "LICENSE").read_text(encoding="utf-8")).input_ids[:LONG_PROMPT_TOKENS])
    cases = [make_case(model, tokenizer, prompt) for prompt in prompts]
    (HERE / "gemma_goldens.json").write_text(json.dumps({"cases": cases}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
