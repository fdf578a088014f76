"""benchmarks/gpu/run without a GPU: every part on tiny shapes, a part that fails, a run that is cut. What it is for happens on
a rented machine, where it must not run for the first time.

BANTAM_BIN names the program (default build/release/bantam); the rest is taken from beside it. BANTAM_SANITIZED=1 says that it is
several times slower."""

import importlib.machinery
import importlib.util
import json
import os
import pathlib
import re
import resource
import signal
import subprocess
import sys
import types

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("BANTAM_BIN", ROOT / "build/release/bantam")).resolve().parent
FAKE = BUILD / "libbantam_cuda_fake.so"

COST_S = 50
pytestmark = pytest.mark.skipif(os.environ.get("BANTAM_SANITIZED", "0") == "1", reason="a script: the release build is enough")


def load_script(name):
    """A file of benchmarks/gpu as a module."""
    sys.path.insert(0, str(ROOT / "benchmarks/gpu"))
    try:
        loader = importlib.machinery.SourceFileLoader(f"gpu_{name}_tested", str(ROOT / "benchmarks/gpu" / name))
        module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
        loader.exec_module(module)
        return module
    finally:
        sys.path.pop(0)


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
    assert plain[0]["steady_s"] > 0 and plain[0]["steady_request_throughput"] >= 0
    assert all(model["bf16"]["start_to_ready_s"] > 0 for model in parts["start"]["figures"].values())
    assert set(parts["start"]["figures"]) == {"llama-3.2-1b", "llama-3.1-8b"}
    assert {row["op"] for row in parts["ops"]["figures"]["rows"]} >= {
        "layer_linears", "attention_decode", "decode_layer", "embed", "lm_head", "lm_head_greedy", "lm_head_top_p"}
    assert [row["rows"] for row in parts["ops"]["figures"]["shared"]] == [4]
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


def test_targets_stand_beside_what_they_are_of(capsys):
    """Of the rates, batches and ops the one that has a target, and no other."""
    script = load_script("run")

    def load(rate, served):
        return {"request_rate": rate, "steady_request_throughput": served, "request_throughput": served / 2, "p50_ttft_ms": 64}

    def op(name, weights, group, rows):
        return {"op": name, "weights": weights, "group": group, "rows": rows, "kv": "fp8", "batch_invariant": True, "us": 42.4,
                **({"share_of_copy": 0.5} if rows != 32 else {})}  # without ceilings the time still counts

    figures = {
        "decode": {"W8A8": [{"batch": 1, "decode_tok_s": 300}],
                   "FP8": [{"batch": 1, "decode_tok_s": 358}, {"batch": 32, "decode_tok_s": 8028}]},
        "load": {"800/200": [load(30, 30.1), load(58, 57.9)], "800/200, 600 shared": [load(58, 58.1), load(120, 119.5)]},
        "ops": {"rows": [op("layer_linears", "int4", 32, 1), op("layer_linears", "int4", 128, 1), op("layer_linears", "uint4", 128, 1),
                         op("layer_linears", "int4", 128, 16), op("attention_decode", "", 0, 1), op("attention_decode", "", 0, 32)]},
        "invariance_cost": {"offline FP8": {"batch-invariant": [{"input_len": 1000, "output_len": 1000, "output_tok_s": 14433}],
                                            "not": [{"input_len": 1000, "output_len": 1000, "output_tok_s": 14736}]}},
        "start": {"llama-3.1-8b": {"checkpoint_bytes": 16e9, "FP8": {"start_to_ready_s": 9.5}}},
    }
    parts = {name: {"status": "ok", "figures": value} for name, value in figures.items()}
    script.print_table(types.SimpleNamespace(small=False, results={"parts": parts}))
    lines = capsys.readouterr().out.splitlines()
    targets = {line[:36].strip(): line[73:].strip() for line in lines if line[73:].strip() and not line.startswith(" ")}
    assert targets == {"decode FP8, batch 1": "400", "800/200 at 58/s": "58 RPS", "800/200, 600 shared at 120/s": "120 RPS, 200 ms",
                       "layer_linears int4/128, 1 rows": "75 %", "layer_linears int4/128, 16 rows": "85 %",
                       "attention_decode fp8, 32 rows": "80 %", "offline FP8 1000/1000, invariance": "2 %",
                       "start llama-3.1-8b FP8": "2 s and the copy"}
    assert any("57.9 RPS" in line for line in lines)
    assert any(line.startswith("offline FP8 1000/1000") and "costs 2.1 %: 14433 for 14736 tok/s" in line for line in lines)
    assert any("42.4 us, 50 % of the copy" in line for line in lines)
    assert any(line.split("rows")[-1].split() == ["42.4", "us", "80", "%"] for line in lines)


def test_the_docs_have_the_parts_in_their_order():
    """And what has a target fits the ten minutes by its limits, the build aside."""
    script = load_script("run")
    table = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs/gpu-benchmark.md").read_text(), re.MULTILINE)
    assert table == list(script.PARTS)
    limits = [limit_s for name, (_, limit_s) in script.PARTS.items() if name not in ("build", *script.WITHOUT_TARGETS)]
    assert sum(limits) <= 600
    assert tuple(script.PARTS)[-len(script.WITHOUT_TARGETS):] == script.WITHOUT_TARGETS


def test_the_build_that_is_told_of_is_parallel():
    """Preset engine takes make, which compiles one file at a time unless it is told."""
    command, told = "cmake --build --preset engine", 0
    for path in [ROOT / "README.md", ROOT / "scripts/bundle", *(ROOT / "docs").glob("*.md")]:
        text = path.read_text()
        told += text.count(command)
        assert text.count(command) == text.count(command + ' --parallel "$(nproc)"'), path
    assert told >= 3


def test_the_commit_is_of_what_was_unpacked(tmp_path):
    """Also where a bundle lies inside another repository."""
    session = load_script("gpu_session.py")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", "-C", tmp_path]
    for command in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "another"]):
        subprocess.run([*git, *command], check=True)
    describe = subprocess.run([*git, "describe", "--always", "--abbrev=12"], capture_output=True, text=True, check=True)
    inside = tmp_path / "bantam"
    (inside / "build/bundled").mkdir(parents=True)
    assert session.commit(inside) is None
    (inside / "build/bundled/commit").write_text("0123456789ab\n")
    assert session.commit(inside) == "0123456789ab"
    assert session.commit(tmp_path) == describe.stdout.strip()


def test_shares_are_of_the_ceiling_of_the_type():
    script = load_script("gpu_figures.py")
    ceilings = {"copy": 4000.0, "GEMM bf16": 800.0, "GEMM FP8": 1600.0}

    def share(weights, flops=1e12):
        row = {"op": "layer_linears", "weights": weights, "gb_s": 1000.0, "tflop_s": 400.0, "flops": flops}
        script.add_shares(row, ceilings)
        assert row["share_of_copy"] == 0.25
        return row.get("share_of_gemm"), row.get("gemm")

    assert share("fp8") == (0.25, "GEMM FP8")
    assert share("bf16") == share("int4") == share("int8") == share("") == (0.5, "GEMM bf16")
    assert share("w8a8") == share("bf16", flops=0) == (None, None)  # no ceiling of int8; no products
    del ceilings["GEMM FP8"]
    assert share("fp8") == (None, None)


def test_a_shared_prefix_stands_beside_as_many_rows_without():
    script = load_script("gpu_figures.py")
    rows = [{"op": op, "kv": "fp8", "rows": n, "us": us} for op, n, us in
            [("attention_decode", 32, 19.6), ("attention_decode", 64, 35.7), ("attention_shared", 64, 42.2),
             ("attention_shared", 256, 105.7)]]
    assert script.shared_beside_unshared(rows) == [{"kv": "fp8", "rows": 64, "shared_us": 42.2, "unshared_us": 35.7}]
    session = types.SimpleNamespace(device="cuda", small=False, bantam="bantam")
    commands = [command for _, command in script.ops_commands(session)]

    def rows_of(op):
        return [{command[i + 1] for i, word in enumerate(command) if word == "--rows"} for command in commands if op in command]

    plain, shared = rows_of("attention_decode"), rows_of("attention_shared")
    assert len(plain) == len(shared) == 2 and all(a >= b for a, b in zip(plain, shared))


def test_ceilings_say_what_is_missing(tmp_path, capsys):
    script = load_script("gpu_figures.py")
    session = types.SimpleNamespace(device="cuda", build=tmp_path, rows=lambda argv, into: into.extend(
        [{"what": "copy", "value": 4291.0, "unit": "GB/s"}]))
    with pytest.raises(script.PartFailed, match=f"was not built: `cmake --build {tmp_path} --target ceilings`"):
        script.part_ceilings(session, {})
    (tmp_path / "benchmarks/gpu").mkdir(parents=True)
    (tmp_path / "benchmarks/gpu/ceilings").touch()
    figures = {}
    script.part_ceilings(session, figures)
    assert [row["what"] for row in figures["rows"]] == ["copy"] and "without cuBLASLt" in capsys.readouterr().out


def test_no_checkpoint_stays_behind(tmp_path, monkeypatch):
    """Of 16 GB: not where time is up while it is written, and not where the disk is full."""
    script = load_script("gpu_figures.py")
    lefts = iter([1, 1, 0])
    session = types.SimpleNamespace(device="cpu", small=True, work=tmp_path, left_s=lambda: next(lefts))
    monkeypatch.setattr(script, "random_bf16", lambda n: bytes(2 << 10))  # in pieces
    with pytest.raises(script.PartFailed, match=r"time was up with .* GB .*start-llama-3.2-1b still to be written"):
        script.part_start(session, {})
    session.left_s, before = lambda: 1, resource.getrlimit(resource.RLIMIT_FSIZE)
    signal_before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100 << 10, before[1]))
        with pytest.raises(OSError):
            script.part_start(session, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, signal_before)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["config.json"]


def test_parts_without_time_say_so(tmp_path):
    done, results = run(tmp_path / "gpu.json", "--device", "cpu", "--only", "offline,bits", "--minutes", "0")
    assert done.returncode == 1
    assert [part["status"] for part in results["parts"].values()] == ["failed", "failed"]
    assert all("no time left" in part["error"] for part in results["parts"].values())


def test_a_run_that_is_cut_keeps_what_it_has(tmp_path):
    out = tmp_path / "gpu.json"
    command = ["python3", ROOT / "benchmarks/gpu/run", "--build", BUILD, "--no-build", "--small", "--out", out, "--device", "cpu",
               "--only", "offline,load", "--minutes", "14"]
    cut = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    seen = next((line for line in cut.stdout if line.startswith("--- load")), "")  # the part before is over
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
    assert all({row["batch"] for row in results["parts"]["decode"]["figures"][name]} == {1, 2} for name in ("FP8", "W8A8"))
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
