"""The HTTP door with the openai package as it is, held against what the gRPC door says."""

import asyncio
import collections
import json
import math
import struct
import urllib.error
import urllib.request

import grpc
import openai
import pytest

from conftest import CALL_LIMIT_S, DUMMY_FLAGS, SANITIZED
from native_wire import SERVICE, generate_bytes

STREAMS = 100


def client_of(server, **options):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{server.http_port}/v1", api_key="unused", max_retries=0,
                         timeout=CALL_LIMIT_S, **options)


@pytest.fixture(scope="module")
def web(demo):
    with client_of(demo) as client:
        yield client


@pytest.fixture(scope="module")
def model(demo):
    return demo.client.model_info().served_model_name


def gather(stream):
    """index -> (text, finish reason), and the last usage that came."""
    texts, ends, usage = collections.defaultdict(str), {}, None
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            assert choice.index not in ends, "output after the end of a choice"
            text = choice.text if chunk.object == "text_completion" else choice.delta.content
            texts[choice.index] += text or ""
            if choice.finish_reason:
                ends[choice.index] = choice.finish_reason
    return {index: (texts[index], ends[index]) for index in ends}, usage


def texts_of(answer):
    return {choice.index: (choice.text if answer.object == "text_completion" else choice.message.content, choice.finish_reason)
            for choice in answer.choices}


def f32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def test_models(web, demo, model):
    listed = web.models.list().data
    assert [entry.id for entry in listed] == [model]
    assert listed[0].max_model_len == demo.client.model_info().max_context_length
    assert web.models.retrieve(model).id == model
    with pytest.raises(openai.NotFoundError) as error:
        web.models.retrieve("no/such model")
    assert error.value.code == "model_not_found"


def test_chat_is_what_grpc_says(web, demo, model):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say something."}]
    whole = demo.client.generate_whole(messages=[(m["role"], m["content"]) for m in messages], max_tokens=30, temperature=0)[0]
    answer = web.chat.completions.create(model=model, messages=messages, max_tokens=30, temperature=0)
    assert answer.choices[0].message.content == whole.text
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == whole.finish_reason
    assert answer.system_fingerprint == demo.client.model_info().fingerprint
    assert answer.usage.prompt_tokens == whole.prompt_tokens
    assert answer.usage.completion_tokens == len(whole.token_ids)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details.cached_tokens <= answer.usage.prompt_tokens
    stream = web.chat.completions.create(model=model, messages=messages, max_completion_tokens=30, temperature=0, stream=True,
                                         stream_options={"include_usage": True})
    texts, usage = gather(stream)
    assert texts == texts_of(answer)
    assert (usage.prompt_tokens, usage.completion_tokens) == (answer.usage.prompt_tokens, answer.usage.completion_tokens)


def test_parts_of_text_are_joined(web, model):
    parts = [{"type": "text", "text": "Say"}, {"type": "text", "text": "something."}]
    answers = [web.chat.completions.create(model=model, messages=[{"role": "user", "content": content}], max_tokens=9, temperature=0)
               for content in (parts, "Say\nsomething.")]
    assert answers[0].choices[0].message.content == answers[1].choices[0].message.content
    assert answers[0].usage.prompt_tokens == answers[1].usage.prompt_tokens


PARAMETERS = [
    dict(temperature=0), dict(temperature=0.9, seed=3, n=3), dict(temperature=1, seed=-5, top_p=0.7),
    dict(seed=1, top_k=5), dict(seed=1, min_p=0.2), dict(seed=1, repetition_penalty=1.3),
    dict(seed=2, presence_penalty=1.5, frequency_penalty=-0.5), dict(temperature=0, logit_bias={"300": 90}),
    dict(temperature=0, allowed_token_ids=[300, 301]), dict(temperature=0, ignore_eos=True, min_tokens=40),
    dict(temperature=0, stop=["a"]), dict(temperature=0, stop="e", include_stop_str_in_output=True),
    dict(temperature=0, stop_token_ids=[225]), dict(temperature=0, bad_words=["the"]),
    dict(temperature=0, skip_special_tokens=False), dict(seed=4, priority=-3),
    dict(temperature=0, skip_special_tokens=False, spaces_between_special_tokens=False), dict(seed=5, truncate_prompt_tokens=2),
    dict(temperature=0, truncate_prompt_tokens=-1),
]
OURS = {"logit_bias": lambda value: {int(key): bias for key, bias in value.items()},
        "stop": lambda value: [value] if isinstance(value, str) else value, "seed": lambda value: value % 2**64}
NATIVE = {"temperature", "seed", "n", "top_p", "presence_penalty", "frequency_penalty", "logit_bias", "stop"}


@pytest.mark.parametrize("parameters", PARAMETERS, ids=[str(parameters)[:50] for parameters in PARAMETERS])
def test_every_parameter_means_the_same(web, demo, model, parameters):
    """The same request through both doors, streamed and whole: the same tokens."""
    ours = {name: OURS.get(name, lambda value: value)(value) for name, value in parameters.items()}
    outputs = demo.client.generate_whole("The weather today", max_tokens=40, **ours)
    expected = {output.index: (output.text, output.finish_reason) for output in outputs}
    given = {name: value for name, value in parameters.items() if name in NATIVE}
    extra = {name: value for name, value in parameters.items() if name not in NATIVE} | {"return_token_ids": True}
    answer = web.completions.create(model=model, prompt="The weather today", max_tokens=40, **given, extra_body=extra)
    assert texts_of(answer) == expected
    assert {choice.index: choice.token_ids for choice in answer.choices} == {o.index: o.token_ids for o in outputs}
    stream = web.completions.create(model=model, prompt="The weather today", max_tokens=40, **given, extra_body=extra, stream=True)
    assert gather(stream)[0] == expected


def test_only_the_end_of_a_prompt_may_count(web, demo, model):
    """As text, as ids, through the template; a prompt that does not fit is then cut to what does."""
    text = "The weather today is what everybody talks about."
    ids = demo.client.tokenize(text)
    length = demo.client.model_info().max_context_length
    parameters = dict(model=model, max_tokens=9, temperature=0)

    def ask(prompt, last):
        answer = web.completions.create(prompt=prompt, **parameters, extra_body={"truncate_prompt_tokens": last, "return_token_ids": True})
        return answer.choices[0].prompt_token_ids, answer.choices[0].token_ids, answer.usage.prompt_tokens

    expected = demo.client.generate_whole(input_ids=ids[-4:], max_tokens=9, temperature=0)[0]
    assert ask(text, 4) == ask(ids, 4) == (ids[-4:], expected.token_ids, 4)
    assert ask(ids, len(ids)) == ask(ids, length) == ask(ids, -1) == ask(text, -1) and ask(text, -1)[0] == ids
    long = [ids[1]] * length + ids
    with pytest.raises(openai.BadRequestError):
        web.completions.create(prompt=long, **parameters)
    assert ask(long, -1)[0] == long[-(length - 9):]
    messages = [{"role": "user", "content": text}]
    chat = demo.client.tokenize(messages=[("user", text)])
    answer = web.chat.completions.create(messages=messages, **parameters, extra_body={"truncate_prompt_tokens": 5})
    assert answer.usage.prompt_tokens == 5
    assert answer.choices[0].message.content == demo.client.generate_whole(input_ids=chat[-5:], max_tokens=9, temperature=0)[0].text


TOOL = {"type": "function", "function": {"name": "look", "description": "Looks <|at|> a place", "parameters": {"type": "object"}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"place": "Oslo", "n": [1, 2.5]}'}}
SHOWS = """{% if tools %}TOOLS {{ tools | tojson }}
{% endif %}{% for message in messages %}{{ message.role }}: {% if message.tool_calls %}CALL {{ message.tool_calls[0].function.name }} \
{{ message.tool_calls[0].function.arguments | tojson }}{% else %}{{ message.content }}{% endif %}{% if message.tool_call_id %} \
({{ message.tool_call_id }}){% endif %}

{% endfor %}{% if brief is defined %}{{ brief }} {{ documents | length }}{% endif %}"""
SHOWN = """TOOLS [{"type": "function", "function": {"name": "look", "description": "Looks <|at|> a place", \
"parameters": {"type": "object"}}}]
user: Where?
assistant: CALL look {"place": "Oslo", "n": [1, 2.5]}
tool: It rains. (c1)
true 2"""


def test_what_a_template_alone_can_do(start, demo_model, tmp_path):
    """Tools that are not to be called, calls that were made, and names of the template's own are shown to the model, by every
    door in the same words; a call by the model is refused."""
    (tmp_path / "template.jinja").write_text(SHOWS)
    server = start(demo_model, "--chat-template", str(tmp_path / "template.jinja"))
    messages = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c1", "content": "It rains."}]
    more = {"documents": [{"text": "a"}, {"text": "b"}], "chat_template_kwargs": {"brief": "true"}}
    with client_of(server) as web:
        given = dict(model=web.models.list().data[0].id, messages=messages, tools=[TOOL], max_tokens=8, temperature=0)
        answer = web.chat.completions.create(**given, tool_choice="none", extra_body={**more, "return_token_ids": True})
        assert server.client.detokenize(answer.prompt_token_ids, skip_special_tokens=False) == SHOWN
        assert answer.choices[0].message.content and not answer.choices[0].message.tool_calls
        for choice in (openai.omit, "auto", "required", {"type": "function", "function": {"name": "look"}}):
            with pytest.raises(openai.BadRequestError) as refused:
                web.chat.completions.create(**given, tool_choice=choice)
            assert refused.value.param == "tools" and refused.value.code == "unsupported_parameter"
    tokens = post(server, "/tokenize", {"messages": messages, "tools": [TOOL], "tool_choice": "none", **more})["tokens"]
    assert tokens == answer.prompt_token_ids
    arguments = json.loads(CALL["function"]["arguments"])
    template_json = {"tools": [TOOL], "documents": more["documents"], "brief": "true", "messages": [
        {}, {"tool_calls": [{**CALL, "function": {"name": "look", "arguments": arguments}}]}, {"tool_call_id": "c1"}]}
    turns = [("user", "Where?"), ("assistant", ""), ("tool", "It rains.")]
    native = server.client.generate_whole(messages=turns, template_json=template_json, max_tokens=8, temperature=0,
                                          return_prompt_token_ids=True)[0]
    assert (native.prompt_token_ids, native.text) == (tokens, answer.choices[0].message.content)
    assert server.client.tokenize(messages=turns, template_json=json.dumps(template_json)) == tokens
    form = {"messages": messages, "tools": [TOOL], "tool_choice": "none", "max_tokens": 8, "temperature": 0, **more}
    assert server.client.generate_whole(openai_json=form)[0].text == native.text
    with pytest.raises(grpc.RpcError) as error:
        server.client.generate_whole(messages=turns, template_json={"messages": []})
    assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT and "a list of 3 objects" in error.value.details()


def test_prompts_in_every_shape(web, demo, model):
    texts = ["The train to", "Once upon"]
    ids = [demo.client.tokenize(text) for text in texts]
    alone = [web.completions.create(model=model, prompt=text, max_tokens=9, temperature=0).choices[0].text for text in texts]
    for prompt in (texts, ids):
        answer = web.completions.create(model=model, prompt=prompt, max_tokens=9, temperature=0, n=2)
        assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
        assert [choice.text for choice in answer.choices] == [alone[0]] * 2 + [alone[1]] * 2
        assert answer.usage.prompt_tokens == sum(map(len, ids))
        stream = web.completions.create(model=model, prompt=prompt, max_tokens=9, temperature=0, n=2, stream=True)
        assert gather(stream)[0] == texts_of(answer)
    assert web.completions.create(model=model, prompt=ids[0], max_tokens=9, temperature=0).choices[0].text == alone[0]


def test_logprobs_are_those_of_grpc(web, demo, model):
    native = demo.client.generate_whole("The order", max_tokens=8, temperature=0, logprobs=3, ignore_eos=True)[0].output_logprobs
    answer = web.completions.create(model=model, prompt="The order", max_tokens=8, temperature=0, logprobs=3,
                                    extra_body={"ignore_eos": True})
    logprobs = answer.choices[0].logprobs
    assert [f32(value) for value in logprobs.token_logprobs] == [token.logprob for token in native]
    assert "".join(logprobs.tokens) == answer.choices[0].text
    assert logprobs.text_offset == [len("".join(logprobs.tokens[:i])) for i in range(8)]
    for top, expected in zip(logprobs.top_logprobs, native):
        assert [f32(value) for value in top.values()] == [one.logprob for one in expected.top]
    stream = web.completions.create(model=model, prompt="The order", max_tokens=8, temperature=0, logprobs=3, stream=True,
                                    extra_body={"ignore_eos": True})
    streamed = [chunk.choices[0].logprobs for chunk in stream if chunk.choices[0].logprobs]
    assert sum((part.token_logprobs for part in streamed), []) == logprobs.token_logprobs
    assert sum((part.text_offset for part in streamed), []) == logprobs.text_offset
    message = [{"role": "user", "content": "Hello!"}]
    native = demo.client.generate_whole(messages=[("user", "Hello!")], max_tokens=8, temperature=0, logprobs=2)[0].output_logprobs
    chat = web.chat.completions.create(model=model, messages=message, max_tokens=8, temperature=0, logprobs=True, top_logprobs=2)
    content = chat.choices[0].logprobs.content
    assert [f32(entry.logprob) for entry in content] == [token.logprob for token in native]
    tops = [[f32(top.logprob) for top in entry.top_logprobs] for entry in content]
    assert tops == [[one.logprob for one in token.top] for token in native]
    assert all(bytes(entry.bytes).decode() == entry.token for entry in content)


def test_evaluation_harness(web, demo, model):
    """What lm-evaluation-harness does with local-completions: the likelihood of a continuation, by echo."""
    pairs = [("The train to", " my Saturday"), ("Once upon a", " time there was"), ("x", " y")]
    prompts, lengths = [], []
    for context, continuation in pairs:
        head = demo.client.tokenize(context)
        prompts.append(head + demo.client.tokenize(continuation, add_special_tokens=False))
        lengths.append(len(head))
    answer = web.completions.create(model=model, prompt=prompts, temperature=0, max_tokens=1, logprobs=1, seed=1234, echo=True)
    for choice, ids, length in zip(sorted(answer.choices, key=lambda choice: choice.index), prompts, lengths):
        native = demo.client.generate_whole(input_ids=ids, max_tokens=1, temperature=0, prompt_logprobs=1)[0].input_logprobs
        values, tops = choice.logprobs.token_logprobs, choice.logprobs.top_logprobs
        assert len(values) == len(ids) + 1 and values[0] is None and tops[0] is None
        assert [f32(value) for value in values[1:-1]] == [token.logprob for token in native[1:]]
        assert math.isclose(sum(values[length:-1]), sum(token.logprob for token in native[length:]), rel_tol=1e-6)
        greedy = all(value == max(top.values()) for value, top in zip(values[length:-1], tops[length:-1]))
        assert greedy == all(token.rank == 1 for token in native[length:])
    only = web.completions.create(model=model, prompt=prompts[0], max_tokens=0, logprobs=1, echo=True)
    assert only.choices[0].logprobs.token_logprobs == answer.choices[0].logprobs.token_logprobs[:-1]
    assert only.usage.completion_tokens == 0
    assert answer.choices[0].text.startswith(only.choices[0].text)


def test_prompt_logprobs(web, demo, model):
    native = demo.client.generate_whole("The order", max_tokens=1, prompt_logprobs=2)[0].input_logprobs
    answer = web.completions.create(model=model, prompt="The order", max_tokens=1, extra_body={"prompt_logprobs": 2})
    listed = answer.choices[0].prompt_logprobs
    assert listed[0] is None
    for entry, token in zip(listed[1:], native[1:], strict=True):
        assert f32(entry[str(token.token_id)]["logprob"]) == token.logprob
    chat = web.chat.completions.create(model=model, messages=[{"role": "user", "content": "x"}], max_tokens=1,
                                       extra_body={"prompt_logprobs": 0})
    assert len(chat.prompt_logprobs) == chat.usage.prompt_tokens


BAD = [
    (dict(temperature=-1), "temperature", dict(temperature=-1.0)), (dict(top_p=0), "top_p", dict(top_p=0.0)),
    (dict(n=100), "n", dict(n=100)), (dict(presence_penalty=3), "presence_penalty", dict(presence_penalty=3.0)),
    (dict(stop=[""]), "stop[0]", dict(stop=[""])), (dict(logit_bias={"99999": 1}), "logit_bias[0]", dict(logit_bias={99999: 1.0})),
    (dict(extra_body={"min_tokens": 99}), "min_tokens", dict(min_tokens=99)),
    (dict(extra_body={"priority": 10**7}), "priority", dict(priority=10**7)),
    (dict(max_tokens=5, extra_body={"top_k": -2}), "top_k", dict(top_k=-2)),
]


@pytest.mark.parametrize("given,param,ours", BAD, ids=[param for _, param, _ in BAD])
def test_the_same_mistake_is_the_same_error(web, demo, model, given, param, ours):
    with pytest.raises(openai.BadRequestError) as error:
        web.completions.create(**{"model": model, "prompt": "x", "max_tokens": 5, **given})
    with pytest.raises(grpc.RpcError) as native:
        list(demo.client.stream(SERVICE + "Generate", generate_bytes("x", **{"max_tokens": 5, **ours}), CALL_LIMIT_S))
    assert error.value.body["message"] == native.value.details()
    assert error.value.param == param
    assert error.value.type == "invalid_request_error"


def test_refusals_by_name(web, model):
    user = [{"role": "user", "content": "x"}]
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}]
    audio = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}]}]
    cases = [(dict(messages=user, tools=[tool]), "tools"), (dict(messages=user, response_format={"type": "json_object"}), "response_format"),
             (dict(messages=image), "messages[0].content[0]"), (dict(messages=audio), "messages[0].content[0]"),
             (dict(messages=[]), "messages"), (dict(messages=user, logprobs=True, top_logprobs=30), "top_logprobs")]
    for given, param in cases:
        with pytest.raises(openai.BadRequestError) as error:
            web.chat.completions.create(model=model, max_tokens=1, **given)
        assert error.value.param == param
    assert "image" in str(pytest.raises(openai.BadRequestError, web.chat.completions.create, model=model, messages=image).value)
    answer = web.chat.completions.create(model=model, messages=user, max_tokens=1, tools=[tool], tool_choice="none",
                                         response_format={"type": "text"})
    assert answer.choices
    with pytest.raises(openai.NotFoundError):
        web.completions.create(model="another", prompt="x")
    with pytest.raises(openai.BadRequestError) as error:
        web.completions.create(model=model, prompt="x " * 5000)
    assert error.value.code == "context_length_exceeded" and error.value.param == "prompt"


def test_full_queue_says_when_to_come_back(start, dummy_model):
    server = start(dummy_model, *DUMMY_FLAGS, "--max-num-seqs", "1", "--max-waiting", "1")
    request = dict(model="", prompt=[5, 6], max_tokens=8000, stream=True, extra_body={"ignore_eos": True})
    with client_of(server) as web:
        held = []
        with pytest.raises(openai.RateLimitError) as error:
            for _ in range(10):  # how many the queue holds is the server's business; that it ends is not
                held.append(web.completions.create(**request | {"max_tokens": 8000, "logprobs": 20}))
                server.wait_for(lambda loads: loads.requests_total >= len(held))
        assert 0 < int(error.value.response.headers["retry-after"]) <= 60
        assert error.value.code == "queue_full"
        for stream in held:
            stream.close()
    server.wait_idle()


def test_closing_a_stream_ends_the_request(web, demo, model):
    for create in (lambda: web.completions.create(model=model, prompt="x", max_tokens=900, stream=True, extra_body={"ignore_eos": True}),
                   lambda: web.chat.completions.create(model=model, messages=[{"role": "user", "content": "x"}], stream=True,
                                                       max_tokens=900, n=2, extra_body={"ignore_eos": True})):
        stream = create()
        next(iter(stream))
        stream.close()
        loads = demo.wait_idle()
        assert loads.kv_blocks_used == 0 and loads.requests_finished == loads.requests_total


def test_request_id(web, demo, model):
    raw = web.completions.with_raw_response.create(model=model, prompt="x", max_tokens=2, extra_headers={"X-Request-Id": "mine-1"})
    assert raw.headers["x-request-id"] == "mine-1"
    assert raw.parse().id == "cmpl-mine-1"
    assert web.completions.with_raw_response.create(model=model, prompt="x", max_tokens=2).headers["x-request-id"]
    stream = web.completions.create(model=model, prompt="x", max_tokens=900, stream=True, extra_body={"ignore_eos": True, "logprobs": 20},
                                    extra_headers={"X-Request-Id": "mine-2"})
    chunks = iter(stream)
    next(chunks)
    aborted = demo.client.abort("mine-2") == [True]
    last = [chunk.choices[0].finish_reason for chunk in chunks][-1]
    assert last == ("abort" if aborted else "length")
    demo.wait_idle()


def test_continuous_usage(web, model):
    stream = web.completions.create(model=model, prompt="The", max_tokens=12, temperature=0, stream=True,
                                    stream_options={"include_usage": True}, extra_body={"ignore_eos": True})
    usages = [chunk.usage for chunk in stream]
    assert usages[-1].completion_tokens == 12 and not any(usages[:-1])
    stream = web.completions.create(model=model, prompt="The", max_tokens=12, temperature=0, stream=True,
                                    extra_body={"ignore_eos": True, "stream_options": {"continuous_usage_stats": True}})
    counts = [chunk.usage.completion_tokens for chunk in stream]
    assert counts == sorted(counts) and counts[-1] == 12


def post(server, path, body):
    request = urllib.request.Request(f"http://127.0.0.1:{server.http_port}{path}", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=CALL_LIMIT_S) as answer:
        return json.load(answer)


def refusal(server, path, body):
    with pytest.raises(urllib.error.HTTPError) as refused:
        post(server, path, body)
    return json.load(refused.value)["error"]


@pytest.mark.parametrize(("path", "body", "param", "message"), [
    ("/v1/completions", {"prompt": [1, 2, 99999]}, "prompt", "prompt[2] is 99999; "),
    ("/v1/completions", {"prompt": [[1], [1, 2, 99999]]}, "prompt", "prompt[1][2] is 99999; "),
    ("/v1/completions", {"prompt": [[1], []]}, "prompt", "prompt[1] is empty; "),
    ("/v1/completions", {"prompt": "a", "seed": 1e30}, "seed", "seed is 1e+30; it must be "),
    ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}], "logprobs": True, "top_logprobs": 30},
     "top_logprobs", "top_logprobs is 30; "),
    # The server's folders are nobody's business.
    ("/v1/chat/completions", {"messages": [{"role": "odd", "content": "x"}]}, None,
     "tokenizer_config.json: the chat template refuses"),
])
def test_refusals_have_the_words_of_the_request(demo, path, body, param, message):
    error = refusal(demo, path, body)
    assert error["param"] == param and error["message"].startswith(message), error


def test_the_paths_are_listed(demo):
    """GET / names them, and each is there; a wrong path says where to look."""
    def get(path):
        return urllib.request.urlopen(f"http://127.0.0.1:{demo.http_port}{path}", timeout=CALL_LIMIT_S)

    with get("/") as answer:
        paths = json.load(answer)["paths"]
    assert {"POST /v1/chat/completions", "POST /v1/completions", "GET /v1/models", "GET /health"} <= set(paths)
    for method, path in (line.split() for line in paths if line != "GET /"):
        if method == "GET":
            get(path).close()
        else:
            assert "there is nothing" not in refusal(demo, path, [])["message"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        get("/v1/embeddings")
    assert refused.value.code == 404 and "GET / lists what there is" in json.load(refused.value)["error"]["message"]


def test_tokenize_and_detokenize(demo):
    for text in ("plain", "caf\u00e9 \U0001f600 \u4f60\u597d", "  spaces\n\ttabs ", "nul \0 inside"):
        answer = post(demo, "/tokenize", {"prompt": text, "add_special_tokens": False, "return_token_strs": True})
        assert answer["tokens"] == demo.client.tokenize(text, add_special_tokens=False)
        assert answer["count"] == len(answer["tokens"]) == len(answer["token_strs"])
        assert post(demo, "/detokenize", {"tokens": answer["tokens"]})["prompt"] == text
    messages = [{"role": "user", "content": "Hello!"}]
    for opens in (True, False):
        answer = post(demo, "/tokenize", {"messages": messages, "add_generation_prompt": opens})
        assert answer["tokens"] == demo.client.tokenize(messages=[("user", "Hello!")], add_generation_prompt=opens)


def test_token_ids_alone(dummy):
    """--skip-tokenizer-init: ids in, ids out; what needs text is refused."""
    expected = dummy.client.generate_whole(input_ids=[5, 6, 7], max_tokens=6, temperature=0, ignore_eos=True, logprobs=1)[0]
    extra = {"ignore_eos": True, "return_token_ids": True}
    with client_of(dummy) as web:
        answer = web.completions.create(model="", prompt=[5, 6, 7], max_tokens=6, temperature=0, logprobs=1, extra_body=extra)
        assert answer.choices[0].token_ids == expected.token_ids
        assert answer.choices[0].logprobs.tokens == [f"token_id:{token}" for token in expected.token_ids]
        for refused in (lambda: web.completions.create(model="", prompt="text"),
                        lambda: web.chat.completions.create(model="", messages=[{"role": "user", "content": "x"}])):
            with pytest.raises(openai.BadRequestError):
                refused()


def test_many_streams_equal_each_alone(start, dummy_model):
    server = start(dummy_model, *DUMMY_FLAGS, "--max-num-seqs", "32")
    n, tokens = STREAMS, 8 if SANITIZED else 40
    prompts = [[3 + i, 40, 7 * i % 500, 9] for i in range(n)]
    extra = {"ignore_eos": True, "return_token_ids": True}
    expected = [server.client.generate_whole(input_ids=p, max_tokens=tokens, temperature=0, ignore_eos=True)[0].token_ids
                for p in prompts]

    async def one(web, prompt):
        stream = await web.completions.create(model="", prompt=prompt, max_tokens=tokens, temperature=0, stream=True, extra_body=extra)
        ids = []
        async for chunk in stream:
            ids += chunk.choices[0].token_ids
        return ids

    async def run():
        options = dict(base_url=f"http://127.0.0.1:{server.http_port}/v1", api_key="unused", max_retries=0, timeout=CALL_LIMIT_S)
        async with openai.AsyncOpenAI(**options) as web:
            return await asyncio.gather(*(one(web, prompt) for prompt in prompts))

    assert asyncio.run(run()) == expected
    assert server.wait_idle().kv_blocks_used == 0
