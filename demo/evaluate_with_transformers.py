#!/usr/bin/env python3
"""Measures the demo model on the held-out set with Transformers (greedy, float32): exact match of every task.

    python3 demo/evaluate_with_transformers.py                     # all of demo/heldout
    python3 demo/evaluate_with_transformers.py --task order --show 10
"""

import argparse
import json
import pathlib

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TASKS = ("ticket", "review", "order", "intent", "complete")
MAX_NEW_TOKENS = 120


def load_lines(path, limit):
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return lines[:limit] if limit else lines


@torch.inference_mode()
def answers(model, tokenizer, conversations, batch_size):
    """The model's greedy answers, batch by batch, padded on the left."""
    found = []
    for start in range(0, len(conversations), batch_size):
        batch = conversations[start : start + batch_size]
        texts = [tokenizer.apply_chat_template(m, tokenize=False, add_generation_prompt=True) for m in batch]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False)
        output = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            do_sample=False,
            max_new_tokens=MAX_NEW_TOKENS,
            pad_token_id=tokenizer.pad_token_id,
        )
        rows = output[:, inputs["input_ids"].shape[1] :]
        found += [tokenizer.decode(row, skip_special_tokens=True) for row in rows]
    return found


def main():
    here = pathlib.Path(__file__).parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=pathlib.Path, default=here / "model")
    parser.add_argument("--heldout", type=pathlib.Path, default=here / "heldout")
    parser.add_argument("--task", choices=TASKS, action="append", help="only this task (may be given again)")
    parser.add_argument("--limit", type=int, default=0, help="only the first lines of each task")
    parser.add_argument("--show", type=int, default=0, help="print so many wrong answers a task")
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    for task in args.task or TASKS:
        lines = load_lines(args.heldout / f"{task}.jsonl", args.limit)
        found = answers(model, tokenizer, [line["messages"] for line in lines], args.batch_size)
        wrong = [(line, answer) for line, answer in zip(lines, found) if answer != line["expected"]]
        right = len(lines) - len(wrong)
        print(f"{task}: {right} of {len(lines)} right, {100 * right / len(lines):.1f} %", flush=True)
        for line, answer in wrong[: args.show]:
            print(f"  {line['messages'][-1]['content']!r}\n    expected {line['expected']!r}\n    answered {answer!r}")


if __name__ == "__main__":
    main()
