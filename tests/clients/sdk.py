"""The Python MCP SDK as a user's client: sdk.py URL TOKEN legacy|auto. Prints one JSON object.

What the SDK made of each answer, and beside it what came over HTTP: the SDK folds every HTTP error into one.
"""

import asyncio
import json
import sys

import httpx2
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError


class Wire:
    """The answers to POST requests, in order."""

    def __init__(self):
        self.answers = []

    async def __call__(self, response):
        request = json.loads(response.request.content or b"{}")
        media = response.headers.get("content-type", "").split(";")[0]
        answer = {"method": request.get("method"), "status": response.status_code, "media": media}
        if response.status_code >= 400:
            await response.aread()
            answer["code"] = response.json()["error"]["code"]
            answer["retry_after"] = response.headers.get("retry-after")
        self.answers.append(answer)


def error_of(error):
    """The JSON-RPC code of an SDK error, also inside groups."""
    if isinstance(error, MCPError):
        return {"error": error.code, "message": error.message}
    if isinstance(error, BaseExceptionGroup):
        return error_of(error.exceptions[0])
    raise error


async def attempt(client, tool, arguments, progress=None):
    try:
        result = await client.call_tool(tool, arguments, progress_callback=progress)
    except (MCPError, BaseExceptionGroup) as error:
        return error_of(error)
    text = result.content[0].text if result.content else ""
    if result.is_error:
        return {"ok": False, "text": text}
    return {"ok": True, "items": len(json.loads(text).get("items", []))}


async def main(url, token, mode):
    wire = Wire()
    events = []

    async def progress(done, total, message):
        events.append([done, total])

    headers = {"Authorization": f"Bearer {token}"}
    hooks = {"response": [wire]}
    async with httpx2.AsyncClient(headers=headers, timeout=20, event_hooks=hooks) as http:
        async with Client(streamable_http_client(url, http_client=http), mode=mode) as client:
            told = {"tools": [tool.name for tool in (await client.list_tools()).tools]}
            traversal = {"id": 1001, "depth": 6, "limit": 1000, "offset": 0}
            told["call"] = await attempt(client, "evo.content.descendants", traversal, progress)
            told["quiet"] = await attempt(client, "evo.content.search", {"limit": 5, "offset": 0})
            told["denied"] = await attempt(client, "evo.write.document", {})
            told["unknown"] = await attempt(client, "evo.content.nothing", {})
            told["invalid"] = await attempt(client, "evo.content.get", {"id": "x"})
            told["limited"] = None
            for _ in range(40):
                answer = await attempt(client, "evo.content.root_tree", {"depth": 1})
                if "ok" not in answer:
                    told["limited"] = answer
                    break
    print(json.dumps({**told, "progress": events, "wire": wire.answers}))


asyncio.run(asyncio.wait_for(main(*sys.argv[1:4]), 60))
