"""More load than can be served, and a loop that stands still: counted in steps and tokens."""

import ctypes
import os
import pathlib
import threading
import urllib.error
import urllib.request

import grpc

from native_wire import HEALTH
from conftest import CALL_LIMIT_S, DUMMY_FLAGS, SANITIZED


# Long enough that a place which waits for its next client is a small part of the time, also on a busy machine.
TOKENS = 80 if SANITIZED else 400


def ask(server, results, prompt):
    """One request: its tokens, or how its refusal says when to come back."""
    try:
        answer = server.client.generate_whole(input_ids=prompt, max_tokens=TOKENS, ignore_eos=True, timeout=CALL_LIMIT_S)
        results.append(len(answer[0].token_ids))
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        pushback_ms = int(dict(error.trailing_metadata())["grpc-retry-pushback-ms"])
        assert pushback_ms > 0
        threading.Event().wait(0.005)


def serve_some(server, n_clients, n_answers):
    """Tokens a step while n_clients ask without end."""
    before, results, failures = server.client.loads(), [], []

    def run(i):
        try:
            while len(results) < n_answers:
                ask(server, results, [5, 6 + i])
        except Exception as failure:  # whatever it is, the test reports it
            failures.append(failure)
            results.extend([0] * n_answers)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(n_clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == [] and set(results) == {TOKENS}
    after = server.wait_idle()
    return (after.generation_tokens_total - before.generation_tokens_total) / (after.steps_total - before.steps_total)


def test_overload_costs_no_goodput(start, dummy_model):
    """Ten times as many clients as are served at once: the batch is no emptier, and each refusal says when to come back."""
    server = start(dummy_model, *DUMMY_FLAGS, "--max-num-seqs", "4", "--max-waiting", "2")
    peak = serve_some(server, 4, 30)
    assert serve_some(server, 40, 60) >= 0.9 * peak
    assert server.client.loads().kv_blocks_used == 0


class HeldThread:
    """A thread of a child that is stopped, as if it hung (ptrace)."""
    SEIZE, INTERRUPT, DETACH, ANY_CHILD = 0x4206, 0x4207, 17, 0x40000000

    def __init__(self, process, name):
        tasks = pathlib.Path(f"/proc/{process.pid}/task").iterdir()
        self.thread = next(int(task.name) for task in tasks if (task / "comm").read_text().strip() == name)
        self.libc = ctypes.CDLL(None, use_errno=True)

    def ask(self, what):
        zero = ctypes.c_void_p(0)
        if self.libc.ptrace(ctypes.c_long(what), ctypes.c_long(self.thread), zero, zero) < 0:
            raise OSError(ctypes.get_errno(), "ptrace")

    def __enter__(self):
        self.ask(self.SEIZE)
        self.ask(self.INTERRUPT)
        os.waitpid(self.thread, self.ANY_CHILD)
        return self

    def __exit__(self, *_):
        self.ask(self.DETACH)


def http_health(server):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.http_port}/health", timeout=CALL_LIMIT_S) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_a_loop_that_hangs_is_told_of(start, dummy_model):
    """Health is the loop's own sign of life: every door says so, and takes it back."""
    server = start(dummy_model, *DUMMY_FLAGS)
    watch = server.client.stream(HEALTH + "Watch", b"", CALL_LIMIT_S)
    assert next(watch) == b"\x08\x01"
    with HeldThread(server.process, "bantam-loop"):
        assert next(watch) == b"\x08\x02"
        assert server.client.health() == "NOT_SERVING"
        assert http_health(server) == 503
    assert next(watch) == b"\x08\x01"
    assert http_health(server) == 200
    assert server.client.generate_whole(input_ids=[1, 2], max_tokens=3, ignore_eos=True)[0].finish_reason == "length"
    watch.cancel()
