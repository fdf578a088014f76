"""A provider that answers what a test tells it to, and a running `bantam route`."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import http.server
import json
import pathlib
import re
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

from bantam.health import SERVICE as HEALTH
from bantam.health import decode_check
from conftest import CALL_LIMIT_S, Server


@dataclasses.dataclass
class Reply:
    """What the provider says to one request."""

    pieces: tuple[str, ...] = ("The frontier ", "says ", "so.")
    tool_calls: tuple[dict[str, Any], ...] = ()
    status: int = 200
    message: str = ""  # of an error
    prompt_tokens: int = 11
    completion_tokens: int = 7
    fingerprint: str = "fp_mock"
    hold: threading.Event | None = None  # after the first piece it waits for this

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def usage(self) -> dict[str, int]:
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens,
                "total_tokens": self.prompt_tokens + self.completion_tokens}


@dataclasses.dataclass
class Asked:
    """A request that came to the provider."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class Provider:
    """Speaks OpenAI's chat completions on a loopback port."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.usual = Reply()
        self.next: collections.deque[Reply] = collections.deque()
        self.left = threading.Semaphore(0)  # a client that went before the end
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), make_handler(self))
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/v1"

    def take(self) -> Reply:
        return self.next.popleft() if self.next else self.usual

    def forget(self) -> None:
        self.asked.clear()
        self.next.clear()
        self.usual = Reply()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def make_handler(provider: Provider) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            provider.asked.append(Asked(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            reply = provider.take()
            try:
                if reply.status != 200:
                    self.send_json(reply.status, {"error": {"message": reply.message, "type": "mock_error", "code": None}})
                elif body.get("stream"):
                    self.send_stream(body, reply)
                else:
                    self.send_json(200, whole(body, reply))
            except (BrokenPipeError, ConnectionResetError):
                provider.left.release()
                self.close_connection = True

        def send_json(self, status: int, answer: dict[str, Any]) -> None:
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def send_chunk(self, data: bytes) -> None:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

        def send_event(self, event: dict[str, Any] | str) -> None:
            text = event if isinstance(event, str) else json.dumps(event)
            self.send_chunk(f"data: {text}\n\n".encode())

        def send_stream(self, body: dict[str, Any], reply: Reply) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for i, delta in enumerate(deltas(reply)):
                self.send_event(chunk(body, [{"index": 0, "delta": delta, "finish_reason": None}], reply))
                if i == 1 and reply.hold:
                    self.wait(reply.hold)
            self.send_event(chunk(body, [{"index": 0, "delta": {}, "finish_reason": finish(reply)}], reply))
            if (body.get("stream_options") or {}).get("include_usage"):
                self.send_event({**chunk(body, [], reply), "usage": reply.usage})
            self.send_event("[DONE]")
            self.wfile.write(b"0\r\n\r\n")

        def wait(self, event: threading.Event) -> None:
            """Comments keep the connection alive, and tell when the client has left."""
            while not event.wait(0.02):
                self.send_chunk(b": waiting\n\n")

    return Handler


def finish(reply: Reply) -> str:
    return "tool_calls" if reply.tool_calls else "stop"


def deltas(reply: Reply) -> list[dict[str, Any]]:
    first: dict[str, Any] = {"role": "assistant", "content": None if reply.tool_calls else ""}
    if not reply.tool_calls:
        return [first, *({"content": piece} for piece in reply.pieces)]
    found = [first]
    for i, call in enumerate(reply.tool_calls):
        arguments = call["function"]["arguments"]
        middle = len(arguments) // 2
        start = {**call, "function": {"name": call["function"]["name"], "arguments": ""}}
        found.append({"tool_calls": [{"index": i, **start}]})
        for part in (arguments[:middle], arguments[middle:]):
            found.append({"tool_calls": [{"index": i, "function": {"arguments": part}}]})
    return found


def chunk(body: dict[str, Any], choices: list[dict[str, Any]], reply: Reply) -> dict[str, Any]:
    return {"id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": 1, "model": body["model"] + "-2026",
            "system_fingerprint": reply.fingerprint, "choices": choices}


def whole(body: dict[str, Any], reply: Reply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": None if reply.tool_calls else reply.text}
    if reply.tool_calls:
        message["tool_calls"] = list(reply.tool_calls)
    return {"id": "chatcmpl-mock", "object": "chat.completion", "created": 1, "model": body["model"] + "-2026",
            "system_fingerprint": reply.fingerprint, "usage": reply.usage,
            "choices": [{"index": 0, "message": message, "finish_reason": finish(reply)}]}


def route_config(engines: list[str], providers: dict[str, str], kind: str = "openai", **more: Any) -> dict[str, Any]:
    """A configuration with one local model and one of each provider (name -> URL)."""
    today = datetime.date.today().isoformat()
    large = {"name": "large", "price": {"input": 2, "output": 10, "as_of": today}}
    models = [{**large, "max_output": 8192} if kind == "anthropic" else large]  # which Anthropic's have to have
    tiers = [{"name": "small", "models": ["local/demo"]}]
    if providers:
        tiers.append({"name": "frontier", "models": [f"{name}/large" for name in providers]})
    return {"local": [{"name": "demo", "targets": engines}],
            "providers": [{"name": name, "kind": kind, "url": url, "models": models} for name, url in providers.items()],
            "tiers": tiers, "gate": "off", **more}


class Router(Server):
    """A running `bantam route`. The file is written as JSON, which YAML takes."""

    COMMAND = ("route",)

    def __init__(self, directory: pathlib.Path, config: dict[str, Any], *flags: str, env: dict[str, str] | None = None):
        self.path = directory / f"route-{id(self)}.yaml"
        self.put(config)
        super().__init__(directory, self.path, *flags, env=env)

    def put(self, config: dict[str, Any] | str) -> None:
        aside = self.path.with_suffix(".new")
        aside.write_text(config if isinstance(config, str) else json.dumps(config))
        aside.rename(self.path)

    def watch_health(self) -> Iterator[str]:
        """What grpc.health.v1 says now, and each change."""
        for status in self.client.channel.unary_stream(HEALTH + "Watch")(b"", timeout=CALL_LIMIT_S):
            yield decode_check(status)

    def wait_health(self, wanted: str) -> None:
        """Until grpc.health.v1 says so."""
        assert wanted in self.watch_health(), "Watch ended"

    def wait_up(self, n: int = 1) -> None:
        """Until so many engines may be asked: with a provider it serves before that."""
        limit = time.monotonic() + CALL_LIMIT_S
        while True:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/router/state", timeout=CALL_LIMIT_S) as answer:
                n_up = sum(model["up"] for model in json.load(answer)["local"])
            if n_up >= n:
                return
            assert time.monotonic() < limit, f"{n_up} engines are up"
            time.sleep(0.01)

    def wait_log(self, text: str, after: int = 0) -> int:
        """Until the log says so behind the given place; returns the place behind it."""
        limit = time.monotonic() + CALL_LIMIT_S
        while text not in self.output()[after:]:
            assert self.process.poll() is None and time.monotonic() < limit, self.output()
            time.sleep(0.01)
        return self.output().index(text, after) + len(text)

    def wait_settled(self) -> None:
        """Until no money is set aside: an answer may be read before its call is booked."""
        limit = time.monotonic() + CALL_LIMIT_S
        while True:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=CALL_LIMIT_S) as answer:
                reserved = re.search(r"^bantam:router_reserved_dollars (\S+)$", answer.read().decode(), re.M)
            if float(reserved[1]) == 0:
                return
            assert time.monotonic() < limit, f"{reserved[1]} dollars stay reserved"
            time.sleep(0.01)

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"
