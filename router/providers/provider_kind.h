/* Kinds of provider: whose wire format an upstream speaks. */
#pragma once

enum provider_kind {
    PROVIDER_OPENAI,     /* OpenAI itself, with the parameters that it documents and no others */
    PROVIDER_COMPATIBLE, /* the same format with vLLM's extensions: vLLM, Ollama, TGI, OpenRouter, llama.cpp
                          */
    PROVIDER_ANTHROPIC,
    PROVIDER_KINDS,
};
