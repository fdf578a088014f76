"""The demo model on the CUDA backend over the emulated device: Transformers' greedy text, and what is said without CUDA."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest

from test_demo_parity import BANTAM, GOLDENS, ROOT, SANITIZED, run

COST_S = 10
LIBRARY = pathlib.Path(BANTAM).parent / "libbantam_cuda_fake.so"
FEW = ("--max-num-seqs", "4", "--max-num-batched-tokens", "64", "--num-kv-blocks", "64")

# Emulated, a token takes some hundred times longer: the shortest of different kinds.
CASES = [GOLDENS[i] for i in (12, 40, 46)]


def prompt_of(case):
    return {"messages": case["messages"]} if "messages" in case else {"prompt": case["prompt"]}


@pytest.mark.parametrize("flags", [("--dtype", "float32"), ("--enforce-eager",), ("--quantization", "int8")])
def test_text_is_that_of_transformers(tmp_path, monkeypatch, flags):
    monkeypatch.setenv("BANTAM_CUDA_LIBRARY", str(LIBRARY))
    monkeypatch.setenv("BANTAM_FAKE_SEED", "7")
    cases = CASES[1:2] if SANITIZED else CASES if flags[0] == "--dtype" else CASES[:2]
    answers = run(tmp_path, [prompt_of(case) for case in cases], "--device", "cuda", "--max-tokens", "18", *FEW, *flags)
    assert [answer["token_ids"] for answer in answers] == [case["token_ids"] for case in cases]


def refused(tmp_path, *flags, program=BANTAM, **environment):
    command = [program, "run", str(ROOT / "demo/model"), "--prompt", "Hello", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment})
    assert done.returncode != 0
    return done.stderr


def test_without_cuda_it_says_so(tmp_path):
    library = {"BANTAM_CUDA_LIBRARY": str(LIBRARY)}
    assert "--device cpu" in refused(tmp_path, "--device", "cuda", BANTAM_CUDA_LIBRARY="/nowhere.so")
    assert "no NVIDIA driver" in refused(tmp_path, "--device", "cuda", BANTAM_FAKE_FAULT="driver", **library)
    assert "13.0" in refused(tmp_path, "--device", "cuda", BANTAM_FAKE_FAULT="old", **library)
    assert "no GPU 9" in refused(tmp_path, "--device", "cuda:9", **library)
    assert "not enough memory" in refused(tmp_path, "--device", "cuda", BANTAM_FAKE_MEMORY_MIB="1", **library)


def test_a_broken_library_is_not_taken_for_none(tmp_path):
    (tmp_path / "bin").mkdir()
    program = shutil.copy(BANTAM, tmp_path / "bin")  # with no library beside it
    (tmp_path / "libbantam_cuda.so").write_text("no library")
    said = refused(tmp_path, "--device", "cuda", program=program, BANTAM_CUDA_LIBRARY="", LD_LIBRARY_PATH=str(tmp_path))
    assert f"{tmp_path}/libbantam_cuda.so: file too short" in said
    assert "BANTAM_CUDA_LIBRARY names it elsewhere" in said


def test_auto_falls_back_to_the_cpu(tmp_path):
    command = [BANTAM, "run", str(ROOT / "demo/model"), "--prompt", "The train to", "--max-tokens", "4", "--json"]
    environment = {**os.environ, "BANTAM_CUDA_LIBRARY": str(LIBRARY), "BANTAM_FAKE_FAULT": "device"}
    done = subprocess.run([*command, "--device", "auto"], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["usage"]["completion_tokens"] > 0
