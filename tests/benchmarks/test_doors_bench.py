"""`bantam bench doors` and benchmarks/peers/compare_doors.py, short: counts, never times.

BANTAM_BIN names the program (default build/release/bantam)."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BANTAM = pathlib.Path(os.environ.get("BANTAM_BIN", ROOT / "build/release/bantam")).resolve()
COST_S = 20
DOORS = [BANTAM, "bench", "doors"]
CODES = 256  # steps that the bench's tokens tell apart
# llama-server's arguments, for a server that answers the same requests.
LLAMA_SERVER = (f'exec "{BANTAM}" serve "$2" --threads 1 --max-num-seqs "$6" --max-model-len 1024 '
                '--http-port "${10}" --port 0 --no-metrics')


def run(*arguments):
    return subprocess.run([*DOORS, *arguments], capture_output=True, text=True, timeout=120, check=False)


def test_every_door_is_measured():
    done = run(ROOT / "demo/model", "--streams", "8", "--step-us", "2000", "--seconds", "0.3", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["streams"], report["step_us"], report["input_len"]) == (8, 2000, 16)
    assert [door["door"] for door in report["doors"]] == ["native", "facade", "http"]
    for door in report["doors"]:
        assert 0 < door["messages"] <= door["tokens"] <= 8 * (door["steps"] + CODES)
        assert 0 < door["added_p50_us"] <= door["added_p99_us"] <= door["added_max_us"]
        assert door["cpu_us_per_token"] > door["loop_cpu_us_per_token"] > 0 and door["rss_idle_bytes"] > 1 << 20
        assert [whole["in_flight"] for whole in door["wholes"]] == [1, 32]
        assert all(whole["requests"] >= whole["in_flight"] and whole["p50_us"] <= whole["p99_us"] for whole in door["wholes"])


def test_one_door_as_text():
    done = run(ROOT / "demo/model", "--door", "http", "--streams", "2", "--seconds", "0.1")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("2 streams, a step of 2.000 ms") and lines[1] == "http" and len(lines) == 8
    assert "32 in flight" in lines[-1]


def test_refusals(tmp_path):
    unknown = run(ROOT / "demo/model", "--door", "side")
    assert unknown.returncode == 2 and 'none of native, facade and http' in unknown.stderr
    sys.path.insert(0, str(ROOT / "benchmarks/peers"))
    import compare_doors  # its tiny shape: a tokenizer of bytes alone

    tiny = tmp_path / "tiny.gguf"
    compare_doors.make_random_gguf.write_gguf(compare_doors.SHAPE, "tiny", "q8_0", 1, tiny)
    bytes_alone = run(tiny, "--seconds", "0.1")
    assert bytes_alone.returncode == 2 and "the tokenizer has 0 tokens of 4 letters" in bytes_alone.stderr


@pytest.mark.skipif(os.environ.get("BANTAM_SANITIZED", "0") == "1", reason="a script: the release build is enough")
def test_comparison_with_a_peer_that_is_bantam_too(tmp_path):
    (tmp_path / "llama-server").write_text(f"#!/bin/sh\n{LLAMA_SERVER}\n")
    (tmp_path / "llama-server").chmod(0o755)
    compare = [sys.executable, ROOT / "benchmarks/peers/compare_doors.py", "doors", "--build", BANTAM.parent,
               "--results", tmp_path,
               "--streams", "2", "--door-streams", "4", "--tokens", "120",
               "--seconds", "0.2", "--repeat", "1", "--llama-cpp"]
    done = subprocess.run([*compare, tmp_path], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "doors.json").read_text())
    doors, http, grpc = results["figures"]
    assert list(doors["figures"]) == ["native", "facade", "http"] and doors["figures"]["http"]["requests_per_s_32_at_once"] > 0
    assert list(http["figures"]) == ["bantam", "llama.cpp"] and list(grpc["figures"]) == ["bantam", "grpcio"]
    for row in (http, grpc):
        ours, theirs = row["figures"].values()
        assert ours["tokens_per_s"] > 0 and theirs["tokens_per_s"] > 0 and theirs["cpu_us_per_token"] > 0
        assert row["ratios"]["cpu_us_per_token"] == ours["cpu_us_per_token"] / theirs["cpu_us_per_token"]
    assert all(figures["answers_per_s"] > 0 for figures in http["figures"].values())
    assert "| tokens_per_s |" in (tmp_path / "doors.md").read_text()
    refused = subprocess.run([*compare, tmp_path / "none"], capture_output=True, text=True, timeout=120, check=False)
    assert refused.returncode == 1 and "llama-server" in refused.stderr
