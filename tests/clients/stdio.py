"""The Python MCP SDK over standard input and output: stdio.py COMMAND ARGUMENT... Prints one JSON object."""

import asyncio
import json
import sys

from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.shared.exceptions import MCPError


async def attempt(client, tool, arguments, progress=None):
    try:
        result = await client.call_tool(tool, arguments, progress_callback=progress)
    except MCPError as error:
        return {"error": error.code, "message": error.message, "data": error.data}
    return {"ok": not result.is_error, "structured": result.structured_content}


async def main(command, *arguments):
    events = []

    async def progress(done, total, message):
        events.append([done, total])

    server = StdioServerParameters(command=command, args=list(arguments), env={"PATH": "/usr/bin:/bin"})
    async with Client(stdio_client(server)) as client:
        told = {"tools": [tool.name for tool in (await client.list_tools()).tools]}
        told["get"] = await attempt(client, "evo.content.get", {"id": 3})
        told["denied"] = await attempt(client, "evo.write.document", {})
        told["walk"] = await attempt(client, "evo.content.search", {"limit": 60, "offset": 0}, progress)
        many = [attempt(client, "evo.content.get", {"id": 1 + index % 12}) for index in range(20)]
        told["many"] = [answer.get("ok") for answer in await asyncio.gather(*many)]
    print(json.dumps({**told, "progress": events}))


asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 60))
