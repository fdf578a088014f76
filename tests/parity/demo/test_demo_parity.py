"""The demo model through Bantam: Transformers' greedy text on 50 prompts, and the held-out accuracy."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "demo"))
import evaluate  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[3]
BANTAM = os.environ.get("BANTAM_BIN", str(ROOT / "build/release/bantam"))
SANITIZED = os.environ.get("BANTAM_SANITIZED") == "1"
COST_S = 40
GOLDENS = json.loads((ROOT / "tests/parity/demo/goldens.json").read_text(encoding="utf-8"))["cases"]
CASES = GOLDENS[::5] if SANITIZED else GOLDENS  # some of each kind
HELDOUT = 4 if SANITIZED else 300  # of a task


def run(tmp_path, prompts, *flags):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts), encoding="utf-8")
    command = [BANTAM, "run", str(ROOT / "demo/model"), "--prompts", str(path), "--json", "--temperature", "0", *flags]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=600)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def prompt_of(case):
    return {"messages": case["messages"]} if "messages" in case else {"prompt": case["prompt"]}


def test_goldens_are_complete():
    assert len(GOLDENS) == 50


def test_text_is_that_of_transformers(tmp_path):
    answers = run(tmp_path, [prompt_of(case) for case in CASES], "--dtype", "float32", "--max-tokens", "48")
    assert len(answers) == len(CASES)
    for case, got in zip(CASES, answers):
        assert got["prompt_token_ids"] == case["prompt_token_ids"], case["prompt_text"]
        assert got["token_ids"] == case["token_ids"], case["prompt_text"]
        assert got["text"] == case["text"]
        assert got["finish_reason"] == case["finish_reason"]


@pytest.fixture(scope="module", params=["none", "int8", "int4"])
def heldout(request):
    """task -> (right, all, wrong answers)"""
    cases = [case for case in evaluate.load_cases(ROOT / "demo/heldout", HELDOUT) if case["task"] in evaluate.NARROW_TASKS]
    answers = evaluate.answer(BANTAM, ROOT / "demo/model", cases, ["--quantization", request.param])
    return evaluate.accuracy(cases, answers)


@pytest.mark.parametrize("task", evaluate.NARROW_TASKS)
def test_heldout_accuracy(heldout, task):
    right, count, wrong = heldout[task]
    assert count == HELDOUT
    # Few cases a task under a sanitizer: whether it runs at all is the question there.
    assert right >= (0.5 if SANITIZED else 0.95) * count, wrong[:3]
