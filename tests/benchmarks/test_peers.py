"""benchmarks/peers without a peer: its random GGUF files load and compute, and the comparison reads and writes what it should.

BANTAM_BIN names the program (default build/release/bantam)."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BANTAM = pathlib.Path(os.environ.get("BANTAM_BIN", ROOT / "build/release/bantam")).resolve()
CONFIG = {"vocab_size": 512, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
          "num_key_value_heads": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0}
# What the programs of llama.cpp print, of a machine that does 50 and 25 tokens/s.
STUBS = {"llama-bench": 'echo \'[{"avg_ts": 50.0}]\'', "llama-batched-bench": 'echo "a line that is no JSON"; echo \'{"speed_tg": 25.0}\''}


def random_gguf(folder, kind):
    shape = folder / "tiny"
    shape.mkdir()
    (shape / "config.json").write_text(json.dumps(CONFIG))
    out = folder / f"tiny-{kind}.gguf"
    subprocess.run([sys.executable, ROOT / "benchmarks/peers/make_random_gguf.py", shape, out, "--type", kind], check=True, timeout=120)
    return out


@pytest.mark.parametrize("kind", ["q4_0", "q8_0", "f16"])
def test_random_files_load_and_answer(tmp_path, kind):
    done = subprocess.run([BANTAM, "run", random_gguf(tmp_path, kind), "--prompt", "hello  you", "--max-tokens", "4"],
                          capture_output=True, timeout=120, check=False)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_comparison_with_a_peer_that_says_the_same_each_time(tmp_path):
    random_gguf(tmp_path, "q4_0")
    for name, command in STUBS.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{command}\n")
        (tmp_path / name).chmod(0o755)
    compare = [sys.executable, ROOT / "benchmarks/peers/compare_peers.py", "peers", "--bantam", BANTAM, "--shapes", "tiny",
               "--files", tmp_path, "--results", tmp_path, "--threads", "2", "--repeat", "2", "--prefill", "16", "--decode", "2",
               "--context", "8", "--output-len", "200", "--llama-cpp"]
    subprocess.run([*compare, tmp_path], check=True, timeout=120)
    prefill, decode = json.loads((tmp_path / "peers.json").read_text())["figures"]
    assert (prefill["what"], prefill["tok_s"]["llama.cpp"]) == ("prefill of 16", 50.0)
    assert (decode["what"], decode["tok_s"]["llama.cpp"]) == ("decode, 2 sequences, 8 of context", 25.0)
    for row in (prefill, decode):
        assert [len(values) for values in row["samples"].values()] == [2, 2]
        assert row["ratio"] == row["tok_s"]["bantam"] / row["tok_s"]["llama.cpp"] > 0
    assert "| tiny | prefill of 16 |" in (tmp_path / "peers.md").read_text()
    refused = subprocess.run([*compare, tmp_path / "tiny"], capture_output=True, text=True, timeout=120, check=False)
    assert refused.returncode == 1 and "llama-bench is no program that runs" in refused.stderr


def test_cpu_time_runs_both_programs(tmp_path):
    file = random_gguf(tmp_path, "q8_0")
    for name in STUBS:
        (tmp_path / name).write_text(f"#!/bin/sh\necho $0 \"$@\" >> {tmp_path}/calls\n")
        (tmp_path / name).chmod(0o755)
    done = subprocess.run([sys.executable, ROOT / "benchmarks/peers/cpu_time.py", file, "--llama-cpp", tmp_path, "--bantam", BANTAM, "--prefill", "16",
                           "--decode", "2", "--context", "8", "--repeat", "1"], capture_output=True, text=True, timeout=120, check=True)
    assert [line.split("  ")[0] for line in done.stdout.splitlines()] == ["prefill of 16", "decode, 2 sequences"]
    calls = (tmp_path / "calls").read_text().splitlines()
    assert ["-r 4" in call for call in calls[:2]] == [True, False] and all("llama-batched-bench" in call for call in calls[2:])
