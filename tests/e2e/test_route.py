"""`bantam route` between real clients, a real engine and a scripted provider."""

import collections
import hashlib
import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

import grpc
import openai
import pytest
from smg_grpc_proto.generated import vllm_engine_pb2, vllm_engine_pb2_grpc

from abuse_tools import cpu_s
from balancing_tools import free_port, wait_until
from bantam import user
from conftest import BIN, CALL_LIMIT_S, DUMMY_FLAGS, ROOT, SANITIZED, SLOW
from route_tools import Provider, Reply, Router, route_config
from test_identity import Tenants
from test_openai import CALL, SHOWS, TOOL
from test_route_faults import metrics

COST_S = 15
MESSAGES = [{"role": "user", "content": "Classify this support ticket. Answer with its category and urgency.\n\n"
                                        "Ticket: I was charged twice this month."}]
DRAWN = {"max_tokens": 24, "temperature": 0.8, "seed": 7}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object",
                                                                          "properties": {"city": {"type": "string"}}}}}
FRONTIER = {"bantam": {"route": "frontier"}}


@pytest.fixture(scope="module")
def provider():
    opened = Provider()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def shared_router(directory, demo, provider):
    config = route_config([demo.target], {"mock": provider.url}, retries={"max": 2, "backoff": "1ms"},
                          rules=[{"name": "letters", "when": {"tasks": ["letters"]}, "to": "frontier"}])
    opened = Router(directory, config)
    opened.wait_up()
    yield opened
    opened.stop()


@pytest.fixture
def router(shared_router, provider):
    provider.forget()
    return shared_router


@pytest.fixture
def start_router(directory):
    """start_router(config, *flags) -> Router, stopped at the end of the test."""
    routers = []

    def start(config, *flags, env=None):
        routers.append(Router(directory, config, *flags, env=env))
        return routers[-1]

    yield start
    for opened in routers:
        opened.stop()


def client_of(server, **options):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{server.http_port}/v1", api_key="unused", max_retries=0,
                         timeout=CALL_LIMIT_S, **options)


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=CALL_LIMIT_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def text_of(stream):
    return "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices)


# --- local answers


@pytest.mark.parametrize("parameters", [DRAWN, {"max_tokens": 16, "temperature": 0}])
def test_a_local_answer_is_the_engines_own(router, demo, provider, parameters):
    with client_of(demo) as engine, client_of(router) as routed:
        own = engine.chat.completions.create(model="model", messages=MESSAGES, **parameters)
        raw = routed.chat.completions.with_raw_response.create(model="", messages=MESSAGES, **parameters)
        streamed = text_of(routed.chat.completions.create(model="", messages=MESSAGES, stream=True, **parameters))
    answer = raw.parse()
    assert answer.choices[0].message.content == own.choices[0].message.content == streamed
    assert answer.choices[0].finish_reason == own.choices[0].finish_reason
    assert answer.usage.prompt_tokens == own.usage.prompt_tokens
    assert answer.usage.completion_tokens == own.usage.completion_tokens
    assert raw.headers["x-bantam-provider"] == "local" and raw.headers["x-bantam-reason"] == "default"
    assert answer.usage.bantam["provider"] == "local" and answer.usage.bantam["attempts"] == 1
    assert not provider.asked


def test_idle_programs_use_no_cpu(start, start_router, demo_model, provider):
    """An engine with all its threads and a router before it, after an answer of theirs. What is put in order once, such as
    memory that goes back, may fall into a second of rest, but not into each."""
    engine = start(demo_model, "--threads", "0")
    router = start_router(route_config([engine.target], {"mock": provider.url}))
    router.wait_up()
    with client_of(router) as routed:
        answer = routed.chat.completions.create(model="", messages=MESSAGES, **DRAWN)
    assert answer.usage.bantam["provider"] == "local" and answer.usage.completion_tokens > 1
    engine.wait_idle()
    used = []  # seconds of each in a second
    while len(used) < 5 and (not used or max(used[-1]) > 0.02):  # two ticks of the clock that the kernel counts by
        before = cpu_s(engine), cpu_s(router), time.monotonic()
        time.sleep(1)
        took = time.monotonic() - before[2]  # more where others want the cores
        used.append(((cpu_s(engine) - before[0]) / took, (cpu_s(router) - before[1]) / took))
    assert max(used[-1]) <= 0.02, used


@pytest.mark.parametrize("at_least, answerer, reason", [(1, "local", "default"), (1e-6, "mock", "difficulty")])
def test_a_real_engine_classifies(start_router, demo, provider, directory, at_least, answerer, reason):
    provider.forget()
    log = directory / f"classified-{reason}.jsonl"
    labels = [{"text": "easy", "difficulty": 0}, {"text": "hard", "difficulty": 1}]
    router = start_router(route_config(
        [demo.target], {"mock": provider.url}, difficulty={"at_least": at_least, "to": "frontier"}, log={"path": str(log)},
        classifier={"model": "local/demo", "prompt": "Is this easy or hard?", "labels": labels, "timeout": "30s"}))
    router.wait_log("the classifier is ready: local/demo")
    with client_of(router) as routed:
        answer = routed.chat.completions.create(model="", messages=MESSAGES, max_tokens=4)
    assert answer.usage.bantam["provider"] == answerer and answer.usage.bantam["reason"] == reason
    router.stop()
    assert 0 < json.loads(log.read_text())["difficulty"] < 1


def test_the_log_has_answers_and_is_replayed(start_router, demo, provider, directory):
    provider.forget()
    log, figures = directory / "answers.jsonl", directory / "figures.json"
    router = start_router(route_config([demo.target], {"mock": provider.url}, cache={"kind": "memory"},
                                       log={"path": str(log), "content": True}))
    router.wait_up()
    fixed = {"model": "", "messages": MESSAGES, "temperature": 0}
    provider.next.append(Reply(tool_calls=(CALL,)))
    with client_of(router) as routed:
        ask = routed.chat.completions.create
        text_of(ask(model="", messages=MESSAGES, tools=[TOOL], stream=True, extra_body=FRONTIER))
        ask(**fixed, max_tokens=9, extra_body={"bantam": {"privacy": "local_only"}})
        short = ask(**fixed, max_tokens=8).choices[0].message.content
        wait_until(lambda: log.read_text().count("\n") == 3)  # an answer is kept before its line is written
        assert text_of(ask(**fixed, max_tokens=8, stream=True)) == short
        long = ask(**fixed, max_tokens=12).choices[0].message.content
    router.stop()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == 5
    [kept] = [line for line in lines if line.get("local_only")]
    assert "answer" not in kept and "request" not in kept and kept["answer_bytes"] > 0 and len(kept["answer_hmac"]) == 64
    [called] = [line for line in lines if line["provider"] == "mock"]
    assert called["answer"] == '{"tool_calls":[{"arguments":{"n":[1,2.5],"place":"Oslo"},"name":"look"}]}'
    assert called["finish_reason"] == "tool_calls"
    local = sorted((line for line in lines if line not in (kept, called)), key=lambda line: line["cache"])
    assert [line["cache"] for line in local] == ["hit", "miss", "miss"]
    assert local[0]["answer"] == short and sorted(line["answer"] for line in local[1:]) == sorted([short, long])
    done = subprocess.run([BIN, "replay", log, "--model", f"small={demo.target}", "--json", figures], capture_output=True,
                          text=True, timeout=CALL_LIMIT_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    replayed = json.loads(figures.read_text())["all"]
    assert replayed["n"] == 4 and replayed["same"] == 3, done.stdout  # all but the frontier's call of a tool


def test_a_log_without_content_has_the_answers_hash(start_router, demo, directory):
    log = directory / "hashes.jsonl"
    router = start_router(route_config([demo.target], {}, log={"path": str(log)}))
    router.wait_up()
    with client_of(router) as routed:
        ask = routed.chat.completions.create
        said = [ask(model="", messages=MESSAGES, temperature=0, max_tokens=n).choices[0].message.content for n in (8, 8, 12)]
    router.stop()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert not any("answer" in line or "request" in line for line in lines)
    assert sorted(line["answer_bytes"] for line in lines) == sorted(len(text.encode()) for text in said)
    assert len({line["answer_hmac"] for line in lines}) == len(set(said)) == 2


def test_native_clients_get_the_engines_tokens(router, demo):
    messages = [user(MESSAGES[0]["content"])]
    own = demo.client.generate_whole(messages=messages, **DRAWN)[0]
    routed = router.client.generate_whole(messages=messages, **DRAWN)[0]
    assert routed.token_ids == own.token_ids and routed.text == own.text and routed.finish_reason == own.finish_reason
    streamed = [token for output in router.client.generate(messages=messages, **DRAWN) for token in output.token_ids]
    assert streamed == own.token_ids


def test_what_a_template_shows_goes_along(start_router, start, demo_model, provider, tmp_path):
    """Tools that are not to be called, and calls that were made, reach the engine's template through the router."""
    provider.forget()
    (tmp_path / "template.jinja").write_text(SHOWS)
    engine = start(demo_model, "--chat-template", str(tmp_path / "template.jinja"))
    router = start_router(route_config([engine.target], {"mock": provider.url}))
    router.wait_up()
    given = dict(messages=[{"role": "user", "content": "Where?"}, {"role": "assistant", "content": None, "tool_calls": [CALL]}], tools=[TOOL],
                 tool_choice="none", max_tokens=8, temperature=0)
    with client_of(engine) as direct, client_of(router) as routed:
        own = direct.chat.completions.create(model="", **given)
        answer = routed.chat.completions.create(model="", **given)
        plain = routed.chat.completions.create(model="", **given | {"tools": []})
    assert answer.usage.prompt_tokens == own.usage.prompt_tokens > plain.usage.prompt_tokens + 20
    assert answer.choices[0].message.content == own.choices[0].message.content
    template_json = {"tools": [TOOL], "messages": [{"name": "bo"}]}
    asked = dict(messages=[user("Where?")], template_json=template_json, max_tokens=8, temperature=0)
    assert router.client.generate_whole(**asked)[0].token_ids == engine.client.generate_whole(**asked)[0].token_ids
    ids = [server.client.tokenize(messages=[user("Where?")], template_json=template_json) for server in (engine, router)]
    assert ids[0] == ids[1] and not provider.asked


def test_completions_and_token_ids_stay_local(router, demo, provider):
    ids = demo.client.tokenize("The train to")
    own = demo.client.generate_whole(input_ids=ids, max_tokens=12, seed=3)[0]
    assert router.client.generate_whole(input_ids=ids, max_tokens=12, seed=3)[0].token_ids == own.token_ids
    with client_of(router) as routed:
        answer = routed.completions.create(model="", prompt=ids, max_tokens=12, seed=3)
    assert answer.choices[0].text == own.text
    assert not provider.asked


def test_clients_of_the_facade_are_served(router, demo):
    def ask(server):
        with grpc.insecure_channel(server.target, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            request = vllm_engine_pb2.GenerateRequest(
                request_id="facade", stream=False, text="The train to",
                sampling_params=vllm_engine_pb2.SamplingParams(max_tokens=12, seed=5, temperature=0.8))
            answers = list(vllm_engine_pb2_grpc.VllmEngineStub(channel).Generate(request, timeout=CALL_LIMIT_S))
        return [token for answer in answers for token in answer.complete.output_ids]

    assert ask(router) == ask(demo) and len(ask(router)) == 12


# --- answers of a provider


def test_a_rule_sends_it_to_the_provider(router, provider):
    with client_of(router) as routed:
        raw = routed.chat.completions.with_raw_response.create(
            model="", messages=MESSAGES, max_tokens=24, extra_body={"bantam": {"task": "letters"}})
        answer = raw.parse()
    assert answer.choices[0].message.content == provider.usual.text
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (11, 7)
    assert raw.headers["x-bantam-provider"] == "mock" and raw.headers["x-bantam-rule"] == "letters"
    # 11 tokens at $2 and 7 at $10 a million.
    assert answer.usage.bantam["cost_usd"] == "0.000092" and answer.usage.bantam["reason"] == "rule"
    [asked] = provider.asked
    assert asked.path == "/v1/chat/completions" and asked.body["model"] == "large" and asked.body["messages"] == MESSAGES
    assert "bantam" not in asked.body and asked.body["max_tokens"] == 24


def test_a_model_that_is_listed_can_be_asked_for(start_router, demo, provider):
    provider.forget()
    config = route_config([demo.target], {"mock": provider.url}, cache={"kind": "memory"}, difficulty={"at_least": 0.1, "to": "frontier"})
    price = config["providers"][0]["models"][0]["price"]
    config["providers"][0]["models"] += [{"name": name, "price": price} for name in ("medium", "other")]
    config["tiers"][1:] = [{"name": "middle", "models": ["mock/medium"]}, {"name": "frontier", "models": ["mock/large", "mock/other"]}]
    router = start_router(config)
    router.wait_up()
    with client_of(router) as routed:
        names = [model.id for model in routed.models.list()]
        assert names == ["auto", "local/demo", "mock/medium", "mock/large", "mock/other", "small", "middle", "frontier"]
        for _ in range(2):  # the second answers are kept ones: each model has its own
            for name in (*names[1:5], "middle"):
                told = routed.chat.completions.create(model=name, messages=MESSAGES, max_tokens=4, temperature=0,
                                                      extra_body={"bantam": {"complexity": 9}}).usage.bantam
                wanted = {"middle": "mock/medium"}.get(name, name)
                assert f"{told['provider']}/{told['model']}" == wanted and told["reason"] == "wish"
        assert len(provider.asked) == 3 and told["cache"] == "hit"
        provider.next.append(Reply(status=500, message="down"))
        answer = routed.chat.completions.create(model="mock/other", messages=[{"role": "user", "content": "again"}])
    assert answer.usage.bantam["model"] == "large"  # models of a tier stand in for each other


def test_a_stream_comes_piece_by_piece(router, provider):
    provider.usual = Reply(hold=threading.Event())
    with client_of(router) as routed:
        stream = routed.chat.completions.create(model="", messages=MESSAGES, stream=True, extra_body=FRONTIER,
                                                stream_options={"include_usage": True})
        texts, usage = [], None
        for chunk in stream:
            texts += [choice.delta.content for choice in chunk.choices if choice.delta.content]
            usage = chunk.usage or usage
            if texts:
                provider.usual.hold.set()  # the first piece was here before the second was sent
    assert "".join(texts) == provider.usual.text and len(texts) == 3
    assert usage.completion_tokens == 7 and usage.bantam["provider"] == "mock"


def test_without_a_gate_it_only_observes(start_router, demo, provider):
    provider.forget()
    config = route_config([demo.target], {"mock": provider.url})
    followed = start_router(config)
    followed.wait_log("is followed untested: gate: off")
    del config["gate"]
    router = start_router(config)
    router.wait_log("only observes: the configuration has no gate")
    router.wait_up()
    with client_of(router) as routed:
        told = [routed.chat.completions.create(model="", messages=MESSAGES, max_tokens=4, extra_body=body).usage.bantam
                for body in ({}, {"bantam": {"privacy": "local_only"}}, {"bantam": {"route": "local"}})]
    assert [(one["provider"], one["reason"]) for one in told] == [("mock", "baseline"), ("local", "privacy"), ("local", "wish")]


WHO = {"provider": "x-bantam-provider", "model": "x-bantam-answered-by", "reason": "x-bantam-reason", "cache": "x-bantam-cache",
       "fingerprint": "x-bantam-fingerprint", "cost_usd": "x-bantam-cost-usd", "attempts": "x-bantam-attempts"}
AT_THE_END = {"mock": {"fingerprint", "cost_usd"}, "local": {"cost_usd"}}  # what a stream's first token may be too early for


def who_by_headers(headers):
    return {name: headers[header] for name, header in WHO.items() if header in headers}


def who_by_usage(told):
    return {name: str(told[name]) for name in WHO if told[name] is not None}


@pytest.mark.parametrize("wish", ["local", "frontier"])
def test_every_door_says_who_answered(start_router, demo, provider, wish):
    provider.forget()
    config = route_config([demo.target], {"mock": provider.url}, cache={"kind": "memory"})
    config["local"][0]["cost"] = {"per_hour": 0.4}
    router = start_router(config)
    router.wait_up()
    found = {}
    asked = {"model": "", "messages": MESSAGES, "max_tokens": 4, "temperature": 0.7, "extra_body": {"bantam": {"route": wish}}}
    with client_of(router) as routed:
        raw = routed.chat.completions.with_raw_response.create(**asked)
        whole = raw.parse()
        found["headers"], found["usage"] = who_by_headers(raw.headers), who_by_usage(whole.usage.bantam)
        assert whole.system_fingerprint == whole.usage.bantam["fingerprint"]
        times = whole.choices[0].timings  # of which a provider tells nothing
        assert all(time is None if wish == "frontier" else time >= 0 for time in times.values()) and len(times) == 3
        for options in ({"include_usage": True}, {}):
            raw = routed.chat.completions.with_raw_response.create(**asked, stream=True, stream_options=options)
            last = list(raw.parse())[-1]
            assert last.system_fingerprint == whole.system_fingerprint
            name = f"stream {options}"
            found[name] = who_by_usage(last.usage.bantam if options else last.bantam)
            answerer = found[name]["provider"]
            early = {field: value for field, value in found[name].items() if field not in AT_THE_END[answerer]}
            assert early.items() <= who_by_headers(raw.headers).items() <= found[name].items()
    metadata = (("x-bantam-route", wish),)
    drawn = {"messages": [user(MESSAGES[0]["content"])], "max_tokens": 4, "temperature": 0.7, "metadata": metadata}
    for name, source in (("native", router.client.generate_whole(**drawn)[0].source),
                         ("native stream", list(router.client.generate(**drawn))[-1].source)):
        dollars = f"{source.cost_nanodollars / 1e9:.9f}".rstrip("0")
        found[name] = {field: str(getattr(source, field, dollars)) for field in WHO}
    assert len(found) == 6
    for name, told in found.items():
        assert set(told) == set(WHO), name
        assert float(told.pop("cost_usd")) > 0, name  # an engine's is of its time, each time another
    who = found["usage"]
    assert all(told == who for told in found.values()), found
    if wish == "local":
        assert (who["provider"], who["model"], who["fingerprint"]) == ("local", "demo", demo.client.model_info().fingerprint)
    else:
        assert (who["provider"], who["model"], who["fingerprint"]) == ("mock", "large", "fp_mock")
    assert (who["reason"], who["attempts"]) == ("wish", "1") and who["cache"] in ("miss", "off")


def test_native_clients_get_text_without_ids(router, provider):
    answer = router.client.generate_whole(messages=[user("Hello")], max_tokens=8, metadata=(("x-bantam-route", "frontier"),))[0]
    assert answer.text == provider.usual.text and list(answer.token_ids) == []
    assert answer.finish_reason == "stop" and answer.completion_tokens == 7


@pytest.mark.parametrize("stream", [False, True])
def test_calls_of_tools_cross_both_ways(router, provider, stream):
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Gdańsk"}'}}
    provider.usual = Reply(tool_calls=(call,))
    with client_of(router) as routed:
        answer = routed.chat.completions.create(model="", messages=MESSAGES, tools=[TOOL], extra_body=FRONTIER, stream=stream)
        if stream:
            name, arguments, ended = "", "", None
            for choice in (choice for part in answer for choice in part.choices):
                for piece in choice.delta.tool_calls or ():
                    name += piece.function.name or ""
                    arguments += piece.function.arguments or ""
                ended = choice.finish_reason or ended
        else:
            [made] = answer.choices[0].message.tool_calls
            name, arguments, ended = made.function.name, made.function.arguments, answer.choices[0].finish_reason
    assert (name, json.loads(arguments), ended) == ("weather", {"city": "Gdańsk"}, "tool_calls")
    assert provider.asked[0].body["tools"] == [TOOL]


def test_a_call_that_fails_is_made_again(router, provider):
    provider.next.append(Reply(status=503, message="try later"))
    with client_of(router) as routed:
        answer = routed.chat.completions.create(model="", messages=MESSAGES, extra_body=FRONTIER)
    assert answer.choices[0].message.content == provider.usual.text
    assert answer.usage.bantam["attempts"] == 2 and len(provider.asked) == 2


def test_what_the_provider_refuses_is_told(router, provider):
    provider.usual = Reply(status=400, message="max_tokens is too large")
    with client_of(router) as routed, pytest.raises(openai.BadRequestError) as error:
        routed.chat.completions.create(model="", messages=MESSAGES, extra_body=FRONTIER)
    assert "max_tokens is too large" in error.value.message
    assert len(provider.asked) == 1


def test_a_client_that_leaves_ends_the_call(router, provider):
    provider.usual = Reply(hold=threading.Event())
    with client_of(router) as routed:
        stream = routed.chat.completions.create(model="", messages=MESSAGES, stream=True, extra_body=FRONTIER)
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                break
        stream.close()
    assert provider.left.acquire(timeout=CALL_LIMIT_S)


def test_what_must_stay_stays(router, provider):
    with client_of(router) as routed:
        raw = routed.chat.completions.with_raw_response.create(
            model="", messages=MESSAGES, max_tokens=8, extra_body={"bantam": {"privacy": "local_only", "task": "letters"}})
    assert raw.headers["x-bantam-provider"] == "local" and raw.headers["x-bantam-reason"] == "privacy"
    assert not provider.asked


@pytest.mark.parametrize("hint", [{"route": "moon"}, {"complexity": 11}, {"privacy": "some"}])
def test_hints_that_make_no_sense_are_refused(router, provider, hint):
    with client_of(router) as routed, pytest.raises(openai.BadRequestError):
        routed.chat.completions.create(model="", messages=MESSAGES, extra_body={"bantam": hint})
    assert not provider.asked


# --- tenants, money and what was answered before


def test_each_tenant_has_its_keys_money_and_answers(start_router, demo, provider, tmp_path):
    """Answers are kept for their own tenant alone; whose money is spent is answered here, and others are not."""
    provider.forget()
    keys = {name: f"sk-bantam-{name}-{'0' * 32}" for name in ("rich", "poor")}
    lines = [f"tenant {name}\nkey sha256:{hashlib.sha256(key.encode()).hexdigest()} {name}\n" for name, key in keys.items()]
    (tmp_path / "tenants.txt").write_text("".join(lines))
    # A call reserves at most 2 * prompt + 10 * max_tokens of a millionth dollar; the poor one may make one of them.
    config = route_config([demo.target], {"mock": provider.url}, cache={"kind": "memory"}, default="frontier",
                          budgets=[{"tenant": "poor", "per_day": "0.0015"}], ledger={"path": str(tmp_path / "ledger.db")})
    router = start_router(config, "--api-keys-file", str(tmp_path / "tenants.txt"))
    router.wait_up()
    clients = {name: openai.OpenAI(base_url=f"{router.web}/v1", api_key=key, max_retries=0, timeout=CALL_LIMIT_S)
               for name, key in keys.items()}

    def ask(tenant, content):
        raw = clients[tenant].chat.completions.with_raw_response.create(
            model="", messages=[{"role": "user", "content": content}], max_tokens=100, temperature=0)
        router.wait_settled()  # what the next one may spend
        return tuple(raw.headers.get(f"x-bantam-{name}") for name in ("provider", "reason", "cache"))

    assert ask("rich", "A question")[::2] == ("mock", "miss")
    assert ask("rich", "A question")[2] == "hit" and len(provider.asked) == 1
    assert ask("poor", "A question")[::2] == ("mock", "miss") and len(provider.asked) == 2
    provider.usual = Reply(prompt_tokens=100, completion_tokens=100)  # $0.0012
    assert ask("poor", "Another question")[0] == "mock"
    assert ask("poor", "A third question")[:2] == ("local", "budget")
    assert ask("rich", "A third question")[0] == "mock"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{router.web}/v1", api_key="sk-wrong", max_retries=0).models.list()
    for opened in clients.values():
        opened.close()


def test_tenants_do_not_share_the_engines_prefixes(start_router, demo, provider, tmp_path):
    """What the engine has cached for a tenant of the router is found by that tenant, and by its group, alone."""
    keys = {name: f"sk-bantam-{name}-{'0' * 32}" for name in ("one", "two", "three", "four")}
    lines = [f"tenant {name} {'cache=shared:both' if name in ('three', 'four') else ''}\n"
             f"key sha256:{hashlib.sha256(key.encode()).hexdigest()} {name}\n" for name, key in keys.items()]
    (tmp_path / "tenants.txt").write_text("".join(lines))
    (tmp_path / "salt.key").write_text("one key of two routers\n")
    content = "The refund has not come, and nobody answers. " * 8
    config = route_config([demo.target], {"mock": provider.url})
    config["local"][0]["salt"] = {"key_file": str(tmp_path / "salt.key")}
    routers = [start_router(config, "--api-keys-file", str(tmp_path / "tenants.txt")) for _ in range(2)]
    for router in routers:
        router.wait_up()

    def cached(router, tenant):
        with openai.OpenAI(base_url=f"{router.web}/v1", api_key=keys[tenant], max_retries=0, timeout=CALL_LIMIT_S) as client:
            usage = client.chat.completions.create(model="", messages=[{"role": "user", "content": content}], max_tokens=1,
                                                   temperature=0).usage
        return usage.prompt_tokens_details.cached_tokens

    assert cached(routers[0], "one") == 0 and cached(routers[0], "two") == 0
    assert cached(routers[0], "one") > 0 and cached(routers[1], "two") > 0
    assert cached(routers[0], "three") == 0 and cached(routers[0], "four") > 0


def test_an_engines_key_that_is_no_admins_is_warned_of(start_router, start, demo_model, provider, tmp_path):
    tenants = Tenants(tmp_path / "engine.txt", ops="admin=yes", guest="")
    engine = start(demo_model, "--api-keys-file", str(tenants.path))
    config = route_config([engine.target], {"mock": provider.url})
    warning = "tells its load to an admin's key alone"
    for name in ("guest", "ops"):
        (tmp_path / "engine.key").write_text(tenants.keys[name])
        config["local"][0]["key_file"] = str(tmp_path / "engine.key")
        router = start_router(config)
        if name == "guest":
            router.wait_log(warning)
        router.wait_up()
        assert (warning in router.output()) == (name == "guest")


# --- the router itself


def test_metrics_say_what_was_decided(router, provider):
    def read():
        found = collections.defaultdict(float)
        for line in get(f"http://127.0.0.1:{router.metrics_port}/metrics")[1].splitlines():
            match = re.fullmatch(r"(bantam:router_\S+?)(?:\{(.*)\})? (\S+)", line)
            if match:
                found[match[1], match[2] or ""] += float(match[3])
        return found

    before = read()
    mock = 'provider="mock",model="large"'
    with client_of(router) as routed:
        routed.chat.completions.create(model="", messages=MESSAGES, max_tokens=4)
        routed.chat.completions.create(model="", messages=MESSAGES, extra_body=FRONTIER)
        text_of(routed.chat.completions.create(model="", messages=MESSAGES, stream=True, extra_body=FRONTIER))
    after = read()
    assert [asked.body.get("stream", False) for asked in provider.asked] == [False, True]  # as the client wants it
    grown = {key: after[key] - before[key] for key in after if after[key] != before[key]}
    assert grown["bantam:router_decisions_total", 'reason="default"'] == 1
    assert grown["bantam:router_decisions_total", 'reason="wish"'] == 2
    assert grown["bantam:router_answers_total", mock] == grown["bantam:router_calls_total", mock] == 2
    assert grown["bantam:router_answers_total", 'provider="local",model="demo"'] == 1
    assert abs(grown["bantam:router_spent_dollars_total", mock] - 2 * 0.000092) < 1e-12
    assert grown["bantam:router_first_token_seconds_count", mock] == 1, "of the stream alone: a whole answer has no first token"
    assert after["bantam:router_breaker_state", mock] == 0


def test_people_and_agents_find_their_paths(router):
    """The page on the operator's port alone, MCP on the clients' port alone."""
    operator = f"http://127.0.0.1:{router.metrics_port}"
    assert "<html" in get(f"{operator}/")[1] and get(f"{router.web}/page.js")[0] == get(f"{router.web}/router/state")[0] == 404
    assert "POST /mcp" in json.loads(get(f"{router.web}/")[1])["paths"]
    state = json.loads(get(f"{operator}/router/state")[1])
    assert state["decisions"]["default"] >= 0 and "local/demo" in json.dumps(state)

    def ask(method, **params):
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        request = urllib.request.Request(f"{router.web}/mcp", json.dumps(body).encode(),
                                         {"Content-Type": "application/json", "Accept": "application/json"})
        with urllib.request.urlopen(request, timeout=CALL_LIMIT_S) as answer:
            return json.loads(answer.read())["result"]

    assert {"complete", "route_explain"} <= {tool["name"] for tool in ask("tools/list")["tools"]}
    prices = json.loads(ask("resources/read", uri="router://prices")["contents"][0]["text"])
    assert [(price["model"], price["input_usd"], price["output_usd"]) for price in prices["models"]] == [("mock/large", 2, 10)]
    explained = ask("tools/call", name="route_explain", arguments={"messages": MESSAGES})
    assert not explained.get("isError") and "small" in json.dumps(explained)


def test_it_is_light(router):
    """No model, and not the library that knows GPUs."""
    maps = pathlib.Path(f"/proc/{router.process.pid}/maps").read_text()
    assert "libgrpc" in maps
    assert not re.search(r"libbantam_cuda|libcuda|safetensors|gguf", maps)


def test_another_configuration_is_taken_up(start_router, demo, provider):
    provider.forget()
    config = route_config([demo.target], {"mock": provider.url})
    router = start_router(config)
    router.wait_up()

    def who_answers():
        with client_of(router) as routed:
            raw = routed.chat.completions.with_raw_response.create(model="", messages=MESSAGES, max_tokens=2)
        return raw.headers["x-bantam-provider"]

    assert who_answers() == "local"
    router.put({**config, "default": "frontier"})
    place = router.wait_log("is read again")
    assert who_answers() == "mock"
    for wrong in ("tiers: [", {**config, "ledger": {"path": str(router.path) + ".db"}}):  # a ledger stays the one it is
        router.put(wrong)
        place = router.wait_log("the configuration stays as it was", place)
        assert who_answers() == "mock"
    router.put(config)
    place = router.wait_log("is read again", place)
    assert who_answers() == "local"
    router.process.send_signal(signal.SIGHUP)
    router.wait_log("is read again", place)
    assert who_answers() == "local"


def test_answers_under_way_end_by_the_configuration_they_began_with(start_router, demo, provider):
    provider.forget()
    provider.usual = Reply(hold=threading.Event())
    router = start_router(route_config([demo.target], {"mock": provider.url}))
    router.wait_up()
    with client_of(router) as routed:
        stream = routed.chat.completions.create(model="", messages=MESSAGES, stream=True, extra_body=FRONTIER)
        text = ""
        for chunk in stream:
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
            if text == provider.usual.pieces[0]:
                router.put(route_config([demo.target], {}))  # the provider is gone
                router.wait_log("is read again")
                provider.usual.hold.set()
        assert text == provider.usual.text
        later = routed.chat.completions.create(model="", messages=MESSAGES, max_tokens=2, extra_body=FRONTIER)
    assert later.usage.bantam["provider"] == "local" and len(provider.asked) == 1


def test_a_stop_waits_for_answers_under_way(start_router, demo, provider):
    provider.forget()
    provider.usual = Reply(hold=threading.Event())
    router = start_router(route_config([demo.target], {"mock": provider.url}))
    router.wait_up()
    watch = router.watch_health()
    assert next(watch) == "SERVING"
    with client_of(router) as routed:
        stream = routed.chat.completions.create(model="", messages=MESSAGES, stream=True, extra_body=FRONTIER)
        text = ""
        for chunk in stream:
            for choice in chunk.choices:
                text += choice.delta.content or ""
            if text == provider.usual.pieces[0]:
                router.terminate()
                assert next(watch) == "NOT_SERVING"
                provider.usual.hold.set()
    assert text == provider.usual.text
    assert router.wait() == 0


def test_it_is_ready_when_somebody_can_answer(start_router, start, demo_model):
    port = free_port()
    router = start_router(route_config([f"127.0.0.1:{port}"], {}))
    router.wait_health("NOT_SERVING")
    assert get(f"{router.web}/ready")[0] == 503
    with client_of(router) as routed, pytest.raises(openai.InternalServerError) as error:
        routed.chat.completions.create(model="", messages=MESSAGES, max_tokens=2)
    assert error.value.status_code == 503
    start(demo_model, "--port", str(port))
    router.wait_health("SERVING")
    with client_of(router) as routed:
        assert routed.chat.completions.create(model="", messages=MESSAGES, max_tokens=2).usage.completion_tokens == 2


def test_without_engines_the_frontier_answers(start_router, provider):
    provider.forget()
    router = start_router(route_config(["127.0.0.1:1"], {"mock": provider.url}, when_down={"to": "frontier"}))
    router.wait_health("SERVING")
    with client_of(router) as routed:
        raw = routed.chat.completions.with_raw_response.create(model="", messages=MESSAGES)
    assert raw.headers["x-bantam-provider"] == "mock" and raw.headers["x-bantam-reason"] == "down"


def test_offline_nothing_leaves(start_router, demo, provider):
    provider.forget()
    router = start_router(route_config([demo.target], {"mock": provider.url}, default="frontier"), "--offline")
    router.wait_up()
    with client_of(router) as routed:
        raw = routed.chat.completions.with_raw_response.create(model="", messages=MESSAGES, max_tokens=2)
    assert raw.headers["x-bantam-provider"] == "local"
    assert not provider.asked


def test_a_replica_that_dies_is_followed_by_another(start_router, start, dummy_model):
    # Long enough for the engine to be at it still when its process is ended, as what lies between holds all of it.
    parameters = {**SLOW, "input_ids": [5, 6, 7], "max_tokens": 1000 if SANITIZED else 5000, "temperature": 0.8, "seed": 11}
    replicas = [start(dummy_model, *DUMMY_FLAGS) for _ in range(2)]
    own = replicas[0].client.generate_whole(**parameters)[0]
    router = start_router(route_config([replica.target for replica in replicas], {}))
    router.wait_up(2)
    tokens, killed = [], False
    for output in router.client.generate(**parameters):
        tokens += output.token_ids
        if not killed and len(tokens) >= 20:
            [busy] = [replica for replica in replicas if replica.client.loads().num_running_reqs]
            busy.process.kill()
            killed = True
    assert killed and tokens == list(own.token_ids)
    assert metrics(router)["bantam:router_handovers_total"] == 1
    for replica in replicas:
        if replica.process.poll() is not None:
            replica.process.returncode = 0  # as it was told


# --- its configuration


def check(path, *flags, **env):
    return subprocess.run([str(BIN), "route", str(path), "--check", *flags], env={**os.environ, **env}, capture_output=True,
                          text=True, cwd=path.parent, check=False)


def test_the_examples_of_the_docs_are_good(tmp_path):
    text = (ROOT / "docs/routing.md").read_text()
    (tmp_path / "confidence.json").write_text('{"bantam_calibration": 1, "tokens": 8, "points": [[0, 0], [1, 1]]}')
    blocks = [re.sub("^    ", "", block, flags=re.M) for block in re.findall(r"(?:^    .*\n)+", text, re.M)]
    whole = [block for block in blocks if block.startswith("local:") and "\ntiers:" in block]
    whole += re.findall(r"<<END\n(.*?)^END$", "".join(blocks), re.M | re.S)
    assert len(whole) == 2
    for example in whole:
        (tmp_path / "route.yaml").write_text(example)
        done = check(tmp_path / "route.yaml", OPENAI_API_KEY="sk-secret", ENGINE_KEY="sk-other")
        assert done.returncode == 0, done.stderr
        assert "tier      frontier: openai/gpt-5\n" in done.stdout and "sk-" not in done.stdout + done.stderr


def test_a_check_of_what_the_readme_names():
    """Its file is in the clone; --offline is told."""
    (path,) = set(re.findall(r"bantam route (\S+)", (ROOT / "README.md").read_text()))
    plain, offline = check(ROOT / path), check(ROOT / path, "--offline")
    assert plain.returncode == offline.returncode == 0 and plain.stdout.startswith("policy ")
    assert offline.stdout == "offline   nothing leaves this machine: no provider is asked\n" + plain.stdout


def test_a_check_says_what_is_wrong_and_where(tmp_path):
    path = tmp_path / "route.yaml"
    path.write_text("local: [{name: a, targets: ['127.0.0.1:1']}]\ntiers:\n  - {name: small, models: [local/b]}\n")
    done = check(path)
    assert done.returncode == 2
    assert "route.yaml:3: tiers[0].models[0]: there is no model \"b\" under local" in done.stderr
    assert check(tmp_path / "none.yaml").returncode == 1


@pytest.mark.parametrize(("target", "more", "warns"), [
    ("127.0.0.2:1", "", False), ("unix:/run/engine.sock", "", False), ("10.0.0.1:1", ", tls: {}", False),
    ("10.0.0.1:1", "", True), ("engines.svc:1", "", True)])
def test_engines_elsewhere_in_clear_text_are_warned_of(tmp_path, target, more, warns):
    path = tmp_path / "route.yaml"
    path.write_text(f"local: [{{name: a, targets: ['localhost:1', '{target}']{more}}}]\n"
                    "tiers:\n  - {name: small, models: [local/a]}\n")
    done = check(path)
    assert done.returncode == 0, done.stderr
    assert ("may be another host, and there is no tls" in done.stderr) == warns == (target in done.stderr)
