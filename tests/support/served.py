"""A web application on a real ASGI server, whose requests run sagas; see `tests/acceptance/test_uvicorn.py`.

`GET /<id>/<seconds>` runs a saga of that id whose second action takes so long, and answers with its output.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

from compensate import Coordinator, Stopped, action, saga


@action
async def first(seconds: float) -> float:
    return seconds


@action
async def second(seconds: float) -> float:
    await asyncio.sleep(seconds * float(os.environ.get("SERVED_PACE", "1")))
    return seconds


@saga
def job(seconds: float) -> float:
    return second(first(seconds))


running: list[Coordinator] = []


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    _, saga_id, seconds = scope["path"].split("/")
    try:
        output = await running[0].run(job.with_id(saga_id), float(seconds))
        status, body = 200, str(output)
    except Stopped as error:
        status, body = 503, str(error)
    headers = [(b"connection", b"close"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})


async def lifespan(receive: Any, send: Any) -> None:
    await receive()
    url = os.environ["SERVED_STORE"]
    async with Coordinator(url, sagas=[job], stop_on=[signal.SIGTERM, signal.SIGINT], drain=0.5) as c:
        running.append(c)
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})
