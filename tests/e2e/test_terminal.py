"""What a person at a terminal sees, by a pseudo terminal: where to go on, and nothing that he did not ask for."""

import contextlib
import json
import os
import pty
import re
import shutil
import subprocess

import pytest
from conftest import BIN, CALL_LIMIT_S, DUMMY_FLAGS, ROOT

FREE_PORTS = ["--port", "0", "--http-port", "0", "--metrics-port", "0"]


@contextlib.contextmanager
def on_terminal(*arguments):
    """(process, lines that it writes)"""
    ours, its = pty.openpty()
    clean = {k: v for k, v in os.environ.items() if not k.startswith("BANTAM_")}
    process = subprocess.Popen([str(BIN), *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=its, stderr=its, cwd=ROOT,
                               env=clean)
    os.close(its)

    def lines():
        with open(ours, "rb", closefd=False) as terminal, contextlib.suppress(OSError):  # EIO: it has ended
            for line in terminal:
                yield line.decode().rstrip("\r\n")

    try:
        yield process, lines()
    finally:
        process.terminate()
        process.wait(CALL_LIMIT_S)
        os.close(ours)


@pytest.mark.skipif(not shutil.which("curl"), reason="there is no curl")
@pytest.mark.parametrize("has_text", [True, False])
def test_serve_ends_its_start_with_what_to_try(demo_model, dummy_model, has_text):
    """The line that it prints is an answer when it is typed."""
    model = [demo_model] if has_text else [dummy_model, *DUMMY_FLAGS]
    with on_terminal("serve", *model, *FREE_PORTS, "--threads", "1") as (process, lines):
        seen = []
        for line in lines:
            seen.append(line)
            if line.startswith("  curl "):
                break
        assert "listening on http" in "\n".join(seen) and seen[-2].endswith(" is ready; try:"), seen
        assert "gRPC core" not in "\n".join(seen), "which says nothing on a loopback address"
        done = subprocess.run(seen[-1], shell=True, capture_output=True, text=True, timeout=CALL_LIMIT_S, check=True)
        (choice,) = json.loads(done.stdout)["choices"]
        assert choice["finish_reason"] in ("stop", "length") and ("message" in choice) == has_text
        process.terminate()
        assert process.wait(CALL_LIMIT_S) == 0


def test_run_says_nothing_of_memory(demo_model):
    with on_terminal("run", demo_model, "The train to", "--max-tokens", "3", "--threads", "1") as (process, lines):
        text = "\n".join(lines)
        assert process.wait(CALL_LIMIT_S) == 0 and "memory plan" not in text and re.search(r"[a-z]", text)


def test_a_taken_port_names_its_flag(demo, demo_model):
    for flag, port in (("--port", demo.port), ("--http-port", demo.http_port), ("--metrics-port", demo.metrics_port)):
        done = subprocess.run([str(BIN), "serve", str(demo_model), *FREE_PORTS, flag, str(port)], capture_output=True, text=True,
                              timeout=CALL_LIMIT_S, check=False)
        assert done.returncode != 0 and f"({flag}" in done.stderr and "the port is in use" in done.stderr, done.stderr
