"""The MCP Python SDK against the router's MCP server: both protocols, over HTTP and over `bantam mcp`.

A door with a service that answers the same to everybody stands in for a router: tests/router/mcp_door.c."""

import asyncio
import subprocess

import pytest
from mcp import Client, StdioServerParameters
from mcp.shared.exceptions import MCPError

from conftest import BIN, CALL_LIMIT_S

DOOR = BIN.parent / "tests/router/mcp_door"
HI = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def door():
    with subprocess.Popen([str(DOOR)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        process.stdin.close()
        assert process.wait(timeout=CALL_LIMIT_S) == 0


def target(door, transport):
    if transport == "http":
        return f"{door}/mcp"
    return StdioServerParameters(command=str(BIN), args=["mcp", "--url", f"{door}/mcp"])


async def use_everything(client):
    tools = {tool.name for tool in (await client.list_tools()).tools}
    assert tools == {"complete", "route_explain", "escalate", "compare", "budget_status"}
    answer = await client.call_tool("complete", {"messages": HI, "route": "local", "max_cost_usd": 0.01})
    assert not answer.is_error and "Hello" in answer.content[0].text
    handle = answer.structured_content["handle"]
    again = await client.call_tool("escalate", {"handle": handle})
    assert not again.is_error and "Hello" in again.content[0].text
    both = await client.call_tool("compare", {"messages": HI, "models": ["a", "b"]})
    assert not both.is_error
    for name, arguments in (("route_explain", {"messages": HI}), ("budget_status", {})):
        assert not (await client.call_tool(name, arguments)).is_error
    assert (await client.call_tool("escalate", {"handle": "none"})).is_error
    resources = {str(resource.uri) for resource in (await client.list_resources()).resources}
    assert {"router://models", "router://prices", "router://engine/state"} <= resources
    for uri in sorted(resources):
        assert (await client.read_resource(uri)).contents[0].text.startswith("{")
    with pytest.raises(MCPError):
        await client.read_resource("router://nothing")


@pytest.mark.parametrize("mode", ["auto", "legacy"])
@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_sdk(door, transport, mode):
    async def talk():
        async with Client(target(door, transport), mode=mode) as client:
            expected = "2025-11-25" if mode == "legacy" else "2026-07-28"
            assert client.protocol_version == expected
            await use_everything(client)

    asyncio.run(asyncio.wait_for(talk(), CALL_LIMIT_S))


def test_calls_beside_each_other(door):
    async def talk():
        async with Client(target(door, "stdio")) as client:
            calls = [client.call_tool("complete", {"messages": HI}) for _ in range(20)]
            answers = await asyncio.gather(*calls)
            assert len({answer.structured_content["handle"] for answer in answers}) == 20

    asyncio.run(asyncio.wait_for(talk(), CALL_LIMIT_S))


def test_the_bridge_without_a_server():
    done = subprocess.run([str(BIN), "mcp", "--url", "http://127.0.0.1:1/mcp"], capture_output=True, text=True, check=False,
                          input='{"jsonrpc":"2.0","id":1,"method":"ping"}\n', timeout=CALL_LIMIT_S)
    assert done.returncode == 0 and '"id":1' in done.stdout and '"error"' in done.stdout
