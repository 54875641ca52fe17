"""The front that all travel services but ours share: starlette and uvicorn, the trip itself in a thread."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "travel"))

from travel_trip import Trip  # it lies with the example

Reserve = Callable[[str, str, str, str], Trip]
"""Key, guest, password, city."""


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A travel service over HTTP; the database is TRAVEL_DATABASE.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, default=40, help="trips at a time (%(default)s)")
    parser.add_argument("--system", default="", help="the database of the system itself, where it has one")
    return parser.parse_args()


def serve(reserve: Reserve, port: int, threads: int) -> None:
    """Serve until it is ended."""
    pool = ThreadPoolExecutor(threads)

    async def post(request: Request) -> JSONResponse:
        body, key = await request.json(), request.headers["idempotency-key"]
        loop = asyncio.get_running_loop()
        trip = await loop.run_in_executor(pool, reserve, key, body["guest"], body["password"], body["city"])
        return JSONResponse(asdict(trip))

    application = Starlette(routes=[Route("/flows/reserve", post, methods=["POST"])])
    uvicorn.run(application, host="127.0.0.1", port=port, log_level="warning", access_log=False)
