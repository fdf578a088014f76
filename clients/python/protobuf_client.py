"""Any client of vllm.grpc.engine.VllmEngine speaks to Bantam; this one shows the service in its smallest form.

    python -m grpc_tools.protoc -I proto --python_out=stubs --grpc_python_out=stubs \\
        vllm_engine.proto smg_common.proto bantam_v1.proto
    PYTHONPATH=stubs python clients/python/protobuf_client.py 127.0.0.1:50051 "The weather today"

It needs grpcio and, for the first line, grpcio-tools. The service sends token ids and no text: a client has the model's
tokenizer, or gets its files by GetTokenizer."""

import sys

import bantam_v1_pb2
import bantam_v1_pb2_grpc
import grpc
import vllm_engine_pb2
import vllm_engine_pb2_grpc


def main(target: str, prompt: str) -> None:
    with grpc.insecure_channel(target) as channel:
        engine = vllm_engine_pb2_grpc.VllmEngineStub(channel)
        info = engine.GetModelInfo(vllm_engine_pb2.GetModelInfoRequest())
        print(f"model: {info.served_model_name}, up to {info.max_context_length} tokens")

        # temperature and max_tokens tell 0 from unset; what else is 0 is unset.
        sampling = vllm_engine_pb2.SamplingParams(temperature=0, max_tokens=32)
        request = vllm_engine_pb2.GenerateRequest(text=prompt, stream=True, sampling_params=sampling)
        tokens: list[int] = []
        for response in engine.Generate(request):  # leaving the loop early and cancelling ends the request on the server
            if response.WhichOneof("response") == "chunk":
                tokens += response.chunk.token_ids
            else:
                print(f"finished: {response.complete.finish_reason}, {response.complete.prompt_tokens} prompt tokens")
        print(f"tokens: {tokens}")

        watch = bantam_v1_pb2_grpc.LoadsStub(channel).WatchLoads(bantam_v1_pb2.WatchLoadsRequest(interval_ms=100))
        loads = next(watch)
        watch.cancel()
        print(f"loads: {loads.num_running_reqs} running, {loads.kv_blocks_used} of {loads.kv_blocks_total} KV blocks in use")


if __name__ == "__main__":
    main(*sys.argv[1:])
