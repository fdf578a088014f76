"""What a server answers, as typed values. Names and meanings are those of proto/bantam.fbs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

FinishReason = Literal["stop", "length", "abort", "tool_calls", "content_filter"]


class TopToken(NamedTuple):
    token_id: int
    logprob: float


@dataclass(frozen=True)
class TokenLogprob:
    """One token's natural logarithm of its probability, by the model's own distribution: before penalties and temperature."""

    token_id: int
    logprob: float
    """NaN for a prompt's first token"""
    rank: int
    """Among all tokens, 1 = best; 0 for a prompt's first token"""
    top: tuple[TopToken, ...]
    """The best ones, best first: as many as were asked for"""


@dataclass(frozen=True)
class Timings:
    """Durations in nanoseconds; -1 = did not happen."""

    queue_ns: int
    """Arrival to first scheduled"""
    prefill_ns: int
    """First scheduled to first token"""
    decode_ns: int
    """First token to last"""


@dataclass(frozen=True)
class ToolCall:
    """A call of a tool, or in a stream more of one: arguments of one index are put together in the order of their coming."""

    index: int
    """Counts from 0 in each choice"""
    id: str | None
    """None = told before"""
    name: str | None
    """Of the function; None = told before"""
    arguments: str
    """JSON, or more of it"""


@dataclass(frozen=True)
class AnswerSource:
    """Who answered, and why, where a server has others do it (a router). "" = nothing to tell."""

    provider: str
    """local, or a provider's name in the router's configuration"""
    model: str
    """As its owner calls it"""
    reason: str
    """Why it went there"""
    rule: str
    """Of the policy, that decided"""
    cache: str
    """hit, shared, miss or off"""
    fingerprint: str
    """Of what answered, as it calls itself"""
    dropped: str
    """Names of parameters that did not cross, joined by commas"""
    decision_id: str
    """Under which the decision was logged"""
    cost_nanodollars: int | None
    """None = not known, or not yet"""
    attempts: int
    """Calls that were made for it"""


@dataclass(frozen=True)
class Output:
    """What a choice has got since its last output."""

    request_id: str
    index: int
    """Which choice, 0..n-1"""
    text: str
    """Whole characters; lags behind token_ids inside one, and inside what may become a stop string"""
    token_ids: list[int]
    prompt_tokens: int
    completion_tokens: int
    """Of this choice so far"""
    output_logprobs: list[TokenLogprob] | None
    """One a token, when asked for"""
    input_logprobs: list[TokenLogprob] | None
    """One a prompt token, with the first output of choice 0, when asked for"""
    prompt_token_ids: list[int] | None
    """With the first output of choice 0, when asked for"""
    tool_calls: list[ToolCall]
    refusal: str | None
    reasoning: str | None
    source: AnswerSource | None
    """With the first output and each Completion, where others answer: then texts come without token_ids"""
    finish_reason: FinishReason | None
    """None until the choice's last output, which is a Completion"""


@dataclass(frozen=True)
class Completion(Output):
    """A choice's last output: in a stream what is left of it, from generate_whole all of it."""

    finish_reason: FinishReason
    matched_stop_str: str | None
    """The stop string that ended it"""
    matched_token_id: int | None
    """The stop token that ended it"""
    cached_tokens: int
    """Prompt tokens that the prefix cache had"""
    preemptions: int
    """How often it was put back and recomputed"""
    timings: Timings
    fingerprint: str
    """Of weights, tokenizer, template and arithmetic that answered: ModelInfo has its parts"""
    model: str
    """Served name; where others answer, the source's"""
    usage_unknown: bool
    """Who answered did not count: prompt_tokens, completion_tokens and cached_tokens mean nothing"""


@dataclass(frozen=True)
class ModelInfo:
    served_model_name: str
    model_type: str
    """Architecture, such as LlamaForCausalLM"""
    vocab_size: int
    max_context_length: int
    """Tokens, prompt and output together"""
    eos_token_ids: list[int]
    bos_token_id: int | None
    dtype: str
    """Of activations"""
    quantization: str
    n_parameters: int
    has_tokenizer: bool
    has_chat_template: bool
    fingerprint: str
    """Of all that follow"""
    weights_fingerprint: str
    tokenizer_fingerprint: str
    template_fingerprint: str
    arithmetic_fingerprint: str


@dataclass(frozen=True)
class ServerInfo:
    server_type: str
    """bantam"""
    version: str
    grpc_version: str
    uptime_seconds: float
    active_requests: int
    max_message_bytes: int
    """Of a request"""
    draining: bool


@dataclass(frozen=True)
class Loads:
    num_waiting_reqs: int
    num_running_reqs: int
    num_paused_reqs: int
    """Their reader does not keep up"""
    max_running_requests: int
    kv_blocks_total: int
    kv_blocks_used: int
    """Owned by a request"""
    kv_blocks_cached: int
    """Free, but holding a prefix that can be reused"""
    kv_block_tokens: int
    token_usage: float
    """kv_blocks_used / kv_blocks_total"""
    utilization: float
    """The larger of token_usage and running / max_running"""
    cache_hit_rate: float
    """Of prompt tokens, since start"""
    prefix_queries_tokens: int
    prefix_hit_tokens: int
    prompt_tokens_total: int
    generation_tokens_total: int
    requests_total: int
    requests_finished: int
    preemptions_total: int
    steps_total: int
    gen_throughput: float
    """Generated tokens a second, over the last seconds"""
    predicted_ttft_ns: int
    """For a request that comes now; -1 = unknown"""
    heartbeat_age_ns: int
    """Since the loop last showed life"""
    step_running: bool
    failed: bool
    """The device is lost: nothing is answered until the server is restarted"""
