"""benchmarks/gpu/run without a GPU: every part on tiny shapes, a part that fails, a run that is cut. What it is for happens on
a rented machine, where it must not run for the first time.

BANTAM_BIN names the program (default build/release/bantam); the rest is taken from beside it. BANTAM_SANITIZED=1 says that it is
several times slower."""

import json
import os
import pathlib
import signal
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BANTAM_BIN", ROOT / "build/release/bantam")).resolve().parent
FAKE = BUILD / "libbantam_cuda_fake.so"

pytestmark = pytest.mark.skipif(os.environ.get("BANTAM_SANITIZED", "0") == "1", reason="a script: the release build is enough")


def run(out, *arguments, environment=None):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("BANTAM_")}
    done = subprocess.run(["python3", ROOT / "benchmarks/gpu/run", "--build", BUILD, "--no-build", "--small", "--out", out, *arguments],
                          env=clean | (environment or {}), cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    return done, json.loads(out.read_text())


def test_every_part_on_the_cpu(tmp_path):
    done, results = run(tmp_path / "gpu.json", "--device", "cpu", "--minutes", "12")
    assert done.returncode == 0, done.stdout + done.stderr
    parts = results["parts"]
    status = {name: part["status"] for name, part in parts.items()}
    assert {name for name in status if status[name] == "skipped"} <= {"build", "ceilings", "fragments", "torch", "products", "invariance_cost"}
    assert set(status.values()) <= {"ok", "skipped"}
    assert results["commit"] and results["machine"]["device"] == "cpu" and results["small"]
    assert parts["kernels"]["figures"]["summary"] == "all checks passed"
    compared = [figures["float32"] for figures in parts["parity"]["figures"].values() if "float32" in figures]
    assert compared and all(figures["worst_error_nats"] <= 1e-4 for figures in compared)
    assert parts["parity"]["figures"]["awq-g128"]["codes"]["mean_error_nats"] <= 0.12
    assert all(variant["differ"] == 0 for model in parts["bits"]["figures"].values() for variant in model.values())
    assert [row["batch"] for row in parts["decode"]["figures"]["bf16"]] == [1, 2]
    assert [(row["input_len"], row["output_len"]) for row in parts["offline"]["figures"]["bf16"]] == [(16, 8), (24, 4)]
    plain, shared = parts["load"]["figures"].values()
    assert plain[0]["total_cached_tokens"] == 0 < shared[0]["total_cached_tokens"]
    assert parts["start"]["figures"]["bf16"]["start_to_ready_s"] > 0
    assert {row["op"] for row in parts["ops"]["figures"]["rows"]} >= {"layer_linears", "attention_decode"}
    assert "decode bf16, batch 2" in done.stdout and "target" not in done.stdout


def test_parts_by_name_and_a_part_that_fails(tmp_path):
    """Without a GPU and its library the parts of a card say so, each on its own; the exit status does too."""
    done, results = run(tmp_path / "gpu.json", "--device", "cuda", "--only", "decode,load",
                        environment={"BANTAM_CUDA_LIBRARY": str(tmp_path / "missing.so")})
    assert done.returncode == 1
    assert list(results["parts"]) == ["decode", "load"]
    for part in results["parts"].values():
        assert part["status"] == "failed" and "missing.so" in part["error"]
    refused = subprocess.run(["python3", ROOT / "benchmarks/gpu/run", "--only", "everything"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2 and "no such part: everything" in refused.stderr


def test_parts_without_time_say_so(tmp_path):
    done, results = run(tmp_path / "gpu.json", "--device", "cpu", "--only", "offline,bits", "--minutes", "0")
    assert done.returncode == 1
    assert [part["status"] for part in results["parts"].values()] == ["failed", "failed"]
    assert all("no time left" in part["error"] for part in results["parts"].values())


def test_a_run_that_is_cut_keeps_what_it_has(tmp_path):
    out = tmp_path / "gpu.json"
    command = ["python3", ROOT / "benchmarks/gpu/run", "--build", BUILD, "--no-build", "--small", "--out", out, "--device", "cpu",
               "--only", "offline,bits", "--minutes", "14"]
    cut = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    seen = next((line for line in cut.stdout if line.startswith("--- bits")), "")  # the part before is over
    os.killpg(cut.pid, signal.SIGKILL)
    cut.communicate()
    assert seen
    assert json.loads(out.read_text())["parts"]["offline"]["status"] == "ok"


@pytest.mark.skipif(not FAKE.exists(), reason="no emulated card in this build")
def test_the_parts_of_a_card_on_an_emulated_one(tmp_path):
    done, results = run(tmp_path / "gpu.json", "--device", "cuda", "--only", "parity,decode,offline,load,products,invariance_cost,ops,start",
                        "--minutes", "14",
                        environment={"BANTAM_CUDA_LIBRARY": str(FAKE)})
    assert done.returncode == 0, done.stdout + done.stderr
    assert {row["batch"] for row in results["parts"]["decode"]["figures"]["FP8"]} == {1, 2}
    parts = {name: part["figures"] for name, part in results["parts"].items()}
    assert all(row["equal"] for row in parts["products"]["rows"]) and len(parts["products"]["equal_shapes"]) == 2
    assert {row["rows"] for row in parts["ops"]["rows"] if not row["batch_invariant"]} == {300}
    for bench in parts["invariance_cost"].values():
        assert len(bench["batch-invariant"]) == len(bench["not"]) > 0
    assert "--no-batch-invariant" in done.stdout


@pytest.mark.skipif(not FAKE.exists(), reason="no emulated card in this build")
def test_products_that_differ_are_said_and_are_no_failure(tmp_path):
    done, results = run(tmp_path / "gpu.json", "--device", "cuda", "--only", "products", "--minutes", "10",
                        environment={"BANTAM_CUDA_LIBRARY": str(FAKE), "BANTAM_FAKE_PRODUCT": "chain"})
    assert done.returncode == 0, done.stdout + done.stderr
    figures = results["parts"]["products"]["figures"]
    assert any(not row["equal"] and row["differing_rows"] > 0 for row in figures["rows"]) and figures["equal_shapes"] == []
    wrong, results = run(tmp_path / "gpu.json", "--device", "cuda", "--only", "products", "--minutes", "10",
                         environment={"BANTAM_CUDA_LIBRARY": str(FAKE), "BANTAM_FAKE_PRODUCT": "wrong"})
    assert wrong.returncode == 1 and "no rounding explains" in results["parts"]["products"]["error"]
    absent, results = run(tmp_path / "gpu.json", "--device", "cuda", "--only", "products", "--minutes", "10",
                          environment={"BANTAM_CUDA_LIBRARY": str(FAKE), "BANTAM_FAKE_PRODUCT": "absent"})
    assert absent.returncode == 1 and "cuBLASLt" in results["parts"]["products"]["error"]
