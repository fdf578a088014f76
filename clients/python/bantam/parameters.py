"""What a call may ask for, as typed keyword arguments. Names and meanings are those of proto/bantam.fbs."""

from __future__ import annotations

from typing import Any, Iterable, Mapping, NamedTuple, Sequence, TypedDict, Union


class Message(NamedTuple):
    """One turn of a conversation, which the model's own template turns into a prompt."""

    role: str
    """"system", "user", "assistant", or another role that the template knows."""
    content: str


MessageLike = Union[Message, "tuple[str, str]", Mapping[str, str]]
"""A Message, a pair (role, content), or OpenAI's {"role": ..., "content": ...}."""


def system(content: str) -> Message:
    return Message("system", content)


def user(content: str) -> Message:
    return Message("user", content)


def assistant(content: str) -> Message:
    return Message("assistant", content)


class SamplingParams(TypedDict, total=False):
    """How tokens are chosen and when an answer ends. What is left out, or None, comes from the model's
    generation_config.json, and else from the default in brackets."""

    temperature: float | None
    """>= 0; 0 always takes the most likely token [1]"""
    top_p: float | None
    """(0, 1]: the smallest set of tokens with this probability [1]"""
    top_k: int | None
    """So many of the most likely tokens; -1 or 0 = off [off]"""
    min_p: float | None
    """[0, 1]: tokens with at least this share of the most likely one's probability [0]"""
    frequency_penalty: float | None
    """[-2, 2], for each time that a token is in the answer [0]"""
    presence_penalty: float | None
    """[-2, 2], once for a token that is in the answer [0]"""
    repetition_penalty: float | None
    """[0.01, 100], for tokens of prompt and answer; above 1 makes them less likely [1]"""
    max_tokens: int | None
    """Tokens of an answer; 0 = up to the model's length [16]"""
    min_tokens: int | None
    """No end-of-sequence token and no stop before so many [0]"""
    n: int | None
    """Choices: independent answers to the same prompt [1]"""
    seed: int | None
    """The same seed gives the same answer, whatever else the server does [drawn at admission]"""
    logprobs: int | None
    """Alternatives a token, besides the chosen one; 0 gives the chosen one's alone, -1 nothing [-1]"""
    prompt_logprobs: int | None
    """The same for the prompt's tokens [-1]"""
    ignore_eos: bool | None
    """Go on after an end-of-sequence token [False]"""
    skip_special_tokens: bool | None
    """Leave special tokens out of the text [True]"""
    include_stop_str_in_output: bool | None
    """Keep the stop string that ended the answer in its text [False]"""
    stop: str | Sequence[str] | None
    """The answer ends at the first of these strings"""
    stop_token_ids: Sequence[int] | None
    """The answer ends with the first of these tokens"""
    logit_bias: Mapping[int, float] | None
    """Token id -> [-100, 100], added to its logit"""
    allowed_token_ids: Sequence[int] | None
    """Only these tokens can be chosen"""
    bad_words: str | Sequence[str] | None
    """Texts that an answer must not contain"""
    truncate_prompt_tokens: int | None
    """Only so many of the prompt's last tokens count; -1 = what fits beside max_tokens [all]"""
    spaces_between_special_tokens: bool | None
    """In text, where the tokenizer's decoder puts spaces between tokens [True]"""


def check_names(given: Iterable[str], kind: type) -> None:
    """Refuses names that a TypedDict does not have: at run time nobody else does."""
    unknown = sorted(set(given) - set(kind.__annotations__))
    if unknown:
        raise TypeError(f"unknown parameter {', '.join(unknown)}; known are {', '.join(sorted(kind.__annotations__))}")


class CallOptions(TypedDict, total=False):
    """How a call is made. They are not part of the request."""

    timeout: float | None
    """Seconds from now until the answer must be there, retries included; the server knows of it and gives up then. None = no
    deadline, left out = the client's own"""
    metadata: Sequence[tuple[str, str | bytes]]
    """More headers, e.g. ("traceparent", "00-...")"""


class GenerateParams(SamplingParams, CallOptions, total=False):
    """Keyword arguments of generate and generate_whole. Exactly one of text, input_ids, messages and openai_json is
    given."""

    input_ids: Sequence[int] | None
    """The prompt as token ids"""
    messages: Sequence[MessageLike] | None
    """The prompt as a conversation"""
    openai_json: Mapping[str, Any] | str | None
    """The body of an OpenAI chat completion, for what no other argument has: tools, images, schemas. Its parameters take the
    place of SamplingParams. A router passes it on; an engine refuses what it cannot do"""
    template_json: Mapping[str, Any] | str | None
    """messages: what else the chat template gets. Under "messages" a list with a mapping for each message, whose fields stand
    beside role and content (tool_calls, name); under any other name a value of that name (tools, documents)"""
    output_prefix_ids: Sequence[int] | None
    """Tokens of the answer that exist already: it goes on after them as if it had never stopped, given the same seed"""
    request_id: str | None
    """Names the request, for abort [made by the server]"""
    priority: int | None
    """Lower runs earlier, where the server schedules by priority [0]. Also sent as the header x-bantam-priority"""
    model: str | None
    """Served name [the served model]. Also sent as the header x-bantam-model"""
    session: str | None
    """The header x-bantam-session, by which proxies send a conversation to the server that has its prefix in cache"""
    tenant: str | None
    """The header x-bantam-tenant, for proxies that route by it. The server's tenant is who the key says"""
    add_special_tokens: bool | None
    """text: let the tokenizer add its beginning-of-sequence token and the like [True]"""
    add_generation_prompt: bool | None
    """messages: open the assistant's turn [True]"""
    return_prompt_token_ids: bool | None
    """Send the prompt's token ids with the first output of choice 0 [False]"""
