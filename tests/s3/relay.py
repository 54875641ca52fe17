"""Passes connections to a port on to an S3 server, until it is killed: then the port refuses them. Prints "ready"."""

import asyncio
import sys
from contextlib import suppress


async def pour(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(1 << 16):
            sink.write(data)
            await sink.drain()
    sink.close()


async def main(port: int, upstream: str) -> None:
    host, _, there = upstream.removeprefix("http://").partition(":")

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(host, int(there))
        await asyncio.gather(pour(reader, requests), pour(answers, writer))

    async with await asyncio.start_server(relay, "127.0.0.1", port, backlog=128) as server:
        print("ready", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
