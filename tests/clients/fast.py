"""fastmcp's client: fast.py URL TOKEN CALLS, where CALLS is a JSON object of tool to arguments. Prints one JSON object.

Each tool is called once; what came back is printed as the client read it.
"""

import asyncio
import json
import sys

from fastmcp import Client
from fastmcp.client.transports import StreamableHttpTransport
from fastmcp.exceptions import ToolError


async def main(url, token, calls):
    transport = StreamableHttpTransport(url, headers={"Authorization": f"Bearer {token}"})
    told = {}
    async with Client(transport, timeout=20) as client:
        told["ping"] = await client.ping()
        told["tools"] = [tool.name for tool in await client.list_tools()]
        told["resources"] = len(await client.list_resources())
        told["prompts"] = len(await client.list_prompts())
        told["answers"] = {}
        for tool, arguments in json.loads(calls).items():
            result = await client.call_tool(tool, arguments)
            text = json.loads(result.content[0].text)
            told["answers"][tool] = {"structured": result.structured_content, "same": text == result.structured_content}
        try:
            await client.call_tool("evo.content.get", {"id": "x"})
            told["invalid"] = None
        except ToolError as error:
            told["invalid"] = str(error)
    print(json.dumps(told))


asyncio.run(asyncio.wait_for(main(*sys.argv[1:]), 60))
