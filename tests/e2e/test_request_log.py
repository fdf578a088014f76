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


def line_of(server, request_id):
    """The one line of a request, when it is there: it may be written behind the answer."""
    found = []

    def look():
        lines = [json.loads(line) for line in server.output().splitlines() if '"area":"request"' in line]
        assert all(set(line) == NAMES | {"ts", "level", "area", "msg"} and line["level"] == "debug" for line in lines)
        found[:] = [line for line in lines if line["id"] == request_id]
        return found

    wait_until(look)
    (line,) = found
    return {name: line[name] for name in NAMES - {"id"}}


def post(server, request_id, key=None, **more):
    body = {"messages": [{"role": "user", "content": SECRET}], "max_tokens": 5, "temperature": 0, "ignore_eos": True, **more}
    headers = {"Content-Type": "application/json", "x-request-id": request_id}
    headers |= {"Authorization": f"Bearer {key}"} if key else {}
    url = f"http://127.0.0.1:{server.http_port}/v1/chat/completions"
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
        assert "zebra" not in router.output()
    finally:
        router.stop()
        provider.close()


def test_nothing_at_the_usual_level(demo):
    post(demo, "quiet")
    assert '"area":"request"' not in demo.output()
