"""`bantam bench serve --openai-url` against servers that answer by the book, and against those that do not: what is counted.

BANTAM_BIN names the program (default build/release/bantam)."""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import threading

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BANTAM = pathlib.Path(os.environ.get("BANTAM_BIN", ROOT / "build/release/bantam")).resolve()
LIMIT_S = 120
USAGE = {"prompt_tokens": 8, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}


def event(value):
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


def text(word):
    return event({"choices": [{"text": word, "index": 0}]})


WHOLE = text("a") + text("") + text("b") + event({"choices": [], "usage": USAGE}) + event(b"[DONE]")


def chunked(body, size):
    pieces = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def answer(body, *headers, status=b"200 OK"):
    return b"\r\n".join([b"HTTP/1.1 " + status, b"Content-Type: text/event-stream", *headers, b"", body])


CHUNKED, CLOSE = b"Transfer-Encoding: chunked", b"Connection: close"


class Stub:
    """A server that sends the same bytes for every request, and keeps the bodies of what it was asked."""

    def __init__(self, reply, answers_a_connection=None, piece=None):
        self.reply, self.piece, self.left = reply, piece, answers_a_connection
        self.bodies, self.threads = [], []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.acceptor = self.begin(self.accept)

    @staticmethod
    def begin(target, *args):
        thread = threading.Thread(target=target, args=args, daemon=True)
        thread.start()
        return thread

    @property
    def n_connections(self):
        return len(self.threads)

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                self.threads.append(self.begin(self.serve, self.listener.accept()[0]))

    def serve(self, connection):
        left = self.left
        with connection, connection.makefile("rb") as file, contextlib.suppress(OSError):
            while left is None or left > 0:
                head = []
                while (line := file.readline()) != b"\r\n":
                    if not line:
                        return  # the end, where readline gives nothing again and again
                    head.append(line)
                length = next(int(line.split(b":")[1]) for line in head if line.lower().startswith(b"content-length"))
                self.bodies.append((head[0].split()[1].decode(), json.loads(file.read(length))))
                for i in range(0, len(self.reply), self.piece or len(self.reply)):
                    connection.sendall(self.reply[i : i + (self.piece or len(self.reply))])
                if CLOSE in self.reply:
                    return
                left = None if left is None else left - 1

    def close(self):
        """When its clients are gone: with them its threads end."""
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.acceptor.join(LIMIT_S)
        for thread in self.threads:
            thread.join(LIMIT_S)
        assert not any(thread.is_alive() for thread in (self.acceptor, *self.threads))


def bench(url, *arguments):
    done = subprocess.run([BANTAM, "bench", "serve", "--openai-url", url, "--vocab-size", "100", "--random-input-len", "8",
                           "--random-output-len", "3", "--num-prompts", "6", "--max-concurrency", "2", "--json",
                           *map(str, arguments)], capture_output=True, text=True, timeout=LIMIT_S, check=False)
    return done, json.loads(done.stdout) if done.stdout else None


@pytest.mark.parametrize("name, reply, options", [
    ("chunks of one event", answer(chunked(WHOLE, len(text("a"))), CHUNKED), {}),
    ("chunks that cut everything", answer(chunked(WHOLE, 7), CHUNKED), {"piece": 5}),
    ("a length", answer(WHOLE, b"content-length: %d" % len(WHOLE)), {}),
    ("until the end of the connection", answer(WHOLE, CLOSE), {}),
    ("chunks, and the connection ends", answer(chunked(WHOLE, 9), CHUNKED, CLOSE), {}),
    ("a connection for three, which it does not say", answer(chunked(WHOLE, 50), CHUNKED), {"answers_a_connection": 3}),
])
def test_every_way_to_send_an_answer(name, reply, options):
    stub = Stub(reply, **options)
    done, report = bench(stub.url, "--ignore-eos", "--temperature", "0.5", "--model", "m", "--save-detailed")
    stub.close()
    assert done.returncode == 0, (name, done.stdout, done.stderr)
    assert (report["completed"], report["failed"], report["max_concurrent_requests"]) == (6, 0, 2)
    assert (report["total_input_tokens"], report["total_output_tokens"], report["total_cached_tokens"]) == (48, 18, 12)
    assert len(report["itls"]) == 6 and "retries" not in report  # of two texts an answer
    assert len(stub.bodies) == 6
    assert (stub.n_connections == 6) == (CLOSE in reply) and stub.n_connections >= 2
    for path, body in stub.bodies:
        assert path == "/v1/completions" and len(body.pop("prompt")) == 8
        assert body == {"model": "m", "max_tokens": 3, "temperature": 0.5, "ignore_eos": True, "stream": True,
                        "stream_options": {"include_usage": True}}


def test_texts_and_messages_of_a_file(tmp_path):
    stub = Stub(answer(event({"choices": [{"delta": {"role": "assistant"}}]})
                       + event({"choices": [{"delta": {"content": "hi \u00fc"}}]}) + event(b"[DONE]"), CLOSE))
    data = tmp_path / "data.jsonl"
    data.write_text('{"prompt": "one \\"1\\"", "output_tokens": 2}\n{"messages": [{"role": "user", "content": "two"}]}\n')
    done, report = bench(stub.url + "/v1", "--dataset-name", "custom", "--dataset-path", data)
    stub.close()
    assert done.returncode == 0, done.stderr
    assert (report["completed"], report["total_output_tokens"]) == (6, 6)  # without usage: arrivals
    asked = {path: body for path, body in stub.bodies}
    assert asked["/v1/completions"]["prompt"] == 'one "1"' and asked["/v1/completions"]["max_tokens"] == 2
    assert asked["/v1/chat/completions"]["messages"] == [{"role": "user", "content": "two"}]
    assert "model" not in asked["/v1/completions"]


def test_an_answer_without_a_character_has_a_time():
    stub = Stub(answer(text("") + event({"choices": [], "usage": USAGE}) + event(b"[DONE]"), CLOSE))
    done, report = bench(stub.url)
    stub.close()
    assert done.returncode == 0 and report["completed"] == 6 and report["p50_ttft_ms"] > 0
    assert report["p50_ttft_ms"] == report["p50_e2el_ms"] and report["total_output_tokens"] == 18


@pytest.mark.parametrize("reply, word", [
    (answer(b'{"error": "no place"}', b"content-length: 21", status=b"503 Service Unavailable"),
     'HTTP/1.1 503 Service Unavailable: {"error'),
    (answer(b"gone", CLOSE, status=b"404 Not Found"), "HTTP/1.1 404 Not Found: gone"),
    (answer(text("a") + event({"error": {"message": "broke"}}), CLOSE), "broke"),
    (answer(text("a") + event(b"{"), CLOSE), "the server sent {"),
    (answer(text("a"), CLOSE), "without [DONE]"),
    (answer(b"5\r\nab", CHUNKED, CLOSE), "closed a connection"),
    (b"HTTP/1.1 200 OK\r\n" + CLOSE, "closed a connection"),
])
def test_failures_are_told(reply, word):
    stub = Stub(reply)
    done, report = bench(stub.url, "--save-detailed")
    stub.close()
    assert done.returncode == 1 and (report["completed"], report["failed"]) == (0, 6)
    assert all(word in error for error in report["errors"]), report["errors"]


def test_nobody_there_and_wrong_words():
    with socket.socket() as held:  # a port that refuses, and that nobody else can get meanwhile
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        done, report = bench(url, "--save-detailed")
    assert done.returncode == 1 and report["failed"] == 6 and "connect: " in report["errors"][0]
    for arguments, words in (([], "expected http://HOST:PORT"), (["--request-timeout", 1], "--request-timeout is of gRPC")):
        done, _ = bench("https://127.0.0.1:1" if not arguments else url, *arguments)
        assert done.returncode == 2 and words in done.stderr, done.stderr
    for bad in ("http://", "http://127.0.0.1", "http://127.0.0.1:", "http://h:1/v2", "127.0.0.1:80",
                "http://" + 300 * "a" + ":1"):
        done, _ = bench(bad)
        assert done.returncode == 2 and done.stdout == "", bad
    done = subprocess.run([BANTAM, "bench", "serve", "--openai-url", url], capture_output=True, text=True, timeout=LIMIT_S,
                          check=False)
    assert done.returncode == 2 and "--vocab-size" in done.stderr
