"""The Python MCP SDK as a user's client: sdk.py URL TOKEN legacy|auto. Prints one JSON object."""

import asyncio
import json
import sys

import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client


async def attempt(client, tool, arguments, progress=None):
    try:
        result = await client.call_tool(tool, arguments, progress_callback=progress)
    except BaseException as error:  # the SDK raises groups as well; the test judges what came
        if isinstance(error, (KeyboardInterrupt, asyncio.CancelledError)):
            raise
        return f"{type(error).__name__}"
    return "error" if result.is_error else "ok"


async def main(url, token, mode):
    events = []

    async def progress(done, total, message):
        events.append(done)

    headers = {"Authorization": f"Bearer {token}"}
    async with httpx2.AsyncClient(headers=headers, timeout=20) as http:
        async with Client(streamable_http_client(url, http_client=http), mode=mode) as client:
            tools = [tool.name for tool in (await client.list_tools()).tools]
            call = await attempt(client, "evo.content.search", {"limit": 5, "offset": 0}, progress)
            denied = await attempt(client, "evo.write.document", {})
            limited = "none"
            for _ in range(40):
                limited = await attempt(client, "evo.content.root_tree", {"depth": 1})
                if limited != "ok":
                    break
    print(json.dumps({"tools": tools, "call": call, "denied": denied, "limited": limited, "progress": events}))


asyncio.run(asyncio.wait_for(main(*sys.argv[1:4]), 60))
