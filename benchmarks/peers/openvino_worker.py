"""OpenVINO GenAI behind a pipe: run by compare_peers.py with the Python that has the package openvino-genai.

    python openvino_worker.py FILE.gguf MODELS THREADS

A line of JSON {"sequences", "context", "output_len"} in, one with what it took out. The folder MODELS is used when there is an
openvino_model.xml in it, converted by whatever tool; else OpenVINO's own GGUF reader makes it of the file, once: it takes
Llama and Qwen shapes in Q4_0, Q4_K, Q8_0 and F16, keeps Q4_0 in 4 bits by groups of 32, and is saved without a tokenizer,
for prompts are ids."""

import json
import pathlib
import random
import sys
import time

sys.modules["openvino_telemetry"] = None  # not to be imported: a bench tells nobody that it ran
import openvino  # noqa: E402
import openvino_genai  # noqa: E402

CACHE_GB, STEP_TOKENS, SEQUENCES_MAX = 2, 2048, 64


def convert(file, folder):
    """The reader saves the model before it looks at the tokenizer, which it may refuse."""
    beside = file.parent
    if not (beside / "openvino_model.xml").exists():
        try:
            openvino_genai.LLMPipeline(str(file), "CPU", enable_save_ov_model=True)
        except RuntimeError:
            if not (beside / "openvino_model.xml").exists():
                raise
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("openvino_model.bin", "openvino_model.xml"):
        (beside / name).rename(folder / name)
    for rest in beside.glob("openvino_*tokenizer.*"):
        rest.unlink()


def open_pipeline(folder, threads):
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size, scheduler.enable_prefix_caching = CACHE_GB, False
    scheduler.max_num_batched_tokens, scheduler.max_num_seqs = STEP_TOKENS, SEQUENCES_MAX
    return openvino_genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU", {"INFERENCE_NUM_THREADS": threads})


def generate(pipeline, sequences, context, output_len, first_id):
    config = openvino_genai.GenerationConfig()
    config.eos_token_id, config.stop_token_ids = 1, {1}  # without a tokenizer nobody else says one
    config.max_new_tokens, config.ignore_eos, config.do_sample = output_len, True, False
    began = time.perf_counter()
    handles = []
    for i in range(sequences):
        ids = openvino.Tensor(openvino.Type.i64, [1, context])
        ids.data[0, :] = [random.randrange(1000) for _ in range(context)]
        handles.append(pipeline.add_request(first_id + i, ids, config))
    counts, first_s, counted_before = [0] * sequences, None, 0
    while pipeline.has_non_finished_requests():
        pipeline.step()
        for i, handle in enumerate(handles):
            while handle.can_read():
                counts[i] += sum(len(output.generated_ids) for output in handle.read().values())
        if first_s is None and all(counts):
            first_s, counted_before = time.perf_counter() - began, sum(counts)
    seconds = time.perf_counter() - began
    decoded = sum(counts) - counted_before
    return {"prefill_tok_s": sequences * context / first_s, "decode_tok_s": decoded / (seconds - first_s) if decoded else 0}


def main():
    file, folder, threads = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]), int(sys.argv[3])
    if not (folder / "openvino_model.xml").exists():
        convert(file, folder)
    pipeline, n_asked = open_pipeline(folder, threads), 0
    print(json.dumps({"version": openvino_genai.__version__}), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        print(json.dumps(generate(pipeline, first_id=n_asked, **question)), flush=True)
        n_asked += question["sequences"]


if __name__ == "__main__":
    main()
