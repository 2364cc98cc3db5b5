"""Cancellation when a client disconnects, and the server-sent events response that uses it."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

T = TypeVar("T")


async def cancel_on_disconnect(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of some work, which is cancelled when the client disconnects.

    Raises:
        ClientDisconnect: the client disconnected before the work was done.
    """
    task, gone = asyncio.create_task(work), asyncio.create_task(_disconnect(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


class EventStreamResponse(Response):
    """Server-sent events from a generator, which is closed at once when the client disconnects.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
    """

    media_type = "text/event-stream"

    def __init__(self, first: bytes, more: AsyncGenerator[bytes, None]) -> None:
        """From the first event, which is there already, and the generator of the others."""
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.background: BackgroundTask | None = None
        self._first, self._more = first, more

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response; see https://asgi.readthedocs.io/en/latest/specs/www.html."""
        async with aclosing(self._more):
            with suppress(ClientDisconnect, OSError):
                await cancel_on_disconnect(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        await send(_body_part(self._first))
        async for event in self._more:
            await send(_body_part(event))
        await send(_body_part(b"", is_last=True))


async def _disconnect(receive: Receive) -> None:
    """Return when the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _body_part(event: bytes, is_last: bool = False) -> Message:
    return {"type": "http.response.body", "body": event, "more_body": not is_last}
