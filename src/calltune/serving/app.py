"""The endpoint: OpenAI's paths over a service, what went wrong as OpenAI's errors."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, NoReturn

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from calltune.schemas.tools import UnusableRow, check_json
from calltune.serving.access import Access, Guard
from calltune.serving.clients import EventStream, unless_gone
from calltune.serving.errors import Fault
from calltune.serving.metrics import Metrics
from calltune.serving.openapi import document
from calltune.serving.request_schema import ChatRequest
from calltune.serving.responses import Head, streamed, whole
from calltune.serving.service import Service
from calltune.types import Json

LARGE_BYTES = 64 << 10


def make_app(service: Service, access: Access) -> Starlette:
    """The application; it starts and stops the service."""
    endpoint = _Endpoint(service, access)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await service.start()
        yield
        await service.stop()

    return Starlette(
        routes=[
            Route("/v1/chat/completions", endpoint.chat, methods=["POST"]),
            Route("/v1/models", endpoint.models),
            Route("/v1/models/{model:path}", endpoint.model),
            Route("/health", endpoint.health),
            Route("/metrics", endpoint.metrics),
            Route("/openapi.json", endpoint.openapi),
        ],
        middleware=[Middleware(Guard, access=access)],
        exception_handlers={
            Fault: _fault,
            HTTPException: _http_fault,
            ClientDisconnect: _nobody_listens,
        },
        lifespan=lifespan,
    )


class _Endpoint:
    def __init__(self, service: Service, access: Access) -> None:
        self._service = service
        self._metrics = Metrics(service.engine)
        self._since = int(time.time())
        self._large = asyncio.Lock()
        self._document = document(needs_key=access.api_key is not None)

    async def chat(self, request: Request) -> Response:
        """An answer, whole or as a stream."""
        with self._metrics.request() as measured:
            limits = self._service.limits
            body = await _body(request, limits.body_bytes, limits.body_seconds)
            asked = await self._parsed(body)
            answers = await unless_gone(request.receive, self._service.ask(asked))
            head = Head(asked.model)
            if not asked.stream:
                return JSONResponse(
                    await unless_gone(request.receive, whole(answers, head, limits.seconds))
                )
            wants_usage = bool(asked.stream_options and asked.stream_options.include_usage)
            events = measured.following(streamed(answers, head, wants_usage, limits.seconds))
            # Until the first event a fault still has a status of its own.
            first = await unless_gone(request.receive, anext(events))
            return EventStream(first, events)

    async def models(self, _: Request) -> Response:
        """The names that a request may give as its model."""
        listed: list[Json] = [self._model_json(name) for name in self._service.models]
        return JSONResponse({"object": "list", "data": listed})

    async def model(self, request: Request) -> Response:
        """One of them."""
        name = request.path_params["model"]
        if name not in self._service.models:
            raise Fault(404, f"There is no model {name!r:.100}", "model", "model_not_found")
        return JSONResponse(self._model_json(name))

    async def health(self, _: Request) -> Response:
        """Whether the model is at work."""
        is_well = self._service.engine.is_alive
        return JSONResponse({"status": "ok" if is_well else "failed"}, 200 if is_well else 503)

    async def metrics(self, _: Request) -> Response:
        """Prometheus's text."""
        return Response(self._metrics.text(), media_type=self._metrics.media_type)

    async def openapi(self, _: Request) -> Response:
        """This endpoint as an OpenAPI document."""
        return JSONResponse(self._document)

    async def _parsed(self, body: bytes) -> ChatRequest:
        if len(body) < LARGE_BYTES:
            return _parse(body)
        # It would hold up everybody's events; in a thread, and one at a time, it does not.
        async with self._large:
            return await asyncio.to_thread(_parse, body)

    def _model_json(self, name: str) -> dict[str, Json]:
        return {"id": name, "object": "model", "created": self._since, "owned_by": "calltune"}


async def _body(request: Request, most: int, seconds: float) -> bytes:
    parts: list[bytes] = []
    n_bytes = 0
    try:
        async with asyncio.timeout(seconds), aclosing(request.stream()) as stream:
            async for part in stream:
                n_bytes += len(part)
                if n_bytes > most:
                    raise Fault(413, f"The body is larger than {most} bytes")
                parts.append(part)
    except TimeoutError:
        raise Fault(408, f"The body did not come within {seconds:g} seconds") from None
    return b"".join(parts)


def _parse(body: bytes) -> ChatRequest:
    try:
        data = check_json(json.loads(body, parse_constant=_no_constant))
    except (ValueError, RecursionError) as error:
        raise Fault(400, f"The body is not JSON ({error!s:.200})") from None
    except UnusableRow as error:
        raise Fault(400, f"The body cannot be used: {error}") from None
    if not isinstance(data, dict):
        raise Fault(400, "The body is no JSON object")
    try:
        return ChatRequest.model_validate(data)
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or None
        raise Fault(400, f"{place or 'The request'}: {first['msg']}", place) from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


async def _fault(_: Request, fault: Exception) -> Response:
    assert isinstance(fault, Fault)
    return JSONResponse(fault.body(), fault.status, fault.headers())


async def _http_fault(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    fault = Fault(error.status_code, error.detail)
    return JSONResponse(fault.body(), fault.status, error.headers)


async def _nobody_listens(_: Request, __: Exception) -> Response:
    return Response(status_code=499)
