"""The router's MCP between the protocol's own Python client and a real engine, over HTTP and over `bantam mcp`."""

import asyncio
import json

import pytest
from mcp import Client, StdioServerParameters

from conftest import BIN, CALL_LIMIT_S
from route_tools import Provider, Router, route_config

MODES = ["2026-07-28", "legacy", "auto"]


@pytest.fixture(scope="module")
def provider():
    opened = Provider()
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def router(directory, demo, provider):
    opened = Router(directory, route_config([demo.target], {"mock": provider.url}))
    opened.wait_up()
    yield opened
    opened.stop()


def over(router, transport):
    url = router.web + "/mcp"
    return url if transport == "http" else StdioServerParameters(command=str(BIN), args=["mcp", "--url", url])


def with_client(target, mode, use):
    async def run():
        async with asyncio.timeout(CALL_LIMIT_S):
            async with Client(target, mode=mode) as client:
                return await use(client)

    return asyncio.run(run())


@pytest.mark.parametrize("transport", ["http", "stdio"])
@pytest.mark.parametrize("mode", MODES)
def test_an_agent_asks_the_local_model_and_then_the_frontier(router, provider, mode, transport):
    provider.forget()

    async def use(client):
        tools = await client.list_tools()
        assert {tool.name for tool in tools.tools} == {"complete", "route_explain", "escalate", "compare", "budget_status"}
        answer = await client.call_tool("complete", {"prompt": "Say something.", "max_tokens": 8, "temperature": 0})
        assert not answer.is_error, answer
        assert answer.structured_content["answered_by"]["provider"] == "local"
        assert answer.content[0].text == answer.structured_content["text"]
        assert provider.asked == []
        better = await client.call_tool("escalate", {"handle": answer.structured_content["handle"]})
        assert better.content[0].text == provider.usual.text
        assert better.structured_content["answered_by"]["provider"] == "mock"
        assert float(better.structured_content["answered_by"]["cost_usd"]) > 0
        assert provider.asked[0].body["messages"] == [{"role": "user", "content": "Say something."}]
        return client.protocol_version

    version = with_client(over(router, transport), mode, use)
    assert version == ("2025-11-25" if mode == "legacy" else "2026-07-28")


@pytest.mark.parametrize("mode", MODES[:2])
def test_everything_else_that_is_offered(router, provider, mode):
    provider.forget()

    async def use(client):
        explained = await client.call_tool("route_explain", {"prompt": "Why?", "route": "frontier"})
        assert not explained.is_error, explained
        assert provider.asked == []
        kept = await client.call_tool("complete", {"prompt": "Secret.", "privacy": "local_only", "max_tokens": 4})
        assert kept.structured_content["answered_by"]["provider"] == "local"
        refused = await client.call_tool("escalate", {"handle": kept.structured_content["handle"]})
        assert refused.is_error
        assert provider.asked == []
        compared = await client.call_tool("compare", {"prompt": "Which?", "models": ["local", "frontier"], "max_tokens": 4})
        by = [answer["answered_by"]["provider"] for answer in compared.structured_content["answers"]]
        assert by == ["local", "mock"]
        budget = await client.call_tool("budget_status", {})
        assert not budget.is_error, budget
        wrong = await client.call_tool("complete", {"messages": [{"role": "user"}]})
        assert wrong.is_error
        uris = [str(resource.uri) for resource in (await client.list_resources()).resources]
        for uri in uris + ["router://decisions/" + kept.structured_content["handle"]]:
            contents = (await client.read_resource(uri)).contents
            assert json.loads(contents[0].text)
        with pytest.raises(Exception, match="no resource"):
            await client.read_resource("router://nothing")
        with pytest.raises(Exception, match="no tool"):
            await client.call_tool("nothing", {})

    with_client(over(router, "http"), mode, use)
