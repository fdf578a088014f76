"""A GPU that is lost while requests run and wait, on the fake device: the server says so, to everybody, and lives on."""

import re
import threading

import grpc
import pytest

from conftest import BIN, CALL_LIMIT_S, DUMMY_FLAGS
from native_wire import HEALTH, SERVICE, generate_bytes

CODE = grpc.StatusCode
LIBRARY = BIN.parent / "libbantam_cuda_fake.so"
SERVICES = ("", "bantam.Bantam")
SERVING, NOT_SERVING = b"\x08\x01", b"\x08\x02"
RUNNING, CALLS = 3, 6


def start_on_device(start, model, ranks, where):
    """A server on emulated GPUs of which the last is lost at a call: fake_break.h."""
    env = {
        "BANTAM_CUDA_LIBRARY": str(LIBRARY),
        "BANTAM_FAKE_DEVICES": str(ranks),
        "BANTAM_FAKE_SEED": "3",
        "BANTAM_FAKE_BREAK": f"{where}@{ranks - 1}",
    }
    flags = ("--device", "cuda", "--tensor-parallel-size", str(ranks), "--max-num-seqs", str(RUNNING), "--max-model-len", "512")
    return start(model, *DUMMY_FLAGS, *flags, env=env)


def name_field(name):
    """HealthCheckRequest, in protobuf."""
    return bytes([10, len(name)]) + name.encode() if name else b""


def request(i, **parameters):
    ids = [7 + i] * (4 + i)
    return generate_bytes(input_ids=ids, max_tokens=400, temperature=0, ignore_eos=True, **parameters)


def run_to_the_end(call, ends, i):
    try:
        for _ in call:
            pass
        ends[i] = (CODE.OK, "")
    except grpc.RpcError as error:
        ends[i] = (error.code(), error.details())


def check_loss(start, model, ranks, where):
    server = start_on_device(start, model, ranks, where)
    lost = f"GPU {ranks - 1} (Emulated GPU) was lost"
    watches = [server.client.stream(HEALTH + "Watch", name_field(name), CALL_LIMIT_S)
               for name in SERVICES]
    assert [next(watch) for watch in watches] == [SERVING] * len(SERVICES)
    ends = [None] * CALLS
    methods = ["Generate", "GenerateWhole"]
    calls = [server.client.stream(SERVICE + methods[i % 2], request(i, n=1 + (i == 2)), CALL_LIMIT_S) for i in range(CALLS)]
    threads = [threading.Thread(target=run_to_the_end, args=(call, ends, i)) for i, call in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for code, details in ends:
        assert code == CODE.UNAVAILABLE, (code, details)
        assert lost in details and "restarted" in details
    assert [next(watch) for watch in watches] == [NOT_SERVING] * len(SERVICES)
    assert [server.client.health(name) for name in SERVICES] == ["NOT_SERVING"] * len(SERVICES)
    for _ in range(3):
        with pytest.raises(grpc.RpcError) as error:
            server.client.generate_whole(input_ids=[1], max_tokens=1, timeout=CALL_LIMIT_S)
        assert error.value.code() == CODE.UNAVAILABLE and lost in error.value.details()
    loads = server.wait_idle()
    assert loads.failed and loads.requests_finished == loads.requests_total
    server.wait_for(lambda loads: loads.heartbeat_age_ns < 10**9)  # it goes on living
    server.terminate()
    assert server.wait() == 0
    output = server.output()
    assert len(re.findall(re.escape(lost), output)) == 1 and "drained" in output


@pytest.mark.parametrize("where", ["copy:15", "launch:40", "record:20", "wait:6", "graph:9", "run:300"])
def test_one_gpu(start, dummy_model, where):
    check_loss(start, dummy_model, 1, where)


@pytest.mark.parametrize("where", ["gather:8", "launch:40", "wait:6", "graph:9", "run:300"])
def test_two_gpus(start, dummy_model, where):
    check_loss(start, dummy_model, 2, where)


def test_the_first_kernel(start, dummy_model):
    """Before anything was answered."""
    check_loss(start, dummy_model, 1, "run:0")
