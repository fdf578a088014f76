"""A native request in OpenAI's form against an engine, and what the Python client makes of answers that only a router gives."""

import json
import urllib.error
import urllib.request

import pytest

import bantam
from bantam import bantam_generated as wire
from bantam import codec

HELLO = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 12, "temperature": 0}


def http_refusal(server, body):
    request = urllib.request.Request(f"http://127.0.0.1:{server.http_port}/v1/chat/completions", json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request)
    return json.load(refused.value)["error"]["message"]


def test_it_is_the_same_request(demo):
    with bantam.Client(demo.target) as client:
        plain = client.generate_whole(**HELLO)[0]
        for form in (HELLO, json.dumps({**HELLO, "stream": True, "bantam": {"route": "frontier"}})):
            answer = client.generate_whole(openai_json=form, request_id="mine")[0]
            assert (answer.token_ids, answer.text, answer.request_id) == (plain.token_ids, plain.text, "mine")
            assert (answer.tool_calls, answer.refusal, answer.reasoning, answer.source) == ([], None, None, None)
            assert not answer.usage_unknown


@pytest.mark.parametrize("more", [{"tools": [{"type": "function"}]}, {"response_format": {"type": "json_object"}},
                                  {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}],
                         ids=lambda more: list(more)[0])
def test_an_engine_refuses_in_the_same_words(demo, more):
    with bantam.Client(demo.target) as client:
        with pytest.raises(bantam.UnimplementedError) as refused:
            client.generate_whole(openai_json={**HELLO, **more})
        assert http_refusal(demo, {**HELLO, **more}) in str(refused.value)
        with pytest.raises(TypeError, match="openai_json"):
            client.generate_whole(openai_json=[HELLO])


def pieces(table):
    call = wire.ToolCallT()
    call.index, call.id, call.name, call.arguments = 1, "call_a", "look", '{"at":'
    more = wire.ToolCallT()
    more.index, more.arguments = 1, '"x"}'
    source = wire.AnswerSourceT()
    source.provider, source.model, source.reason, source.costNanodollars, source.attempts = "mock", "strong", "rule", 1500000, 2
    table.toolCalls, table.refusal, table.reasoning, table.source = [call, more], "no", "hm", source
    return table


def assert_pieces(output):
    assert output.tool_calls == [bantam.ToolCall(1, "call_a", "look", '{"at":'), bantam.ToolCall(1, None, None, '"x"}')]
    assert (output.refusal, output.reasoning, output.token_ids) == ("no", "hm", [])
    assert output.source == bantam.AnswerSource("mock", "strong", "rule", "", "", "", "", "", 1500000, 2)


def test_what_others_answer_is_read():
    response = wire.GenerateResponseT()
    response.chunk = pieces(wire.GenerateStreamChunkT())
    assert_pieces(codec.decode_generate(codec.pack(response)))
    whole, complete = wire.GenerateWholeResponseT(), pieces(wire.GenerateCompleteT())
    complete.finishReason, complete.usageUnknown, complete.timings = "tool_calls", True, wire.TimingsT()
    complete.timings.queueNs = complete.timings.prefillNs = complete.timings.decodeNs = -1
    whole.choices = [complete]
    answer = codec.decode_generate_whole(codec.pack(whole))[0]
    assert_pieces(answer)
    assert (answer.finish_reason, answer.usage_unknown) == ("tool_calls", True)
