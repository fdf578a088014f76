"""`bantam route` between an engine and a mock provider that fails: what goes on, what is told, and what never leaves."""

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request

import openai
import pytest

from conftest import BIN, CALL_LIMIT_S
from mock_tools import Mock
from route_tools import Router, route_config

FRONTIER = {"bantam": {"route": "frontier"}}
STYLES = ("crlf", "cr", "comments", "bom", "lines", "no-space", "bytes", "trailing", "no-done", "segments", "crlf,comments,bom,lines")


@pytest.fixture
def mock():
    opened = Mock("--retry-after-s", "1")
    yield opened
    opened.stop()


@pytest.fixture
def start(directory, demo):
    """start(url of a provider, **configuration) -> Router, stopped at the end."""
    routers = []

    def begin(url, engines=None, **more):
        config = route_config([demo.target] if engines is None else engines, {"mock": url}, retries={"max": 2, "backoff": "1ms"}, **more)
        routers.append(Router(directory, config))
        if engines is None:
            routers[-1].wait_up()
        else:
            routers[-1].wait_health("SERVING")
        return routers[-1]

    yield begin
    for router in routers:
        router.stop()


def state_of(router):
    with urllib.request.urlopen(f"http://127.0.0.1:{router.metrics_port}/router/state", timeout=CALL_LIMIT_S) as answer:
        return json.load(answer)


def models_of(router):
    state = state_of(router)
    return {model["model"]: model for model in state["local"] + state["providers"]}


def client_of(router):
    return openai.OpenAI(base_url=f"{router.web}/v1", api_key="unused", max_retries=0, timeout=CALL_LIMIT_S)


def ask(router, prompt, bantam=None, **more):
    """(status, headers, body)"""
    body = {"model": "", "messages": [{"role": "user", "content": prompt}], "max_tokens": 16, **more}
    if bantam:
        body["bantam"] = bantam
    request = urllib.request.Request(f"{router.web}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=CALL_LIMIT_S) as answer:
            return answer.status, answer.headers, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.headers, json.load(error)


def metrics(router):
    with urllib.request.urlopen(f"http://127.0.0.1:{router.metrics_port}/metrics", timeout=CALL_LIMIT_S) as answer:
        lines = answer.read().decode().splitlines()
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines if line and not line.startswith("#")}


def wait_for(what, condition):
    limit = time.monotonic() + CALL_LIMIT_S
    while not condition():
        assert time.monotonic() < limit, what
        time.sleep(0.01)


@pytest.fixture
def dead_port():
    """A port that refuses, and that nobody else can get meanwhile."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def test_local_answers_go_on_while_the_provider_is_down(start, dead_port):
    router = start(f"http://127.0.0.1:{dead_port}/v1", when_broke="local")
    for _ in range(3):
        status, headers, _ = ask(router, "Hello")
        assert status == 200 and headers["x-bantam-provider"] == "local"
    status, headers, answer = ask(router, "Hello", {"route": "frontier"})
    assert status == 200 and headers["x-bantam-provider"] == "local" and answer["choices"][0]["message"]["content"]


def test_an_unreachable_provider_is_told_where_nothing_else_may_answer(start, dead_port):
    router = start(f"http://127.0.0.1:{dead_port}/v1", when_broke="refuse")
    status, _, answer = ask(router, "Hello", {"route": "frontier"})
    assert status == 503 and answer["error"]["message"]
    assert ask(router, "Hello")[0] == 200


def test_what_nobody_answered_was_decided_as_the_log_says(start, dead_port, tmp_path):
    """Refusals, and requests that all who could be asked have failed: the same policy decides them so again."""
    log = tmp_path / "decisions.jsonl"
    router = start(f"http://127.0.0.1:{dead_port}/v1", engines=[f"127.0.0.1:{dead_port}"], when_broke="refuse",
                   log={"path": str(log)})
    assert ask(router, "Hello")[0] == 503
    assert ask(router, "Hello", {"privacy": "local_only"})[0] == 503
    assert ask(router, "Hello", {"route": "frontier"})[0] == 503
    assert ask(router, "Hello", {"route": "frontier"}, logprobs=True)[0] >= 400
    router.stop()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert sorted((line["reason"], line["attempts"] > 0) for line in lines) == [  # a line waits for its request's settlement
        ("cannot_cross", False), ("down", False), ("down", False), ("wish", True)]
    done = subprocess.run([BIN, "replay", log, "--decisions", "--policy", router.path], capture_output=True, text=True, timeout=CALL_LIMIT_S)
    assert done.returncode == 0 and "4 decisions are the same, 0 differ" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
def test_a_client_that_leaves_takes_the_call_along(start, mock, tmp_path, kind):
    router = start(mock.url, kind=kind, ledger={"path": str(tmp_path / "ledger.db")}, log={"path": str(tmp_path / "decisions.jsonl")})
    body = json.dumps({"model": "", "stream": True, "max_tokens": 5000, "bantam": {"route": "frontier"},
                       "messages": [{"role": "user", "content": "mock:tokens=5000 mock:per-chunk-ms=10"}]}).encode()
    with socket.create_connection(("127.0.0.1", router.http_port)) as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                       % len(body) + body)
        seen = b""
        while b"These" not in seen:
            seen += client.recv(65536)
    state = mock.wait(cancelled=1, open=0)
    assert state["answered"] == 0
    # It is settled, at its estimate since nobody counted its tokens, and nothing is reserved any more.
    wait_for("the call is settled", lambda: models_of(router)["mock/large"]["under_way"] == 0 and state_of(router)["money"]["reserved_dollars"] == 0)
    shown = state_of(router)["money"]["spent_dollars"]
    router.stop()
    done = subprocess.run([BIN, "cost", tmp_path / "ledger.db", "--json"], capture_output=True, text=True, timeout=CALL_LIMIT_S, check=True)
    (booked,) = json.loads(done.stdout)["lines"]
    (logged,) = map(json.loads, (tmp_path / "decisions.jsonl").read_text().splitlines())
    # Page, ledger and log say the same, and that it is an estimate.
    cost = booked["cost_nanodollars"]
    assert booked["output_tokens"] == 0  # of an Anthropic stream that has begun one is told, which says nothing
    assert booked["model"] == "large" and booked["calls_with_estimated_cost"] == 1 and cost > 0
    assert round(shown * 1e9) == cost and logged["cost_nanodollars"] == cost and logged["cost_is_estimate"]


def test_a_refusal_with_retry_after_is_tried_again(start, mock):
    router = start(mock.url)
    mock.order("429", 1)
    status, _, answer = ask(router, "Hello", {"route": "frontier"})
    assert status == 200 and answer["choices"][0]["message"]["content"] == "A mock answer to: Hello"
    assert answer["usage"]["bantam"]["attempts"] == 2 and mock.state()["requests"] == 2


def test_spent_money_is_not_tried_again(start, mock):
    router = start(mock.url, when_broke="local")
    mock.order("429-money", 1)
    status, headers, _ = ask(router, "Hello", {"route": "frontier"})
    assert status == 200 and headers["x-bantam-provider"] == "local" and mock.state()["requests"] == 1


def test_a_breaker_opens_and_nobody_is_asked_any_more(start, mock):
    router = start(mock.url, when_broke="local")
    mock.order("500")

    def is_open():
        ask(router, "Hello", {"route": "frontier"})
        return any(name.startswith("bantam:router_breaker_state") and value > 0 for name, value in metrics(router).items())

    wait_for("the breaker opens", is_open)
    asked = mock.state()["requests"]
    for _ in range(5):
        status, headers, _ = ask(router, "Hello", {"route": "frontier"})
        assert status == 200 and headers["x-bantam-provider"] == "local"
    assert mock.state()["requests"] == asked


@pytest.mark.parametrize("fault", ["error-mid", "reset-mid", "garbled", "eof", "cut", "no-finish"])
def test_a_stream_that_breaks_ends_with_an_error(start, mock, fault):
    router = start(mock.url)
    with client_of(router) as client:
        stream = client.chat.completions.create(model="", messages=[{"role": "user", "content": f"one two three mock:{fault}"}],
                                                stream=True, extra_body=FRONTIER)
        text = ""
        with pytest.raises(openai.APIError):
            for chunk in stream:
                text += "".join(choice.delta.content or "" for choice in chunk.choices)
    whole = f"A mock answer to: one two three mock:{fault}"
    assert text and (text == whole if fault == "no-finish" else whole.startswith(text) and text != whole)
    assert mock.state()["requests"] == 1  # never again after a byte is out


def test_how_a_stream_is_written_does_not_show(start, mock):
    router = start(mock.url)
    with client_of(router) as client:
        for style in STYLES:
            prompt = f"one Grüße mock:{style}"
            stream = client.chat.completions.create(model="", messages=[{"role": "user", "content": prompt}], stream=True,
                                                    extra_body=FRONTIER)
            text, reasons = "", []
            for chunk in stream:
                for choice in chunk.choices:
                    text += choice.delta.content or ""
                    reasons += [choice.finish_reason] if choice.finish_reason else []
            assert (text, reasons) == (f"A mock answer to: {prompt}", ["stop"])


def test_nothing_local_only_leaves(start, mock):
    # All that sends requests out, at once: rule, difficulty, classifier, cascade, hedge, overflow.
    labels = [{"text": "easy", "difficulty": 0}, {"text": "hard", "difficulty": 1}]
    router = start(mock.url, rules=[{"name": "all", "when": {"turns": {"min": 1}}, "to": "frontier"}], when_down={"to": "frontier"},
                   difficulty={"at_least": 0.1, "to": "frontier"}, overflow={"ttft_over": "1ms", "to": "frontier"},
                   classifier={"model": "mock/large", "prompt": "Easy or hard?", "labels": labels},
                   cascade={"tier": "small", "tokens": 1, "escalate_over": 0, "to": "frontier"},
                   hedge={"tier": "small", "after": "1ms", "to": "frontier", "max_share": 1})
    for stream in (False, True):
        request = urllib.request.Request(f"{router.web}/v1/chat/completions", json.dumps({
            "model": "", "stream": stream, "max_tokens": 8, "messages": [{"role": "user", "content": "a secret"}],
            "bantam": {"privacy": "local_only", "route": "frontier", "complexity": 10}}).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=CALL_LIMIT_S) as answer:
            assert answer.headers["x-bantam-provider"] == "local"
            answer.read()
    # Not a connection was made: whoever asks for the state makes the first.
    state = mock.state()
    assert (state["connections"], state["requests"]) == (1, 0)
    assert ask(router, "no secret")[1]["x-bantam-provider"] == "mock"  # which all others do


def test_what_must_stay_is_refused_when_the_engine_is_gone(start, mock, dead_port):
    router = start(mock.url, engines=[f"127.0.0.1:{dead_port}"], when_down={"to": "frontier"})
    assert ask(router, "Hello")[1]["x-bantam-provider"] == "mock"
    before = mock.state()
    status, _, _ = ask(router, "a secret", {"privacy": "local_only"})
    assert status == 503
    after = mock.state()
    assert after["requests"] == before["requests"] and after["connections"] == before["connections"] + 1  # that of state() itself


def test_the_page_shows_what_happened(start, mock):
    router = start(mock.url)
    ask(router, "Hello")
    ask(router, "Hello", {"route": "frontier"})
    base = f"http://127.0.0.1:{router.metrics_port}"
    with urllib.request.urlopen(f"{base}/", timeout=CALL_LIMIT_S) as answer:
        assert "default-src 'none'" in answer.headers["content-security-policy"] and b"page.js" in answer.read()

    wait_for("both are counted", lambda: state_of(router)["answers"] == {"local": 1, "frontier": 1, "cache": 0})
    wait_for("both are over", lambda: state_of(router)["requests"]["running"] == 0)
    now, models = state_of(router), models_of(router)
    assert now["decisions"]["default"] == 1 and now["decisions"]["wish"] == 1
    assert models["local/demo"]["up"] == 1 and models["mock/large"]["breaker"] == "closed"
    assert now["money"]["spent_dollars"] > 0 and "Hello" not in json.dumps(now)
