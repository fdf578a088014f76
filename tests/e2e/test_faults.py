"""Clients that vanish, stop reading, or come at the wrong time; servers that are told to stop."""

import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

import grpc
import pytest

from balancing_tools import wait_until
from conftest import BIN, CALL_LIMIT_S, DUMMY_FLAGS, ROOT, SANITIZED, SLOW, SMALL_WINDOW, STOP_LIMIT_S
from native_wire import HEALTH, SERVICE, generate_bytes, read_output
from test_metrics import scrape

COST_S = 20
CODE = grpc.StatusCode
DISCONNECTS = 300 if SANITIZED else 1000
CALLS_A_CONNECTION = 10


class Cutter:
    """A TCP relay to the server, for one connection or few, that can cut them all abruptly (RST)."""

    def __init__(self, port):
        self.port = port
        self.sockets = []
        self.lock = threading.Lock()
        self.connected = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    @property
    def target(self):
        return f"127.0.0.1:{self.listener.getsockname()[1]}"

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.port))
            with self.lock:
                self.sockets += [near, far]
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self.relay, args=(a, b), daemon=True).start()
            self.connected.set()

    @staticmethod
    def relay(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass

    def cut(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()
        with self.lock:
            for one in self.sockets:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                try:
                    one.shutdown(socket.SHUT_RD)
                except OSError:
                    pass
                one.close()


def long_request(prompt_tokens=8, max_tokens=6000, ignore_eos=True, **parameters):
    ids = [3 + i % 500 for i in range(prompt_tokens)]
    return generate_bytes(input_ids=ids, max_tokens=max_tokens, ignore_eos=ignore_eos, **parameters)


def start_call(client, i):
    """One of: decoding, whole, in a long prefill; one choice or two. Beyond --max-num-seqs they wait in the queue."""
    prompt_tokens = 4000 if i % 5 == 3 else 8
    method = "GenerateWhole" if i % 5 == 4 else "Generate"
    return client.stream(SERVICE + method, long_request(prompt_tokens, max_tokens=4000, n=1 + i % 2), timeout=CALL_LIMIT_S)


def disconnect_in_phase(server, phase):
    """Starts calls over a connection that is then cut; returns how many calls that hit."""
    cutter = Cutter(server.port)
    with server.connect(target=cutter.target) as client:
        calls = [start_call(client, 0)]
        cutter.connected.wait()
        if phase > 0:
            next(calls[0])  # one decodes; phase 0 is cut before the server has said anything
        calls += [start_call(client, i) for i in range(1, CALLS_A_CONNECTION)]
        if phase == 2:
            next(calls[0])
        elif phase == 3:
            server.wait_for(lambda loads: loads.num_waiting_reqs > 0)
        cutter.cut()
        n_hit = 0
        for call in calls:
            try:
                for _ in call:
                    pass
            except grpc.RpcError:
                n_hit += 1  # the others were faster than the knife
        return n_hit


def test_abrupt_disconnects_leave_nothing(start, dummy_model):
    server = start(dummy_model, *DUMMY_FLAGS, "--max-num-seqs", "6", "--max-waiting", "64")
    steady = dict(input_ids=[7, 7, 7], max_tokens=200, temperature=0, ignore_eos=True, timeout=CALL_LIMIT_S)
    expected = server.client.generate_whole(**steady)[0].token_ids
    n_hit = round_number = 0
    while n_hit < DISCONNECTS:
        n_hit += disconnect_in_phase(server, round_number % 4)
        if round_number % 25 == 0:
            assert server.client.generate_whole(**steady)[0].token_ids == expected
        round_number += 1
    loads = server.wait_idle()
    assert loads.kv_blocks_used == 0
    assert loads.requests_finished == loads.requests_total
    assert server.client.generate_whole(**steady)[0].token_ids == expected


def test_killed_client_process(start, dummy_model):
    """The same from the operating system's side: the peer dies without a word of HTTP/2."""
    server = start(dummy_model, *DUMMY_FLAGS, "--max-num-seqs", "4")
    script = (
        "import sys; sys.path.insert(0, sys.argv[2]); import bantam, threading\n"
        "client = bantam.Client(sys.argv[1])\n"
        "start = lambda: client.generate(input_ids=[5, 6], max_tokens=8000, ignore_eos=True)\n"
        "calls = [start()]\n"
        "next(calls[0])\n"
        "calls += [start() for _ in range(11)]\n"
        "print('reading', flush=True); threading.Event().wait()\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, server.target, str(ROOT / "clients/python")],
                             stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"reading\n"
        server.wait_for(lambda loads: loads.requests_total == 12)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    loads = server.wait_idle()
    assert loads.requests_finished == loads.requests_total == 12


def test_stopped_reader_does_not_slow_others(start, dummy_model):
    server = start(dummy_model, *DUMMY_FLAGS, "--max-num-seqs", "8")
    with server.connect(*SMALL_WINDOW) as slow:
        call = stopped_call(slow, server)
        tokens, others = 300, 4
        before = server.client.loads()
        answers = [None] * others

        def run(i):
            outputs = server.client.generate(input_ids=[4, 5 + i], max_tokens=tokens, ignore_eos=True, timeout=CALL_LIMIT_S)
            answers[i] = sum(len(output.token_ids) for output in outputs)

        threads = [threading.Thread(target=run, args=(i,)) for i in range(others)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [tokens] * others
        after = server.wait_for(lambda loads: loads.requests_finished >= others)  # counted when the loop has let go of them
        assert after.requests_finished == others, "the stopped reader is still there"
        # A step brings each running request a token: together the others need at most what each would need one after another.
        # The stopped one may still have filled what the connection buffers.
        own = after.generation_tokens_total - before.generation_tokens_total - others * tokens
        assert after.steps_total - before.steps_total <= others * (tokens + 2) + own
        server.wait_for(lambda loads: loads.num_paused_reqs == 1)
        call.cancel()
    server.wait_idle()


def test_stalled_stream_is_cut_off(start, dummy_model):
    server = start(dummy_model, *DUMMY_FLAGS, "--stream-stall-timeout", "1")
    with server.connect(*SMALL_WINDOW) as slow:
        call = slow.stream(SERVICE + "Generate", long_request(**SLOW), timeout=CALL_LIMIT_S)
        next(call)
        loads = server.wait_idle()  # although nobody cancelled
        assert loads.requests_finished == loads.requests_total == 1
        with pytest.raises(grpc.RpcError) as error:
            for _ in call:  # what was on its way still comes
                pass
        assert error.value.code() == CODE.CANCELLED
        assert "reader" in error.value.details()


def test_large_answer_that_nobody_takes_is_cut_off(start, dummy_model):
    """A message of more than a MiB does not lie in the server for as long as its client likes."""
    server = start(dummy_model, *DUMMY_FLAGS, "--stream-stall-timeout", "5")  # the quick one is to take its answer in time
    request = long_request(**{**SLOW, "n": 16, "max_tokens": SLOW["max_tokens"] // 8})
    with server.connect(*SMALL_WINDOW) as slow, server.connect() as quick:
        call = slow.stream(SERVICE + "GenerateWhole", request, timeout=CALL_LIMIT_S)  # a reader that has not begun
        whole = quick.unary(SERVICE + "GenerateWhole", request, timeout=CALL_LIMIT_S)
        assert len(whole) > 2 << 20
        wait_until(lambda: scrape(server)["bantam:slow_reader_cuts_total", ""] > 0)
        with pytest.raises(grpc.RpcError) as error:
            next(call)
        assert error.value.code() == CODE.CANCELLED
    server.wait_idle()
    assert scrape(server)["bantam:slow_reader_cuts_total", ""] == 1


def run_load(server, n, results, max_tokens=300):
    """n streams at once; each records its tokens and how it ended."""
    started = threading.Barrier(n + 1)

    def run(i):
        ids, end = [], None
        try:
            outputs = server.client.generate(input_ids=[6, 7 + i], max_tokens=max_tokens, temperature=0, ignore_eos=True,
                                             timeout=CALL_LIMIT_S)
            for output in outputs:
                if not ids:
                    started.wait()
                ids += output.token_ids
                end = output.finish_reason
        except grpc.RpcError as error:
            end = error.code()
        results[i] = (len(ids), end)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    started.wait()
    return threads


def refusal_of_late_calls(server):
    """Calls until one is refused: those that come right after the signal may still be accepted, and then finish."""
    with server.connect() as late:
        while True:
            try:
                late.generate_whole(input_ids=[1], max_tokens=1, ignore_eos=True, timeout=CALL_LIMIT_S)
            except grpc.RpcError as error:
                return error.code()


def test_sigterm_under_load_loses_nothing(start, dummy_model):
    server = start(dummy_model, *DUMMY_FLAGS, "--max-num-seqs", "8")
    watch = server.client.stream(HEALTH + "Watch", b"", CALL_LIMIT_S)
    assert next(watch) == b"\x08\x01"
    results = [None] * 8
    threads = run_load(server, 8, results)
    queued = server.client.stream(SERVICE + "Generate", long_request(max_tokens=50), CALL_LIMIT_S)
    server.wait_for(lambda loads: loads.requests_total >= 9)
    server.terminate()
    assert next(watch) == b"\x08\x02"
    assert refusal_of_late_calls(server) in (CODE.UNAVAILABLE, CODE.CANCELLED)
    for thread in threads:
        thread.join()
    assert results == [(300, "length")] * 8
    last = [read_output(data) for data in queued][-1]
    assert last.completion_tokens == 50
    assert server.wait() == 0
    with pytest.raises(grpc.RpcError) as error:
        next(watch)
    assert error.value.code() == CODE.UNAVAILABLE


def stopped_call(client, server):
    """A call whose reader takes one message and then no more: it will never finish by itself."""
    call = client.stream(SERVICE + "Generate", long_request(**SLOW), CALL_LIMIT_S)
    next(call)
    server.wait_for(lambda loads: loads.num_paused_reqs == 1)
    return call


def test_second_signal_forces(start, dummy_model):
    server = start(dummy_model, *DUMMY_FLAGS, "--shutdown-timeout", "600")
    watch = server.client.stream(HEALTH + "Watch", b"", CALL_LIMIT_S)
    next(watch)
    with server.connect(*SMALL_WINDOW) as stopped:
        call = stopped_call(stopped, server)
        server.terminate()
        assert next(watch) == b"\x08\x02"
        server.process.send_signal(signal.SIGINT)
        assert server.wait() == 0
        assert "cut off" in server.output()
        call.cancel()


def test_shutdown_timeout_cuts_off(start, dummy_model):
    server = start(dummy_model, *DUMMY_FLAGS, "--shutdown-timeout", "0")
    with server.connect(*SMALL_WINDOW) as stopped:
        call = stopped_call(stopped, server)
        server.terminate()
        assert server.wait() == 0
        with pytest.raises(grpc.RpcError) as error:
            for _ in call:  # what was on its way still comes
                pass
        assert error.value.code() == CODE.UNAVAILABLE


def run_serve(*arguments):
    return subprocess.run([BIN, "serve", *arguments], capture_output=True, text=True, timeout=STOP_LIMIT_S)


def test_port_in_use(start, dummy_model):
    server = start(dummy_model, *DUMMY_FLAGS)
    second = run_serve(str(dummy_model), *DUMMY_FLAGS, "--http-port", "0", "--port", str(server.port))
    assert second.returncode != 0
    assert "in use" in second.stderr and str(server.port) in second.stderr
    assert server.client.health() == "SERVING"


def test_open_bind_is_refused(dummy_model):
    for host in ("0.0.0.0", "::"):
        result = run_serve(str(dummy_model), *DUMMY_FLAGS, "--port", "0", "--http-port", "0", "--host", host)
        assert result.returncode != 0
        assert "--allow-insecure-bind" in result.stderr


def test_signal_while_loading(directory, dummy_model):
    """Before there is anything to drain a signal ends the program like any other."""
    fifo = directory / "template.fifo"
    os.mkfifo(fifo)
    child = subprocess.Popen([BIN, "serve", str(dummy_model), *DUMMY_FLAGS, "--port", "0", "--no-http", "--port-file", str(fifo)],
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    child.send_signal(signal.SIGTERM)
    status = child.wait(STOP_LIMIT_S)
    child.stdout.close()
    assert status in (0, -signal.SIGTERM)


def test_health(dummy):
    assert dummy.client.health() == "SERVING"
    assert dummy.client.health("bantam.Bantam") == "SERVING"
    with pytest.raises(grpc.RpcError) as error:
        dummy.client.health("other")
    assert error.value.code() == CODE.NOT_FOUND
    listed = dummy.client.unary(HEALTH + "List", b"", CALL_LIMIT_S)
    assert b"bantam.Bantam" in listed
    unknown = dummy.client.stream(HEALTH + "Watch", b"\x0a\x05other", CALL_LIMIT_S)
    assert next(unknown) == b"\x08\x03"
    unknown.cancel()


@pytest.mark.skipif(SANITIZED, reason="sanitizers take memory of their own")
def test_memory_is_within_the_plan(start, demo_model):
    """The printed plan against the most that the process ever held, with every sequence at its longest."""
    server = start(demo_model, "--max-num-seqs", "16", "--max-model-len", "256")
    results = [None] * 16
    for thread in run_load(server, 16, results, max_tokens=250):
        thread.join()
    assert results == [(250, "length")] * 16
    planned_mib = float(re.search(r"memory plan: .*? = ([\d.]+) MiB", server.output()).group(1))
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    peak_kib = int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1))
    assert peak_kib / 1024 <= planned_mib


def test_loads_count(dummy):
    before = dummy.wait_idle()
    dummy.client.generate_whole(input_ids=[5, 6, 7], max_tokens=9, ignore_eos=True)
    after = dummy.wait_idle()
    assert after.requests_total - before.requests_total == 1
    assert after.generation_tokens_total - before.generation_tokens_total == 9
    assert after.prompt_tokens_total - before.prompt_tokens_total == 3
    assert after.kv_blocks_total > 0
    dummy.wait_for(lambda loads: loads.heartbeat_age_ns < 10**9)  # on a busy machine a look may come between two turns
    info = dummy.client.server_info()
    assert info.server_type == "bantam" and not info.draining


def test_long_prefill_stays_healthy(dummy):
    call = dummy.client.stream(SERVICE + "Generate", long_request(prompt_tokens=4000, max_tokens=1), CALL_LIMIT_S)
    thread = threading.Thread(target=lambda: list(call))
    thread.start()
    answers = [dummy.client.health()]
    while thread.is_alive():
        answers.append(dummy.client.health())
    thread.join()
    assert set(answers) == {"SERVING"}
    assert call.code() == CODE.OK
