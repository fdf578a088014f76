"""Servers for the end-to-end tests: a real `bantam serve` on a free loopback port, stopped by its process id.

BANTAM_BIN names the program (default build/release/bantam). BANTAM_SANITIZED=1 says that the program is several times slower."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ.get("BANTAM_BIN", ROOT / "build/release/bantam")).resolve()
SANITIZED = os.environ.get("BANTAM_SANITIZED", "0") == "1"
START_LIMIT_S = 120
STOP_LIMIT_S = 120
CALL_LIMIT_S = 300 if SANITIZED else 100  # a test that hangs fails
sys.path.insert(0, str(ROOT / "clients/python"))

import bantam  # noqa: E402

# A reader that stops stops its stream: what a connection buffers is small against answers with SLOW's logprobs.
SMALL_WINDOW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65535))
SLOW = {"max_tokens": 7000, "logprobs": 20, "ignore_eos": True}

DUMMY_CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}


class Server:
    """A running `bantam serve`, or another command with the same doors."""

    COMMAND: tuple[str, ...] = ("serve", "--threads", "1")

    def __init__(self, directory: pathlib.Path, subject: pathlib.Path, *flags: str, env: dict[str, str] | None = None,
                 prefix: tuple[str, ...] = ()):
        self.port_file = directory / f"port-{time.monotonic_ns()}"
        self.http_port_file = directory / f"http-{self.port_file.name}"
        self.metrics_port_file = directory / f"metrics-{self.port_file.name}"
        self.log_path = directory / f"{self.port_file.name}.log"
        arguments = [str(BIN), *self.COMMAND, str(subject), "--port", "0", "--port-file", str(self.port_file), "--http-port", "0",
                     "--http-port-file", str(self.http_port_file), "--metrics-port", "0", "--metrics-port-file",
                     str(self.metrics_port_file)]
        self.log = open(self.log_path, "wb")
        environment = {**os.environ, **(env or {})}
        self.process = subprocess.Popen([*prefix, *arguments, *flags], stdout=self.log, stderr=subprocess.STDOUT, env=environment)
        try:
            self.port = self.wait_for_port()
        except BaseException:
            self.kill()
            raise
        # Written before that one; absent with --no-http and --no-metrics.
        self.http_port = int(self.http_port_file.read_text()) if self.http_port_file.exists() else None
        self.metrics_port = int(self.metrics_port_file.read_text()) if self.metrics_port_file.exists() else None
        self.client = self.connect()

    def wait_for_port(self) -> int:
        limit = time.monotonic() + START_LIMIT_S
        while not self.port_file.exists():  # written whole, by a rename
            if self.process.poll() is not None:
                raise RuntimeError(f"bantam {self.COMMAND[0]} ended with {self.process.returncode}:\n{self.output()}")
            if time.monotonic() > limit:
                raise RuntimeError(f"bantam {self.COMMAND[0]} was not ready within {START_LIMIT_S} s:\n{self.output()}")
            time.sleep(0.01)
        return int(self.port_file.read_text())

    def output(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def connect(self, *options, target: str | None = None) -> bantam.Client:
        """A client with a TCP connection of its own."""
        return bantam.Client(target or self.target, channel_options=[("grpc.use_local_subchannel_pool", 1), *options])

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        return self.process.wait(STOP_LIMIT_S)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.log.close()

    def stop(self) -> None:
        """Ends it as a user would, and fails when it does not end well (sanitizers speak here too)."""
        self.client.close()
        if self.process.poll() is None:
            self.terminate()
        try:
            status = self.wait()
        finally:
            self.kill()
        assert status == 0, f"bantam {self.COMMAND[0]} ended with {status}:\n{self.output()}"

    def wait_idle(self):
        """Waits, by the server's own messages, until nothing runs; returns the loads. The counts are read one by one: a request
        may be among the total before it is among those that wait."""
        for loads in self.client.watch_loads(10):
            busy = loads.num_running_reqs or loads.num_waiting_reqs or loads.kv_blocks_used
            if not busy and loads.requests_finished == loads.requests_total:
                return loads
        raise AssertionError("WatchLoads ended")

    def wait_for(self, predicate):
        for loads in self.client.watch_loads(10):
            if predicate(loads):
                return loads
        raise AssertionError("WatchLoads ended")


@pytest.fixture(scope="session")
def directory(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def dummy_model(tmp_path_factory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("dummy")
    (path / "config.json").write_text(json.dumps(DUMMY_CONFIG))
    return path


@pytest.fixture(scope="session")
def demo_model() -> pathlib.Path:
    path = ROOT / "demo/model"
    if not (path / "model.safetensors").exists():
        pytest.skip("demo/model is not there")
    return path


DUMMY_FLAGS = ("--load-format", "dummy", "--skip-tokenizer-init", "--dtype", "float32")


@pytest.fixture
def start(directory):
    """start(model, *flags, env=None) -> Server, stopped at the end of the test."""
    servers = []

    def start_server(model: pathlib.Path, *flags: str, env: dict[str, str] | None = None) -> Server:
        servers.append(Server(directory, model, *flags, env=env))
        return servers[-1]

    yield start_server
    failures = []
    for server in servers:
        try:
            server.stop()
        except AssertionError as failure:
            failures.append(str(failure))
    assert not failures, "\n".join(failures)


@pytest.fixture(scope="module")
def dummy(directory, dummy_model):
    """A server that speaks token ids only, with room for long requests."""
    server = Server(directory, dummy_model, *DUMMY_FLAGS, "--max-num-seqs", "16")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def demo(directory, demo_model):
    server = Server(directory, demo_model)
    yield server
    server.stop()
