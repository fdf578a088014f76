"""`bantam bench provider` and `bantam bench router`, short: counts, never times.

BANTAM_BIN names the program (default build/release/bantam)."""

import contextlib
import json
import os
import pathlib
import subprocess
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BANTAM = pathlib.Path(os.environ.get("BANTAM_BIN", ROOT / "build/release/bantam")).resolve()


@contextlib.contextmanager
def mock_provider(*flags):
    """(port, pid)"""
    with subprocess.Popen([BANTAM, "bench", "provider", "--port", "0", *flags], stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("listening on 127.0.0.1:"), line
            assert "MOCK" in process.stdout.readline()
            yield int(line.rsplit(":", 1)[1]), process.pid
        finally:
            process.terminate()
            last = process.stdout.read()
    assert process.returncode == 0 and last.startswith("the mock provider was asked ")


def bench(*arguments):
    return subprocess.run([BANTAM, "bench", "router", *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)


def state(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/mock/state", timeout=30) as answer:
        return json.load(answer)


def test_every_request_is_counted():
    with mock_provider() as (port, pid):
        done = bench("--target", f"direct=http:{port}:{pid}", "--target", f"again=http:{port}", "--rate", 400, "--stream-rate", 100,
                     "--seconds", 0.5, "--rounds", 2, "--tokens", 4, "--per-chunk-ms", 1, "--count", 100, "--count-seconds", 100, "--open", 20, "--json")
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert [target["name"] for target in report["targets"]] == ["direct", "again"]
        for target in report["targets"]:
            for kind, n in (("whole", 200), ("first_chunk", 50), ("stream", 50)):
                assert (target[kind]["completed"], target[kind]["failed"]) == (n, 0)
                assert 0 < target[kind]["p50_us"] <= target[kind]["p99_us"] <= target[kind]["max_us"]
            assert (target["count_done"], target["open_begun"], target["open_failed"], target["failure"]) == (100, 20, 0, "")
        assert report["targets"][0]["rss_open_bytes"] > 1 << 20 and report["targets"][1]["rss_open_bytes"] == 0
        heard = state(port)
        assert heard["mock"] is True and heard["requests"] == 2 * (200 + 200 + 50 + 100 + 20)  # 200 to warm up
        assert heard["faults"] == 0


def test_counting_ends_in_time():
    with mock_provider() as (port, pid):
        done = bench("--target", f"direct=http:{port}:{pid}", "--seconds", 0, "--count", 10**9, "--count-seconds", 0.5, "--json")
        assert done.returncode == 0, done.stderr
        (target,) = json.loads(done.stdout)["targets"]
        assert target["count_failed"] == 0 and 0 < target["count_done"] == state(port)["requests"] - 200  # 200 to warm up


def test_failures_are_told():
    with mock_provider("--fault", "503", "--fault-every", "2") as (port, _):
        done = bench("--target", f"direct=http:{port}", "--seconds", 0.1)
        assert done.returncode == 1 and "HTTP/1.1 503" in done.stderr
    for target in ("direct", "x=ftp:80", "x=http:0", "x=http:80:y", "=http:80"):
        done = bench("--target", target)
        assert done.returncode == 2 and "is no target" in done.stderr


def test_answers_of_a_table(tmp_path):
    table = tmp_path / "answers.jsonl"
    table.write_text('{"prompt": "one", "answer": "first"}\n\n{"prompt": "two \\u00fc", "answer": "second"}\n')

    def ask(port, prompt):
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": prompt}]}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            assert answer.headers["x-bantam-mock"] == "1"
            whole = json.load(answer)
        assert whole["model"] == "mock-m"
        return whole["choices"][0]["message"]["content"]

    with mock_provider("--answers", str(table)) as (port, _):
        assert [ask(port, prompt) for prompt in ("two ü", "one", "three")] == ["second", "first", "A mock answer to: three"]
    table.write_text('{"prompt": "one", "answer": "first"}\n{"prompt": 1}\n')
    done = subprocess.run([BANTAM, "bench", "provider", "--answers", str(table)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "line 2" in done.stderr


@pytest.mark.parametrize("fault, wanted", [("nonsense", "is no fault; there are 302"), ("503,", None)])
def test_names_of_faults(fault, wanted):
    if wanted:
        done = subprocess.run([BANTAM, "bench", "provider", "--fault", fault], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2 and wanted in done.stderr
    else:
        with mock_provider("--fault", fault) as (port, _):
            assert state(port)["requests"] == 0
