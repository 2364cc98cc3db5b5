"""Cancellation when a client disconnects, and the server-sent events response that uses it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from starlette.background import BackgroundTask
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from calltune.serving.errors import APIError

FIRST_EVENT_SECONDS = 0.25
"""An error that comes within this time has a status of its own; then the response begins."""
KEEP_ALIVE_SECONDS = 3.0
"""A stream is never silent for longer."""
COMMENT = b": working\n\n"
"""A comment in the format of server-sent events, which clients skip."""

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


class EventStream:
    """Server-sent events that are waited for in parts, so that nothing is lost in between."""

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        """From a generator, which runs only while it is waited for or after that."""
        self._events = events
        self._next: asyncio.Task[bytes | None] | None = None

    async def wait(self, seconds: float) -> bool:
        """Whether the next event, the end or an error is there within `seconds`."""
        if self._next is None:
            self._next = asyncio.create_task(self._step())
        await asyncio.wait((self._next,), timeout=seconds)
        return self._next.done()

    def check(self) -> None:
        """Raise the error that is there in place of the next event, if one is."""
        if self._next is not None and self._next.done():
            self._next.result()

    def take(self) -> bytes | None:
        """The event that `wait` has found; None is the end. Raises what the generator raised."""
        assert self._next is not None and self._next.done()
        task, self._next = self._next, None
        return task.result()

    async def aclose(self) -> None:
        """Close the generator, whatever it is doing."""
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)
        await self._events.aclose()

    async def _step(self) -> bytes | None:
        return await anext(self._events, None)


class EventStreamResponse(Response):
    """Server-sent events, which are closed at once when the client disconnects.

    The headers are sent at once, and comments while there is no event: clients and proxies give up
    on a connection that is silent for long. An error is sent as the last event.

    Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: EventStream,
        error_events: Callable[[APIError], bytes],
        headers: Mapping[str, str],
    ) -> None:
        """`error_events` writes an error as events; `headers` are sent in addition."""
        streaming = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        super().__init__(headers={**streaming, **headers})
        del self.headers["content-length"]
        self.background: BackgroundTask | None = None
        self._events = events
        self._error_events = error_events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response; see https://asgi.readthedocs.io/en/latest/specs/www.html."""
        async with aclosing(self._events):
            with suppress(ClientDisconnect, OSError):
                await cancel_on_disconnect(receive, self._send(send))

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        wait_s = 0.0
        event: bytes | None = COMMENT
        while event is not None:
            event = await self._next_event(wait_s)
            wait_s = KEEP_ALIVE_SECONDS
            await send(_body_part(event or b"", is_last=event is None))

    async def _next_event(self, wait_s: float) -> bytes | None:
        if not await self._events.wait(wait_s):
            return COMMENT
        try:
            return self._events.take()
        except APIError as error:
            return self._error_events(error)


async def _disconnect(receive: Receive) -> None:
    """Return when the client disconnects."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _body_part(event: bytes, is_last: bool = False) -> Message:
    return {"type": "http.response.body", "body": event, "more_body": not is_last}
