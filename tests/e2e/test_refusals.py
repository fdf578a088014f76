"""What a server refuses: the right status each, and nobody else notices."""

import random
import socket
import threading

import grpc
import pytest

from conftest import CALL_LIMIT_S, DUMMY_FLAGS, SLOW, SMALL_WINDOW
from native_wire import SERVICE, generate_bytes

CODE = grpc.StatusCode
PROMPT = [5, 6, 7, 8]


@pytest.fixture
def bystander(dummy):
    """A stream that runs during the test and must come out as if it were alone."""
    parameters = dict(input_ids=[9, 9, 9], max_tokens=400, temperature=0, ignore_eos=True, timeout=CALL_LIMIT_S)
    expected = dummy.client.generate_whole(**parameters)[0].token_ids
    got = []

    def run():
        for output in dummy.client.generate(**parameters):
            got.extend(output.token_ids)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()
    assert got == expected


def error_of(server, method, data, timeout=CALL_LIMIT_S, path=None):
    try:
        for _ in server.client.stream(path or SERVICE + method, data, timeout):
            pass
    except grpc.RpcError as error:
        assert error.details(), "a refusal says why"
        return error
    return None


def status_of(*args, **options):
    error = error_of(*args, **options)
    return error.code() if error else CODE.OK


def request_bytes(**parameters):
    return generate_bytes(**{"input_ids": PROMPT, "max_tokens": 2, **parameters})


BAD_PARAMETERS = [
    dict(temperature=-1.0), dict(temperature=float("nan")), dict(temperature=float("inf")), dict(top_p=0.0), dict(top_p=1.5),
    dict(min_p=-0.1), dict(top_k=-2), dict(repetition_penalty=0.0), dict(repetition_penalty=2.8e-45), dict(presence_penalty=3.0), dict(frequency_penalty=-3.0),
    dict(n=0), dict(n=2**31), dict(n=65), dict(logprobs=21), dict(prompt_logprobs=-2), dict(min_tokens=9, max_tokens=2),
    dict(stop_token_ids=[512]), dict(allowed_token_ids=[99999]), dict(logit_bias={512: 1.0}), dict(logit_bias={1: 1000.0}),
    dict(stop=["x"]), dict(bad_words=["x"]), dict(input_ids=[512]), dict(input_ids=[]), dict(input_ids=None),
    dict(input_ids=None, text="no tokenizer"), dict(input_ids=None, messages=[("user", "hi")]), dict(text="and ids"),
    dict(input_ids=[1] * 9000), dict(priority=2**31 - 1), dict(request_id="x" * 129), dict(request_id="a\nb"),
    dict(output_prefix_ids=[600]), dict(stop_token_ids=list(range(65))),
]


@pytest.mark.parametrize("parameters", BAD_PARAMETERS, ids=[str(parameters)[:60] for parameters in BAD_PARAMETERS])
def test_bad_parameters(dummy, parameters):
    for method in ("Generate", "GenerateWhole"):
        assert status_of(dummy, method, request_bytes(**parameters)) == CODE.INVALID_ARGUMENT
    assert status_of(dummy, "Generate", request_bytes()) == CODE.OK


def test_unknown_model(dummy):
    assert status_of(dummy, "Generate", request_bytes(model="another")) == CODE.NOT_FOUND


@pytest.mark.parametrize("path", ["/bantam.Bantam/Nothing", "/bantam.Bantam/", "/other.Service/Generate", "/x"])
def test_unknown_method(dummy, path):
    assert status_of(dummy, "", b"x", path=path) == CODE.UNIMPLEMENTED


def test_oversize(dummy, bystander):
    limit = dummy.client.server_info().max_message_bytes
    assert status_of(dummy, "Generate", b"\0" * (limit + 1)) == CODE.RESOURCE_EXHAUSTED
    assert status_of(dummy, "Generate", b"\0" * limit) == CODE.INVALID_ARGUMENT
    assert status_of(dummy, "GenerateWhole", request_bytes(input_ids=[1] * 1000000)) == CODE.INVALID_ARGUMENT


@pytest.mark.parametrize("n_bytes, code", [(17 << 10, CODE.RESOURCE_EXHAUSTED), (63 << 10, CODE.RESOURCE_EXHAUSTED),
                                           (65 << 10, CODE.UNAVAILABLE), (1 << 20, CODE.UNAVAILABLE)])
def test_oversize_metadata(dummy, bystander, n_bytes, code):
    """Past 16 KiB the call is refused; past 64 KiB, of which core would keep each, the connection is closed. Newer clients give
    up their whole connection in both cases: it is one of its own."""
    with dummy.connect() as other:
        call = other.channel.unary_unary(SERVICE + "ModelInfo")
        assert call(b"", metadata=[("x-large", "y" * (15 << 10))], timeout=CALL_LIMIT_S)
        with pytest.raises(grpc.RpcError) as error:
            call(b"", metadata=[("x-large", "y" * n_bytes)], timeout=CALL_LIMIT_S)
    assert error.value.code() == code
    assert dummy.client.health()


def test_compressed_messages_are_refused(dummy):
    """A few kilobytes could unpack to gigabytes."""
    call = dummy.client.channel.unary_unary(SERVICE + "GenerateWhole")
    with pytest.raises(grpc.RpcError) as error:
        call(request_bytes(input_ids=[1] * 4000), compression=grpc.Compression.Gzip, timeout=CALL_LIMIT_S)
    assert error.value.code() == CODE.UNIMPLEMENTED


def test_truncated(dummy, bystander):
    data = request_bytes(stop_token_ids=[1, 2, 3], logit_bias={3: 1.0}, request_id="cut me")
    for size in range(len(data)):
        assert status_of(dummy, "GenerateWhole", data[:size]) in (CODE.INVALID_ARGUMENT, CODE.OK)
    assert status_of(dummy, "GenerateWhole", data[: len(data) // 2]) == CODE.INVALID_ARGUMENT
    assert status_of(dummy, "GenerateWhole", data) == CODE.OK


def test_malformed(dummy, bystander):
    """Flipped bits and random bytes: a refusal, or, where only a value changed, an answer."""
    generator = random.Random(1)
    data = request_bytes(stop_token_ids=[1, 2, 3], logit_bias={3: 1.0}, temperature=0.5, seed=1)
    refused = 0
    for _ in range(400):
        bad = bytearray(data)
        for _ in range(3):
            bad[generator.randrange(len(bad))] ^= 1 << generator.randrange(8)
        error = error_of(dummy, "GenerateWhole", bytes(bad))
        if error:
            assert error.code() in (CODE.INVALID_ARGUMENT, CODE.NOT_FOUND)
        refused += error is not None
    assert refused > 100
    for size in (0, 1, 3, 4, 8, 100, 5000):
        assert status_of(dummy, "Generate", generator.randbytes(size)) == CODE.INVALID_ARGUMENT
    for method in ("Tokenize", "Detokenize", "Abort", "ModelInfo", "ServerInfo", "GetLoads", "WatchLoads"):
        assert status_of(dummy, method, b"not a table at all") == CODE.INVALID_ARGUMENT


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def header(name, value):
    """HPACK: a literal, not indexed, not compressed."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def first_headers_end_the_stream(server, path, message):
    """Speaks HTTP/2 by hand: whether the first HEADERS frame of the answer is also its last."""
    settings, headers, data, end_stream, end_headers = 4, 1, 0, 1, 4
    fields = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "test", "content-type": "application/grpc",
              "te": "trailers"}
    body = b"\0" + len(message).to_bytes(4, "big") + message
    with socket.create_connection(("127.0.0.1", server.port), timeout=CALL_LIMIT_S) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(settings, 0, 0, b"")
                           + frame(headers, end_headers, 1, b"".join(header(*field) for field in fields.items()))
                           + frame(data, end_stream, 1, body))
        stream = connection.makefile("rb")
        while True:
            length, kind, flags = int.from_bytes(stream.read(3), "big"), *stream.read(2)
            stream_id = int.from_bytes(stream.read(4), "big")
            stream.read(length)
            if kind == headers and stream_id == 1:
                return bool(flags & end_stream)


def test_refusals_are_trailers_only(dummy):
    """A proxy may retry only what was refused before any response headers."""
    assert not first_headers_end_the_stream(dummy, SERVICE + "Generate", request_bytes())
    assert not first_headers_end_the_stream(dummy, SERVICE + "GenerateWhole", request_bytes())
    for path, message in [(SERVICE + "Generate", request_bytes(top_p=0.0)), (SERVICE + "GenerateWhole", request_bytes(n=0)),
                          (SERVICE + "Generate", request_bytes(model="another")), (SERVICE + "Generate", b"no table"),
                          ("/bantam.Bantam/Nothing", b"")]:
        assert first_headers_end_the_stream(dummy, path, message)


def test_no_tokenizer(dummy):
    """--skip-tokenizer-init: token ids only, said so."""
    for call in (lambda: dummy.client.tokenize("x"), lambda: dummy.client.detokenize([1])):
        with pytest.raises(grpc.RpcError) as error:
            call()
        assert error.value.code() in (CODE.FAILED_PRECONDITION, CODE.UNIMPLEMENTED, CODE.INVALID_ARGUMENT)


def test_full_queue_pushes_back(start, dummy_model):
    server = start(dummy_model, *DUMMY_FLAGS, "--max-num-seqs", "1", "--max-waiting", "1")
    pushed_back, running = None, []
    with server.connect(*SMALL_WINDOW) as client:  # nobody reads: none of them ends
        while pushed_back is None:  # how many the queue holds is the server's business; that it ends is not
            assert len(running) < 10
            call = client.stream(SERVICE + "Generate", request_bytes(**SLOW), CALL_LIMIT_S)
            loads = server.wait_for(lambda loads: call.done() or loads.requests_total > len(running))
            if loads.requests_total <= len(running):
                pushed_back = call
            running.append(call)
        assert pushed_back.code() == CODE.RESOURCE_EXHAUSTED
        pushback = dict(pushed_back.trailing_metadata())["grpc-retry-pushback-ms"]
        assert 0 < int(pushback) <= 60000
        for call in running:
            call.cancel()
        server.wait_idle()


def test_can_never_fit_is_refused_at_once(start, dummy_model):
    server = start(dummy_model, *DUMMY_FLAGS, "--num-kv-blocks", "8", "--max-model-len", "128")
    assert status_of(server, "Generate", request_bytes(input_ids=[1] * 200)) == CODE.INVALID_ARGUMENT
    assert status_of(server, "Generate", request_bytes()) == CODE.OK
