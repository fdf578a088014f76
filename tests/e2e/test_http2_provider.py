"""Calls to a provider that speaks HTTP/2: nginx with TLS before the mock provider. Its log has a line for each answer: the connection's
number, the protocol, and the status, 499 where the client gave up."""

import collections
import concurrent.futures
import json
import socket
import subprocess
import urllib.request

import pytest

from balancing_tools import NOBODY, TOOLS, free_port, listens, wait_until
from certificates import Authority
from conftest import CALL_LIMIT_S
from mock_tools import Mock
from route_tools import Router, route_config

Line = collections.namedtuple("Line", "connection protocol status")
AT_ONCE = 40
NGINX = """
daemon off;
pid {directory}/nginx.pid;
worker_processes 1;
events {{ worker_connections 512; }}
http {{
  log_format lines "$connection $server_protocol $status";
  access_log {directory}/{port}.log lines;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl{http2};
    ssl_certificate {directory}/server.pem;
    ssl_certificate_key {directory}/server.key;
    location / {{
      proxy_pass http://{mock};
      proxy_http_version 1.1;
      proxy_buffering off;
      proxy_request_buffering off;
    }}
  }}
}}
"""


class Front:
    """nginx before the mock, with HTTP/2 or without."""

    def __init__(self, directory, mock, has_http2):
        self.directory = directory
        for _ in range(5):  # somebody else may get the port before
            self.start(mock, has_http2)
            if self.process.poll() is None:
                return
        raise AssertionError((directory / "error.log").read_text())

    def start(self, mock, has_http2):
        directory, self.port = self.directory, free_port()
        config = directory / f"nginx-{self.port}.conf"
        config.write_text(NGINX.format(directory=directory, port=self.port, mock=mock.address, http2=" http2" if has_http2 else ""))
        self.process = subprocess.Popen([TOOLS / "usr/sbin/nginx", "-p", directory, "-e", directory / "error.log", "-c", config])
        wait_until(lambda: self.process.poll() is not None or listens(self.port))

    def lines(self):
        return [Line(*line.split()) for line in (self.directory / f"{self.port}.log").read_text().splitlines() if "HTTP/" in line]

    def wait_lines(self, n):
        wait_until(lambda: len(self.lines()) >= n)
        return self.lines()

    def stop(self):
        self.process.terminate()
        self.process.wait(CALL_LIMIT_S)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    made = Authority(tmp_path_factory.mktemp("http2"))
    made.make("server", "DNS:localhost,IP:127.0.0.1")
    return made


@pytest.fixture
def begin(authority, directory):
    """begin(http2?) -> (mock, front, router), all of them stopped at the end."""
    opened = []

    def make(has_http2):
        opened.append(Mock())
        opened.append(Front(authority.folder, opened[0], has_http2))
        config = route_config([NOBODY], {"mock": f"https://127.0.0.1:{opened[1].port}/v1"}, when_down={"to": "frontier"})
        config["providers"][0]["ca_file"] = str(authority.path("ca.pem"))
        opened.append(Router(directory, config))
        opened[2].wait_health("SERVING")
        return opened

    yield make
    for one in reversed(opened):
        one.stop()


def ask(router, prompt, stream=False):
    body = {"model": "", "messages": [{"role": "user", "content": prompt}], "stream": stream}
    request = urllib.request.Request(f"{router.web}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=CALL_LIMIT_S) as answer:
        if not stream:
            return json.load(answer)["choices"][0]["message"]["content"]
        events = [json.loads(line[6:]) for line in answer.read().decode().splitlines() if line.startswith("data: {")]
    return "".join(choice["delta"].get("content") or "" for event in events for choice in event["choices"])


def open_stream(router, prompt, until):
    """A client that has read that far of a stream."""
    body = json.dumps({"model": "", "stream": True, "max_tokens": 1000000,  # without, the router sends 4,096
                       "messages": [{"role": "user", "content": prompt}]}).encode()
    client = socket.create_connection(("127.0.0.1", router.http_port))
    client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                   % (len(body), body))
    seen = b""
    while until and until not in seen:
        seen += client.recv(65536)
    return client


def ask_all(router):
    """Many at once, half of them streams; under way together, since none ends before the last has begun to."""
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        prompts = [f"number {i} mock:first-byte-ms=100" for i in range(AT_ONCE)]
        answers = list(pool.map(lambda i: ask(router, prompts[i], i % 2 == 1), range(AT_ONCE)))
    assert answers == [f"A mock answer to: {prompt}" for prompt in prompts]


def test_one_connection_carries_all_calls(begin):
    mock, front, router = begin(True)
    ask_all(router)
    assert ask(router, "again") == "A mock answer to: again"  # later, too
    lines = front.wait_lines(AT_ONCE + 1)
    assert {line.protocol for line in lines} == {"HTTP/2.0"} and {line.status for line in lines} == {"200"}
    assert len({line.connection for line in lines}) == 1 and len(lines) == AT_ONCE + 1


def test_a_client_that_leaves_ends_its_stream_alone(begin):
    mock, front, router = begin(True)
    slow = "mock:tokens=100000 mock:per-chunk-ms=5"
    stays, leaves = (open_stream(router, slow, b"data: {") for _ in range(2))
    leaves.close()
    mock.wait(cancelled=1, open=1)  # nginx has heard of it, and told the mock
    assert ask(router, "after it") == "A mock answer to: after it"
    while b"chunk" not in stays.recv(65536):
        pass  # it goes on
    stays.close()  # the last one on its connection
    mock.wait(cancelled=2, open=0)
    lines = front.wait_lines(3)
    assert len({line.connection for line in lines}) == 1
    assert ask(router, "anew") == "A mock answer to: anew"


def test_a_reset_does_not_wait_for_others_on_the_connection(begin):
    mock, front, router = begin(True)
    silent = open_stream(router, "mock:first-byte-ms=600000", b"")  # nothing moves on the connection
    mock.wait(open=1)
    leaves = open_stream(router, "mock:tokens=100000 mock:per-chunk-ms=5", b"data: {")
    leaves.close()
    mock.wait(cancelled=1, open=1)
    leaves = open_stream(router, "mock:first-byte-ms=600000", b"")
    mock.wait(open=2)
    leaves.close()
    mock.wait(cancelled=2, open=1)
    silent.close()
    mock.wait(cancelled=3, open=0)
    assert len({line.connection for line in front.wait_lines(1)}) == 1


def test_a_slow_reader_holds_nobody_else_back(begin):
    mock, front, router = begin(True)
    slow = open_stream(router, "mock:tokens=1000000", b"data: {")  # and it reads no more
    for i in range(20):
        assert ask(router, f"beside it {i}", i % 2 == 1) == f"A mock answer to: beside it {i}"
    assert mock.state()["open"] == 1  # held back, and not read to its end
    slow.close()
    mock.wait(cancelled=1, open=0)
    assert len({line.connection for line in front.wait_lines(21)}) == 1


def test_without_http2_each_call_under_way_has_its_own(begin):
    mock, front, router = begin(False)
    ask_all(router)
    assert ask(router, "again") == "A mock answer to: again"
    lines = front.wait_lines(AT_ONCE + 1)
    assert {line.protocol for line in lines} == {"HTTP/1.1"} and {line.status for line in lines} == {"200"}
    assert 1 < len({line.connection for line in lines}) <= AT_ONCE  # the last one used an old one
