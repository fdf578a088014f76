"""How soon a provider, and an engine beside the router, hears that a client has left, and that every such call is settled. By hand:
  build/venv/bin/python tests/e2e/leaving_at_length.py [HOW OFTEN [engine]]
With `engine` that part alone."""

import http.client
import json
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

from conftest import BIN, ROOT, Server  # first: it says where the client is
from balancing_tools import NOBODY
from certificates import Authority
from route_tools import Router, route_config
from test_http2_provider import Front, open_stream
from test_route_faults import state_of, wait_for

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
PIECE = b'data: {"choices": [{"index": 0, "delta": {"content": "word "}}]}\n\n'


class Listener:
    """A provider that says one word and listens: `gone` has the time at which each connection was closed."""

    def __init__(self):
        self.gone, self.changed = [], threading.Condition()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            threading.Thread(target=self.serve, args=(self.listener.accept()[0],), daemon=True).start()

    def serve(self, connection):
        connection.recv(65536)
        connection.sendall(HEAD + PIECE)
        try:
            while connection.recv(65536):
                pass
        except ConnectionResetError:
            pass
        with self.changed:
            self.gone.append(time.monotonic())
            self.changed.notify()

    def wait(self, n):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.gone) >= n, 60)
            return self.gone[n - 1]


def measure(name, directory, provider, url, n, beside, ca_file=None):
    """beside: another client's stream stays open meanwhile."""
    config = route_config([NOBODY], {"mock": url}, when_down={"to": "frontier"},
                          ledger={"path": str(directory / f"{name}.db")})
    if ca_file:
        config["providers"][0]["ca_file"] = ca_file
    router = Router(directory, config)
    router.wait_health("SERVING")
    stays = open_stream(router, "hello", b"word") if beside else None
    times, before = [], len(provider.gone)
    for i in range(n):
        client = open_stream(router, "hello", b"word")
        start = time.monotonic()
        client.close()
        times.append(1e3 * (provider.wait(before + i + 1) - start))
    if stays:
        stays.close()
    wait_for("all is settled", lambda: state_of(router)["money"]["reserved_dollars"] == 0 and state_of(router)["requests"]["running"] == 0)
    router.stop()
    done = subprocess.run([BIN, "cost", directory / f"{name}.db", "--json"], capture_output=True, text=True, check=True)
    total = json.loads(done.stdout)["total"]
    times.sort()
    print(f"{name}: {n} left; the provider heard it after {times[n // 2]:.2f} ms at p50, {times[n * 99 // 100]:.2f} at p99, {times[-1]:.2f} "
          f"at most; {total['calls']} entries, {total['calls_with_estimated_cost']} of them estimates", flush=True)


class Engine:
    """The demo model's, asked for its metrics again and again: what is told is an upper bound."""

    def __init__(self, directory):
        self.server = Server(directory, ROOT / "demo" / "model")
        self.metrics = http.client.HTTPConnection("127.0.0.1", self.server.metrics_port)

    def value(self, name):
        self.metrics.request("GET", "/metrics")
        return float(re.search(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", self.metrics.getresponse().read().decode(), re.M)[1])

    def aborted(self):
        self.metrics.request("GET", "/metrics")
        return float(re.search(r'request_success_total{[^}]*finished_reason="abort"[^}]*} (\S+)$',
                               self.metrics.getresponse().read().decode(), re.M)[1])


def ask_engine(router):
    body = json.dumps({"model": "", "stream": True, "max_tokens": 300, "ignore_eos": True,
                       "messages": [{"role": "user", "content": "hello"}]}).encode()
    client = socket.create_connection(("127.0.0.1", router.http_port))
    client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                   % (len(body), body))
    seen = b""
    while b"data:" not in seen:
        seen += client.recv(65536)
        assert b"400" not in seen[:40], seen
    return client


def measure_engine(directory, n):
    """Until none is running there; and none of them had ended by itself."""
    engine = Engine(directory)
    router = Router(directory, route_config([engine.server.target], {}, ledger={"path": str(directory / "engine.db")}))
    router.wait_health("SERVING")
    times, before = [], engine.aborted()
    for _ in range(n):
        client = ask_engine(router)
        start = time.monotonic()
        client.close()
        while engine.value("vllm:num_requests_running") > 0:
            pass
        times.append(1e3 * (time.monotonic() - start))
    wait_for("all is settled", lambda: state_of(router)["requests"]["running"] == 0)
    aborted = engine.aborted() - before
    router.stop()
    engine.server.stop()
    done = subprocess.run([BIN, "cost", directory / "engine.db", "--json"], capture_output=True, text=True, check=True)
    times.sort()
    print(f"engine: {n} left; none was running there after {times[n // 2]:.2f} ms at p50, {times[n * 99 // 100]:.2f} at p99, {times[-1]:.2f} at most; "
          f"{aborted:.0f} of them aborted; {json.loads(done.stdout)['total']['calls']} entries", flush=True)


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    with tempfile.TemporaryDirectory() as folder:
        directory, provider = pathlib.Path(folder), Listener()
        measure_engine(directory, rounds)
        if sys.argv[2:] == ["engine"]:
            sys.exit()
        authority = Authority(directory / "tls")
        authority.make("server", "IP:127.0.0.1")
        front = Front(authority.folder, provider, True)
        try:
            measure("http1", directory, provider, f"http://{provider.address}/v1", rounds, False)
            for what, has_other in (("http2", False), ("http2-shared", True)):
                measure(what, directory, provider, f"https://127.0.0.1:{front.port}/v1", rounds, has_other, str(authority.path("ca.pem")))
        finally:
            front.stop()
