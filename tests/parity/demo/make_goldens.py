#!/usr/bin/env python3
"""Writes goldens.json: what Transformers answers, greedily and in float32, to 50 prompts of the demo model.

    python3 tests/parity/demo/make_goldens.py

It needs torch and transformers. Each entry of "cases" has
  task               ticket, review, order, intent, complete, or plain (text without a chat)
  messages or prompt what was asked
  prompt_text        the text that goes to the tokenizer: the rendered chat, or the prompt without the begin token
  prompt_token_ids   its ids, begin token included
  token_ids          the greedy answer, the end token included where there was one
  text               the answer as text, special tokens left out
  finish_reason      stop (an end token came) or length
  logit_gaps         for each step the best logit minus the second best: how far from a tie it was
Prompts whose smallest gap is not above MIN_GAP are passed over, so that rounding can not change an answer.
"""

import argparse
import json
import pathlib

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

MIN_GAP = 0.02
MAX_NEW_TOKENS = 48
CASES_PER_TASK = {"ticket": 9, "review": 8, "order": 10, "intent": 9, "complete": 7}
PLAIN_PROMPTS = (
    "On a cold winter day the carpenter picked up the saw and",
    "Early in the morning the fisherman",
    "The sun was shining, and",
    "Everybody knows that",
    "The opposite of loud is",
    "Anna was a doctor. Anna",
    "The dog",
    "After Wednesday comes",
    "It was raining, and the streets were",
    "Then the shepherd",
    "The capital of Japan is",
    "He was hungry, so he",
    "Before the sun came up the farmer",
    "The cat",
)
PLAIN_CASES = 7


@torch.inference_mode()
def greedy(model, prompt_ids, end_ids):
    """(answer ids, gap of each step): one forward pass over the whole text a step, no cache."""
    ids, gaps = list(prompt_ids), []
    for _ in range(MAX_NEW_TOKENS):
        logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
        best = torch.topk(logits, 2)
        gaps.append(round((best.values[0] - best.values[1]).item(), 5))
        ids.append(best.indices[0].item())
        if ids[-1] in end_ids:
            break
    return ids[len(prompt_ids) :], gaps


def make_case(model, tokenizer, end_ids, task, asked):
    if "messages" in asked:
        text = tokenizer.apply_chat_template(asked["messages"], tokenize=False, add_generation_prompt=True)
        prompt_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    else:
        text = asked["prompt"]
        prompt_ids = tokenizer(text)["input_ids"]
    token_ids, gaps = greedy(model, prompt_ids, end_ids)
    return {
        "task": task,
        **asked,
        "prompt_text": text,
        "prompt_token_ids": prompt_ids,
        "token_ids": token_ids,
        "text": tokenizer.decode(token_ids, skip_special_tokens=True),
        "finish_reason": "stop" if token_ids[-1] in end_ids else "length",
        "logit_gaps": gaps,
    }


def asked_by_task(heldout):
    for task, count in CASES_PER_TASK.items():
        lines = (heldout / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
        yield task, count, [{"messages": json.loads(line)["messages"]} for line in lines]
    yield "plain", PLAIN_CASES, [{"prompt": prompt} for prompt in PLAIN_PROMPTS]


def main():
    here = pathlib.Path(__file__).parent
    demo = here.parents[2] / "demo"
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=pathlib.Path, default=demo / "model")
    parser.add_argument("--heldout", type=pathlib.Path, default=demo / "heldout")
    parser.add_argument("--out", type=pathlib.Path, default=here / "goldens.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32).eval()
    end_ids = set(model.generation_config.eos_token_id)
    cases, passed_over = [], 0
    for task, count, candidates in asked_by_task(args.heldout):
        found = []
        for asked in candidates:
            if len(found) == count:
                break
            case = make_case(model, tokenizer, end_ids, task, asked)
            if min(case["logit_gaps"]) > MIN_GAP:
                found.append(case)
            else:
                passed_over += 1
        assert len(found) == count, f"{task}: only {len(found)} prompts without a near tie"
        cases += found
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    header = f'"min_gap": {MIN_GAP}, "max_new_tokens": {MAX_NEW_TOKENS}, "dtype": "float32", "eos_token_ids": {sorted(end_ids)}'
    args.out.write_text(f'{{{header}, "cases": [\n{lines}\n]}}\n', encoding="utf-8")
    print(f"{len(cases)} cases, {passed_over} passed over")


if __name__ == "__main__":
    main()
