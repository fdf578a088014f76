"""What `bantam bench` prints, and how it refuses."""

import errno
import json
import os
import pathlib
import re
import signal
import subprocess
import time

import pytest
from cli_tools import BIN, DEMO, IDS_ONLY, LIMIT_S, LLAMA, SANITIZED, assert_refused, run, run_json

COST_S = 6


def test_bench_throughput_json():
    # More tokens than wait for a slow reader at once: some are always read after the first of each prompt.
    (result,) = run_json("bench", "throughput", LLAMA, "--input-len", 40, "--output-len", 200, "--num-prompts", 5, "--threads", 2,
                         "--json")
    for field in ("prefill_tok_s", "decode_tok_s", "elapsed_s"):
        assert result[field] > 0
    assert result["peak_rss_bytes"] > 1 << 20
    assert result["input_tokens"] == 200 and result["output_tokens"] == 1000
    assert result["steps"] >= 199  # the last step is counted after its tokens are out
    plain = run("bench", "throughput", LLAMA, "--input-len", 8, "--output-len", 1, "--num-prompts", 1)
    assert plain.returncode == 0 and "prefill" in plain.stdout and "tok/s" in plain.stdout


@pytest.mark.skipif(SANITIZED, reason="sanitizers take memory of their own")
@pytest.mark.parametrize(("quantization", "streams"), [("none", 1), ("none", 32), ("int8", 32), ("int4", 32)])
def test_peak_memory_is_within_the_plan(quantization, streams):
    """With every KV block in use at the end."""
    (result,) = run_json("bench", "throughput", DEMO, "--quantization", quantization, "--input-len", 128, "--output-len", 64,
                         "--num-prompts", streams, "--max-num-seqs", streams, "--max-model-len", 192, "--json")
    assert result["peak_rss_bytes"] <= result["planned_bytes"]


def test_larger_groups_of_weights_take_less_memory():
    arguments = ["bench", "throughput", DEMO, "--input-len", 8, "--output-len", 2, "--num-prompts", 1, "--json", "--quantization"]
    for quantization in ("int8", "int4"):
        planned = [run_json(*arguments, quantization, "--quantization-group", group)[0]["planned_bytes"] for group in (32, 64, 128)]
        assert planned[0] > planned[1] > planned[2]
    assert_refused(run(*arguments, "int4", "--quantization-group", 48), 2, "--quantization-group", "48", "32", "128")


def test_bench_throughput_refuses(tmp_path):
    assert_refused(run("bench", "throughput", LLAMA, "--input-len", 300), 2, "300", "256")
    assert_refused(run("bench", "throughput", LLAMA, "--num-prompts", 0), 2, "--num-prompts")
    assert_refused(run("bench", "throughput", tmp_path), 1, "config.json")


def test_bench_throughput_series():
    first, second = run_json("bench", "throughput", LLAMA, "--shape", "20:4:3", "--shape", "8:2:5", "--json")
    assert (first["input_tokens"], first["output_tokens"], first["num_prompts"]) == (60, 12, 3)
    assert (second["input_len"], second["output_len"], second["output_tokens"]) == (8, 2, 10)
    assert first["start_to_ready_s"] == second["start_to_ready_s"] > 0
    assert_refused(run("bench", "throughput", LLAMA, "--shape", "20:4"), 2, "--shape", "20:4")


def test_bench_decode():
    first, second = run_json("bench", "decode", LLAMA, "--batch", 2, "--batch", 5, "--context", 64, "--steps", 12, "--json")
    assert (first["batch"], second["batch"]) == (2, 5)
    for result in (first, second):
        assert result["decode_tok_s"] > 0 and result["ms_per_step"] > 0 and result["preemptions"] == 0
        assert result["tokens"] >= 12 * result["batch"] and 48 <= result["mean_context"] <= 256
    plain = run("bench", "decode", LLAMA, "--context", 64, "--steps", 12)
    assert plain.returncode == 0 and re.search(r"batch +1 .*tok/s .*ms per step", plain.stdout)
    (shared,) = run_json("bench", "decode", LLAMA, "--batch", 5, "--context", 64, "--steps", 12, "--shared-prefix-len", 32, "--json")
    assert shared["tokens"] >= 5 * 12 and shared["decode_tok_s"] > 0
    assert_refused(run("bench", "decode", LLAMA, "--context", 64, "--steps", 12, "--shared-prefix-len", 50), 2, "50", "prompts")
    assert_refused(run("bench", "decode", LLAMA, "--batch", "many"), 2, "--batch", "many")
    assert_refused(run("bench", "decode", LLAMA, "--context", 20), 2, "context")


def test_bench_latency():
    first, second = run_json("bench", "latency", LLAMA, "--input-len", 40, "--output-len", 5, "--prefix-len", 32,
                             "--num-prompts", 20, "--num-warmups", 2, "--request-rate", 400, "--request-rate", "inf",
                             "--goodput", "ttft:60000", "--json", "--save-detailed")
    assert first["request_rate"] == 400 and second["request_rate"] == "inf"
    for result in (first, second):
        assert result["completed"] == 20 and result["failed"] == 0
        assert result["total_input_tokens"] == 800 and result["total_output_tokens"] == 100
        assert result["total_cached_tokens"] == 20 * 32
        assert result["request_goodput"] == result["request_throughput"] > 0
        assert 0 < result["p50_ttft_ms"] <= result["p99_ttft_ms"] <= result["p99_e2el_ms"]
        assert len(result["ttfts"]) == 20 and len(result["itls"]) == 80 and set(result["errors"]) == {""}
        assert result["start_to_ready_s"] > 0
    assert first["start_times"] == sorted(first["start_times"]) and first["duration"] >= 20 / 400
    assert set(second["start_times"]) != set(first["start_times"])
    assert first["steady_s"] == pytest.approx(20 / 400 / 2, rel=0.01) and "steady_s" not in second  # half of the arrivals
    assert first["steady_request_throughput"] * first["steady_s"] <= 20
    plain = run("bench", "latency", LLAMA, "--num-prompts", 2, "--output-len", 2)
    assert plain.returncode == 0 and "TTFT" in plain.stdout and "goodput" not in plain.stdout
    goal = run("bench", "latency", LLAMA, "--num-prompts", 2, "--output-len", 2, "--goodput", "ttft:60000")
    assert re.search(r"^goodput +[\d.]+ requests/s$", goal.stdout, re.M) and "interrupted" not in goal.stdout
    assert_refused(run("bench", "latency", LLAMA, "--request-rate", "soon"), 2, "--request-rate", "soon")
    assert_refused(run("bench", "latency", LLAMA, "--input-len", 300), 2, "300", "256")
    assert_refused(run("bench", "latency", LLAMA, "--goodput", "speed:1"), 2, "speed:1")


def wait_for_handler(process):
    """Until the process, or what it became, looks out for SIGINT."""
    caught = 0
    while not caught & 1 << signal.SIGINT - 1:
        assert process.poll() is None, "it ended before"
        status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
        caught = int(re.search(r"^SigCgt:\s+(\w+)$", status, re.M)[1], 16)
        time.sleep(0.005)


@pytest.mark.parametrize("as_json", [False, True])
def test_bench_latency_stopped(as_json):
    """Ctrl-C: the report of what has ended, one arrival an hour from the rest."""
    command = [str(BIN), "bench", "latency", str(LLAMA), "--request-rate", "0.0003", "--num-prompts", "50", "--output-len", "2",
               *(["--json"] if as_json else [])]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("BANTAM_")}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean) as process:
        wait_for_handler(process)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130, stderr
    if as_json:
        report = json.loads(stdout)
        assert report["interrupted"] and report["num_prompts"] == 50 and report["completed"] < 50 and report["failed"] == 0
    else:
        assert re.search(r"^stopped +after \d+ of 50 requests", stdout, re.M) and "goodput" not in stdout


def wait_for_reader(process, pipe):
    """The pipe's other end, once the process has begun to read."""
    while True:
        assert process.poll() is None, "it ended before"
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            assert error.errno == errno.ENXIO
        time.sleep(0.005)


@pytest.mark.parametrize("command", [["bench", "latency", "FOLDER"], ["bench", "serve", "--dataset-name", "custom",
                                                                      "--dataset-path", "FILE"],
                                     ["eval", "FILE", "--model", "a=recorded"]], ids=lambda words: " ".join(words[:2]))
def test_ctrl_c_while_it_loads(command, tmp_path):
    """There is nothing to report yet: the first one ends it, and not the second one."""
    if command[1] != "latency" and run("serve", "--help").returncode != 0:
        pytest.skip("a build without a server")
    os.mkfifo(tmp_path / "config.json")  # a file that takes its time
    words = [{"FOLDER": str(tmp_path), "FILE": str(tmp_path / "config.json")}.get(word, word) for word in command]
    with subprocess.Popen([str(BIN), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) as process:
        writer = wait_for_reader(process, tmp_path / "config.json")
        process.send_signal(signal.SIGINT)
        os.close(writer)
        _, stderr = process.communicate(timeout=LIMIT_S)
    assert process.returncode == -signal.SIGINT, stderr


def test_bench_ops():
    sizes = ["--hidden", 64, "--intermediate", 128, "--heads", 4, "--kv-heads", 2, "--head-dim", 16, "--layers", 2, "--context", 50,
             "--vocab", 320]
    rows = run_json("bench", "ops", *sizes, "--rows", 1, "--rows", 5, "--threads", 1, "--json")
    assert {row["op"] for row in rows} == {"layer_linears", "attention_decode", "attention_shared", "attention_prefill",
                                           "rope_kv_write", "add_norm", "activation_mul", "decode_layer", "embed", "lm_head",
                                           "lm_head_greedy", "lm_head_top_p"}
    assert all(row["us"] > 0 and row["gb_s"] > 0 for row in rows) and len(rows) == 24
    linears = [row for row in rows if row["op"] == "layer_linears"]
    assert linears[1]["flops"] == 5 * linears[0]["flops"] == 5 * 2 * (128 * 64 + 64 * 64 + 3 * 64 * 128)
    (zeros,) = run_json("bench", "ops", *sizes, "--op", "layer_linears", "--weights", "uint4", "--rows", 1, "--json")
    assert zeros["weights"] == "uint4" and zeros["bytes"] > linears[0]["bytes"]  # int4, and zero points
    (w8a8,) = run_json("bench", "ops", *sizes, "--op", "layer_linears", "--weights", "w8a8", "--rows", 1, "--json")
    assert w8a8["weights"] == "w8a8" and w8a8["flops"] == linears[0]["flops"]
    heads = [row for row in rows if row["op"].startswith("lm_head")]
    assert {row["weights"] for row in heads} == {"int8"} and heads[1]["flops"] == 5 * heads[0]["flops"] == 5 * 2 * 64 * 320
    assert {row["footprint_bytes"] for row in heads} == {heads[0]["footprint_bytes"]} and heads[0]["footprint_bytes"] >= 64 * 320
    for weights in ("fp8", "w8a8", "uint4", "bf16"):  # as a model has it: what is quantised is the layers
        (plain,) = run_json("bench", "ops", *sizes, "--op", "lm_head", "--weights", weights, "--rows", 1, "--json")
        assert plain["weights"] == "bf16" and plain["footprint_bytes"] >= 2 * 64 * 320
    by_op = {(row["op"], row["rows"]): row for row in heads}  # with sampling, which reads the logits once more
    assert by_op["lm_head_top_p", 5]["bytes"] - by_op["lm_head", 5]["bytes"] == 5 * 4 * 320
    many = run_json("bench", "ops", *sizes, "--op", "lm_head_greedy", "--rows", 70, "--json")  # several passes through the head
    assert many[0]["rows"] == 70 and many[0]["us"] > 0
    (decode,) = run_json("bench", "ops", *sizes, "--op", "attention_decode", "--rows", 3, "--json")
    assert decode["bytes"] == 3 * 50 * 2 * 2 * 16 * 2 + 3 * 2 * 2 * 64
    (shared,) = run_json("bench", "ops", *sizes, "--op", "attention_shared", "--rows", 3, "--json")
    assert shared["bytes"] == decode["bytes"] - 2 * 32 * 2 * 2 * 16 * 2 and shared["flops"] == decode["flops"]
    (int8,) = run_json("bench", "ops", *sizes, "--op", "attention_decode", "--kv-cache-dtype", "int8", "--rows", 3, "--json")
    assert int8["bytes"] == 3 * 50 * 2 * 2 * (16 + 2) + 3 * 2 * 2 * 64  # a byte each, and scales of two bytes
    assert_refused(run("bench", "ops", "--rows", 5, "--rows", 1), 2, "--rows", "1")
    assert_refused(run("bench", "ops", "--device", "abacus"), 2, "abacus")


def test_kv_cache_dtype():
    """The tiny model's first tokens in int8 KV are those of bfloat16."""
    request = ["run", LLAMA, *IDS_ONLY, "--token-ids", "5,6,7", "--max-tokens", 4, "--temperature", 0, "--json"]
    (plain,), (int8,) = (run_json(*request, "--kv-cache-dtype", dtype) for dtype in ("auto", "int8"))
    assert plain["token_ids"] == int8["token_ids"] and len(int8["token_ids"]) == 4
    assert_refused(run(*request, "--kv-cache-dtype", "int9"), 2, "--kv-cache-dtype", "int8")


def test_bench_products():
    fake = BIN.parent / "libbantam_cuda_fake.so"
    assert_refused(run("bench", "products", "--device", "cpu"), 2, "--device", "cpu")
    assert_refused(run("bench", "products", "--rows", 5, "--rows", 5), 2, "--rows", "5")
    assert_refused(run("bench", "products", "--shape", "80by320"), 2, "--shape", "80by320")
    assert_refused(run("bench", "products", "--weights", "int4"), 2, "--weights", "int4")
    if not fake.exists():
        pytest.skip("no emulated card in this build")
    few = ["bench", "products", "--shape", "80x320", "--rows", 2, "--rows", 300, "--rounds", 0]
    card = {"BANTAM_CUDA_LIBRARY": str(fake)}
    rows = run_json(*few, "--json", environment=card)
    assert [(row["weights"], row["rows"], row["equal"]) for row in rows] == [(w, n, True) for w in ("bf16", "fp8") for n in (2, 300)]
    other = run(*few, "--weights", "bf16", environment=card | {"BANTAM_FAKE_PRODUCT": "rows"})
    assert other.returncode == 0 and "every row is equal" in other.stdout and "rows differ, from row" in other.stdout
    assert "product_table.c" not in other.stdout
    assert_refused(run(*few, environment=card | {"BANTAM_FAKE_PRODUCT": "absent"}), 1, "cuBLASLt")


def test_no_batch_invariant():
    """The CPU has one mode, and says so; the flag has its variable."""
    plain, flag, variable = (
        run("run", LLAMA, *IDS_ONLY, "--token-ids", "1,5,9", "--temperature", 0, "--json", *more, environment=environment)
        for more, environment in (([], {}), (["--no-batch-invariant"], {}), ([], {"BANTAM_BATCH_INVARIANT": "false"})))
    assert plain.returncode == flag.returncode == variable.returncode == 0
    assert json.loads(plain.stdout)["token_ids"] == json.loads(flag.stdout)["token_ids"]
    for done in (flag, variable):
        assert "the CPU has one mode, which is batch-invariant" in done.stderr
    assert "batch-invariant" not in plain.stderr


def test_bench_loop():
    (result,) = run_json("bench", "loop", "--num-seqs", 8, "--output-len", 50)
    assert result["steps"] >= 49 and result["tokens"] == 400  # the last step is counted after its tokens are out
    assert result["allocations"] == 0
    assert result["overhead_us_per_step"] > 0
