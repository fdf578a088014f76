"""The Python package, clients/python: the same scenarios through Client and through AsyncClient, against real servers."""

import asyncio
import inspect
import pickle
import socket
import threading
from concurrent import futures

import grpc
import pytest

import bantam
from abuse_tools import refusals
from balancing_tools import wait_until
from bantam import codec
from bantam.retry import Attempts
from certificates import Authority
from conftest import CALL_LIMIT_S, DUMMY_FLAGS, SLOW, SMALL_WINDOW

LOCAL = ("grpc.use_local_subchannel_pool", 1)
PROMPT = [5, 6, 7, 8, 9, 10, 11, 12]
ENDLESS = dict(input_ids=PROMPT, max_tokens=8000, ignore_eos=True)
STREAMS = ("generate", "watch_loads", "subscribe_kv_events")


class BlockingStream:
    """A Stream, iterated over like an AsyncStream."""

    def __init__(self, stream):
        self.stream = stream

    def __aiter__(self):
        return self

    async def __anext__(self):
        try:
            return next(self.stream)
        except StopIteration:
            raise StopAsyncIteration from None

    async def __aenter__(self):
        self.stream.__enter__()
        return self

    async def __aexit__(self, *error):
        self.stream.__exit__(*error)

    def cancel(self):
        self.stream.cancel()


class Blocking:
    """A Client, called like an AsyncClient: what is tested of one is tested of the other by the same lines."""

    def __init__(self, *args, **options):
        self.client = bantam.Client(*args, **options)

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        self.client.close()

    def __getattr__(self, name):
        method = getattr(self.client, name)
        if name in STREAMS:
            return lambda *args, **options: BlockingStream(method(*args, **options))

        async def call(*args, **options):
            return method(*args, **options)

        return call


@pytest.fixture(params=[Blocking, bantam.AsyncClient], ids=["sync", "asyncio"])
def connect(request):
    """connect(target, ...) in an async function -> a client with a connection of its own."""

    def make(target, *, timeout=CALL_LIMIT_S, channel_options=(), **options):
        return request.param(target, timeout=timeout, channel_options=[LOCAL, *channel_options], **options)

    return make


async def gather(stream):
    """Text, ids, logprobs and last output of a stream with one choice."""
    text, ids, logprobs, last = "", [], [], None
    async for output in stream:
        assert last is None, "output after the end"
        text, ids, logprobs = text + output.text, ids + output.token_ids, logprobs + (output.output_logprobs or [])
        last = output if isinstance(output, bantam.Completion) else None
        assert (output.finish_reason is None) == (last is None)
    return text, ids, logprobs, last


def test_both_clients_have_the_same_surface():
    def surface(kind):
        methods = inspect.getmembers(kind, lambda one: inspect.isfunction(one))
        return {name: [(p.name, p.default, p.kind) for p in inspect.signature(method).parameters.values()]
                for name, method in methods if not name.startswith("_")}

    assert surface(bantam.Client) == surface(bantam.AsyncClient)
    assert list(inspect.signature(bantam.Client).parameters) == list(inspect.signature(bantam.AsyncClient).parameters)


def test_streams_and_whole_answers(connect, demo):
    async def scenario():
        async with connect(demo.target) as client:
            sampling = dict(max_tokens=20, temperature=0.8, seed=7, logprobs=2)
            ids = await client.tokenize("The train to")
            whole = (await client.generate_whole("The train to", return_prompt_token_ids=True, prompt_logprobs=1, **sampling))[0]
            text, token_ids, logprobs, last = await gather(client.generate(input_ids=ids, request_id="mine", **sampling))
            assert (text, token_ids, logprobs) == (whole.text, whole.token_ids, whole.output_logprobs)
            assert (last.request_id, last.finish_reason, last.model) == ("mine", whole.finish_reason, "model")
            assert whole.prompt_token_ids == [token.token_id for token in whole.input_logprobs] == ids
            assert (whole.prompt_tokens, whole.completion_tokens) == (len(ids), len(whole.token_ids))
            assert whole.timings.prefill_ns > 0 and whole.timings.decode_ns > 0
            assert [len(token.top) for token in logprobs] == [2] * len(token_ids)
            _, rest, _, _ = await gather(client.generate(input_ids=ids, output_prefix_ids=token_ids[:5], **sampling))
            assert token_ids[5:] == rest[: len(token_ids) - 5]
            choices = await client.generate_whole("The", n=3, max_tokens=5, temperature=1.0)
            assert [choice.index for choice in choices] == [0, 1, 2]
            stopped = (await client.generate_whole("The train to", **sampling, stop=whole.text[3:6]))[0]
            assert (stopped.text, stopped.matched_stop_str) == (whole.text[: whole.text.index(whole.text[3:6])], whole.text[3:6])

    asyncio.run(scenario())


def test_messages_in_every_form(connect, demo):
    async def scenario():
        forms = [[bantam.system("Be brief."), bantam.user("Hello!")], [("system", "Be brief."), ("user", "Hello!")],
                 [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"}]]
        async with connect(demo.target) as client:
            answers = [(await client.generate_whole(messages=form, max_tokens=12, temperature=0))[0].text for form in forms]
            assert answers[0] and answers == [answers[0]] * 3
            ids = [await client.tokenize(messages=form) for form in forms]
            assert ids == [ids[0]] * 3
            closed = await client.tokenize(messages=forms[0], add_generation_prompt=False)
            assert len(closed) < len(ids[0])

    asyncio.run(scenario())


def test_what_a_server_tells_of_itself(connect, demo):
    async def scenario():
        async with connect(demo.target) as client:
            assert await client.detokenize(await client.tokenize("caf\u00e9 \U0001f600", add_special_tokens=False)) == "caf\u00e9 \U0001f600"
            info = await client.model_info()
            assert info.served_model_name == "model" and info.eos_token_ids and info.has_tokenizer is True
            answer = (await client.generate_whole("x", max_tokens=1))[0]
            assert answer.fingerprint == info.fingerprint
            server = await client.server_info()
            assert (server.server_type, server.version, server.draining) == ("bantam", bantam.__version__, False)
            assert (await client.loads()).kv_blocks_total > 0
            n = 0
            async for loads in client.watch_loads(10):
                assert loads.max_running_requests > 0
                n += 1
                if n == 3:
                    break
            async for batch in client.subscribe_kv_events():
                assert batch.snapshot.unknown_before == 0 and batch.events
                assert all(isinstance(event, bantam.KvBlocksStored) and event.event_id == 0 for event in batch.events[1:])
                break
            with pytest.raises(bantam.OutOfRangeError):
                await collect(client.subscribe_kv_events(2**60))
            assert await client.health() == await client.health("bantam.Bantam") == "SERVING"
            with pytest.raises(bantam.NotFoundError):
                await client.health("n" * 100)
            with pytest.raises(bantam.InvalidArgumentError, match="127"):
                await client.health("n" * 300)

    asyncio.run(scenario())


async def leave_by_break(client):
    async for _ in client.generate(**ENDLESS):
        break


async def leave_by_error(client):
    with pytest.raises(KeyError):
        async for _ in client.generate(**ENDLESS):
            raise KeyError


async def leave_by_with(client):
    async with client.generate(**ENDLESS) as stream:
        async for _ in stream:
            break
    with pytest.raises(bantam.CancelledError):
        await gather(stream)


async def leave_by_cancel(client):
    stream = client.generate(**ENDLESS)
    with pytest.raises(bantam.CancelledError):
        async for _ in stream:
            stream.cancel()
    stream.cancel()


async def leave_unread(client):
    client.generate(**ENDLESS)


async def leave_by_abort(client):
    stream = client.generate(request_id="to-abort", **ENDLESS)
    await stream.__anext__()
    assert await client.abort("never seen", "to-abort") == [False, True]
    assert (await gather(stream))[3].finish_reason == "abort"


WAYS_OUT = [leave_by_break, leave_by_error, leave_by_with, leave_by_cancel, leave_unread, leave_by_abort]


@pytest.mark.parametrize("leave", WAYS_OUT, ids=[leave.__name__ for leave in WAYS_OUT])
def test_leaving_a_stream_frees_its_sequence(connect, dummy, leave):
    """The client stays connected, so that nothing but leaving can be why. Blocks and places are free at once: the answers
    themselves would take seconds more."""
    dummy.wait_idle()

    async def scenario():
        async with connect(dummy.target, channel_options=SMALL_WINDOW) as client:
            await leave(client)
            loads = await asyncio.get_running_loop().run_in_executor(None, dummy.wait_idle)
            assert loads.kv_blocks_used == 0

    asyncio.run(scenario())


def test_cancelling_a_task_frees_its_sequence(dummy):
    async def read(client, begun):
        async for _ in client.generate(**ENDLESS, n=16):
            begun.set()

    async def ask(client, begun):
        begun.set()
        await client.generate_whole(**ENDLESS, n=16)

    async def scenario():
        async with bantam.AsyncClient(dummy.target, channel_options=[LOCAL]) as client:
            for work in (read, ask):  # which take many seconds
                before = dummy.client.loads().requests_total
                begun = asyncio.Event()
                task = asyncio.create_task(work(client, begun))
                await begun.wait()
                while (await client.loads()).requests_total == before:
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                await asyncio.get_running_loop().run_in_executor(None, dummy.wait_idle)

    asyncio.run(scenario())


def test_another_thread_may_cancel(dummy):
    stream = dummy.client.generate(**ENDLESS)
    next(stream)
    thread = threading.Thread(target=stream.cancel)
    thread.start()
    with pytest.raises(bantam.CancelledError):
        for _ in stream:
            pass
    thread.join()
    dummy.wait_idle()


MISTAKES = [
    (lambda client: client.generate_whole(input_ids=PROMPT, temperature=-1), bantam.InvalidArgumentError, "temperature"),
    (lambda client: gather(client.generate(input_ids=PROMPT, top_p=0)), bantam.InvalidArgumentError, "top_p"),
    (lambda client: client.generate_whole(input_ids=PROMPT, model="another"), bantam.NotFoundError, "another"),
    (lambda client: client.tokenize("x"), bantam.FailedPreconditionError, "tokenizer"),
    (lambda client: client.generate_whole(**ENDLESS, n=16, timeout=0.15), bantam.DeadlineExceededError, ""),
    (lambda client: gather(client.generate(**ENDLESS, n=16, timeout=0.15)), bantam.DeadlineExceededError, ""),
]


@pytest.mark.parametrize("call,kind,word", MISTAKES)
def test_errors_have_their_types(connect, dummy, call, kind, word):
    async def scenario():
        async with connect(dummy.target) as client:
            with pytest.raises(kind) as error:
                await call(client)
            assert type(error.value) is kind and isinstance(error.value, grpc.RpcError)
            assert word in error.value.message and error.value.code().name in str(error.value)
            assert not error.value.is_retryable and error.value.retry_after is None
            again = pickle.loads(pickle.dumps(error.value))
            assert (type(again), str(again), again.trailers) == (kind, str(error.value), error.value.trailers)

    asyncio.run(scenario())
    dummy.wait_idle()


def test_nobody_there(connect):
    async def scenario(port):
        async with connect(f"127.0.0.1:{port}") as client:
            with pytest.raises(bantam.UnavailableError) as error:
                await client.server_info()
            assert error.value.is_retryable

    with socket.socket() as held:  # a port that refuses, and that nobody else can get meanwhile
        held.bind(("127.0.0.1", 0))
        asyncio.run(scenario(held.getsockname()[1]))


WRONG = [
    (dict(temperatur=1), TypeError, "temperatur"), (dict(max_tokens=-1), ValueError, "max_tokens"),
    (dict(max_tokens=1.5), TypeError, "max_tokens"), (dict(seed=2**64), ValueError, "seed"),
    (dict(temperature="hot"), TypeError, "temperature"), (dict(top_p=1e39), ValueError, "top_p"),
    (dict(stop=[b"x"]), TypeError, "stop"), (dict(stop_token_ids=[-1]), ValueError, "stop_token_ids"),
    (dict(input_ids=[2**32]), ValueError, "input_ids"), (dict(input_ids=["x"]), TypeError, "input_ids"),
    (dict(logit_bias={-1: 1.0}), ValueError, "logit_bias"), (dict(messages=[("user", 5)]), TypeError, "content"),
    (dict(priority=2**31), ValueError, "priority"), (dict(request_id=5), TypeError, "request_id"),
]


@pytest.mark.parametrize("params,kind,word", WRONG, ids=[str(params) for params, _, _ in WRONG])
def test_what_no_message_can_hold_is_named(connect, dummy, params, kind, word):
    async def scenario():
        async with connect(dummy.target) as client:
            with pytest.raises(kind, match=word):
                await client.generate_whole(**{"max_tokens": 1, **params})
            with pytest.raises(TypeError, match="temperature"):
                await client.loads(temperature=1)

    asyncio.run(scenario())


def test_options_that_cannot_be():
    with pytest.raises(ValueError, match="keepalive"):
        bantam.Client("localhost:1", keepalive=1)
    with pytest.raises(ValueError, match="certificate"):
        bantam.Client("localhost:1", tls=bantam.Tls(certificate=b"x"))
    with pytest.raises(ValueError, match="attempts"):
        bantam.Retry(attempts=0)
    with pytest.raises(ValueError, match="max_backoff"):
        bantam.Retry(max_backoff=-1)


def test_tls_certificates_and_keys(connect, start, dummy_model, tmp_path):
    authority = Authority(tmp_path / "authority")
    authority.make("server", "DNS:bantam.example")
    authority.make("me", "DNS:me.example")
    server = start(dummy_model, *DUMMY_FLAGS, *authority.server_flags(), "--ssl-ca-certs", str(authority.path("ca.pem")), "--api-key",
                   "sk-" + "k" * 40)
    ca = authority.path("ca.pem")
    mine = dict(ca=ca.read_bytes(), certificate=authority.path("me.pem"), key=str(authority.path("me.key")))

    def client(api_key="sk-" + "k" * 40, server_name="bantam.example", **tls):
        return connect(server.target, tls=bantam.Tls(server_name=server_name, **tls), api_key=api_key, keepalive=20)

    async def scenario():
        async with client(**mine) as good:
            assert len((await good.generate_whole(input_ids=PROMPT, max_tokens=3, ignore_eos=True))[0].token_ids) == 3
            assert (await gather(good.generate(input_ids=PROMPT, max_tokens=3, ignore_eos=True)))[3].finish_reason == "length"
        for api_key in ("sk-wrong", None):
            async with client(api_key=api_key, **mine) as bad:
                with pytest.raises(bantam.UnauthenticatedError):
                    await bad.model_info()
                with pytest.raises(bantam.UnauthenticatedError):
                    await gather(bad.generate(input_ids=PROMPT))
        for wrong in (dict(ca=ca), dict(server_name="other.example", **mine)):
            async with client(**wrong) as bad:
                with pytest.raises(bantam.UnavailableError):
                    await bad.model_info(timeout=CALL_LIMIT_S)

    asyncio.run(scenario())


# Retries


def test_a_full_queue_is_waited_for(connect, start, dummy_model):
    server = start(dummy_model, *DUMMY_FLAGS, "--max-num-seqs", "1", "--max-waiting", "1")
    small = dict(input_ids=PROMPT, max_tokens=2, temperature=0, ignore_eos=True)
    held = []
    with server.connect(*SMALL_WINDOW) as holder:
        while refusals(server) == 0:  # nobody reads: none of them ends
            assert len(held) < 10
            held.append(holder.generate(input_ids=PROMPT, **SLOW, timeout=CALL_LIMIT_S))
            server.wait_for(lambda loads: loads.requests_total == len(held) or refusals(server) > 0)

        async def full():
            async with connect(server.target) as client:
                for call in (client.generate_whole(**small), gather(client.generate(**small))):
                    with pytest.raises(bantam.ResourceExhaustedError) as error:
                        await call
                    assert error.value.is_retryable and 0 < error.value.retry_after <= 60

        async def patient(method):
            async with connect(server.target, retry=bantam.Retry(attempts=10_000)) as client:
                if method == "generate_whole":
                    return (await client.generate_whole(**small))[0].token_ids
                return (await gather(client.generate(**small)))[1]

        asyncio.run(full())
        before = refusals(server)
        with futures.ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(asyncio.run, patient(method)) for method in ("generate", "generate_whole")]
            wait_until(lambda: refusals(server) >= before + 4)
            for stream in held:
                stream.cancel()
            first, second = (one.result() for one in waiting)
    assert len(first) == 2 and first == second


class FakeServer:
    """Answers each call as the next of its steps says: (status, pushback or None), or a number of messages to send before it."""

    def __init__(self, *steps):
        self.steps, self.n_calls = list(steps), 0
        chunk = codec.wire.GenerateResponseT()
        chunk.chunk = codec.wire.GenerateStreamChunkT()
        self.message = codec.pack(chunk)
        handlers = {"Generate": grpc.unary_stream_rpc_method_handler(self.stream),
                    "ServerInfo": grpc.unary_unary_rpc_method_handler(self.unary)}
        self.server = grpc.server(futures.ThreadPoolExecutor(4))
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bantam.Bantam", handlers),))
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.server.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.stop(None).wait()

    def end(self, context):
        self.n_calls += 1
        status, pushback = self.steps.pop(0)
        if pushback is not None:
            context.set_trailing_metadata((("grpc-retry-pushback-ms", str(pushback)),))
        if status is not grpc.StatusCode.OK:
            context.abort(status, "as told")

    def unary(self, _, context):
        self.end(context)
        info = codec.wire.ServerInfoResponseT()
        info.serverType = "fake"
        return codec.pack(info)

    def stream(self, _, context):
        while isinstance(self.steps[0], int):
            for _ in range(self.steps.pop(0)):
                yield self.message
        self.end(context)


CODE = grpc.StatusCode
FULL, AWAY, FINE = (CODE.RESOURCE_EXHAUSTED, 1), (CODE.UNAVAILABLE, None), (CODE.OK, None)
QUICK = bantam.Retry(attempts=3, initial_backoff=0.001, max_backoff=0.002, max_pushback=5)

# What the server does, how often it is asked, and what the caller gets.
COURSES = [
    ([FULL, AWAY, FINE], 3, None),
    ([AWAY, AWAY, AWAY, FINE], 3, bantam.UnavailableError),
    ([(CODE.RESOURCE_EXHAUSTED, -1), FINE], 1, bantam.ResourceExhaustedError),
    ([(CODE.RESOURCE_EXHAUSTED, None), FINE], 1, bantam.ResourceExhaustedError),
    ([(CODE.UNAVAILABLE, "soon"), FINE], 1, bantam.UnavailableError),
    ([(CODE.RESOURCE_EXHAUSTED, 6000), FINE], 1, bantam.ResourceExhaustedError),
    ([(CODE.INTERNAL, None), FINE], 1, bantam.InternalError),
    ([(CODE.DATA_LOSS, None), FINE], 1, bantam.BantamError),
]


@pytest.mark.parametrize("method", ["server_info", "generate"])
@pytest.mark.parametrize("steps,n_calls,error", COURSES)
def test_retries_are_bounded_and_heed_the_server(connect, method, steps, n_calls, error):
    async def scenario(server):
        async with connect(f"127.0.0.1:{server.port}", retry=QUICK) as client:
            call = client.server_info() if method == "server_info" else collect(client.generate("x"))
            if error is None:
                await call
            else:
                with pytest.raises(error) as raised:
                    await call
                assert type(raised.value) is error

    with FakeServer(*steps) as server:
        asyncio.run(scenario(server))
        assert server.n_calls == n_calls


async def collect(stream):
    return [output async for output in stream]


def test_a_stream_that_has_begun_is_never_made_again(connect):
    async def scenario(server):
        async with connect(f"127.0.0.1:{server.port}", retry=QUICK) as client:
            outputs = []
            with pytest.raises(bantam.UnavailableError):
                async for output in client.generate("x"):
                    outputs.append(output)
            assert len(outputs) == 2

    with FakeServer(AWAY, 2, AWAY, FINE) as server:
        asyncio.run(scenario(server))
        assert server.n_calls == 2


def test_nothing_is_made_again_unasked(connect):
    async def scenario(server):
        async with connect(f"127.0.0.1:{server.port}") as client:
            with pytest.raises(bantam.UnavailableError):
                await client.server_info()

    with FakeServer(AWAY, FINE) as server:
        asyncio.run(scenario(server))
        assert server.n_calls == 1


def test_retries_end_with_the_deadline(connect):
    """A pushback that reaches beyond the deadline is not waited for."""
    async def scenario(server):
        async with connect(f"127.0.0.1:{server.port}", retry=bantam.Retry(max_pushback=3600)) as client:
            with pytest.raises(bantam.ResourceExhaustedError) as error:
                await client.server_info(timeout=20)
            assert error.value.retry_after == 20.001

    with FakeServer((CODE.RESOURCE_EXHAUSTED, 20_001), FINE) as server:
        asyncio.run(scenario(server))
        assert server.n_calls == 1


def test_cancelling_ends_the_wait_for_another_attempt(connect):
    async def scenario(server):
        async with connect(f"127.0.0.1:{server.port}", retry=bantam.Retry(max_pushback=3600), timeout=None) as client:
            stream = client.generate("x")
            reading = asyncio.create_task(collect(stream)) if isinstance(client, bantam.AsyncClient) else None
            if reading is None:
                reading = asyncio.get_running_loop().run_in_executor(None, lambda: asyncio.run(collect(stream)))
            while server.n_calls == 0:
                await asyncio.sleep(0)
            stream.cancel()
            with pytest.raises(bantam.CancelledError):
                await reading

    with FakeServer((CODE.UNAVAILABLE, 1000_000), FINE) as server:
        asyncio.run(scenario(server))
        assert server.n_calls == 1


def test_backoff_doubles_up_to_its_limit():
    attempts = Attempts(bantam.Retry(attempts=6, initial_backoff=1, max_backoff=5), None)
    away = bantam.UnavailableError("x", CODE.UNAVAILABLE)
    delays = [attempts.delay_after(away) for _ in range(6)]
    for delay, middle in zip(delays, (1, 2, 4, 5, 5)):
        assert 0.8 * middle <= delay <= 1.2 * middle
    assert delays[5] is None


def test_bytes_that_are_no_answer(connect):
    """A server that speaks something else."""
    async def scenario(port):
        async with connect(f"127.0.0.1:{port}") as client:
            for call in (client.server_info(), client.health(), collect(client.generate("x"))):
                with pytest.raises(bantam.InternalError, match="is not the message"):
                    await call

    nonsense = [(service, name, kind) for service, name, kind in
                [("bantam.Bantam", "ServerInfo", "unary"), ("grpc.health.v1.Health", "Check", "unary"), ("bantam.Bantam", "Generate", "stream")]]
    server = grpc.server(futures.ThreadPoolExecutor(2))
    for service, name, kind in nonsense:
        handler = (grpc.unary_unary_rpc_method_handler(lambda *_: b"\xff" * 9) if kind == "unary" else
                   grpc.unary_stream_rpc_method_handler(lambda *_: iter([b"\xff" * 9])))
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        asyncio.run(scenario(port))
    finally:
        server.stop(None).wait()
