"""What scripts/demo runs, behind programs of the tests: each of its models, and the router with demo/route.yaml."""

import os
import re
import subprocess
import sys

import pytest
from conftest import CALL_LIMIT_S, ROOT, SANITIZED
from mock_tools import Mock
from route_tools import Router

sys.path.insert(0, str(ROOT / "tests/parity/gemma"))
import gemma_model  # noqa: E402

pytestmark = pytest.mark.skipif(SANITIZED, reason="the same programs answer other tests under a sanitizer; it takes long")


def run(script, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "clients/python")}
    ended = subprocess.run([sys.executable, str(ROOT / "demo" / script), *arguments], env=environment, capture_output=True, text=True,
                           timeout=CALL_LIMIT_S)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_answers_and_routes(start, directory):
    """The demo model's answers come in; each reason of the demo's policy is named."""
    engine = start(ROOT / "demo/model")
    assert "tokens/s" in run("show.py", f"127.0.0.1:{engine.port}")
    mock = Mock("--first-byte-ms", "20", "--per-chunk-ms", "2")
    config = (ROOT / "demo/route.yaml").read_text().replace("127.0.0.1:50051", f"127.0.0.1:{engine.port}")
    config = config.replace("ttft_over: 30ms", "ttft_over: 60s")  # which a busy machine may miss without any queue
    router = Router(directory, config.replace("127.0.0.1:9000", mock.address).replace("path: ", f"path: {directory}/"))
    try:
        router.wait_up()
        said = run("show_routing.py", f"http://127.0.0.1:{router.http_port}", f"http://{mock.address}")
        for why in ("nothing spoke against the small model", "too hard", "a rule says so", "answered before", "must not leave"):
            assert why in said, said
    finally:
        router.stop()
        mock.stop()


def test_completions_of_gemma(start):
    """A base model without a chat template completes the demo's prompts."""
    path, why = gemma_model.find()
    if path is None:
        pytest.skip(why)
    engine = start(path)
    assert "tokens/s" in run("show.py", f"127.0.0.1:{engine.port}", str(ROOT / "demo/gemma_prompts.jsonl"))


def test_builds_what_the_readme_goes_on_with():
    """After scripts/demo the README runs the C client's example and installs the client (test_native_clients does both)."""
    readme = (ROOT / "README.md").read_text()
    (targets,) = re.findall(r"^cmake --build .* --target ([a-z_ ]+) >", (ROOT / "scripts/demo").read_text(), re.M)
    assert "after `scripts/demo`:\n\n    build/release/clients/c/stream_answer " in readme and "--component client" in readme
    assert targets.split() == ["bantam", "stream_answer", "bantam_client"]
