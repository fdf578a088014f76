#!/usr/bin/env python3
"""Accuracy of the demo model on its held-out set, answered by Bantam itself.

    python3 demo/evaluate.py [--bantam build/release/bantam] [--model demo/model] [--flags "--quantization int4"]

Every case of demo/heldout/*.jsonl goes through `bantam run`, greedily; an answer counts when it equals the expected text.
Prints a line per task, and the first wrong answers with --show. Ends with 1 when a narrow task is below --least.
"""

import argparse
import json
import pathlib
import shlex
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
NARROW_TASKS = ("ticket", "review", "order", "intent")  # one right answer each; "complete" is free text
MAX_TOKENS = 160


def load_cases(folder, limit):
    cases = []
    for path in sorted(folder.glob("*.jsonl")):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        cases += lines[:limit] if limit else lines
    return cases


def answer(bantam, model, cases, flags):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        for case in cases:
            file.write(json.dumps({"messages": case["messages"]}) + "\n")
        file.flush()
        command = [str(bantam), "run", str(model), "--prompts", file.name, "--json", "--temperature", "0"]
        command += ["--max-tokens", str(MAX_TOKENS), *flags]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, encoding="utf-8", check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    if len(answers) != len(cases):
        raise RuntimeError(f"{len(cases)} cases, {len(answers)} answers")
    return answers


def accuracy(cases, answers):
    """task -> (right, all, [(case, answer text)] of the wrong ones)"""
    tasks = {}
    for case, got in zip(cases, answers):
        right, count, wrong = tasks.get(case["task"], (0, 0, []))
        correct = got["text"].strip() == case["expected"].strip()
        tasks[case["task"]] = (right + correct, count + 1, wrong if correct else wrong + [(case, got["text"])])
    return tasks


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bantam", default=ROOT / "build/release/bantam")
    parser.add_argument("--model", default=ROOT / "demo/model")
    parser.add_argument("--heldout", type=pathlib.Path, default=ROOT / "demo/heldout")
    parser.add_argument("--flags", default="", help="more flags for bantam run")
    parser.add_argument("--limit", type=int, default=0, help="cases of each task; 0 = all")
    parser.add_argument("--least", type=float, default=0.95, help="accuracy that each narrow task must reach")
    parser.add_argument("--show", type=int, default=0, help="wrong answers to print for each task")
    arguments = parser.parse_args()
    cases = load_cases(arguments.heldout, arguments.limit)
    tasks = accuracy(cases, answer(arguments.bantam, arguments.model, cases, shlex.split(arguments.flags)))
    failed = False
    for task, (right, count, wrong) in sorted(tasks.items()):
        narrow = task in NARROW_TASKS
        below = narrow and right < arguments.least * count
        failed |= below
        note = "BELOW" if below else ("" if narrow else "free text: equality is not expected")
        print(f"{task:10} {right:5} of {count:5}  {100 * right / count:6.2f} %  {note}".rstrip())
        for case, got in wrong[: arguments.show]:
            print(f"    {case['messages'][-1]['content']!r}\n      expected {case['expected']!r}\n      got      {got!r}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
