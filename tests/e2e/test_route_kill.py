"""kill -9 of an engine under load, behind a router: what had no token yet is answered by somebody else or told of, what had some goes on
where it was or says that it broke, and no token comes twice."""

import concurrent.futures
import json
import signal
import socket
import threading

import grpc
import pytest

from balancing_tools import Replica, wait_until
from conftest import CALL_LIMIT_S, DUMMY_FLAGS, SANITIZED
from route_tools import Provider, Router, route_config
from test_route_faults import state_of

COST_S = 15
N = 8
LATE = 4
TOKENS, CHAT_TOKENS = (500, 400) if SANITIZED else (2000, 1000)
SEATS = ("--max-num-seqs", "4")


class Reader(threading.Thread):
    """A request of its own: `tokens` grows; then `error`, or none."""

    def __init__(self, number, router):
        super().__init__()
        self.number, self.router, self.tokens, self.error = number, router, [], None
        self.start()

    def seen(self):
        return self.tokens

    def run(self):
        try:
            for output in self.router.client.generate(**parameters(self.number)):
                self.tokens += output.token_ids
        except grpc.RpcError as error:
            self.error = error


def parameters(number):
    return {"input_ids": [5 + number, 17, 33], "max_tokens": TOKENS, "temperature": 0.9, "seed": 100 + number, "ignore_eos": True}


@pytest.fixture
def begin(directory):
    """begin(config) -> Router, stopped at the end."""
    routers = []

    def start(config):
        routers.append(Router(directory, config))
        routers[-1].wait_up()
        return routers[-1]

    yield start
    for router in routers:
        router.stop()


@pytest.fixture
def engines(directory, dummy_model):
    opened = [Replica(directory, dummy_model, *DUMMY_FLAGS, *SEATS) for _ in range(2)]
    yield opened
    for replica in opened:
        if replica.server.process.poll() is None:
            replica.server.stop()


def target(replica):
    return f"127.0.0.1:{replica.ports[0]}"


@pytest.fixture(scope="module")
def wanted(dummy):
    """What each request is to be answered, by an engine that nobody kills."""
    with concurrent.futures.ThreadPoolExecutor(N + LATE) as pool:
        return list(pool.map(lambda i: list(dummy.client.generate_whole(**parameters(i))[0].token_ids), range(N + LATE)))


def load_and_kill(router, replicas, make):
    """N requests, of which some have tokens, and as many more that the busiest engine, which stands still, has given none when it is
    killed. make(number): one."""
    readers = [make(i) for i in range(N)]
    wait_until(lambda: sum(bool(reader.seen()) for reader in readers) >= len(replicas), 0.001)
    victim = replicas[0]
    if len(replicas) > 1:
        victim = max(replicas, key=lambda replica: replica.server.client.loads().num_running_reqs)
    victim.server.process.send_signal(signal.SIGSTOP)
    late = [make(N + i) for i in range(LATE)]
    wait_until(lambda: state_of(router)["requests"]["all"] >= N + LATE)
    assert len(replicas) > 1 or not any(reader.seen() for reader in late)
    victim.server.process.kill()
    for reader in readers + late:
        reader.join(CALL_LIMIT_S)
    victim.server.kill()
    return readers + late


def test_nobody_notices_where_another_replica_goes_on(begin, engines, wanted):
    router = begin(route_config([target(replica) for replica in engines], {}))
    router.wait_up(2)
    readers = load_and_kill(router, engines, lambda i: Reader(i, router))
    assert [reader.error for reader in readers] == [None] * (N + LATE)
    assert [reader.tokens for reader in readers] == wanted


def test_alone_it_breaks_what_had_begun_and_says_so(begin, engines, wanted):
    router = begin(route_config([target(engines[0])], {}))
    readers = load_and_kill(router, engines[:1], lambda i: Reader(i, router))
    # Whoever had not ended is told so; what he has is the beginning of his answer, each token once.
    assert all(reader.error or len(reader.tokens) == TOKENS for reader in readers)
    assert all(reader.error and not reader.tokens for reader in readers[N:])
    assert {reader.error.code() for reader in readers if reader.error} == {grpc.StatusCode.UNAVAILABLE}
    assert all(reader.tokens == wanted[reader.number][:len(reader.tokens)] for reader in readers)
    engines[0].start()  # and the next one is served again
    router.wait_log("is up", router.wait_log("is up"))
    router.wait_up()
    again = Reader(0, router)
    again.join(CALL_LIMIT_S)
    assert (again.error, again.tokens) == (None, wanted[0])


class Chat(threading.Thread):
    """A chat over HTTP: `text` grows; then `is_whole`, or it broke."""

    def __init__(self, number, router):
        super().__init__()
        self.prompt = f"Ticket {number}: the parcel is late."
        self.text, self.by, self.is_whole, self.error = "", "", False, ""
        self.body = json.dumps({"model": "", "stream": True, "max_tokens": CHAT_TOKENS, "temperature": 0, "ignore_eos": True,
                                "messages": [{"role": "user", "content": self.prompt}]}).encode()
        self.port = router.http_port
        self.start()

    def seen(self):
        return self.text

    def run(self):
        with socket.create_connection(("127.0.0.1", self.port), CALL_LIMIT_S) as client:
            client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
                           b"content-length: %d\r\n\r\n%s" % (len(self.body), self.body))
            for line in client.makefile("rb"):
                if line.lower().startswith(b"x-bantam-provider:"):
                    self.by = line.split(b":")[1].strip().decode()
                elif line.startswith(b"data: [DONE]"):
                    self.is_whole = not self.error
                elif line.startswith(b"data: "):
                    event = json.loads(line[6:])
                    self.error = self.error or str(event.get("error") or "")
                    self.text += "".join(choice["delta"].get("content") or "" for choice in event.get("choices", ()))


def test_the_frontier_takes_what_had_no_token(begin, directory, demo_model):
    provider, engine = Provider(), Replica(directory, demo_model, *SEATS)
    config = route_config([target(engine)], {"mock": provider.url}, when_down={"to": "frontier"})
    config["providers"][0]["kind"] = "compatible"  # which ignore_eos may go to
    router = begin(config)
    try:
        chats = load_and_kill(router, [engine], lambda i: Chat(i, router))
        local, others = ([chat for chat in chats if (chat.by == "local") == is_local] for is_local in (True, False))
        assert local and len(others) >= LATE and {chat.by for chat in others} == {"mock"}
        assert all(chat.is_whole and chat.text == provider.usual.text for chat in others)
        assert sorted(asked.body["messages"][0]["content"] for asked in provider.asked) == sorted(chat.prompt for chat in others)
        # What had begun here ends with an error, unless it was over before.
        assert all(chat.text and (chat.is_whole or chat.error) for chat in local) and any(chat.error for chat in local)
        engine.start()
        router.wait_log("is up", router.wait_log("is up"))
        router.wait_up()
        for chat in local[:2]:  # nothing came twice, and there is no gap
            whole = Chat(chats.index(chat), router)
            whole.join(CALL_LIMIT_S)
            assert whole.by == "local" and whole.is_whole and whole.text.startswith(chat.text)
        engine.server.stop()
    finally:
        engine.server.kill()
        provider.close()
