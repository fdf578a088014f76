"""Who comes in, by which door, and what he may use: TLS, certificates, keys and tenants with real clients."""

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import grpc
import openai
import pytest

import bantam
from balancing_tools import wait_until
from certificates import Authority
from conftest import BIN, CALL_LIMIT_S, DUMMY_FLAGS, ROOT, SMALL_WINDOW, Server

COST_S = 10
CODE = grpc.StatusCode
LOCAL = ("grpc.use_local_subchannel_pool", 1)
# Of the demo model, by a client that reads the first token and no more: through SMALL_WINDOW it does not end by itself.
HELD = dict(max_tokens=900, logprobs=20, ignore_eos=True, timeout=CALL_LIMIT_S)


def make_key(tenant):
    """(key, the line of the tenants' file), by the program itself."""
    done = subprocess.run([str(BIN), "keys", "new", "--tenant", tenant], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


class Tenants:
    """A file of tenants, and a key for each."""

    def __init__(self, path, **options):
        self.path, self.keys, lines = path, {}, []
        for tenant, words in options.items():
            self.keys[tenant], line = make_key(tenant)
            lines += [f"tenant {tenant} {words}", line]
        self.text = "\n".join(lines) + "\n"
        self.write(self.text)

    def write(self, text):
        aside = self.path.with_suffix(".new")
        aside.write_text(text)
        aside.rename(self.path)


def grpc_client(server, authority=None, certificate=None, key=None, options=()):
    tls = authority.tls(certificate) if authority else None
    host = "localhost" if authority else "127.0.0.1"
    return bantam.Client(f"{host}:{server.port}", tls=tls, api_key=key, channel_options=[LOCAL, *options])


def http_status(server, path, authority=None, certificate=None, key=None, data=None):
    """(status, headers, body); (None, ...) when the connection fails."""
    scheme = "https" if authority else "http"
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(f"{scheme}://localhost:{server.http_port}{path}", headers=headers,
                                     data=None if data is None else json.dumps(data).encode())
    context = authority.context(certificate) if authority else None
    try:
        with urllib.request.urlopen(request, timeout=CALL_LIMIT_S, context=context) as answer:
            return answer.status, answer.headers, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, error.headers, json.loads(error.read())
    except (urllib.error.URLError, ConnectionError, ssl.SSLError):
        return None, None, None


def openai_client(server, authority, key, certificate=None):
    return openai.OpenAI(base_url=f"https://localhost:{server.http_port}/v1", api_key=key, max_retries=0, timeout=CALL_LIMIT_S,
                         http_client=openai.DefaultHttpxClient(verify=authority.context(certificate)))


def code_of(call):
    """The status of a gRPC call, and the error."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error
    return CODE.OK, None


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    authority = Authority(tmp_path_factory.mktemp("authority") / "good")
    authority.make("server", "DNS:localhost,IP:127.0.0.1")
    authority.make("batch", "URI:spiffe://acme.example/batch,DNS:batch.acme.example")
    authority.make("stranger", "URI:spiffe://other.example/x,DNS:*.acme.example")
    authority.make("nameless")
    authority.make("expired", "URI:spiffe://acme.example/batch", days=-1)
    return authority


@pytest.fixture(scope="module")
def tenants(tmp_path_factory):
    tenants = Tenants(tmp_path_factory.mktemp("tenants") / "tenants.txt", acme="", rival="", ops="admin=yes", red="cache=shared:team",
                      blue="cache=shared:team", few="requests-per-minute=2", small="tokens-per-minute=20",
                      narrow="max-concurrent=1", words="requests-per-minute=3 tokens-per-minute=5 max-concurrent=1")
    tenants.text += "san uri:spiffe://acme.example/batch acme\n"
    tenants.write(tenants.text)
    return tenants


@pytest.fixture(scope="module")
def server(directory, demo_model, authority, tenants):
    server = Server(directory, demo_model, *authority.server_flags(), "--ssl-ca-certs", str(authority.path("ca.pem")),
                    "--ssl-cert-reqs", "optional", "--api-keys-file", str(tenants.path), "--log-level", "debug")
    yield server
    server.stop()
    for key in tenants.keys.values():
        assert key not in server.output(), "a key was logged"


def test_openai_over_https(server, authority, tenants):
    model = server_model(server, authority, tenants)
    with openai_client(server, authority, tenants.keys["acme"]) as client:
        whole = client.completions.create(model=model, prompt="The train to", max_tokens=12, temperature=0)
        stream = client.completions.create(model=model, prompt="The train to", max_tokens=12, temperature=0, stream=True)
        assert "".join(chunk.choices[0].text for chunk in stream) == whole.choices[0].text
    with openai_client(server, authority, "sk-wrong") as client, pytest.raises(openai.AuthenticationError) as error:
        client.models.list()
    assert error.value.code == "invalid_api_key"
    assert error.value.response.headers["www-authenticate"].startswith("Bearer")


def server_model(server, authority, tenants):
    with openai_client(server, authority, tenants.keys["ops"]) as client:
        return client.models.list().data[0].id


def test_http_paths_and_keys(server, authority, tenants):
    for path in ("/health", "/ready"):
        assert http_status(server, path, authority)[0] == 200
    for path in ("/v1/models", "/version", "/nothing"):
        status, _, body = http_status(server, path, authority)
        assert (status, body["error"]["code"]) == (401, "invalid_api_key")
    assert http_status(server, "/version", authority, key=tenants.keys["acme"])[0] == 200
    assert http_status(server, "/nothing", authority, key=tenants.keys["acme"])[0] == 404
    # Metrics tell of all tenants.
    assert http_status(server, "/metrics", authority)[0] == 401
    assert http_status(server, "/metrics", authority, key=tenants.keys["acme"])[0] == 403
    url = f"https://localhost:{server.http_port}/metrics"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {tenants.keys['ops']}"})
    with urllib.request.urlopen(request, timeout=CALL_LIMIT_S, context=authority.context()) as answer:
        assert b"vllm:num_requests_running" in answer.read()
    # Before the body is looked at, or even sent.
    assert http_status(server, "/v1/completions", authority, key="sk-wrong", data={"no": "model"})[0] == 401
    assert http_status(server, "/v1/completions", authority, certificate="batch", data={"no": "prompt"})[0] == 400


def test_curl(server, authority, tenants):
    url = f"https://localhost:{server.http_port}/v1/completions"
    command = ["curl", "-sS", "--cacert", str(authority.path("ca.pem")), "-H", "Content-Type: application/json", "-d",
               '{"prompt": "The train to", "max_tokens": 3}', "-w", "\n%{http_code}", url]
    key = ["-H", f"Authorization: Bearer {tenants.keys['acme']}"]
    pair = ["--cert", str(authority.path("batch.pem")), "--key", str(authority.path("batch.key"))]
    for more, status in ((key, "200"), (pair, "200"), ([], "401")):
        done = subprocess.run([*command, *more], capture_output=True, text=True, check=True, timeout=CALL_LIMIT_S)
        assert done.stdout.splitlines()[-1] == status
    plain = subprocess.run([*command[:-1], url.replace("https", "http"), *key], capture_output=True, text=True, timeout=CALL_LIMIT_S,
                           check=False)
    assert plain.returncode != 0


def test_grpc_keys(server, authority, tenants):
    with grpc_client(server, authority, key=tenants.keys["acme"]) as client:
        assert client.generate_whole("The train to", max_tokens=3)[0].token_ids
        assert client.server_info().version
        assert code_of(client.loads)[0] == CODE.PERMISSION_DENIED
        assert code_of(lambda: next(client.watch_loads(10)))[0] == CODE.PERMISSION_DENIED
    with grpc_client(server, authority, key=tenants.keys["ops"]) as client:
        assert client.loads().kv_blocks_total > 0
    with grpc_client(server, authority, certificate="batch") as client:
        assert client.generate_whole("The train to", max_tokens=3)[0].token_ids
    for key in (None, "sk-wrong"):
        with grpc_client(server, authority, key=key) as client:
            assert client.health() == "SERVING"
            for call in (client.server_info, lambda: client.generate_whole("x"), lambda: list(client.generate("x"))):
                status, error = code_of(call)
                assert status == CODE.UNAUTHENTICATED and "API key" in error.details()
            assert code_of(lambda: client.abort("x"))[0] == CODE.UNAUTHENTICATED
    with grpc_client(server, authority) as client:
        twice = [("authorization", f"Bearer {tenants.keys['acme']}")] * 2
        call = client.channel.unary_unary("/bantam.Bantam/ServerInfo")
        assert code_of(lambda: call(b"", metadata=twice))[0] == CODE.UNAUTHENTICATED
        assert code_of(lambda: client.unary("/bantam.Bantam/Nothing", b""))[0] == CODE.UNIMPLEMENTED


OPEN_METHODS = ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/List", "/vllm.grpc.engine.VllmEngine/HealthCheck"]
CALLERS_METHODS = [f"/bantam.Bantam/{name}" for name in ("Generate", "GenerateWhole", "Tokenize", "Detokenize", "Abort", "ModelInfo",
                                                         "ServerInfo", "GetSchema", "SubscribeKvEvents")]
CALLERS_METHODS += [f"/vllm.grpc.engine.VllmEngine/{name}" for name in ("Generate", "Abort", "GetModelInfo", "GetServerInfo",
                                                                        "GetTokenizer", "Embed", "SubscribeKvEvents")]
CALLERS_METHODS += [f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo" for version in ("v1", "v1alpha")]
CALLERS_METHODS += ["/xds.service.orca.v3.OpenRcaService/StreamCoreMetrics"]
ADMINS_METHODS = ["/bantam.Bantam/GetLoads", "/bantam.Bantam/WatchLoads", "/vllm.grpc.engine.VllmEngine/GetLoads",
                  "/bantam.v1.Loads/WatchLoads"]


def test_every_method_asks_who_calls(server, authority, tenants):
    def status_of(client, path):
        return code_of(lambda: next(client.stream(path, b"")))[0]

    with grpc_client(server, authority) as stranger, grpc_client(server, authority, key=tenants.keys["acme"]) as caller, \
            grpc_client(server, authority, key=tenants.keys["ops"]) as admin:
        for path in OPEN_METHODS:
            assert status_of(stranger, path) == CODE.OK, path
        for path in CALLERS_METHODS + ADMINS_METHODS:
            assert status_of(stranger, path) == CODE.UNAUTHENTICATED, path
        for path in ADMINS_METHODS:
            assert status_of(caller, path) == CODE.PERMISSION_DENIED, path
        for path in CALLERS_METHODS:
            assert status_of(caller, path) not in (CODE.UNAUTHENTICATED, CODE.PERMISSION_DENIED), path
        for path in ADMINS_METHODS:
            assert status_of(admin, path) in (CODE.OK, CODE.INVALID_ARGUMENT), path


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of TLS 1.0 and 1.1
def test_plain_text_clients_are_cut(server, authority, tenants):
    for port in (server.port, server.http_port):
        with socket.create_connection(("127.0.0.1", port), timeout=CALL_LIMIT_S) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: t\r\n\r\n")
            assert b"HTTP/1.1" not in read_to_end(connection)
    with bantam.Client(f"127.0.0.1:{server.port}", channel_options=[LOCAL]) as client:
        assert code_of(lambda: client.health(timeout=CALL_LIMIT_S))[0] == CODE.UNAVAILABLE
    old = authority.context()
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    old.set_ciphers("DEFAULT@SECLEVEL=0")
    for port in (server.port, server.http_port):
        with socket.create_connection(("127.0.0.1", port), timeout=CALL_LIMIT_S) as connection, pytest.raises(ssl.SSLError):
            old.wrap_socket(connection, server_hostname="localhost")
    assert http_status(server, "/health", authority)[0] == 200


def read_to_end(connection):
    data = b""
    try:
        while more := connection.recv(4096):
            data += more
    except ConnectionError:
        pass
    return data


def test_unfinished_handshakes_hold_nobody_up(server, authority, tenants):
    """What they are cut by is tested with short times in test_http_tls and test_grpc_tls."""
    slow = [socket.create_connection(("127.0.0.1", port)) for port in (server.port, server.http_port) for _ in range(100)]
    for index, connection in enumerate(slow):
        connection.sendall(b"\x16\x03\x01\x02"[: index % 5])
    assert http_status(server, "/v1/models", authority, key=tenants.keys["acme"])[0] == 200
    with grpc_client(server, authority, key=tenants.keys["acme"]) as client:
        assert client.generate_whole("The train to", max_tokens=3)[0].token_ids
    for connection in slow:
        connection.close()


def test_prefixes_are_found_by_their_tenant_alone(server, authority, tenants):
    """Whatever one tenant computes, another cannot see that it was computed."""
    prompt = "A long and secret beginning of a letter to the bank, word by word. " * 8
    model = server_model(server, authority, tenants)
    expected = None

    def cached_of(tenant, door):
        nonlocal expected
        if door == "grpc":
            with grpc_client(server, authority, key=tenants.keys[tenant]) as client:
                answer = client.generate_whole(prompt, max_tokens=2, temperature=0)[0]
                text, cached = answer.text, answer.cached_tokens
        else:
            with openai_client(server, authority, tenants.keys[tenant]) as client:
                answer = client.completions.create(model=model, prompt=prompt, max_tokens=2, temperature=0)
                text, cached = answer.choices[0].text, answer.usage.prompt_tokens_details.cached_tokens
        expected = expected or text
        assert text == expected
        return cached

    assert cached_of("acme", "grpc") == 0
    assert cached_of("acme", "grpc") > 0
    assert cached_of("acme", "http") > 0
    assert cached_of("rival", "http") == 0
    assert cached_of("rival", "grpc") > 0
    assert cached_of("red", "grpc") == 0
    assert cached_of("blue", "http") > 0, "red and blue share on purpose"
    assert cached_of("ops", "grpc") == 0


@pytest.mark.parametrize("share,survives", [("0.5", True), ("1", False)])
def test_a_flood_leaves_others_their_prefixes(start, dummy_model, tmp_path, share, survives):
    tenants = Tenants(tmp_path / "tenants.txt", quiet="", flood="")
    server = start(dummy_model, *DUMMY_FLAGS, "--max-model-len", "512", "--num-kv-blocks", "64", "--max-num-seqs", "1",
                   "--api-keys-file", str(tenants.path), "--tenant-cache-share", share)
    with grpc_client(server, key=tenants.keys["quiet"]) as quiet, grpc_client(server, key=tenants.keys["flood"]) as flood:
        prompt = [7] * 320  # 20 blocks
        quiet.generate_whole(input_ids=prompt, max_tokens=1)
        before = quiet.generate_whole(input_ids=prompt, max_tokens=1)[0].cached_tokens
        for first in range(20):
            flood.generate_whole(input_ids=[first] * 200, max_tokens=1)
        after = quiet.generate_whole(input_ids=prompt, max_tokens=1)[0].cached_tokens
    assert before == 304
    assert (after == before) == survives


def test_abort_reaches_own_requests_alone(server, authority, tenants):
    with grpc_client(server, authority, key=tenants.keys["acme"], options=SMALL_WINDOW) as own, \
            grpc_client(server, authority, key=tenants.keys["rival"]) as other:
        outputs = own.generate("The train to", request_id="mine", **HELD)
        next(outputs)
        assert other.abort("mine") == [False]
        assert own.abort("mine") == [True]
        assert list(outputs)[-1].finish_reason == "abort"


def test_requests_a_minute(server, authority, tenants):
    model = server_model(server, authority, tenants)
    with openai_client(server, authority, tenants.keys["few"]) as client:
        for left in (1, 0):
            raw = client.completions.with_raw_response.create(model=model, prompt="x", max_tokens=1)
            assert raw.headers["x-ratelimit-limit-requests"] == "2"
            assert raw.headers["x-ratelimit-remaining-requests"] == str(left)
            assert raw.headers["x-ratelimit-reset-requests"].endswith("s")
        with pytest.raises(openai.RateLimitError) as error:
            client.completions.create(model=model, prompt="x", max_tokens=1)
    assert (error.value.code, error.value.type) == ("rate_limit_exceeded", "requests")
    assert 0 < int(error.value.response.headers["retry-after"]) <= 31
    # The same tenant by the other door.
    with grpc_client(server, authority, key=tenants.keys["few"]) as client:
        status, refusal = code_of(lambda: client.generate_whole("x", max_tokens=1))
    assert status == CODE.RESOURCE_EXHAUSTED
    assert 0 < int(dict(refusal.trailing_metadata())["grpc-retry-pushback-ms"]) <= 31000


def test_tokens_a_minute(server, authority, tenants):
    with grpc_client(server, authority, key=tenants.keys["small"]) as client:
        assert len(client.generate_whole("x", max_tokens=40, ignore_eos=True)[0].token_ids) == 40
    status, headers, body = http_status(server, "/v1/completions", authority, key=tenants.keys["small"], data={"prompt": "x"})
    assert (status, body["error"]["code"], body["error"]["type"]) == (429, "rate_limit_exceeded", "tokens")
    assert headers["x-ratelimit-remaining-tokens"] == "0"
    assert int(headers["retry-after"]) > 30


def test_tokenizing_counts_as_requests(server, authority, tenants):
    """As requests a minute on either door, and not in tokens: nothing is computed."""
    key = tenants.keys["words"]
    with grpc_client(server, authority, key=key) as client:
        ids = client.tokenize("The train to the coast leaves early")
        assert len(ids) > 5 and client.detokenize(ids) == "The train to the coast leaves early"
        # What is no request is none of them.
        assert http_status(server, "/tokenize", authority, key=key, data={"prompt": 3})[0] == 400
        status, headers, body = http_status(server, "/tokenize", authority, key=key, data={"prompt": "x" * 100})
        assert (status, headers["x-ratelimit-remaining-requests"], headers["x-ratelimit-remaining-tokens"]) == (200, "0", "5")
        for path, data in (("/tokenize", {"prompt": "x"}), ("/detokenize", {"tokens": ids})):
            status, headers, body = http_status(server, path, authority, key=key, data=data)
            assert (status, body["error"]["code"], body["error"]["type"]) == (429, "rate_limit_exceeded", "requests")
            assert 0 < int(headers["retry-after"]) <= 21
        for call in (lambda: client.tokenize("x"), lambda: client.detokenize(ids)):
            status, refusal = code_of(call)
            assert status == CODE.RESOURCE_EXHAUSTED and "3 requests a minute" in refusal.details()
            assert 0 < int(dict(refusal.trailing_metadata())["grpc-retry-pushback-ms"]) <= 21000


def test_concurrent_requests(server, authority, tenants):
    with grpc_client(server, authority, key=tenants.keys["narrow"], options=SMALL_WINDOW) as client:
        outputs = client.generate("The train to", **HELD)
        next(outputs)
        assert code_of(lambda: client.generate_whole("x"))[0] == CODE.RESOURCE_EXHAUSTED
        assert http_status(server, "/v1/completions", authority, key=tenants.keys["narrow"], data={"prompt": "x"})[0] == 429
        outputs.close()
        wait_until(lambda: code_of(lambda: client.generate_whole("x", max_tokens=1))[0] == CODE.OK)


def test_files_are_read_again(start, dummy_model, tmp_path):
    """Certificates and keys, while a stream from before goes on; what is wrong changes nothing and is said."""
    authority = Authority(tmp_path / "first")
    authority.make("server", "DNS:localhost")
    tenants = Tenants(tmp_path / "tenants.txt", acme="admin=yes")
    server = start(dummy_model, *DUMMY_FLAGS, *authority.server_flags(), "--api-keys-file", str(tenants.path))
    key, first = tenants.keys["acme"], authority.path("server.pem").read_text()

    def certificates():
        return [ssl.get_server_certificate(("localhost", port)) for port in (server.port, server.http_port)]

    def same(pem):
        return [ssl.PEM_cert_to_DER_cert(one) == ssl.PEM_cert_to_DER_cert(pem) for one in certificates()]

    with grpc_client(server, authority, key=key) as client:
        stream = client.generate(input_ids=[1, 2], max_tokens=7000, ignore_eos=True, timeout=CALL_LIMIT_S)
        next(stream)
        assert same(first) == [True, True]
        authority.make("server", "DNS:localhost")  # a new pair
        second = authority.path("server.pem").read_text()
        wait_until(lambda: all(same(second)))  # within a second, or at the next look

        authority.path("server.pem").write_text("no certificate")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: f"{authority.path('server.pem')}: no certificate" in server.output())
        assert all(same(second))

        other_key, line = make_key("acme")
        tenants.write(tenants.text + line + "\n")
        server.process.send_signal(signal.SIGHUP)
        with grpc_client(server, authority, key=other_key) as other:
            wait_until(lambda: code_of(other.server_info)[0] == CODE.OK)
        tenants.write(tenants.text + "tenant acme\n")
        wait_until(lambda: f"{tenants.path}: line 3: tenant " in server.output())
        assert code_of(client.server_info)[0] == CODE.OK
        tenants.write("tenant acme\n" + line + "\n")
        wait_until(lambda: http_status(server, "/v1/models", authority, key=key)[0] == 401)
        assert code_of(client.server_info)[0] == CODE.UNAUTHENTICATED
        next(stream)  # it was let in
        stream.close()


def test_certificates_of_clients(start, dummy_model, authority):
    stranger = Authority(authority.folder.parent / "bad")
    stranger.make("batch", "URI:spiffe://acme.example/batch")
    server = start(dummy_model, *DUMMY_FLAGS, *authority.server_flags(), "--ssl-ca-certs", str(authority.path("ca.pem")),
                   "--ssl-client-san", "uri:spiffe://acme.example/batch", "--ssl-client-san", "other.example")
    with grpc_client(server, authority, certificate="batch") as client:
        assert client.generate_whole(input_ids=[1], max_tokens=2)[0].token_ids
    assert http_status(server, "/v1/models", authority, certificate="batch")[0] == 200
    for name in ("stranger", "nameless"):
        with grpc_client(server, authority, certificate=name) as client:
            assert code_of(client.server_info)[0] == CODE.PERMISSION_DENIED
            assert client.health() == "SERVING"
        status, _, body = http_status(server, "/v1/models", authority, certificate=name)
        assert (status, body["error"]["code"]) == (403, "permission_denied")
    for name in ("expired", None):
        with grpc_client(server, authority, certificate=name) as client:
            assert code_of(lambda: client.health(timeout=CALL_LIMIT_S))[0] == CODE.UNAVAILABLE
        assert http_status(server, "/health", authority, certificate=name)[0] is None
    tls = bantam.Tls(ca=authority.path("ca.pem"), certificate=stranger.path("batch.pem"), key=stranger.path("batch.key"))
    with bantam.Client(f"localhost:{server.port}", tls=tls, channel_options=[LOCAL]) as client:
        assert code_of(lambda: client.health(timeout=CALL_LIMIT_S))[0] == CODE.UNAVAILABLE


def test_keys_in_flags_and_environment(start, dummy_model):
    server = start(dummy_model, *DUMMY_FLAGS, "--api-key", "token-abc123", "--api-key", "sk-" + "x" * 40)
    assert "list of processes" in server.output() and "API key 1 is short" in server.output()
    assert "token-abc123" not in server.output()
    for key, status in (("token-abc123", 200), ("sk-" + "x" * 40, 200), ("token", 401), (None, 401)):
        assert http_status(server, "/v1/models", key=key)[0] == status
    with grpc_client(server, key="token-abc123") as client:
        assert client.loads().kv_blocks_total > 0  # who has the only keys is the operator
    server = start(dummy_model, *DUMMY_FLAGS, env={"BANTAM_API_KEY": "sk-" + "y" * 40})
    assert "list of processes" not in server.output()
    assert http_status(server, "/v1/models", key="sk-" + "y" * 40)[0] == 200
    assert http_status(server, "/v1/models")[0] == 401


def refused(*flags):
    done = subprocess.run([str(BIN), "serve", "/nowhere", *map(str, flags)], capture_output=True, text=True, timeout=CALL_LIMIT_S,
                          check=False)
    assert done.returncode == 2, done.stderr
    return done.stderr


def test_open_binds(start, dummy_model, authority, tenants, tmp_path):
    tls = authority.server_flags()
    open_host = ["--host", "0.0.0.0"]
    keys = ["--api-keys-file", tenants.path]
    nothing = refused(*open_host)
    assert all(flag in nothing for flag in ("--ssl-certfile", "--ssl-keyfile", "--api-keys-file", "--allow-insecure-bind"))
    no_tls = refused(*open_host, *keys)
    assert "--ssl-certfile" in no_tls and "--api-keys-file" not in no_tls and "--allow-insecure-bind" in no_tls
    no_keys = refused(*open_host, *tls)
    assert "--api-keys-file" in no_keys and "--ssl-certfile" not in no_keys
    optional = refused(*open_host, *tls, "--ssl-ca-certs", authority.path("ca.pem"), "--ssl-cert-reqs", "optional")
    assert "authentication" in optional
    for flags, word in [(tls[:2], "--ssl-keyfile is missing"), (tls[2:], "--ssl-certfile is missing"),
                        (["--ssl-ca-certs", "x"], "need --ssl-certfile"), ([*tls, "--ssl-cert-reqs", "2"], "needs --ssl-ca-certs"),
                        ([*tls, "--ssl-client-san", "a.example"], "needs --ssl-ca-certs")]:
        assert word in refused(*flags)
    bad = tmp_path / "tenants.txt"
    bad.write_text("tenant a\nkey sk-secret a\n")
    message = refused("--api-keys-file", bad)
    assert f"{bad}: line 2" in message and "sk-secret" not in message
    assert "not that of the certificate" in refused("--ssl-certfile", authority.path("server.pem"), "--ssl-keyfile",
                                                    authority.path("batch.key"))
    server = start(dummy_model, *DUMMY_FLAGS, *open_host, *tls, *map(str, keys))
    assert http_status(server, "/v1/models", authority, key=tenants.keys["acme"])[0] == 200
    start(dummy_model, *DUMMY_FLAGS, *open_host, "--allow-insecure-bind")


def listening_ports(pid):
    """(address, port) of each TCP socket that the process listens on."""
    inodes = set()
    for entry in os.listdir(f"/proc/{pid}/fd"):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{entry}")
        except OSError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        with open(f"/proc/{pid}/net/{table}") as lines:
            for line in list(lines)[1:]:
                fields = line.split()
                if fields[9] in inodes and (fields[3] == "0A" or table.startswith("udp")):
                    address, port = fields[1].split(":")
                    found.append((table, address, int(port, 16)))
    return found


def test_a_start_opens_the_documented_ports_alone(dummy):
    """On IPv4's loopback, which gRPC core writes as an IPv6 address."""
    expected = {dummy.port, dummy.http_port, getattr(dummy, "metrics_port", None)} - {None}
    found = listening_ports(dummy.process.pid)
    assert {table for table, _, _ in found} <= {"tcp", "tcp6"}
    assert {address for _, address, _ in found} <= {"0100007F", "0000000000000000FFFF00000100007F"}
    assert {port for _, _, port in found} == expected


# Brings the loopback interface of a new network up, then becomes another program.
ALONE = """import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 0x41))  # SIOCSIFFLAGS: IFF_UP, IFF_RUNNING
os.execv(sys.argv[1], sys.argv[1:])
"""
CAN_UNSHARE = subprocess.run(["unshare", "-rn", "true"], check=False, capture_output=True).returncode == 0


@pytest.mark.skipif(not CAN_UNSHARE, reason="no network namespaces here")
def test_a_default_start_opens_the_documented_ports(tmp_path, dummy_model):
    """Without any flag that names a port, in a network of its own, where they are free: what docs/security.md says."""
    ready = tmp_path / "port"
    process = subprocess.Popen(["unshare", "-rn", sys.executable, "-c", ALONE, str(BIN), "serve", str(dummy_model), *DUMMY_FLAGS,
                                "--threads", "1", "--port-file", str(ready)], stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: ready.exists() or process.poll() is not None)
        assert process.poll() is None
        found = listening_ports(process.pid)
    finally:
        process.terminate()
        assert process.wait(CALL_LIMIT_S) == 0
    text = (ROOT / "docs/security.md").read_text()
    (documented,) = re.findall(r"opens three TCP ports on 127\.0\.0\.1: (\d+) for gRPC, (\d+) for HTTP .*? and (\d+) for", text, re.S)
    assert sorted(port for _, _, port in found) == sorted(map(int, documented)) == [8000, 8002, 50051]
    assert {address for _, address, _ in found} <= {"0100007F", "0000000000000000FFFF00000100007F"}


def test_the_help_of_keys_makes_a_file_that_is_taken(start, dummy_model, tmp_path):
    """Its example, word for word."""
    text = subprocess.run([str(BIN), "keys", "--help"], capture_output=True, text=True, check=True).stdout
    (command,) = re.findall(r"^  (\(.* >> tenants\.txt)$", text, re.M)
    (tmp_path / "key.txt").write_text("sk-some-key-that-there-was\n")
    subprocess.run(["sh", "-c", f"bantam() {{ '{BIN}' \"$@\"; }}; {command}"], cwd=tmp_path, check=True, timeout=CALL_LIMIT_S)
    server = start(dummy_model, *DUMMY_FLAGS, "--api-keys-file", str(tmp_path / "tenants.txt"))
    assert http_status(server, "/v1/models", key="sk-some-key-that-there-was")[0] == 200
    assert http_status(server, "/v1/models")[0] == 401


def test_key_commands():
    keys = [make_key("acme") for _ in range(3)]
    assert len({key for key, _ in keys}) == 3
    for key, line in keys:
        assert key.startswith("sk-bantam-") and key not in line
        done = subprocess.run([str(BIN), "keys", "hash", "--tenant", "acme"], input=key + "\n", capture_output=True, text=True, check=True)
        assert done.stdout == line + "\n"
    for arguments, text in [(["new", "--tenant", "a/b"], ""), (["old"], ""), (["hash"], ""), (["hash"], "two words\n"), ([], "")]:
        done = subprocess.run([str(BIN), "keys", *arguments], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 2 and done.stderr and not done.stdout
