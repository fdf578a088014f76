"""The request log: at --log-level debug the end of every request is a line, by whichever door it came, without its text."""

import json
import urllib.error
import urllib.request

import bantam
import pytest
from balancing_tools import wait_until
from conftest import CALL_LIMIT_S
from route_tools import Provider, Router, route_config
from test_identity import Tenants, grpc_client

SECRET = "zebra crossing at noon"
NAMES = {"id", "tenant", "model", "provider", "door", "choice", "prompt_tokens", "cached_tokens", "output_tokens", "finish",
         "status", "queue_ms", "prefill_ms", "decode_ms"}


def lines_that(server, has, n):
    """The n lines that has() is true of, when they are there: they may be written behind the answer."""
    found = []

    def look():
        lines = [json.loads(line) for line in server.output().splitlines() if '"area":"request"' in line]
        assert all(set(line) == NAMES | {"ts", "level", "area", "msg"} and line["level"] == "debug" for line in lines)
        found[:] = [line for line in lines if has(line)]
        return len(found) >= n

    wait_until(look)
    assert len(found) == n, found
    return found


def line_of(server, request_id):
    (line,) = lines_that(server, lambda line: line["id"] == request_id, 1)
    return {name: line[name] for name in NAMES - {"id"}}


def post(server, request_id, key=None, **more):
    body = {"messages": [{"role": "user", "content": SECRET}], "max_tokens": 5, "temperature": 0, "ignore_eos": True, **more}
    return post_to(f"http://127.0.0.1:{server.http_port}/v1/chat/completions", body, request_id, key)


def post_to(url, body, request_id=None, key=None, more=()):
    headers = dict(more) | {"Content-Type": "application/json"}
    headers |= {"x-request-id": request_id} if request_id else {}
    headers |= {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=CALL_LIMIT_S) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as refused:
        return json.load(refused)


def check_times(line):
    times = [line.pop(name) for name in ("queue_ms", "prefill_ms", "decode_ms")]
    assert all(time >= 0 for time in times)


def test_every_door_of_an_engine(start, demo_model, tmp_path):
    tenants = Tenants(tmp_path / "tenants.txt", acme="")
    key = tenants.keys["acme"]
    server = start(demo_model, "--api-keys-file", str(tenants.path), "--log-level", "debug")
    usage = post(server, "by-http", key)["usage"]
    again = post(server, "by-http-again", key)["usage"]
    assert "error" in post(server, "refused", key, temperature=-1)
    with grpc_client(server, key=key) as client:
        (whole,) = client.generate_whole(SECRET, request_id="by-grpc", max_tokens=3, ignore_eos=True)
        with pytest.raises(bantam.InvalidArgumentError):
            client.generate_whole(SECRET, request_id="refused-grpc", max_tokens=3, top_p=5)
    common = {"tenant": "acme", "model": "model", "provider": None, "choice": 0, "finish": "length", "status": "OK"}
    for name, told in (("by-http", usage), ("by-http-again", again)):
        line = line_of(server, name)
        check_times(line)
        assert line == common | {"door": "http", "prompt_tokens": told["prompt_tokens"], "output_tokens": 5,
                                 "cached_tokens": told["prompt_tokens_details"]["cached_tokens"]}
    assert line_of(server, "by-http-again")["cached_tokens"] > 0
    line = line_of(server, "by-grpc")
    check_times(line)
    assert (line["door"], line["prompt_tokens"], line["output_tokens"]) == ("grpc", whole.prompt_tokens, 3)
    for name, door in (("refused", "http"), ("refused-grpc", "grpc")):
        line = line_of(server, name)
        assert (line["door"], line["tenant"], line["finish"], line["status"]) == (door, "acme", "refused", "INVALID_ARGUMENT")
        assert line["prompt_tokens"] is None and line["queue_ms"] is None
    assert "zebra" not in server.output() and key not in server.output()


def test_what_is_refused_is_told_by_the_names_that_it_came_with(start, demo_model):
    server = start(demo_model, "--log-level", "debug")
    web = f"http://127.0.0.1:{server.http_port}"
    assert "error" in post(server, "other", model="no-such-model")
    assert line_of(server, "other")["model"] == "no-such-model"
    for name, wrong in (("in-body", {"temperature": -1}), ("in-bad-body", {"temperature": "warm"})):
        assert "error" in post_to(web + "/v1/completions", {"prompt": SECRET, "request_id": name, **wrong})
        assert (line_of(server, name)["finish"], line_of(server, name)["model"]) == ("refused", "model")
    with grpc_client(server) as client:
        with pytest.raises(bantam.BantamError):
            client.generate_whole(SECRET, request_id="other-grpc", max_tokens=3, model="no-such-model")
    assert line_of(server, "other-grpc")["model"] == "no-such-model"
    assert "error" in post(server, "endless", model="m" * 5000)
    assert line_of(server, "endless")["model"] == "m" * 256
    assert "error" in post_to(web + "/v1/elsewhere", {}, "elsewhere")
    post(server, "last")
    line_of(server, "last")
    assert '"id":"elsewhere"' not in server.output()
    assert "zebra" not in server.output()


def test_of_several_prompts_one_is_refused(start, demo_model):
    server = start(demo_model, "--log-level", "debug")
    url = f"http://127.0.0.1:{server.http_port}/v1/completions"
    body = {"prompt": [[1], [99999]], "max_tokens": 4}
    assert "error" in post_to(url, body, "several")
    assert line_of(server, "several-1")["finish"] == "refused"
    assert line_of(server, "several-0")["status"] == "CANCELLED"
    assert "error" in post_to(url, body)
    first, made_up = sorted(line["id"] for line in lines_that(server, lambda line: not line["id"].startswith("several"), 2))
    assert made_up == first + "-1"


REFUSED_TOOLS = [
    ("complete", {"prompt": SECRET, "model": "wanted", "temperature": -1}),
    ("compare", {"prompt": SECRET, "models": ["wanted", "and-this"], "max_tokens": "few"}),
    ("complete", {"prompt": SECRET, "no": "argument"}),
    ("escalate", {"handle": "none"}),
]


def call_tool(router, tool, arguments):
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28", "io.modelcontextprotocol/clientCapabilities": {}}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments, "_meta": meta}}
    headers = {"MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "tools/call", "Mcp-Name": tool}
    return post_to(router.web + "/mcp", call, more=headers)["result"]


def test_a_router(directory, demo):
    provider = Provider()
    router = Router(directory, route_config([demo.target], {"mock": provider.url}), "--log-level", "debug")
    try:
        router.wait_up()
        post(router, "here")
        post(router, "away", ignore_eos=None, bantam={"route": "frontier"})
        here, away = line_of(router, "here"), line_of(router, "away")
        assert (here["provider"], here["door"], here["output_tokens"], here["status"]) == ("local", "http", 5, "OK")
        assert (away["provider"], away["prompt_tokens"], away["output_tokens"], away["finish"]) == ("mock", 11, 7, "stop")
        for tool, arguments in REFUSED_TOOLS:
            call_tool(router, tool, arguments)
        refused = lines_that(router, lambda line: line["door"] == "mcp", len(REFUSED_TOOLS) + 1)
        assert {(line["finish"], line["id"]) for line in refused} == {("refused", None)}
        assert [line["model"] for line in refused[:3]] == ["wanted", "wanted", "and-this"]
        assert [line["status"] for line in refused] == ["INVALID_ARGUMENT"] * 4 + ["NOT_FOUND"]
        assert "zebra" not in router.output()
    finally:
        router.stop()
        provider.close()


def test_nothing_at_the_usual_level(demo):
    post(demo, "quiet")
    assert '"area":"request"' not in demo.output()
