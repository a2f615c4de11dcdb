"""Every tool through a user's client: every.py sdk|fastmcp URL TOKEN CALLS WALK. Prints one JSON object.

CALLS is a JSON object of tool to arguments, WALK the arguments of a long `evo.content.descendants` with progress. What
is printed is what the client made of the answers; nothing in it names the database, the time or the process.
"""

import asyncio
import json
import sys
from contextlib import asynccontextmanager

import httpx2
from fastmcp import Client as FastClient
from fastmcp.client.transports import StreamableHttpTransport
from jsonschema import Draft202012Validator
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError


class Sdk:
    """The Python SDK."""

    def __init__(self, client):
        self.client = client

    @classmethod
    @asynccontextmanager
    async def connected(cls, url, token):
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(headers=headers, timeout=30) as http:
            async with Client(streamable_http_client(url, http_client=http), mode="legacy") as client:
                yield cls(client)

    def server(self):
        return self.client.protocol_version, self.client.server_info, self.client.server_capabilities

    async def tools(self):
        return (await self.client.list_tools()).tools

    async def call(self, tool, arguments, progress=None):
        return await self.client.call_tool(tool, arguments, progress_callback=progress)


class Fast:
    """fastmcp, which makes results of its own of the SDK's; those are asked for that hold the whole answer."""

    def __init__(self, client):
        self.client = client

    @classmethod
    @asynccontextmanager
    async def connected(cls, url, token):
        transport = StreamableHttpTransport(url, headers={"Authorization": f"Bearer {token}"})
        async with FastClient(transport, timeout=30) as client:
            yield cls(client)

    def server(self):
        hello = self.client.initialize_result
        return hello.protocol_version, hello.server_info, hello.capabilities

    async def tools(self):
        return await self.client.list_tools()

    async def call(self, tool, arguments, progress=None):
        return await self.client.call_tool_mcp(tool, arguments, progress_handler=progress)


def plain(model):
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


async def denied(client):
    """The SDK makes -32603 of a 403, in a group of errors or not."""
    try:
        await client.call("evo.write.document", {})
    except (MCPError, BaseExceptionGroup) as error:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        return error.code
    return None


async def main(kind, url, token, calls, walk):
    events = []

    async def progress(done, total, message):
        events.append([done, total])

    async with {"sdk": Sdk, "fastmcp": Fast}[kind].connected(url, token) as client:
        told = {"server": [part if isinstance(part, str) else plain(part) for part in client.server()]}
        told["tools"] = {tool["name"]: tool for tool in map(plain, await client.tools())}
        told["answers"] = {}
        for tool, arguments in json.loads(calls).items():
            schema = told["tools"][tool]["inputSchema"]
            Draft202012Validator.check_schema(schema)
            Draft202012Validator(schema).validate(arguments)
            result = plain(await client.call(tool, arguments))
            text = json.loads(result["content"][0]["text"])
            same = text == result["structuredContent"] and not result["isError"]
            told["answers"][tool] = {"structured": result["structuredContent"], "same": same}
        walked = await client.call("evo.content.descendants", json.loads(walk), progress)
        told["walked"] = {"structured": plain(walked)["structuredContent"], "progress": events}
        told["invalid"] = plain(await client.call("evo.content.get", {"id": "x"}))
        told["denied"] = await denied(client)
    print(json.dumps(told))


asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 60))
