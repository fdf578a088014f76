"""Clients that are hostile to the transport: each abuse gets its documented answer, and afterwards nothing is left of it."""

import json
import os
import pathlib
import resource
import socket
import ssl
import subprocess
import threading
import time

import grpc
import pytest

import abuse_grpc
import abuse_http
import raw_http2 as h2
from abuse_tools import cut, descriptors, evicted, refused, resident_kib, wait_for_descriptors
from abuse_grpc import LONG_REQUEST, REQUEST, WHOLE, open_request
from balancing_tools import wait_until
from native_wire import SERVICE
from certificates import Authority
from conftest import CALL_LIMIT_S, DUMMY_FLAGS, SANITIZED, Server
from raw_http2 import DATA, END_STREAM, Http2, PREFACE, call, frame, message, setting
from test_http_faults import Peer, request

COST_S = 20
CODE = grpc.StatusCode
STEADY = dict(input_ids=[7, 7, 7], max_tokens=5, temperature=0, ignore_eos=True, timeout=CALL_LIMIT_S)
CALLS_TO_CUT = 1026  # --max-connection-calls, all cancelled at once, two more
GROWTH_KIB = 40 << 10  # of all abuses: bodies, what malloc keeps (17 MiB when this was written)


@pytest.fixture(scope="module")
def server(directory, dummy_model):
    """All abuses meet the same server."""
    server = Server(directory, dummy_model, *DUMMY_FLAGS, "--max-num-seqs", "4", "--max-calls", "1024")
    server.expected = server.client.generate_whole(**STEADY)[0].token_ids
    with Peer(server) as peer:
        peer.send(request(max_tokens=1))
        assert peer.read()[0] == 200
    server.descriptors_before = descriptors(server)
    server.resident_before = resident_kib(server)
    yield server
    server.stop()


def check_others(server):
    """A client that was there before, and one that comes now."""
    assert server.client.generate_whole(**STEADY)[0].token_ids == server.expected
    with server.connect() as other:
        assert other.generate_whole(**STEADY)[0].token_ids == server.expected
    for port in (server.http_port, server.metrics_port):
        assert abuse_http.statuses(port, abuse_http.HEALTH + b"Connection: close\r\n\r\n") == "200"


def names(abuses):
    return [abuse.name for abuse in abuses]


@pytest.mark.parametrize("abuse", abuse_grpc.ODDITIES + abuse_grpc.FLOODS, ids=names(abuse_grpc.ODDITIES + abuse_grpc.FLOODS))
def test_grpc(server, abuse):
    assert abuse.run(server.port, abuse.short) in abuse.answers
    assert server.client.generate_whole(**STEADY)[0].token_ids == server.expected


@pytest.mark.parametrize("abuse", abuse_http.ODDITIES + abuse_http.FLOODS, ids=names(abuse_http.ODDITIES + abuse_http.FLOODS))
@pytest.mark.parametrize("port", ["http_port", "metrics_port"])
def test_http(server, abuse, port):
    assert abuse.run(getattr(server, port), abuse.short) in abuse.answers


def test_nothing_is_left(server):
    """After everything above."""
    check_others(server)
    loads = server.wait_idle()
    assert loads.kv_blocks_used == 0 and loads.requests_finished == loads.requests_total
    wait_for_descriptors(server, server.descriptors_before)
    if not SANITIZED:  # they keep freed memory
        assert resident_kib(server) - server.resident_before < GROWTH_KIB


def lines_since(began):
    """How often a line that comes once in ten seconds may have come."""
    return 1 + int((time.monotonic() - began) / 10)


def test_resets_take_nobodys_place(start, dummy_model):
    """What was cancelled before it was looked at is no call under way."""
    server = start(dummy_model, *DUMMY_FLAGS, "--max-calls", "512")
    done = threading.Event()

    def run():
        while not done.is_set():
            assert abuse_grpc.repeated(abuse_grpc.reset(False))(server.port, 1000) == "goes on"

    thread = threading.Thread(target=run)
    thread.start()
    try:
        for _ in range(50):
            server.client.generate_whole(**STEADY)
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("name", ["rapid reset", "rapid reset, with messages", "calls without their message", "PING flood",
                                  "one giant header"])
def test_floods_are_cut(start, dummy_model, name):
    """A connection at a time, and nobody else's; one line in the log in ten seconds."""
    server = start(dummy_model, *DUMMY_FLAGS)
    began = time.monotonic()
    flood = next(abuse for abuse in abuse_grpc.FLOODS if abuse.name == name)
    with Http2(server.port) as neighbour:
        for n_cut in range(4):
            assert cut(server) == n_cut
            assert flood.run(server.port, flood.short) in abuse_grpc.ENDED
            assert server.client.generate_whole(**STEADY)
        assert neighbour.alive()
    assert 1 <= server.output().count("closing a connection at port") <= lines_since(began)
    assert server.client.loads().requests_total <= 4 * (CALLS_TO_CUT + 1)


@pytest.mark.parametrize("name", ["rapid reset", "one giant header", "PING flood"])
def test_floods_are_cut_within_tls(start, dummy_model, tmp_path, name):
    authority = Authority(tmp_path / "authority")
    authority.make("server", "DNS:localhost,IP:127.0.0.1")
    server = start(dummy_model, *DUMMY_FLAGS, *authority.server_flags())
    context = ssl.create_default_context(cafile=authority.path("ca.pem"))
    context.set_alpn_protocols(["h2"])
    flood = {"rapid reset": lambda i: abuse_grpc.reset(False)(i), "PING flood": lambda i: frame(h2.PING, 0, 0, b"and now?"),
             "one giant header": lambda i: frame(h2.CONTINUATION if i else h2.HEADERS, 0, 1, b"\0" * 1000)}[name]
    with Http2(server.port, context=context) as neighbour:
        for n_cut in range(3):
            assert cut(server) == n_cut
            with Http2(server.port, context=context) as connection:
                connection.send(b"".join(flood(i) for i in range(2000)))
                while connection.read_frame() is not None:
                    pass
        assert cut(server) == 3 and neighbour.alive()


def test_who_calls_much_is_not_cut(start, dummy_model):
    """Four times five hundred calls at once, of which every other is cancelled at once."""
    server = start(dummy_model, *DUMMY_FLAGS)
    with grpc.insecure_channel(server.target) as channel:
        whole = channel.unary_unary(WHOLE)
        for _ in range(4):
            calls = [whole.future(REQUEST, timeout=CALL_LIMIT_S) for _ in range(500)]
            for call in calls[::2]:
                call.cancel()
            for call in calls[1::2]:
                assert call.result()
    assert cut(server) == 0


def test_calls_without_message_give_way(start, dummy_model):
    """The oldest first (two threads take them in, so not to the letter); whoever was among the last is served, however late."""
    server = start(dummy_model, *DUMMY_FLAGS, "--max-calls", "16")
    with Http2(server.port) as idle:
        for i in range(20):
            idle.send(open_request(2 * i + 1))
        ended = ends(idle, 4)
        server.client.generate_whole(**STEADY)
        ended |= ends(idle, 1)  # for that one
        assert len(ended) == 5 and max(ended) < 39
        idle.send(frame(DATA, END_STREAM, 39, message(REQUEST)))
        assert idle.answer(39) == "status 0"


def ends(connection, n):
    """The streams of the next n that end."""
    ended = set()
    while len(ended) < n:
        read = connection.read_frame()
        if read.kind == h2.HEADERS and read.flags & END_STREAM:
            ended.add(read.stream)
    return ended


def test_stalled_calls_give_way(start, dummy_model):
    """Clients that make no room for their answers lose their places when others need them."""
    # All of them come in before the first may be cut.
    server = start(dummy_model, *DUMMY_FLAGS, "--max-calls", "8", "--stream-stall-timeout", "3")

    def is_served():
        try:
            return bool(server.client.generate_whole(**STEADY))
        except grpc.RpcError as error:
            assert error.code() == CODE.RESOURCE_EXHAUSTED and "under way" in error.details()
            return False

    with Http2(server.port, setting(h2.INITIAL_WINDOW_SIZE, 0)) as stopped:
        for i in range(8):
            stopped.send(call(2 * i + 1, WHOLE if i % 2 else SERVICE + "Generate", LONG_REQUEST if i % 2 == 0 else REQUEST))
        wait_until(lambda: not is_served())
        wait_until(is_served)
        wait_until(lambda: stopped.alive() and is_served())


def test_headers_are_limited_for_everybody(server):
    """Also for who has not acknowledged the server's settings; just below the limit all is well."""
    def ask(n_bytes):
        with Http2(server.port) as connection:
            fields = b"".join(h2.literal(f"x-{i}", "y" * 1000) for i in range(n_bytes // 1000))
            parts = [fields[i:i + 16000] for i in range(0, len(fields), 16000)]
            connection.send(frame(h2.HEADERS, 0, 1, h2.request_fields(WHOLE)))
            for part in parts:
                connection.send(frame(h2.CONTINUATION, 0, 1, part))
            connection.send(frame(h2.CONTINUATION, h2.END_HEADERS, 1) + frame(DATA, END_STREAM, 1, message(REQUEST)))
            return connection.answer()

    assert ask(15000) == "status 0"
    assert ask(17000) == "status 8"
    assert ask(60000) == "status 8"
    assert ask(70000) in abuse_grpc.ENDED


def test_connections_are_limited(start, dummy_model):
    """Who is in stays in, who comes past the limit is cut and counted, and there is room again when others go."""
    server = start(dummy_model, *DUMMY_FLAGS, "--max-grpc-connections", "20")
    server.client.health()
    began = time.monotonic()
    crowd = [Http2(server.port) for _ in range(100)]
    n_alive = sum(connection.alive() for connection in crowd)
    assert n_alive == 19
    server.client.generate_whole(**STEADY)
    assert refused(server, "grpc") >= 81
    for connection in crowd:
        connection.__exit__()
    with server.connect() as other:
        wait_until(lambda: tries_to_ask(other))
    assert 1 <= server.output().count("--max-grpc-connections") <= lines_since(began), "once in ten seconds"


def test_silent_connections_give_way(start, dummy_model):
    """As many as there are places, and more: new clients are served, and whoever has a request under way stays."""
    server = start(dummy_model, *DUMMY_FLAGS)
    body = json.dumps(request(max_tokens=1)).encode()
    with Peer(server) as busy:
        busy.socket.sendall(abuse_http.POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        assert busy.read_head()[0] == 100
        crowd = []
        for port, n in ((server.http_port, 1024 + 200), (server.metrics_port, 64 + 200)):
            for i in range(n):
                crowd.append(socket.create_connection(("127.0.0.1", port)))
                if i % 2:
                    try:
                        crowd[-1].sendall(b"GET /hea")
                    except ConnectionError:
                        pass  # it had to give way already
            assert abuse_http.statuses(port, abuse_http.HEALTH + b"Connection: close\r\n\r\n") == "200"
        wait_until(lambda: evicted(server) > 200)
        assert refused(server, "http") == 0
        busy.socket.sendall(body)
        assert busy.read()[0] == 200
        for one in crowd:
            one.close()


def tries_to_ask(client):
    try:
        return bool(client.generate_whole(**STEADY))
    except grpc.RpcError as error:
        assert error.code() == CODE.UNAVAILABLE
        return False


def test_no_descriptor_is_left(start, dummy_model):
    """Nobody new comes in, whoever is in notices nothing, and afterwards each door is open as before."""
    server = start(dummy_model, *DUMMY_FLAGS)
    with Peer(server) as inside:
        inside.send(request(max_tokens=1))
        assert inside.read()[0] == 200
        server.client.health()
        n_before = descriptors(server)
        limit = n_before + 40
        subprocess.run(["prlimit", f"--nofile={limit}:{limit}", "--pid", str(server.process.pid)], check=True)
        crowd = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(100)]
        wait_until(lambda: refused(server, "grpc", inside) >= 50)
        crowd += [socket.create_connection(("127.0.0.1", port)) for port in (server.http_port, server.metrics_port) * 5]
        inside.send(request(max_tokens=1))
        assert inside.read()[0] == 200
        assert server.client.generate_whole(**STEADY)
        for one in crowd:
            one.close()
        wait_for_descriptors(server, n_before)
    check = server.client.generate_whole(**STEADY)[0].token_ids
    with server.connect() as other:
        assert other.generate_whole(**STEADY)[0].token_ids == check
    for port in (server.http_port, server.metrics_port):
        assert abuse_http.statuses(port, abuse_http.HEALTH + b"Connection: close\r\n\r\n") == "200"
    assert len([line for line in server.output().splitlines() if "warn" in line]) < 10


def test_low_limit_of_files(directory, dummy_model):
    """The limits on connections are lowered to what the limit of files has room for."""
    server = Server(directory, dummy_model, *DUMMY_FLAGS, prefix=("prlimit", "--nofile=128:128"))
    try:
        assert "may have 128 open files" in server.output()
        server.client.health()
        crowd = [socket.create_connection(("127.0.0.1", port)) for port in (server.port, server.http_port) for _ in range(150)]
        wait_until(lambda: descriptors(server) > 60)
        assert server.client.generate_whole(**STEADY)
        for one in crowd:
            one.close()
        with server.connect() as other:
            wait_until(lambda: tries_to_ask(other))
        assert "Too many open files" not in server.output()
    finally:
        server.stop()


def test_half_made_connections(start, dummy_model, tmp_path):
    """Silence, half a preface, half a handshake: all of them end by themselves, and nobody has waited for them."""
    authority = Authority(tmp_path / "authority")
    authority.make("server", "DNS:localhost,IP:127.0.0.1")
    server = start(dummy_model, *DUMMY_FLAGS, "--max-http-connections", "64")
    secure = start(dummy_model, *DUMMY_FLAGS, *authority.server_flags(), "--no-metrics")
    n_before = descriptors(server), descriptors(secure)
    hello = tls_hello()
    crowd = []
    for i in range(300):
        for port, data in ((server.port, (b"", PREFACE[:10], PREFACE)[i % 3]), (server.http_port, (b"", b"GET /hea")[i % 2]),
                           (secure.port, (b"", hello[:40], hello)[i % 3]), (secure.http_port, (b"", hello[:40], hello)[i % 3])):
            crowd.append(socket.create_connection(("127.0.0.1", port)))
            if data:
                try:
                    crowd[-1].sendall(data)
                except ConnectionError:
                    pass  # past --max-http-connections: it had to give way already
    assert server.client.generate_whole(**STEADY)
    wait_for_descriptors(server, n_before[0] + 1)  # without anybody's closing them: timeouts do
    wait_for_descriptors(secure, n_before[1])
    for one in crowd:
        one.close()


def tls_hello():
    outgoing = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()
