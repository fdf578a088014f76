"""HTTP clients that vanish, stop reading, or speak badly; servers that are told to stop. Raw sockets."""

import json
import pathlib
import random
import re
import socket
import struct
import threading

import pytest

from conftest import CALL_LIMIT_S, DUMMY_FLAGS, SANITIZED
from test_faults import run_serve

DISCONNECTS = 300 if SANITIZED else 1000
PROMPT = [5, 6, 7, 8]
SMALL_BUFFER_BYTES = 4096


class Peer:
    """A connection that speaks HTTP by hand."""

    def __init__(self, server, receive_bytes=None):
        self.socket = socket.socket()
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(CALL_LIMIT_S)
        self.socket.connect(("127.0.0.1", server.http_port))
        self.file = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()

    def send(self, body, path="/v1/completions", headers=""):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n{headers}\r\n"
        self.socket.sendall(head.encode() + data)

    def read_head(self):
        """(status, headers)"""
        status = int(self.file.readline().split()[1])
        headers = {}
        while (line := self.file.readline().strip()):
            name, value = line.split(b":", 1)
            headers[name.decode().lower()] = value.strip().decode()
        return status, headers

    def read(self):
        """(status, headers, body)"""
        status, headers = self.read_head()
        if headers.get("transfer-encoding") == "chunked":
            body = b"".join(iter(self.read_chunk, b""))
        else:
            body = self.file.read(int(headers["content-length"]))
        return status, headers, body

    def read_chunk(self):
        size = int(self.file.readline(), 16)
        data = self.file.read(size)
        self.file.readline()
        return data

    def cut(self):
        """Abruptly (RST)."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.file.close()
        self.socket.close()


def request(**parameters):
    return {"prompt": PROMPT, "max_tokens": 6000, "ignore_eos": True, **parameters}


def status_of(server, body, path="/v1/completions"):
    with Peer(server) as peer:
        peer.send(body, path)
        status, _, answer = peer.read()
        return status, json.loads(answer)


def test_abrupt_disconnects_leave_nothing(start, dummy_model):
    server = start(dummy_model, *DUMMY_FLAGS, "--max-num-seqs", "6", "--max-waiting", "64")
    steady = dict(input_ids=[7, 7, 7], max_tokens=200, temperature=0, ignore_eos=True, timeout=CALL_LIMIT_S)
    expected = server.client.generate_whole(**steady)[0].token_ids
    bodies = [request(stream=True), request(), request(prompt=[9] * 4000, stream=True), request(n=2, logprobs=5, stream=True),
              request(prompt=[PROMPT, [1], [2]])]
    for i in range(DISCONNECTS):
        peer = Peer(server)
        peer.send(bodies[i % len(bodies)])
        if i % len(bodies) == 0 and i % 2 == 0:
            peer.read_head()  # or a refusal, when the queue is full
        if i % 3:
            peer.cut()
        else:
            peer.__exit__()
        if i % 250 == 0:
            assert server.client.generate_whole(**steady)[0].token_ids == expected
    loads = server.wait_idle()
    assert loads.kv_blocks_used == 0
    assert loads.requests_finished == loads.requests_total
    assert server.client.generate_whole(**steady)[0].token_ids == expected


def test_disconnect_in_mid_body(dummy):
    for size in (0, 1, 100):
        with Peer(dummy) as peer:
            peer.socket.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Length: 1000\r\n\r\n" + b"x" * size)
    assert status_of(dummy, request(max_tokens=1))[0] == 200


def test_truncated_and_flipped_json(dummy):
    data = json.dumps(request(max_tokens=2, stop_token_ids=[1, 2], logit_bias={"3": 1.0}, temperature=0.5, seed=1)).encode()
    assert status_of(dummy, data)[0] == 200
    with Peer(dummy) as peer:
        for size in range(len(data)):
            peer.send(data[:size])
            status, _, body = peer.read()
            assert status == 400 and json.loads(body)["error"]["message"]
        generator = random.Random(1)
        for _ in range(300):
            bad = bytearray(data)
            for _ in range(3):
                bad[generator.randrange(len(bad))] ^= 1 << generator.randrange(8)
            peer.send(bytes(bad))
            assert peer.read()[0] in (200, 400)
        for size in (1, 3, 100, 5000, 100000):
            peer.send(generator.randbytes(size))
            assert peer.read()[0] == 400


@pytest.mark.parametrize("field,value", [
    ("prompt", 5), ("prompt", {"a": 1}), ("prompt", [[1], "x", None]), ("max_tokens", "5"), ("max_tokens", -1), ("temperature", []),
    ("n", 2**31), ("n", 1.5), ("logprobs", "1"), ("stop", 5), ("stop_token_ids", ["x"]), ("logit_bias", [1]), ("seed", "x"),
    ("stream", 1), ("echo", "no"), ("ignore_eos", 1), ("top_k", "x"), ("priority", "x"), ("allowed_token_ids", [99999]),
])
def test_wrong_types_name_the_field(dummy, field, value):
    status, body = status_of(dummy, {**request(max_tokens=1), field: value})
    assert status == 400
    assert body["error"]["param"].startswith(field)


def test_oversize(dummy):
    limit = dummy.client.server_info().max_message_bytes
    status, body = status_of(dummy, b" " * (limit + 1))
    assert status == 413 and "--max-message-bytes" in body["error"]["message"]
    assert status_of(dummy, b" " * limit)[0] == 400
    status, body = status_of(dummy, request(prompt=[1] * 100000))
    assert status == 400 and body["error"]["code"] == "context_length_exceeded"
    with Peer(dummy) as peer:
        peer.socket.sendall(b"GET /health HTTP/1.1\r\nHost: t\r\nX: " + b"y" * 100000)
        assert peer.read()[0] == 431


def resident_kib(server):
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status).group(1))


@pytest.mark.skipif(SANITIZED, reason="sanitizers keep freed memory")
def test_a_million_prompts_cost_little(start, dummy_model):
    """What a request is parsed into is bounded before it is parsed."""
    server = start(dummy_model, *DUMMY_FLAGS)
    limit = server.client.server_info().max_message_bytes
    status_of(server, request(max_tokens=1))
    before = resident_kib(server)
    million = b'{"prompt":[' + b'"",' * 10**6 + b'""]}'
    assert len(million) < limit
    for body in (million, b'{"prompt":[' + b"[]," * (limit // 4) + b"[]]}", b'{"prompt":' + b"[" * 10**6, b'{"x":' * 10**5,
                 b'{"prompt":[' + b"1," * 500000 + b"1]}"):
        assert status_of(server, body)[0] == 400
    assert resident_kib(server) - before <= 2 * limit / 1024 + 48 * 2**9  # 48 bytes for each of JSON_VALUES_MAX values


def test_stopped_reader_does_not_slow_others(start, dummy_model):
    server = start(dummy_model, *DUMMY_FLAGS, "--max-num-seqs", "8")
    with Peer(server, SMALL_BUFFER_BYTES) as slow:
        slow.send(request(stream=True, logprobs=20))
        assert slow.read_head()[0] == 200
        server.wait_for(lambda loads: loads.num_paused_reqs == 1)
        for i in range(4):
            answer = server.client.generate_whole(input_ids=[4, 5 + i], max_tokens=100, ignore_eos=True, timeout=CALL_LIMIT_S)
            assert len(answer[0].token_ids) == 100
        # The kernel's buffers may still take some of it before it waits for good.
        loads = server.wait_for(lambda loads: loads.num_paused_reqs == 1 or loads.requests_finished == loads.requests_total)
        assert loads.num_paused_reqs == 1
    server.wait_idle()


def test_stalled_stream_is_cut_off(start, dummy_model):
    server = start(dummy_model, *DUMMY_FLAGS, "--stream-stall-timeout", "1")
    with Peer(server, SMALL_BUFFER_BYTES) as slow:
        slow.send(request(stream=True, logprobs=20))
        assert slow.read_head()[0] == 200
        loads = server.wait_idle()  # although nobody cancelled
        assert loads.requests_finished == loads.requests_total == 1
        rest = b""
        try:
            while data := slow.file.read1(65536):  # what was on its way still comes, and then the end
                rest += data
        except ConnectionResetError:
            pass
        assert b"[DONE]" not in rest


def test_thousands_of_idle_connections(start, dummy_model):
    """Past the limit the oldest silent ones give way; whoever has asked already stays in, and whoever comes is served."""
    server = start(dummy_model, *DUMMY_FLAGS, "--max-http-connections", "100")
    with Peer(server) as inside:
        inside.send(request(max_tokens=1))
        assert inside.read()[0] == 200
        crowd = [Peer(server) for _ in range(500)]
        for peer in crowd[:300]:
            assert peer.file.read(1) == b""
        inside.send(request(max_tokens=1))
        assert inside.read()[0] == 200
        with Peer(server) as late:
            late.send(request(max_tokens=1))
            assert late.read()[0] == 200
        for peer in crowd:
            peer.__exit__()


def test_sigterm_under_load_loses_nothing(start, dummy_model):
    server = start(dummy_model, *DUMMY_FLAGS, "--max-num-seqs", "4")
    results, started = [None] * 8, threading.Barrier(9)

    def run(i):
        with Peer(server) as peer:
            peer.send(request(prompt=[6, 7 + i], max_tokens=300, stream=i % 2 == 0, return_token_ids=True))
            started.wait()
            status, headers, body = peer.read()
            if i % 2 == 0:
                parts = [json.loads(line[6:]) for line in body.decode().split("\n\n")[:-2]]
                tokens = sum(len(part["choices"][0]["token_ids"]) for part in parts)
                assert body.endswith(b"data: [DONE]\n\n")
            else:
                tokens = json.loads(body)["usage"]["completion_tokens"]
            results[i] = (status, tokens)

    with Peer(server) as idle:
        idle.send(request(max_tokens=1))
        assert idle.read()[0] == 200
        threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        started.wait()
        server.wait_for(lambda loads: loads.requests_total >= 9)
        server.terminate()
        for thread in threads:
            thread.join()
    assert results == [(200, 300)] * 8
    assert server.wait() == 0


def test_new_requests_are_refused_while_draining(start, dummy_model):
    server = start(dummy_model, *DUMMY_FLAGS, "--shutdown-timeout", "600")
    with Peer(server, SMALL_BUFFER_BYTES) as stopped:
        stopped.send(request(stream=True, logprobs=20))
        stopped.read_head()
        server.wait_for(lambda loads: loads.num_paused_reqs == 1)
        server.terminate()
        status = 200
        while status == 200:  # those that come right after the signal may still be accepted
            with Peer(server) as late:
                late.send(request(max_tokens=1))
                status, headers, body = late.read()
                assert status == 200 or late.file.read() == b""
        assert status == 503 and headers["connection"] == "close" and "retry-after" in headers
        assert json.loads(body)["error"]["type"] == "service_unavailable_error"
        server.terminate()  # a second one ends the wait
        assert server.wait() == 0
    assert "cut off" in server.output()


def listening(server):
    """(address, port) of every TCP socket that the process listens on."""
    inodes = set()
    for link in pathlib.Path(f"/proc/{server.process.pid}/fd").iterdir():
        try:
            inodes |= set(re.findall(r"socket:\[(\d+)\]", str(link.readlink())))
        except OSError:
            pass
    found = set()
    for table in ("tcp", "tcp6"):
        path = pathlib.Path(f"/proc/{server.process.pid}/net/{table}")
        for line in path.read_text().splitlines()[1:] if path.exists() else []:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, port = fields[1].split(":")
                found.add((address[-8:], int(port, 16)))  # gRPC listens on IPv4 by way of IPv6
    return found


def test_only_documented_ports_are_open(start, dummy, dummy_model):
    loopback = "0100007F"
    assert listening(dummy) == {(loopback, dummy.port), (loopback, dummy.http_port), (loopback, dummy.metrics_port)}
    alone = start(dummy_model, *DUMMY_FLAGS, "--no-http", "--no-metrics")
    assert alone.http_port is None and alone.metrics_port is None
    assert {port for _, port in listening(alone)} == {alone.port}


def test_port_in_use(dummy, dummy_model):
    second = run_serve(str(dummy_model), *DUMMY_FLAGS, "--port", "0", "--http-port", str(dummy.http_port))
    assert second.returncode != 0
    assert "in use" in second.stderr and "--http-port" in second.stderr
