"""vllm.grpc.engine.VllmEngine, spoken by its clients' own published stubs (smg-grpc-proto) and by what reflection tells of it;
the native door is the truth."""

import collections
import hashlib
import io
import json
import math
import os
import subprocess
import sys
import threading
import zipfile

import grpc
import pytest
import tokenizers
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from smg_grpc_proto.generated import common_pb2, vllm_engine_pb2, vllm_engine_pb2_grpc

from conftest import CALL_LIMIT_S, DUMMY_CONFIG, DUMMY_FLAGS, ROOT, SMALL_WINDOW
from native_wire import SERVICE, generate_bytes

CODE = grpc.StatusCode
FACADE = "/vllm.grpc.engine.VllmEngine/"
PROMPT = [5, 6, 7, 8, 9, 10, 11, 12]
MAX_ANSWER = [("grpc.max_receive_message_length", 64 << 20)]


class Facade:
    def __init__(self, server, options=()):
        self.channel = grpc.insecure_channel(server.target, options=[*MAX_ANSWER, ("grpc.use_local_subchannel_pool", 1), *options])
        self.stub = vllm_engine_pb2_grpc.VllmEngineStub(self.channel)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()


@pytest.fixture(scope="module")
def facade(dummy):
    with Facade(dummy) as opened:
        yield opened


@pytest.fixture(scope="module")
def demo_facade(demo):
    with Facade(demo) as opened:
        yield opened


def facade_request(text=None, input_ids=None, stream=True, request_id="", **sampling):
    request = vllm_engine_pb2.GenerateRequest(request_id=request_id, stream=stream,
                                              sampling_params=vllm_engine_pb2.SamplingParams(**sampling))
    if text is not None:
        request.text = text
    if input_ids is not None:
        request.tokenized.input_ids.extend(input_ids)
        request.tokenized.original_text = "not looked at"
    return request


Answer = collections.namedtuple("Answer", "ids finish logprobs prompt_logprobs prompt_tokens completion_tokens stop")


def top_of(columns):
    return [(list(entry.values), list(entry.token_ids)) for entry in columns.top_logprobs]


def gather_facade(responses, stream):
    """index -> Answer, as a client of that service adds it up: a stream's tokens are those of its chunks."""
    ids, logprobs, prompts, ends = (collections.defaultdict(list) for _ in range(4))
    for response in responses:
        kind = response.WhichOneof("response")
        message = getattr(response, kind)
        index = message.index
        assert index not in ends, "output after the end of a choice"
        token_ids = list(message.token_ids if kind == "chunk" else message.output_ids)
        if kind == "chunk":
            assert stream and message.completion_tokens == len(token_ids) > 0
        elif stream:
            assert not token_ids, "a stream's tokens come in chunks"
        ids[index] += token_ids
        if message.HasField("output_logprobs"):
            columns = message.output_logprobs
            logprobs[index].append((list(columns.token_logprobs), list(columns.token_ids), top_of(columns)))
        if message.HasField("input_logprobs"):
            columns = message.input_logprobs
            values = [entry.value if entry.HasField("value") else None for entry in columns.token_logprobs]
            prompts[index].append((values, list(columns.token_ids), top_of(columns)))
        if kind == "complete":
            ends[index] = message
    assert set(ends) >= set(ids)
    return {index: Answer(ids[index], end.finish_reason, joined(logprobs[index]), joined(prompts[index]), end.prompt_tokens,
                          end.completion_tokens, (end.WhichOneof("matched_stop"), end.matched_stop_str, end.matched_token_id))
            for index, end in ends.items()}


def joined(parts):
    values, ids, top = [], [], []
    for part in parts:
        values, ids, top = values + part[0], ids + part[1], top + part[2]
    return values, ids, top


def native_columns(columns):
    columns = columns or []
    top = [([one.logprob for one in token.top], [one.token_id for one in token.top]) for token in columns]
    values = [None if math.isnan(token.logprob) else token.logprob for token in columns]
    return values, [token.token_id for token in columns], top if any(token.top for token in columns) else []


def gather_native(server, **parameters):
    answers = {}
    for output in server.client.generate_whole(timeout=CALL_LIMIT_S, **parameters):
        stop, token = output.matched_stop_str, output.matched_token_id
        kind = "matched_stop_str" if stop else "matched_token_id" if token is not None else None
        answers[output.index] = Answer(output.token_ids, output.finish_reason, native_columns(output.output_logprobs),
                                       native_columns(output.input_logprobs), output.prompt_tokens, output.completion_tokens,
                                       (kind, stop or "", token or 0))
    return answers


def status_of(call):
    try:
        for _ in call:
            pass
    except grpc.RpcError as error:
        return error.code(), error.details()
    return CODE.OK, ""


# --- the same answers

SAME_ANSWERS = [
    dict(temperature=0, max_tokens=24, ignore_eos=True),
    dict(temperature=0.9, top_p=0.9, top_k=40, seed=3, max_tokens=40, n=3, ignore_eos=True),
    dict(temperature=0.7, min_p=0.05, seed=-5, max_tokens=30, frequency_penalty=0.5, presence_penalty=-0.5,
         repetition_penalty=1.2, ignore_eos=True),
    dict(temperature=1.0, seed=9, max_tokens=20, logprobs=0, n=2, ignore_eos=True),
    dict(temperature=1.0, seed=9, max_tokens=20, logprobs=5, prompt_logprobs=3, n=2, ignore_eos=True),
    dict(temperature=0, max_tokens=12, logit_bias={17: 100.0}, ignore_eos=True),
    dict(temperature=0, max_tokens=500, stop_token_ids=[0, 17], logit_bias={17: 100.0}, min_tokens=3),
    dict(temperature=0, max_tokens=5, stop_token_ids=[0], logit_bias={0: 100.0}),
    dict(temperature=0, max_tokens=9, truncate_prompt_tokens=2, prompt_logprobs=0, ignore_eos=True),
]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("sampling", SAME_ANSWERS, ids=[str(sampling)[:50] for sampling in SAME_ANSWERS])
def test_same_answer_as_native(dummy, facade, sampling, stream):
    native = dict(sampling, seed=sampling["seed"] % 2**64) if "seed" in sampling else sampling
    expected = gather_native(dummy, input_ids=PROMPT, **native)
    call = facade.stub.Generate(facade_request(input_ids=PROMPT, stream=stream, **sampling), timeout=CALL_LIMIT_S)
    answer = gather_facade(call, stream)
    assert answer == expected
    assert len(answer) == sampling.get("n", 1)


TEXTS = [dict(temperature=0, max_tokens=40), dict(temperature=0.8, seed=4, max_tokens=60, stop=["e", "."], skip_special_tokens=True),
         dict(temperature=0, max_tokens=60, stop=["a"], include_stop_str_in_output=True, skip_special_tokens=True)]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
@pytest.mark.parametrize("sampling", TEXTS, ids=[str(sampling) for sampling in TEXTS])
def test_same_answer_to_text(demo, demo_facade, sampling, stream):
    text = "The weather today"
    call = demo_facade.stub.Generate(facade_request(text=text, stream=stream, **sampling), timeout=CALL_LIMIT_S)
    assert gather_facade(call, stream) == gather_native(demo, text=text, **sampling)


def test_unset_is_what_native_has(demo, demo_facade):
    """Nothing set: the model's generation_config.json; but max_tokens, whose absence means as many as fit."""
    request = vllm_engine_pb2.GenerateRequest(text="Hello", sampling_params=vllm_engine_pb2.SamplingParams(seed=5))
    answer = gather_facade(demo_facade.stub.Generate(request, timeout=CALL_LIMIT_S), False)
    assert answer == gather_native(demo, text="Hello", seed=5, max_tokens=0)


def test_many_streams_at_once(dummy, facade):
    prompts = [[3 + i, 40, 7 * i % 500, 9] for i in range(16)]
    parameters = dict(temperature=0, max_tokens=25, ignore_eos=True)
    expected = [gather_native(dummy, input_ids=prompt, **parameters) for prompt in prompts]
    got = [None] * len(prompts)

    def run(i):
        got[i] = gather_facade(facade.stub.Generate(facade_request(input_ids=prompts[i], **parameters), timeout=CALL_LIMIT_S), True)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(prompts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == expected


WINDOWED_CONFIG = {**DUMMY_CONFIG, "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 16,
                   "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
                   "max_position_embeddings": 131072, "use_sliding_window": True, "sliding_window": 64, "max_window_layers": 0}


def test_a_hundred_thousand_ids(start, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(WINDOWED_CONFIG))
    server = start(tmp_path, *DUMMY_FLAGS, "--max-num-seqs", "2", "--max-num-batched-tokens", "2048")
    parameters = dict(input_ids=[i % 512 for i in range(100_000)], temperature=0, max_tokens=4, ignore_eos=True)
    expected = gather_native(server, **parameters)
    assert expected[0].prompt_tokens == 100_000
    with Facade(server) as own:
        for stream in (True, False):
            call = own.stub.Generate(facade_request(stream=stream, **parameters), timeout=CALL_LIMIT_S)
            assert gather_facade(call, stream) == expected


# --- the same refusals

SAME_MISTAKES = [
    dict(temperature=-1.0), dict(temperature=float("nan")), dict(top_p=1.5), dict(top_p=float("nan")), dict(min_p=-0.1),
    dict(repetition_penalty=200.0), dict(presence_penalty=3.0), dict(frequency_penalty=-3.0), dict(n=65), dict(n=2**31),
    dict(logprobs=21), dict(prompt_logprobs=1000), dict(min_tokens=9, max_tokens=2), dict(stop_token_ids=[512]),
    dict(stop_token_ids=list(range(65))), dict(logit_bias={512: 1.0}), dict(logit_bias={1: 1000.0}), dict(stop=["x"]),
    dict(input_ids=[512]), dict(input_ids=[]), dict(input_ids=[1] * 100_000), dict(input_ids=[2**32 - 1]),
    dict(input_ids=None, text="no tokenizer"), dict(input_ids=None), dict(request_id="x" * 129), dict(request_id="a\nb"),
    dict(truncate_prompt_tokens=0), dict(truncate_prompt_tokens=8193), dict(truncate_prompt_tokens=-2),
]


@pytest.mark.parametrize("parameters", SAME_MISTAKES, ids=[str(parameters)[:50] for parameters in SAME_MISTAKES])
def test_same_error_as_native(dummy, facade, parameters):
    parameters = {"input_ids": PROMPT, "max_tokens": 4, **parameters}
    expected = status_of(dummy.client.stream(SERVICE + "Generate", generate_bytes(**parameters), CALL_LIMIT_S))
    assert expected[0] == CODE.INVALID_ARGUMENT
    for stream in (True, False):
        assert status_of(facade.stub.Generate(facade_request(stream=stream, **parameters), timeout=CALL_LIMIT_S)) == expected


def media(modality=common_pb2.IMAGE):
    return vllm_engine_pb2.MultimodalInputs(modality=modality)


LACKING = [
    ("json_schema", dict(sampling=dict(json_schema="{}"))), ("regex", dict(sampling=dict(regex=""))),
    ("grammar", dict(sampling=dict(grammar="g"))), ("structural_tag", dict(sampling=dict(structural_tag="t"))),
    ("json_object", dict(sampling=dict(json_object=True))),
    ("choice", dict(sampling=dict(choice=vllm_engine_pb2.ChoiceConstraint(choices=["a"])))),
    ("kv_transfer_params", dict(kv_transfer_params=vllm_engine_pb2.KvTransferParams(remote_host="h"))),
    ("kv_transfer_params_json", dict(kv_transfer_params_json="{}")), ("mm_inputs", dict(mm_inputs=media())),
    ("extra_mm_inputs", dict(extra_mm_inputs=[media()])), ("media_refs", dict(media_refs=vllm_engine_pb2.MediaRefs())),
]


@pytest.mark.parametrize("name,fields", LACKING, ids=[name for name, _ in LACKING])
def test_what_is_not_done_is_named(facade, name, fields):
    fields = dict(fields)
    request = facade_request(input_ids=PROMPT, max_tokens=2, **fields.pop("sampling", {}))
    request.MergeFrom(vllm_engine_pb2.GenerateRequest(**fields))
    code, message = status_of(facade.stub.Generate(request, timeout=CALL_LIMIT_S))
    assert code == CODE.UNIMPLEMENTED
    assert message.startswith(f"{name} is not supported: ")


@pytest.mark.parametrize("field,value", [("data_parallel_rank", 1), ("logprobs", -1), ("prompt_logprobs", -1), ("top_k", 2**31),
                                         ("logit_bias", {-1: 1.0})])
def test_values_of_its_own(facade, field, value):
    if field == "data_parallel_rank":
        request = facade_request(input_ids=PROMPT)
        request.data_parallel_rank = value
    else:
        request = facade_request(input_ids=PROMPT, **{field: value})
    code, message = status_of(facade.stub.Generate(request, timeout=CALL_LIMIT_S))
    assert code == CODE.INVALID_ARGUMENT and message.startswith(field)


def test_what_asks_for_nothing_is_served(facade):
    request = facade_request(input_ids=PROMPT, max_tokens=2, json_object=False, spaces_between_special_tokens=True,
                             grammar_from_first_token=True)
    request.kv_transfer_params_json = ""
    request.data_parallel_rank = 0
    unknown = request.SerializeToString() + b"\xfa\x3e\x03abc" + b"\xf8\x3e\x05"  # fields 1007 and 1007 again, of two kinds
    call = facade.channel.unary_stream(FACADE + "Generate")(unknown, timeout=CALL_LIMIT_S)
    assert status_of(call) == (CODE.OK, "")


def test_methods_that_are_not_there(facade):
    calls = [lambda: facade.stub.Embed(vllm_engine_pb2.EmbedRequest(), timeout=CALL_LIMIT_S),
             lambda: facade.stub.FlushCache(common_pb2.FlushCacheRequest(), timeout=CALL_LIMIT_S),
             lambda: facade.stub.StartProfile(common_pb2.StartProfileRequest(), timeout=CALL_LIMIT_S),
             lambda: facade.stub.StopProfile(common_pb2.StopProfileRequest(), timeout=CALL_LIMIT_S)]
    for call in calls:
        with pytest.raises(grpc.RpcError) as error:
            call()
        assert error.value.code() == CODE.UNIMPLEMENTED
        assert " is not supported: " in error.value.details()


@pytest.mark.parametrize("method", ["Generate", "Abort", "HealthCheck", "GetModelInfo", "GetServerInfo", "GetLoads", "GetTokenizer"])
def test_malformed_bytes(facade, method):
    inside = [b"\x22\x02\x52\xff", b"\x12\x03\x12\x01\x80"] if method == "Generate" else []
    for data in (b"\xff", b"\x0a\x05ab", b"\x0f", b"\x00\x01", b"\x80" * 12, *inside):
        code, message = status_of(facade.channel.unary_stream(FACADE + method)(data, timeout=CALL_LIMIT_S))
        assert code == CODE.INVALID_ARGUMENT and "well-formed" in message


# --- ending early

SLOW = dict(max_tokens=7000, logprobs=20, ignore_eos=True)


def test_dropped_stream_aborts(dummy, facade):
    for stream in (True, False):
        before = dummy.client.loads().requests_total
        call = facade.stub.Generate(facade_request(input_ids=PROMPT, stream=stream, n=8, **SLOW), timeout=CALL_LIMIT_S)
        if stream:
            next(call)
        else:
            dummy.wait_for(lambda loads: loads.requests_total > before)
        call.cancel()
        assert dummy.wait_idle().kv_blocks_used == 0


def test_dropped_connection_aborts(dummy):
    with Facade(dummy, SMALL_WINDOW) as own:
        call = own.stub.Generate(facade_request(input_ids=PROMPT, **SLOW))
        next(call)
    assert dummy.wait_idle().kv_blocks_used == 0


DROPS = int(os.environ.get("BANTAM_FACADE_DROPS", "60"))


def test_many_drops_leave_nothing(start, dummy_model):
    """Connections that end with calls in every phase: waiting, in prefill, decoding, before their first message is read."""
    server = start(dummy_model, *DUMMY_FLAGS, "--max-num-seqs", "6", "--max-waiting", "64")
    steady = dict(input_ids=[7, 7, 7], max_tokens=50, temperature=0, ignore_eos=True)
    expected = gather_native(server, **steady)
    n_dropped = 0
    while n_dropped < DROPS:
        with Facade(server, SMALL_WINDOW) as own:
            calls = [own.stub.Generate(facade_request(input_ids=[5 + i] * (1 + 300 * (i % 3)), stream=i % 4 != 3, **SLOW))
                     for i in range(12)]
            next(calls[0])
            for call in calls[: n_dropped // 12 % 12]:
                call.cancel()
            n_dropped += len(calls)
    loads = server.wait_idle()
    assert loads.kv_blocks_used == 0 and loads.requests_finished == loads.requests_total
    assert gather_native(server, **steady) == expected


def test_abort(dummy, facade):
    with Facade(dummy, SMALL_WINDOW) as own:
        call = own.stub.Generate(facade_request(input_ids=PROMPT, request_id="to-abort", **SLOW), timeout=CALL_LIMIT_S)
        first = next(call)  # and the rest only after the abort: it cannot end before
        request = vllm_engine_pb2.AbortRequest(request_ids=["unknown", "to-abort"])
        assert facade.stub.Abort(request, timeout=CALL_LIMIT_S) is not None
        responses = [first, *call]
        assert responses[-1].complete.finish_reason == "abort"
        assert call.code() == CODE.OK
    dummy.wait_idle()
    for ids in ([], ["x"] * 1025):
        with pytest.raises(grpc.RpcError) as error:
            facade.stub.Abort(vllm_engine_pb2.AbortRequest(request_ids=ids), timeout=CALL_LIMIT_S)
        assert error.value.code() == CODE.INVALID_ARGUMENT and f"{len(ids)} entries" in error.value.details()


# --- what answers

def test_model_info(demo, demo_facade, demo_model):
    info = demo_facade.stub.GetModelInfo(vllm_engine_pb2.GetModelInfoRequest(), timeout=CALL_LIMIT_S)
    native = demo.client.model_info()
    assert info.served_model_name == native.served_model_name
    assert info.architectures == [native.model_type]
    assert list(info.eos_token_ids) == [int(i) for i in native.eos_token_ids]
    assert (info.vocab_size, info.max_context_length) == (native.vocab_size, native.max_context_length)
    assert info.max_req_input_len == info.max_context_length - 1
    assert info.is_generation and not info.supports_vision
    assert info.model_path == info.tokenizer_path == str(demo_model)


def test_sampling_defaults_are_told(start, dummy_model, tmp_path):
    (tmp_path / "config.json").write_text((dummy_model / "config.json").read_text())
    (tmp_path / "generation_config.json").write_text('{"temperature": 0.25, "top_k": 20, "top_p": 0.95}')
    with Facade(start(tmp_path, *DUMMY_FLAGS)) as own:
        info = own.stub.GetModelInfo(vllm_engine_pb2.GetModelInfoRequest(), timeout=CALL_LIMIT_S)
    assert info.default_sampling_params_json == '{"temperature":0.25,"top_p":0.95,"top_k":20}'
    assert info.tokenizer_path == ""


def test_server_info_loads_and_health(dummy, facade):
    facade_status = facade.stub.HealthCheck(vllm_engine_pb2.HealthCheckRequest(), timeout=CALL_LIMIT_S)
    assert (facade_status.healthy, facade_status.message) == (True, "serving")
    assert dummy.client.health("vllm.grpc.engine.VllmEngine") == "SERVING"
    dummy.wait_idle()
    with Facade(dummy, SMALL_WINDOW) as own:
        call = own.stub.Generate(facade_request(input_ids=PROMPT, **SLOW), timeout=CALL_LIMIT_S)
        next(call)  # and no more: it does not end before it is looked at
        dummy.wait_for(lambda loads: loads.num_running_reqs == 1)
        info = facade.stub.GetServerInfo(vllm_engine_pb2.GetServerInfoRequest(), timeout=CALL_LIMIT_S)
        assert (info.server_type, info.active_requests, info.is_paused, info.data_parallel_size) == ("bantam", 1, False, 1)
        assert info.uptime_seconds > 0 and info.last_receive_timestamp > 1.6e9
        assert (info.block_size, info.max_num_seqs) == (16, 16)
        assert (info.model_dtype, info.kv_cache_dtype) == ("torch.float32", "float32")
        loads = facade.stub.GetLoads(vllm_engine_pb2.GetLoadsRequest(dp_rank=0, include=["core"]), timeout=CALL_LIMIT_S)
        assert loads.dp_rank_count == len(loads.loads) == 1
        assert loads.timestamp.endswith("Z") and loads.version
        load = loads.loads[0]
        assert load.num_running_reqs + load.num_waiting_reqs == load.num_total_reqs == 1
        assert 0 < load.num_used_tokens < load.max_total_num_tokens
        assert load.token_usage == pytest.approx(load.num_used_tokens / load.max_total_num_tokens)
        assert load.max_running_requests == 16 and load.utilization > 0
        call.cancel()
    dummy.wait_idle()


def test_server_info_of_a_kv_cache_in_int8(start, dummy_model):
    with Facade(start(dummy_model, *DUMMY_FLAGS, "--kv-cache-dtype", "int8")) as facade:
        info = facade.stub.GetServerInfo(vllm_engine_pb2.GetServerInfoRequest(), timeout=CALL_LIMIT_S)
    assert (info.model_dtype, info.kv_cache_dtype) == ("torch.float32", "int8")


def test_tokenizer(demo, demo_facade, demo_model):
    def fetch():
        chunks = list(demo_facade.stub.GetTokenizer(common_pb2.GetTokenizerRequest(), timeout=CALL_LIMIT_S))
        assert all(0 < len(chunk.data) <= 64 << 10 for chunk in chunks)
        assert [bool(chunk.sha256) for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
        data = b"".join(chunk.data for chunk in chunks)
        assert hashlib.sha256(data).hexdigest() == chunks[-1].sha256
        return data

    data = fetch()
    assert fetch() == data
    archive = zipfile.ZipFile(io.BytesIO(data))
    assert archive.testzip() is None
    assert set(archive.namelist()) == {path.name for path in demo_model.iterdir()} - {"model.safetensors"}
    for name in archive.namelist():
        assert archive.read(name) == (demo_model / name).read_bytes()
    tokenizer = tokenizers.Tokenizer.from_str(archive.read("tokenizer.json").decode())
    assert tokenizer.encode("The weather today").ids == demo.client.tokenize("The weather today")


def test_no_tokenizer(facade):
    code, message = status_of(facade.stub.GetTokenizer(common_pb2.GetTokenizerRequest(), timeout=CALL_LIMIT_S))
    assert (code, message) == (CODE.FAILED_PRECONDITION, "the server runs without a tokenizer")


# --- reflection

@pytest.fixture(scope="module")
def reflected(facade):
    return descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(facade.channel))


def shape_of(message):
    def type_of(field):
        named = field.message_type or field.enum_type
        return field.type, named.full_name if named else ""

    fields = {field.number: (field.name, type_of(field), field.is_repeated, field.has_presence,
                             field.containing_oneof.name if field.containing_oneof else "") for field in message.fields}
    return fields, sorted(nested.name for nested in message.nested_types), message.GetOptions().map_entry


def test_schema_is_the_published_one(reflected):
    """Every name, number and type of the service's own schema is in ours, and nothing else."""
    seen = set()

    def compare(theirs):
        if theirs.full_name in seen:
            return
        seen.add(theirs.full_name)
        assert shape_of(reflected.FindMessageTypeByName(theirs.full_name)) == shape_of(theirs)
        for field in theirs.fields:
            if field.message_type:
                compare(field.message_type)
            if field.enum_type:
                ours = reflected.FindEnumTypeByName(field.enum_type.full_name)
                assert {v.name: v.number for v in ours.values} == {v.name: v.number for v in field.enum_type.values}

    service = vllm_engine_pb2.DESCRIPTOR.services_by_name["VllmEngine"]
    ours = reflected.FindServiceByName(service.full_name)
    assert [method.name for method in ours.methods] == [method.name for method in service.methods]
    for method in service.methods:
        own = ours.methods_by_name[method.name]
        assert (own.client_streaming, own.server_streaming) == (method.client_streaming, method.server_streaming)
        assert own.input_type.full_name == method.input_type.full_name
        compare(method.input_type)
        compare(method.output_type)
    assert {message.full_name for message in vllm_engine_pb2.DESCRIPTOR.message_types_by_name.values()} <= seen
    ours_messages = ours.file.message_types_by_name
    assert set(ours_messages) == set(vllm_engine_pb2.DESCRIPTOR.message_types_by_name)


SERVICES = {"vllm.grpc.engine.VllmEngine", "bantam.v1.Loads", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection"}


def test_reflection_lists_and_a_stub_is_made_of_it(facade, reflected):
    assert set(ProtoReflectionDescriptorDatabase(facade.channel).get_services()) == SERVICES
    for name in SERVICES:
        assert reflected.FindServiceByName(name).full_name == name

    def messages_of(service, method):
        own = reflected.FindServiceByName(service).methods_by_name[method]
        return message_factory.GetMessageClass(own.input_type), message_factory.GetMessageClass(own.output_type)

    request_class, response_class = messages_of("vllm.grpc.engine.VllmEngine", "Generate")
    request = request_class()
    request.tokenized.input_ids.extend(PROMPT)
    request.sampling_params.max_tokens = 3
    request.sampling_params.ignore_eos = True
    call = facade.channel.unary_stream(FACADE + "Generate", request_class.SerializeToString, response_class.FromString)
    (response,) = call(request, timeout=CALL_LIMIT_S)
    assert len(response.complete.output_ids) == 3
    request_class, response_class = messages_of("grpc.health.v1.Health", "List")
    call = facade.channel.unary_unary("/grpc.health.v1.Health/List", request_class.SerializeToString, response_class.FromString)
    statuses = call(request_class(), timeout=CALL_LIMIT_S).statuses
    assert {name: status.status for name, status in statuses.items()} == dict.fromkeys(
        ("", "bantam.Bantam", "vllm.grpc.engine.VllmEngine"), 1)
    request_class, response_class = messages_of("bantam.v1.Loads", "WatchLoads")
    call = facade.channel.unary_stream("/bantam.v1.Loads/WatchLoads", request_class.SerializeToString, response_class.FromString)
    watch = call(request_class(interval_ms=10), timeout=CALL_LIMIT_S)
    first, second = next(watch), next(watch)
    watch.cancel()
    assert first.kv_blocks_total == second.kv_blocks_total > 0 and first.kv_block_tokens == 16
    code, message = status_of(call(request_class(interval_ms=9), timeout=CALL_LIMIT_S))
    assert (code, message) == (CODE.INVALID_ARGUMENT, "interval_ms is 9; it must be 10 to 60000")


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_of_either_version(facade, version):
    """Several questions over one stream, in turn; what is not there is an answer too."""
    Request, Response = reflection_pb2.ServerReflectionRequest, reflection_pb2.ServerReflectionResponse
    call = facade.channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                                        Request.SerializeToString, Response.FromString)
    requests = [
        (Request(host="h", list_services=""), "list_services_response"),
        (Request(file_by_filename="vllm_engine.proto"), "file_descriptor_response"),
        (Request(file_containing_symbol="vllm.grpc.engine.VllmEngine.Generate"), "file_descriptor_response"),
        (Request(file_containing_symbol="vllm.grpc.engine.Nothing"), "error_response"),
        (Request(file_by_filename="nothing.proto"), "error_response"),
        (Request(all_extension_numbers_of_type="vllm.grpc.engine.GenerateRequest"), "all_extension_numbers_response"),
        (Request(all_extension_numbers_of_type="x"), "error_response"),
        (Request(file_containing_extension=reflection_pb2.ExtensionRequest(containing_type="x", extension_number=1)), "error_response"),
    ]
    responses = list(call(iter([request for request, _ in requests]), timeout=CALL_LIMIT_S))
    assert [response.WhichOneof("message_response") for response in responses] == [kind for _, kind in requests]
    for (request, kind), response in zip(requests, responses):
        assert response.original_request == request and response.valid_host == request.host
        assert kind != "error_response" or response.error_response.error_code == CODE.NOT_FOUND.value[0]
    code, _ = status_of(facade.channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")(
        iter([b"\x3a\x05x"]), timeout=CALL_LIMIT_S))
    assert code == CODE.INVALID_ARGUMENT


def test_reflection_streams_that_wait_hinder_no_shutdown(start, dummy_model):
    server = start(dummy_model, *DUMMY_FLAGS)
    with Facade(server) as own:
        stub = reflection_pb2_grpc.ServerReflectionStub(own.channel)
        asked, go_on = threading.Event(), threading.Event()

        def questions():
            yield reflection_pb2.ServerReflectionRequest(list_services="")
            asked.set()
            go_on.wait(CALL_LIMIT_S)

        call = stub.ServerReflectionInfo(questions(), timeout=CALL_LIMIT_S)
        next(call)
        asked.wait(CALL_LIMIT_S)
        server.terminate()
        assert status_of(call)[0] == CODE.UNAVAILABLE
        go_on.set()
        assert server.wait() == 0


# --- the schema of the native door, and what is written for users

def test_flatbuffers_schema(dummy):
    schema = dummy.client.unary(SERVICE + "GetSchema", b"", timeout=CALL_LIMIT_S)
    assert schema[4:8] == b"BFBS"
    for name in (b"bantam.GenerateRequest", b"output_prefix_ids", b"bantam.LoadsResponse"):
        assert name in schema


def test_example_client(demo, tmp_path):
    """As a user runs it: stubs made by grpcio-tools from the .proto files of this repository."""
    proto = ROOT / "proto"
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", f"-I{proto}", f"--python_out={tmp_path}",
                    f"--grpc_python_out={tmp_path}", "vllm_engine.proto", "smg_common.proto", "bantam_v1.proto"],
                   check=True, timeout=CALL_LIMIT_S)
    run = subprocess.run([sys.executable, ROOT / "clients/python/protobuf_client.py", demo.target, "The weather today"],
                         env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=CALL_LIMIT_S)
    assert run.returncode == 0, run.stderr
    expected = demo.client.generate_whole("The weather today", max_tokens=32, temperature=0, timeout=CALL_LIMIT_S)[0]
    assert f"tokens: {expected.token_ids}" in run.stdout
    assert "loads: " in run.stdout
