"""The same request at every door: its answers say the same of themselves, whatever the wire. Request id, model, finish reason,
usage with cached tokens, timings, and the fingerprints of what answered."""

import dataclasses
import time

import openai
import pytest

from conftest import CALL_LIMIT_S
from test_facade import Facade, facade_request

PROMPT = "The train to the coast leaves early, and whoever wants a seat by the window must be there before the others are."
N = 2
PARTS = ("weights", "tokenizer", "template", "arithmetic")


@dataclasses.dataclass
class Said:
    """What an answer says of itself; per choice where there are several."""

    request_id: str
    model: str
    finish: list
    stop: list
    usage: tuple  # prompt, completion, cached tokens
    timings: list  # (queue, prefill, decode) in seconds
    preemptions: list
    fingerprint: str
    parts: dict | None  # where an answer has them


def seconds(*ns):
    return tuple(value * 1e-9 for value in ns)


def of_native_ends(request_id, ends, completion_tokens):
    ends = sorted(ends, key=lambda end: end.index)
    assert len({end.fingerprint for end in ends}) == len({end.prompt_tokens for end in ends}) == 1
    assert {end.request_id for end in ends} == {request_id}
    assert [end.completion_tokens for end in ends] == completion_tokens
    timings = [seconds(end.timings.queue_ns, end.timings.prefill_ns, end.timings.decode_ns) for end in ends]
    return Said(request_id, ends[0].model, [end.finish_reason for end in ends],
                [end.matched_stop_str or end.matched_token_id for end in ends],
                (ends[0].prompt_tokens, sum(completion_tokens), ends[0].cached_tokens), timings,
                [end.preemptions for end in ends], ends[0].fingerprint, None)


def native_stream(server, request_id, **parameters):
    ends, counted = [], [0] * N
    for output in server.client.generate(PROMPT, request_id=request_id, timeout=CALL_LIMIT_S, **parameters):
        counted[output.index] += len(output.token_ids)
        ends += [output] if output.finish_reason else []
    return of_native_ends(request_id, ends, counted)


def native_whole(server, request_id, **parameters):
    outputs = server.client.generate_whole(PROMPT, request_id=request_id, timeout=CALL_LIMIT_S, **parameters)
    return of_native_ends(request_id, outputs, [len(output.token_ids) for output in outputs])


def facade_answer(server, request_id, stream, **parameters):
    # Unset means false there, and then stop strings are found in the text of special tokens too.
    request = facade_request(text=PROMPT, stream=stream, request_id=request_id, skip_special_tokens=True, **parameters)
    with Facade(server) as facade:
        call = facade.stub.Generate(request, timeout=CALL_LIMIT_S)
        ends = sorted((answer.complete for answer in call if answer.HasField("complete")), key=lambda end: end.index)
        trailers = {key: value for key, value in call.trailing_metadata() if isinstance(value, str)}
    lists = [[int(value) for value in trailers[f"bantam-{name}-ns"].split(",")] for name in ("queue", "prefill", "decode")]
    assert len({end.prompt_tokens for end in ends}) == 1
    return Said(trailers["bantam-request-id"], trailers["x-bantam-model"], [end.finish_reason for end in ends],
                [getattr(end, end.WhichOneof("matched_stop") or "", None) for end in ends],
                (ends[0].prompt_tokens, sum(end.completion_tokens for end in ends), ends[0].cached_tokens),
                [seconds(*times) for times in zip(*lists)], [int(value) for value in trailers["bantam-preemptions"].split(",")],
                trailers["bantam-fingerprint"], {part: trailers[f"bantam-{part}-fingerprint"] for part in PARTS})


def of_openai(request_id, answer_id, answer, choices, usage):
    assert answer_id == f"cmpl-{request_id}"
    choices = sorted(choices, key=lambda choice: choice.index)
    timings = [tuple(choice.timings[f"{name}_ms"] * 1e-3 for name in ("queue", "prefill", "decode")) for choice in choices]
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    return Said(request_id, answer.model, [choice.finish_reason for choice in choices], [choice.stop_reason for choice in choices],
                (usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details.cached_tokens), timings,
                [choice.preemptions for choice in choices], answer.system_fingerprint, None)


def as_openai(parameters):
    """The package knows OpenAI's own parameters only."""
    return {**{name: value for name, value in parameters.items() if name != "ignore_eos"},
            "extra_body": {"ignore_eos": parameters.get("ignore_eos", False)}}


def web_client(server):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{server.http_port}/v1", api_key="unused", max_retries=0,
                         timeout=CALL_LIMIT_S)


def openai_whole(server, request_id, **parameters):
    with web_client(server) as web:
        raw = web.completions.with_raw_response.create(model=server.client.model_info().served_model_name, prompt=PROMPT,
                                                       extra_headers={"x-request-id": request_id}, **as_openai(parameters))
        assert raw.headers["x-request-id"] == request_id
        answer = raw.parse()
    assert raw.headers["x-bantam-model"] == answer.model
    return of_openai(request_id, answer.id, answer, answer.choices, answer.usage)


def openai_stream(server, request_id, **parameters):
    with web_client(server) as web:
        chunks = list(web.completions.create(model=server.client.model_info().served_model_name, prompt=PROMPT, stream=True,
                                             stream_options={"include_usage": True},
                                             extra_headers={"x-request-id": request_id}, **as_openai(parameters)))
    assert len({(chunk.id, chunk.model, chunk.system_fingerprint) for chunk in chunks}) == 1
    ends = [choice for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    return of_openai(request_id, chunks[0].id, chunks[0], ends, chunks[-1].usage)


DOORS = {
    "native stream": native_stream,
    "native whole": native_whole,
    "facade stream": lambda server, request_id, **parameters: facade_answer(server, request_id, True, **parameters),
    "facade whole": lambda server, request_id, **parameters: facade_answer(server, request_id, False, **parameters),
    "openai whole": openai_whole,
    "openai stream": openai_stream,
}


@pytest.mark.parametrize("parameters", [{"max_tokens": 12, "ignore_eos": True},
                                        {"max_tokens": 60, "ignore_eos": True, "stop": ["e"]},
                                        {"max_tokens": 200}], ids=["length", "stop string", "end"])
def test_every_door_describes_the_same_answer(demo, parameters):
    demo.client.generate_whole(PROMPT, max_tokens=1, timeout=CALL_LIMIT_S)  # from now on the prompt is cached
    said = {}
    for door, ask in DOORS.items():
        began = time.monotonic()
        said[door] = ask(demo, f"one-{door.replace(' ', '-')}", n=N, seed=7, temperature=0.8, **parameters)
        took_s = time.monotonic() - began
        assert said[door].request_id == f"one-{door.replace(' ', '-')}", door
        assert len(said[door].timings) == N
        for times in said[door].timings:  # of this request: nothing before it, nothing after it
            assert all(value >= 0 for value in times) and 0 < sum(times) <= took_s, door
        assert said[door].preemptions == [0] * N, door
    first = said["native stream"]
    assert first.usage[2] > 0 and first.usage[1] > 0
    assert set(first.finish) == ({"length"} if parameters["max_tokens"] == 12 else {"stop"})
    assert first.stop == [parameters["stop"][0] if "stop" in parameters else None if "ignore_eos" in parameters else 4] * N
    info = demo.client.model_info()
    assert (first.model, first.fingerprint) == (info.served_model_name, info.fingerprint)
    for door, other in said.items():
        for field in ("model", "finish", "stop", "usage", "fingerprint"):
            assert getattr(other, field) == getattr(first, field), (door, field)
    # Which weights, tokenizer, template and arithmetic that was.
    parts = {part: getattr(info, f"{part}_fingerprint") for part in PARTS}
    assert len(set(parts.values())) == len(PARTS)
    assert said["facade stream"].parts == said["facade whole"].parts == parts
    with web_client(demo) as web:
        model = web.models.list().data[0]
    assert model.fingerprint == first.fingerprint and model.fingerprints == parts


def test_chat_describes_the_same(demo):
    messages = [("user", "When does the train leave?")]
    native = [demo.client.generate_whole(messages=messages, max_tokens=8, temperature=0, timeout=CALL_LIMIT_S)[0]
              for _ in range(2)][1]
    with web_client(demo) as web:
        parameters = dict(model=native.model, messages=[{"role": role, "content": text} for role, text in messages],
                          max_tokens=8, temperature=0)
        whole = web.chat.completions.create(**parameters)
        chunks = list(web.chat.completions.create(stream=True, stream_options={"include_usage": True}, **parameters))
    ends = [choice for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    for answer, choice, usage in ((whole, whole.choices[0], whole.usage), (chunks[0], ends[0], chunks[-1].usage)):
        assert (answer.model, answer.system_fingerprint) == (native.model, native.fingerprint)
        assert choice.finish_reason == native.finish_reason
        assert (usage.prompt_tokens, usage.completion_tokens) == (native.prompt_tokens, native.completion_tokens)
        assert usage.prompt_tokens_details.cached_tokens == native.cached_tokens
        assert all(value >= 0 for value in choice.timings.values()) and choice.preemptions == 0


def test_many_choices_fit_the_metadata(demo):
    with Facade(demo) as facade:
        request = facade_request(text=PROMPT, request_id="x" * 128, n=32, max_tokens=2, temperature=1.0, seed=1)
        call = facade.stub.Generate(request, timeout=CALL_LIMIT_S)
        assert sum(answer.HasField("complete") for answer in call) == 32
        trailers = dict(call.trailing_metadata())
    assert trailers["bantam-request-id"] == "x" * 128
    assert len(trailers["bantam-queue-ns"].split(",")) == 16  # what docs/wire.md says
