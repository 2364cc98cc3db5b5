"""Clients that may go away while they are being answered."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

T = TypeVar("T")


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of some work, which is given up when the client goes away.

    Raises:
        ClientDisconnect: it has.
    """
    task, gone = asyncio.create_task(work), asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


class EventStream(Response):
    """Server-sent events; their source is closed in any case, and at once when nobody listens."""

    media_type = "text/event-stream"

    def __init__(self, first: bytes, more: AsyncGenerator[bytes, None]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.background: BackgroundTask | None = None
        self._first, self._more = first, more

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI: https://asgi.readthedocs.io/en/latest/specs/www.html."""
        async with aclosing(self._more):
            with suppress(ClientDisconnect, OSError):
                await unless_gone(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        await send(_part(self._first))
        async for event in self._more:
            await send(_part(event))
        await send(_part(b"", is_last=True))


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _part(event: bytes, is_last: bool = False) -> Message:
    return {"type": "http.response.body", "body": event, "more_body": not is_last}
