"""Two replicas behind nginx, and behind gRPC's own round robin: both work, and a rolling restart under load fails nobody."""

import json
import threading
import urllib.request

import grpc
import pytest

from balancing_tools import Nginx, Replica, wait_until
from conftest import CALL_LIMIT_S, DUMMY_FLAGS, SANITIZED
from native_wire import SERVICE, generate_bytes, read_output, read_whole
from test_faults import Cutter

COST_S = 20
PROMPT = [5, 6, 7, 8]
TOKENS = 40
REQUEST = generate_bytes(input_ids=PROMPT, max_tokens=TOKENS, ignore_eos=True, temperature=0)
WORKERS = 3
DRAIN_DELAY = "3"  # long enough for a client on a busy machine to hear of it
SERVED_BETWEEN = 10 if SANITIZED else 40  # requests by each replica between two restarts

# What wire.md tells gRPC clients to set: a replica that says NOT_SERVING gets nothing new, and what it could not take is
# tried elsewhere.
SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": "bantam.Bantam"},
    "methodConfig": [{
        "name": [{"service": "bantam.Bantam"}],
        "waitForReady": True,
        "retryPolicy": {"maxAttempts": 5, "initialBackoff": "0.05s", "maxBackoff": "0.5s", "backoffMultiplier": 2,
                        "retryableStatusCodes": ["UNAVAILABLE"]},
    }],
}
LOCAL = ("grpc.use_local_subchannel_pool", 1)
# Soon again after a refusal; the one in the middle is what an attempt to connect may take.
CHANNEL = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.min_reconnect_backoff_ms", 20_000),
           ("grpc.max_reconnect_backoff_ms", 200), LOCAL]


@pytest.fixture
def replicas(directory, dummy_model):
    both = [Replica(directory, dummy_model, *DUMMY_FLAGS, "--max-num-seqs", "8", "--drain-delay", DRAIN_DELAY) for _ in range(2)]
    yield both
    for replica in both:
        replica.server.stop()


@pytest.fixture
def nginx(replicas, tmp_path):
    proxy = Nginx(tmp_path, replicas)
    yield proxy
    proxy.stop()
    print(proxy.log())  # shown when the test fails


class Load:
    """Threads that ask again and again, and remember what failed."""

    def __init__(self, *asks):
        self.failures = []
        self.n_answers = 0
        self.ends = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(ask,)) for ask in asks for _ in range(WORKERS)]

    def run(self, ask):
        while not self.ends.is_set():
            try:
                n_tokens = ask()
                if n_tokens != TOKENS:
                    self.failures.append(f"{n_tokens} tokens")
                self.n_answers += 1
            except Exception as failure:  # whatever it is, the test reports it
                self.failures.append(repr(failure))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ends.set()
        for thread in self.threads:
            thread.join()


def ask_grpc(channel):
    """One request, streamed: the number of its tokens."""
    n = 0
    for data in channel.unary_stream(SERVICE + "Generate")(REQUEST, timeout=CALL_LIMIT_S):
        n += len(read_output(data).token_ids)
    return n


def ask_grpc_whole(channel):
    data = channel.unary_unary(SERVICE + "GenerateWhole")(REQUEST, timeout=CALL_LIMIT_S)
    return len(read_whole(data)[0].token_ids)


def ask_http(port, stream):
    body = {"prompt": PROMPT, "max_tokens": TOKENS, "ignore_eos": True, "temperature": 0, "stream": stream,
            "return_token_ids": True}
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=CALL_LIMIT_S) as answer:
        if not stream:
            return json.load(answer)["usage"]["completion_tokens"]
        lines = [line[6:] for line in answer.read().decode().splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return sum(len(choice["token_ids"]) for line in lines[:-1] for choice in json.loads(line)["choices"])


def roll(replicas, load):
    """Restarts one after the other; each then has served again before the next goes."""
    for replica in [*replicas, None]:
        for other in replicas:
            served = other.server.client.loads().requests_finished
            other.server.wait_for(lambda loads: loads.requests_finished >= served + SERVED_BETWEEN or load.failures)
        assert load.failures == []
        if replica:
            replica.restart()


def test_both_replicas_serve_behind_nginx(replicas, nginx):
    with grpc.insecure_channel(f"127.0.0.1:{nginx.grpc_port}") as channel:
        for _ in range(4):
            assert ask_grpc(channel) == ask_grpc_whole(channel) == TOKENS
            assert ask_http(nginx.http_port, False) == ask_http(nginx.http_port, True) == TOKENS
        _, call = channel.unary_unary(SERVICE + "GenerateWhole").with_call(REQUEST)
        assert dict(call.trailing_metadata())["x-bantam-load-bin"]  # trailers come through
        health = channel.unary_unary("/grpc.health.v1.Health/Check")(b"")
        assert health == b"\x08\x01"
    for replica in replicas:
        assert replica.server.client.loads().requests_total >= 6
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(f"http://127.0.0.1:{nginx.http_port}/metrics", timeout=CALL_LIMIT_S)


def test_rolling_restart_behind_nginx(replicas, nginx):
    with grpc.insecure_channel(f"127.0.0.1:{nginx.grpc_port}") as channel:
        asks = [lambda: ask_grpc(channel), lambda: ask_grpc_whole(channel), lambda: ask_http(nginx.http_port, True),
                lambda: ask_http(nginx.http_port, False)]
        with Load(*asks) as load:
            roll(replicas, load)
    assert load.failures == [] and load.n_answers > 4 * SERVED_BETWEEN


def test_rolling_restart_behind_round_robin(replicas):
    target = "ipv4:" + ",".join(f"127.0.0.1:{replica.ports[0]}" for replica in replicas)
    options = [("grpc.service_config", json.dumps(SERVICE_CONFIG)), *CHANNEL]
    with grpc.insecure_channel(target, options=options) as channel:
        with Load(lambda: ask_grpc(channel), lambda: ask_grpc_whole(channel)) as load:
            roll(replicas, load)
    assert load.failures == [] and load.n_answers > 4 * SERVED_BETWEEN


class CountingCutter(Cutter):
    """A relay that knows how often somebody has connected."""

    @property
    def n_connections(self):
        with self.lock:
            return len(self.sockets) // 2


def test_connections_end_at_their_age(start, dummy_model):
    """Clients connect anew, and no call fails: the one under way goes on over the old connection."""
    server = start(dummy_model, *DUMMY_FLAGS, "--max-connection-age", "0.2")
    relay = CountingCutter(server.port)
    try:
        with grpc.insecure_channel(relay.target, options=[LOCAL]) as channel:
            stream = channel.unary_stream(SERVICE + "Generate")(
                generate_bytes(input_ids=PROMPT, max_tokens=6000, ignore_eos=True))
            next(stream)
            while relay.n_connections < 3:
                assert ask_grpc_whole(channel) == TOKENS
            assert next(stream)
            stream.cancel()
    finally:
        relay.cut()
