"""Kept answers through the whole router: given again to a client and to the next process, forgotten in time, and no loss when the
server that keeps them goes."""

import json
import signal
import subprocess
import time
import urllib.request

import pytest

from balancing_tools import NOBODY, free_port, listens, wait_until
from conftest import CALL_LIMIT_S
from route_tools import Provider, Router, route_config

SERVER = "/usr/bin/redis-check-rdb"  # Debian's redis-tools has the server as a tool: what it is, it sees by its name


@pytest.fixture
def provider():
    opened = Provider()
    yield opened
    opened.close()


@pytest.fixture
def start(directory, provider):
    """start(cache) -> Router, with nobody but the provider to answer; stopped at the end."""
    routers = []

    def begin(**cache):
        config = route_config([NOBODY], {"mock": provider.url}, when_down={"to": "frontier"}, cache=cache)
        routers.append(Router(directory, config))
        routers[-1].wait_health("SERVING")
        return routers[-1]

    yield begin
    for router in routers:
        if router.process.poll() != -signal.SIGKILL:
            router.stop()


class Redis:
    """A redis-server of its own, that can die and come back on the same port with nothing in it."""

    def __init__(self, directory):
        self.directory = directory
        for _ in range(5):  # somebody else may get the port before
            self.port = free_port()
            self.start()
            if self.process.poll() is None:
                return
        raise AssertionError("redis-server does not start")

    def start(self):
        arguments = ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", self.directory]
        self.process = subprocess.Popen(arguments, executable=SERVER, stdout=subprocess.DEVNULL)
        wait_until(lambda: self.process.poll() is not None or listens(self.port))

    def end(self, how=signal.SIGKILL):
        self.process.send_signal(how)
        self.process.wait(CALL_LIMIT_S)


@pytest.fixture
def redis(tmp_path):
    opened = Redis(tmp_path)
    yield opened
    opened.end()


def ask(router, prompt, stream=False):
    """(what the cache said, the text)"""
    body = {"model": "", "messages": [{"role": "user", "content": prompt}], "temperature": 0, "stream": stream}
    request = urllib.request.Request(f"{router.web}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=CALL_LIMIT_S) as answer:
        said = answer.headers["x-bantam-cache"]
        if not stream:
            return said, json.load(answer)["choices"][0]["message"]["content"]
        events = [json.loads(line[6:]) for line in answer.read().decode().splitlines() if line.startswith("data: {")]
    return said, "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])


def ask_until(router, prompt, wanted, stream=False):
    """Until the cache says so; each answer is the whole one. A Redis that takes longer than it may is left alone for a while."""
    limit = time.monotonic() + CALL_LIMIT_S
    while True:
        said, text = ask(router, prompt, stream)
        assert text == "The frontier says so."
        if said == wanted:
            return
        assert time.monotonic() < limit, (said, wanted)
        time.sleep(0.05)


def test_sqlite_keeps_answers_over_a_restart(start, provider, tmp_path):
    kept = {"kind": "sqlite", "path": str(tmp_path / "answers.db"), "ttl": "1h"}
    router = start(**kept)
    assert ask(router, "a question") == ("miss", "The frontier says so.")
    ask_until(router, "a question", "hit")
    asked = len(provider.asked)
    assert ask(router, "a question", stream=True) == ("hit", "The frontier says so.")
    assert ask(router, "another question")[0] == "miss"
    router.stop()
    again = start(**kept)
    assert ask(again, "a question") == ("hit", "The frontier says so.") and len(provider.asked) == asked + 1
    again.kill()  # nor does that lose any
    third = start(**kept)
    assert ask(third, "a question", stream=True) == ("hit", "The frontier says so.") and len(provider.asked) == asked + 1


@pytest.mark.parametrize("kind", ["memory", "sqlite", "redis"])
def test_an_answer_is_forgotten_in_time(start, provider, request, tmp_path, kind):
    where = {"memory": {}, "sqlite": {"path": str(tmp_path / "answers.db")}}.get(kind)
    if where is None:
        where = {"address": f"127.0.0.1:{request.getfixturevalue('redis').port}"}
    router = start(kind=kind, ttl="1s", **where)
    ask_until(router, "a question", "hit")
    asked = len(provider.asked)
    ask_until(router, "a question", "miss")
    assert len(provider.asked) == asked + 1


def test_redis_is_shared_and_may_die(start, provider, redis):
    kept = {"kind": "redis", "address": f"127.0.0.1:{redis.port}", "ttl": "1h"}
    first, second = start(**kept), start(**kept)
    ask_until(first, "a question", "hit")
    ask_until(second, "a question", "hit")  # the other one's answer, as soon as it is connected
    ask_until(second, "a question", "hit", stream=True)
    redis.end()
    before = len(provider.asked)
    said = []
    for i in range(5):
        said += [ask(first, "a question"), ask(second, f"question {i}", stream=True)]
    # A client that asks again at once may find its first question not put away yet, and shares that answer.
    assert all(text == "The frontier says so." for _, text in said)
    assert {what for what, _ in said} <= {"miss", "shared"} and all(what == "miss" for what, _ in said[1::2])
    assert len(provider.asked) == before + sum(what == "miss" for what, _ in said)
    redis.start()
    ask_until(first, "a question", "hit")  # it is found again, and kept into
    ask_until(second, "a question", "hit")


def test_a_redis_that_hangs_holds_nobody_up_twice(start, provider, redis):
    router = start(kind="redis", address=f"127.0.0.1:{redis.port}", ttl="1h")
    ask_until(router, "a question", "hit")
    redis.process.send_signal(signal.SIGSTOP)
    for i in range(10):
        assert ask(router, f"question {i}") == ("miss", "The frontier says so.")
    redis.process.send_signal(signal.SIGCONT)
    ask_until(router, "a question", "hit")
