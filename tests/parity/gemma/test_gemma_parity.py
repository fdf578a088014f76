"""Gemma 3 270M from its GGUF file against Transformers in float32 on the same file. Needs the model: scripts/setup gemma."""

import json
import os
import pathlib
import subprocess
import sys
import zlib

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import gemma_model  # noqa: E402

BANTAM = os.environ.get("BANTAM_BIN", str(gemma_model.ROOT / "build/release/bantam"))
SANITIZED = os.environ.get("BANTAM_SANITIZED") == "1"
HERE = pathlib.Path(__file__).resolve().parent
COST_S = 30
CASES = json.loads((HERE / "gemma_goldens.json").read_text(encoding="utf-8"))["cases"]
*SHORTER, LONGEST = sorted(CASES, key=lambda case: len(case["prompt_token_ids"]))  # longer than the window
IDS = json.loads((HERE / "gemma_ids.json").read_text(encoding="utf-8"))
LIMITS = ("--max-model-len", "1024", "--max-num-seqs", "16")
F32_NATS, F32_TIE_NATS, TIE_NATS = 1e-3, 0.01, 0.25


@pytest.fixture(scope="module")
def model():
    path, why = gemma_model.find()
    if path is None:
        pytest.skip(why)
    if SANITIZED:
        pytest.skip("a quarter of a billion weights take too long under a sanitizer")
    return path


def run(model, tmp_path, prompts, *flags):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt_token_ids": ids}) + "\n" for ids in prompts))
    command = [BANTAM, "run", str(model), "--prompts", str(path), "--json", "--temperature", "0", "--ignore-eos", *LIMITS, *flags]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=1200)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def follow(case, answer):
    """The greedy answer against the reference's, token by token, until a tie may part them; false where one did."""
    for step, got in zip(case["answer"], answer["logprobs"]):
        gap = step["top_logprobs"][0] - step["top_logprobs"][1]
        if got["token_id"] != step["token"]:
            assert gap < F32_TIE_NATS, (got, step)
            return False
        assert abs(got["logprob"] - step["logprob"]) <= F32_NATS, (got, step)
    return True


def test_float32_is_that_of_transformers(model, tmp_path):
    answers = run(model, tmp_path, [case["prompt_token_ids"] for case in CASES], "--dtype", "float32",
                  "--max-tokens", str(len(CASES[0]["answer"])), "--logprobs", "1", "--prompt-logprobs", "0")
    assert len(answers) == len(CASES)
    whole = 0
    for case, answer in zip(CASES, answers):
        got = [entry["logprob"] for entry in answer["prompt_logprobs"]][-len(case["prompt_logprobs"]):]
        assert len(got) == len(case["prompt_logprobs"])
        for mine, theirs in zip(got, case["prompt_logprobs"]):
            assert abs(mine - theirs) <= F32_NATS
        if follow(case, answer):
            assert answer["text"] == case["text"]
            whole += 1
    assert whole > len(CASES) // 2


@pytest.mark.parametrize("cases, flags", [(SHORTER, ()), ([LONGEST], ("--max-num-batched-tokens", "64"))], ids=["together", "in chunks"])
def test_default_arithmetic_is_near(model, tmp_path, cases, flags):
    """The reference's answers as prompts: at each place the best token is the reference's, or nearly as good there."""
    prompts = [case["prompt_token_ids"] + [step["token"] for step in case["answer"]] for case in cases]
    answers = run(model, tmp_path, prompts, "--max-tokens", "1", "--prompt-logprobs", "1", *flags)
    errors = []
    for case, answer in zip(cases, answers):
        got = answer["prompt_logprobs"][-len(case["answer"]):]
        for step, entry in zip(case["answer"], got):
            errors.append(abs(entry["logprob"] - step["logprob"]))
            best = max(entry["top"], key=lambda item: item["logprob"])["token_id"]
            nats = dict(zip(step["top"], step["top_logprobs"]))
            assert best in nats and step["logprob"] - nats[best] <= TIE_NATS, (best, step)
    assert len(errors) == sum(len(case["answer"]) for case in cases)
    assert sum(errors) / len(errors) < 0.05


def test_ids_are_those_of_transformers(model):
    texts = gemma_model.texts()
    assert len(texts) == len(IDS) == 10_000
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    done = subprocess.run([BANTAM, "tokenize", str(model)], input=lines, capture_output=True, text=True, encoding="utf-8", timeout=600)
    assert done.returncode == 0, done.stderr
    got = [json.loads(line) for line in done.stdout.split("\n") if line]
    assert len(got) == len(texts)
    for text, ids, (count, checksum) in zip(texts, got, IDS):
        assert (len(ids), zlib.crc32(b"".join(i.to_bytes(4, "little") for i in ids))) == (count, checksum), (text, ids)
