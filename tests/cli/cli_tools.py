"""The program as tests of its commands start it.

BANTAM_BIN names it (default build/release/bantam). BANTAM_SANITIZED=1 says that it is several times slower."""

import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("BANTAM_BIN", ROOT / "build/release/bantam")).resolve()
SANITIZED = os.environ.get("BANTAM_SANITIZED", "0") == "1"
LIMIT_S = 600 if SANITIZED else 120
DEMO = ROOT / "demo/model"
LLAMA = ROOT / "tests/parity/checkpoints/llama-gqa"  # no tokenizer
GGUF = ROOT / "tests/parity/gguf/qwen2-gqa-tied.gguf"
IDS_ONLY = ["--skip-tokenizer-init", "--threads", "1"]


def run(*arguments, stdin=None, environment=None):
    """The finished process; flags that the surroundings set as variables are taken out."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("BANTAM_")}
    return subprocess.run([str(BIN), *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=LIMIT_S,
                          env=clean | (environment or {}), cwd=ROOT, check=False)


def run_json(*arguments, **more):
    """The JSON lines of a run that must succeed."""
    done = run(*arguments, **more)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_refused(done, status, *words):
    """Exit status, nothing on stdout, and a message for people that has the words and is not long."""
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr
    for_people = [line for line in done.stderr.splitlines() if not line.startswith("{")]  # the log is JSON here
    assert for_people[0].startswith("bantam") and len(for_people) <= 3, done.stderr
