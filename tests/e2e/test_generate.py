"""Generate and GenerateWhole with a real client in another language."""

import collections
import math
import threading

import grpc
import pytest

from conftest import CALL_LIMIT_S, SLOW, SMALL_WINDOW
from native_wire import SERVICE, generate_bytes, read_output

PROMPT = [5, 6, 7, 8, 9, 10, 11, 12]


def gather(outputs):
    """index -> (token ids, text, finish reason, last output)"""
    ids, texts, ends = collections.defaultdict(list), collections.defaultdict(str), {}
    for output in outputs:
        assert output.index not in ends, "output after the end of a choice"
        ids[output.index] += output.token_ids
        texts[output.index] += output.text
        if output.finish_reason:
            ends[output.index] = output
    assert set(ids) == set(ends)
    return {index: (ids[index], texts[index], end.finish_reason, end) for index, end in ends.items()}


def streamed(server, *args, **parameters):
    return gather(server.client.generate(*args, timeout=CALL_LIMIT_S, **parameters))


def whole(server, *args, **parameters):
    return gather(server.client.generate_whole(*args, timeout=CALL_LIMIT_S, **parameters))


def test_streamed_equals_whole(dummy):
    parameters = dict(input_ids=PROMPT, max_tokens=40, temperature=0.9, seed=3, n=3, ignore_eos=True)
    a, b = streamed(dummy, **parameters), whole(dummy, **parameters)
    assert sorted(a) == [0, 1, 2]
    for index in a:
        assert a[index][:3] == b[index][:3]
        assert len(a[index][0]) == 40
        assert a[index][2] == "length"
        assert b[index][3].prompt_tokens == len(PROMPT)
        assert b[index][3].completion_tokens == 40
    assert len({tuple(a[index][0]) for index in a}) == 3, "choices share a seed but not their numbers"


def test_same_seed_same_tokens(dummy):
    parameters = dict(input_ids=PROMPT, max_tokens=30, temperature=1.0, ignore_eos=True)
    assert streamed(dummy, seed=1, **parameters)[0][0] == streamed(dummy, seed=1, **parameters)[0][0]
    assert streamed(dummy, seed=1, **parameters)[0][0] != streamed(dummy, seed=2, **parameters)[0][0]


def test_many_streams_equal_each_alone(dummy):
    parameters = dict(max_tokens=25, temperature=0, ignore_eos=True)
    prompts = [[3 + i, 40, 7 * i % 500, 9] for i in range(24)]
    alone = [whole(dummy, input_ids=prompt, **parameters)[0][0] for prompt in prompts]
    together = [None] * len(prompts)

    def run(i):
        together[i] = streamed(dummy, input_ids=prompts[i], **parameters)[0][0]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == alone


def test_output_prefix_goes_on(dummy):
    parameters = dict(input_ids=PROMPT, temperature=0.8, seed=11, ignore_eos=True)
    full = whole(dummy, max_tokens=30, **parameters)[0][0]
    rest = whole(dummy, max_tokens=30, output_prefix_ids=full[:12], **parameters)[0][0]
    assert rest == full[12:]


def test_logprobs(dummy):
    parameters = dict(input_ids=PROMPT, max_tokens=5, temperature=0, logprobs=3, prompt_logprobs=2, ignore_eos=True)
    end = whole(dummy, **parameters, return_prompt_token_ids=True)[0][3]
    assert end.prompt_token_ids == PROMPT
    assert [token.token_id for token in end.output_logprobs] == end.token_ids
    for token in end.output_logprobs:
        assert len(token.top) == 3
        assert list(token.top) == sorted(token.top, key=lambda one: -one.logprob)
        assert token.top[0].token_id == token.token_id, "greedy takes the best"
        assert token.rank == 1
        assert token.logprob == token.top[0].logprob <= 0
    prompt = end.input_logprobs
    assert [token.token_id for token in prompt] == PROMPT
    assert math.isnan(prompt[0].logprob)
    assert all(token.logprob <= 0 for token in prompt[1:])
    chunks = list(dummy.client.generate(timeout=CALL_LIMIT_S, **parameters))
    assert [token for chunk in chunks for token in chunk.output_logprobs or []] == end.output_logprobs
    assert sum(chunk.input_logprobs is not None for chunk in chunks) == 1


def test_stop_token_ids(dummy):
    full = whole(dummy, input_ids=PROMPT, max_tokens=30, temperature=1.0, seed=5, ignore_eos=True)[0][0]
    stop = next(token for i, token in enumerate(full) if i >= 5 and token not in full[:i])
    ids, _, reason, end = streamed(dummy, input_ids=PROMPT, max_tokens=30, temperature=1.0, seed=5, ignore_eos=True,
                                   stop_token_ids=[stop])[0]
    assert reason == "stop"
    assert end.matched_token_id == stop
    assert ids == full[: full.index(stop) + 1]


def test_logit_bias_and_allowed_ids(dummy):
    only = whole(dummy, input_ids=PROMPT, max_tokens=6, allowed_token_ids=[17, 23], ignore_eos=True)[0][0]
    assert set(only) <= {17, 23}
    pushed = whole(dummy, input_ids=PROMPT, max_tokens=6, temperature=0, logit_bias={42: 100.0}, ignore_eos=True)[0][0]
    assert pushed == [42] * 6


def test_text_ids_and_messages(demo):
    client = demo.client
    ids = client.tokenize("Once upon a time")
    parameters = dict(max_tokens=20, temperature=0)
    by_text = streamed(demo, "Once upon a time", **parameters)[0]
    by_ids = streamed(demo, input_ids=ids, **parameters)[0]
    assert by_text[:3] == by_ids[:3]
    messages = [("user", "Say something.")]
    by_messages = streamed(demo, messages=messages, **parameters)[0]
    by_template = streamed(demo, input_ids=client.tokenize(messages=messages), **parameters)[0]
    assert by_messages[:3] == by_template[:3]
    special = (by_text[0] if by_text[2] == "length" else by_text[0][:-1])
    assert client.detokenize(special) == by_text[1]


def test_text_streamed_equals_whole(demo):
    parameters = dict(max_tokens=60, temperature=1.0, seed=9, n=2)
    a, b = streamed(demo, "The order", **parameters), whole(demo, "The order", **parameters)
    for index in a:
        assert a[index][:3] == b[index][:3]


def test_stop_strings(demo):
    full = whole(demo, "The weather", max_tokens=40, temperature=0, ignore_eos=True)[0][1]
    assert len(full) > 6
    stop = full[4:7]
    at = full.index(stop)
    parameters = dict(max_tokens=40, temperature=0, ignore_eos=True, stop=["\u2603 never", stop])
    _, text, reason, end = streamed(demo, "The weather", **parameters)[0]
    assert (text, reason, end.matched_stop_str) == (full[:at], "stop", stop)
    _, text, _, _ = whole(demo, "The weather", include_stop_str_in_output=True, **parameters)[0]
    assert text == full[: at + len(stop)]


def test_tokenize_round_trip(demo):
    for text in ["plain", "caf\u00e9 \U0001f600 \u4f60\u597d", "  spaces\n\ttabs ", ""]:
        ids = demo.client.tokenize(text, add_special_tokens=False)
        assert demo.client.detokenize(ids) == text


def test_fingerprint_names_what_answered(demo):
    info = demo.client.model_info()
    end = whole(demo, "x", max_tokens=1)[0][3]
    assert end.fingerprint == info.fingerprint
    assert len(info.fingerprint) == 16
    assert end.model == info.served_model_name
    assert info.has_tokenizer and info.has_chat_template


def test_deadline(dummy):
    before = dummy.wait_idle()
    for path in ("Generate", "GenerateWhole"):
        request = generate_bytes(input_ids=PROMPT, max_tokens=8000, n=16, ignore_eos=True)  # takes many seconds
        with pytest.raises(grpc.RpcError) as error:
            for _ in dummy.client.stream(SERVICE + path, request, timeout=0.15):
                pass
        assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    after = dummy.wait_idle()
    assert after.requests_finished == after.requests_total
    assert after.requests_total <= before.requests_total + 2


def test_cancel(dummy):
    with dummy.connect(*SMALL_WINDOW) as client:
        call = client.stream(SERVICE + "Generate", generate_bytes(input_ids=PROMPT, **SLOW), timeout=CALL_LIMIT_S)
        for _ in range(3):
            next(call)  # and no more: it cannot end before
        call.cancel()
        with pytest.raises(grpc.RpcError) as error:
            for _ in call:
                pass
    assert error.value.code() == grpc.StatusCode.CANCELLED
    dummy.wait_idle()


def test_abort(dummy):
    request = generate_bytes(input_ids=PROMPT, request_id="to-abort", **SLOW)
    with dummy.connect(*SMALL_WINDOW) as client:
        call = client.stream(SERVICE + "Generate", request, timeout=CALL_LIMIT_S)
        first = read_output(next(call))  # and the rest only after the abort: it cannot end before
        assert first.request_id == "to-abort"
        assert dummy.client.abort("never seen", "to-abort") == [False, True]
        last = [read_output(data) for data in call][-1]
    assert last.finish_reason == "abort"
    dummy.wait_for(lambda _: dummy.client.abort("to-abort") == [False])  # once the server has let go of it
    dummy.wait_idle()
